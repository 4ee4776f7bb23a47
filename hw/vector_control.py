"""What each stage of a VECTOR lane does for each micro-operation.

The lanes of a row run one operation, so it is decoded once. A field of `FIELDS` is used in one
stage; `VectorControl` delays it until the operands are there. Stage s computes what register s
holds; operands come to stage 1.
"""

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.float import stage
from tilewright.isa.micro import OPERATIONS
from tilewright.isa.timing import VECTOR_ALU_LATENCY


class X(enum.Enum, shape=3):
    """Multiplicand: significand of a (at bit 0 or 8), a, |a|, approximation, log2's r - 1."""

    SIG = 0
    SIG8 = 1
    RAW = 2
    ABS = 3
    FIX = 4
    LOG = 5


class Y(enum.Enum, shape=3):
    """Multiplier: significand of b, b, |b|, approximation, b's fraction behind a one, constants."""

    SIG = 0
    RAW = 1
    ABS = 2
    FIX = 3
    SLOPE = 4
    ONE = 5
    INT = 6
    UNIT = 7


class Z(enum.Enum, shape=2):
    """Addend: c, b, a zero with the product's sign, log2's exponent."""

    C = 0
    B = 1
    NONE = 2
    LOG = 3


class E(enum.Enum, shape=4):
    """Exponent: of the product (of a and b, of a, of b), shift of `FX`, or the result's own."""

    MUL = 0
    A = 1
    B = 2
    LOG = 3
    INT = 4
    FX = 5
    DIV = 6
    SQRT = 7
    RECIP = 8
    HALF = 9
    RSQRT = 10
    EXP2 = 11
    SLOPE = 12


class Case(enum.Enum, shape=4):
    """Whose zeros, infinities and NaNs replace the result."""

    NONE = 0
    FMA = 1
    LOG = 2
    DIV = 3
    SQRT = 4
    RECIP = 5
    RSQRT = 6
    EXP2 = 7
    FX = 8


class Basic(enum.Enum, shape=4):
    """Operations without multiplier and tables."""

    MOV = 0
    SELECT = 1
    SUM = 2
    LESS = 3
    LESS_EQUAL = 4
    EQUAL = 5
    MIN = 6
    MAX = 7
    LOGIC = 8
    SHIFT = 9
    COUNT = 10
    ROUND = 11
    SIGN = 12
    BF16 = 13


class Order(enum.Enum, shape=2):
    """How operands are compared; FLOAT also makes them canonical."""

    UNSIGNED = 0
    SIGNED = 1
    FLOAT = 2


class Word(enum.Enum, shape=2):
    """Results that are words in stage 4: of the basic part, of the product, of `FX`."""

    BASIC = 0
    LOW = 1
    HIGH = 2
    FX = 3


class Out5(enum.Enum, shape=2):
    """Which part gives the result in stage 5."""

    WORD = 0
    FMA = 1
    SPECIAL = 2
    FIX = 3


#: Field: (shape, stage that uses it).
FIELDS = {
    "mul": (1, 1), "special": (1, 1), "basic": (1, 1),  # parts that work: registers of stage 1
    "x": (X, 1), "y": (Y, 1), "z": (Z, 1), "e": (E, 1), "case": (Case, 1), "flip": (1, 1),
    "signed": (1, 1), "rounds": (1, 1), "n": (5, 1), "order": (Order, 1),
    "mul2": (1, 2), "special2": (1, 2), "basic2": (1, 2), "fix2": (1, 2),
    "op": (Basic, 2), "variant": (2, 2), "order2": (Order, 2),
    "fma3": (1, 3), "special3": (1, 3), "basic3": (1, 3), "word3": (Word, 3), "fix3": (1, 3),
    "along3": (1, 3), "root3": (1, 3), "sum3": (1, 3), "bf16_3": (1, 3),
    "fma4": (1, 4), "special4": (1, 4), "fix4": (1, 4), "word4": (Word, 4), "words4": (1, 4),
    "along4": (1, 4), "signed4": (1, 4), "rounds4": (1, 4), "root4": (1, 4),
    "out": (Out5, 5),
}  # fmt: skip
LAYOUT = data.StructLayout({name: shape for name, (shape, _) in FIELDS.items()})


def _part(part, **fields):
    return {part: 1, f"{part}2": 1, **fields}


def _fma(x, y, z, e, case=Case.FMA, **more):
    return _part("mul", x=x, y=y, z=z, e=e, case=case, fma3=1, fma4=1, along3=1, along4=1,
                 out=Out5.FMA, **more)  # fmt: skip


def _special(e, case, x=X.SIG):
    """X.RAW: the result is positive."""
    return _part("special", x=x, special3=1, special4=1, e=e, case=case, along3=1, along4=1,
                 out=Out5.SPECIAL)  # fmt: skip


def _word(x, y, word, **more):
    """A product that is a word: of integers, or of `FX`."""
    return _part("mul", x=x, y=y, word3=word, word4=word, words4=1, along3=1, **more)


def _fx(y, signed, rounds):
    return _word(X.SIG8, y, Word.FX, e=E.FX, case=Case.FX, signed=signed, signed4=signed,
                 rounds=rounds, rounds4=rounds)  # fmt: skip


def _fix(y, e, case, root):
    return _part("mul", x=X.FIX, y=y, e=e, case=case, signed=root, fix2=1, fix3=1, fix4=1,
                 along3=1, along4=1, root3=root, root4=root, out=Out5.FIX)  # fmt: skip


def _basic(op, variant=0, order=Order.UNSIGNED):
    sums = op in (Basic.SUM, Basic.ROUND, Basic.BF16)
    return _part("basic", basic3=1, op=op, variant=variant, order=order, order2=order, words4=1,
                 sum3=sums, bf16_3=op == Basic.BF16)  # fmt: skip


def _compared(suffix, order):
    """Comparisons, minimum and maximum of one type."""
    cases = {"eq": Basic.EQUAL, "lt": Basic.LESS, "le": Basic.LESS_EQUAL, "min": Basic.MIN,
             "max": Basic.MAX}  # fmt: skip
    return {f"{k}_{suffix}": _basic(op, order=order) for k, op in cases.items()}


#: Operation of one lane: its fields; those that are not named are 0.
DECODED = {
    "add_f32": _fma(X.SIG, Y.ONE, Z.B, E.A),
    "sub_f32": _fma(X.SIG, Y.ONE, Z.B, E.A, flip=1),
    "mul_f32": _fma(X.SIG, Y.SIG, Z.NONE, E.MUL),
    "fma_f32": _fma(X.SIG, Y.SIG, Z.C, E.MUL),
    "fnma_f32": _fma(X.SIG, Y.SIG, Z.C, E.MUL, flip=1),
    "div_mul_f32": _fma(X.SIG, Y.SIG, Z.NONE, E.B),
    "log2_f32": _fma(X.LOG, Y.SLOPE, Z.LOG, E.LOG, Case.LOG),
    "i32_f32": _fma(X.ABS, Y.INT, Z.NONE, E.INT, Case.NONE, signed=1),
    "u32_f32": _fma(X.RAW, Y.INT, Z.NONE, E.INT, Case.NONE),
    "recip_f32": _special(E.RECIP, Case.RECIP),
    "rsqrt_f32": _special(E.RSQRT, Case.RSQRT),
    "exp2_fx": _special(E.EXP2, Case.EXP2, X.RAW),
    "log2_slope_f32": _special(E.SLOPE, Case.NONE, X.RAW),
    "div_recip_f32": _special(E.HALF, Case.NONE),
    "div_fix_f32": _fix(Y.SIG, E.DIV, Case.DIV, 0),
    "sqrt_fix_f32": _fix(Y.FIX, E.SQRT, Case.SQRT, 1),
    "mul_i32": _word(X.RAW, Y.RAW, Word.LOW),
    "mulh_i32": _word(X.RAW, Y.RAW, Word.HIGH, root3=1),  # corrected for the signs
    "mulh_u32": _word(X.RAW, Y.RAW, Word.HIGH),
    "mul_fx": _fx(Y.ABS, 1, 1),
    "f32_i32": _fx(Y.UNIT, 1, 0),
    "f32_u32": _fx(Y.UNIT, 0, 0),
    "mov": _basic(Basic.MOV),
    "select": _basic(Basic.SELECT),
    "neg_f32": _basic(Basic.SIGN, 0, Order.FLOAT),
    "abs_f32": _basic(Basic.SIGN, 1, Order.FLOAT),
    "sign_f32": _basic(Basic.SIGN, 2, Order.FLOAT),
    "floor_f32": _basic(Basic.ROUND, 0, Order.FLOAT),
    "round_f32": _basic(Basic.ROUND, 1, Order.FLOAT),
    "f32_bf16": _basic(Basic.BF16, 0, Order.FLOAT),
    "add_i32": _basic(Basic.SUM, 0),
    "sub_i32": _basic(Basic.SUM, 1),
    "and": _basic(Basic.LOGIC, 0),
    "or": _basic(Basic.LOGIC, 1),
    "xor": _basic(Basic.LOGIC, 2),
    "shl": _basic(Basic.SHIFT, 0),
    "shr": _basic(Basic.SHIFT, 1),
    "sar": _basic(Basic.SHIFT, 2),
    "clz": _basic(Basic.COUNT, 0),
    "popcount": _basic(Basic.COUNT, 1),
    **_compared("f32", Order.FLOAT),
    **_compared("i32", Order.SIGNED),
    **{k: v for k, v in _compared("u32", Order.UNSIGNED).items() if k != "eq_u32"},
}
#: What the lanes compute for operations that also move between lanes (`hw.vector_lanes`).
LANE_STEP = {name: "mov" for name in ("const", "rotate", "broadcast")}


class VectorControl(wiring.Component):
    """Decodes an operation one cycle before its operands come to the lanes.

    Members
    -------
    i_valid : an operation other than `nop`
    i_op, i_n : its fields
    o_stage : fields of `LAYOUT`, each in the cycle in which its stage has the operation
    o_valid : results of the lanes

    **Timing** : ``o_stage`` of stage s at t + s; ``o_valid`` at t + 1 + `VECTOR_ALU_LATENCY`.
    """

    def __init__(self):
        super().__init__(
            {
                "i_valid": In(1),
                "i_op": In(7),
                "i_n": In(5),
                "o_stage": Out(LAYOUT),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        decoded = Signal(LAYOUT)
        m.d.comb += decoded.n.eq(self.i_n)
        with m.If(self.i_valid), m.Switch(self.i_op):
            for name, (code, _) in OPERATIONS.items():
                fields = DECODED.get(LANE_STEP.get(name, name), {})
                with m.Case(code):
                    m.d.comb += [decoded[key].eq(value) for key, value in fields.items()]
        for name, (_, last) in FIELDS.items():
            value = decoded[name]
            for s in range(last):
                # without reset: idle cycles during the reset bring zeros
                value = stage(m, "sync", value, f"{name}_at{s + 1}")
            m.d.comb += Value.cast(self.o_stage[name]).eq(value)
        valid = Signal(VECTOR_ALU_LATENCY + 1)
        m.d.sync += valid.eq(valid << 1 | self.i_valid)
        m.d.comb += self.o_valid.eq(valid[-1])
        return m
