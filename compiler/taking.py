"""Indices that are arrays: rows taken and replaced one after the other, in a loop on the chip.

``x[..., i, ...]`` with one array of integers among basic indices, `take`, and ``x.at[i]`` on the
first dimension. An index below 0 counts from the end. What is out of range is clamped when it is
read by ``x[i]``, as in JAX, and dropped when it is written; rows are written in index order.
"""

import numpy as np
from tilewright.compiler import core, trace
from tilewright.compiler import elementwise as ew
from tilewright.compiler import primitives as p
from tilewright.compiler.arithmetic import remainder
from tilewright.compiler.control import closed, scan_p
from tilewright.compiler.core import INTS, Literal, ShapedArray
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.indexing import basic_index, expanded
from tilewright.compiler.operands import axis_index, convert, operand_avals
from tilewright.compiler.primitives_dynamic import dynamic_slice_p, dynamic_update_slice_p
from tilewright.compiler.shaping import broadcast_to, expand_dims, moveaxis, reshape
from tilewright.compiler.sorting import numbers, picked
from tilewright.compiler.source import user_source

ZERO = Literal(np.zeros((), np.int32), ShapedArray((), core.int32))


def is_array(entry):
    """Tell whether an index's entry is an array of integers, or an integer that is not known."""
    if isinstance(entry, list):
        return bool(entry) and all(isinstance(i, int) and not isinstance(i, bool) for i in entry)
    if isinstance(entry, np.ndarray):
        return entry.dtype.kind in "iu" and entry.ndim > 0
    return hasattr(entry, "aval") and trace.aval_of(entry).dtype in INTS


def _indices(name, i):
    """Indices as int32; a list becomes an array."""
    i = np.asarray(i, np.int32) if isinstance(i, list | np.ndarray) else i
    (aval,) = operand_avals(name, (i,))
    if aval.dtype not in INTS:
        raise OperandError(f"{name}: indices must be integers, not {aval} (at {user_source()})")
    return convert(i, core.int32)


def array_index(x, index):
    """Return ``x[index]`` where one entry is an array of integers; None if none is."""
    entries = expanded(index, trace.aval_of(x).ndim)
    places = [at for at, e in enumerate(entries) if is_array(e)]
    if not places:
        return None
    if len(places) > 1:
        raise UnsupportedError(
            f"an index may hold one array of integers, not {len(places)} (at {user_source()}); "
            "index a reshaped array with i * columns + j instead"
        )
    (at,) = places
    before = entries[:at]
    rest = basic_index(x, (*before, slice(None), *entries[at + 1 :]))
    axis = sum(e is None or isinstance(e, slice) for e in before)
    return _taken(rest, _indices("an index", entries[at]), axis)


def _taken(x, i, axis):
    """Elements i of an axis; the axes of i stand in its place."""
    x = moveaxis(x, axis, 0)
    old, shape = trace.aval_of(x), trace.aval_of(i).shape
    if not old.shape[0]:
        raise IndexError(f"an axis of size 0 has no elements to take (at {user_source()})")
    rows = _rows(x, reshape(i, (-1,))) if shape else _row(x, i)
    rows = reshape(rows, (*shape, *old.shape[1:]))
    order = range(len(shape))
    return moveaxis(rows, tuple(order), tuple(axis + d for d in order)) if axis else rows


def _row(x, i):
    """One row, without its dimension."""
    shape = trace.aval_of(x).shape
    starts = (i, *(ZERO for _ in shape[1:]))
    row = trace.bind(dynamic_slice_p, x, *starts, slice_sizes=(1, *shape[1:]))
    return trace.bind(p.reshape_p, row, new_sizes=shape[1:])


def _rows(x, i):
    """Rows i, stacked."""
    avals = [trace.aval_of(x), trace.aval_of(i).update(shape=())]
    program, consts = closed(lambda x, i: [_row(x, i)], avals)
    (rows,) = trace.bind(
        scan_p, *consts, x, i, jaxpr=program, length=trace.aval_of(i).shape[0], reverse=False,
        consts=len(consts) + 1, carry=0,
    )  # fmt: skip
    return rows


def take(a, indices, axis=None, mode=None, fill_value=None):
    """NumPy's take, with JAX's modes "fill" (the default), "clip" and "wrap" for what is outside.

    "fill" gives `fill_value`: by default NaN, for integers the lowest (unsigned: largest) one.
    """
    if mode not in (None, "fill", "clip", "wrap"):
        raise OperandError(
            f"take: mode must be 'fill', 'clip' or 'wrap', not {mode!r} (at {user_source()})"
        )
    (aval,) = operand_avals("take", (a,))
    if axis is None:
        a, axis = reshape(a, (-1,)), 0
        aval = trace.aval_of(a)
    axis = axis_index(axis, aval.ndim)
    i, size = _indices("take", indices), aval.shape[axis]
    if mode == "wrap":
        return _taken(a, remainder(i, size), axis)
    found = _taken(a, i if mode != "clip" else ew.clip(i, 0, size - 1), axis)
    if mode == "clip":
        return found
    inside = ew.logical_and(ew.greater_equal(i, -size), ew.less(i, size))
    shape = trace.aval_of(i).shape
    inside = reshape(inside, (*(1 for _ in range(axis)), *shape,
                              *(1 for _ in range(aval.ndim - axis - 1))))  # fmt: skip
    fill = _fill(aval.dtype) if fill_value is None else fill_value
    return ew.where(inside, found, convert(fill, aval.dtype))


def take_along_axis(arr, indices, axis=-1, mode=None, fill_value=None):
    """NumPy's take_along_axis, with the modes "fill" and "clip" of `take`.

    Each result compares its index with all n of the axis.
    """
    if mode not in (None, "fill", "clip"):
        raise OperandError(
            f"take_along_axis: mode must be 'fill' or 'clip', not {mode!r} (at {user_source()})"
        )
    aval, _ = operand_avals("take_along_axis", (arr, indices))
    i = _indices("take_along_axis", indices)
    if axis is None:
        arr, axis = reshape(arr, (-1,)), 0
    if trace.aval_of(i).ndim != trace.aval_of(arr).ndim:
        raise OperandError(
            f"take_along_axis: indices must have the array's rank, not {trace.aval_of(i)} for "
            f"{trace.aval_of(arr)} (at {user_source()})"
        )
    axis = axis_index(axis, trace.aval_of(arr).ndim)
    x, i = moveaxis(arr, axis, -1), moveaxis(i, axis, -1)
    size = trace.aval_of(x).shape[-1]
    i = ew.where(ew.less(i, 0), ew.add(i, size), i)
    i = ew.clip(i, 0, size - 1) if mode == "clip" else i
    found = picked(expand_dims(x, -2), ew.equal(expand_dims(i, -1), numbers(size)))
    if mode != "clip":
        inside = ew.logical_and(ew.greater_equal(i, 0), ew.less(i, size))
        fill = _fill(aval.dtype) if fill_value is None else fill_value
        found = ew.where(inside, found, convert(fill, aval.dtype))
    return moveaxis(found, -1, axis)


def _fill(dtype):
    if dtype == core.bool_:
        return True
    if dtype in core.FLOATS:
        return float("nan")
    limits = np.iinfo(dtype)
    return limits.min if limits.min else limits.max


def changed_rows(x, i, y, compute):
    """x with rows i replaced, one after the other, by what `compute` makes of (row, y's row)."""
    aval, (other,) = trace.aval_of(x), operand_avals("at", (y,))
    i = _indices("at", i)
    shape, rest = trace.aval_of(i).shape, aval.shape[1:]
    y = convert(y, aval.dtype) if other.dtype != aval.dtype or other.weak_type else y
    y = reshape(broadcast_to(y, (*shape, *rest)), (-1, *rest) if rest else (-1,))
    count, size = trace.aval_of(y).shape[0], aval.shape[0]
    if not count or not aval.size:
        return x

    def step(x, i, row):
        old = _row(x, i)
        inside = ew.logical_and(ew.greater_equal(i, -size), ew.less(i, size))
        new = ew.where(inside, compute(old, row), old)
        new = trace.bind(p.reshape_p, new, new_sizes=(1, *rest))
        return [trace.bind(dynamic_update_slice_p, x, new, i, *(ZERO for _ in rest))]

    scalar = trace.aval_of(i).update(shape=())
    program, consts = closed(step, [aval, scalar, aval.update(shape=rest)])
    (out,) = trace.bind(
        scan_p, *consts, x, reshape(i, (-1,)), y, jaxpr=program, length=count, reverse=False,
        consts=len(consts), carry=1,
    )  # fmt: skip
    return out
