"""NumPy's reductions: axes and dtypes made canonical, then one primitive (or a few equations)."""

import numpy as np
from tilewright.compiler import core, trace
from tilewright.compiler import elementwise as ew
from tilewright.compiler import primitives_reduce as r
from tilewright.compiler.errors import DtypeError, OperandError
from tilewright.compiler.operands import (
    axis_index,
    axis_indices,
    convert,
    dtype_named,
    operand_avals,
)
from tilewright.compiler.shaping import expand_dims, reshape
from tilewright.compiler.source import user_source


def _axes(axis, ndim):
    """Return the sorted axes that None (all), an int or a tuple names."""
    return tuple(range(ndim)) if axis is None else tuple(sorted(axis_indices(axis, ndim)))


def _kept(result, axes, keepdims):
    return expand_dims(result, axes) if keepdims and axes else result


def reduce(primitive, x, axes):
    """One equation."""
    return trace.bind(primitive, x, axes=axes)


def _accumulated(x, dtype, name):
    """The operand in the dtype of its sum: JAX's, unless one is given."""
    (aval,) = operand_avals(name, (x,))
    if dtype is not None:
        return convert(x, dtype_named(name, dtype))
    if aval.dtype in (core.bool_, core.int8):
        return convert(x, core.int32)
    return convert(x, core.uint32) if aval.dtype == core.uint8 else x


def _adding(name, primitive):
    def function(a, axis=None, dtype=None, *, keepdims=False):
        x = _accumulated(a, dtype, name)
        if trace.aval_of(x).dtype == core.bool_:
            raise DtypeError(f"{name}: dtype must be a number's, not bool (at {user_source()})")
        axes = _axes(axis, trace.aval_of(x).ndim)
        return _kept(reduce(primitive, x, axes), axes, keepdims)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""NumPy's {name}; of int8 and bool as int32, of uint8 as uint32.

    Floats are added in float32, in an order fixed by the shape; bfloat16 is rounded once.
    """
    return function


sum = _adding("sum", r.reduce_sum_p)
prod = _adding("prod", r.reduce_prod_p)


def _extreme(name, primitive):
    def function(a, axis=None, *, keepdims=False):
        (aval,) = operand_avals(name, (a,))
        axes = _axes(axis, aval.ndim)
        if 0 in [aval.shape[d] for d in axes]:
            raise OperandError(
                f"{name}({aval}): an axis of size 0 has no {name}imum (at {user_source()})"
            )
        return _kept(reduce(primitive, a, axes), axes, keepdims)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"NumPy's {name}; a NaN wins, -0 is below +0."
    return function


max = _extreme("max", r.reduce_max_p)
min = _extreme("min", r.reduce_min_p)


def _truth(name, primitive):
    def function(a, axis=None, *, keepdims=False):
        (aval,) = operand_avals(name, (a,))
        x = a if aval.dtype == core.bool_ else convert(a, core.bool_)
        axes = _axes(axis, aval.ndim)
        return _kept(reduce(primitive, x, axes), axes, keepdims)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"NumPy's {name}; what is not 0 is true."
    return function


all = _truth("all", r.reduce_and_p)
any = _truth("any", r.reduce_or_p)


def _count(shape, axes):
    return int(np.prod([shape[d] for d in axes], dtype=np.int64))


def _as_float(x, dtype, name):
    """The operand, and the dtype of a mean of it."""
    (aval,) = operand_avals(name, (x,))
    if dtype is not None:
        target = dtype_named(name, dtype)
        return convert(x, target), target
    if aval.dtype in core.FLOATS:
        return x, aval.dtype
    return convert(x, core.float32), core.float32


def mean(a, axis=None, dtype=None, *, keepdims=False):
    """NumPy's mean: the sum divided by the number of elements; of integers as float32.

    A bfloat16 mean is computed in float32 and rounded once, as JAX does.
    """
    x, target = _as_float(a, dtype, "mean")
    aval = trace.aval_of(x)
    axes = _axes(axis, aval.ndim)
    x = convert(x, core.float32) if target == core.bfloat16 else x
    total = _kept(reduce(r.reduce_sum_p, x, axes), axes, keepdims)
    return convert(ew.divide(total, float(_count(aval.shape, axes))), target)


def var(a, axis=None, dtype=None, *, ddof=0, keepdims=False):
    """NumPy's variance: the mean of the squared differences from the mean, in float32."""
    x, target = _as_float(a, dtype, "var")
    axes = _axes(axis, trace.aval_of(x).ndim)
    x = convert(x, core.float32) if target == core.bfloat16 else x
    centered = ew.subtract(x, mean(x, axes, keepdims=True))
    total = reduce(r.reduce_sum_p, ew.square(centered), axes)
    count = _count(trace.aval_of(x).shape, axes) - ddof
    return convert(ew.divide(_kept(total, axes, keepdims), float(count)), target)


def std(a, axis=None, dtype=None, *, ddof=0, keepdims=False):
    """NumPy's standard deviation: the root of `var`."""
    x, target = _as_float(a, dtype, "std")
    x = convert(x, core.float32) if target == core.bfloat16 else x
    return convert(ew.sqrt(var(x, axis, ddof=ddof, keepdims=keepdims)), target)


def _arg(name, primitive):
    def function(a, axis=None, *, keepdims=False):
        (aval,) = operand_avals(name, (a,))
        x = reshape(a, (aval.size,)) if axis is None else a
        at = 0 if axis is None else axis_index(axis, aval.ndim)
        if not trace.aval_of(x).shape[at]:
            raise OperandError(f"{name}({aval}): the axis is empty (at {user_source()})")
        found = trace.bind(primitive, x, axes=(at,), index_dtype=core.int32)
        if not keepdims:
            return found
        return expand_dims(found, tuple(range(aval.ndim)) if axis is None else at)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"NumPy's {name}: the first one, as int32; NaNs before numbers."
    return function


argmax = _arg("argmax", r.argmax_p)
argmin = _arg("argmin", r.argmin_p)


def _scan(name, primitive):
    def function(a, axis=None, dtype=None):
        x = _accumulated(a, dtype, name)
        aval = trace.aval_of(x)
        x = reshape(x, (aval.size,)) if axis is None else x
        at = 0 if axis is None else axis_index(axis, aval.ndim)
        return trace.bind(primitive, x, axis=at, reverse=False)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"NumPy's {name}; of int8 and bool as int32, of uint8 as uint32."
    return function


cumsum = _scan("cumsum", r.cumsum_p)
cumprod = _scan("cumprod", r.cumprod_p)
