"""Reductions in micro-operations: an accumulator over a row's units, then over the lanes.

What a row's units are is the caller's: neighbouring columns (the lanes are combined behind them) or
rows one below the other (each lane has a result).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.primitives_reduce import identity
from tilewright.compiler.terms import Term
from tilewright.compiler.vector_record import BODY, TAIL, Recorder, Result

#: Reduction -> its micro-operation on floats, signed and unsigned integers.
OPERATION = {
    "reduce_sum": ("add_f32", "add_i32", "add_i32"),
    "reduce_prod": ("mul_f32", "mul_i32", "mul_i32"),
    "reduce_max": ("max_f32", "max_i32", "max_u32"),
    "reduce_min": ("min_f32", "min_i32", "min_u32"),
    "reduce_and": ("", "and", "and"),
    "reduce_or": ("", "or", "or"),
}
REDUCTIONS = tuple(OPERATION)
KEYS = ("argmax_key", "argmin_key")


@dataclass(frozen=True)
class How:
    """How a micro-kernel reduces.

    Parameters
    ----------
    dim : lanes.
    lanes : whether the lanes are combined, too; else each lane keeps its own result.
    across : whether a row's units are neighbouring columns; else rows below each other.
    ragged : whether the last unit has lanes that are no elements.
    filled : streams in which these are zero.
    """

    dim: int = 0
    lanes: bool = True
    across: bool = True
    ragged: bool = False
    filled: tuple[int, ...] = ()


def accumulator(dtype: np.dtype) -> np.dtype:
    """In what a dtype is reduced."""
    if dtype in core.FLOATS:
        return core.float32
    return core.uint32 if dtype == core.uint32 else core.int32


def start(term: Term) -> int:
    """The bits that a lane starts from."""
    dtype = term.args[0].dtype
    value = identity(term.name.removeprefix("reduce_"), dtype)
    if dtype in core.FLOATS:
        return int(value.astype(np.float32).view(np.uint32))
    return int(value) & 0xFFFFFFFF


def reduced(r: Recorder, term: Term, x: Result, how: How) -> Result:
    """The reduction of x, in a lane's form of the accumulator's dtype."""
    dtype = term.args[0].dtype
    kind = 0 if dtype in core.FLOATS else 2 if dtype == core.uint32 else 1
    name, first = OPERATION[term.name][kind], start(term)
    filled = x.name == "load" and x.n in how.filled and first == 0
    if how.ragged and how.across and not filled:
        x = r.run("select", r.source("active", BODY), x, first)
    result = r.carried(name, first, x)
    if not how.lanes:
        return result if result.level == TAIL else r.after("mov", result)
    distance = how.dim // 2
    while distance:
        result = r.after(name, result, r.after("rotate", result, n=distance))
        distance //= 2
    return result


def index(r: Recorder, how: How) -> Result:
    """The place of an element along the axis that is reduced; scalar v is that of the first one."""
    unit = r.source("unit", BODY)
    if how.across:
        unit = r.run("add_i32", r.run("shl", unit, how.dim.bit_length() - 1), r.source("lane"))
    return r.run("add_i32", unit, r.source("v"))


def key(r: Recorder, term: Term, x: Result) -> Result:
    """An integer that orders as x for argmax, reversed for argmin; a NaN is above all."""
    largest, dtype = term.name == "argmax_key", term.args[0].dtype
    if dtype in core.FLOATS:
        x = r.run("add_f32", x if largest else r.run("neg_f32", x), 0.0)
        return r.run("xor", x, r.run("and", r.run("sar", x, 31), 0x7FFFFFFF))
    if dtype == core.uint32:
        x = r.run("xor", x, 1 << 31)
    return x if largest else r.run("xor", x, -1)
