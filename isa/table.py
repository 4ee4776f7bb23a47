"""The instruction table: the only description of an instruction.

Encoder, decoder, assembler, disassembler, the RTL's decoder, the simulators and `docs/isa.md` derive
from it. An instruction is one word of 64 bytes and needs no state but the registers it names. Bits
are packed from bit 0 up: opcode, the synchronisation fields (units only), one *register flag* for
each register-capable field, then the fields in order; everything above must be zero. When a field's
flag is set, the field holds a register number, and the register's value stands for the field.

A `Rule` refuses a word (or, after register operands are resolved, an instruction) by name. Rules are
data, so that Python and RTL evaluate the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, unique

from tilewright.isa.config import INSTR_BYTES, LOCAL_BITS, REGISTERS

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
    OPCODE = 1  # no instruction has this opcode, or bits above its fields are set
    FIELD = 2  # a field or a resolved register operand breaks a rule
    RANGE = 3  # a local operand leaves its memory
    PC = 4  # the program counter left the program
    UNIMPLEMENTED = 5  # a legal instruction or mode that this chip does not have
    WINDOW = 6  # a DRAM operand leaves the granted window
    DEADLOCK = 7  # everything is blocked on semaphores
    SEMAPHORE = 8  # a count went above SEM_MAX
    BUS = 9  # an AXI error response
    WATCHDOG = 10  # the host's cycle limit


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
    """

    kind: str
    field: str
    values: tuple[int, ...] = ()
    when: When = ()
    fault: Fault = Fault.FIELD
    text: str = ""

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


def _local(name: str, meaning: str) -> Field:
    return Field(name, LOCAL_BITS, meaning, reg=True)


def _stride(name: str, meaning: str) -> Field:
    return Field(name, LOCAL_BITS, meaning, signed=True, reg=True)


def _count(name: str, meaning: str) -> Field:
    return Field(name, 16, meaning, reg=True, default=1)


def _dram(name: str, meaning: str, signed: bool = False) -> Field:
    return Field(name, 32, meaning, signed=signed, reg=True)


def _absent(*names: str, when: When = ()) -> tuple[Rule, ...]:
    return tuple(
        Rule("zero", n, when=when, fault=Fault.UNIMPLEMENTED, text=f"mode {n} is not built yet")
        for n in names
    )


_REG = 4
_RD = Field("rd", _REG, "destination register")
_RA = Field("ra", _REG, "first source register")
_B = Field("b", 32, "second operand: an integer or a register", signed=True, reg=True)
_TARGET = Field("target", 26, "instruction index to go on with")
_SEM = Field("sem", 5, "semaphore")
_N = Field("n", 8, "count", default=1)

_WIDE16 = (Conv.COPY16, Conv.F32_BF16, Conv.F32_HI, Conv.F32_MID, Conv.F32_LO)
_LOAD = (
    Field("mem", 1, "destination memory", enum=Mem),
    Field("conv", 4, "conversion", enum=Conv),
    Field("pack", 2, "innermost dimensions that make one local row, 1 to 3", default=1),
    Field("fill", 1, "1: write `value` instead of reading DRAM"),
    Field("xpose", 1, "1: transpose blocks of dim x dim"),
    Field("gather", 1, "1: the row index of dimension 1 comes from local memory"),
    Field("oob", 1, "out-of-range gather index", enum=Oob),
    _dram("dram", "byte address of the first element"),
    _count("c0", "elements of one contiguous run"),
    _count("c1", "runs of dimension 1"),
    _count("c2", "runs of dimension 2"),
    _count("c3", "runs of dimension 3"),
    _dram("s1", "bytes from one step of dimension 1 to the next", True),
    _dram("s2", "bytes from one step of dimension 2 to the next", True),
    _dram("s3", "bytes from one step of dimension 3 to the next", True),
    _local("loc", "first local row (granules; rows of the accumulator)"),
    _stride("l0", "local distance of consecutive units inside a row"),
    _stride("l1", "local distance of dimension 1 (if not packed)"),
    _stride("l2", "local distance of dimension 2 (if not packed)"),
    _stride("l3", "local distance of dimension 3"),
    Field("value", 32, "fill value: one element of the local type in its low bits", reg=True),
    _local("index", "granule of the first int32 gather index"),
    _dram("bound", "gather indices in 0 to bound - 1 are in range"),
)
_LOAD_RULES = (
    Rule("in", "conv", tuple(Conv)),
    Rule("in", "pack", (1, 2, 3)),
    *(Rule("nonzero", c) for c in ("c0", "c1", "c2", "c3")),
    Rule(
        "in",
        "conv",
        (Conv.COPY32, Conv.I8_I32, Conv.U8_I32),
        when=(("mem", (Mem.ACC,)),),
        text="the accumulator holds 32-bit rows",
    ),
    Rule(
        "in",
        "conv",
        (Conv.COPY8, Conv.COPY32, *_WIDE16),
        when=(("mem", (Mem.SPAD,)),),
        text="int8 to int32 goes to the accumulator only",
    ),
    *(
        Rule(
            "even",
            f,
            when=(("mem", (Mem.SPAD,)), ("conv", (*_WIDE16, Conv.COPY32))),
            text="2 and 4 byte elements live in aligned pairs of granules",
        )
        for f in ("loc", "l0", "l1", "l2", "l3")
    ),
    *_absent("xpose", "gather"),
    Rule(
        "in",
        "conv",
        (Conv.COPY8, Conv.COPY16, Conv.COPY32, Conv.F32_BF16, Conv.I8_I32, Conv.U8_I32),
        fault=Fault.UNIMPLEMENTED,
        text="fp32 part selection is not built yet",
    ),
)

_MATMUL = (
    Field("a_type", 3, "type of the activations", enum=Type),
    Field("w_type", 3, "type of the weights", enum=Type),
    Field("acc", 1, "1: add to the accumulator, 0: overwrite it with the first K-block"),
    _local("a", "granule of activation row 0, K-block 0"),
    _count("r0", "activation rows of the inner level"),
    _count("r1", "activation rows of the outer level; the pass has r0 * r1 rows"),
    _stride("as0", "granules between rows of the inner level"),
    _stride("as1", "granules between rows of the outer level"),
    _stride("ak", "granules between K-blocks of a row"),
    _local("w", "granule of weight row 0 (k = 0), N-block 0"),
    _stride("ws", "granules between weight rows (k and k + 1 of one K-block)"),
    _stride("wk", "granules between K-blocks of the weights"),
    _stride("wn", "granules between N-blocks of the weights"),
    _count("k", "contraction length in elements"),
    _count("n", "output columns in elements"),
    _local("c", "accumulator row of output row 0, N-block 0"),
    _stride("cn", "accumulator rows between N-blocks"),
)
_INT8 = (Type.I8, Type.U8)
_MATMUL_RULES = (
    Rule("in", "a_type", (*_INT8, Type.BF16)),
    Rule("in", "w_type", (Type.BF16,), when=(("a_type", (Type.BF16,)),), text="operands agree"),
    Rule("in", "w_type", _INT8, when=(("a_type", _INT8),), text="operands agree"),
    *(Rule("nonzero", c) for c in ("r0", "r1", "k", "n")),
    *(
        Rule("even", f, when=(("a_type", (Type.BF16,)),), text="bf16 rows are pairs of granules")
        for f in ("a", "as0", "as1", "ak", "w", "ws", "wk", "wn")
    ),
)

_STORE = (
    Field("mem", 1, "source memory", enum=Mem),
    Field("type", 3, "type of the source", enum=Type),
    Field("dest", 1, "where it writes", enum=Dest),
    Field("out", 3, "type that it writes", enum=Type),
    Field("int_path", 1, "1: integer epilogue without scale and bias"),
    Field("ibias", 1, "1: add an int32 vector first, wrapping"),
    Field("scale", 1, "1: multiply by an fp32 vector"),
    Field("bias", 1, "1: add an fp32 vector"),
    Field("clamp", 1, "1: clamp to lo and hi"),
    Field("scatter", 1, "1: row indices come from local memory"),
    Field("pool", 1, "1: max-pool pool_h x pool_w windows of rows on the way out"),
    Field("pool_h", 4, "window height"),
    Field("pool_w", 4, "window width"),
    Field("pool_sh", 4, "window step down"),
    Field("pool_sw", 4, "window step right"),
    Field("zp", 16, "zero point, added after rounding", signed=True),
    _local("loc", "first source row (granules; rows of the accumulator)"),
    _count("c0", "elements of one row"),
    _count("c1", "rows of dimension 1"),
    _count("c2", "rows of dimension 2"),
    _stride("l0", "local distance of consecutive units (column blocks) of a row"),
    _stride("l1", "local distance of dimension 1"),
    _stride("l2", "local distance of dimension 2"),
    _dram("dst", "byte address, or granule, of the first element"),
    _dram("s1", "bytes (granules) between rows of dimension 1", True),
    _dram("s2", "bytes (granules) between rows of dimension 2", True),
    _stride("d0", "scratchpad destination: granules between units"),
    _local("vec", "accumulator row of the first vector (ibias, scale, bias: those enabled)"),
    _stride("vs", "accumulator rows between one vector and the next"),
    Field("lo", 32, "lower clamp: fp32 bits, or int32 on the integer path", reg=True),
    Field("hi", 32, "upper clamp: fp32 bits, or int32 on the integer path", reg=True),
    _local("index", "granule of the first int32 scatter index"),
)
_SPAD_DST = (("dest", (Dest.SPAD,)),)
_STORE_RULES = (
    Rule("in", "type", (Type.I32, Type.F32), when=(("mem", (Mem.ACC,)),)),
    Rule(
        "in",
        "type",
        (*_INT8, Type.BF16),
        when=(("mem", (Mem.SPAD,)),),
        text="32-bit rows are stored from the accumulator",
    ),
    Rule("in", "out", tuple(Type)),
    Rule(
        "in", "out", (*_INT8, Type.BF16), when=_SPAD_DST, text="the scratchpad takes 8 or 16 bits"
    ),
    *(Rule("nonzero", c) for c in ("c0", "c1", "c2")),
    Rule("in", "out", (*_INT8, Type.I32), when=(("int_path", (1,)),)),
    Rule("in", "type", (*_INT8, Type.I32), when=(("int_path", (1,)),)),
    Rule("zero", "scale", when=(("int_path", (1,)),)),
    Rule("zero", "bias", when=(("int_path", (1,)),)),
    Rule("zero", "ibias", when=(("type", (Type.BF16, Type.F32)),)),
    Rule("zero", "zp", when=(("out", (Type.BF16, Type.F32)),)),
    *(
        Rule("even", f, when=(("type", (Type.BF16,)),), text="bf16 rows are pairs of granules")
        for f in ("loc", "l0", "l1", "l2")
    ),
    *(
        Rule("even", f, when=(*_SPAD_DST, ("out", (Type.BF16,))), text="bf16 rows are pairs")
        for f in ("dst", "s1", "s2", "d0")
    ),
    *_absent("scatter", "pool"),
)


def _stream(name: str, what: str) -> tuple[Field, ...]:
    return (
        Field(f"{name}_mem", 1, f"{what}: memory", enum=Mem),
        Field(f"{name}_type", 3, f"{what}: element type", enum=Type),
        _local(name, f"{what}: first local row"),
        _stride(f"{name}_row", f"{what}: local distance of rows"),
        _stride(f"{name}_unit", f"{what}: local distance of consecutive units of a row"),
    )


_VECTOR = (
    Field("kernel", 10, "first micro-operation in the micro-kernel memory"),
    Field("head", 6, "micro-operations of the head (once per row)"),
    Field("body", 8, "micro-operations of the body (once per unit of the row)"),
    Field("tail", 6, "micro-operations of the tail (once per row)"),
    _count("rows", "rows"),
    _count("cols", "elements of a row"),
    *_stream("x", "load stream x"),
    *_stream("y", "load stream y"),
    *_stream("z", "load stream z"),
    *_stream("o", "store stream o"),
    *_stream("p", "store stream p"),
    Field("u", 32, "scalar operand u", reg=True),
    Field("v", 32, "scalar operand v", reg=True),
)
_KLOAD = (
    _dram("dram", "byte address of the micro-operations"),
    Field("kernel", 10, "first micro-operation to write"),
    Field("count", 10, "micro-operations, 8 bytes each", default=1),
)


def _alu(name: str, opcode: int, what: str) -> Spec:
    return Spec(name, opcode, Unit.SEQ, f"rd = {what}, 32-bit wrapping", (_RD, _RA, _B))


def _branch(name: str, opcode: int, what: str) -> Spec:
    return Spec(name, opcode, Unit.SEQ, f"go to target if {what}", (_RA, _B, _TARGET))


_NOT_BUILT = Rule("zero", "opcode", fault=Fault.UNIMPLEMENTED, text="not built yet")

_SPECS = (
    Spec("halt", 1, Unit.SEQ, "finish when all units are quiet"),
    Spec("fence", 2, Unit.SEQ, "wait until all units are quiet"),
    Spec("li", 3, Unit.SEQ, "rd = b", (_RD, _B)),
    _alu("add", 4, "ra + b"),
    _alu("sub", 5, "ra - b"),
    _alu("mul", 6, "ra * b"),
    _alu("shl", 7, "ra << (b & 31)"),
    _alu("shr", 8, "ra >> (b & 31), zeros in"),
    _alu("sar", 9, "ra >> (b & 31), sign in"),
    _alu("and", 10, "ra & b"),
    _alu("min", 11, "signed minimum of ra and b"),
    _alu("max", 12, "signed maximum of ra and b"),
    Spec("ldw", 13, Unit.SEQ, "rd = word of DRAM at ra + b, after LOAD is quiet", (_RD, _RA, _B)),
    Spec("stw", 14, Unit.SEQ, "word of DRAM at ra + b = rd, after STORE is quiet", (_RD, _RA, _B)),
    _branch("beq", 15, "ra == b"),
    _branch("bne", 16, "ra != b"),
    _branch("blt", 17, "ra < b, signed"),
    _branch("bge", 18, "ra >= b, signed"),
    Spec("jmp", 19, Unit.SEQ, "go to target", (_TARGET,)),
    Spec("post", 20, Unit.SEQ, "add n to a semaphore", (_SEM, _N)),
    Spec("wait", 21, Unit.SEQ, "wait until a semaphore is at least n, then take n", (_SEM, _N)),
    Spec("load", 32, Unit.LOAD, "DRAM to a local memory", _LOAD, _LOAD_RULES),
    Spec("matmul", 33, Unit.MATMUL, "macro tile on the systolic array", _MATMUL, _MATMUL_RULES),
    Spec("vector", 34, Unit.VECTOR, "run a micro-kernel over rows", _VECTOR, (_NOT_BUILT,)),
    Spec("kload", 35, Unit.VECTOR, "load micro-operations from DRAM", _KLOAD, (_NOT_BUILT,)),
    Spec("store", 36, Unit.STORE, "local memory to DRAM or scratchpad", _STORE, _STORE_RULES),
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


INSTRUCTIONS = index(_SPECS)
BY_OPCODE = {s.opcode: s for s in INSTRUCTIONS.values()}
