"""Arrays of given values, dtypes and their kinds; `tilewright.numpy` has all."""

import builtins as _builtins

import ml_dtypes as _ml_dtypes
import numpy as _np
from tilewright.compiler import core as _core
from tilewright.compiler import ops as _ops
from tilewright.compiler import trace as _trace
from tilewright.compiler.ops import astype, broadcast_to, stack
from tilewright.compiler.primitives import convert as _convert
from tilewright.compiler.promote import broadcast_shapes as _broadcast_shapes
from tilewright.compiler.promote import canonical_dtype as _canonical_dtype
from tilewright.compiler.promote import promote_types as _promote_types

float32 = _np.float32
bfloat16 = _core.bfloat16.type
int8 = _np.int8
uint8 = _np.uint8
int32 = _np.int32
uint32 = _np.uint32
bool_ = _np.bool_
dtype = _np.dtype
finfo = _ml_dtypes.finfo
iinfo = _np.iinfo

floating = _np.floating
integer = _np.integer
inexact = _np.inexact
number = _np.number
signedinteger = _np.signedinteger
unsignedinteger = _np.unsignedinteger

newaxis = None
pi = _np.pi
e = _np.e
inf = _np.inf
nan = _np.nan


def asarray(a, dtype=None):
    """Return `a` (array, number, nested list of numbers) as an array; 64-bit values narrow."""
    if isinstance(a, _trace.Tracer) or _trace.is_device_array(a):
        return a if dtype is None else astype(a, dtype)
    if type(a) in (bool, int, float) and dtype is None:
        return _trace.lift(a)  # weakly typed, as in JAX
    if isinstance(a, list | tuple) and _holds_array(a):
        rows = [asarray(row) for row in a]
        return stack(rows, dtype=dtype)
    value = _np.asarray(a)
    if dtype is not None:
        value = _trace.concrete(value)
        target = _ops.dtype_named("asarray", dtype)
        value = _convert(value, new_dtype=target)
    return _trace.lift(value)


def array(object, dtype=None, copy=True):
    """Return a new array; arrays of Tilewright are immutable, so copying is free."""
    if copy and isinstance(object, _np.ndarray):
        object = object.copy()
    return asarray(object, dtype)


def _holds_array(items):
    return _builtins.any(
        isinstance(i, _trace.Tracer)
        or _trace.is_device_array(i)
        or (isinstance(i, list | tuple) and _holds_array(i))
        for i in items
    )


def full(shape, fill_value, dtype=None):
    """Return an array of a shape, every element `fill_value`."""
    (aval,) = _ops.operand_avals("full", (fill_value,))
    weak = aval.weak_type and dtype is None
    target = aval.dtype if dtype is None else _ops.dtype_named("full", dtype)
    value = _ops.convert(fill_value, target, weak)
    shape = _ops.shape_tuple(shape)
    if _trace.current_trace() is None and not isinstance(value, _trace.Tracer):
        filled = _np.array(_np.broadcast_to(_trace.concrete(value), shape))
        return _trace.asarray_hook(filled, weak)
    return broadcast_to(value, shape) if shape else _trace.lift(value)


def zeros(shape, dtype=float32):
    """Return an array of zeros."""
    return full(shape, 0, dtype)


def ones(shape, dtype=float32):
    """Return an array of ones."""
    return full(shape, 1, dtype)


def empty(shape, dtype=float32):
    """Return an array of zeros: there is no memory that nobody wrote."""
    return zeros(shape, dtype)


def empty_like(a, dtype=None):
    """Return zeros with the shape (and, by default, the dtype) of `a`."""
    return full_like(a, 0, dtype)


def full_like(a, fill_value, dtype=None):
    """Return an array with the shape (and, by default, the dtype) of `a`."""
    aval = _trace.aval_of(a)
    return full(aval.shape, fill_value, aval.dtype if dtype is None else dtype)


def zeros_like(a, dtype=None):
    """Return zeros with the shape (and, by default, the dtype) of `a`."""
    return full_like(a, 0, dtype)


def ones_like(a, dtype=None):
    """Return ones with the shape (and, by default, the dtype) of `a`."""
    return full_like(a, 1, dtype)


def shape(a):
    """Return the shape of an array."""
    return _trace.aval_of(a).shape


def ndim(a):
    """Return the rank of an array."""
    return _trace.aval_of(a).ndim


def size(a):
    """Return the number of elements of an array."""
    return _trace.aval_of(a).size


def broadcast_shapes(*shapes):
    """Return the shape to which shapes broadcast."""
    return _broadcast_shapes(*shapes)


def promote_types(a, b):
    """Return the dtype to which two dtypes promote."""
    return result_type(_np.dtype(a), _np.dtype(b))


def issubdtype(arg1, arg2):
    """Tell whether a dtype is of a kind, such as `floating`; bfloat16 is a floating one."""
    if arg1 in (bfloat16, _core.bfloat16):
        return arg2 in (floating, inexact, number, _np.generic, bfloat16, _core.bfloat16)
    return _np.issubdtype(arg1, arg2)


def result_type(*args):
    """Return the dtype to which arrays, numbers and dtypes promote."""
    avals = [
        _core.ShapedArray((), _canonical_dtype(a))
        if isinstance(a, type | str | _np.dtype)
        else _trace.aval_of(a)
        for a in args
    ]
    return _promote_types(*avals)[0]

__all__ = [
    "array",
    "asarray",
    "bfloat16",
    "bool_",
    "broadcast_shapes",
    "dtype",
    "e",
    "empty",
    "empty_like",
    "finfo",
    "float32",
    "floating",
    "full",
    "full_like",
    "iinfo",
    "inexact",
    "inf",
    "int8",
    "int32",
    "integer",
    "issubdtype",
    "nan",
    "ndim",
    "newaxis",
    "number",
    "ones",
    "ones_like",
    "pi",
    "promote_types",
    "result_type",
    "shape",
    "signedinteger",
    "size",
    "uint8",
    "uint32",
    "unsignedinteger",
    "zeros",
    "zeros_like",
]
