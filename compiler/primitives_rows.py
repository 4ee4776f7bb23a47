"""Rows of an array at computed places: type rules and NumPy implementations.

``take_rows(x, i)``: rows i of x, x being (N, ...) and i (M,) int32; an index that is out of range
is clamped, so a negative one names row 0.

``put_rows[kind, unique](x, i, y)``: x with row i[m] replaced, one after the other, by what `kind`
("set", "add", "sub", "mul", "min", "max") makes of it and of y[m]; an index that is out of range
changes nothing. `unique` promises that no row is named twice.

All indexing with arrays, gather and scatter become these two (`taking`, `advanced`).
"""

import numpy as np
from tilewright.compiler import core
from tilewright.compiler import primitives as p
from tilewright.compiler.core import Primitive
from tilewright.compiler.errors import OperandError

take_rows_p = Primitive("take_rows")
put_rows_p = Primitive("put_rows")
COMBINE = {
    "add": p.add_p, "sub": p.sub_p, "mul": p.mul_p, "min": p.min_p, "max": p.max_p,
}  # fmt: skip


def _check(x, i):
    if not x.shape:
        raise OperandError(f"an array of rows must have a dimension, not {x}")
    if i.ndim != 1 or i.dtype != core.int32:
        raise OperandError(f"the rows' numbers must be int32 of one dimension, not {i}")


@take_rows_p.rule("abstract")
def _take_aval(x, i):
    _check(x, i)
    if i.shape[0] and not x.shape[0]:
        raise OperandError(f"{x} has no rows to take")
    return x.update(shape=(*i.shape, *x.shape[1:]))


@take_rows_p.rule("impl")
def _take(x, i):
    return x[np.clip(i, 0, max(len(x) - 1, 0))]


@put_rows_p.rule("abstract")
def _put_aval(x, i, y, *, kind, unique=False):
    _check(x, i)
    if kind != "set" and kind not in COMBINE:
        raise OperandError(f"kind must be set, add, sub, mul, min or max, not {kind!r}")
    if y.dtype != x.dtype or y.shape != (*i.shape, *x.shape[1:]):
        raise OperandError(f"rows for {x} at {i} must fit, not be {y}")
    if kind != "set":
        row = x.update(shape=x.shape[1:])
        COMBINE[kind].abstract(row, row)
    return x.update(weak_type=x.weak_type and y.weak_type)


@put_rows_p.rule("impl")
def _put(x, i, y, *, kind, unique=False):
    out = np.array(x)
    for at, row in zip(i, y, strict=True):
        if 0 <= at < len(out):
            out[at] = row if kind == "set" else COMBINE[kind].impl(out[at], row)
    return out
