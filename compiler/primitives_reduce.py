"""Reductions and scans: type rules, and NumPy implementations in the chip's order of additions.

Only sums and products of floats depend on the order; shape and `dim` fix it (docs/vector.md):
neighbouring axes are reduced together, the last group of them first. Elements in lanes (nothing but
reduced axes behind them) are dealt out to `dim` lanes, unit by unit; each lane folds CHUNK units at
a time, each chunk from the identity on, then CHUNK chunks, and so on; the lanes are combined at
distances dim/2, dim/4 ... 1. Elements in rows are folded in chunks of CHUNK rows in the same way.
bfloat16 is reduced in float32 and rounded once. A scan adds elements at distances 1, 2, 4 ...
"""

from collections.abc import Callable
from math import prod

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.core import FLOATS, INTS, Primitive, ShapedArray
from tilewright.compiler.errors import OperandError
from tilewright.sim import numerics

CHUNK = 16  # a chunk's sum is within 16 roundings: 1 M float32 stay within 5e-7 of the sum of sizes
_NUMBERS = FLOATS + INTS
_WORDS = (*INTS, core.bool_)


def identity(name, dtype):
    """Return what a reduction (sum, prod, max, min, and, or) starts from, as a rank-0 array."""
    if name in ("sum", "or"):
        return np.zeros((), dtype)
    if name == "prod":
        return np.ones((), dtype)
    if name == "and":
        return np.array(True) if dtype == core.bool_ else np.array(-1).astype(dtype)
    low = name == "max"
    if dtype in FLOATS:
        return np.array(-np.inf if low else np.inf, dtype)
    if dtype == core.bool_:
        return np.array(not low)
    return np.array(np.iinfo(dtype).min if low else np.iinfo(dtype).max, dtype)


def groups(shape, axes):
    """Return (P, R, C) of each group of neighbouring axes, in the order in which they are reduced.

    R elements, C apart, are reduced in each of P x C places. Axes of size 1 do not count.
    """
    runs = []  # (is reduced, size)
    for d, n in enumerate(shape):
        if n == 1:
            continue
        if runs and runs[-1][0] == (d in axes):
            runs[-1] = (runs[-1][0], runs[-1][1] * n)
        else:
            runs.append((d in axes, n))
    out = []
    while any(reduced for reduced, _ in runs):
        at = max(i for i, (reduced, _) in enumerate(runs) if reduced)
        sizes = [n for _, n in runs]
        out.append((prod(sizes[:at]), sizes[at], prod(sizes[at + 1 :])))
        runs = [*runs[:at], *runs[at + 1 :]]
    return out or [(prod(shape), 1, 1)]


def _chunks(x, combine, start):
    """Fold axis 1 of (P, R, ...) in chunks of CHUNK, chunks in chunks, until one is left."""
    while True:
        rows = x.shape[1]
        padding = np.full((x.shape[0], -rows % CHUNK, *x.shape[2:]), start, x.dtype)
        parts = np.concatenate([x, padding], 1).reshape(len(x), -1, CHUNK, *x.shape[2:])
        x = np.full_like(parts[:, :, 0], start)
        for i in range(min(rows, CHUNK)):
            x = combine(x, parts[:, :, i])
        if x.shape[1] == 1:
            return x[:, 0]


def _in_order(x, axes, dim, combine, start):
    """Reduce float32 axes in the chip's order."""
    kept = tuple(n for d, n in enumerate(x.shape) if d not in axes)
    for p, r, c in groups(x.shape, axes):
        if c == 1:
            padding = np.full((p, -r % dim), start, x.dtype)
            units = np.concatenate([x.reshape(p, r), padding], 1).reshape(p, -1, dim)
            x = _chunks(units, combine, start)
            distance = dim // 2
            while distance:
                x = combine(x, np.roll(x, -distance, 1))
                distance //= 2
            x = x[:, 0]
        else:
            x = _chunks(x.reshape(p, r, c), combine, start)
    return x.reshape(kept)


def _shape(x, axes):
    if len(set(axes)) != len(axes) or any(not 0 <= a < x.ndim for a in axes):
        raise OperandError(f"axes must be distinct and below {x.ndim}, not {axes}")
    return tuple(n for d, n in enumerate(x.shape) if d not in axes)


def _allowed(x, dtypes):
    if x.dtype not in dtypes:
        raise OperandError(f"dtype must be one of {', '.join(map(str, dtypes))}, not {x.dtype}")


#: Of floats, by name: how two are combined.
_COMBINE: dict[str, Callable] = {
    "sum": numerics.f32_add, "prod": numerics.f32_mul,
    "max": numerics.f32_max, "min": numerics.f32_min,
}  # fmt: skip
_UFUNC = {
    "sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum,
    "and": np.bitwise_and, "or": np.bitwise_or,
}  # fmt: skip


def _reduction(name, allowed):
    ordered = name in ("sum", "prod")
    primitive = Primitive(f"reduce_{name}", uses_dim=ordered)

    @primitive.rule("abstract")
    def abstract(x, *, axes):
        _allowed(x, allowed)
        return x.update(shape=_shape(x, axes))

    @primitive.rule("impl")
    def impl(x, *, axes, dim=16):
        shape = _shape(x, axes)
        start = identity(name, core.float32 if x.dtype in FLOATS else x.dtype)
        if not x.size:
            return np.full(shape, start).astype(x.dtype)
        if x.dtype not in FLOATS:
            with np.errstate(over="ignore"):
                return np.asarray(_UFUNC[name].reduce(x, axes, dtype=x.dtype))
        wide = np.asarray(numerics.bf16_to_f32(x))
        result = np.asarray(_in_order(wide, axes, dim, _COMBINE[name], start))
        return result if x.dtype == core.float32 else numerics.f32_to_bf16(result)

    return primitive


reduce_sum_p = _reduction("sum", _NUMBERS)
reduce_prod_p = _reduction("prod", _NUMBERS)
reduce_max_p = _reduction("max", core.DTYPES)
reduce_min_p = _reduction("min", core.DTYPES)
reduce_and_p = _reduction("and", _WORDS)
reduce_or_p = _reduction("or", _WORDS)


def _order_keys(x, largest):
    """Return integers that order as `x`, reversed for the smallest; a NaN is above all."""
    if x.dtype in FLOATS:
        x = numerics.f32_add(numerics.bf16_to_f32(x), np.float32(0))  # -0 is +0
        x = numerics.canonical(x if largest else -x)
        x = numerics.f32_add(x, np.float32(0)).view(np.int32)
        return x ^ ((x >> 31) & 0x7FFFFFFF)
    wide = x.astype(np.int64)
    return wide if largest else ~wide


def _arg(name, largest):
    primitive = Primitive(name)

    @primitive.rule("abstract")
    def abstract(x, *, axes, index_dtype):
        _allowed(x, core.DTYPES)
        shape = _shape(x, axes)
        if len(axes) != 1 or not x.shape[axes[0]]:
            raise OperandError(f"{name} needs one axis, which is not empty: {axes} of {x}")
        if index_dtype not in (core.int32, core.uint32):
            raise OperandError(f"index_dtype must be int32 or uint32, not {index_dtype}")
        return ShapedArray(shape, index_dtype)

    @primitive.rule("impl")
    def impl(x, *, axes, index_dtype):
        return np.asarray(np.argmax(_order_keys(x, largest), axes[0])).astype(index_dtype)

    return primitive


argmax_p = _arg("argmax", True)
argmin_p = _arg("argmin", False)


def shifted(x, axis, distance, start):
    """Return element i - distance of an axis at i, and `start` where there is none."""
    moved = np.full_like(x, start)
    where = (slice(None),) * axis
    moved[(*where, slice(distance, None))] = x[(*where, slice(None, -distance))]
    return moved


def _scan(name, reduction):
    primitive = Primitive(name)
    allowed = _NUMBERS

    @primitive.rule("abstract")
    def abstract(x, *, axis, reverse):
        _allowed(x, allowed)
        _shape(x, (axis,))
        return x

    @primitive.rule("impl")
    def impl(x, *, axis, reverse):
        wide = x if x.dtype in INTS else np.asarray(numerics.bf16_to_f32(x))
        combine = _UFUNC[reduction] if x.dtype in INTS else _COMBINE[reduction]
        start, distance = identity(reduction, wide.dtype), 1
        wide = np.flip(wide, axis) if reverse else wide
        with np.errstate(over="ignore"):
            while distance < x.shape[axis]:
                wide = combine(wide, shifted(wide, axis, distance, start))
                distance *= 2
        wide = np.flip(wide, axis) if reverse else wide
        return numerics.f32_to_bf16(wide) if x.dtype == core.bfloat16 else np.array(wide)

    return primitive


cumsum_p = _scan("cumsum", "sum")
cumprod_p = _scan("cumprod", "prod")
cummax_p = _scan("cummax", "max")
cummin_p = _scan("cummin", "min")

#: Every primitive here, by name.
PRIMITIVES = {
    p.name: p
    for p in (reduce_sum_p, reduce_prod_p, reduce_max_p, reduce_min_p, reduce_and_p, reduce_or_p,
              argmax_p, argmin_p, cumsum_p, cumprod_p, cummax_p, cummin_p)
}  # fmt: skip
