"""NumPy's functions on tracers and concrete arrays, as sequences of primitives.

Here live promotion, NumPy broadcasting (as `broadcast_in_dim` equations; scalars stay scalars) and
the meaning of axes and indices. `tilewright.numpy` and the operators of arrays are these functions.
"""

import operator

import numpy as np
from tilewright.compiler import core, promote, trace
from tilewright.compiler import primitives as p
from tilewright.compiler.errors import DtypeError, OperandError, TilewrightError, UnsupportedError
from tilewright.compiler.primitives_dot import dot_general_p
from tilewright.compiler.source import user_source

_OPERANDS = (trace.Tracer, core.Literal, np.ndarray, np.generic, bool, int, float)


def is_operand(value):
    """Tell whether a value can be an operand of an array operation."""
    return isinstance(value, _OPERANDS) or trace.is_device_array(value)


def operand_avals(name, values):
    """Return the avals of operands; an error names the function and the user's line."""
    for value in values:
        if not is_operand(value):
            raise OperandError(
                f"{name} takes arrays and numbers, not {type(value).__name__} (at {user_source()})"
            )
    try:
        return [trace.aval_of(v) for v in values]
    except DtypeError as error:
        raise DtypeError(f"{name}: {error} (at {user_source()})") from None


def _located(name, avals, error):
    """Return an error of the same class that names operation, operands and the user's line."""
    types = ", ".join(map(str, avals))
    return type(error)(f"{name}({types}): {error} (at {user_source()})")


def dtype_named(name, dtype):
    """Return the chip's dtype for a user's dtype argument of the function `name`."""
    try:
        return promote.canonical_dtype(dtype)
    except DtypeError as error:
        raise DtypeError(f"{name}: {error} (at {user_source()})") from None


def convert(x, dtype, weak_type=False):
    """Convert to a dtype; no equation if there is nothing to do, a literal for a number."""
    aval = trace.aval_of(x)
    if isinstance(x, core.Literal):
        value = p.convert(x.value, new_dtype=dtype)
        return core.Literal(value, core.ShapedArray((), dtype, weak_type))
    if type(x) in (bool, int, float):
        is_exact = aval.dtype == core.bool_ or dtype not in core.INTS or type(x) is int
        if is_exact:
            value = promote.scalar_value(x, dtype)
            return core.Literal(value, core.ShapedArray((), dtype, weak_type))
    if (aval.dtype, aval.weak_type) == (dtype, weak_type):
        return x
    params = {"weak_type": True} if weak_type else {}
    return trace.bind(p.convert_element_type_p, x, new_dtype=dtype, **params)


def broadcast_to(x, shape):
    """NumPy's broadcast_to."""
    operand_avals("broadcast_to", (x,))
    shape = shape_tuple(shape)
    old = trace.aval_of(x).shape
    if old == shape:
        return x
    first = len(shape) - len(old)
    if first < 0 or any(n not in (1, m) for n, m in zip(old, shape[first:], strict=True)):
        raise OperandError(f"shape {old} does not broadcast to {shape} (at {user_source()})")
    dims = tuple(range(first, len(shape)))
    return trace.bind(p.broadcast_in_dim_p, x, shape=shape, broadcast_dimensions=dims)


def promoted(name, *values):
    """Return operands of one dtype and one shape (or rank 0), as element-wise primitives take."""
    avals = operand_avals(name, values)
    try:
        dtype, weak = promote.promote_types(*avals)
        shape = promote.broadcast_shapes(*(a.shape for a in avals))
    except TilewrightError as error:
        raise _located(name, avals, error) from None
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


def shape_tuple(shape):
    """Return a shape given as an int or as a sequence of ints."""
    try:
        return (
            (operator.index(shape),)
            if not hasattr(shape, "__len__")
            else tuple(operator.index(n) for n in shape)
        )
    except TypeError:
        raise OperandError(
            f"a shape must be an int or a tuple of ints, not {shape!r} (at {user_source()})"
        ) from None


def axis_index(axis, ndim):
    """Return a non-negative axis."""
    try:
        axis = operator.index(axis)
    except TypeError:
        raise OperandError(f"an axis must be an int, not {axis!r} (at {user_source()})") from None
    if not -ndim <= axis < ndim:
        raise OperandError(
            f"axis must be in [{-ndim}, {ndim}) for rank {ndim}, not {axis} (at {user_source()})"
        )
    return axis % ndim


def _axes(axis, ndim):
    """Return the set of non-negative axes that an int or a tuple names."""
    given = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    axes = [axis_index(a, ndim) for a in given]
    if len(set(axes)) != len(axes):
        raise OperandError(f"axes must be distinct, not {axis!r} (at {user_source()})")
    return axes


def _reshaped(x, shape):
    return x if trace.aval_of(x).shape == shape else trace.bind(p.reshape_p, x, new_sizes=shape)


def reshape(x, shape, order="C"):
    """NumPy's reshape, in C order; one dimension may be -1."""
    operand_avals("reshape", (x,))
    if order != "C":
        raise UnsupportedError(f"reshape: order must be 'C', not {order!r} (at {user_source()})")
    old, shape = trace.aval_of(x), shape_tuple(shape)
    if shape.count(-1) == 1:
        rest = int(np.prod([n for n in shape if n != -1], dtype=np.int64))
        if rest == 0 or old.size % rest:
            raise OperandError(f"reshape({old}): no size fits -1 in {shape} (at {user_source()})")
        shape = tuple(old.size // rest if n == -1 else n for n in shape)
    return _reshaped(x, shape)


def ravel(x, order="C"):
    """NumPy's ravel."""
    (aval,) = operand_avals("ravel", (x,))
    return reshape(x, (aval.size,), order)


def transpose(x, axes=None):
    """NumPy's transpose."""
    operand_avals("transpose", (x,))
    ndim = trace.aval_of(x).ndim
    axes = tuple(reversed(range(ndim))) if axes is None else tuple(_axes(tuple(axes), ndim))
    if len(axes) != ndim:
        raise OperandError(f"axes must permute {ndim} dimensions, not {axes} (at {user_source()})")
    return x if axes == tuple(range(ndim)) else trace.bind(p.transpose_p, x, permutation=axes)


def matrix_transpose(x):
    """Swap the last two axes."""
    return swapaxes(x, -1, -2)


def swapaxes(x, axis1, axis2):
    """NumPy's swapaxes."""
    axes = list(range(trace.aval_of(x).ndim))
    a, b = axis_index(axis1, len(axes)), axis_index(axis2, len(axes))
    axes[a], axes[b] = axes[b], axes[a]
    return transpose(x, axes)


def moveaxis(x, source, destination):
    """NumPy's moveaxis."""
    ndim = trace.aval_of(x).ndim
    sources, places = _axes(source, ndim), _axes(destination, ndim)
    if len(sources) != len(places):
        raise OperandError(
            f"source and destination must have as many axes, not {source!r} and {destination!r} "
            f"(at {user_source()})"
        )
    order = [d for d in range(ndim) if d not in sources]
    for place, axis in sorted(zip(places, sources, strict=True)):
        order.insert(place, axis)
    return transpose(x, order)


def expand_dims(x, axis):
    """NumPy's expand_dims."""
    operand_avals("expand_dims", (x,))
    shape = list(trace.aval_of(x).shape)
    given = axis if isinstance(axis, tuple | list) else (axis,)
    for place in sorted(_axes(axis, len(shape) + len(given))):
        shape.insert(place, 1)
    return _reshaped(x, tuple(shape))


def squeeze(x, axis=None):
    """NumPy's squeeze."""
    operand_avals("squeeze", (x,))
    shape = trace.aval_of(x).shape
    ones = [d for d, n in enumerate(shape) if n == 1]
    axes = ones if axis is None else _axes(axis, len(shape))
    if not set(axes) <= set(ones):
        raise OperandError(
            f"squeeze: axis {axis!r} of shape {shape} must have size 1 (at {user_source()})"
        )
    return _reshaped(x, tuple(n for d, n in enumerate(shape) if d not in axes))


def dot_general(
    lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None, name="dot_general"
):
    """JAX's dot_general, on operands as they are."""
    operand_avals(name, (lhs, rhs))
    (lc, rc), (lb, rb) = dimension_numbers
    numbers = tuple(tuple(int(d) for d in dims) for dims in (lc, rc, lb, rb))
    if preferred_element_type is not None:
        preferred_element_type = dtype_named(name, preferred_element_type)
    precision = "default" if precision is None else str(precision).lower()
    return trace.bind(
        dot_general_p,
        lhs,
        rhs,
        dimension_numbers=(numbers[:2], numbers[2:]),
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


def _contraction_operands(name, a, b, preferred):
    """Promote the operands of a matmul; with a preferred type, bytes of either sign stay bytes."""
    avals = operand_avals(name, (a, b))
    bytes_ = (core.int8, core.uint8)
    if preferred is not None and all(v.dtype in bytes_ and not v.weak_type for v in avals):
        return a, b
    try:
        dtype, weak = promote.promote_types(*avals)
    except DtypeError as error:
        hint = "; or give preferred_element_type=int32" if avals[0].dtype in bytes_ else ""
        raise _located(name, avals, DtypeError(f"{error}{hint}")) from None
    return convert(a, dtype, weak), convert(b, dtype, weak)


def matmul(a, b, *, precision=None, preferred_element_type=None):
    """NumPy's matmul; leading dimensions broadcast and are batch dimensions.

    int8 operands give int8, as in JAX (the sum wraps), unless ``preferred_element_type=int32``.
    """
    a, b = _contraction_operands("matmul", a, b, preferred_element_type)
    avals = left, right = trace.aval_of(a), trace.aval_of(b)
    if not left.ndim or not right.ndim:
        raise OperandError(
            f"matmul({left}, {right}): operands must have at least one dimension "
            f"(at {user_source()})"
        )
    depths = left.shape[-1], right.shape[-2 if right.ndim > 1 else 0]
    if depths[0] != depths[1]:
        raise OperandError(
            f"matmul({left}, {right}): the last dimension of the first and the "
            f"{'second to last' if right.ndim > 1 else 'only'} one of the second must be equal, "
            f"not {depths[0]} and {depths[1]} (at {user_source()})"
        )
    try:
        batch = promote.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except OperandError as error:
        raise _located("matmul", avals, error) from None
    if right.ndim <= 2 and left.ndim >= 1:  # the batch of the first, if any, is only more rows
        numbers = (((left.ndim - 1,), (max(right.ndim - 2, 0),)), ((), ()))
        return dot_general(a, b, numbers, precision, preferred_element_type, "matmul")
    if left.ndim > 1:
        a = broadcast_to(a, batch + left.shape[-2:])
    else:  # (K,) @ (..., K, N)
        a = broadcast_to(a, (*batch, *left.shape))
    b = broadcast_to(b, batch + right.shape[-2:])
    dims = tuple(range(len(batch)))
    k = len(batch) + (1 if left.ndim > 1 else 0)
    numbers = (((k,), (len(batch),)), (dims, dims))
    return dot_general(a, b, numbers, precision, preferred_element_type, "matmul")


def dot(a, b, *, precision=None, preferred_element_type=None):
    """NumPy's dot: the last dimension of `a` with the second to last of `b`; scalars multiply."""
    left, right = operand_avals("dot", (a, b))
    if not left.ndim or not right.ndim:
        return multiply(a, b)
    a, b = _contraction_operands("dot", a, b, preferred_element_type)
    numbers = (((left.ndim - 1,), (max(right.ndim - 2, 0),)), ((), ()))
    return dot_general(a, b, numbers, precision, preferred_element_type, "dot")


def getitem(x, index):
    """``x[index]`` for ints, slices, None and Ellipsis."""
    from tilewright.compiler.indexing import basic_index

    return basic_index(x, index)
