"""Element-wise primitives of one or two operands, with JAX's `lax` names; `tilewright.lax` has all.

Array operands must have one dtype; a Python number takes the dtype of the other operand.
"""

from tilewright.compiler import ops as _ops
from tilewright.compiler import primitives as _p
from tilewright.compiler import primitives_lanes as _lanes
from tilewright.compiler import promote as _promote
from tilewright.compiler import trace as _trace


def elementwise(name, primitive, *operands):
    """A primitive of operands that have one dtype, but for numbers."""
    _ops.operand_avals(name, operands)
    is_number = [type(x) in (bool, int, float) for x in operands]
    if any(is_number) and not all(is_number):
        dtype, weak = _promote.promote_types(*map(_trace.aval_of, operands))
        operands = [
            _ops.convert(x, dtype, weak) if number else x
            for x, number in zip(operands, is_number, strict=True)
        ]
    return _trace.bind(primitive, *operands)


def div(x, y):
    """Element-wise quotient, correctly rounded; integers towards zero."""
    return elementwise("div", _p.div_p, x, y)


def neg(x):
    """Element-wise negation."""
    return elementwise("neg", _p.neg_p, x)


def eq(x, y):
    """Whether x equals y."""
    return elementwise("eq", _p.eq_p, x, y)


def ne(x, y):
    """Whether x differs from y."""
    return elementwise("ne", _p.ne_p, x, y)


def lt(x, y):
    """Whether x is below y."""
    return elementwise("lt", _p.lt_p, x, y)


def le(x, y):
    """Whether x is at most y."""
    return elementwise("le", _p.le_p, x, y)


def gt(x, y):
    """Whether x is above y."""
    return elementwise("gt", _p.gt_p, x, y)


def ge(x, y):
    """Whether x is at least y."""
    return elementwise("ge", _p.ge_p, x, y)


def abs(x):
    """Absolute value."""
    return elementwise("abs", _lanes.abs_p, x)


def sign(x):
    """-1, 0 or 1."""
    return elementwise("sign", _lanes.sign_p, x)


def floor(x):
    """Round down."""
    return elementwise("floor", _lanes.floor_p, x)


def ceil(x):
    """Round up."""
    return elementwise("ceil", _lanes.ceil_p, x)


def sqrt(x):
    """Square root, correctly rounded."""
    return elementwise("sqrt", _lanes.sqrt_p, x)


def rsqrt(x):
    """1 / sqrt(x); at most 1 ulp."""
    return elementwise("rsqrt", _lanes.rsqrt_p, x)


def exp(x):
    """e to the power x; at most 2 ulp."""
    return elementwise("exp", _lanes.exp_p, x)


def exp2(x):
    """2 to the power x; at most 2 ulp."""
    return elementwise("exp2", _lanes.exp2_p, x)


def log(x):
    """Natural logarithm; at most 3 ulp."""
    return elementwise("log", _lanes.log_p, x)


def tanh(x):
    """Hyperbolic tangent; at most 3 ulp."""
    return elementwise("tanh", _lanes.tanh_p, x)


def logistic(x):
    """1 / (1 + exp(-x)); at most 4 ulp."""
    return elementwise("logistic", _lanes.logistic_p, x)


def erf(x):
    """Error function; at most 2 ulp."""
    return elementwise("erf", _lanes.erf_p, x)


def sin(x):
    """Sine; at most 3 ulp for |x| up to 10^4."""
    return elementwise("sin", _lanes.sin_p, x)


def cos(x):
    """Cosine; at most 3 ulp for |x| up to 10^4."""
    return elementwise("cos", _lanes.cos_p, x)


def bitwise_and(x, y):
    """x & y."""
    return elementwise("bitwise_and", _lanes.and_p, x, y)


def bitwise_or(x, y):
    """x | y."""
    return elementwise("bitwise_or", _lanes.or_p, x, y)


def bitwise_xor(x, y):
    """x ^ y."""
    return elementwise("bitwise_xor", _lanes.xor_p, x, y)


def bitwise_not(x):
    """~x."""
    return elementwise("bitwise_not", _lanes.not_p, x)


def shift_left(x, y):
    """x shifted left by y, which counts as unsigned."""
    return elementwise("shift_left", _lanes.shift_left_p, x, y)


def shift_right_logical(x, y):
    """x shifted right, zeros in."""
    return elementwise("shift_right_logical", _lanes.shift_right_logical_p, x, y)


def shift_right_arithmetic(x, y):
    """x shifted right, signs in."""
    return elementwise("shift_right_arithmetic", _lanes.shift_right_arithmetic_p, x, y)


def log1p(x):
    """log(1 + x); at most 4 ulp."""
    return elementwise("log1p", _lanes.log1p_p, x)


def expm1(x):
    """exp(x) - 1; at most 4 ulp."""
    return elementwise("expm1", _lanes.expm1_p, x)


def integer_pow(x, y):
    """x to the power of a Python integer, by repeated products."""
    _ops.operand_avals("integer_pow", (x,))
    return _trace.bind(_lanes.integer_pow_p, x, y=int(y))


def select(pred, on_true, on_false):
    """Elements of `on_true` where `pred` (bool, of their shape or a scalar) holds."""
    _ops.operand_avals("select", (pred, on_true, on_false))
    return _trace.bind(_lanes.select_n_p, pred, on_false, on_true)


def select_n(which, *cases):
    """`cases` by a bool: the second where it holds."""
    _ops.operand_avals("select_n", (which, *cases))
    return _trace.bind(_lanes.select_n_p, which, *cases)
