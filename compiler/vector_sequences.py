"""Functions as sequences of VECTOR's micro-operations, each rounded as docs/vector.md says.

A sequence takes a machine and its operands. ``machine.run(name, *operands, n=0)`` is one operation;
an operand is what `run` returned, or a number: a float is fp32, an int 32 bits. NumPy's machine
computes (`NumPyMachine`), the compiler's records the operations: one text, one set of bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from tilewright.sim.vector_alu import alu

Operand = Any  # what `run` returned, or a number


class Machine(Protocol):
    """Something that takes micro-operations."""

    def run(self, name: str, *operands: Operand, n: int = 0) -> Operand:
        """One operation; `n` is its number, where it has one."""
        ...


Sequence = Callable[..., Operand]
LOG2E = round(math.log2(math.e) * 2**30)  # mul_fx takes integers
_HALF_PI = 1.57079625129699707031  # the parts of pi / 2 are positive: -0 - n part is -0 for n = 0
_REST = math.pi / 2 - _HALF_PI  # float64 has 53 bits of pi / 2: two more parts
_MIDDLE = float(np.nextafter(np.float32(_REST), np.float32(0)))
_LOW = float(np.float32(_REST - _MIDDLE + 6.123233995736766e-17))


class NumPyMachine:
    """Computes on arrays of uint32 bits."""

    @staticmethod
    def bits(x: Operand) -> np.ndarray | np.uint32:
        """An operand's bits."""
        if isinstance(x, float):
            return np.float32(x).view(np.uint32)
        return np.uint32(x % 2**32) if isinstance(x, int) else x

    def run(self, name: str, *operands: Operand, n: int = 0) -> np.ndarray:
        a, b, c = (*map(self.bits, operands), 0, 0, 0)[:3]
        return alu(name, a, b, c, n)


def polynomial(m: Machine, x: Operand, *coefficients: float) -> Operand:
    """Horner's rule, the lowest coefficient first."""
    y: Operand = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        y = m.run("fma_f32", y, x, c)
    return y


def div(m: Machine, a: Operand, b: Operand) -> Operand:
    """a / b, correctly rounded."""
    r = m.run("div_recip_f32", b)
    return m.run("div_fix_f32", a, b, m.run("div_mul_f32", a, r))


def sqrt(m: Machine, x: Operand) -> Operand:
    """Correctly rounded."""
    return m.run("sqrt_fix_f32", x, m.run("mul_f32", x, m.run("rsqrt_f32", x)))


def rsqrt(m: Machine, x: Operand) -> Operand:
    return m.run("rsqrt_f32", x)


def exp2(m: Machine, x: Operand) -> Operand:
    return m.run("exp2_fx", m.run("mul_fx", x, 1 << 30, n=6))


def exp(m: Machine, x: Operand) -> Operand:
    return m.run("exp2_fx", m.run("mul_fx", x, LOG2E, n=6))


def log(m: Machine, x: Operand) -> Operand:
    return m.run("mul_f32", m.run("log2_f32", x, m.run("log2_slope_f32", x)), math.log(2))


def logistic(m: Machine, x: Operand) -> Operand:
    e = m.run("exp2_fx", m.run("mul_fx", x, -LOG2E, n=6))
    return m.run("recip_f32", m.run("add_f32", e, 1.0))


def log1p(m: Machine, x: Operand) -> Operand:
    """log(u) x / (u - 1) with u = 1 + x: the error of u cancels (W. Kahan); x itself if u is 1."""
    u = m.run("add_f32", x, 1.0)
    d = m.run("sub_f32", u, 1.0)
    y = m.run("mul_f32", log(m, u), div(m, x, d))
    y = m.run("select", m.run("eq_f32", u, math.inf), u, y)
    return m.run("select", m.run("eq_f32", d, 0.0), m.run("mul_f32", x, 1.0), y)


def expm1(m: Machine, x: Operand) -> Operand:
    """(u - 1) x / log(u) with u = exp(x): the error of u cancels (W. Kahan); x itself if u is 1."""
    u = exp(m, x)
    d = m.run("sub_f32", u, 1.0)
    y = m.run("mul_f32", d, div(m, x, log(m, u)))
    y = m.run("select", m.run("eq_f32", u, math.inf), u, y)
    y = m.run("select", m.run("le_f32", d, -1.0), d, y)
    return m.run("select", m.run("eq_f32", d, 0.0), m.run("mul_f32", x, 1.0), y)


def signed(m: Machine, size: Operand, x: Operand) -> Operand:
    """`size` with x's sign; NaNs stay canonical."""
    return m.run("mul_f32", size, m.run("sign_f32", x))


def tanh(m: Machine, x: Operand) -> Operand:
    """A polynomial below 0.6, else (1 - e) / (1 + e) with e = exp(-2 |x|)."""
    size = m.run("abs_f32", x)
    e = m.run("exp2_fx", m.run("mul_fx", size, -LOG2E, n=5))
    inverse = m.run("recip_f32", m.run("add_f32", 1.0, e))
    large = m.run("mul_f32", m.run("sub_f32", 1.0, e), inverse)
    z = m.run("mul_f32", x, x)
    p = polynomial(m, z, -0.33333298563957214, 0.13331958651542664, -0.05378668010234833,
                   0.020805368199944496, -0.005905850790441036)  # fmt: skip
    small = m.run("fma_f32", m.run("mul_f32", z, p), size, size)
    return signed(m, m.run("select", m.run("lt_f32", size, 0.6), small, large), x)


def erf(m: Machine, x: Operand) -> Operand:
    """x P(x^2) below 1, else 1 - 2^Q(|x|)."""
    size = m.run("abs_f32", x)
    z = m.run("mul_f32", x, x)
    p = polynomial(m, z, 0.12837916612625122, -0.37612637877464294, 0.11283782869577408,
                   -0.02686544507741928, 0.005221074912697077, -0.00084847112884745,
                   0.00011270542745478451, -9.680132279754616e-06)  # fmt: skip
    small = m.run("fma_f32", p, size, size)
    q = polynomial(m, m.run("min_f32", size, 4.0), 0.0001732985838316381, -1.629064679145813,
                   -0.9150047302246094, -0.15427722036838531, 0.03439461067318916,
                   -0.004874574951827526, 0.00016649626195430756, 8.566056931158528e-05,
                   -1.6624644558760338e-05, 1.028833253258199e-06)  # fmt: skip
    large = m.run("sub_f32", 1.0, m.run("exp2_fx", m.run("mul_fx", q, 1 << 30, n=6)))
    return signed(m, m.run("select", m.run("lt_f32", size, 1.0), small, large), x)


def circle(m: Machine, x: Operand) -> tuple[Operand, Operand, Operand]:
    """n, sin r and cos r of x = n pi/2 + r: three fused steps, the first of which is exact."""
    n = m.run("round_f32", m.run("fma_f32", x, 2 / math.pi, 0.0))  # +0 of -0: r stays -0
    r = x
    for part in (_HALF_PI, _MIDDLE, _LOW):
        r = m.run("fnma_f32", n, part, r)
    z = m.run("mul_f32", r, r)
    s = polynomial(m, z, -0.1666666716337204, 0.008333329111337662, -0.0001983925176318735,
                   2.717519009820535e-06)  # fmt: skip
    sine = m.run("mul_f32", m.run("fma_f32", z, s, 1.0), r)
    cosine = polynomial(m, z, 1.0, -0.5, 0.04166664555668831, -0.0013887302484363317,
                        2.443076118652243e-05)  # fmt: skip
    return n, sine, cosine


def _turned(m: Machine, x: Operand, turn: int) -> Operand:
    """sin(x + turn pi / 2)."""
    n, sine, cosine = circle(m, x)
    q = m.run("f32_i32", n)
    q = m.run("add_i32", q, turn) if turn else q
    value = m.run("select", m.run("and", q, 1), cosine, sine)
    return m.run("xor", value, m.run("shl", m.run("and", q, 2), 30))


def sin(m: Machine, x: Operand) -> Operand:
    return _turned(m, x, 0)


def cos(m: Machine, x: Operand) -> Operand:
    return _turned(m, x, 1)


def sign(m: Machine, x: Operand) -> Operand:
    return m.run("sign_f32", x)


def floor(m: Machine, x: Operand) -> Operand:
    return m.run("floor_f32", x)


def ceil(m: Machine, x: Operand) -> Operand:
    return m.run("neg_f32", m.run("floor_f32", m.run("neg_f32", x)))


def absolute(m: Machine, x: Operand) -> Operand:
    return m.run("abs_f32", x)


def integer_pow(m: Machine, x: Operand, y: int) -> Operand:
    """x to an integer, by squaring; a negative one is the quotient of 1 and the power."""
    power, result = x, None
    left = abs(y)
    while left:
        if left & 1:
            result = power if result is None else m.run("mul_f32", result, power)
        left >>= 1
        power = m.run("mul_f32", power, power) if left else power
    if result is None:
        return m.run("mov", 1.0)
    return div(m, 1.0, result) if y < 0 else m.run("mul_f32", result, 1.0) if y == 1 else result


#: Primitive of one float operand -> its sequence.
UNARY: dict[str, Sequence] = {
    "abs": absolute, "sign": sign, "floor": floor, "ceil": ceil, "sqrt": sqrt, "rsqrt": rsqrt,
    "exp": exp, "exp2": exp2, "log": log, "logistic": logistic, "tanh": tanh, "erf": erf,
    "sin": sin, "cos": cos, "log1p": log1p, "expm1": expm1,
}  # fmt: skip
