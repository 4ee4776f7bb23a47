"""`docs/isa.md` from the table: ``python -m tilewright.isa.docs > docs/isa.md``."""

from __future__ import annotations

from tilewright.isa import assembler, micro, micro_text, syntax
from tilewright.isa.assembler import assemble
from tilewright.isa.config import ARRAYS, INSTR_BYTES, PRESETS, REGISTERS, SEM_MAX, SEMAPHORES
from tilewright.isa.disassembler import disassemble
from tilewright.isa.encoding import rules
from tilewright.isa.extent_table import OPERANDS, PARTS
from tilewright.isa.table import (
    BY_OPCODE,
    INSTRUCTIONS,
    OPCODE_BITS,
    RESERVED_OPCODES,
    SYNC,
    Fault,
    Field,
    Rule,
    Spec,
    Unit,
    When,
)

_INTRO = f"""\
# Instruction set

*Generated from `isa/` by `python -m tilewright.isa.docs`. Do not edit.*

An instruction is one little-endian word of {INSTR_BYTES} bytes and stands alone: apart from the
registers that it names there is no state. Bits 0 to {OPCODE_BITS - 1} are the opcode; a unit's
instruction continues with the synchronisation fields; then comes one *register flag* for each
register-capable field, then the fields. Everything above must be zero. If a field's flag is 1, the
field holds a register number (0 to {REGISTERS - 1}), all its other bits are zero (else OPCODE), and
the register's 32-bit value stands for the field; it must fit (else FIELD). A signed field reads
the register as signed.

There are {REGISTERS} registers and {SEMAPHORES} semaphores (0 at the start, at most {SEM_MAX}).

Distances of local memory are in granules of `dim` bytes (scratchpad) or rows of `dim` 32-bit words
(accumulator), distances of DRAM in bytes, counts in elements or rows.
"""


_EXAMPLE = """
    li r3, 0x1000
next:
    load spad[0x40], dram[r3], copy8, c0=64 c1=16 s1=64 l0=1 l1=4 ; wait s3>=1 ; done s4
    load acc[0], i8_i32, fill value=7 c0=16
    matmul acc[0], spad[0], spad[0x40], i8*i8, acc r0=16 as0=4 ak=1 k=64 n=16 ; wait s4>=1 ; read s3
    store dram[0x3000], acc[0], i32->i8, scale clamp lo=f32(-128) hi=f32(127) c0=16 ; read s5
    add r3, r3, 1024
    blt r3, 0x2000, next
    post s3, 2
    halt
"""


def _when(when: When, spec: Spec) -> str:
    return " and ".join(f"`{n}` is {_values(values, spec, n)}" for n, values in when)


def _values(values: tuple[int, ...], spec: Spec, name: str) -> str:
    enum = spec.layout[name][1].enum if name in spec.layout else None
    return " or ".join(enum(v).name.lower() if enum else str(int(v)) for v in values)


def _rule(rule: Rule, spec: Spec) -> str:
    if rule.field == "opcode":
        return f"the whole instruction: {rule.text} ({rule.fault.name})"
    kind = {"nonzero": "not 0", "zero": "0", "even": "even"}.get(rule.kind)
    text = f"`{rule.field}` must be {kind or _values(rule.values, spec, rule.field)}"
    text += f" if {_when(rule.when, spec)}" if rule.when else ""
    text += f" on chips with array={rule.array}" if rule.array else ""
    return text + (f": {rule.text}" if rule.text else "") + f" ({rule.fault.name})"


def _field(at: int, field: Field, flag: int | None) -> str:
    kind = ("s" if field.signed else "u") + str(field.bits)
    meaning = field.meaning
    if field.enum is not None:
        meaning += ": " + ", ".join(f"{int(m)} {m.name.lower()}" for m in field.enum)
    if field.default:
        meaning += f" (default {field.default})"
    bits = f"{at}" if field.bits == 1 else f"{at}..{at + field.bits - 1}"
    return f"| `{field.name}` | {bits} | {kind} | {'' if flag is None else flag} | {meaning} |"


def _fields(spec: Spec, fields: tuple[Field, ...]) -> list[str]:
    rows = [_field(*spec.layout[f.name], spec.reg_bit.get(f.name)) for f in fields]
    return ["| field | bits | type | register flag | meaning |", "|---|---|---|---|---|", *rows, ""]


def _extents(spec: Spec) -> list[str]:
    lines = []
    for o in OPERANDS.get(spec.name, ()):
        terms = ", ".join(
            f"`{t.count}` x {t.stride if isinstance(t.stride, int) else f'`{t.stride}`'}"
            + (f" (if {_when(t.when, spec)})" if t.when else "")
            for t in o.terms
        )
        where = o.mem if isinstance(o.mem, str) else o.mem.name.lower()
        where = f"memory of `{where}`" if isinstance(o.mem, str) else where
        cond = f", if {_when(o.when, spec)}" if o.when else ""
        lines.append(f"* `{o.name}` ({o.access}, {where}{cond}): from `{o.base}`, steps {terms}")
    if lines:
        lines = ["Local operands, each within its memory (else RANGE):", "", *lines, ""]
    return lines


def _unit(spec: Spec) -> list[str]:
    lines = [f"## `{spec.name}`: {spec.meaning}", ""]
    lines += [f"Opcode {spec.opcode}, unit {spec.unit.name}, {spec.bits} bits.", ""]
    lines += [spec.text.rstrip(), "", *_fields(spec, spec.fields), *_extents(spec)]
    every = dict.fromkeys(r for array in ARRAYS for r in rules(spec, array))
    checks = [f"* {_rule(r, spec)}" for r in every]
    if checks:
        lines += ["Rules, in the order in which they are checked:", "", *checks, ""]
    if spec.name in PARTS:
        parts = [
            f"{p.name} {p.steps}" + (f" (if {_when(p.when, spec)})" if p.when else "")
            for p in PARTS[spec.name]
        ]
        deep = {
            "load": "`c2` or `c3` is not 1. `inside`: `pack` + `xpose`. `partial`: one of `skip1`, "
            "`drop1`, `skip2`, `drop2` is not 0",
            "store": "`c2` is not 1, or `pool` is 1",
        }
        text = f" `deep`: {deep[spec.name]}." if spec.name in deep else ""
        lines += [f"Dispatch: EXTENT cycles: {'; '.join(parts)}.{text}", ""]
    return lines


def _scalars() -> list[str]:
    lines = ["## Scalar instructions", "", "| mnemonic | opcode | fields (bits) | meaning |"]
    lines.append("|---|---|---|---|")
    for spec in INSTRUCTIONS.values():
        if spec.unit == Unit.SEQ:
            fields = ", ".join(
                f"`{f.name}` {at}..{at + f.bits - 1}"
                + (f" (flag {spec.reg_bit[f.name]})" if f.name in spec.reg_bit else "")
                for at, f in spec.layout.values()
            )
            lines.append(f"| `{spec.name}` | {spec.opcode} | {fields} | {spec.meaning} |")
    return [*lines, ""]


def _faults() -> list[str]:
    rows = [f"| {f.value} | {f.name} | {f.meaning} |" for f in Fault if f]
    return ["## Faults", "", "| code | name | meaning |", "|---|---|---|", *rows, ""]


def _micro() -> list[str]:
    lines = ["## Micro-operations of VECTOR", "", micro.__doc__.strip(), ""]
    for title, name in (("Fields", "add_f32"), ("Fields of `const`", "const")):
        lines += [f"{title}:", "", "| field | bits | meaning |", "|---|---|---|"]
        for at, f in micro.LAYOUTS[name].values():
            lines.append(f"| `{f.name}` | {at}..{at + f.bits - 1} | {f.meaning} |")
        lines.append("")
    lines += ["| opcode | operation | dst takes |", "|---|---|---|"]
    lines += [f"| {code} | `{n}` | {what} |" for n, (code, what) in micro.OPERATIONS.items()]
    lines += ["", *micro_text.__doc__.strip().splitlines()]
    return [line.replace("|a|", "\\|a\\|").replace("a | b", "a \\| b") for line in lines]


def _assembly() -> list[str]:
    listing = disassemble(assemble(_EXAMPLE).code)
    return [
        "## Assembly",
        "",
        syntax.__doc__.strip(),
        "",
        assembler.__doc__.strip(),
        "",
        "For example:",
        "",
        "```",
        *listing.splitlines(),
        "```",
        "",
    ]


def render() -> str:
    """The whole page."""
    first = next(s for s in BY_OPCODE.values() if s.unit == Unit.LOAD)
    lines = [_INTRO, "Presets: " + "; ".join(f"`{n}` {c.geometry}" for n, c in PRESETS.items())]
    lines[-1] += "."
    lines += ["", "## Synchronisation fields of every unit instruction", ""]
    lines += [*_fields(first, SYNC), *_scalars()]
    for spec in INSTRUCTIONS.values():
        if spec.unit != Unit.SEQ:
            lines += _unit(spec)
    low, high = min(RESERVED_OPCODES), max(RESERVED_OPCODES)
    lines += ["## Reserved opcodes", "", f"{low} to {high}: {RESERVED_OPCODES[low]}.", ""]
    return "\n".join([*lines, *_faults(), *_assembly(), *_micro()]).rstrip() + "\n"


if __name__ == "__main__":
    print(render(), end="")
