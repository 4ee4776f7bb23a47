"""Rewrite Yosys' Verilog so that a simulator computes logic only where it is used.

Yosys writes one ``assign`` per operator, and a register with an enable as a multiplexer in an
``always @*`` that copies the old value. A simulator then computes all operands and copies all
registers in every cycle. Here such a pair becomes one clocked block, and logic that only one branch
of one block reads moves into that branch, as automatic variables. The function is the same.
What is not recognised stays as it is.
"""

import re
from dataclasses import dataclass, field

from tilewright.hw.onestep import names

_WIRE = re.compile(r"  (?:wire|reg) (\[\d+:0\] )?(\S+) ?;$")
_PORT = re.compile(r"  (?:input|output) (?:\[\d+:0\] )?(\S+) ?;$")
_ASSIGN = re.compile(r"  assign (\\\S+ |\w+) ?= (.*);$")
_CLOCK = re.compile(r"  always @\(posedge (\S+)\)$")
_PLAIN = re.compile(r"    (\\\S+ |\w+) ?<= (\\\S+ |\w+) ?;$")
_SET = re.compile(r"(\\\S+ |\w+) ?(\[[\d:]+\])? ?= (.*);$")
_IF = re.compile(r"if \((.*)\) begin$")
_ELSE_IF = re.compile(r"end else if \((.*)\) begin$")
_CASE = re.compile(r"(casez?) \((.*)\)$")
_LABEL = re.compile(r"([^=]*):$")


class _Unknown(Exception):
    """A line that this module does not understand."""


@dataclass
class _Set:
    target: str
    part: str
    value: str

    def __post_init__(self):
        self.all_reads = names(self.value)


@dataclass
class _Branch:
    """``if`` or ``case``: texts that open the arms, and the arms' statements.

    `reads`: what the conditions read; `all_reads`: and the arms.
    """

    head: str
    heads: list
    arms: list

    def __post_init__(self):
        self.reads = names(" ".join([self.head, *self.heads]))
        self.all_reads = self.reads.union(*map(_reads, self.arms))


@dataclass
class _Block:
    """One process, or one ``assign``; `clock` empties for combinational logic."""

    target: str
    body: list
    clock: str = ""
    variables: list = field(default_factory=list)


def _parse_list(lines, at):
    """Statements from line `at` to a line that closes them; (statements, where that line is)."""
    out = []
    while True:
        line = lines[at]
        if line in ("end", "endcase") or line.startswith("end else "):
            return out, at
        statement, at = _parse_one(lines, at)
        if statement is not None:
            out.append(statement)


def _parse_one(lines, at):
    line = lines[at]
    if line.startswith("(*") or line == "/* empty */;" or "dump_module" in line:
        return None, at + 1
    if match := _IF.match(line):
        heads, arms = [f"if ({match[1]})"], []
        while True:
            arm, at = _parse_list(lines, at + 1)
            arms.append(arm)
            if match := _ELSE_IF.match(lines[at]):
                heads.append(f"else if ({match[1]})")
            elif lines[at] == "end else begin":
                heads.append("else")
            elif lines[at] == "end":
                return _Branch("", heads, arms), at + 1
            else:
                raise _Unknown(lines[at])
    if match := _CASE.match(line):
        heads, arms, at = [], [], at + 1
        while lines[at] != "endcase":
            label = _LABEL.match(lines[at])
            if label is None:
                raise _Unknown(lines[at])
            if lines[at + 1] == "begin":
                arm, at = _parse_list(lines, at + 2)
                at += 1
            else:
                at += 1
                while lines[at].startswith("(*"):
                    at += 1
                one, at = _parse_one(lines, at)
                arm = [] if one is None else [one]
            heads.append(f"{label[1]}:")
            arms.append(arm)
        return _Branch(f"{match[1]} ({match[2]})", heads, arms), at + 1
    if match := _SET.match(line):
        return _Set(match[1].strip(), match[2] or "", match[3]), at + 1
    raise _Unknown(line)


def _reads(body):
    return set().union(*(s.all_reads for s in body))


def _targets(body):
    out = set()
    for s in body:
        out |= {s.target} if isinstance(s, _Set) else set().union(*map(_targets, s.arms))
    return out


def _insert(body, block, top=True):
    """Put `block` into the innermost statement list that holds all reads of its target.

    Not if that is the whole process. Returns whether it was put.
    """
    name = block.target
    users = [i for i, s in enumerate(body) if name in s.all_reads]
    s = body[users[0]]
    if len(users) == 1 and isinstance(s, _Branch) and name not in s.reads:
        arms = [arm for arm in s.arms if any(name in t.all_reads for t in arm)]
        if len(arms) == 1:
            _insert(arms[0], block, top=False)
            s.all_reads |= _reads(block.body)
            return True
    if not top:
        body[users[0] : users[0]] = block.body
    return not top


def _spell(name):
    return name + " " if name.startswith("\\") else name


def _write(body, indent, arrow):
    out = []
    for s in body:
        if isinstance(s, _Set):
            how = arrow.get(s.target, "=")
            out.append(f"{indent}{_spell(s.target)}{s.part} {how} {s.value};")
            continue
        if s.head:
            out.append(indent + s.head)
        for head, arm in zip(s.heads, s.arms, strict=True):
            out.append(f"{indent}{head} begin")
            out += _write(arm, indent + "  ", arrow)
            out.append(f"{indent}end")
        if s.head:
            out.append(f"{indent}endcase")
    return out


def _fuse(blocks, registers, readers):
    """Merge a register with the process that computes its next value."""
    by_target = {b.target: b for b in blocks}
    left = []
    for clock, name, value in registers:
        block = by_target.get(value)
        if (
            block is None
            or block.clock
            or readers.get(value) != 1
            or value in _reads(block.body)
            or not any(isinstance(s, _Branch) for s in block.body)
        ):
            left.append((clock, name, value))
            continue

        def rename(body, value=value, name=name):
            for s in body:
                if isinstance(s, _Set):
                    s.target = name if s.target == value else s.target
                else:
                    for arm in s.arms:
                        rename(arm)

        rename(block.body)
        first = block.body[0]
        if isinstance(first, _Set) and not first.part and first.value.strip() == name:
            del block.body[0]
        block.target, block.clock = name, clock
    return left


def _users(blocks):
    """Name -> ids of the blocks that read it."""
    users = {}
    for block in blocks:
        for name in _reads(block.body):
            users.setdefault(name, set()).add(id(block))
    return users


def _read(blocks, opaque):
    """Without the logic that nobody reads: Yosys keeps it for its name."""

    def read(block):
        return block.clock or block.target in opaque or block.target in users

    users = _users(blocks)
    while not all(map(read, blocks)):
        blocks = list(filter(read, blocks))
        users = _users(blocks)
    return blocks


def _sink(blocks, widths, opaque):
    """Move what only one branch of one block reads into it; return the blocks that remain."""
    users = _users(blocks)
    blocks_by_id = {id(b): b for b in blocks}
    gone, todo = set(), [b for b in blocks if not b.clock]
    moved = True
    while moved:
        moved = False
        for block in todo:
            name = block.target
            who = users.get(name, set())
            if id(block) in gone or name in opaque or name not in widths or len(who) != 1:
                continue
            user = blocks_by_id[next(iter(who))]
            if user is block:
                continue
            if not _insert(user.body, block):
                continue
            user.variables += [name, *block.variables]
            gone.add(id(block))
            moved = True
            for read in _reads(block.body):
                users[read].discard(id(block))
                users[read].add(id(user))
    return [b for b in blocks if id(b) not in gone]


def lazy(text, keep_names=False):
    """Rewrite the Verilog `text`, module by module.

    `keep_names` : keep logic that has a name but no reader, for waves.
    """
    parts = re.split(r"(?m)^(?=module )|(?<=^endmodule\n)", text)
    return "".join(_module(p, keep_names) if p.startswith("module ") else p for p in parts)


def _module(text, keep_names):
    lines = text.split("\n")
    widths, blocks, registers, rest = {}, [], [], []
    ports, at = set(), 0
    while at < len(lines):
        line = lines[at]
        if match := _ASSIGN.match(line):
            name = match[1].strip()
            blocks.append(_Block(name, [_Set(name, "", match[2])]))
        elif line == "  always @* begin":
            end = lines.index("  end", at)
            try:
                body, _ = _parse_list([s.strip() for s in lines[at + 1 : end + 1]], 0)
                (target,) = _targets(body)
            except (_Unknown, ValueError):
                rest += lines[at : end + 1]
            else:
                blocks.append(_Block(target, body))
            at = end
        elif (match := _CLOCK.match(line)) and (plain := _PLAIN.match(lines[at + 1])):
            registers.append((match[1], plain[1].strip(), plain[2].strip()))
            at += 1
        else:
            if match := _WIRE.match(line):
                widths[match[2]] = match[1] or ""
            elif match := _PORT.match(line):
                ports.add(match[1])
            rest.append(line)
        at += 1
    return _emit(rest, widths, ports, blocks, registers, keep_names)


def _emit(rest, widths, ports, blocks, registers, keep_names):
    other = [s for s in rest if not _WIRE.match(s) and not _PORT.match(s)]
    opaque = ports | names("\n".join(other))
    readers = {}
    for block in blocks:
        for name in _reads(block.body):
            readers[name] = readers.get(name, 0) + 1
    for _, _, value in registers:
        readers[value] = readers.get(value, 0) + 1
    for name in opaque:
        readers[name] = 2
    registers = _fuse(blocks, registers, readers)
    opaque |= {value for _, _, value in registers}
    declared = {b.target for b in blocks}
    if not keep_names:
        blocks = _read(blocks, opaque)
    unread = declared - {b.target for b in blocks}
    blocks = _sink(blocks, widths, opaque)
    inside = unread.union(*(b.variables for b in blocks))
    end = max(i for i, s in enumerate(rest) if s == "endmodule")
    kept = [s for s in rest[:end] if not ((match := _WIRE.match(s)) and match[2] in inside)]
    for n, block in enumerate(blocks):
        if not block.clock and len(block.body) == 1 and isinstance(block.body[0], _Set):
            kept.append(f"  assign {_spell(block.target)} = {block.body[0].value};")
            continue
        event = f"@(posedge {block.clock})" if block.clock else "@*"
        kept.append(f"  always {event} begin : lazy{n}")
        kept += [f"    automatic reg {widths[v]}{_spell(v)};" for v in block.variables]
        kept += _write(block.body, "    ", {block.target: "<="} if block.clock else {})
        kept.append("  end")
    kept += [f"  always @(posedge {c})\n    {_spell(x)} <= {_spell(y)};" for c, x, y in registers]
    return "\n".join(kept + rest[end:])
