"""NumPy's element-wise functions beyond the basic ones, as JAX composes them.

Division with remainder, powers, angles, tests for special values: each is a few equations, which
one kernel computes.
"""

import operator
from math import log as _log
from math import pi

import numpy as np
from tilewright.compiler import core, trace
from tilewright.compiler import elementwise as ew
from tilewright.compiler import primitives as p
from tilewright.compiler import primitives_lanes as lanes
from tilewright.compiler import primitives_math as m
from tilewright.compiler.errors import DtypeError
from tilewright.compiler.operands import convert, operand_avals
from tilewright.compiler.source import user_source
from tilewright.compiler.special_values import checked, inexact_pair, isnan


def _unary(name, primitive, doc):
    def function(x):
        operand_avals(name, (x,))
        return trace.bind(primitive, ew.inexact(x))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


log2 = _unary("log2", m.log2_p, "Logarithm to base 2; at most 2 ulp, exact for powers of two.")
cbrt = _unary("cbrt", m.cbrt_p, "Cube root; at most 1 ulp.")
tan = _unary("tan", m.tan_p, "Tangent; at most 4 ulp for |x| up to 10^4.")
arcsin = _unary("arcsin", m.asin_p, "Inverse sine; at most 3 ulp.")
arccos = _unary("arccos", m.acos_p, "Inverse cosine; at most 3 ulp.")
arctan = _unary("arctan", m.atan_p, "Inverse tangent; at most 2 ulp.")
sinh = _unary("sinh", m.sinh_p, "Hyperbolic sine; at most 4 ulp.")
cosh = _unary("cosh", m.cosh_p, "Hyperbolic cosine; at most 4 ulp.")
arcsinh = _unary("arcsinh", m.asinh_p, "Inverse hyperbolic sine; at most 4 ulp.")
arccosh = _unary("arccosh", m.acosh_p, "Inverse hyperbolic cosine; at most 4 ulp.")
arctanh = _unary("arctanh", m.atanh_p, "Inverse hyperbolic tangent; at most 4 ulp.")


def log10(x):
    """Logarithm to base 10: ``log(x) / log(10)``."""
    return ew.divide(ew.log(x), _log(10))


def arctan2(x1, x2):
    """Angle of the point (x2, x1); at most 2 ulp."""
    return trace.bind(m.atan2_p, *inexact_pair("arctan2", x1, x2))


def _numbers(name, x1, x2):
    """Two operands of one dtype and shape; bools become int32."""
    x1, x2 = ew.promoted(name, x1, x2)
    if trace.aval_of(x1).dtype == core.bool_:
        x1, x2 = convert(x1, core.int32), convert(x2, core.int32)
    return x1, x2, trace.aval_of(x1).dtype


def _differ_in_sign(x1, x2):
    return ew.not_equal(ew.sign(x1), ew.sign(x2))


def floor_divide(x1, x2):
    """NumPy's x1 // x2: rounded down; of integers by 0 what XLA's division gives, -1 or -2."""
    x1, x2, dtype = _numbers("floor_divide", x1, x2)
    if dtype in core.FLOATS:
        return _float_divmod(x1, x2)[0]
    quotient = trace.bind(p.div_p, x1, x2)
    if dtype in (core.uint8, core.uint32):
        return quotient
    rest = ew.not_equal(trace.bind(m.rem_p, x1, x2), 0)
    down = ew.bitwise_and(_differ_in_sign(x1, x2), rest)
    return ew.where(down, ew.subtract(quotient, 1), quotient)


def _float_divmod(x1, x2):
    """Quotient rounded down and remainder with the divisor's sign, as CPython computes them."""
    rest = trace.bind(m.rem_p, x1, x2)
    whole = ew.where(ew.equal(x2, 0), x1, ew.subtract(x1, rest))
    quotient = trace.bind(p.div_p, whole, x2)
    other = ew.bitwise_and(ew.not_equal(rest, 0), _differ_in_sign(x2, rest))
    rest = ew.where(other, ew.add(rest, x2), rest)
    quotient = ew.where(other, ew.subtract(quotient, 1.0), quotient)
    return trace.bind(m.round_nearest_afz_p, quotient), rest


def _nonzero(x, dtype):
    """An integer divisor, 1 where it is 0, as JAX's remainders take it."""
    return ew.where(ew.equal(x, 0), 1, x) if dtype in core.INTS else x


def remainder(x1, x2):
    """NumPy's x1 % x2, with the sign of x2; of an integer by 0 it is 0."""
    x1, x2, dtype = _numbers("remainder", x1, x2)
    x2 = _nonzero(x2, dtype)
    rest = trace.bind(m.rem_p, x1, x2)
    if dtype in (core.uint8, core.uint32):
        return rest
    other = ew.not_equal(ew.less(rest, 0), ew.less(x2, 0))
    add = ew.bitwise_and(other, ew.not_equal(rest, 0))
    return ew.where(add, ew.add(rest, x2), rest)


def fmod(x1, x2):
    """NumPy's fmod, with the sign of x1; of an integer by 0 it is 0."""
    x1, x2, dtype = _numbers("fmod", x1, x2)
    return trace.bind(m.rem_p, x1, _nonzero(x2, dtype))


def divmod(x1, x2):
    """``(floor_divide(x1, x2), remainder(x1, x2))``."""
    x1, x2, dtype = _numbers("divmod", x1, x2)
    if dtype in core.FLOATS:
        return _float_divmod(x1, x2)
    return floor_divide(x1, x2), remainder(x1, x2)


def power(x1, x2):
    """NumPy's power.

    A Python integer as exponent gives repeated products, as `lax.integer_pow`; integers to the
    power of integers wrap; else `lax.pow`, at most 8 ulp.
    """
    avals = operand_avals("power", (x1, x2))
    if isinstance(x2, int | np.integer) and not isinstance(x2, bool):
        base = x1 if avals[0].dtype != core.bool_ else convert(x1, core.int32)
        if avals[0].dtype not in core.FLOATS and x2 < 0:
            raise DtypeError(
                f"power: an integer to the power {int(x2)} has no integer value; convert x1 to "
                f"float32 first (at {user_source()})"
            )
        if type(base) in (bool, int, float):
            base = ew.promoted("power", base)[0]
        return trace.bind(lanes.integer_pow_p, base, y=operator.index(x2))
    x1, x2, dtype = _numbers("power", x1, x2)
    return trace.bind(m.pow_p, x1, x2) if dtype in core.FLOATS else _integer_power(x1, x2)


def _integer_power(x1, x2):
    """By the six lowest bits of the exponent, as JAX."""
    zero = ew.bitwise_and(ew.equal(x1, 0), ew.not_equal(x2, 0))
    result = ew.where(zero, ew.promoted("power", x1, 0)[1], 1)
    result = convert(result, trace.aval_of(x1).dtype)
    for _ in range(6):
        odd = ew.not_equal(ew.bitwise_and(x2, 1), 0)
        result = ew.where(odd, ew.multiply(result, x1), result)
        x1 = ew.multiply(x1, x1)
        x2 = trace.bind(lanes.shift_right_logical_p, x2, ew.promoted("power", x2, 1)[1])
    return result


def float_power(x1, x2):
    """NumPy's float_power: `lax.pow` of floats."""
    return trace.bind(m.pow_p, *inexact_pair("float_power", x1, x2))


def trunc(x):
    """Rounded towards zero; integers stay as they are."""
    (aval,) = operand_avals("trunc", (x,))
    if aval.dtype in core.INTS:
        return x
    x = ew.inexact(x)
    return ew.where(ew.less(x, 0), ew.ceil(x), ew.floor(x))


def positive(x):
    """x itself."""
    return checked("positive", x)


def fabs(x):
    """Absolute value; integers become float32."""
    return ew.abs(ew.inexact(checked("fabs", x)))


def fmax(x1, x2):
    """The larger one; a number before a NaN."""
    x1, x2 = ew.promoted("fmax", x1, x2)
    return ew.where(ew.bitwise_or(ew.greater(x1, x2), isnan(x2)), x1, x2)


def fmin(x1, x2):
    """The smaller one; a number before a NaN."""
    x1, x2 = ew.promoted("fmin", x1, x2)
    return ew.where(ew.bitwise_or(ew.less(x1, x2), isnan(x2)), x1, x2)


def hypot(x1, x2):
    """sqrt(x1^2 + x2^2), without overflow."""
    x1, x2 = (ew.abs(x) for x in inexact_pair("hypot", x1, x2))
    infinite = ew.bitwise_or(ew.equal(x1, np.inf), ew.equal(x2, np.inf))
    high, low = ew.maximum(x1, x2), ew.minimum(x1, x2)
    zero = ew.equal(high, 0)
    ratio = ew.divide(low, ew.where(zero, 1.0, high))
    length = ew.multiply(high, ew.sqrt(ew.add(ew.square(ratio), 1.0)))
    return ew.where(infinite, np.inf, ew.where(zero, high, length))


def logaddexp(x1, x2):
    """log(exp(x1) + exp(x2)), without overflow."""
    x1, x2 = inexact_pair("logaddexp", x1, x2)
    delta = ew.subtract(x1, x2)
    total = ew.add(ew.maximum(x1, x2), ew.log1p(ew.exp(ew.negative(ew.abs(delta)))))
    return ew.where(isnan(delta), ew.add(x1, x2), total)


def logaddexp2(x1, x2):
    """log2(2^x1 + 2^x2), without overflow."""
    x1, x2 = inexact_pair("logaddexp2", x1, x2)
    delta = ew.subtract(x1, x2)
    more = ew.multiply(ew.log1p(ew.exp2(ew.negative(ew.abs(delta)))), 1 / _log(2))
    return ew.where(isnan(delta), ew.add(x1, x2), ew.add(ew.maximum(x1, x2), more))


def heaviside(x1, x2):
    """0 below 0, x2 at 0, else 1."""
    x1, x2 = inexact_pair("heaviside", x1, x2)
    step = ew.where(ew.less(x1, 0), 0.0, 1.0)
    return ew.where(isnan(x1), x1, ew.where(ew.equal(x1, 0), x2, step))


def deg2rad(x):
    """Degrees to radians."""
    return ew.multiply(ew.inexact(checked("deg2rad", x)), pi / 180)


def rad2deg(x):
    """Radians to degrees."""
    return ew.multiply(ew.inexact(checked("rad2deg", x)), 180 / pi)


def bitwise_count(x):
    """How many bits of the absolute value are 1."""
    (aval,) = operand_avals("bitwise_count", (x,))
    if aval.dtype not in core.INTS:
        raise DtypeError(f"bitwise_count takes integers, not {aval.dtype} (at {user_source()})")
    return convert(trace.bind(m.population_count_p, ew.abs(x)), core.uint8)


def select(condlist, choicelist, default=0):
    """For each element the first choice whose condition holds."""
    result = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = ew.where(condition, choice, result)
    return result
