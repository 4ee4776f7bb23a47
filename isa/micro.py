"""A micro-operation is a 64-bit word with an ALU, a load and a store slot.

A word's three slots act in one cycle on all `dim` lanes: registers are read, then written. Types of
loaded and stored elements are those of the streams in the VECTOR instruction; lanes hold 32 bits.
`row` and `unit` count from 0 (head and tail: unit 0), `active` is 1 in lanes whose column is one.
A reduction over lanes rotates and combines, distances dim/2, dim/4 ... 1: every lane gets the same
bits. One over rows exchanges the streams' row and unit strides. docs/vector.md defines each
operation bit for bit.

Bits from 0 up: the fields of `ALU` (or of `CONST` for ``const``), then at bit 44 `SLOTS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tilewright.isa.encoding import IllegalInstruction
from tilewright.isa.forms import Fault, Field, TableError

WORD_BYTES = 8
REGISTERS = 32  # of each lane
SOURCES = {"u": 32, "v": 33, "lane": 34, "row": 35, "unit": 36, "zero": 37, "one": 38, "active": 39}
SLOT_BIT = 44

_OP = Field("op", 7, "operation")
_DST = Field("dst", 5, "destination register")


def _source(name: str) -> Field:
    special = ", ".join(f"{v} {k}" for k, v in SOURCES.items())
    return Field(name, 6, f"source: register 0 to 31, or {special} (one is 1.0; active: 0 or 1)")


_N = Field("n", 5, "lane, lane distance, or scale of mul_fx")
ALU = (_OP, _DST, _source("a"), _source("b"), _source("c"), _N)
CONST = (_OP, _DST, Field("imm", 32, "constant"))
SLOTS = (
    Field("load", 2, "0: none; 1, 2, 3: stream x, y, z"),
    Field("load_dst", 5, "register that the load writes"),
    Field("store", 2, "0: none; 1, 2: stream o, p"),
    Field("store_src", 5, "register that the store reads"),
)

#: Mnemonic -> (opcode, meaning).
OPERATIONS: dict[str, tuple[int, str]] = {
    name: (code, meaning)
    for code, name, meaning in (
        (0, "nop", "nothing"),
        (1, "mov", "a"),
        (2, "const", "imm"),
        (3, "select", "b if a is not 0, else c"),
        (4, "rotate", "lane i takes a of lane (i + n) mod dim"),
        (5, "broadcast", "every lane takes a of lane n"),
        (8, "add_f32", "a + b"),
        (9, "sub_f32", "a - b"),
        (10, "mul_f32", "a * b"),
        (11, "min_f32", "minimum, NaN wins"),
        (12, "max_f32", "maximum, NaN wins"),
        (13, "eq_f32", "a == b as 0 or 1"),
        (14, "lt_f32", "a < b as 0 or 1"),
        (15, "le_f32", "a <= b as 0 or 1"),
        (16, "neg_f32", "-a"),
        (17, "abs_f32", "|a|"),
        (18, "floor_f32", "round down"),
        (19, "round_f32", "round to nearest even integer"),
        (20, "recip_f32", "1 / a, table and integer arithmetic"),
        (21, "rsqrt_f32", "1 / sqrt(a), table and integer arithmetic"),
        (22, "exp2_fx", "2 to the a * 2^-24 as fp32, a of mul_fx; table and integer arithmetic"),
        (23, "log2_slope_f32", "log2(r) / (r - 1), r = a * 2^k in [0.75, 1.5); table"),
        (24, "fnma_f32", "c - a * b, rounded once"),
        (25, "div_fix_f32", "a / b, rounded once, from an approximation c of div_mul_f32"),
        (26, "sqrt_fix_f32", "sqrt(a), rounded once, from an approximation b"),
        (27, "sign_f32", "sign of a, zero and NaN kept"),
        (28, "fma_f32", "a * b + c, rounded once"),
        (29, "log2_f32", "log2(a), from b of log2_slope_f32"),
        (30, "div_recip_f32", "1 / significand of a, with a's sign"),
        (31, "div_mul_f32", "significand of a, with its sign, times b"),
        (32, "add_i32", "a + b, wrapping"),
        (33, "sub_i32", "a - b, wrapping"),
        (34, "mul_i32", "low word of a * b"),
        (35, "mulh_i32", "high word of the signed product"),
        (36, "mulh_u32", "high word of the unsigned product"),
        (37, "min_i32", "signed minimum"),
        (38, "max_i32", "signed maximum"),
        (39, "min_u32", "unsigned minimum"),
        (40, "max_u32", "unsigned maximum"),
        (41, "eq_i32", "a == b as 0 or 1"),
        (42, "lt_i32", "a < b signed, as 0 or 1"),
        (43, "le_i32", "a <= b signed, as 0 or 1"),
        (44, "lt_u32", "a < b unsigned, as 0 or 1"),
        (45, "le_u32", "a <= b unsigned, as 0 or 1"),
        (46, "mul_fx", "fp32 a * int32 b * 2^-n to int32, nearest even, saturating, NaN: -2^31"),
        (48, "and", "a & b"),
        (49, "or", "a | b"),
        (50, "xor", "a ^ b"),
        (51, "shl", "a << b, 0 from 32 on"),
        (52, "shr", "a >> b, zeros in, 0 from 32 on"),
        (53, "sar", "a >> b, sign in"),
        (54, "clz", "leading zeros of a"),
        (55, "popcount", "ones in a"),
        (56, "i32_f32", "signed integer to fp32"),
        (57, "u32_f32", "unsigned integer to fp32"),
        (58, "f32_i32", "fp32 to signed integer, to zero, saturating, NaN gives 0"),
        (59, "f32_u32", "fp32 to unsigned integer, to zero, saturating, NaN gives 0"),
        (60, "f32_bf16", "round to bf16, held as fp32"),
    )
}
BY_CODE = {code: name for name, (code, _) in OPERATIONS.items()}


def _placed(fields: tuple[Field, ...]) -> dict[str, tuple[int, Field]]:
    """Bit of each field; refuses fields that reach into the slots or past the word."""
    out: dict[str, tuple[int, Field]] = {}
    for start, end, group in ((0, SLOT_BIT, fields), (SLOT_BIT, 8 * WORD_BYTES, SLOTS)):
        for f in group:
            out[f.name] = (start, f)
            start += f.bits
        if start > end:
            raise TableError(f"micro-operation fields end at bit {start}, above {end}")
    return out


LAYOUTS = {name: _placed(CONST if name == "const" else ALU) for name in OPERATIONS}
if len(BY_CODE) != len(OPERATIONS):
    raise TableError("two micro-operations have one opcode")


@dataclass(frozen=True)
class MicroOp:
    """One micro-operation: ALU operation by name, and the value of every other field."""

    name: str
    values: Mapping[str, int]

    @staticmethod
    def make(name: str, **fields: int) -> MicroOp:
        """Build one; fields that are not named are 0. Raises ValueError for what does not fit."""
        if name not in LAYOUTS:
            raise ValueError(f"micro-operation must be one of {', '.join(LAYOUTS)}, not {name!r}")
        layout = LAYOUTS[name]
        for key, value in fields.items():
            if key not in layout or key == "op":
                raise ValueError(f"{name} has no field {key!r}")
            if not 0 <= value <= layout[key][1].high:
                raise ValueError(f"{name}.{key} must be in 0 to {layout[key][1].high}, not {value}")
        values = {k: fields.get(k, 0) for k in layout if k != "op"}
        return MicroOp(name, MappingProxyType(values))


def encode_micro(op: MicroOp) -> bytes:
    """The 8-byte word."""
    values = {"op": OPERATIONS[op.name][0], **op.values}
    word = sum(values[k] << at for k, (at, _) in LAYOUTS[op.name].items())
    return word.to_bytes(WORD_BYTES, "little")


def decode_micro(data: bytes) -> MicroOp:
    """The micro-operation of a word; raises `IllegalInstruction` (OPCODE) if it is none."""
    word = int.from_bytes(data, "little")
    name = BY_CODE.get(word & _OP.high)
    if name is None or len(data) != WORD_BYTES:
        raise IllegalInstruction(Fault.OPCODE, f"{data.hex()} is no micro-operation")
    values = {k: word >> at & f.high for k, (at, f) in LAYOUTS[name].items() if k != "op"}
    op = MicroOp.make(name, **values)
    if encode_micro(op) != data:
        raise IllegalInstruction(Fault.OPCODE, f"{name}: bits outside its fields must be zero")
    return op
