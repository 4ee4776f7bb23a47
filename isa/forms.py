"""What the instruction table is made of: enumerations, fields, rules.

An instruction is one word of 64 bytes and needs no state but the registers it names. Bits
are packed from bit 0 up: opcode, the synchronisation fields (units only), one *register flag* for
each register-capable field, then the fields in order; everything above must be zero. When a field's
flag is set, the field holds a register number, and the register's value stands for the field.

A `Rule` refuses a word (or, after register operands are resolved, an instruction) by name. Rules
are data, so that Python and RTL evaluate the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, unique

from tilewright.isa.config import INSTR_BYTES, REGISTERS

OPCODE_BITS = 6


@unique
class Unit(IntEnum):
    """Who executes an instruction; the four queues come first."""

    LOAD = 0
    MATMUL = 1
    VECTOR = 2
    STORE = 3
    SEQ = 4


@unique
class Mem(IntEnum):
    """A local memory."""

    SPAD = 0
    ACC = 1


@unique
class Conv(IntEnum):
    """What LOAD does to an element on its way (source type, local type)."""

    COPY8 = 0
    COPY16 = 1
    COPY32 = 2
    F32_BF16 = 3
    F32_HI = 4
    F32_MID = 5
    F32_LO = 6
    I8_I32 = 7
    U8_I32 = 8


@unique
class Type(IntEnum):
    """An element's type."""

    I8 = 0
    U8 = 1
    BF16 = 2
    F32 = 3
    I32 = 4


TYPE_BYTES = {Type.I8: 1, Type.U8: 1, Type.BF16: 2, Type.F32: 4, Type.I32: 4}
CONV_BYTES = {c: (1, 2, 4, 4, 4, 4, 4, 1, 1)[c] for c in Conv}  # of an element in DRAM


@unique
class Dest(IntEnum):
    """Where STORE writes."""

    DRAM = 0
    SPAD = 1


@unique
class Oob(IntEnum):
    """What a gather does with an index that is out of range."""

    CLAMP = 0
    FILL = 1


@unique
class Fault(IntEnum):
    """Why the chip stopped. 0: it did not fault."""

    NONE = 0
    OPCODE = 1
    FIELD = 2
    RANGE = 3
    PC = 4
    UNIMPLEMENTED = 5
    WINDOW = 6
    DEADLOCK = 7
    SEMAPHORE = 8
    BUS = 9
    WATCHDOG = 10
    ABORT = 11

    @property
    def meaning(self) -> str:
        """In words."""
        return _FAULTS[self]


_FAULTS = {
    Fault.NONE: "no fault",
    Fault.OPCODE: "no instruction has this opcode, or bits above its fields are set",
    Fault.FIELD: "a field or a resolved register operand breaks a rule",
    Fault.RANGE: "a local operand leaves its memory",
    Fault.PC: "the program counter left the program",
    Fault.UNIMPLEMENTED: "a legal instruction or mode that this chip does not have",
    Fault.WINDOW: "a DRAM operand leaves the granted window",
    Fault.DEADLOCK: "everything is blocked on semaphores",
    Fault.SEMAPHORE: "a count went above SEM_MAX",
    Fault.BUS: "an AXI error response",
    Fault.WATCHDOG: "the host's cycle limit",
    Fault.ABORT: "the host stopped the program",
}


@dataclass(frozen=True)
class Field:
    """One field: name, width in bits, signedness, unit of measure, meaning.

    `reg` fields may name a register instead; `enum` fields take only its members.
    """

    name: str
    bits: int
    meaning: str
    signed: bool = False
    reg: bool = False
    enum: type[IntEnum] | None = None
    default: int = 0  # what `Instr.make` and the assembler take if it is not named

    @property
    def low(self) -> int:
        """Least legal value."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """Greatest legal value."""
        return (1 << (self.bits - self.signed)) - 1


When = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Rule:
    """`field` must be `kind`, if every (field, values) pair of `when` holds.

    Kinds: "nonzero"; "zero"; "even"; "in" (one of `values`). `fault` is what a breach raises.
    With `array` the rule is one of chips with that array only.
    """

    kind: str
    field: str
    values: tuple[int, ...] = ()
    when: When = ()
    fault: Fault = Fault.FIELD
    text: str = ""
    array: str = ""

    def holds(self, v: dict[str, int]) -> bool:
        """Whether the resolved field values `v` keep this rule."""
        if any(v[name] not in allowed for name, allowed in self.when):
            return True
        x = v[self.field]
        if self.kind == "nonzero":
            return x != 0
        if self.kind == "zero":
            return x == 0
        if self.kind == "even":
            return x % 2 == 0
        return x in self.values


@dataclass(frozen=True)
class Spec:
    """One instruction: mnemonic, opcode, unit, its own fields, its rules."""

    name: str
    opcode: int
    unit: Unit
    meaning: str
    fields: tuple[Field, ...] = ()
    rules: tuple[Rule, ...] = ()
    layout: dict[str, tuple[int, Field]] = field(default_factory=dict, compare=False, repr=False)
    reg_bit: dict[str, int] = field(default_factory=dict, compare=False, repr=False)
    bits: int = 0
    text: str = ""  # semantics in prose, for docs/isa.md

    @property
    def all_fields(self) -> tuple[Field, ...]:
        """Synchronisation fields (units only), then its own."""
        return (SYNC if self.unit != Unit.SEQ else ()) + self.fields


SYNC = (
    Field("wait0", 5, "semaphore of the first wait"),
    Field("wait0_n", 8, "count that the first wait needs and takes; 0: no wait"),
    Field("wait1", 5, "semaphore of the second wait"),
    Field("wait1_n", 8, "count that the second wait needs and takes; 0: no wait"),
    Field("rd_en", 1, "1: signal when all sources have been read"),
    Field("rd_sem", 5, "semaphore of the read-done signal"),
    Field("done_en", 1, "1: signal when all effects are visible"),
    Field("done_sem", 5, "semaphore of the done signal"),
)

RESERVED_OPCODES = {op: "DMA and signals between chips" for op in range(48, 56)}


class TableError(ValueError):
    """The table itself is wrong: overlapping or oversized fields, an ambiguous opcode."""


def place(spec: Spec) -> Spec:
    """Give every field its bits; refuse a word that is too long or a name that is used twice."""
    at = OPCODE_BITS
    names = [f.name for f in spec.all_fields]
    if len(set(names)) != len(names):
        raise TableError(f"{spec.name}: a field name is used twice")
    for f in SYNC if spec.unit != Unit.SEQ else ():
        spec.layout[f.name] = (at, f)
        at += f.bits
    for f in spec.fields:
        if f.reg:
            if (1 << f.bits) < REGISTERS:
                raise TableError(f"{spec.name}.{f.name}: too narrow for a register number")
            spec.reg_bit[f.name] = at
            at += 1
    for f in spec.fields:
        spec.layout[f.name] = (at, f)
        at += f.bits
    if at > 8 * INSTR_BYTES:
        raise TableError(f"{spec.name}: {at} bits do not fit {8 * INSTR_BYTES}")
    object.__setattr__(spec, "bits", at)
    return spec


def index(specs: tuple[Spec, ...]) -> dict[str, Spec]:
    """All instructions by mnemonic; refuses an opcode or mnemonic that is used twice."""
    seen: dict[int, str] = {}
    out: dict[str, Spec] = {}
    for spec in specs:
        if spec.opcode in seen or spec.opcode in RESERVED_OPCODES or spec.name in out:
            raise TableError(f"{spec.name}: opcode {spec.opcode} or mnemonic is already taken")
        if not 0 < spec.opcode < 1 << OPCODE_BITS:
            raise TableError(f"{spec.name}: opcode {spec.opcode} is out of range")
        seen[spec.opcode] = spec.name
        out[spec.name] = place(spec)
    return out
