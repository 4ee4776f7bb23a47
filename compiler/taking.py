"""Rows taken and replaced at computed places: what all indexing with arrays comes down to.

`taken` and `put` bring places that broadcast together, one array for each of some axes, to one
number for each row of an array of rows (`primitives_rows`); `take` and `take_along_axis` are
NumPy's. What is known when tracing is NumPy's work.
"""

import numpy as np
from tilewright.compiler import core, trace
from tilewright.compiler import elementwise as ew
from tilewright.compiler import primitives as p
from tilewright.compiler.arithmetic import remainder
from tilewright.compiler.control import closed, scan_p
from tilewright.compiler.core import INTS, Literal, ShapedArray
from tilewright.compiler.errors import OperandError
from tilewright.compiler.operands import axis_index, convert, operand_avals
from tilewright.compiler.primitives_dynamic import dynamic_slice_p, dynamic_update_slice_p
from tilewright.compiler.primitives_rows import put_rows_p, take_rows_p
from tilewright.compiler.shaping import broadcast_to, expand_dims, moveaxis, reshape
from tilewright.compiler.sorting import numbers, picked
from tilewright.compiler.source import user_source

ZERO = Literal(np.zeros((), np.int32), ShapedArray((), core.int32))
BLOCK = 16  # bytes of a beat, of most chips
MOST = 65535  # rows of an array that LOAD and STORE can index
LARGEST = np.iinfo(np.int32).max


def integers(name, i):
    """Indices as int32; what int32 does not have lies behind every array."""
    if isinstance(i, list | tuple | np.ndarray | np.generic | int):
        i = np.asarray(i, None if np.size(i) else np.int32)
        if i.dtype.kind not in "iu":
            raise OperandError(
                f"{name}: indices must be integers, not {i.dtype} (at {user_source()})"
            )
        return np.asarray(np.clip(i, -LARGEST, LARGEST), np.int32)
    (aval,) = operand_avals(name, (i,))
    if aval.dtype not in INTS:
        raise OperandError(f"{name}: indices must be integers, not {aval} (at {user_source()})")
    if aval.dtype == core.uint32:
        i = ew.minimum(i, np.uint32(LARGEST))
    return convert(i, core.int32)


def tools(*arrays):
    """The module that computes with indices: NumPy if all are known."""
    return np if all(isinstance(i, np.ndarray | np.generic) for i in arrays) else ew


def wrapped(i, size):
    """An index below 0 counts from the end."""
    f = tools(i)
    return f.where(f.less(i, 0), f.add(i, size), i)


def inside(arrays, sizes):
    """Whether all indices of a place are in range."""
    found = None
    for i, n in zip(arrays, sizes, strict=True):
        f = tools(i)
        one = f.logical_and(f.greater_equal(i, 0), f.less(i, n))
        found = one if found is None else tools(found, one).logical_and(found, one)
    return found


def joined(arrays, sizes, clip):
    """The number of the row that indices of axes of these sizes name, in row-major order.

    What is out of range is clamped, or becomes an index that is out of range.
    """
    if len(arrays) == 1:
        return tools(*arrays).clip(arrays[0], 0, max(sizes[0] - 1, 0)) if clip else arrays[0]
    f = tools(*arrays)
    total = None
    for i, n in zip(arrays, sizes, strict=True):
        i = tools(i).clip(i, 0, max(n - 1, 0)) if clip else i
        total = i if total is None else f.add(f.multiply(total, n), i)
    return total if clip else f.where(inside(arrays, sizes), total, np.int32(-1))


def rows_first(x, axes):
    """An array of rows: these axes as one, in front; and the sizes of the others."""
    x = moveaxis(x, tuple(axes), tuple(range(len(axes))))
    shape = trace.aval_of(x).shape
    sizes, other = shape[: len(axes)], shape[len(axes) :]
    return reshape(x, (int(np.prod(sizes)), *other)), sizes, other


def flat_places(arrays, sizes, shape, clip):
    """int32 row numbers of one dimension."""
    places = joined(arrays, sizes, clip)
    if tools(places) is np:
        return np.ascontiguousarray(np.broadcast_to(places, shape).reshape(-1), np.int32)
    return reshape(broadcast_to(places, shape), (int(np.prod(shape)),))


def taken(x, axes, arrays, shape):
    """Elements of axes at places, which are clamped; `shape`, that of the places, comes first."""
    rows, sizes, other = rows_first(x, axes)
    if 0 in sizes and 0 not in shape:
        raise IndexError(f"an axis of size 0 has no elements to take (at {user_source()})")
    places = flat_places(arrays, sizes, shape, clip=len(arrays) > 1)
    return reshape(trace.bind(take_rows_p, rows, places), (*shape, *other))


def put(x, axes, arrays, shape, y, kind, clip=False, unique=False):
    """x with elements of axes at places changed by y, which has the places' shape first.

    `kind` is one of `put_rows`, or a function of a row that makes the new one, without y. Places
    that are out of range are left out, or clamped.
    """
    if kind == "set":
        axes, arrays, shape, y = _in_place(x, axes, arrays, shape, y)
    rows, sizes, other = rows_first(x, axes)
    count = int(np.prod(shape))
    if not count or not trace.aval_of(rows).size:
        return x
    places = flat_places(arrays, sizes, shape, clip)
    if callable(kind):
        rows = applied_rows(rows, places, kind)
    else:
        y = reshape(y, (count, *other))
        unique = unique or (tools(places) is np and len(np.unique(places)) == count)
        rows = trace.bind(put_rows_p, rows, places, y, kind=kind, unique=unique)
    rows = reshape(rows, (*sizes, *other))
    return moveaxis(rows, tuple(range(len(axes))), tuple(axes))


def _in_place(x, axes, arrays, shape, y):
    """The same places with those of the axes in front, if that saves a transposition of x.

    That is so if what is behind the last axis is whole beats, and nothing else is to be moved.
    """
    aval, last = trace.aval_of(x), max(axes)
    lead = [d for d in range(last) if d not in axes]
    run = aval.dtype.itemsize * int(np.prod(aval.shape[last + 1 :]))
    in_order = list(axes) == sorted(axes)
    many = int(np.prod(aval.shape[: last + 1])) > MOST
    if not lead or not in_order or run % BLOCK or not aval.size or many:
        return axes, arrays, shape, y
    found = dict(zip(axes, arrays, strict=True))
    for at, d in enumerate(lead):
        lengths = [1] * (len(lead) + len(shape))
        lengths[at] = aval.shape[d]
        found[d] = np.arange(aval.shape[d], dtype=np.int32).reshape(lengths)
    first = len(shape)
    y = moveaxis(y, tuple(range(first, first + len(lead))), tuple(range(len(lead))))
    shape = (*(aval.shape[d] for d in lead), *shape)
    every = tuple(range(last + 1))
    return every, tuple(found[d] for d in every), shape, y


def row_of(x, i):
    """Row i, without its dimension."""
    shape = trace.aval_of(x).shape
    starts = (i, *(ZERO for _ in shape[1:]))
    row = trace.bind(dynamic_slice_p, x, *starts, slice_sizes=(1, *shape[1:]))
    return trace.bind(p.reshape_p, row, new_sizes=shape[1:])


def with_row(x, i, old, new):
    """x with row i, which is `old`, replaced, if there is a row i."""
    shape = trace.aval_of(x).shape
    new = ew.where(inside((i,), shape[:1]), new, old)
    new = trace.bind(p.reshape_p, new, new_sizes=(1, *shape[1:]))
    return trace.bind(dynamic_update_slice_p, x, new, i, *(ZERO for _ in shape[1:]))


def applied_rows(x, i, function):
    """x with rows i replaced, one after the other, by what a function makes of each."""

    def step(x, i):
        old = row_of(x, i)
        return [with_row(x, i, old, convert(function(old), trace.aval_of(x).dtype))]

    scalar = trace.aval_of(i).update(shape=())
    program, consts = closed(step, [trace.aval_of(x), scalar])
    (out,) = trace.bind(
        scan_p, *consts, x, i, jaxpr=program, length=trace.aval_of(i).shape[0], reverse=False,
        consts=len(consts), carry=1,
    )  # fmt: skip
    return out


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
    i, size = integers("take", indices), aval.shape[axis]
    if mode == "wrap":
        i = np.remainder(i, size) if tools(i) is np else remainder(i, size)
    elif mode != "clip":
        i = wrapped(i, size)
    shape = trace.aval_of(i).shape
    found = found_at(a, (axis,), (i,), shape, axis)
    if mode in ("clip", "wrap"):
        return found
    return or_fill(found, inside((i,), (size,)), axis, aval.dtype, fill_value)


def found_at(x, axes, arrays, shape, to):
    """Elements of axes at places, whose shape begins at dimension `to` of the result."""
    if not shape:
        old = trace.aval_of(x).shape
        part = box_at(x, axes, arrays)
        return reshape(part, tuple(n for d, n in enumerate(old) if d not in axes))
    found, order = taken(x, axes, arrays, shape), range(len(shape))
    return moveaxis(found, tuple(order), tuple(to + d for d in order))


def starts_at(x, axes, arrays):
    """The starts, clamped, of the part of x that lies at one place of some axes."""
    shape = trace.aval_of(x).shape
    if any(not shape[d] for d in axes):
        raise IndexError(f"an axis of size 0 has no elements to take (at {user_source()})")
    at = {d: tools(i).clip(i, 0, shape[d] - 1) for d, i in zip(axes, arrays, strict=True)}
    return [at.get(d, ZERO) for d in range(len(shape))]


def box_at(x, axes, arrays):
    """What lies at one place of some axes, which then have size 1."""
    sizes = tuple(1 if d in axes else n for d, n in enumerate(trace.aval_of(x).shape))
    return trace.bind(dynamic_slice_p, x, *starts_at(x, axes, arrays), slice_sizes=sizes)


def or_fill(found, within, axis, dtype, fill_value):
    """What was found where its place is `within`; the places' dimensions begin at an axis."""
    shape, ndim = trace.aval_of(within).shape, trace.aval_of(found).ndim
    within = reshape(within, (1,) * axis + shape + (1,) * (ndim - axis - len(shape)))
    fill = fill_of(dtype) if fill_value is None else fill_value
    return ew.where(within, found, convert(fill, dtype))


def take_along_axis(arr, indices, axis=-1, mode=None, fill_value=None):
    """NumPy's take_along_axis, with the modes "fill" and "clip" of `take`.

    Each result compares its index with all n of the axis.
    """
    if mode not in (None, "fill", "clip"):
        raise OperandError(
            f"take_along_axis: mode must be 'fill' or 'clip', not {mode!r} (at {user_source()})"
        )
    aval, _ = operand_avals("take_along_axis", (arr, indices))
    i = integers("take_along_axis", indices)
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
        found = or_fill(found, inside((i,), (size,)), 0, aval.dtype, fill_value)
    return moveaxis(found, -1, axis)


def fill_of(dtype):
    """What is given for an element that does not exist, as in JAX."""
    if dtype == core.bool_:
        return True
    if dtype in core.FLOATS:
        return float("nan")
    limits = np.iinfo(dtype)
    return limits.min if limits.min else limits.max
