"""NumPy's functions that summarise arrays: comparisons, sums without NaNs, products."""

import operator

import numpy as np
from tilewright.compiler import core, promote, trace
from tilewright.compiler import elementwise as ew
from tilewright.compiler import reductions as red
from tilewright.compiler.contraction import outer
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.joining import cut, stack
from tilewright.compiler.making import diagonal
from tilewright.compiler.operands import axis_index, convert, operand_avals
from tilewright.compiler.shaping import expand_dims, moveaxis, reshape
from tilewright.compiler.source import user_source
from tilewright.compiler.special_values import isclose, isnan


def allclose(a, b, rtol=1e-05, atol=1e-08, equal_nan=False):
    """Whether all elements are close (`isclose`)."""
    return red.all(isclose(a, b, rtol, atol, equal_nan))


def array_equal(a1, a2, equal_nan=False):
    """Whether shapes and all elements are equal."""
    first, second = operand_avals("array_equal", (a1, a2))
    if first.shape != second.shape:
        return trace.lift(np.bool_(False))
    same = ew.equal(a1, a2)
    if equal_nan:
        same = ew.bitwise_or(same, ew.bitwise_and(isnan(a1), isnan(a2)))
    return red.all(same)


def array_equiv(a1, a2):
    """Whether all elements are equal after broadcasting; shapes that do not broadcast differ."""
    avals = operand_avals("array_equiv", (a1, a2))
    try:
        promote.broadcast_shapes(*(a.shape for a in avals))
    except OperandError:
        return trace.lift(np.bool_(False))
    return red.all(ew.equal(a1, a2))


def count_nonzero(a, axis=None, *, keepdims=False):
    """How many elements are not 0, as int32."""
    return red.sum(ew.not_equal(a, 0), axis, np.int32, keepdims=keepdims)


def ptp(a, axis=None, *, keepdims=False):
    """The largest less the smallest element."""
    return ew.subtract(red.max(a, axis, keepdims=keepdims), red.min(a, axis, keepdims=keepdims))


def average(a, axis=None, weights=None, *, keepdims=False):
    """The mean, or the sum of weighted elements over the sum of the weights."""
    if weights is None:
        return red.mean(a, axis, keepdims=keepdims)
    first, second = operand_avals("average", (a, weights))
    if second.shape != first.shape:
        if axis is None or second.ndim != 1:
            raise OperandError(
                f"average: weights must have shape {first.shape}, not {second.shape} "
                f"(at {user_source()})"
            )
        line = [1] * first.ndim
        line[axis_index(axis, first.ndim)] = second.size
        weights = reshape(weights, tuple(line))
    a, weights = ew.promoted("average", ew.inexact(a), ew.inexact(weights))
    total = red.sum(ew.multiply(a, weights), axis, keepdims=keepdims)
    return ew.divide(total, red.sum(weights, axis, keepdims=keepdims))


def trace_of(a, offset=0):
    """The sum of a matrix's diagonal."""
    return red.sum(diagonal(a, offset))


def _known(x, other):
    """x with a number in place of its NaNs."""
    return ew.where(isnan(x), other, x) if trace.aval_of(x).dtype in core.FLOATS else x


def nansum(a, axis=None, *, keepdims=False):
    """The sum of what is not a NaN."""
    return red.sum(_known(a, 0), axis, keepdims=keepdims)


def nanprod(a, axis=None, *, keepdims=False):
    """The product of what is not a NaN."""
    return red.prod(_known(a, 1), axis, keepdims=keepdims)


def nanmean(a, axis=None, *, keepdims=False):
    """The mean of what is not a NaN."""
    count = red.sum(ew.logical_not(isnan(a)), axis, np.float32, keepdims=keepdims)
    total = nansum(ew.inexact(a), axis, keepdims=keepdims)
    return ew.divide(total, convert(count, trace.aval_of(total).dtype))


def _nan_extreme(a, axis, keepdims, reduce, other):
    found = reduce(_known(a, other), axis, keepdims=keepdims)
    if trace.aval_of(a).dtype not in core.FLOATS:
        return found
    none = red.all(isnan(a), axis, keepdims=keepdims)
    return ew.where(none, np.nan, found)


def nanmax(a, axis=None, *, keepdims=False):
    """The largest of what is not a NaN; a NaN where nothing is left."""
    return _nan_extreme(a, axis, keepdims, red.max, -np.inf)


def nanmin(a, axis=None, *, keepdims=False):
    """The smallest of what is not a NaN; a NaN where nothing is left."""
    return _nan_extreme(a, axis, keepdims, red.min, np.inf)


def diff(a, n=1, axis=-1):
    """Differences of neighbours along an axis, n times."""
    (aval,) = operand_avals("diff", (a,))
    at = axis_index(axis, aval.ndim)
    for _ in range(operator.index(n)):
        size = trace.aval_of(a).shape[at]
        high, low = cut(a, min(1, size), size, at), cut(a, 0, max(0, size - 1), at)
        a = (ew.not_equal if aval.dtype == core.bool_ else ew.subtract)(high, low)
    return a


def cross(a, b, axis=-1):
    """The vector product of vectors of three elements along an axis."""
    avals = operand_avals("cross", (a, b))
    if any(x.shape[axis_index(axis, x.ndim)] != 3 for x in avals):
        raise UnsupportedError(
            f"cross: vectors must have 3 elements, not shapes {avals[0].shape} and "
            f"{avals[1].shape} (at {user_source()})"
        )
    a, b = (moveaxis(x, axis, -1) for x in (a, b))
    parts = [
        ew.subtract(ew.multiply(a[..., i], b[..., j]), ew.multiply(a[..., j], b[..., i]))
        for i, j in ((1, 2), (2, 0), (0, 1))
    ]
    return stack(parts, axis)


def kron(a, b):
    """The Kronecker product of vectors or matrices."""
    first, second = operand_avals("kron", (a, b))
    if first.ndim != second.ndim or first.ndim not in (1, 2):
        raise UnsupportedError(
            f"kron: a and b must both be vectors or matrices, not {first} and {second} "
            f"(at {user_source()})"
        )
    if first.ndim == 1:
        return reshape(outer(a, b), (-1,))
    wide = ew.multiply(expand_dims(a, (1, 3)), expand_dims(b, (0, 2)))
    return reshape(wide, tuple(n * m for n, m in zip(first.shape, second.shape, strict=True)))


def polyval(p, x):
    """The polynomial with coefficients p, the highest first, by Horner's rule."""
    operand_avals("polyval", (p, x))
    total = ew.multiply(x, 0)
    for i in range(trace.aval_of(p).shape[0]):
        total = ew.add(ew.multiply(total, x), p[i])
    return total
