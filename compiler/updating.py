"""``x[index]``, ``x.at[index].set(y)`` and relatives: elements, and a new array with some replaced.

The update is padded to the shape of x, interior padding for steps, and selected by a mask that is
padded the same way; the index is one that ``x[index]`` takes.
"""

import numpy as np
from tilewright.compiler import core, trace
from tilewright.compiler import elementwise as ew
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.indexing import basic_index, box_of, expanded
from tilewright.compiler.operands import convert, operand_avals
from tilewright.compiler.primitives_pad import pad_p, rev_p
from tilewright.compiler.shaping import broadcast_to, reshape
from tilewright.compiler.source import user_source
from tilewright.compiler.taking import array_index, changed_rows, is_array


def getitem(x, index):
    """``x[index]`` for ints, slices, None, Ellipsis and one array of integers."""
    found = array_index(x, index)
    return basic_index(x, index) if found is None else found


def _rows(x, index):
    """The array of integers that an index is, if it is one; it stands for rows."""
    entries = expanded(index, trace.aval_of(x).ndim)
    if not any(map(is_array, entries)):
        return None
    others = [e for e in entries[1:] if not (isinstance(e, slice) and e == slice(None))]
    if not is_array(entries[0]) or others:
        raise UnsupportedError(
            "at[...] takes an array of integers for the first dimension, and all of the others "
            f"(at {user_source()})"
        )
    return entries[0]


class At:
    """What ``x.at`` is; indexing it names the elements."""

    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x

    def __getitem__(self, index):
        return Elements(self.x, index)


class Elements:
    """Some elements of an array, to be read or replaced in a new array."""

    __slots__ = ("box", "index", "rows", "x")

    def __init__(self, x, index):
        self.x, self.index, self.rows = x, index, _rows(x, index)
        self.box = None if self.rows is not None else box_of(trace.aval_of(x).shape, index)

    def _padded(self, y, fill):
        """y, of the sizes of the box, in its places of an array like x; `fill` elsewhere."""
        sizes = zip(
            self.box.starts, self.box.sizes, self.box.steps, trace.aval_of(self.x).shape,
            strict=True,
        )  # fmt: skip
        config = tuple(
            (start, size - start - (1 + (n - 1) * step if n else 0), step - 1)
            for start, n, step, size in sizes
        )
        dtype = trace.aval_of(y).dtype
        number = core.Literal(np.array(fill, dtype), core.ShapedArray((), dtype))
        return trace.bind(pad_p, y, number, padding_config=config)

    def _changed(self, y, compute):
        """x where the index does not reach, else what `compute` makes of x and the update."""
        if self.rows is not None:
            return changed_rows(self.x, self.rows, y, compute)
        aval, (other,) = trace.aval_of(self.x), operand_avals("at", (y,))
        y = convert(y, aval.dtype) if other.dtype != aval.dtype or other.weak_type else y
        y = broadcast_to(y, self.box.shape)
        y = reshape(y, self.box.sizes)
        if self.box.reversed:
            y = trace.bind(rev_p, y, dimensions=self.box.reversed)
        yes = core.Literal(np.bool_(True), core.ShapedArray((), np.bool_))
        mask = self._padded(broadcast_to(yes, self.box.sizes), False)
        return ew.where(mask, compute(self.x, self._padded(y, 0)), self.x)

    def get(self):
        """The elements."""
        return getitem(self.x, self.index)

    def set(self, values):
        """Replace them."""
        return self._changed(values, lambda x, y: y)

    def add(self, values):
        """Add to them."""
        return self._changed(values, ew.add)

    def subtract(self, values):
        """Subtract from them."""
        return self._changed(values, ew.subtract)

    def multiply(self, values):
        """Multiply them."""
        return self._changed(values, ew.multiply)

    mul = multiply

    def divide(self, values):
        """Divide them."""
        return self._changed(values, ew.divide)

    def max(self, values):
        """The larger of them and the values."""
        return self._changed(values, ew.maximum)

    def min(self, values):
        """The smaller of them and the values."""
        return self._changed(values, ew.minimum)

    def apply(self, function):
        """What a function makes of them."""
        return self.set(function(self.get()))
