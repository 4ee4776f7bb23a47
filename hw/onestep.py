"""Rewrite a feed-forward module's Verilog as one clocked block, for the speed of its simulation.

Yosys writes one ``assign`` per cell and one ``always`` per register, so a simulator keeps every
intermediate value in memory. Here all logic moves into a single ``always @(posedge)`` block:
intermediate values become automatic variables, and registers are assigned (blocking) only after
everything that reads their old value. Registers that leave the module keep ``<=``. The module's
function is the same; it needs SystemVerilog's ``automatic`` and no loop between registers.
"""

import re
from dataclasses import dataclass, field

_DECLARATION = re.compile(r"  (input|output|wire|reg) (\[\d+:0\] )?(\S+) ?( = .*)?;$")
_REGISTER = re.compile(r"(\S+) ?<= (.*);$")
_BLOCKING = re.compile(r"(\S+ ?(?:\[[\d:]+\])?) = (.*);$")
_LITERAL = re.compile(r"\d+'s?[hdb][0-9a-fA-Fxz?_]+|\$signed|\$unsigned")
_NAME = re.compile(r"\\[^ ]+ |(?<![\w'\\$])[A-Za-z_]\w*")
_KEYWORDS = set(["begin", "end", "if", "else", "casez", "case", "endcase", "default"])


def names(text):
    """Names that a piece of Verilog mentions."""
    found = (n.strip() for n in _NAME.findall(_LITERAL.sub("", text)))
    return {n for n in found if n not in _KEYWORDS}


def _spell(name):
    return name + " " if name.startswith("\\") else name


@dataclass
class _Logic:
    """One ``assign`` or ``always @*``: what it writes, what it reads, its blocking statements."""

    writes: set
    reads: set
    lines: list


@dataclass
class _Parsed:
    header: str = ""
    ports: list = field(default_factory=list)
    directions: dict = field(default_factory=dict)
    widths: dict = field(default_factory=dict)
    logic: list = field(default_factory=list)
    registers: dict = field(default_factory=dict)


def _parse(text, clock):
    """Read what Yosys writes for a module without instances or memories."""
    parsed = _Parsed()
    lines = iter(text.splitlines())
    for line in lines:
        if match := _DECLARATION.match(line):
            kind, width, name, initial = match.groups()
            if initial and not re.fullmatch(r" = (\d+'[bhd])?0+", initial):
                raise ValueError(f"a register must not start from anything but 0, not {line!r}")
            if kind in ("input", "output"):
                parsed.directions[name] = kind
                parsed.ports.append(line)
            parsed.widths[name] = width or ""
        elif line.startswith("  assign "):
            target, value = line[len("  assign ") : -1].split(" = ", 1)
            parsed.logic.append(_Logic(names(target), names(value), [f"{target} = {value};"]))
        elif line == "  always @* begin":
            parsed.logic.append(_process(lines))
        elif line == f"  always @(posedge {clock})":
            statement = next(lines).strip()
            match = _REGISTER.match(statement)
            if match is None:
                raise ValueError(f"register must be a plain assignment, not {statement!r}")
            parsed.registers[match[1].strip()] = match[2]
        elif line.startswith("module "):
            parsed.header = line
        elif line.strip() and not line.startswith(("endmodule", "/*", "(*", "  (*")):
            raise ValueError(f"Verilog must be declarations, logic and registers, not {line!r}")
    return parsed


def _process(lines):
    writes, reads, body = set(), set(), []
    for line in lines:
        if line == "  end":
            break
        if "dump_module" in line:  # Yosys' trigger of the block at time zero
            continue
        body.append(line.strip())
        if match := _BLOCKING.match(body[-1]):
            writes |= names(match[1])
            reads |= names(match[2])
        else:
            reads |= names(body[-1])
    return _Logic(writes, reads - writes, body)


class _Scheduler:
    """Puts logic before its readers, and registers after the readers of their old value."""

    def __init__(self, parsed):
        self.registers = parsed.registers
        self.drivers = {}
        for logic in parsed.logic:
            for name in logic.writes:
                self.drivers.setdefault(name, []).append(logic)

    def logic(self, names):
        """All logic that `names` depend on, producers first."""
        order, seen = [], set()

        def visit(name):
            for logic in self.drivers.get(name, ()):
                if id(logic) not in seen:
                    seen.add(id(logic))
                    for other in sorted(logic.reads | logic.writes):
                        visit(other)
                    order.append(logic)

        for name in sorted(names):
            visit(name)
        return order

    def register_order(self):
        """Registers, each behind all others that read it."""
        readers = {name: set() for name in self.registers}
        for name, value in self.registers.items():
            reads = names(value)
            for logic in self.logic(reads):
                reads = reads | logic.reads
            for source in (reads & readers.keys()) - {name}:
                readers[source].add(name)
        order, state = [], {}

        def visit(name):
            if state.get(name) == "open":
                raise ValueError(f"registers must not form a loop, but {name} does")
            if name not in state:
                state[name] = "open"
                for reader in sorted(readers[name]):
                    visit(reader)
                state[name] = "done"
                order.append(name)

        for name in sorted(readers):
            visit(name)
        return order


def one_step(text, clock, enable=""):
    """Return the Verilog `text` of one module with all logic in one block clocked by `clock`.

    `enable` : an input; while it is 0 all registers stay.

    Raises
    ------
    ValueError
        If the module is not plain feed-forward logic as Yosys writes it.
    """
    parsed = _parse(text, clock)
    scheduler = _Scheduler(parsed)
    outputs = [n for n, kind in parsed.directions.items() if kind == "output"]
    outside = scheduler.logic(outputs)
    visible = set(outputs).union(*(logic.reads for logic in outside))
    body, done = [], set()
    for name in scheduler.register_order():
        value = parsed.registers[name]
        for logic in scheduler.logic(names(value)):
            if id(logic) not in done:
                done.add(id(logic))
                body += logic.lines
        body.append(f"{_spell(name)} {'<=' if name in visible else '='} {value};")
    inside = {n for logic in parsed.logic if id(logic) in done for n in logic.writes}
    wires = {n for logic in outside for n in logic.writes} - parsed.directions.keys()
    if both := inside & (wires | parsed.directions.keys()):
        raise ValueError(f"outputs must be registers, but logic reads {', '.join(sorted(both))}")
    result = [parsed.header, *parsed.ports]
    for name in sorted(parsed.registers):
        result.append(f"  reg {parsed.widths[name]}{_spell(name)};")
    result += [f"  wire {parsed.widths[n]}{_spell(n)};" for n in sorted(wires)]
    result += [f"  assign {line}" for logic in outside for line in logic.lines]
    result.append(f"  always @(posedge {clock}) begin : step")
    result += [f"    automatic reg {parsed.widths[n]}{_spell(n)};" for n in sorted(inside)]
    if enable:  # a variable that is always written first stays in a processor's register
        result += [f"    {_spell(n)} = 0;" for n in sorted(inside)]
        body = [f"if ({enable}) begin", *body, "end"]
    result += [f"    {line}" for line in body]
    return "\n".join([*result, "  end", "endmodule", ""])
