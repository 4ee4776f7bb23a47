"""One more equation in a chain: its operands as numbers and vectors of STORE's epilogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.chain import Chain
from tilewright.compiler.core import Eqn, Literal, Var
from tilewright.compiler.fuse_lanes import Lane
from tilewright.compiler.kernel_builder import Number
from tilewright.compiler.kernels import Map, Vector, View

if TYPE_CHECKING:
    from tilewright.compiler.fuse import _Fuser

Step = Callable[[Chain, Vector], Chain | None]  # Chain.scale or Chain.add


def extended(fuser: _Fuser, eqn: Eqn, which: int, chain: Chain) -> Chain | None:
    """The chain with this equation taken in, operand `which` being the chain's value."""
    name = eqn.primitive.name
    if name == "convert_element_type":
        return chain.convert(eqn.params["new_dtype"])
    if name == "round_nearest_even":
        return chain.round()
    if name == "neg":
        return chain.scale(-1.0)
    if name == "clamp":
        lo, hi = (_number(fuser, eqn.inputs[i]) for i in (0, 2))
        return None if which != 1 or lo is None or hi is None else chain.clamp(lo, hi)
    other = eqn.inputs[1 - which]
    if name in ("max", "min"):
        value = _number(fuser, other)
        if value is None:
            return None
        return chain.clamp(value, None) if name == "max" else chain.clamp(None, value)
    if name == "div":
        inverse = None if which else _inverse(fuser, other)
        return None if inverse is None else chain.scale(inverse)
    if name == "mul":
        return _with_vector(fuser, chain, other, Chain.scale)
    if name == "sub" and which == 1:
        negated = chain.scale(-1.0)
        return None if negated is None else _with_vector(fuser, negated, other, Chain.add)
    return _with_vector(fuser, chain, other, Chain.add, negate=name == "sub")


def _number(fuser: _Fuser, atom: Var | Literal) -> float | int | None:
    node = fuser.node(atom)
    if not isinstance(node, Number):
        return None
    return float(node.value) if atom.aval.dtype in core.FLOATS else int(node.value)


def _inverse(fuser: _Fuser, atom: Var | Literal) -> float | None:
    """1 / x if x is a constant power of two, so that multiplying gives the same bits."""
    value = _number(fuser, atom)
    if value is None or atom.aval.dtype not in core.FLOATS or not np.isfinite(value):
        return None
    mantissa, exponent = np.frexp(value)
    return 1 / value if abs(mantissa) == 0.5 and -125 <= exponent <= 126 else None


def _with_vector(
    fuser: _Fuser, chain: Chain, atom: Var | Literal, step: Step, negate: bool = False
) -> Chain | None:
    """The chain after `step` (Chain.scale or Chain.add) with the same operand for every row.

    A bfloat16 vector, or one that changes sign, is made float32 by a kernel of its own.
    """
    number = _number(fuser, atom)
    if number is not None:
        return step(chain, -number if negate else number)
    converted = negate or atom.aval.dtype == core.bfloat16
    if converted and isinstance(chain.source, Map) and chain.rows == 1:
        return None  # VECTOR takes both as they are
    if isinstance(fuser.node(atom), Chain | Lane):
        if len(atom.aval.shape) and chain.rows != 1:
            return None
        fuser.view(atom)
    vector = _row(chain, fuser.node(atom))
    if vector is None or step(chain, vector) is None:
        return None
    if atom.aval.dtype not in core.FLOATS:
        return None if negate else step(chain, vector)
    if vector.dtype == core.bfloat16 or negate:
        row = View(vector.buffer, (1, *vector.shape), (0, *vector.strides), vector.offset)
        made = Chain.start(Map(row), vector.shape, vector.dtype).convert(core.float32)
        if made is not None and negate:
            made = made.scale(-1.0)
        if made is None:
            return None
        assert fuser.number is not None
        vector = fuser.end(replace(made, eqns=(fuser.number,)))
    return step(chain, vector)


def _row(chain: Chain, node: object) -> View | None:
    """The columns of a view that is the same in every row of the chain; None if it is not."""
    if not isinstance(node, View):
        return None
    view = node if node.shape == chain.shape else node.broadcast(chain.shape, ())
    rows = view.reshape((chain.rows, chain.cols))
    if rows is None or (chain.rows > 1 and rows.strides[0]):
        return None
    return View(rows.buffer, (chain.cols,), (rows.strides[1],), rows.offset)
