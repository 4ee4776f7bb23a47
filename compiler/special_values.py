"""NumPy's tests for NaNs, infinities and signs, and what is made of them."""

import numpy as np
from tilewright.compiler import core, trace
from tilewright.compiler import elementwise as ew
from tilewright.compiler import primitives_math as m
from tilewright.compiler.operands import convert, operand_avals


def inexact_pair(name, x1, x2):
    """Return two operands of one float dtype."""
    avals = operand_avals(name, (x1, x2))
    if not any(a.dtype in core.FLOATS for a in avals):
        x1, x2 = ew.inexact(x1), ew.inexact(x2)
    return ew.promoted(name, x1, x2)


def checked(name, x):
    """Return x, which must be an operand."""
    operand_avals(name, (x,))
    return x


def isnan(x):
    """Whether x is a NaN."""
    operand_avals("isnan", (x,))
    return ew.not_equal(x, x)


def isfinite(x):
    """Whether x is neither infinite nor a NaN."""
    operand_avals("isfinite", (x,))
    return trace.bind(m.is_finite_p, ew.inexact(x))


def isinf(x):
    """Whether x is infinite."""
    return ew.equal(ew.abs(ew.inexact(checked("isinf", x))), np.inf)


def isposinf(x):
    """Whether x is +inf."""
    return ew.equal(ew.inexact(checked("isposinf", x)), np.inf)


def isneginf(x):
    """Whether x is -inf."""
    return ew.equal(ew.inexact(checked("isneginf", x)), -np.inf)


def nan_to_num(x, nan=0.0, posinf=None, neginf=None):
    """x with numbers for NaNs and infinities (the largest ones of its dtype)."""
    (aval,) = operand_avals("nan_to_num", (x,))
    if aval.dtype not in core.FLOATS:
        return x
    largest = 3.4028234663852886e38 if aval.dtype == core.float32 else 3.3895313892515355e38
    x = ew.where(isnan(x), nan, x)
    x = ew.where(ew.equal(x, np.inf), largest if posinf is None else posinf, x)
    return ew.where(ew.equal(x, -np.inf), -largest if neginf is None else neginf, x)


def signbit(x):
    """Whether the sign bit is set."""
    (aval,) = operand_avals("signbit", (x,))
    if aval.dtype not in core.FLOATS:
        return ew.less(x, 0)
    bits = trace.bind(m.bitcast_convert_type_p, convert(x, core.float32), new_dtype=core.int32)
    return ew.less(bits, 0)


def copysign(x1, x2):
    """x1 with the sign of x2."""
    x1, x2 = inexact_pair("copysign", x1, x2)
    return ew.where(ew.not_equal(signbit(x1), signbit(x2)), ew.negative(x1), x1)


def isclose(a, b, rtol=1e-05, atol=1e-08, equal_nan=False):
    """Whether ``|a - b| <= atol + rtol |b|``; equal infinities are close."""
    a, b = inexact_pair("isclose", a, b)
    limit = ew.add(ew.multiply(ew.abs(b), rtol), atol)
    near = ew.less_equal(ew.abs(ew.subtract(a, b)), limit)
    near = ew.bitwise_and(near, ew.bitwise_and(isfinite(a), isfinite(b)))
    near = ew.bitwise_or(near, ew.equal(a, b))
    return ew.bitwise_or(near, ew.bitwise_and(isnan(a), isnan(b))) if equal_nan else near
