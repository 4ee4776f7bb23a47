"""NumPy's functions that make arrays of numbers: counts, ranges, triangles, diagonals.

Inside of a trace they are equations (`iota` and what follows); outside NumPy makes the array and it
is transferred.
"""

import operator
from math import ceil as _ceil

import numpy as np
from tilewright.compiler import core, promote, trace
from tilewright.compiler import elementwise as ew
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.joining import cut, joined
from tilewright.compiler.operands import (
    axis_index,
    convert,
    dtype_named,
    operand_avals,
    shape_tuple,
)
from tilewright.compiler.primitives_join import iota_p
from tilewright.compiler.shaping import broadcast_to, expand_dims, pad_by, ravel, reshape
from tilewright.compiler.source import user_source


def counts(dtype, shape, dimension):
    """An array whose elements are their indices along a dimension."""
    params = {"dtype": dtype, "shape": shape, "dimension": dimension}
    if trace.current_trace() is not None:
        return trace.bind(iota_p, **params)
    trace.abstract(iota_p, (), params, user_source())
    return trace.asarray_hook(np.ascontiguousarray(iota_p.impl(**params)), False)


def _known(name, *values):
    for v in values:
        if isinstance(v, trace.Tracer):
            raise UnsupportedError(
                f"{name}: the bounds must be known when tracing, not {v!r} (at {user_source()})"
            )


def arange(start, stop=None, step=None, dtype=None):
    """NumPy's arange, of known bounds; int32 of integers, else float32."""
    _known("arange", start, stop, step)
    if stop is None:
        start, stop = 0, start
    step = 1 if step is None else step
    avals = operand_avals("arange", (start, stop, step))
    if dtype is None:
        target, _ = promote.promote_types(*avals)
    else:
        target = dtype_named("arange", dtype)
    whole = all(a.dtype in core.INTS for a in avals)
    if whole and trace.current_trace() is not None and target in core.INTS:
        start, step = operator.index(start), operator.index(step)
        size = max(0, _ceil((operator.index(stop) - start) / step))
        line = counts(target, (size,), 0)
        line = line if step == 1 else ew.multiply(line, step)
        return line if start == 0 else ew.add(line, start)
    wide = np.arange(*(np.asarray(v).item() for v in (start, stop, step)))
    return trace.lift(wide.astype(target))


def linspace(start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0):
    """NumPy's linspace: ``start (1 - i / div) + stop i / div``, as JAX computes it."""
    avals = operand_avals("linspace", (start, stop))
    num = operator.index(num)
    if num < 0:
        raise OperandError(f"linspace: num must be at least 0, not {num} (at {user_source()})")
    found, _ = promote.promote_types(*avals)
    target = dtype_named("linspace", dtype) if dtype is not None else found
    inner = target if target in core.FLOATS else core.float32
    target = target if dtype is not None else inner
    shape = promote.broadcast_shapes(*(a.shape for a in avals))
    at = axis_index(axis, len(shape) + 1)
    first, last = (broadcast_to(convert(v, inner), shape) for v in (start, stop))
    parts = num - 1 if endpoint else num
    first, end = expand_dims(first, at), expand_dims(last, at)
    if num > 1:
        line = [1] * (len(shape) + 1)
        line[at] = parts
        part = ew.divide(counts(inner, tuple(line), at), float(parts))
        out = ew.add(ew.multiply(first, ew.subtract(1.0, part)), ew.multiply(end, part))
        out = joined([out, end], at) if endpoint else out
    else:
        out = first if num else cut(first, 0, 0, at)
    if target not in core.FLOATS:
        out = ew.floor(out)
    out = convert(out, target)
    if not retstep:
        return out
    step = ew.divide(ew.subtract(last, reshape(first, shape)), float(parts) if parts else np.nan)
    return out, step


def indices(dimensions, dtype=np.int32):
    """The indices of a grid, one array for each dimension, stacked."""
    shape = shape_tuple(dimensions)
    dtype = dtype_named("indices", dtype)
    return joined([expand_dims(counts(dtype, shape, d), 0) for d in range(len(shape))], 0)


def _places(n, m, k, compare):
    """Which elements (i, j) of an n x m matrix have compare(i + k, j)."""
    rows, columns = (counts(core.int32, (n, m), d) for d in (0, 1))
    return compare(ew.add(rows, k) if k else rows, columns)


def eye(N, M=None, k=0, dtype=np.float32):
    """Ones on the k-th diagonal, else zeros."""
    n = operator.index(N)
    m = n if M is None else operator.index(M)
    return convert(_places(n, m, k, ew.equal), dtype_named("eye", dtype))


def identity(n, dtype=np.float32):
    """`eye` of a square matrix."""
    return eye(n, dtype=dtype)


def tri(N, M=None, k=0, dtype=np.float32):
    """Ones at and below the k-th diagonal, else zeros."""
    n = operator.index(N)
    m = n if M is None else operator.index(M)
    return convert(_places(n, m, k, ew.greater_equal), dtype_named("tri", dtype))


def _triangle(name, m, k, lower):
    (aval,) = operand_avals(name, (m,))
    if aval.ndim < 2:
        raise OperandError(f"{name}({aval}): x must be a matrix (at {user_source()})")
    keep = _places(*aval.shape[-2:], k if lower else k - 1, ew.greater_equal)
    zero = core.Literal(np.zeros((), aval.dtype), core.ShapedArray((), aval.dtype))
    return ew.where(keep, m, zero) if lower else ew.where(keep, zero, m)


def tril(m, k=0):
    """The matrices in the last two dimensions, zeros above the k-th diagonal."""
    return _triangle("tril", m, k, True)


def triu(m, k=0):
    """The matrices in the last two dimensions, zeros below the k-th diagonal."""
    return _triangle("triu", m, k, False)


def diagonal(a, offset=0, axis1=0, axis2=1):
    """The elements (i, i + offset) of the matrices in the first two dimensions: a strided view."""
    (aval,) = operand_avals("diagonal", (a,))
    if (axis1, axis2) != (0, 1) or aval.ndim != 2:
        raise UnsupportedError(f"diagonal: a must be a matrix, not {aval} (at {user_source()})")
    n, m = aval.shape
    size = max(0, min(n + min(offset, 0), m - max(offset, 0)))
    first = offset if offset >= 0 else -offset * m
    flat = ravel(a)
    if not size:
        return cut(flat, 0, 0, 0)
    return flat[first : first + (size - 1) * (m + 1) + 1 : m + 1]


def diag(v, k=0):
    """The matrix with a vector on its k-th diagonal, or a matrix's k-th diagonal."""
    (aval,) = operand_avals("diag", (v,))
    if aval.ndim == 2:
        return diagonal(v, k)
    if aval.ndim != 1:
        raise OperandError(f"diag({aval}): v must be a vector or matrix (at {user_source()})")
    size = aval.size + abs(k)
    zero = core.Literal(np.zeros((), aval.dtype), core.ShapedArray((), aval.dtype))
    if k:
        v = pad_by(v, 0, ((max(-k, 0), max(k, 0), 0),))
    return ew.where(_places(size, size, k, ew.equal), expand_dims(v, 1), zero)


def one_hot(x, num_classes, dtype=np.float32, axis=-1):
    """1 at the place that x has along a new axis, else 0; all zeros where there is none."""
    (aval,) = operand_avals("one_hot", (x,))
    at = axis_index(axis, aval.ndim + 1)
    line = [1] * (aval.ndim + 1)
    line[at] = operator.index(num_classes)
    kind = aval.dtype if aval.dtype != core.bool_ else core.int32
    places = counts(kind, tuple(line), at)
    same = ew.equal(expand_dims(convert(x, kind), at), places)
    return convert(same, dtype_named("one_hot", dtype))


def logspace(start, stop, num=50, endpoint=True, base=10.0, dtype=None):
    """Powers of a base whose exponents are a `linspace`."""
    exponents = ew.multiply(linspace(start, stop, num, endpoint), float(np.log2(base)))
    powers = ew.exp2(exponents)
    return powers if dtype is None else convert(powers, dtype_named("logspace", dtype))


def _known_places(places):
    return tuple(trace.lift(p.astype(np.int32)) for p in places)


def tril_indices(n, k=0, m=None):
    """Rows and columns of the elements at and below the k-th diagonal."""
    return _known_places(np.tril_indices(n, k, m))


def triu_indices(n, k=0, m=None):
    """Rows and columns of the elements at and above the k-th diagonal."""
    return _known_places(np.triu_indices(n, k, m))
