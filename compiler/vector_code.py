"""Micro-kernels: the operations of a term in words, with registers.

Constants are sources (0, 1.0, the scalars u and v), else registers of `init` while there are
enough, else words before each use. What is the same for a whole row is computed in its head. A load
goes into the word before its first use, or an earlier one whose load slot is free; the result is
stored by a word of its own at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tilewright.compiler import core
from tilewright.compiler.kernels import View
from tilewright.compiler.terms import Term
from tilewright.compiler.vector_lower import BODY, HEAD, TAIL, Kind, Recorder, Result, lower
from tilewright.compiler.vector_reduce import How
from tilewright.isa.micro import REGISTERS, SOURCES, MicroOp, encode_micro
from tilewright.isa.micro_rules import COUNTED, READS, check_kernel
from tilewright.isa.units import LOAD_STREAMS, SECTIONS, STORE_STREAMS, VECTOR

_FIELDS = {f.name: f for f in VECTOR}
LIMITS = {name: _FIELDS[name].high for name in SECTIONS}
SCALARS = ("u", "v")


@dataclass(frozen=True)
class MicroKernel:
    """Words, how many each section has, and the scalar operands."""

    words: tuple[MicroOp, ...]
    lengths: dict[str, int]
    scalars: dict[str, int]

    @property
    def code(self) -> bytes:
        """The words as they lie in memory."""
        return b"".join(map(encode_micro, self.words))


class _NoRegisters(Exception):
    """Too few registers."""


class _NoWords(Exception):
    """Too many words."""


@dataclass
class _Word:
    """One word: an ALU operation, a load, and what is stored."""

    alu: Result | None = None
    load: Result | None = None
    store: Result | None = None
    stream: int = 0

    def reads(self) -> list[Result]:
        return [*(self.alu.args if self.alu else ()), *([self.store] if self.store else [])]


def kind_of(view: View) -> Kind:
    """Of a view (rows, columns): one element for each row, or one for each element."""
    one = view.strides[1] == 0 and view.shape[1] > 1
    return (HEAD, True) if one else (BODY, False)


def micro_kernel(roots: Sequence[Term], kinds: Sequence[Kind], how: How) -> MicroKernel | None:
    """The micro-kernel of terms, or None if VECTOR has too few words or registers for it.

    Each term is stored, the first one to stream o, the second one to stream p: for each unit, or,
    if it has a reduction, once for each row.

    Parameters
    ----------
    kinds : by number of an input, its level, and whether it has one element, for all lanes.
    """
    if len(kinds) > len(LOAD_STREAMS) or len(roots) > len(STORE_STREAMS):
        return None
    return _compiled(tuple(roots), tuple(kinds), how)


@lru_cache(maxsize=256)
def _compiled(roots: tuple[Term, ...], kinds: tuple[Kind, ...], how: How) -> MicroKernel | None:
    recorder, results = lower(roots, kinds, how)
    results = [
        _unrounded(recorder, x) if root.dtype == core.bfloat16 else x  # the store rounds
        for x, root in zip(results, roots, strict=True)
    ]
    results = [recorder.run("mov", x) if not x.args and x.name != "load" else x for x in results]
    ops = _reachable(recorder, results)
    uses = Counter(a for op in ops for a in op.args if a.name == "const")
    constants = [c for c, _ in uses.most_common()]
    taken = any(a.name == "v" for op in ops for a in op.args)
    scalars = SCALARS[: len(SCALARS) - taken]
    least = min(len(constants), len(scalars))
    for kept in range(min(len(constants), LIMITS["init"] + len(scalars)), least - 1, -1):
        try:
            return _allocated(ops, results, constants[:kept], scalars)
        except _NoWords:  # with fewer registers for constants there are more words
            return None
        except _NoRegisters:
            continue
    return None


def _unrounded(r: Recorder, x: Result) -> Result:
    """What becomes x when it is rounded to bfloat16: rounding keeps order and signs."""
    if x.name == "f32_bf16":
        return x.args[0]
    if x.name in ("max_f32", "min_f32", "abs_f32", "neg_f32"):
        return r.run(x.name, *(_unrounded(r, a) for a in x.args))
    return x


def _reachable(recorder: Recorder, roots: list[Result]) -> list[Result]:
    needed, found = set(roots), []
    for op in reversed(recorder.results):
        if op in needed:
            needed.update(op.args)
            found.append(op)
    return found[::-1]


def _allocated(ops: list[Result], roots: list[Result], kept: list[Result],
               names: tuple[str, ...]) -> MicroKernel:  # fmt: skip
    scalars = dict(zip(names, kept, strict=False))
    init = kept[len(names) :]
    head = _Builder(ops, set(kept), HEAD)
    body = _Builder(ops, set(kept), BODY, head.renamed)
    tail = _Builder(ops, set(kept), TAIL, body.renamed)
    for number, root in enumerate(roots, 1):
        (tail if root.level == TAIL else body).store(root, number)
    sections = {"init": [_Word(c) for c in init], "head": head.words(), "body": body.words(),
                "tail": tail.words()}  # fmt: skip
    lengths = {name: len(sections.get(name, ())) for name in SECTIONS}
    if any(lengths[name] > LIMITS[name] for name in SECTIONS):
        raise _NoWords
    registers = _Registers(sections["head"], sections["body"], sections["tail"], init)
    numbers = {c: SOURCES[name] for name, c in scalars.items()}
    out: list[MicroOp] = []
    for words in sections.values():
        out += registers.encode(words, numbers)
    loaded = {LOAD_STREAMS[op.n] for op in ops if op.name == "load"}
    check_kernel(out, lengths, loaded | set(STORE_STREAMS[: len(roots)]))
    return MicroKernel(tuple(out), lengths, {name: c.n for name, c in scalars.items()})


class _Builder:
    """The words of the operations of one level, in order.

    `renamed` is, for each operation so far, the one that has its arguments renamed, too.
    """

    def __init__(self, ops: list[Result], kept: set[Result], level: int,
                 renamed: dict[Result, Result] | None = None):  # fmt: skip
        self.level, self.list = level, list[_Word]()
        self.first: dict[Result, int] = {}
        self.renamed = dict(renamed or {})
        for op in ops:
            if op.level == level and op.args:
                made = self._with_args(op, kept)
                self.list.append(_Word(made, made.beside))
                for a in op.args:
                    self._used(a)

    def _with_args(self, op: Result, kept: set[Result]) -> Result:
        args = []
        for a in op.args:
            used = self.renamed.get(a, a)
            if a.name == "const" and a not in kept:
                used = Result("const", (), a.n)  # a register of its own, for this use
                self.list.append(_Word(used))
            args.append(used)
        into = self.renamed[op.into] if op.into else None
        load = op.beside
        if load is not None and load.into is not None:
            moved = Result(load.name, (), load.n, load.level, self.renamed[load.into])
            self.renamed[load] = load = moved
        self.renamed[op] = Result(op.name, tuple(args), op.n, op.level, into, load)
        return self.renamed[op]

    def _used(self, a: Result) -> None:
        if a.name == "load" and a.level == self.level:
            self.first.setdefault(a, len(self.list) - 1)

    def store(self, root: Result, stream: int) -> None:
        """A word behind all loads, and behind the operation that makes it, stores a result."""
        kept = self.renamed.get(root, root)
        made = [at for at, word in enumerate(self.list) if kept in (word.alu, word.load)]
        first = max((*made, *(at - 1 for at in self.first.values())), default=-1) + 1
        free = (w for w in self.list[first:] if w.store is None and root.args)
        word = next(free, None) if made else None
        if word is None:
            word = _Word()
            self.list.append(word)
        word.store, word.stream = kept, stream
        self._used(root)

    def words(self) -> list[_Word]:
        """The words with their loads: each in the last free slot before its first use."""
        words, spare = list(self.list), 0
        places: dict[int, Result] = {}
        for load, at in sorted(self.first.items(), key=lambda item: -item[1]):
            place = at - 1
            while place in places or (place >= 0 and words[place].load is not None):
                place -= 1
            places[place] = load
            spare = max(spare, -place)
        words = [_Word() for _ in range(spare)] + words
        for place, load in places.items():
            words[place + spare].load = load
        return words


def _owner(x: Result) -> Result:
    """The result whose register a result has."""
    return x.into or x


class _Registers:
    """Registers by linear scan over head, body and tail; what init has stays.

    What the head leaves for the body stays, too: the body runs again.
    """

    def __init__(self, head: list[_Word], body: list[_Word], tail: list[_Word],
                 init: list[Result]):  # fmt: skip
        self.number: dict[Result, int] = {}
        self.free = list(range(REGISTERS - 1, -1, -1))
        for c in init:
            self._take(c)
        words = [*head, *body, *tail]
        made = {x: at for at, w in enumerate(words) for x in (w.alu, w.load) if x is not None}
        last: dict[Result, int] = {}
        for at, word in enumerate(words):
            for x in map(_owner, word.reads()):
                again = len(head) <= at < len(head) + len(body) and made.get(x, -1) < len(head)
                last[x] = len(words) if again else max(at, last.get(x, 0))
        for at, word in enumerate(words):
            for x in dict.fromkeys(map(_owner, word.reads())):
                if last[x] == at and x in self.number and x not in init:
                    self.free.append(self.number[x])
            for made_here in (word.alu, word.load):
                if made_here is not None and made_here.into is not None:
                    self.number[made_here] = self.number[made_here.into]
                elif made_here is not None:
                    self._take(made_here)

    def _take(self, x: Result) -> None:
        if not self.free:
            raise _NoRegisters
        self.number[x] = self.free.pop()

    def encode(self, words: list[_Word], numbers: dict[Result, int]) -> list[MicroOp]:
        """The micro-operations of words."""
        return [self._encoded(w, numbers) for w in words]

    def _source(self, x: Result, numbers: dict[Result, int]) -> int:
        special = SOURCES.get(x.name)
        if special is not None:
            return special
        return numbers[x] if x in numbers else self.number[x]

    def _encoded(self, word: _Word, numbers: dict[Result, int]) -> MicroOp:
        fields: dict[str, int] = {}
        name = "nop"
        if word.alu is not None:
            name = word.alu.name
            fields["dst"] = self.number[word.alu]
            if name == "const":
                fields["imm"] = word.alu.n
            for letter, a in zip(READS[name], word.alu.args, strict=True):
                fields[letter] = self._source(a, numbers)
            if name in COUNTED:
                fields["n"] = word.alu.n
        if word.load is not None:
            fields |= {"load": 1 + word.load.n, "load_dst": self.number[word.load]}
        if word.store is not None:
            fields |= {"store": word.stream, "store_src": self.number[word.store]}
        return MicroOp.make(name, **fields)
