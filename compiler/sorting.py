"""Sorting by ranks, or by a network: NumPy's `sort` and `argsort`, `lax.top_k`.

*Ranks*, for up to RANKED elements: an element's rank is how many come before it: those with a
smaller key, and of equal ones those in front. The element of rank r is the only one that is left
when all others are replaced by the lowest value; its maximum is taken. That is some ten n^2 element
operations for n elements, in a few kernels.

*A network*, for more: Batcher's bitonic sorter, about n log2(n)^2 / 4 comparisons in log2(n)^2 / 2
stages of some ten kernels; the numbers of the elements decide between equal ones.

Both run on VECTOR and are stable; derivatives follow the chosen elements. NaNs come last, -0 and +0
are equal.

**Source** : K. E. Batcher, Sorting networks and their applications, AFIPS 1968.
"""

import numpy as np
from tilewright.compiler import core, trace
from tilewright.compiler import elementwise as ew
from tilewright.compiler import primitives as p
from tilewright.compiler.core import Literal, ShapedArray
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.joining import concatenate
from tilewright.compiler.making import counts
from tilewright.compiler.operands import axis_index, convert, operand_avals
from tilewright.compiler.primitives_math import bitcast_convert_type_p
from tilewright.compiler.reductions import max as maximum
from tilewright.compiler.reductions import sum as total
from tilewright.compiler.shaping import broadcast_to, expand_dims, moveaxis, pad_by, reshape
from tilewright.compiler.source import user_source

RANKED, MOST = 4096, 1 << 16  # elements of the axis


def _keys(x, descending):
    """int32 that order as the elements do, or the other way around."""
    dtype = trace.aval_of(x).dtype
    if dtype in core.FLOATS:
        zero = Literal(np.zeros((), np.float32), ShapedArray((), core.float32))
        x = trace.bind(p.add_p, convert(x, core.float32), zero)  # -0 becomes +0
        x = trace.bind(bitcast_convert_type_p, x, new_dtype=core.int32)
        x = ew.bitwise_xor(x, ew.bitwise_and(ew.right_shift(x, 31), 0x7FFFFFFF))
    elif dtype == core.uint32:
        x = trace.bind(bitcast_convert_type_p, x, new_dtype=core.int32)
        x = ew.bitwise_xor(x, np.int32(-(1 << 31)))
    else:
        x = convert(x, core.int32)
    return ew.invert(x) if descending else x


def numbers(n):
    """0, 1, ... below n."""
    return counts(core.int32, (n,), 0)


def _ranks(keys):
    """The place of each element of the last axis among the sorted ones; later keys decide ties."""
    n = trace.aval_of(keys[0]).shape[-1]
    at = numbers(n)
    before = ew.less(reshape(at, (1, n)), reshape(at, (n, 1)))
    for key in reversed(keys):
        mine, other = expand_dims(key, -1), expand_dims(key, -2)
        before = ew.where(before, ew.less_equal(other, mine), ew.less(other, mine))
    return total(convert(before, core.int32), -1)


def picked(values, here):
    """The only value of the last axis that is `here`, or the lowest one if none is."""
    dtype = trace.aval_of(values).dtype
    low = -np.inf if dtype in core.FLOATS else False
    if dtype in core.INTS:
        low = np.iinfo(dtype).min
    fill = Literal(np.asarray(low).astype(dtype), ShapedArray((), dtype))
    return maximum(ew.where(here, values, fill), -1)


def _chosen(values, ranks, count):
    """The values of ranks 0 to count - 1."""
    here = ew.equal(expand_dims(ranks, -2), reshape(numbers(count), (count, 1)))
    return picked(expand_dims(values, -2), here)


def _in_order(values, keys, count, name):
    """The first `count` of values along the last axis, in the order of int32 keys."""
    aval = trace.aval_of(keys[0])
    n = aval.shape[-1]
    if n <= RANKED:
        ranks = _ranks(keys)
        return [_chosen(v, ranks, count) for v in values]
    if n > MOST:
        raise UnsupportedError(
            f"{name} of {aval.shape}: at most {MOST:,} elements are sorted on this chip (at "
            f"{user_source()}); sort parts, or sort on the host"
        )
    size = 1 << (n - 1).bit_length()
    last = np.int32(np.iinfo(np.int32).max)
    around = ((0, 0, 0),) * (aval.ndim - 1) + ((0, size - n, 0),)
    keys = [pad_by(k, last, around) for k in keys]
    keys.append(broadcast_to(numbers(size), (*aval.shape[:-1], size)))
    wide = [broadcast_to(v, aval.shape) for v in values]
    arrays = keys + [pad_by(v, np.zeros((), trace.aval_of(v).dtype), around) for v in wide]
    length = 2
    while length <= size:
        apart = length // 2
        while apart:
            arrays = _exchanged(arrays, len(keys), length, apart)
            apart //= 2
        length *= 2
    return [v[..., :count] for v in arrays[len(keys) :]]


def _exchanged(arrays, keys, length, apart):
    """A stage: elements `apart` from each other change places by their keys, the first arrays.

    The smaller one comes first where bit `length` of their number is 0, else the larger one.
    """
    shape = trace.aval_of(arrays[0]).shape
    blocks = shape[-1] // (2 * apart)
    parts = [reshape(x, (*shape[:-1], blocks, 2, apart)) for x in arrays]
    pairs = [(x[..., 0, :], x[..., 1, :]) for x in parts]
    wrong = None
    for low, high in reversed(pairs[:keys]):
        less = ew.less(high, low)
        if wrong is not None:
            less = ew.logical_or(less, ew.logical_and(ew.equal(high, low), wrong))
        wrong = less
    bit = ew.bitwise_and(numbers(blocks), np.int32(length // (2 * apart)))
    swaps = ew.not_equal(wrong, reshape(ew.not_equal(bit, 0), (blocks, 1)))
    out = []
    for low, high in pairs:
        both = ew.where(swaps, high, low), ew.where(swaps, low, high)
        out.append(reshape(concatenate([expand_dims(x, -2) for x in both], -2), shape))
    return out


def _last(name, a, axis):
    """The array with the axis moved to the end, and the axis; None sorts all elements."""
    (aval,) = operand_avals(name, (a,))
    if axis is None:
        return reshape(a, (-1,)), 0
    if not aval.ndim:
        raise OperandError(f"{name}: an array of rank 0 has no axis (at {user_source()})")
    axis = axis_index(axis, aval.ndim)
    return moveaxis(a, axis, -1), axis


def sort(a, axis=-1, *, kind=None, order=None, stable=True, descending=False):
    """NumPy's sort along an axis; `kind` is ignored, it is always stable.

    **Raises** UnsupportedError: more than 65,536 elements along the axis.
    """
    _no_order("sort", order)
    x, axis = _last("sort", a, axis)
    aval = trace.aval_of(x)
    if aval.size:
        (x,) = _in_order([x], [_keys(x, descending)], aval.shape[-1], "sort")
    return moveaxis(x, -1, axis)


def sort_together(operands, axis, num_keys):
    """Arrays of one shape, all in the order of the first ones: the first decides, then the next.

    **Raises** UnsupportedError as `sort`, OperandError: other shapes, or no such number of keys.
    """
    avals = operand_avals("sort", operands)
    if len({a.shape for a in avals}) != 1 or not 0 < num_keys <= len(avals):
        listed = ", ".join(map(str, avals))
        raise OperandError(
            f"sort: operands must have one shape, and num_keys be in 1 to their number, not "
            f"{listed} with num_keys={num_keys!r} (at {user_source()})"
        )
    xs = [_last("sort", x, axis)[0] for x in operands]
    if not avals[0].size:
        return list(operands)
    keys = [_keys(x, False) for x in xs[:num_keys]]
    found = _in_order(xs, keys, trace.aval_of(xs[0]).shape[-1], "sort")
    axis = axis_index(axis, avals[0].ndim)
    return [moveaxis(x, -1, axis) for x in found]


def argsort(a, axis=-1, *, kind=None, order=None, stable=True, descending=False):
    """The int32 numbers of the elements in sorted order; of equal ones the first comes first."""
    _no_order("argsort", order)
    x, axis = _last("argsort", a, axis)
    aval = trace.aval_of(x)
    if not aval.size:
        return convert(moveaxis(x, -1, axis), core.int32)
    n = aval.shape[-1]
    (order,) = _in_order([numbers(n)], [_keys(x, descending)], n, "argsort")
    return moveaxis(order, -1, axis)


def _no_order(name, order):
    if order is not None:
        raise OperandError(f"{name}: order must be None, not {order!r} (at {user_source()})")


def top_k(operand, k):
    """The k largest elements of the last axis, largest first, and their int32 numbers."""
    x, _ = _last("top_k", operand, -1)
    n = trace.aval_of(x).shape[-1]
    if not 0 < k <= n:
        raise OperandError(f"top_k: k must be in 1 to {n}, not {k} (at {user_source()})")
    return _in_order([x, numbers(n)], [_keys(x, True)], k, "top_k")
