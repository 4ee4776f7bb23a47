"""`gather` and `scatter` with JAX's `lax` signatures.

A window's place is a start for each dimension that indices name. Where a window is as wide as the
array its start says nothing but whether it is in range; else each of its elements becomes an index
of its own, so that all windows are rows at computed places (`taking`).
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

import numpy as np
from tilewright.compiler import elementwise as ew
from tilewright.compiler import trace
from tilewright.compiler.advanced import READ, WRITE, parsed
from tilewright.compiler.errors import OperandError
from tilewright.compiler.indexing import basic_index
from tilewright.compiler.operands import convert, operand_avals
from tilewright.compiler.primitives_dynamic import dynamic_update_slice_p
from tilewright.compiler.shaping import expand_dims, moveaxis, reshape, squeeze, transpose
from tilewright.compiler.source import user_source
from tilewright.compiler.taking import fill_of, inside, integers, put, taken, tools


class GatherScatterMode(Enum):
    """What becomes of windows that are not inside of the array, as in JAX."""

    CLIP = auto()
    FILL_OR_DROP = auto()
    PROMISE_IN_BOUNDS = auto()


class GatherDimensionNumbers(NamedTuple):
    """Which dimensions of operand, indices and result of a gather belong together, as in JAX."""

    offset_dims: tuple[int, ...]
    collapsed_slice_dims: tuple[int, ...]
    start_index_map: tuple[int, ...]
    operand_batching_dims: tuple[int, ...] = ()
    start_indices_batching_dims: tuple[int, ...] = ()


class ScatterDimensionNumbers(NamedTuple):
    """Which dimensions of operand, indices and updates of a scatter belong together, as in JAX."""

    update_window_dims: tuple[int, ...]
    inserted_window_dims: tuple[int, ...]
    scatter_dims_to_operand_dims: tuple[int, ...]
    operand_batching_dims: tuple[int, ...] = ()
    scatter_indices_batching_dims: tuple[int, ...] = ()


@dataclass(frozen=True)
class Windows:
    """Windows of an array, at places that have a shape of their own.

    Parameters
    ----------
    array : the array's shape.
    sizes : of a window.
    numbers : what belongs together; of a scatter as of its gather.
    places : shape of the places.
    """

    array: tuple[int, ...]
    sizes: tuple[int, ...]
    numbers: GatherDimensionNumbers
    places: tuple[int, ...]

    @property
    def shown(self):
        """Dimensions of the array that windows have in the result."""
        gone = (*self.numbers.collapsed_slice_dims, *self.numbers.operand_batching_dims)
        return [d for d in range(len(self.array)) if d not in gone]

    def check(self, name):
        """**Raises** OperandError: the numbers do not fit the arrays."""
        n = self.numbers
        rank, batch = len(self.array), len(self.places)
        ranges = [(n.offset_dims, batch + len(n.offset_dims)), (n.collapsed_slice_dims, rank),
                  (n.start_index_map, rank), (n.operand_batching_dims, rank),
                  (n.start_indices_batching_dims, batch)]  # fmt: skip
        good = all(len(set(dims)) == len(dims) and all(0 <= d < m for d in dims)
                   for dims, m in ranges)  # fmt: skip
        fits = good and len(self.sizes) == rank and len(self.shown) == len(n.offset_dims)
        fits = fits and all(0 <= s <= m for s, m in zip(self.sizes, self.array, strict=True))
        fits = fits and all(self.sizes[d] == 1 for d in range(rank) if d not in self.shown)
        pairs = zip(n.operand_batching_dims, n.start_indices_batching_dims, strict=False)
        fits = fits and len(n.operand_batching_dims) == len(n.start_indices_batching_dims)
        if not fits or any(self.array[d] != self.places[b] for d, b in pairs):
            raise OperandError(
                f"{name}: windows {self.sizes} of {self.array} at places {self.places} do not fit "
                f"{n} (at {user_source()})"
            )

    def starts(self, indices):
        """By dimension of the array that has any, the windows' starts, and the largest ones."""
        n, found = self.numbers, {}
        for k, d in enumerate(n.start_index_map):
            known = tools(indices) is np
            found[d] = indices[..., k] if known else basic_index(indices, (..., k))
        for d, b in zip(n.operand_batching_dims, n.start_indices_batching_dims, strict=True):
            lengths = [1] * len(self.places)
            lengths[b] = self.places[b]
            found[d] = np.arange(self.array[d], dtype=np.int32).reshape(lengths)
        return found, {d: self.array[d] - self.sizes[d] for d in found}

    def indices(self, starts):
        """Dimensions that are named, an array for each, and the sizes of windows that are none."""
        named = sorted(d for d in starts if self.sizes[d] < self.array[d])
        wide = [d for d in named if self.sizes[d] > 1]
        arrays = []
        for d in named:
            i, ndim = starts[d], len(self.places)
            i = _more(i, len(wide))
            if d in wide:
                lengths = [1] * (ndim + len(wide))
                lengths[ndim + wide.index(d)] = self.sizes[d]
                steps = np.arange(self.sizes[d], dtype=np.int32).reshape(lengths)
                i = tools(i).add(i, steps)
            arrays.append(i)
        return named, wide, arrays

    def order(self, named, wide):
        """The places' and window's dimensions as `taken` gives them, in the array's order."""
        labels = [*wide, *(d for d in range(len(self.array)) if d not in named)]
        first = len(self.places)
        return [*range(first), *(first + labels.index(d) for d in sorted(labels))]


def _more(i, count):
    """The array with so many dimensions of size 1 behind."""
    shape = (*trace.aval_of(i).shape, *(1 for _ in range(count)))
    return i.reshape(shape) if tools(i) is np else reshape(i, shape)


def _placed(windows, x, indices, clip):
    """What windows reach of the array; dimensions and arrays for `taken`; which are inside."""
    starts, last = windows.starts(indices)
    good = None
    if clip:
        starts = {d: tools(i).clip(i, 0, last[d]) for d, i in starts.items()}
    elif windows.numbers.start_index_map:
        named = [d for d in starts if d in windows.numbers.start_index_map]
        good = inside([starts[d] for d in named], [last[d] + 1 for d in named])
    x = basic_index(x, tuple(slice(None) if d in starts else slice(0, n)
                             for d, n in enumerate(windows.sizes)))  # fmt: skip
    named, wide, arrays = windows.indices(starts)
    return x, named, wide, arrays, good


def gather(operand, start_indices, dimension_numbers, slice_sizes, *, unique_indices=False,
           indices_are_sorted=False, mode=None, fill_value=None):  # fmt: skip
    """Windows of an array at computed places; see `jax.lax.gather`.

    A window that is not inside is moved inside, or with mode "fill" every element is `fill_value`.
    """
    (aval,) = operand_avals("gather", (operand,))
    indices = integers("gather", start_indices)
    shape, numbers = trace.aval_of(indices).shape, GatherDimensionNumbers(*dimension_numbers)
    _check_vectors("gather", shape, numbers.start_index_map)
    windows = Windows(aval.shape, tuple(slice_sizes), numbers, shape[:-1])
    windows.check("gather")
    clip = parsed("gather", mode, READ) == "clip"
    x, named, wide, arrays, good = _placed(windows, operand, indices, clip)
    places = (*windows.places, *(windows.sizes[d] for d in wide))
    if named:
        found = taken(x, named, arrays, places)
    else:
        found = taken(expand_dims(x, 0), (0,), (np.zeros(places, np.int32),), places)
    found = transpose(found, windows.order(named, wide))
    found = reshape(found, (*windows.places, *(windows.sizes[d] for d in windows.shown)))
    first = len(windows.places)
    found = moveaxis(found, tuple(range(first, trace.aval_of(found).ndim)), numbers.offset_dims)
    if good is None:
        return found
    lengths = list(trace.aval_of(found).shape)
    for d in numbers.offset_dims:
        lengths[d] = 1
    fill = fill_of(aval.dtype) if fill_value is None else fill_value
    return ew.where(reshape(good, tuple(lengths)), found, convert(fill, aval.dtype))


def _check_vectors(name, shape, dims):
    if not shape or shape[-1] != len(dims):
        raise OperandError(
            f"{name}: the indices' last dimension must have size {len(dims)}, one for each of "
            f"{tuple(dims)}, not shape {shape} (at {user_source()})"
        )


def _scatter(name, operand, scatter_indices, updates, dimension_numbers, kind, mode, unique):
    """`updates` is a shape if `kind` is a function."""
    (aval,) = operand_avals(name, (operand,))
    indices = integers(name, scatter_indices)
    shape, numbers = trace.aval_of(indices).shape, GatherDimensionNumbers(*dimension_numbers)
    _check_vectors(name, shape, numbers.start_index_map)
    given = tuple(updates) if callable(kind) else trace.aval_of(updates).shape
    windows = Windows(aval.shape, (1,) * aval.ndim, numbers, shape[:-1])
    if len(windows.shown) == len(numbers.offset_dims) == len(given) - len(windows.places):
        at = dict(zip(windows.shown, numbers.offset_dims, strict=True))
        sizes = tuple(given[at[d]] if d in at else 1 for d in range(aval.ndim))
        windows = Windows(aval.shape, sizes, numbers, shape[:-1])
    windows.check(name)
    if tuple(n for d, n in enumerate(given) if d not in numbers.offset_dims) != windows.places:
        raise OperandError(
            f"{name}: updates must have the indices' places {windows.places} beside windows "
            f"{windows.sizes}, not shape {given} (at {user_source()})"
        )
    return _changed(windows, operand, indices, updates, kind, mode, unique)


def _changed(windows, operand, indices, updates, kind, mode, unique):
    clip = parsed("scatter", mode, WRITE) == "clip"
    x, named, wide, arrays, good = _placed(windows, operand, indices, clip)
    places = (*windows.places, *(windows.sizes[d] for d in wide))
    y = updates if callable(kind) else _rows(windows, updates, named, wide)
    if good is not None:
        first = arrays[0] if arrays else np.zeros((1,) * len(places), np.int32)
        good = _more(good, len(wide))
        arrays[:1] = [tools(good, first).where(good, first, np.int32(-1))]
    elif not arrays:
        arrays = [np.zeros(places, np.int32)]
    if named:
        out = put(x, named, arrays, places, y, kind, clip, unique)
    else:
        out = squeeze(put(expand_dims(x, 0), (0,), arrays, places, y, kind, clip, unique), 0)
    if trace.aval_of(out).shape == windows.array:
        return out
    starts = (np.int32(0),) * len(windows.array)
    return trace.bind(dynamic_update_slice_p, operand, out, *starts)


def _rows(windows, updates, named, wide):
    """A scatter's updates as `put` takes them."""
    first, ndim = len(windows.places), trace.aval_of(updates).ndim
    y = moveaxis(updates, windows.numbers.offset_dims, tuple(range(first, ndim)))
    dims = [d for d in range(len(windows.array)) if d in wide or d not in named]
    y = reshape(y, (*windows.places, *(windows.sizes[d] for d in dims)))
    order = windows.order(named, wide)
    return transpose(y, [order.index(d) for d in range(len(order))])


def _scattering(name, kind, what):
    def function(operand, scatter_indices, updates, dimension_numbers, *, indices_are_sorted=False,
                 unique_indices=False, mode=None):  # fmt: skip
        return _scatter(name, operand, scatter_indices, updates, dimension_numbers, kind, mode,
                        unique_indices)  # fmt: skip

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""An array with windows at computed places {what}; see `jax.lax.{name}`.

    One window after the other, in index order; those that are not inside are left out, or moved
    inside with mode "clip".
    """
    return function


scatter = _scattering("scatter", "set", "replaced")
scatter_add = _scattering("scatter_add", "add", "added to")
scatter_sub = _scattering("scatter_sub", "sub", "subtracted from")
scatter_mul = _scattering("scatter_mul", "mul", "multiplied")
scatter_min = _scattering("scatter_min", "min", "replaced where the update is smaller")
scatter_max = _scattering("scatter_max", "max", "replaced where the update is larger")


def scatter_apply(operand, scatter_indices, func, dimension_numbers, *, update_shape=(),
                  indices_are_sorted=False, unique_indices=False, mode=None):  # fmt: skip
    """An array with elements replaced by a function of them; see `jax.lax.scatter_apply`."""
    return _scatter("scatter_apply", operand, scatter_indices, update_shape, dimension_numbers,
                    func, mode, unique_indices)  # fmt: skip
