"""NumPy's element-wise functions: promotion, then broadcasting, then one primitive.

Broadcasting is explicit, as `broadcast_in_dim` equations; operands of rank 0 stay scalars.
"""

from tilewright.compiler import core, promote, trace
from tilewright.compiler import primitives as p
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


def _inexact(x):
    """Integers and bools become float32, as for NumPy's true division."""
    aval = trace.aval_of(x)
    return x if aval.dtype in core.FLOATS else convert(x, core.float32, aval.weak_type)


def divide(x1, x2):
    """NumPy's true division; integers are converted to float32."""
    avals = operand_avals("divide", (x1, x2))
    if not any(a.dtype in core.FLOATS for a in avals):  # directly, as JAX: not by way of int32
        x1, x2 = _inexact(x1), _inexact(x2)
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
    """NumPy's round, to nearest even; integers stay as they are."""
    operand_avals("round", (x,))
    if decimals != 0:
        raise UnsupportedError(f"round: decimals must be 0, not {decimals!r} (at {user_source()})")
    if trace.aval_of(x).dtype not in core.FLOATS:
        return x
    return trace.bind(p.round_nearest_even_p, x)


def rint(x):
    """NumPy's rint: round to nearest even; integers become float32."""
    operand_avals("rint", (x,))
    return trace.bind(p.round_nearest_even_p, _inexact(x))


def astype(x, dtype):
    """NumPy's astype: float to int truncates and saturates (NaN gives 0), int to int wraps."""
    operand_avals("astype", (x,))
    return convert(x, dtype_named("astype", dtype))
