"""Instructions as values and as words: encode, decode, resolve registers, check the table's rules.

Everything is derived from `tilewright.isa.table`. A word is refused in the order in which the chip
refuses it: OPCODE (unknown opcode, bits above the fields, a register number above 15), then FIELD
(a register's value does not fit, an enumeration or a rule is broken), then UNIMPLEMENTED; `extent`
adds RANGE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType

from tilewright.isa.config import ARRAYS, INSTR_BYTES, REGISTERS
from tilewright.isa.table import (
    BY_OPCODE,
    INSTRUCTIONS,
    OPCODE_BITS,
    Fault,
    Field,
    Rule,
    Spec,
)


class IllegalInstruction(ValueError):
    """A word or instruction that the chip refuses; `fault` is the code that it reports."""

    def __init__(self, fault: Fault, message: str):
        super().__init__(message)
        self.fault = fault

    def __reduce__(self):
        return IllegalInstruction, (self.fault, str(self))


REGISTER_FIELDS = ("rd", "ra")  # always hold a register number


@dataclass(frozen=True)
class Reg:
    """A register in place of a field's value: ``Instr.make("load", dram=Reg(3))``."""

    number: int


@dataclass(frozen=True, eq=False)
class Instr:
    """One instruction: every field has a value, immutable, hashable, equal by its word.

    Parameters
    ----------
    spec : the table's entry.
    values : field name -> integer; the register's number for the names in `regs`.
    regs : register-capable fields which hold a register number.
    """

    spec: Spec
    values: Mapping[str, int]
    regs: frozenset[str] = frozenset()

    @staticmethod
    def make(name: str, **fields: int | Reg) -> Instr:
        """Build one by mnemonic; a field that is not named takes the table's default.

        Raises
        ------
        ValueError
            Names the unknown mnemonic or field, or the value that does not fit.
        """
        spec = INSTRUCTIONS.get(name)
        if spec is None:
            raise ValueError(f"instruction must be one of {', '.join(INSTRUCTIONS)}, not {name!r}")
        values = dict(_DEFAULTS[name])
        regs = set()
        for key, given in fields.items():
            if key not in values:
                raise ValueError(f"{name} has the fields {', '.join(values)}, not {key!r}")
            if isinstance(given, Reg):
                if key not in REGISTER_FIELDS:
                    regs.add(key)
                given = given.number
            values[key] = int(given)
        instr = Instr(spec, MappingProxyType(values), frozenset(regs))
        _check_fit(instr)
        return instr

    def __getitem__(self, field: str) -> int:
        return self.values[field]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Instr)
            and self.spec is other.spec
            and self.regs == other.regs
            and self.values == other.values
        )

    def __hash__(self) -> int:
        return hash(encode(self))

    def __reduce__(self):
        return decode, (encode(self),)


_DEFAULTS = {s.name: {f.name: f.default for f in s.all_fields} for s in INSTRUCTIONS.values()}


def _fits(field: Field, value: int) -> bool:
    return field.low <= value <= field.high


def _check_fit(instr: Instr) -> None:
    name = instr.spec.name
    if instr.values.keys() != instr.spec.layout.keys():
        raise ValueError(f"{name} must have the fields {', '.join(instr.spec.layout)}")
    for key, (_, field) in instr.spec.layout.items():
        value = instr.values[key]
        if key in instr.regs:
            if key not in instr.spec.reg_bit:
                raise ValueError(f"{name}.{key} must be an integer, not a register")
            if not 0 <= value < REGISTERS:
                raise ValueError(f"{name}.{key} must be a register r0 to r15, not r{value}")
        elif not _fits(field, value):
            raise ValueError(f"{name}.{key} must be in {field.low} to {field.high}, not {value}")


def encode(instr: Instr) -> bytes:
    """The 64-byte word.

    Raises
    ------
    ValueError
        Names the field whose value does not fit.
    """
    _check_fit(instr)
    word = instr.spec.opcode
    for name, (at, field) in instr.spec.layout.items():
        word |= (instr.values[name] & ((1 << field.bits) - 1)) << at
    for name in instr.regs:
        word |= 1 << instr.spec.reg_bit[name]
    return word.to_bytes(INSTR_BYTES, "little")


@lru_cache(maxsize=1 << 16)
def decode(data: bytes) -> Instr:
    """The instruction of a 64-byte word.

    Raises
    ------
    IllegalInstruction
        With `Fault.OPCODE`: unknown opcode, bits above the fields, or a register above r15.
    """
    if len(data) != INSTR_BYTES:
        raise ValueError(f"an instruction must be {INSTR_BYTES} bytes, not {len(data)}")
    word = int.from_bytes(data, "little")
    opcode = word & ((1 << OPCODE_BITS) - 1)
    spec = BY_OPCODE.get(opcode)
    if spec is None:
        raise IllegalInstruction(Fault.OPCODE, f"opcode {opcode} is no instruction")
    if word >> spec.bits:
        raise IllegalInstruction(
            Fault.OPCODE, f"{spec.name}: bits above its fields (bit {spec.bits} up) must be zero"
        )
    regs = frozenset(name for name, at in spec.reg_bit.items() if word >> at & 1)
    values = {}
    for name, (at, field) in spec.layout.items():
        value = word >> at & ((1 << field.bits) - 1)
        if name in regs:
            if value >= REGISTERS:
                raise IllegalInstruction(
                    Fault.OPCODE, f"{spec.name}.{name} must be a register r0 to r15, not r{value}"
                )
        elif field.signed and value >> (field.bits - 1):
            value -= 1 << field.bits
        values[name] = value
    return Instr(spec, MappingProxyType(values), regs)


def decode_program(code: bytes) -> list[Instr]:
    """All instructions of a program, in order; refuses like `decode`."""
    if len(code) % INSTR_BYTES:
        raise ValueError(f"code must be a multiple of {INSTR_BYTES} bytes, not {len(code)}")
    code = bytes(code)
    return [decode(code[i : i + INSTR_BYTES]) for i in range(0, len(code), INSTR_BYTES)]


def truncated(instr: Instr, regs: Sequence[int]) -> dict[str, int]:
    """Field values as the chip has them after RESOLVE, also of registers that do not fit."""
    values = dict(instr.values)
    for name in instr.regs:
        field = instr.spec.layout[name][1]
        value = int(regs[values[name]]) & ((1 << field.bits) - 1)
        values[name] = value - (1 << field.bits) * (field.signed and value >> (field.bits - 1))
    return values


def resolve(instr: Instr, regs: Sequence[int]) -> dict[str, int]:
    """Field values with each register operand replaced by the register's value.

    A register is 32 bits; a signed field reads it as signed, another as unsigned.

    Raises
    ------
    IllegalInstruction
        With `Fault.FIELD` for the first field, in field order, whose register's value is too large.
    """
    values = dict(instr.values)
    if not instr.regs:
        return values
    for name in instr.spec.reg_bit:
        if name not in instr.regs:
            continue
        field = instr.spec.layout[name][1]
        number = values[name]
        value = int(regs[number]) & 0xFFFFFFFF
        if field.signed and value >> 31:
            value -= 1 << 32
        if not _fits(field, value):
            raise IllegalInstruction(
                Fault.FIELD,
                f"{instr.spec.name}.{name} must be in {field.low} to {field.high}, "
                f"not {value} (r{number})",
            )
        values[name] = value
    return values


@cache
def rules(spec: Spec, array: str = ARRAYS[0]) -> tuple[Rule, ...]:
    """All rules in the order in which they are checked; Python and RTL evaluate this list.

    First the members of enumerated fields, then the table's FIELD rules, then UNIMPLEMENTED ones,
    as far as they are rules of a chip with this `array`.
    """
    members = tuple(
        Rule("in", f.name, tuple(int(x) for x in f.enum))
        for f in spec.fields
        if f.enum is not None and len(f.enum) < 1 << f.bits
    )
    own = (r for r in spec.rules if r.array in ("", array))
    ordered = sorted(own, key=lambda r: r.fault != Fault.FIELD)  # stable
    return members + tuple(r for r in ordered if r not in members)


def _demand(spec: Spec, rule: Rule) -> str:
    """What a rule wants, in words."""
    if rule.kind != "in":
        return {"nonzero": "nonzero", "zero": "0", "even": "even"}[rule.kind]
    enum = spec.layout[rule.field][1].enum
    names = [enum(v).name.lower() if enum else str(v) for v in rule.values]
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def _shown(spec: Spec, name: str, value: int) -> str:
    enum = spec.layout[name][1].enum
    if enum is None or value not in enum._value2member_map_:
        return str(value)
    return enum(value).name.lower()


def explain(spec: Spec, rule: Rule, values: Mapping[str, int]) -> str:
    """The message for a broken rule: field, demand, condition, value, reason."""
    if rule.field == "opcode":
        return f"{spec.name}: {rule.text}"
    when = " and ".join(f"{n}={_shown(spec, n, values[n])}" for n, _ in rule.when)
    return (
        f"{spec.name}.{rule.field} must be {_demand(spec, rule)}"
        + (f" when {when}" if when else "")
        + f", not {_shown(spec, rule.field, values[rule.field])}"
        + (f" ({rule.text})" if rule.text else "")
    )


def check_rules(spec: Spec, values: Mapping[str, int], array: str = ARRAYS[0]) -> None:
    """Check resolved field values against all `rules` of the instruction on a chip with `array`.

    Raises
    ------
    IllegalInstruction
        For the first breach, with the rule's fault.
    """
    full = {"opcode": spec.opcode, **values}
    for rule in rules(spec, array):
        if not rule.holds(full):
            raise IllegalInstruction(rule.fault, explain(spec, rule, full))


def lacks(instr: Instr, array: str) -> str:
    """Why chips with this `array` do not have the instruction as it is encoded; "" if they do."""
    full = {"opcode": instr.spec.opcode, **instr.values}
    for rule in instr.spec.rules:
        if rule.array == array and rule.field not in instr.regs and not rule.holds(full):
            return explain(instr.spec, rule, full)
    return ""
