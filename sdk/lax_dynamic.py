"""Parts of arrays at places that are known only when the program runs, with JAX's `lax` names.

A start may be a Python int or an integer scalar; below 0 it counts from the end, then it is clamped
so that the part lies inside. An update is done in place where the array is not needed any more.
"""

from operator import index as _index

import numpy as _np
from tilewright.compiler import ops as _ops
from tilewright.compiler import primitives_dynamic as _p
from tilewright.compiler import trace as _trace
from tilewright.compiler.core import INTS as _INTS
from tilewright.compiler.errors import OperandError as _OperandError
from tilewright.compiler.operands import axis_index as _axis_index
from tilewright.compiler.source import user_source as _user_source


def _starts(name, indices, rank):
    """The starts as int32 scalars."""
    if not isinstance(indices, tuple | list):
        (aval,) = _ops.operand_avals(name, (indices,))
        indices = [indices[i] for i in range(aval.shape[0] if aval.shape else 0)]
    if len(indices) != rank:
        raise _OperandError(
            f"{name}: start_indices must be {rank} integers, not {len(indices)} "
            f"(at {_user_source()})"
        )
    return [_start(name, i) for i in indices]


def _start(name, i):
    if isinstance(i, int | _np.integer):
        return _np.int32(i)
    (aval,) = _ops.operand_avals(name, (i,))
    if aval.shape or aval.dtype not in _INTS:
        raise _OperandError(f"{name}: a start must be an integer, not {aval} (at {_user_source()})")
    if aval.dtype == _np.uint32:  # what int32 does not have lies behind every array
        i = _ops.minimum(i, _np.uint32(_np.iinfo(_np.int32).max))
    return _ops.astype(i, _np.int32)


def dynamic_slice(operand, start_indices, slice_sizes):
    """The part of shape `slice_sizes` that begins at `start_indices`, one for each dimension."""
    (aval,) = _ops.operand_avals("dynamic_slice", (operand,))
    starts = _starts("dynamic_slice", start_indices, aval.ndim)
    sizes = tuple(map(_index, slice_sizes))
    return _trace.bind(_p.dynamic_slice_p, operand, *starts, slice_sizes=sizes)


def dynamic_update_slice(operand, update, start_indices):
    """The array with `update` written where `start_indices` say, one for each dimension."""
    aval, _ = _ops.operand_avals("dynamic_update_slice", (operand, update))
    starts = _starts("dynamic_update_slice", start_indices, aval.ndim)
    return _trace.bind(_p.dynamic_update_slice_p, operand, update, *starts)


def dynamic_slice_in_dim(operand, start_index, slice_size, axis=0):
    """The part of `slice_size` elements along one axis."""
    (aval,) = _ops.operand_avals("dynamic_slice_in_dim", (operand,))
    axis = _axis_index(axis, aval.ndim)
    starts = [start_index if d == axis else 0 for d in range(aval.ndim)]
    sizes = [slice_size if d == axis else n for d, n in enumerate(aval.shape)]
    return dynamic_slice(operand, starts, sizes)


def dynamic_index_in_dim(operand, index, axis=0, keepdims=True):
    """One element along an axis."""
    result = dynamic_slice_in_dim(operand, index, 1, axis)
    return result if keepdims else _ops.squeeze(result, axis)


def dynamic_update_slice_in_dim(operand, update, start_index, axis):
    """The array with `update` written at a place along one axis."""
    (aval,) = _ops.operand_avals("dynamic_update_slice_in_dim", (operand,))
    axis = _axis_index(axis, aval.ndim)
    return dynamic_update_slice(
        operand, update, [start_index if d == axis else 0 for d in range(aval.ndim)]
    )


def dynamic_update_index_in_dim(operand, update, index, axis):
    """The array with one element along an axis replaced; `update` may lack that axis."""
    aval, given = _ops.operand_avals("dynamic_update_index_in_dim", (operand, update))
    if given.ndim < aval.ndim:
        update = _ops.expand_dims(update, _axis_index(axis, aval.ndim))
    return dynamic_update_slice_in_dim(operand, update, index, axis)
