"""More element-wise primitives, with JAX's `lax` names; `tilewright.lax` has all."""

from tilewright.compiler import ops as _ops
from tilewright.compiler import primitives_math as _math
from tilewright.compiler import trace as _trace
from tilewright.lax_elementwise import elementwise as _elementwise


def acos(x):
    """Inverse cosine; at most 3 ulp."""
    return _elementwise("acos", _math.acos_p, x)


def acosh(x):
    """Inverse hyperbolic cosine; at most 4 ulp."""
    return _elementwise("acosh", _math.acosh_p, x)


def asin(x):
    """Inverse sine; at most 3 ulp."""
    return _elementwise("asin", _math.asin_p, x)


def asinh(x):
    """Inverse hyperbolic sine; at most 4 ulp."""
    return _elementwise("asinh", _math.asinh_p, x)


def atan(x):
    """Inverse tangent; at most 2 ulp."""
    return _elementwise("atan", _math.atan_p, x)


def atanh(x):
    """Inverse hyperbolic tangent; at most 4 ulp."""
    return _elementwise("atanh", _math.atanh_p, x)


def cbrt(x):
    """Cube root; at most 1 ulp."""
    return _elementwise("cbrt", _math.cbrt_p, x)


def clz(x):
    """How many bits of an integer above its highest 1 are 0."""
    return _elementwise("clz", _math.clz_p, x)


def cosh(x):
    """Hyperbolic cosine; at most 4 ulp."""
    return _elementwise("cosh", _math.cosh_p, x)


def erf_inv(x):
    """Inverse of the error function, as XLA computes it: 3 ulp, more near -1 and 1."""
    return _elementwise("erf_inv", _math.erf_inv_p, x)


def is_finite(x):
    """Whether x is neither infinite nor a NaN."""
    return _elementwise("is_finite", _math.is_finite_p, x)


def population_count(x):
    """How many bits of an integer are 1."""
    return _elementwise("population_count", _math.population_count_p, x)


def sinh(x):
    """Hyperbolic sine; at most 4 ulp."""
    return _elementwise("sinh", _math.sinh_p, x)


def tan(x):
    """Tangent; at most 4 ulp for |x| up to 10^4."""
    return _elementwise("tan", _math.tan_p, x)


def erfc(x):
    """1 - erf(x), accurate where that is small; at most 5 ulp."""
    return _elementwise("erfc", _math.erfc_p, x)


def rem(x, y):
    """Remainder of x / y rounded towards zero, exact; an integer by 0 is itself."""
    return _elementwise("rem", _math.rem_p, x, y)


def pow(x, y):
    """x to the power y, of floats; at most 8 ulp."""
    return _elementwise("pow", _math.pow_p, x, y)


def atan2(x, y):
    """Angle of the point (y, x); at most 2 ulp."""
    return _elementwise("atan2", _math.atan2_p, x, y)


def bitcast_convert_type(operand, new_dtype):
    """The same bits as a dtype of the same width."""
    dtype = _ops.dtype_named("bitcast_convert_type", new_dtype)
    (aval,) = _ops.operand_avals("bitcast_convert_type", (operand,))
    if aval.dtype == dtype:
        return operand
    return _trace.bind(_math.bitcast_convert_type_p, operand, new_dtype=dtype)


def square(x):
    """x * x, rounded once."""
    return _ops.square(x)


def reciprocal(x):
    """1 / x, correctly rounded."""
    return _ops.reciprocal(x)
