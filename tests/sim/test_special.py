"""VECTOR's arithmetic in NumPy against exact fractions, Python's integers and IEEE float64."""

import hashlib
import math
import struct
from fractions import Fraction

import numpy as np
import pytest
from tilewright.isa import special as tables
from tilewright.isa.micro import OPERATIONS
from tilewright.sim import special
from tilewright.sim.vector_alu import LANE_OPERATIONS, across, alu

NAN, INF, ONE = 0x7FC00000, 0x7F800000, 0x3F800000
CORNERS = np.array([
    0, 1, 0x7FFFFF, 0x800000, 0x800001, 0xFFFFFF, ONE - 1, ONE, ONE + 1, 0x3F000000, 0x3FC00000,
    0x40200000, 0x4AFFFFFF, 0x4B000000, 0x4EFFFFFF, 0x4F000000, 0x4F7FFFFF, 0x4F800000, 0x7E800000,
    0x7E800001, 0x7F000000, 0x7F7FFFFF, INF, INF + 1, NAN, 0x7FFFFFFF,
], np.uint32)  # fmt: skip
CORNERS = np.concatenate([CORNERS, CORNERS | np.uint32(1 << 31)])


def words(count, seed):
    return np.random.default_rng(seed).integers(0, 2**32, count, dtype=np.uint32)


def number(bits):
    """What fp32 bits mean: a float with subnormals zero."""
    bits = int(bits)
    if not bits & INF:
        bits &= 1 << 31
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def rounded(exact, zero=0.0):
    """Bits of a Fraction by the chip's rule; `zero` is what an exact zero is."""
    if exact == 0:
        return struct.unpack("<I", struct.pack("<f", zero))[0]
    sign, size = (1 << 31 if exact < 0 else 0), abs(exact)
    if size < Fraction(2) ** -126:
        return sign
    e = size.numerator.bit_length() - size.denominator.bit_length()
    e -= size < Fraction(2) ** e
    fraction = round(size / Fraction(2) ** (e - 23))  # to even
    return sign | min((e + 126 << 23) + fraction, INF)


def errors(got, want):
    """ulp of `want` (longdouble), where it is a normal number."""
    want = np.asarray(want, np.longdouble)
    e = np.frexp(want)[1] - 24
    return np.abs(got.view(np.float32).astype(np.longdouble) - want) / np.ldexp(np.longdouble(1), e)


def values(bits):
    return bits.view(np.float32).astype(np.longdouble)


def test_tables_are_the_same_everywhere():
    text = repr([tables.table(name) for name in sorted(tables.PLACES)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "b0fcdef2d0975e21"
    assert len(tables.rom()) == tables.ROM_DEPTH


@pytest.mark.parametrize(
    "name, exact, limit",
    [("recip", lambda v: 1 / v, 1), ("rsqrt", lambda v: 1 / np.sqrt(v), 1), ("log2", np.log2, 2)],
)
def test_error_over_exponents(name, exact, limit):
    """Two exponents with many fractions, all exponents with few; the full proof takes all."""
    bits = np.arange(0x3F000000, 0x40000000, 61, dtype=np.uint32)
    bits = np.concatenate([bits, np.arange(0x00800000, 0x7E800000, 20011, dtype=np.uint32)])
    assert errors(getattr(special, name)(bits), exact(values(bits))).max() <= limit


def test_log2_near_one():
    bits = np.arange(ONE - 30000, ONE + 30000, dtype=np.uint32)
    bits = bits[bits != ONE]
    want = np.log1p(values(bits) - 1) / np.log(np.longdouble(2))
    assert errors(special.log2(bits), want).max() <= 2
    assert special.log2(np.uint32([ONE]))[0] == 0


def test_exp2_error_and_range():
    x = np.linspace(-126, 127.999, 300_000, dtype=np.float32)
    assert errors(special.exp2(x.view(np.uint32)), np.exp2(x.astype(np.longdouble))).max() <= 2
    whole = np.arange(-126, 128, dtype=np.float32)
    assert (special.exp2(whole.view(np.uint32)).view(np.float32) == 2.0**whole).all()
    edges = np.float32([-126.0001, -1e30, -np.inf, 128, 1e30, np.inf, np.nan]).view(np.uint32)
    assert special.exp2(edges).tolist() == [0, 0, 0, INF, INF, INF, NAN]


def test_special_values():
    x = np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, -2.0, 2.0**-140, -(2.0**-140)])
    x, minus = x.view(np.uint32), 1 << 31
    both = [INF, minus | INF]
    assert special.recip(x)[[0, 1, 2, 3, 4, 6, 7]].tolist() == [*both, 0, minus, NAN, *both]
    assert special.rsqrt(x).tolist() == [*both, 0, NAN, NAN, NAN, *both]
    assert special.log2(x).tolist() == [both[1], both[1], INF, NAN, NAN, NAN, both[1], both[1]]
    assert special.sqrt(x).tolist() == [0, minus, INF, NAN, NAN, NAN, 0, minus]


def test_reciprocal_flushes_before_rounding():
    big = np.float32([2.0**126, np.nextafter(np.float32(2.0**126), np.inf), 2.0**127])
    got = special.recip(np.concatenate([big, -big]).view(np.uint32))
    assert got.tolist() == [1 << 23, 0, 0, 1 << 31 | 1 << 23, 1 << 31, 1 << 31]


def test_divide_is_correctly_rounded():
    a, b = words((2, 60_000), 1)
    near = words((2, 60_000), 2) & 0x807FFFFF | 0x3F800000
    ca, cb = (v.ravel() for v in np.meshgrid(CORNERS, CORNERS))
    a, b = np.concatenate([a, near[0], ca]), np.concatenate([b, near[1], cb])
    x, y = (special.canonical(v).view(np.float32).astype(np.longdouble) for v in (a, b))
    with np.errstate(all="ignore"):
        q = x / y  # 64 bits: right about the flush; float32's own division rounds once
        want = (x.astype(np.float32) / y.astype(np.float32)).view(np.uint32)
    want = np.where(np.isnan(q), NAN, np.where(np.abs(q) < 2.0**-126, (a ^ b) & 1 << 31, want))
    assert (special.divide(a, b) == want).all()


def test_sqrt_is_correctly_rounded():
    a = np.concatenate([np.arange(0x3F800000, 0x40800000, 37, dtype=np.uint32), words(30_000, 3)])
    with np.errstate(invalid="ignore"):
        want = special.canonical(np.sqrt(special.canonical(a).view(np.float32)).view(np.uint32))
    assert (special.sqrt(a) == want).all()


def test_fma_is_rounded_once():
    rng = np.random.default_rng(4)
    for i in range(3000):
        a, b, c = words(3, [i, 5])
        if i % 3:  # exponents so that the summands meet
            ea = int(rng.integers(1, 255))
            eb = int(np.clip(rng.integers(-20, 20) + 254 - ea, 1, 254))
            a, b = (np.uint32(v & 0x807FFFFF | e << 23) for v, e in ((a, ea), (b, eb)))
            c = np.uint32(
                c & 0x807FFFFF | np.clip(ea + eb - 127 + rng.integers(-40, 40), 1, 254) << 23
            )
        x, y, z = map(number, (a, b, c))
        if i % 3 == 2 and math.isfinite(x * y):
            c = np.float32(-x * y).view(np.uint32) if abs(x * y) < 2.0**127 else c
            z = number(c)
        if not all(map(math.isfinite, (x, y, z))):
            continue
        for name, sign in (("fma_f32", 1), ("fnma_f32", -1)):
            want = rounded(sign * Fraction(x) * Fraction(y) + Fraction(z), sign * x * y + z)
            assert alu(name, a, b, c) == want, (name, hex(a), hex(b), hex(c))


def test_fma_special_values():
    def run(a, b, c):
        return int(alu("fma_f32", *(np.float32([v]).view(np.uint32) for v in (a, b, c)))[0])

    inf, nan = math.inf, math.nan
    assert run(inf, 0, 1) == run(0, -inf, 1) == run(inf, 1, -inf) == run(nan, 1, 1) == NAN
    assert run(inf, -1, 5) == INF | 1 << 31 and run(2, 3, inf) == INF
    assert run(-0.0, 1, 0.0) == 0 and run(-0.0, 1, -0.0) == 1 << 31 and run(1, 1, -1) == 0


@pytest.mark.parametrize("n", [0, 6, 31])
def test_mul_fx_is_exact(n):
    a, b = np.concatenate(
        [words((2, 1500), n), np.stack([CORNERS, words(len(CORNERS), 6)])], axis=1
    )
    a[:1000] = a[:1000] & 0x807FFFFF | (a[:1000] % 80 + 100) << 23
    got = alu("mul_fx", a, b, n=n).view(np.int32)
    for x, y, q in zip(a, b.view(np.int32), got, strict=True):
        v = number(x)
        if math.isnan(v) or (math.isinf(v) and y == 0):
            want = -(2**31)
        elif math.isinf(v):
            want = (2**31 - 1) * (1 if (v > 0) == (y > 0) else -1)
        else:
            want = round(Fraction(v) * int(y) / 2**n)
            want = max(1 - 2**31, min(2**31 - 1, want))
        assert q == want, (hex(x), y)


def signed(x):
    return x - (1 << 32) if x >> 31 else x


INTEGERS = {
    "add_i32": lambda a, b: a + b,
    "sub_i32": lambda a, b: a - b,
    "mul_i32": lambda a, b: a * b,
    "mulh_i32": lambda a, b: signed(a) * signed(b) >> 32,
    "mulh_u32": lambda a, b: a * b >> 32,
    "min_i32": lambda a, b: min(signed(a), signed(b)),
    "max_i32": lambda a, b: max(signed(a), signed(b)),
    "min_u32": min,
    "max_u32": max,
    "eq_i32": lambda a, b: a == b,
    "lt_i32": lambda a, b: signed(a) < signed(b),
    "le_i32": lambda a, b: signed(a) <= signed(b),
    "lt_u32": lambda a, b: a < b,
    "le_u32": lambda a, b: a <= b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "shl": lambda a, b: a << min(b, 32),
    "shr": lambda a, b: a >> min(b, 32),
    "sar": lambda a, b: signed(a) >> min(b, 32),
    "clz": lambda a, b: 32 - a.bit_length(),
    "popcount": lambda a, b: bin(a).count("1"),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_integers(name):
    a, b = words((2, 600), 7)
    small = words((2, 600), 8) % 40
    a, b = np.concatenate([a, small[0], a]), np.concatenate([b, small[1], small[1]])
    want = [INTEGERS[name](int(x), int(y)) % (1 << 32) for x, y in zip(a, b, strict=True)]
    assert alu(name, a, b).tolist() == want


def as_integer(x, low, high):
    v = number(x)
    if math.isnan(v):
        return 0
    return int(max(low, min(high, math.trunc(max(min(v, 1e20), -1e20)))))


UNARY = {
    "floor_f32": lambda v: float(math.floor(v)) or math.copysign(0.0, v),
    "round_f32": lambda v: math.copysign(round(v), v),
    "neg_f32": lambda v: -v,
    "abs_f32": abs,
    "sign_f32": lambda v: math.copysign(1.0, v) if v else v,
}


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    x = np.concatenate([CORNERS, words(400, 9) & 0x807FFFFF | (words(400, 10) % 40 + 115) << 23])
    x = x[[math.isfinite(number(v)) for v in x]]
    want = [np.float32(UNARY[name](number(v))).view(np.uint32) for v in x]
    assert alu(name, x).tolist() == want
    assert alu(name, np.uint32([INF + 1]))[0] == NAN


def test_conversions():
    x = np.concatenate([CORNERS, words(500, 11), words(500, 12) % (1 << 25) + (150 << 23)])
    assert alu("f32_i32", x).view(np.int32).tolist() == [
        as_integer(v, -(2**31), 2**31 - 1) for v in x
    ]
    assert alu("f32_u32", x).tolist() == [as_integer(v, 0, 2**32 - 1) for v in x]
    assert alu("u32_f32", x).tolist() == [rounded(Fraction(int(v))) for v in x]
    assert alu("i32_f32", x).tolist() == [rounded(Fraction(signed(int(v)))) for v in x]


def test_comparisons():
    a, b = (v.ravel() for v in np.meshgrid(CORNERS, CORNERS))
    pairs = [(number(x), number(y)) for x, y in zip(a, b, strict=True)]
    assert alu("eq_f32", a, b).tolist() == [x == y for x, y in pairs]
    assert alu("lt_f32", a, b).tolist() == [x < y for x, y in pairs]
    assert alu("le_f32", a, b).tolist() == [x <= y for x, y in pairs]


def test_minimum_orders_zeros_and_keeps_nan():
    a = np.uint32([0, 1 << 31, NAN, 5, INF, ONE])  # 5 is a subnormal: +0
    b = np.uint32([1 << 31, 0, ONE, 1 << 31, ONE, INF + 1])
    assert alu("min_f32", a, b).tolist() == [1 << 31, 1 << 31, NAN, 1 << 31, ONE, NAN]
    assert alu("max_f32", a, b).tolist() == [0, 0, NAN, 0, INF, NAN]


def test_select_tests_bits():
    assert alu("select", np.uint32([0, 1, 1 << 31]), 7, 9).tolist() == [9, 7, 7]


def test_every_operation_is_defined():
    moves = {"nop", "const", "rotate", "broadcast"}
    assert set(OPERATIONS) == {*LANE_OPERATIONS, *moves}
    with pytest.raises(ValueError, match="operation must be one of mov"):
        alu("rotate", 1)


def test_movement():
    x = np.arange(16, dtype=np.uint32).reshape(2, 8)
    assert across("rotate", x, 3)[1].tolist() == [11, 12, 13, 14, 15, 8, 9, 10]
    assert across("broadcast", x, 5)[0].tolist() == [5] * 8
    with pytest.raises(ValueError, match="must be rotate or broadcast, not 'mov'"):
        across("mov", x, 0)
