"""NumPy's functions that join arrays, cut them, or repeat their elements."""

import operator
from itertools import pairwise

from tilewright.compiler import promote, trace
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.operands import (
    axis_index,
    axis_indices,
    convert,
    dtype_named,
    operand_avals,
)
from tilewright.compiler.primitives import slice_p
from tilewright.compiler.primitives_join import concatenate_p
from tilewright.compiler.primitives_pad import rev_p
from tilewright.compiler.shaping import (
    broadcast_to,
    expand_dims,
    moveaxis,
    ravel,
    reshape,
    swapaxes,
)
from tilewright.compiler.source import user_source


def joined(arrays, dimension):
    """Arrays of one dtype and rank, one behind the other; of one array itself."""
    if len(arrays) == 1:
        return arrays[0]
    return trace.bind(concatenate_p, *arrays, dimension=dimension)


def _alike(name, arrays, dtype=None):
    """The arrays of a list (or the rows of an array), of one dtype."""
    arrays = list(arrays)
    avals = operand_avals(name, arrays)
    if not arrays:
        raise OperandError(f"{name}: there must be at least one array (at {user_source()})")
    if dtype is not None:
        return [convert(x, dtype_named(name, dtype)) for x in arrays]
    found, weak = promote.promote_types(*avals)
    return [convert(x, found, weak) for x in arrays]


def concatenate(arrays, axis=0, dtype=None):
    """NumPy's concatenate, with JAX's type promotion; with axis None of all elements in order."""
    arrays = _alike("concatenate", arrays, dtype)
    if axis is None:
        arrays, axis = [ravel(x) for x in arrays], 0
    avals = [trace.aval_of(x) for x in arrays]
    if not avals[0].ndim:
        raise OperandError(f"concatenate: arrays must have axes to join (at {user_source()})")
    return joined(arrays, axis_index(axis, avals[0].ndim))


def stack(arrays, axis=0, dtype=None):
    """Arrays of one shape along a new axis."""
    arrays = _alike("stack", arrays, dtype)
    avals = [trace.aval_of(x) for x in arrays]
    if len({a.shape for a in avals}) > 1:
        shapes = ", ".join(str(a.shape) for a in avals)
        raise OperandError(f"stack: arrays must have one shape, not {shapes} (at {user_source()})")
    at = axis_index(axis, avals[0].ndim + 1)
    return joined([expand_dims(x, at) for x in arrays], at)


def _at_least(x, ndim):
    """x with leading dimensions of size 1 (as a vector, the second of three is its own)."""
    shape = trace.aval_of(x).shape
    if len(shape) >= ndim:
        return x
    if ndim == 3 and shape:
        return reshape(x, (1, *shape, 1) if len(shape) == 1 else (*shape, 1))
    return reshape(x, (1,) * (ndim - len(shape)) + shape)


def _atleast(name, ndim):
    def function(*arrays):
        operand_avals(name, arrays)
        found = [_at_least(x, ndim) for x in arrays]
        return found[0] if len(found) == 1 else found

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Arrays of rank {ndim} or more."
    return function


atleast_1d, atleast_2d, atleast_3d = (_atleast(f"atleast_{n}d", n) for n in (1, 2, 3))


def hstack(tup, dtype=None):
    """Arrays side by side: along axis 1, vectors along axis 0."""
    arrays = [_at_least(x, 1) for x in tup]
    return concatenate(arrays, 0 if trace.aval_of(arrays[0]).ndim == 1 else 1, dtype)


def vstack(tup, dtype=None):
    """Arrays, vectors as rows, below each other."""
    return concatenate([_at_least(x, 2) for x in tup], 0, dtype)


def dstack(tup, dtype=None):
    """Arrays behind each other, along axis 2."""
    return concatenate([_at_least(x, 3) for x in tup], 2, dtype)


def column_stack(tup):
    """Vectors as columns, matrices side by side."""
    columns = [x if trace.aval_of(x).ndim > 1 else expand_dims(ravel(x), 1) for x in tup]
    return concatenate(columns, 1)


def append(arr, values, axis=None):
    """The values behind the array."""
    return concatenate([arr, values], axis)


def cut(x, start, stop, axis):
    """The elements from start up to stop, without it, along an axis."""
    shape = trace.aval_of(x).shape
    starts, limits = [0] * len(shape), list(shape)
    starts[axis], limits[axis] = start, stop
    if (start, stop) == (0, shape[axis]):
        return x
    return trace.bind(slice_p, x, start_indices=tuple(starts), limit_indices=tuple(limits))


def _split(name, x, sections, axis, ragged):
    (aval,) = operand_avals(name, (x,))
    axis = axis_index(axis, aval.ndim)
    size = aval.shape[axis]
    if hasattr(sections, "__len__"):
        ends = [min(max(i + size if i < 0 else i, 0), size) for i in map(operator.index, sections)]
    else:
        count = operator.index(sections)
        if count < 1 or (size % count and not ragged):
            raise OperandError(
                f"{name}: axis {axis} of {aval} must divide into {count} equal parts "
                f"(at {user_source()})"
            )
        part, more = divmod(size, count)
        ends = [i * part + min(i, more) for i in range(1, count)]
    edges = [0, *ends, size]
    return [cut(x, a, max(a, b), axis) for a, b in pairwise(edges)]


def split(ary, indices_or_sections, axis=0):
    """NumPy's split, into equal parts or at indices."""
    return _split("split", ary, indices_or_sections, axis, False)


def array_split(ary, indices_or_sections, axis=0):
    """NumPy's array_split: the first parts may be longer by one."""
    return _split("array_split", ary, indices_or_sections, axis, True)


def hsplit(ary, indices_or_sections):
    """`split` along axis 1, of a vector along axis 0."""
    return split(ary, indices_or_sections, 0 if trace.aval_of(ary).ndim == 1 else 1)


def vsplit(ary, indices_or_sections):
    """`split` along axis 0."""
    return split(ary, indices_or_sections, 0)


def dsplit(ary, indices_or_sections):
    """`split` along axis 2."""
    return split(ary, indices_or_sections, 2)


def flip(m, axis=None):
    """The elements in reverse order along axes (all)."""
    (aval,) = operand_avals("flip", (m,))
    axes = range(aval.ndim) if axis is None else axis_indices(axis, aval.ndim)
    return trace.bind(rev_p, m, dimensions=tuple(sorted(axes))) if aval.ndim else m


def flipud(m):
    """`flip` along axis 0."""
    return flip(m, 0)


def fliplr(m):
    """`flip` along axis 1."""
    return flip(m, 1)


def roll(a, shift, axis=None):
    """NumPy's roll, by known distances: what leaves at the end enters at the start."""
    (aval,) = operand_avals("roll", (a,))
    if axis is None:
        return reshape(roll(ravel(a), shift, 0), aval.shape)
    axes = list(axis) if isinstance(axis, tuple | list) else [axis]
    shifts = list(shift) if isinstance(shift, tuple | list) else [shift] * len(axes)
    for by, at in zip(shifts, axes, strict=True):
        if isinstance(by, trace.Tracer):
            raise UnsupportedError(
                f"roll: shift must be known when tracing, not {by!r} (at {user_source()})"
            )
        at = axis_index(at, aval.ndim)
        size = aval.shape[at]
        by = operator.index(by) % size if size else 0
        if by:
            a = joined([cut(a, size - by, size, at), cut(a, 0, size - by, at)], at)
    return a


def repeat(a, repeats, axis=None):
    """Each element (or slice) `repeats` times, a known number."""
    (aval,) = operand_avals("repeat", (a,))
    if axis is None:
        return repeat(ravel(a), repeats, 0)
    try:
        count = operator.index(repeats)
    except TypeError:
        raise UnsupportedError(
            f"repeat: repeats must be an int, not {repeats!r} (at {user_source()})"
        ) from None
    at = axis_index(axis, aval.ndim)
    shape = aval.shape
    wide = (*shape[: at + 1], count, *shape[at + 1 :])
    return reshape(
        broadcast_to(expand_dims(a, at + 1), wide),
        (*shape[:at], shape[at] * count, *shape[at + 1 :]),
    )


def tile(A, reps):
    """The array, repeated along each axis."""
    (aval,) = operand_avals("tile", (A,))
    reps = tuple(map(operator.index, reps)) if hasattr(reps, "__len__") else (operator.index(reps),)
    shape = (1,) * (len(reps) - aval.ndim) + aval.shape
    reps = (1,) * (len(shape) - len(reps)) + reps
    inner, outer, final = [], [], []
    for n, r in zip(shape, reps, strict=True):
        inner += [1, n]
        outer += [r, n]
        final.append(n * r)
    return reshape(broadcast_to(reshape(A, tuple(inner)), tuple(outer)), tuple(final))


def rollaxis(a, axis, start=0):
    """The axis moved before the axis `start`."""
    ndim = trace.aval_of(a).ndim
    axis, start = axis_index(axis, ndim), start + ndim * (start < 0)
    return moveaxis(a, axis, start - (axis < start))


def meshgrid(*xi, indexing="xy"):
    """Vectors broadcast against each other, one axis each; 'xy' swaps the first two."""
    if indexing not in ("xy", "ij"):
        raise OperandError(f"indexing must be 'xy' or 'ij', not {indexing!r} (at {user_source()})")
    vectors = [ravel(x) for x in xi]
    sizes = [trace.aval_of(x).size for x in vectors]
    order = list(range(len(xi)))
    if indexing == "xy" and len(xi) > 1:
        order[:2] = [1, 0]
    shape = tuple(sizes[i] for i in order)
    out = []
    for i, x in enumerate(vectors):
        line = [1] * len(xi)
        line[order.index(i)] = sizes[i]
        out.append(broadcast_to(reshape(x, tuple(line)), shape))
    return out


def rot90(m, k=1, axes=(0, 1)):
    """The array turned k times by 90 degrees, from the first axis towards the second."""
    first, second = axis_indices(tuple(axes), trace.aval_of(m).ndim)
    turns = k % 4
    if turns == 0:
        return m
    if turns == 2:
        return flip(m, (first, second))
    if turns == 1:
        return swapaxes(flip(m, second), first, second)
    return flip(swapaxes(m, first, second), second)


def broadcast_arrays(*args):
    """All arrays in the shape to which they broadcast."""
    shape = promote.broadcast_shapes(*(a.shape for a in operand_avals("broadcast_arrays", args)))
    return [broadcast_to(x, shape) for x in args]
