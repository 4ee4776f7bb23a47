"""Primitives that move data or make it, with JAX's `lax` names; `tilewright.lax` has all."""

from tilewright.compiler import ops as _ops
from tilewright.compiler import primitives as _p
from tilewright.compiler import trace as _trace
from tilewright.compiler.joining import joined as _joined
from tilewright.compiler.making import counts as _counts
from tilewright.compiler.sorting import sort_together as _sort_together


def concatenate(operands, dimension):
    """Arrays of one dtype one behind the other along a dimension."""
    operands = tuple(operands)
    _ops.operand_avals("concatenate", operands)
    return _joined(operands, dimension)


def sort(operand, dimension=-1, is_stable=True, num_keys=1):
    """The array sorted along a dimension, of at most 4,096 elements; always stable.

    A tuple of arrays is put into the order of the first `num_keys` ones, and is a tuple again.
    """
    if isinstance(operand, tuple | list):
        return tuple(_sort_together(tuple(operand), dimension, num_keys))
    return _ops.sort(operand, dimension)


def top_k(operand, k):
    """The k largest elements of the last dimension, and their numbers."""
    return _ops.top_k(operand, k)


def iota(dtype, size):
    """0, 1, ... below `size`."""
    return broadcasted_iota(dtype, (size,), 0)


def broadcasted_iota(dtype, shape, dimension):
    """An array whose elements are their indices along a dimension."""
    return _counts(_ops.dtype_named("iota", dtype), _ops.shape_tuple(shape), dimension)


def expand_dims(array, dimensions):
    """New dimensions of size 1."""
    return _ops.expand_dims(array, tuple(dimensions))


def squeeze(array, dimensions):
    """Without dimensions of size 1."""
    return _ops.squeeze(array, tuple(dimensions))


def broadcast(operand, sizes):
    """New leading dimensions."""
    shape = _trace.aval_of(operand).shape
    return _ops.broadcast_to(operand, (*sizes, *shape))


def collapse(operand, start_dimension, stop_dimension=None):
    """The dimensions from start up to stop, without it, as one."""
    shape = _trace.aval_of(operand).shape
    first, last, _ = slice(start_dimension, stop_dimension).indices(len(shape))
    size = 1
    for n in shape[first:last]:
        size *= n
    return _ops.reshape(operand, (*shape[:first], size, *shape[last:]))


def slice_in_dim(operand, start_index, limit_index, stride=1, axis=0):
    """A slice of one dimension."""
    shape = _trace.aval_of(operand).shape
    axis = axis % len(shape)
    start, limit, _ = slice(start_index, limit_index).indices(shape[axis])
    ends = [(0, n, 1) for n in shape]
    ends[axis] = (start, limit, stride)
    starts, limits, strides = zip(*ends, strict=True)
    params = {"strides": strides} if stride != 1 else {}
    return _trace.bind(_p.slice_p, operand, start_indices=starts, limit_indices=limits, **params)


def split(operand, sizes, axis=0):
    """Parts of these sizes along an axis."""
    parts, at = [], 0
    for n in sizes:
        parts.append(slice_in_dim(operand, at, at + n, axis=axis))
        at += n
    return parts
