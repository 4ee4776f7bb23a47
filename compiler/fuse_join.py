"""`concatenate` and `iota` as kernels: parts copied into one buffer, counts from constants."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.core import Eqn, Params
from tilewright.compiler.fuse_lanes import Lane, stored
from tilewright.compiler.kernel_builder import Node, Number
from tilewright.compiler.kernels import View
from tilewright.compiler.primitives_join import counted
from tilewright.compiler.terms import Term

if TYPE_CHECKING:
    from tilewright.compiler.fuse import _Fuser

LARGEST = 4096  # counts in a constant; more are the sum of a column and a row of counts
ROW = 1024


def concatenate(fuser: _Fuser, eqn: Eqn) -> Node:
    """A number if all parts are that, else the parts that have elements, joined."""
    aval, dim = eqn.outputs[0].aval, eqn.params["dimension"]
    nodes = [fuser.node(a) for a in eqn.inputs]
    numbers = {x.value.tobytes() for x in nodes if isinstance(x, Number)}
    if len(numbers) == 1 and all(isinstance(x, Number) for x in nodes):
        assert isinstance(nodes[0], Number)
        return Number(nodes[0].value, aval.shape)
    parts = [fuser.exact(a) for a in eqn.inputs if prod(a.aval.shape)]
    if not parts:
        return Number(aval.dtype.type(0), aval.shape)
    return parts[0] if len(parts) == 1 else fuser.join(parts, dim)


def iota(fuser: _Fuser, eqn: Eqn) -> Node:
    """A constant of one dimension, broadcast; a long one is computed: r ROW + c."""
    shape, dtype, dim = (eqn.params[name] for name in ("shape", "dtype", "dimension"))
    dtype, size = np.dtype(dtype), shape[dim]
    if not prod(shape):
        return Number(dtype.type(0), shape)
    if size <= LARGEST:
        line = View.whole(fuser.const(np.ascontiguousarray(counted(size, dtype))))
        return line.broadcast(shape, (dim,))
    rows = -(-size // ROW)
    starts = View.whole(fuser.const(np.arange(rows, dtype=np.int32) * ROW))
    counts = View.whole(fuser.const(np.arange(ROW, dtype=np.int32)))
    pair = (rows, ROW)
    total = Term("add", core.int32, (
        stored(starts.broadcast(pair, (0,))), stored(counts.broadcast(pair, (1,))),
    ))  # fmt: skip
    if dtype != core.int32:
        total = Term("convert_element_type", dtype, (total,), Params(new_dtype=dtype))
    assert fuser.number is not None
    whole = fuser.compute(Lane(pair, total, (fuser.number,)))
    line = fuser.reshape(whole, (rows * ROW,)).slice((0,), (size,), (1,))
    return line.broadcast(shape, (dim,))
