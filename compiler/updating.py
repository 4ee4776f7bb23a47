"""``x[index]``, ``x.at[index].set(y)`` and relatives: elements, and a new array with some replaced.

With a basic index the update is padded to the shape of x, interior padding for steps, and selected
by a mask that is padded the same way. With arrays (`advanced`) what a basic index leaves is changed
row by row, then put back; a mask with one value for all elements is a `where`.
"""

import numpy as np
from tilewright.compiler import core, trace
from tilewright.compiler import elementwise as ew
from tilewright.compiler.advanced import changed, is_mask, places, read
from tilewright.compiler.arithmetic import power
from tilewright.compiler.indexing import basic_index, box_of
from tilewright.compiler.operands import convert, operand_avals
from tilewright.compiler.primitives_dynamic import dynamic_update_slice_p
from tilewright.compiler.primitives_pad import pad_p, rev_p
from tilewright.compiler.shaping import broadcast_to, reshape


def getitem(x, index):
    """``x[index]`` as in NumPy: ints, slices, None, Ellipsis, arrays of integers, known masks."""
    found = read(x, index)
    return basic_index(x, index) if found is None else found


class At:
    """What ``x.at`` is; indexing it names the elements."""

    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x

    def __getitem__(self, index):
        return Elements(self.x, index)


class Elements:
    """Some elements of an array, to be read or replaced in a new array.

    All methods take JAX's options: `mode` says what becomes of an index that is out of range
    ("promise_in_bounds", "clip", "drop" or "fill"), `unique_indices` promises that no element is
    named twice, `wrap_negative_indices` is whether an index below 0 counts from the end;
    `indices_are_sorted` is ignored.
    """

    __slots__ = ("index", "x")

    def __init__(self, x, index):
        self.x, self.index = x, index

    def _padded(self, box, y, fill):
        """y, of the sizes of the box, in its places of an array like x; `fill` elsewhere."""
        sizes = zip(
            box.starts, box.sizes, box.steps, trace.aval_of(self.x).shape, strict=True,
        )  # fmt: skip
        config = tuple(
            (start, size - start - (1 + (n - 1) * step if n else 0), step - 1)
            for start, n, step, size in sizes
        )
        dtype = trace.aval_of(y).dtype
        number = core.Literal(np.array(fill, dtype), core.ShapedArray((), dtype))
        return trace.bind(pad_p, y, number, padding_config=config)

    def _boxed(self, index, y, compute):
        """x where a basic index does not reach, else what `compute` makes of x and the update."""
        aval, _ = operand_avals("at", (self.x, y))
        box = box_of(aval.shape, index)
        y = broadcast_to(convert(y, aval.dtype), box.shape)
        if box.is_all(aval.shape):
            return reshape(compute(reshape(self.x, box.shape), y), aval.shape)
        y = reshape(y, box.sizes)
        if box.reversed:
            y = trace.bind(rev_p, y, dimensions=box.reversed)
        yes = core.Literal(np.bool_(True), core.ShapedArray((), np.bool_))
        mask = self._padded(box, broadcast_to(yes, box.sizes), False)
        return ew.where(mask, compute(self.x, self._padded(box, y, 0)), self.x)

    def _replaced(self, index, y):
        """x with what a basic index names replaced."""
        box = box_of(trace.aval_of(self.x).shape, index)
        if box.reversed or set(box.steps) - {1}:
            return self._boxed(index, y, lambda x, y: y)
        if box.is_all(trace.aval_of(self.x).shape):
            return reshape(y, box.sizes)
        starts = map(np.int32, box.starts)
        return trace.bind(dynamic_update_slice_p, self.x, reshape(y, box.sizes), *starts)

    def _masked(self, y, compute):
        """What a mask chooses, changed by y, which is the same for all; None if it is another."""
        index = self.index[0] if isinstance(self.index, tuple) and self.index else self.index
        alone = not isinstance(self.index, tuple) or len(self.index) == 1
        if not alone or not is_mask(index):
            return None
        shape, mask = trace.aval_of(self.x).shape, trace.aval_of(index).shape
        rest, (given,) = shape[len(mask) :], operand_avals("at", (y,))
        if shape[: len(mask)] != mask or given.ndim > len(rest) or any(
            n not in (1, m) for n, m in zip(given.shape[::-1], rest[::-1], strict=False)
        ):  # fmt: skip
            return None
        chosen = broadcast_to(reshape(index, (*mask, *(1 for _ in rest))), shape)
        new = compute(self.x, broadcast_to(convert(y, trace.aval_of(self.x).dtype), shape))
        return ew.where(chosen, convert(new, trace.aval_of(self.x).dtype), self.x)

    def _changed(self, y, kind, compute, options):
        """x with the elements changed by y: `kind` says how for places, `compute` for arrays."""
        mode, unique, wrap = _options(**options)
        masked = self._masked(y, compute)
        if masked is not None:
            return masked
        found = places(self.x, self.index)
        if found is None:
            return self._boxed(self.index, y, compute)
        return self._replaced(found.basic, changed(self.x, found, y, kind, mode, unique, wrap))

    def get(self, *, fill_value=None, **options):
        """The elements; `fill_value` is given for those out of range, with mode "fill"."""
        mode, _, wrap = _options(**options)
        found = read(self.x, self.index, mode, fill_value, wrap)
        return basic_index(self.x, self.index) if found is None else found

    def set(self, values, **options):
        """Replace them; of several values for one element the last one stays."""
        return self._changed(values, "set", lambda x, y: y, options)

    def add(self, values, **options):
        """Add to them, one value after the other."""
        return self._changed(values, "add", ew.add, options)

    def subtract(self, values, **options):
        """Subtract from them."""
        return self._changed(values, "sub", ew.subtract, options)

    def multiply(self, values, **options):
        """Multiply them."""
        return self._changed(values, "mul", ew.multiply, options)

    mul = multiply

    def divide(self, values, **options):
        """Divide them."""
        return ew.divide(self.x, self._factors(values, options))

    def power(self, values, **options):
        """Raise them to a power."""
        return power(self.x, self._factors(values, options))

    def _factors(self, values, options):
        """The values in their places of an array of ones."""
        aval = trace.aval_of(self.x)
        one = broadcast_to(core.Literal(1, core.ShapedArray((), aval.dtype)), aval.shape)
        return Elements(one, self.index).multiply(values, **options)

    def max(self, values, **options):
        """The larger of them and the values."""
        return self._changed(values, "max", ew.maximum, options)

    def min(self, values, **options):
        """The smaller of them and the values."""
        return self._changed(values, "min", ew.minimum, options)

    def apply(self, function, **options):
        """What a function of one element makes of them, as often as they are named."""
        mode, unique, wrap = _options(**options)
        masked = self._masked(0, lambda x, _: function(x))
        if masked is not None:
            return masked
        found = places(self.x, self.index)
        if found is None or unique:
            return self.set(function(self.get(**options)), **options)
        rest = changed(self.x, found, None, function, mode, unique, wrap)
        return self._replaced(found.basic, rest)


def _options(mode=None, unique_indices=False, indices_are_sorted=False, wrap_negative_indices=True):
    return mode, unique_indices, wrap_negative_indices
