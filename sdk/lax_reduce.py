"""Reductions and scans along axes, with JAX's `lax` names; `tilewright.lax` has all."""

from tilewright.compiler import ops as _ops
from tilewright.compiler import primitives_reduce as _r
from tilewright.compiler import trace as _trace
from tilewright.compiler.operands import axis_index as _axis_index
from tilewright.compiler.operands import axis_indices as _axis_indices


def _reduced(name, operand, axes):
    (aval,) = _ops.operand_avals(name, (operand,))
    axes = tuple(sorted(_axis_indices(tuple(axes), aval.ndim)))
    return _trace.bind(_r.PRIMITIVES[name], operand, axes=axes)


def reduce_sum(operand, axes):
    """The sum over axes, in an order fixed by the shape; of no elements 0."""
    return _reduced("reduce_sum", operand, axes)


def reduce_prod(operand, axes):
    """The product over axes, in an order fixed by the shape; of no elements 1."""
    return _reduced("reduce_prod", operand, axes)


def reduce_max(operand, axes):
    """The maximum over axes; a NaN wins; of no elements the dtype's lowest value."""
    return _reduced("reduce_max", operand, axes)


def reduce_min(operand, axes):
    """The minimum over axes; a NaN wins; of no elements the dtype's highest value."""
    return _reduced("reduce_min", operand, axes)


def reduce_and(operand, axes):
    """Integers or bools, `and` of all over axes."""
    return _reduced("reduce_and", operand, axes)


def reduce_or(operand, axes):
    """Integers or bools, `or` of all over axes."""
    return _reduced("reduce_or", operand, axes)


def _index(name, operand, axis, index_dtype):
    (aval,) = _ops.operand_avals(name, (operand,))
    dtype = _ops.dtype_named(name, index_dtype)
    axes = (_axis_index(axis, aval.ndim),)
    return _trace.bind(_r.PRIMITIVES[name], operand, axes=axes, index_dtype=dtype)


def argmax(operand, axis, index_dtype):
    """Where the first maximum along an axis is; a NaN is above every number."""
    return _index("argmax", operand, axis, index_dtype)


def argmin(operand, axis, index_dtype):
    """Where the first minimum along an axis is; a NaN is below every number."""
    return _index("argmin", operand, axis, index_dtype)


def _scanned(name, operand, axis, reverse):
    (aval,) = _ops.operand_avals(name, (operand,))
    axis = _axis_index(axis, aval.ndim)
    return _trace.bind(_r.PRIMITIVES[name], operand, axis=axis, reverse=bool(reverse))


def cumsum(operand, axis=0, reverse=False):
    """Sums of the elements up to each one along an axis (or from each one on)."""
    return _scanned("cumsum", operand, axis, reverse)


def cumprod(operand, axis=0, reverse=False):
    """Products of the elements up to each one along an axis (or from each one on)."""
    return _scanned("cumprod", operand, axis, reverse)


def cummax(operand, axis=0, reverse=False):
    """The largest of the elements up to each one along an axis (or from each one on)."""
    return _scanned("cummax", operand, axis, reverse)


def cummin(operand, axis=0, reverse=False):
    """The smallest of the elements up to each one along an axis (or from each one on)."""
    return _scanned("cummin", operand, axis, reverse)
