"""One-line mutants of Python source: where a text can be changed, and by what.

A *place* is one node of the syntax tree with the texts that may stand there instead; a mutant is a
place with one of them. Nothing is changed that only gives names (f-strings, `name=`), that only
checks (`assert`, `raise`), that only annotates functions, or that lets a register be without reset
(`reset_less=`: a reset where none is needed is no mistake).
"""

import ast
import hashlib
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

#: Modules that rewrite text for the speed of simulation, or only export: not RTL.
NOT_RTL = {"__init__", "blackbox", "lazy", "onestep", "verilog"}

_BINARY = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "|"), ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"),
    ast.Mult: ("*", "+"), ast.FloorDiv: ("//", "*"),
}  # fmt: skip
_COMPARE = {
    ast.Eq: ("==", ("!=",)), ast.NotEq: ("!=", ("==",)), ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")), ast.Gt: (">", (">=", "<=")), ast.GtE: (">=", (">", "<")),
}  # fmt: skip
_NAMES = {"any": "all", "all": "any", "min": "max", "max": "min"}
_SKIPPED_KEYWORDS = {"name", "src_loc_at", "reset_less"}
_SKIPPED_NODES = (ast.JoinedStr, ast.Assert, ast.Raise, ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class Place:
    """Bytes `start` to `end` of file `module`.py, and what may stand there instead."""

    module: str
    line: int
    kind: str
    start: int
    end: int
    news: tuple[str, ...]


@dataclass(frozen=True)
class Mutant:
    """A place with one of its texts; `key` names it as long as its line stays what it is."""

    key: str
    module: str
    line: int
    kind: str
    old_line: str
    new_line: str
    text: str

    @property
    def where(self) -> str:
        """File and line."""
        return f"hw/{self.module}.py:{self.line}"


class _Finder:
    """Walks a module's tree and collects its places."""

    def __init__(self, module: str, source: str):
        self.module, self.raw, self.places = module, source.encode(), []
        self.starts = [0]
        for line in self.raw.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.walk(ast.parse(source))

    def span(self, node: ast.AST) -> tuple[int, int]:
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def text(self, node: ast.AST) -> str:
        low, high = self.span(node)
        return self.raw[low:high].decode()

    def add(self, node: ast.AST, kind: str, *news: str, span: tuple[int, int] | None = None):
        low, high = span or self.span(node)
        line = self.raw.count(b"\n", 0, low) + 1
        self.places.append(Place(self.module, line, kind, low, high, news))

    def between(self, left: ast.AST, right: ast.AST, old: str) -> tuple[int, int]:
        """Where the operator between two operands stands."""
        low, high = self.span(left)[1], self.span(right)[0]
        at = re.search(rb"(?<![<>=!])" + re.escape(old.encode()), self.raw[low:high])
        return low + at.start(), low + at.end()

    def walk(self, node: ast.AST) -> None:
        if isinstance(node, _SKIPPED_NODES):
            return
        if isinstance(node, ast.keyword) and node.arg in _SKIPPED_KEYWORDS:
            return
        method = getattr(self, f"on_{type(node).__name__}", None)
        if method is not None:
            method(node)
        for name, value in ast.iter_fields(node):
            if isinstance(node, ast.FunctionDef) and name in ("returns", "decorator_list"):
                continue
            if isinstance(node, ast.arg) and name == "annotation":
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self.walk(child)

    def on_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in _BINARY:
            old, new = _BINARY[type(node.op)]
            self.add(node, "operator", new, span=self.between(node.left, node.right, old))

    def on_Compare(self, node: ast.Compare) -> None:
        if len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            old, news = _COMPARE[type(node.ops[0])]
            span = self.between(node.left, node.comparators[0], old)
            self.add(node, "comparison", *news, span=span)

    def on_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        self.add(node, "operator", new, span=self.between(*node.values[:2], old))

    def on_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Invert | ast.Not):
            self.add(node, "negation", f"({self.text(node.operand)})")

    def on_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.add(node, "boolean", str(not node.value))
        elif isinstance(node.value, int):
            less = f"({node.value - 1})" if node.value < 1 else str(node.value - 1)
            self.add(node, "constant", str(node.value + 1), less)

    def on_IfExp(self, node: ast.IfExp) -> None:
        arms = f"({self.text(node.orelse)}) if {self.text(node.test)} else "
        self.add(node, "arms", f"({arms}({self.text(node.body)}))")

    def on_Slice(self, node: ast.Slice) -> None:
        low, high = (f"({self.text(x)}) + 1" if x else "" for x in (node.lower, node.upper))
        if node.step is None and (low or high):
            self.add(node, "slice", f"{low or '1'}:{high}")

    def on_Call(self, node: ast.Call) -> None:
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in ("If", "Elif") and len(node.args) == 1:
            self.add(node.args[0], "condition", f"~({self.text(node.args[0])})")
        elif name == "Mux" and len(node.args) == 3:
            test, yes, no = map(self.text, node.args)
            self.add(node, "arms", f"Mux({test}, {no}, {yes})")
        elif name == "eq" and len(node.args) == 1:
            self.add(node, "dropped", "[]")
        elif name in _NAMES:
            high = self.span(node.func)[1]
            self.add(node.func, "function", _NAMES[name], span=(high - len(name), high))


def places(module: str, source: str) -> list[Place]:
    """All places of one module, from top to bottom."""
    return sorted(_Finder(module, source).places, key=lambda p: (p.start, p.end, p.kind))


def apply(place: Place, new: str, source: str) -> Mutant:
    """The mutant with the text `new` at a place."""
    raw = source.encode()
    text = (raw[: place.start] + new.encode() + raw[place.end :]).decode()
    lines = raw[: place.end].count(b"\n") + 1  # a place may span lines; what matters is its text
    old_line = " ".join(s.strip() for s in source.split("\n")[place.line - 1 : lines])
    tail = len(source.split("\n")) - lines
    changed = text.split("\n")
    new_line = " ".join(s.strip() for s in changed[place.line - 1 : len(changed) - tail])
    return Mutant("", place.module, place.line, place.kind, old_line, new_line, text)


def sources(folder: Path) -> dict[str, str]:
    """Module -> text of the RTL's modules in `hw/`."""
    files = sorted(path for path in folder.glob("*.py") if path.stem not in NOT_RTL)
    return {path.stem: path.read_text() for path in files}


def draw(texts: dict[str, str], seed: int) -> list[Mutant]:
    """One mutant for each place, in random order: uniform over all places."""
    rng = random.Random(f"tilewright mutants {seed}")
    found = [(p, rng.choice(p.news)) for m in sorted(texts) for p in places(m, texts[m])]
    seen: Counter[str] = Counter()
    out = []
    for place, new in found:
        made = apply(place, new, texts[place.module])
        base = hashlib.sha256(f"{made.old_line}\n{made.new_line}".encode()).hexdigest()[:8]
        name = f"{place.module}-{base}"
        seen[name] += 1
        again = f"-{seen[name]}" if seen[name] > 1 else ""
        out.append(Mutant(f"{name}{again}", *list(vars(made).values())[1:]))
    rng.shuffle(out)
    return out
