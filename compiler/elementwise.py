"""NumPy's element-wise functions: promotion, then broadcasting, then one primitive.

Broadcasting is explicit, as `broadcast_in_dim` equations; operands of rank 0 stay scalars.
"""

from tilewright.compiler import core, promote, trace
from tilewright.compiler import primitives as p
from tilewright.compiler import primitives_lanes as lanes
from tilewright.compiler.errors import DtypeError, TilewrightError, UnsupportedError
from tilewright.compiler.operands import convert, dtype_named, located, operand_avals
from tilewright.compiler.shaping import broadcast_to
from tilewright.compiler.source import user_source


def promoted(name, *values):
    """Return operands of one dtype and one shape (or rank 0), as element-wise primitives take."""
    avals = operand_avals(name, values)
    try:
        dtype, weak = promote.promote_types(*avals)
        shape = promote.broadcast_shapes(*(a.shape for a in avals))
    except TilewrightError as error:
        raise located(name, avals, error) from None
    try:
        values = [convert(v, dtype, weak) for v in values]
    except OverflowError as error:
        raise OverflowError(f"{name}: {error} (at {user_source()})") from None
    return [
        v if a.shape == () else broadcast_to(v, shape) for v, a in zip(values, avals, strict=True)
    ]


def _binary(name, primitive, on_bool=None):
    def function(x1, x2):
        x1, x2 = promoted(name, x1, x2)
        if trace.aval_of(x1).dtype != core.bool_ or on_bool is primitive:
            return trace.bind(primitive, x1, x2)
        if on_bool is None:
            raise DtypeError(f"{name} of two bools has no meaning (at {user_source()})")
        return trace.bind(on_bool, x1, x2)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"NumPy's {name}, with JAX's type promotion."
    return function


add = _binary("add", p.add_p, p.max_p)  # of bools: or
subtract = _binary("subtract", p.sub_p)
multiply = _binary("multiply", p.mul_p, p.min_p)  # of bools: and
maximum = _binary("maximum", p.max_p, p.max_p)
minimum = _binary("minimum", p.min_p, p.min_p)
equal = _binary("equal", p.eq_p, p.eq_p)
not_equal = _binary("not_equal", p.ne_p, p.ne_p)
less = _binary("less", p.lt_p, p.lt_p)
less_equal = _binary("less_equal", p.le_p, p.le_p)
greater = _binary("greater", p.gt_p, p.gt_p)
greater_equal = _binary("greater_equal", p.ge_p, p.ge_p)


def inexact(x):
    """Integers and bools become float32, as for NumPy's true division."""
    aval = trace.aval_of(x)
    return x if aval.dtype in core.FLOATS else convert(x, core.float32, aval.weak_type)


def divide(x1, x2):
    """NumPy's true division; integers are converted to float32."""
    avals = operand_avals("divide", (x1, x2))
    if not any(a.dtype in core.FLOATS for a in avals):  # directly, as JAX: not by way of int32
        x1, x2 = inexact(x1), inexact(x2)
    return trace.bind(p.div_p, *promoted("divide", x1, x2))


def negative(x):
    """NumPy's negative."""
    operand_avals("negative", (x,))
    return trace.bind(p.neg_p, x)


def clip(x, min=None, max=None):
    """NumPy's clip: ``minimum(maximum(x, min), max)``; None leaves a side open."""
    if min is not None:
        x = maximum(x, min)
    return x if max is None else minimum(x, max)


def round(x, decimals=0):
    """NumPy's round, to nearest even (of x 10^decimals); integers stay as they are."""
    operand_avals("round", (x,))
    if trace.aval_of(x).dtype not in core.FLOATS:
        if decimals < 0:
            raise UnsupportedError(
                f"round: decimals of integers must be at least 0, not {decimals!r} "
                f"(at {user_source()})"
            )
        return x
    if decimals == 0:
        return trace.bind(p.round_nearest_even_p, x)
    factor = 10.0**decimals
    return divide(trace.bind(p.round_nearest_even_p, multiply(x, factor)), factor)


def rint(x):
    """NumPy's rint: round to nearest even; integers become float32."""
    operand_avals("rint", (x,))
    return trace.bind(p.round_nearest_even_p, inexact(x))


def astype(x, dtype):
    """NumPy's astype: float to int truncates and saturates (NaN gives 0), int to int wraps."""
    operand_avals("astype", (x,))
    return convert(x, dtype_named("astype", dtype))


def _unary(name, primitive, doc, keep_ints=False):
    """A function of one operand; integers become float32, or stay (bools are refused)."""

    def function(x):
        operand_avals(name, (x,))
        if not keep_ints:
            return trace.bind(primitive, inexact(x))
        if trace.aval_of(x).dtype == core.bool_:
            raise DtypeError(f"{name} of a bool has no meaning (at {user_source()})")
        return trace.bind(primitive, x)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


exp = _unary("exp", lanes.exp_p, "e to the power x; at most 2 ulp.")
exp2 = _unary("exp2", lanes.exp2_p, "2 to the power x; at most 2 ulp.")
log = _unary("log", lanes.log_p, "Natural logarithm; at most 3 ulp.")
log1p = _unary("log1p", lanes.log1p_p, "log(1 + x), exact near 0 too; at most 4 ulp.")
expm1 = _unary("expm1", lanes.expm1_p, "exp(x) - 1, exact near 0 too; at most 4 ulp.")
sqrt = _unary("sqrt", lanes.sqrt_p, "Square root, correctly rounded.")
tanh = _unary("tanh", lanes.tanh_p, "Hyperbolic tangent; at most 3 ulp.")
sin = _unary("sin", lanes.sin_p, "Sine; at most 3 ulp for |x| up to 10^4.")
cos = _unary("cos", lanes.cos_p, "Cosine; at most 3 ulp for |x| up to 10^4.")
sign = _unary("sign", lanes.sign_p, "-1, 0 or 1; zeros and NaN stay.", keep_ints=True)


def abs(x):
    """NumPy's abs; the lowest integer stays."""
    (aval,) = operand_avals("abs", (x,))
    return x if aval.dtype == core.bool_ else trace.bind(lanes.abs_p, x)


def _rounding(name, primitive):
    def function(x):
        (aval,) = operand_avals(name, (x,))
        return trace.bind(primitive, inexact(x)) if aval.dtype not in core.INTS else x

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"NumPy's {name}; integers stay as they are."
    return function


floor = _rounding("floor", lanes.floor_p)
ceil = _rounding("ceil", lanes.ceil_p)


def square(x):
    """x * x, rounded once."""
    operand_avals("square", (x,))
    return multiply(x, x)


def reciprocal(x):
    """1 / x, correctly rounded."""
    operand_avals("reciprocal", (x,))
    return divide(1.0, inexact(x))


def where(condition, x=None, y=None):
    """Elements of x where the condition holds, else of y."""
    if x is None or y is None:
        raise UnsupportedError(
            f"where: x and y must be given, the shape of a result cannot depend on values "
            f"(at {user_source()})"
        )
    (aval,) = operand_avals("where", (condition,))
    if aval.dtype != core.bool_:
        condition = convert(condition, core.bool_)
    x, y = promoted("where", x, y)
    shapes = [trace.aval_of(v).shape for v in (condition, x, y)]
    try:
        shape = promote.broadcast_shapes(*shapes)
    except TilewrightError as error:
        raise located("where", [trace.aval_of(v) for v in (condition, x, y)], error) from None
    full = [v if not s else broadcast_to(v, shape)
            for v, s in zip((condition, x, y), shapes, strict=True)]  # fmt: skip
    return trace.bind(lanes.select_n_p, full[0], full[2], full[1])


def _bitwise(name, primitive):
    """Two operands of integers or bools."""

    def function(x1, x2):
        x1, x2 = promoted(name, x1, x2)
        dtype = trace.aval_of(x1).dtype
        if dtype in core.FLOATS:
            raise DtypeError(f"{name} takes integers or bools, not {dtype} (at {user_source()})")
        return trace.bind(primitive, x1, x2)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"NumPy's {name}."
    return function


bitwise_and = _bitwise("bitwise_and", lanes.and_p)
bitwise_or = _bitwise("bitwise_or", lanes.or_p)
bitwise_xor = _bitwise("bitwise_xor", lanes.xor_p)
left_shift = _bitwise("left_shift", lanes.shift_left_p)


def right_shift(x1, x2):
    """NumPy's right_shift: signed integers keep their sign."""
    x1, x2 = promoted("right_shift", x1, x2)
    dtype = trace.aval_of(x1).dtype
    if dtype not in core.INTS:
        raise DtypeError(f"right_shift takes integers, not {dtype} (at {user_source()})")
    signed = dtype in (core.int8, core.int32)
    return trace.bind(
        lanes.shift_right_arithmetic_p if signed else lanes.shift_right_logical_p, x1, x2
    )


def invert(x):
    """Every bit changed; of a bool its negation."""
    (aval,) = operand_avals("invert", (x,))
    if aval.dtype in core.FLOATS:
        raise DtypeError(f"invert takes integers or bools, not {aval.dtype} (at {user_source()})")
    return trace.bind(lanes.not_p, x)


def _logical(name, function):
    def run(*operands):
        avals = operand_avals(name, operands)
        bools = [x if a.dtype == core.bool_ else convert(x, core.bool_)
                 for x, a in zip(operands, avals, strict=True)]  # fmt: skip
        return function(*bools)

    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"NumPy's {name}; what is not 0 is true."
    return run


logical_and = _logical("logical_and", bitwise_and)
logical_or = _logical("logical_or", bitwise_or)
logical_xor = _logical("logical_xor", bitwise_xor)
logical_not = _logical("logical_not", invert)
