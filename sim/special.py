"""Special functions of VECTOR's lanes in NumPy, bit for bit: tables of `isa.special`, integers.

All take and give uint32 bits. Subnormal inputs count as signed zeros, NaN results are 0x7fc00000,
non-zero results below 2^-126 become signed zeros before rounding. `divide`, `sqrt`, `exp2` and
`log2` are the short sequences of micro-operations that docs/vector.md names.
"""

from functools import cache

import numpy as np
from tilewright.isa import special
from tilewright.sim import numerics

NAN, INF, SIGN = np.uint32(0x7FC00000), np.uint32(0x7F800000), np.uint32(0x80000000)
_FRACTION = 0x7FFFFF
_HIDDEN = 1 << 23
_GUARD = special.Y_BITS - 23
#: Fraction bits of `exp2_fx`'s argument.
FX_BITS = 24
FX_MAX, FX_NAN = (1 << 31) - 1, -(1 << 31)


def canonical(x):
    """Bits with subnormals made zero and NaNs canonical."""
    return numerics.canonical(np.asarray(x, np.uint32).view(np.float32)).view(np.uint32)


def parts(x):
    """(sign bit in place, biased exponent, fraction) of canonical bits; the last two int64."""
    x = canonical(x)
    return x & SIGN, (x >> np.uint32(23) & np.uint32(255)).astype(np.int64), (
        x & np.uint32(_FRACTION)
    ).astype(np.int64)  # fmt: skip


def _fraction(x):
    """The fraction bits as they are, int64."""
    return (np.asarray(x, np.uint32) & np.uint32(_FRACTION)).astype(np.int64)


@cache
def _coefficients(name):
    return np.array(special.table(name), np.int64)


def evaluate(name, index, step):
    """The 24 rounded bits after the leading one, at `step` of segment `index`; 2^23 is a carry."""
    c0, c1, c2 = np.moveaxis(_coefficients(name)[index], -1, 0)
    t = c1 + (c2 * step >> special.STEP_BITS)
    y = c0 + (t * step >> special.STEP_BITS)
    return y + (1 << _GUARD - 1) >> _GUARD


def _pack(sign, exponent, fraction):
    """Bits of a normal number; a carry of `fraction` runs into `exponent`, up to infinity."""
    return (sign.astype(np.int64) | (exponent << 23) + fraction).astype(np.uint32)


def _segment(fraction):
    """Index and step of the functions with 128 segments in [1, 2)."""
    return fraction >> 16, (fraction & 0xFFFF) << 2


def recip(a):
    """1 / a."""
    sign, e, f = parts(a)
    y = _pack(sign, 253 - e, evaluate("recip", *_segment(f)))
    y = np.where((e >= 254) | (e == 253) & (f != 0), sign, y)
    y = np.where(e == 0, sign | INF, y)
    return np.where((e == 255) & (f != 0), NAN, y)


def div_recip(a):
    """1 / significand of `a`, with its sign: in (1/2, 1] whatever the exponent."""
    sign, f = np.asarray(a, np.uint32) & SIGN, _fraction(a)
    return _pack(sign, 126, evaluate("recip", *_segment(f)))


def rsqrt(a):
    """1 / sqrt(a)."""
    sign, e, f = parts(a)
    index, step = _segment(f)
    odd = ~e & 1  # of the unbiased exponent
    zero = np.zeros_like(sign)
    y = _pack(zero, 190 - (e + 1 >> 1), evaluate("rsqrt", index + 128 * odd, step))
    y = np.where(e == 255, np.uint32(0), y)
    y = np.where((sign != 0) | (e == 255) & (f != 0), NAN, y)
    return np.where(e == 0, sign | INF, y)


def exp2_fx(a):
    """2^(a 2^-24) of int32 bits; 2^31 - 1 stands for overflow, -2^31 for NaN."""
    a = np.asarray(a, np.uint32).view(np.int32).astype(np.int64)
    whole, rest = a >> FX_BITS, a & (1 << FX_BITS) - 1
    zero = np.zeros(a.shape, np.uint32)
    y = _pack(zero, whole + 127, evaluate("exp2", rest >> 18, rest & (1 << 18) - 1))
    y = np.where(whole < -126, zero, y)
    return np.where(a == FX_MAX, INF, np.where(a == FX_NAN, NAN, y))


def log2_slope(a):
    """log2(r) / (r - 1) of a's significand r, moved into [0.75, 1.5); in [1, 2)."""
    f = _fraction(a)
    return _pack(np.zeros(f.shape, np.uint32), 127, evaluate("log2", *_segment(f)))


def log2_fma(a, b):
    """log2(a) = e + (r - 1) * slope, rounded once; `b` gives the slope's fraction."""
    sign, e, f = parts(a)
    high = f >= _HIDDEN >> 1
    rest = np.where(high, f - _HIDDEN, 2 * f) * 2.0**-24
    slope = 1 + _fraction(b) * 2.0**-23
    y = round_sum(rest * slope, (e - 127 + high).astype(np.float64))
    y = np.where(e == 255, INF, y)
    y = np.where((sign != 0) | (e == 255) & (f != 0), NAN, y)
    return np.where(e == 0, SIGN | INF, y)


@np.errstate(all="ignore")
def round_sum(p, c):
    """Exact sum of two float64 as fp32 bits, flushed, then rounded once to nearest even.

    The float64 sum is rounded to odd (its last bit is set if it is not exact), which a second
    rounding to 24 bits does not notice.
    """
    s = p + c
    v = s - p
    error = (p - (s - v)) + (c - v)
    bits = s.view(np.int64)
    away = (error > 0) == (s > 0)
    odd = np.where(bits & 1 == 1, bits, bits + np.where(away, 1, -1))
    s = np.where(np.isfinite(s) & (error != 0), odd.view(np.float64), s)
    s = np.where(np.abs(s) < 2.0**-126, np.copysign(0.0, s), s)
    return canonical(s.astype(np.float32).view(np.uint32))


@np.errstate(all="ignore")
def fma(a, b, c, negate=False):
    """a * b + c, or c - a * b, rounded once; products of fp32 are exact in float64."""
    a, b, c = (canonical(v).view(np.float32).astype(np.float64) for v in (a, b, c))
    return round_sum(-a * b if negate else a * b, c)


def div_mul(a, b):
    """Significand of `a` (a zero, an infinity or a NaN as it is), with its sign, times `b`."""
    sign, e, f = parts(a)
    one = (sign.astype(np.int64) | 127 << 23 | f).astype(np.uint32)
    a = np.where((e == 0) | (e == 255), canonical(a), one)
    return numerics.f32_mul(a.view(np.float32), np.asarray(b, np.uint32).view(np.float32)).view(
        np.uint32
    )


def _candidate(q, exponent):
    """The 24-bit significand of `q`, moved to the nearest one that has `exponent`."""
    _, e, f = parts(q)
    return np.where(e > exponent, 2 * _HIDDEN - 1, np.where(e < exponent, _HIDDEN, _HIDDEN + f))


def _wrap28(x):
    """The low 28 bits, signed."""
    return (x + (1 << 27) & (1 << 28) - 1) - (1 << 27)


def _correct(rest, size, low):
    """How many units the rest is away: -2 to 2; bounds are `size`, and `low` more than thrice."""
    up = 0 + (rest > size) + (rest > 3 * size + low)
    return up - (rest <= -size) - (rest <= -3 * size + low)


def div_fix(a, b, c):
    """a / b, rounded once, if `c` is within 2.5 ulp of the quotient of the significands."""
    (sa, ea, fa), (sb, eb, fb) = parts(a), parts(b)
    sign, ma, mb = sa ^ sb, _HIDDEN + fa, _HIDDEN + fb
    below = (ma < mb).astype(np.int64)
    q = _candidate(c, 127 - below)
    q += _correct(_wrap28(2 * ((ma << 23 + below) - q * mb)), mb, 0)
    e = ea - eb + 127 - below
    y = np.where(e >= 255, sign | INF, _pack(sign, np.clip(e, 1, 254), q & _FRACTION))
    y = np.where(e <= 0, sign, y)
    y = np.where((eb == 0) | (ea == 255), sign | INF, y)
    y = np.where((ea == 0) | (eb == 255), sign, y)
    nan = (ea == 255) & (eb == 255) | (ea == 0) & (eb == 0)
    nan |= (ea == 255) & (fa != 0) | (eb == 255) & (fb != 0)
    return np.where(nan, NAN, np.where((ea == 255) & (eb == 0), sign | INF, y))


def sqrt_fix(a, b):
    """sqrt(a), rounded once, if `b` is within 2.5 ulp of it."""
    sign, e, f = parts(a)
    q = _candidate(b, (e + 1 >> 1) + 63)
    rest = (_HIDDEN + f << 23 + (~e & 1)) - q * q
    q += _correct(_wrap28(rest), q, 2)
    y = _pack(np.zeros_like(sign), (e + 1 >> 1) + 63, q & _FRACTION)
    y = np.where(e == 255, INF, y)
    y = np.where((sign != 0) | (e == 255) & (f != 0), NAN, y)
    return np.where(e == 0, sign, y)


def mul_fx(a, b, n):
    """fp32 times int32 times 2^-n as int32: nearest even, within 2^31 - 1; NaN gives -2^31."""
    sign, e, f = parts(a)
    b = np.asarray(b, np.uint32).view(np.int32).astype(np.int64)
    size = np.where(e == 0, 0, _HIDDEN + f) * np.abs(b)
    shift = 150 + n - e
    left, right = np.clip(-shift, 0, 7), np.clip(shift, 0, 62)
    size = size << left
    whole = size >> right
    rest = size - (whole << right)
    half = np.where(right == 0, 1, 1 << np.maximum(right - 1, 0))
    whole += (rest > half) | (rest == half) & (whole & 1 == 1)
    whole = np.where((shift < -7) & (size != 0), FX_MAX, np.minimum(whole, FX_MAX))
    y = np.where((sign != 0) != (b < 0), -whole, whole)
    y = np.where((e == 255) & ((f != 0) | (b == 0)), FX_NAN, y)
    return y.astype(np.int32).view(np.uint32)


def divide(a, b):
    """Correctly rounded a / b: div_recip, div_mul, div_fix."""
    return div_fix(a, b, div_mul(a, div_recip(b)))


def sqrt(a):
    """Correctly rounded sqrt(a): rsqrt, mul, sqrt_fix."""
    r = rsqrt(a).view(np.float32)
    s = numerics.f32_mul(np.asarray(a, np.uint32).view(np.float32), r)
    return sqrt_fix(a, s.view(np.uint32))


def exp2(a):
    """2^a: mul_fx by 2^30 with n = 6, exp2_fx."""
    return exp2_fx(mul_fx(a, np.full(np.shape(a), 1 << 30, np.uint32), 6))


def log2(a):
    """log2(a): log2_slope, log2."""
    return log2_fma(a, log2_slope(a))
