"""More functions as sequences of VECTOR's micro-operations: powers, inverses, remainders.

Coefficients are minimax fits of the relative error (iteratively reweighted least squares in
float64, rounded to float32); special cases follow C99's annex F, as XLA does.
"""

import math

from tilewright.compiler.vector_sequences import (
    LOG2E,
    Machine,
    Operand,
    circle,
    div,
    exp2,
    log,
    log1p,
    polynomial,
    signed,
    sqrt,
)

_SIGN = 1 << 31
_PI_LOW = -8.742278012618954e-08  # pi - float32(pi)
_TWO_OVER_LN2 = 2 / math.log(2)


def log2(m: Machine, x: Operand) -> Operand:
    return m.run("log2_f32", x, m.run("log2_slope_f32", x))


def _log2_in_parts(m: Machine, size: Operand) -> tuple[Operand, Operand]:
    """log2 of a positive normal number as a sum of two: 2 / ln 2 (s + s^3 / 3 + ...)."""
    e = m.run("sar", m.run("sub_i32", size, 0x3F400000), 23)
    mantissa = m.run("sub_i32", size, m.run("shl", e, 23))  # in [0.75, 1.5)
    e, f = m.run("i32_f32", e), m.run("sub_f32", mantissa, 1.0)
    r = m.run("recip_f32", m.run("add_f32", f, 2.0))
    s = m.run("mul_f32", f, r)  # f / (2 + f)
    rest = m.run("mul_f32", m.run("fnma_f32", s, f, m.run("fnma_f32", s, 2.0, f)), r)
    high = 2.885390043258667  # float32(2 / ln 2)
    z = m.run("mul_f32", s, s)
    p = polynomial(m, z, 0.9617967009544373, 0.5770778059959412, 0.4122248888015747,
                   0.31930994987487793, 0.2906709393312639)  # fmt: skip
    h = m.run("mul_f32", s, high)
    low = m.run("fma_f32", s, high, m.run("neg_f32", h))
    low = m.run("fma_f32", s, _TWO_OVER_LN2 - high, low)
    low = m.run("fma_f32", m.run("mul_f32", z, p), s, low)
    low = m.run("fma_f32", rest, high, low)
    total = m.run("add_f32", e, h)
    low = m.run("add_f32", low, m.run("sub_f32", h, m.run("sub_f32", total, e)))
    both = m.run("add_f32", total, low)
    return both, m.run("sub_f32", low, m.run("sub_f32", both, total))


def power(m: Machine, x: Operand, y: Operand) -> Operand:
    """2^(y log2 |x|), log2 in two parts; x^0 and 1^y are 1, also for a NaN."""
    size = m.run("abs_f32", x)
    total, low = _log2_in_parts(m, size)
    bounded = m.run("min_f32", m.run("max_f32", y, -1e30), 1e30)
    t = m.run("mul_f32", total, bounded)
    rest = m.run("fma_f32", total, bounded, m.run("neg_f32", t))
    rest = m.run("fma_f32", low, bounded, rest)
    rest = m.run("min_f32", m.run("max_f32", rest, -0.5), 0.5)  # where t is far too large
    value = m.run("mul_f32", exp2(m, t), m.run("fma_f32", rest, math.log(2), 1.0))
    return _power_specials(m, x, y, size, value)


def _power_specials(m: Machine, x: Operand, y: Operand, size: Operand, value: Operand) -> Operand:
    """Zeros, infinities, negative bases, NaNs."""
    infinite = m.run("eq_f32", size, math.inf)
    edge = m.run("or", m.run("eq_f32", size, 0.0), infinite)
    grows = m.run("xor", m.run("lt_f32", y, 0.0), infinite)
    value = m.run("select", edge, m.run("select", grows, math.inf, 0.0), value)
    whole = m.run("eq_f32", m.run("round_f32", y), y)
    half = m.run("mul_f32", y, 0.5)
    even = m.run("eq_f32", m.run("floor_f32", half), half)
    odd = m.run("lt_u32", even, whole)
    root = m.run("lt_u32", m.run("or", whole, edge), m.run("lt_f32", x, 0.0))
    value = m.run("select", root, math.nan, value)
    value = m.run("xor", value, m.run("and", x, m.run("shl", odd, 31)))
    both = m.run("max_f32", x, y)
    value = m.run("select", m.run("eq_f32", both, both), value, both)
    one = m.run("or", m.run("eq_f32", y, 0.0), m.run("eq_f32", x, 1.0))
    return m.run("select", one, 1.0, value)


def cbrt(m: Machine, x: Operand) -> Operand:
    """2^(log2 |x| / 3) and one Newton step; 0, infinities and NaN are themselves."""
    size = m.run("abs_f32", x)
    y = exp2(m, m.run("mul_f32", log2(m, size), 1 / 3))
    excess = m.run("sub_f32", div(m, size, m.run("mul_f32", y, y)), y)
    y = m.run("fma_f32", excess, 1 / 3, y)
    fine = m.run("and", m.run("lt_f32", 0.0, size), m.run("lt_f32", size, math.inf))
    return signed(m, m.run("select", fine, y, size), x)


def tan(m: Machine, x: Operand) -> Operand:
    """sin / cos, or -cos / sin a quarter turn away."""
    n, sine, cosine = circle(m, x)
    odd = m.run("and", m.run("f32_i32", n), 1)
    above = m.run("select", odd, cosine, sine)
    quotient = div(m, above, m.run("select", odd, sine, cosine))
    return m.run("mul_f32", m.run("xor", quotient, m.run("shl", odd, 31)), 1.0)


def atan2(m: Machine, y: Operand, x: Operand) -> Operand:
    """The angle of (x, y): atan of the smaller over the larger size, then the octant."""
    ax, ay = m.run("abs_f32", x), m.run("abs_f32", y)
    high, low = m.run("max_f32", ax, ay), m.run("min_f32", ax, ay)
    t = div(m, low, m.run("select", m.run("eq_f32", high, 0.0), 1.0, high))
    t = m.run("select", m.run("eq_f32", low, math.inf), 1.0, t)
    z = m.run("mul_f32", t, t)
    p = polynomial(m, z, -0.33333298563957214, 0.19998547434806824, -0.14264239370822906,
                   0.10952175408601761, -0.08403418958187103, 0.057957056909799576,
                   -0.03117731213569641, 0.01091432012617588, -0.001793558127246797)  # fmt: skip
    a = m.run("fma_f32", m.run("mul_f32", z, p), t, t)
    steep = m.run("add_f32", m.run("sub_f32", math.pi / 2, a), _PI_LOW / 2)
    a = m.run("select", m.run("lt_f32", ax, ay), steep, a)
    back = m.run("add_f32", m.run("sub_f32", math.pi, a), _PI_LOW)
    a = m.run("select", m.run("and", x, _SIGN), back, a)
    return m.run("mul_f32", m.run("or", a, m.run("and", y, _SIGN)), 1.0)


def atan(m: Machine, x: Operand) -> Operand:
    return atan2(m, x, 1.0)


def _leg(m: Machine, x: Operand) -> Operand:
    """sqrt(1 - x^2); a NaN for |x| > 1."""
    return sqrt(m, m.run("mul_f32", m.run("sub_f32", 1.0, x), m.run("add_f32", 1.0, x)))


def asin(m: Machine, x: Operand) -> Operand:
    return atan2(m, x, _leg(m, x))


def acos(m: Machine, x: Operand) -> Operand:
    return atan2(m, _leg(m, x), x)


def _half_exp(m: Machine, x: Operand) -> Operand:
    """exp(x) / 2, which overflows only if that does."""
    half = m.run("exp2_fx", m.run("mul_fx", x, round(math.log2(math.e) * 2**30), n=7))
    return m.run("mul_f32", m.run("mul_f32", half, 0.5), half)


def cosh(m: Machine, x: Operand) -> Operand:
    grown = _half_exp(m, m.run("abs_f32", x))
    return m.run("fma_f32", m.run("recip_f32", grown), 0.25, grown)


def sinh(m: Machine, x: Operand) -> Operand:
    """A polynomial below 1, else (exp(x) - exp(-x)) / 2."""
    size = m.run("abs_f32", x)
    z = m.run("mul_f32", x, x)
    p = polynomial(m, z, 0.1666666716337204, 0.008333350531756878, 0.0001983606634894386,
                   2.817439735736116e-06)  # fmt: skip
    small = m.run("fma_f32", m.run("mul_f32", z, p), size, size)
    grown = _half_exp(m, size)
    large = m.run("fnma_f32", m.run("recip_f32", grown), 0.25, grown)
    return signed(m, m.run("select", m.run("lt_f32", size, 1.0), small, large), x)


def asinh(m: Machine, x: Operand) -> Operand:
    """log1p(s + s^2 / (1 + sqrt(1 + s^2))) of s = |x|, far out log(s) + log 2."""
    size = m.run("abs_f32", x)
    z = m.run("mul_f32", size, size)
    below = m.run("add_f32", 1.0, sqrt(m, m.run("add_f32", z, 1.0)))
    near = log1p(m, m.run("add_f32", size, div(m, z, below)))
    far = m.run("add_f32", log(m, size), math.log(2))
    return signed(m, m.run("select", m.run("lt_f32", size, 1e9), near, far), x)


def acosh(m: Machine, x: Operand) -> Operand:
    """log1p(t + sqrt(t (t + 2))) of t = x - 1, far out log(x) + log 2; a NaN below 1."""
    t = m.run("sub_f32", x, 1.0)
    near = m.run("add_f32", t, sqrt(m, m.run("mul_f32", t, m.run("add_f32", t, 2.0))))
    near = m.run("select", m.run("lt_f32", t, 0.0), math.nan, log1p(m, near))
    far = m.run("add_f32", log(m, x), math.log(2))
    return m.run("select", m.run("lt_f32", x, 1e9), near, far)


def atanh(m: Machine, x: Operand) -> Operand:
    """log1p(2 s / (1 - s)) / 2 of s = |x|."""
    size = m.run("abs_f32", x)
    ratio = div(m, m.run("add_f32", size, size), m.run("sub_f32", 1.0, size))
    whole = m.run("select", m.run("lt_f32", 1.0, size), math.nan, log1p(m, ratio))
    return signed(m, m.run("mul_f32", whole, 0.5), x)


def erfc(m: Machine, x: Operand) -> Operand:
    """1 - erf(x): directly below 1, else exp(-x^2) P(1 / x^2) / x, or 2 less that.

    x^2 is taken in two parts. **Source** of P : S. Moshier, Cephes, as XLA.
    """
    size = m.run("min_f32", m.run("abs_f32", x), 16.0)
    z = m.run("mul_f32", size, size)
    low = m.run("fma_f32", size, size, m.run("neg_f32", z))
    decay = m.run("exp2_fx", m.run("mul_fx", z, -LOG2E, n=6))
    decay = m.run("fnma_f32", decay, low, decay)
    q = m.run("recip_f32", size)
    y = m.run("mul_f32", q, q)
    near = polynomial(m, y, 0.5638259427386472, -0.2741127028184656, 0.3404879937665872,
                      -0.4944515323274145, 0.6210004621745983, -0.5824733027278666,
                      0.3687424674597105, -0.1387039388740657, 0.02326819970068386)  # fmt: skip
    far = polynomial(m, y, 0.5641895067754075, -0.2820767439740514, 0.4218463358204948,
                     -1.015265279202700, 2.921019019210786, -7.495518717768503,
                     12.97719955372516, -10.47766399936249)  # fmt: skip
    p = m.run("select", m.run("lt_f32", size, 2.0), near, far)
    tail = m.run("mul_f32", m.run("mul_f32", decay, q), p)
    tail = m.run("select", m.run("lt_f32", x, 0.0), m.run("sub_f32", 2.0, tail), tail)
    s = polynomial(m, z, 0.12837916612625122, -0.37612637877464294, 0.11283782869577408,
                   -0.02686544507741928, 0.005221074912697077, -0.00084847112884745,
                   0.00011270542745478451, -9.680132279754616e-06)  # fmt: skip
    middle = m.run("fnma_f32", x, s, m.run("sub_f32", 1.0, x))
    return m.run("select", m.run("lt_f32", size, 1.0), middle, tail)


def erf_inv(m: Machine, x: Operand) -> Operand:
    """x P(w), w = -log(1 - x^2), in two ranges of w.

    **Source** : M. Giles, "Approximating the erfinv function", GPU Computing Gems (2011), as XLA.
    """
    w = m.run("neg_f32", log1p(m, m.run("mul_f32", m.run("neg_f32", x), x)))
    near = polynomial(m, m.run("sub_f32", w, 2.5), 1.50140941, 0.246640727, -0.00417768164,
                      -0.00125372503, 0.00021858087, -4.39150654e-06, -3.5233877e-06,
                      3.43273939e-07, 2.81022636e-08)  # fmt: skip
    far = polynomial(m, m.run("sub_f32", sqrt(m, w), 3.0), 2.83297682, 1.00167406, 0.00943887047,
                     -0.0076224613, 0.00573950773, -0.00367342844, 0.00134934322, 0.000100950558,
                     -0.000200214257)  # fmt: skip
    value = m.run("mul_f32", m.run("select", m.run("lt_f32", w, 5.0), near, far), x)
    end = m.run("eq_f32", m.run("abs_f32", x), 1.0)
    return m.run("select", end, m.run("mul_f32", x, math.inf), value)


def rem(m: Machine, x: Operand, y: Operand) -> Operand:
    """x - y trunc(x / y), exactly: significands, 20 bits of the quotient at a time.

    Each step keeps ``r`` within 0.7 of the divisor's significand, so that r 2^20 - q b is exact.
    """
    a, b = m.run("abs_f32", x), m.run("abs_f32", y)
    ea, eb = m.run("shr", a, 23), m.run("shr", b, 23)
    r, divisor = (m.run("or", m.run("and", v, 0x7FFFFF), 0x3F800000) for v in (a, b))
    inverse = m.run("recip_f32", divisor)
    shift = m.run("sub_i32", ea, eb)
    steps = m.run("mulh_u32", shift, (1 << 32) // 20 + 1)
    first = m.run("sub_i32", shift, m.run("mul_i32", steps, 20))
    scale = m.run("shl", m.run("add_i32", first, 127), 23)
    for step in range(13):
        t = m.run("mul_f32", r, scale)
        q = m.run("round_f32", m.run("mul_f32", t, inverse))
        r = m.run("fnma_f32", q, divisor, t)
        if step < 12:
            scale = m.run("select", m.run("lt_i32", step, steps), 2.0**20, 1.0)
    r = m.run("select", m.run("lt_f32", r, 0.0), m.run("add_f32", r, divisor), r)
    r = m.run("mul_f32", r, m.run("shl", eb, 23))
    r = m.run("select", m.run("lt_f32", a, b), a, r)
    r = m.run("or", r, m.run("and", x, _SIGN))
    none = m.run("fma_f32", a, 0.0, m.run("mul_f32", m.run("recip_f32", b), 0.0))
    return m.run("select", m.run("eq_f32", none, none), r, none)


def round_afz(m: Machine, x: Operand) -> Operand:
    """To the nearest integer, halves away from zero."""
    size = m.run("abs_f32", x)
    whole = m.run("floor_f32", size)
    up = m.run("le_f32", 0.5, m.run("sub_f32", size, whole))
    whole = m.run("select", up, m.run("add_f32", whole, 1.0), whole)
    return m.run("mul_f32", m.run("or", whole, m.run("and", x, _SIGN)), 1.0)


#: Primitive of one float operand -> its sequence.
UNARY = {
    "log2": log2, "cbrt": cbrt, "tan": tan, "atan": atan, "asin": asin, "acos": acos,
    "cosh": cosh, "sinh": sinh, "asinh": asinh, "acosh": acosh, "atanh": atanh,
    "erf_inv": erf_inv, "erfc": erfc, "round_nearest_afz": round_afz,
}  # fmt: skip
