"""Basic indexing, ``x[...]``, as one `slice` and one `reshape` equation."""

import operator

from tilewright.compiler import primitives as p
from tilewright.compiler import trace
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.source import user_source


def _expand(index, ndim):
    """Return the index as a tuple with one entry per dimension (and the Nones)."""
    entries = list(index) if isinstance(index, tuple) else [index]
    dots = [i for i, e in enumerate(entries) if e is Ellipsis]
    used = sum(e is not None and e is not Ellipsis for e in entries)
    if len(dots) > 1:
        raise IndexError(f"an index must hold at most one Ellipsis (at {user_source()})")
    if used > ndim:
        raise IndexError(f"{used} indices for an array of rank {ndim} (at {user_source()})")
    place = dots[0] if dots else len(entries)
    return entries[:place] + [slice(None)] * (ndim - used) + entries[place + 1 :]


def _int_entry(entry, size, axis):
    if isinstance(entry, bool | trace.Tracer):
        kind = repr(entry) if isinstance(entry, trace.Tracer) else "bool"
        raise UnsupportedError(
            f"an index must be an int, slice, None or Ellipsis, not {kind} (at {user_source()})"
        )
    try:
        at = operator.index(entry)
    except TypeError:
        raise UnsupportedError(
            f"an index must be an int, slice, None or Ellipsis, not {type(entry).__name__} "
            f"(at {user_source()})"
        ) from None
    if not -size <= at < size:
        raise IndexError(
            f"index {at} is out of bounds for axis {axis} of size {size} (at {user_source()})"
        )
    return at % size


def basic_index(x, index):
    """Return ``x[index]``.

    **Raises** IndexError (out of bounds, too many), UnsupportedError (an array, a bool or a tracer
    as index; a negative step).
    """
    old = trace.aval_of(x).shape
    starts, limits, steps, shape = [], [], [], []
    axis = 0
    for entry in _expand(index, len(old)):
        if entry is None:
            shape.append(1)
            continue
        size = old[axis]
        if isinstance(entry, slice):
            start, stop, step = entry.indices(size)
            if step < 1:
                raise UnsupportedError(
                    f"the step of a slice must be positive, not {step} (at {user_source()})"
                )
            stop = max(start, stop)
            shape.append(-(-(stop - start) // step))
        else:
            start = _int_entry(entry, size, axis)
            stop, step = start + 1, 1
        starts.append(start)
        limits.append(stop)
        steps.append(step)
        axis += 1
    whole = tuple(starts) == (0,) * len(old) and tuple(limits) == old and set(steps) <= {1}
    if not whole:
        strides = tuple(steps) if set(steps) != {1} else None
        params = {"strides": strides} if strides else {}
        x = trace.bind(
            p.slice_p, x, start_indices=tuple(starts), limit_indices=tuple(limits), **params
        )
    if trace.aval_of(x).shape != tuple(shape):
        x = trace.bind(p.reshape_p, x, new_sizes=tuple(shape))
    return x
