"""Indices with arrays as NumPy and JAX have them: ``x[i, :, j]``, masks, ``x.at[...]`` of them.

An index is split in two: a basic one, in which whole slices stand where the arrays were, and the
arrays, which broadcast together. The dimensions of the arrays stand where they were, or in front if
something else is between them; integers count as arrays where there are any. A mask that is known
is the numbers of its true elements.

An index below 0 counts from the end. What is out of range is clamped when it is read, and dropped
when it is written, unless `mode` says otherwise; repeated places are written in index order.
"""

from dataclasses import dataclass

import numpy as np
from tilewright.compiler import core, trace
from tilewright.compiler import elementwise as ew
from tilewright.compiler.errors import NonConcreteBooleanIndexError, OperandError
from tilewright.compiler.indexing import basic_index, expanded
from tilewright.compiler.operands import convert, operand_avals
from tilewright.compiler.primitives_dynamic import dynamic_update_slice_p
from tilewright.compiler.shaping import broadcast_to, moveaxis, reshape
from tilewright.compiler.source import user_source
from tilewright.compiler.taking import (
    box_at,
    found_at,
    inside,
    integers,
    or_fill,
    put,
    starts_at,
    wrapped,
)

READ = {None: "clip", "promise_in_bounds": "clip", "clip": "clip", "drop": "fill", "fill": "fill"}
WRITE = {None: "drop", "promise_in_bounds": "drop", "clip": "clip", "drop": "drop", "fill": "drop"}
COMPUTE = {
    "add": ew.add, "sub": ew.subtract, "mul": ew.multiply, "min": ew.minimum, "max": ew.maximum,
}  # fmt: skip


@dataclass(frozen=True)
class Places:
    """What an index with arrays names.

    Parameters
    ----------
    basic : entries of a basic index.
    axes : of ``x[basic]``, one for each array.
    arrays : of int32.
    shape : to which they broadcast; () for numbers.
    to : dimension of ``x[index]`` where that shape begins.
    """

    basic: tuple
    axes: tuple[int, ...]
    arrays: tuple
    shape: tuple[int, ...]
    to: int

    def within(self, x, wrap=True):
        """``x[basic]``, and the arrays without indices below 0 that count from the end."""
        rest = basic_index(x, self.basic)
        sizes = [trace.aval_of(rest).shape[d] for d in self.axes]
        if not wrap:
            return rest, sizes, self.arrays
        return rest, sizes, tuple(map(wrapped, self.arrays, sizes))


@dataclass(frozen=True)
class _Chosen:
    """One dimension of a mask's true elements."""

    numbers: np.ndarray
    size: int


def parsed(name, mode, modes):
    """What a mode of JAX's means."""
    key = getattr(mode, "name", mode)
    key = key.lower() if isinstance(key, str) else key
    key = "fill" if key == "fill_or_drop" else key
    if key not in modes:
        listed = ", ".join(repr(m) for m in modes if m)
        raise OperandError(f"{name}: mode must be {listed}, not {mode!r} (at {user_source()})")
    return modes[key]


def is_mask(entry):
    """Tell whether an entry of an index is an array of bools."""
    if isinstance(entry, np.ndarray):
        return entry.dtype == np.bool_ and entry.ndim > 0
    if not hasattr(entry, "aval"):
        return False
    aval = trace.aval_of(entry)
    return aval.dtype == core.bool_ and aval.ndim > 0


def places(x, index):
    """The Places of an index; None if it has no arrays and no numbers that are yet to be known."""
    ndim = trace.aval_of(x).ndim
    given = index if isinstance(index, tuple) else (index,)
    given = tuple(e for entry in given for e in _entries(entry))
    entries = expanded(given, ndim)
    arrays = [isinstance(e, _Chosen) or is_array(e) for e in entries]
    if not any(arrays):
        return None
    _check_masks(entries, trace.aval_of(x).shape)
    basic, axes, found, axis = [], [], [], 0
    for entry, array in zip(entries, arrays, strict=True):
        basic.append(slice(None) if array else entry)
        if array:
            entry = entry.numbers if isinstance(entry, _Chosen) else entry
            found.append(integers("an index", entry))
            axes.append(axis)
        axis += array or entry is None or isinstance(entry, slice)
    shape = _shape(found)
    at = [d for d, e in enumerate(given) if _counts(e)]  # an Ellipsis keeps apart, even of nothing
    apart = at[-1] - at[0] >= len(at) and shape
    to = 0 if apart else next(d for d, e in enumerate(entries) if _counts(e))
    return Places(tuple(basic), tuple(axes), tuple(found), shape, to)


def _counts(entry):
    """Whether an entry is an array or counts as one where there are any."""
    return isinstance(entry, int | np.integer | _Chosen) or is_array(entry)


def is_array(entry):
    """Tell whether an entry is an array of integers, or an integer that is not known."""
    if isinstance(entry, np.ndarray):
        return entry.ndim > 0
    return hasattr(entry, "aval") and trace.aval_of(entry).dtype in core.INTS


def _entries(entry):
    """An entry of an index, one for each dimension of a mask."""
    if isinstance(entry, list):
        entry = np.asarray(entry, None if entry else np.int32)
    if isinstance(entry, core.Literal):
        entry = entry.value
    if isinstance(entry, np.ndarray) and not entry.ndim and entry.dtype != np.bool_:
        entry = entry[()]
    mask = mask_of(entry)
    if mask is None:
        return [entry]
    return [_Chosen(n, size) for n, size in zip(np.nonzero(mask), mask.shape, strict=True)]


def mask_of(entry):
    """The mask that an entry is, as an array of NumPy; None if it is none.

    **Raises** NonConcreteBooleanIndexError: it is not known.
    """
    if not is_mask(entry):
        return None
    value = entry.known() if isinstance(entry, trace.Tracer) else entry
    if value is None:
        raise NonConcreteBooleanIndexError(
            f"a mask as an index must be known when tracing, for the size of the result depends on "
            f"it, not {entry!r}, made at {entry.source}. Use tnp.where(mask, x, y), with one value "
            f"for each element, or x.at[mask].set(y) with y for all (at {user_source()})"
        )
    return np.asarray(value)


def _check_masks(entries, shape):
    axis = 0
    for entry in entries:
        if isinstance(entry, _Chosen) and entry.size != shape[axis]:
            raise IndexError(
                f"a mask's dimension must have the array's size {shape[axis]} (axis {axis}), not "
                f"{entry.size} (at {user_source()})"
            )
        axis += entry is not None


def _shape(arrays):
    shapes = [trace.aval_of(i).shape for i in arrays]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        listed = ", ".join(map(str, shapes))
        raise IndexError(
            f"arrays of an index must broadcast together, not have shapes {listed} "
            f"(at {user_source()})"
        ) from None


def read(x, index, mode=None, fill_value=None, wrap=True):
    """``x[index]``; None if the index is a basic one."""
    found = places(x, index)
    if found is None:
        return None
    if fill_value is not None and mode is None:
        mode = "fill"
    mode = parsed("get", mode, READ)
    rest, sizes, arrays = found.within(x, wrap)
    result = found_at(rest, found.axes, arrays, found.shape, found.to)
    if mode == "clip":
        return result
    dtype, good = trace.aval_of(x).dtype, inside(arrays, sizes)
    if trace.aval_of(good).shape != found.shape:
        good = broadcast_to(good, found.shape)
    return or_fill(result, good, found.to, dtype, fill_value)


def changed(x, found, y, kind, mode=None, unique=False, wrap=True):
    """``x[basic]`` of Places with them changed; see `taking.put` for `kind`."""
    clip = parsed("at", mode, WRITE) == "clip"
    rest, sizes, arrays = found.within(x, wrap)
    shape = trace.aval_of(rest).shape
    others = tuple(n for d, n in enumerate(shape) if d not in found.axes)
    if not callable(kind):
        aval, (given,) = trace.aval_of(x), operand_avals("at", (y,))
        if given.dtype != aval.dtype or given.weak_type:
            y = convert(y, aval.dtype)
        y = broadcast_to(y, (*others[: found.to], *found.shape, *others[found.to :]))
    if found.shape:
        if not callable(kind):
            dims = range(len(found.shape))
            y = moveaxis(y, tuple(found.to + d for d in dims), tuple(dims))
        return put(rest, found.axes, arrays, found.shape, y, kind, clip, unique)
    if any(not n for n in sizes):
        return rest
    old = box_at(rest, found.axes, arrays)
    if callable(kind):
        new = convert(kind(old), trace.aval_of(x).dtype)
    else:
        y = reshape(y, trace.aval_of(old).shape)
        new = y if kind == "set" else COMPUTE[kind](old, y)
    new = new if clip else ew.where(inside(arrays, sizes), new, old)
    return trace.bind(dynamic_update_slice_p, rest, new, *starts_at(rest, found.axes, arrays))
