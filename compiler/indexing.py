"""Basic indexing, ``x[...]``: ints, slices, None and Ellipsis; `advanced` has arrays."""

import operator
from dataclasses import dataclass

from tilewright.compiler import primitives as p
from tilewright.compiler import trace
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.primitives_pad import rev_p
from tilewright.compiler.source import user_source


def expanded(index, ndim):
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


@dataclass(frozen=True)
class Box:
    """What an index takes: a slice of each dimension, which of them are reversed, and the shape."""

    starts: tuple[int, ...]
    limits: tuple[int, ...]
    steps: tuple[int, ...]
    reversed: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def sizes(self):
        """Elements of each dimension, before integers' ones are dropped."""
        ends = zip(self.starts, self.limits, self.steps, strict=True)
        return tuple(-(-(limit - start) // step) for start, limit, step in ends)

    def is_all(self, old):
        """Whether it takes all elements of a shape, in their order."""
        return self.sizes == tuple(old) and not self.reversed


def box_of(old, index):
    """Return the Box that an index takes of a shape.

    **Raises** IndexError (out of bounds, too many), UnsupportedError (an array, a bool or a tracer
    as index).
    """
    ends, flips, shape = [], [], []
    for entry in expanded(index, len(old)):
        if entry is None:
            shape.append(1)
            continue
        axis = len(ends)
        size = old[axis]
        if isinstance(entry, slice):
            places = range(*entry.indices(size))
            shape.append(len(places))
            if places.step < 0:
                places = places[::-1]
                flips.append(axis)
            ends.append((places.start, max(places.start, places.stop), places.step)
                        if len(places) else (0, 0, 1))  # fmt: skip
        else:
            start = _int_entry(entry, size, axis)
            ends.append((start, start + 1, 1))
    starts, limits, steps = zip(*ends, strict=True) if ends else ((), (), ())
    limits = tuple(min(limit, n) for limit, n in zip(limits, old, strict=True))
    return Box(starts, limits, steps, tuple(flips), tuple(shape))


def basic_index(x, index):
    """Return ``x[index]``: a `slice`, a `rev` for negative steps, and a `reshape`.

    **Raises** as `box_of`.
    """
    old = trace.aval_of(x).shape
    box = box_of(old, index)
    if box.starts != (0,) * len(old) or box.limits != old or set(box.steps) - {1}:
        params = {"strides": box.steps} if set(box.steps) != {1} else {}
        x = trace.bind(p.slice_p, x, start_indices=box.starts, limit_indices=box.limits, **params)
    if box.reversed:
        x = trace.bind(rev_p, x, dimensions=box.reversed)
    if trace.aval_of(x).shape != box.shape:
        x = trace.bind(p.reshape_p, x, new_sizes=box.shape)
    return x
