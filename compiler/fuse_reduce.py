"""Equations as lanes: element by element, reductions of the last dimensions, and their broadcasts.

A reduction of other dimensions is a kernel of its own (`fuse_down`). Several groups of dimensions
are reduced one after the other, the last one first, as `primitives_reduce` has it.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.chain import Chain
from tilewright.compiler.core import Eqn, Literal, Params, Var
from tilewright.compiler.fuse_down import down, takes
from tilewright.compiler.fuse_epilogue import one_kernel, sums_of
from tilewright.compiler.fuse_lanes import (
    MOST_OPERATIONS,
    MOST_VIEWS,
    SHARED,
    Lane,
    as_rows,
    constant,
    converted,
    fits,
    flat,
    operations,
    stored,
)
from tilewright.compiler.fuse_scan import SCANS, scan
from tilewright.compiler.kernel_builder import Node, Number
from tilewright.compiler.kernels import Map, View
from tilewright.compiler.primitives_reduce import PRIMITIVES, groups, identity
from tilewright.compiler.terms import Term
from tilewright.compiler.vector_reduce import REDUCTIONS, accumulator

if TYPE_CHECKING:
    from tilewright.compiler.fuse import _Fuser

REDUCING = tuple(PRIMITIVES)
Atom = Var | Literal


def lane_of(fuser: _Fuser, atom: Atom) -> Lane | None:
    """The lane that an operand is, or that its chain can be made into, if it is computed here."""
    if fuser.in_region(atom):
        return fuser.finishing(atom)
    node = fuser.node(atom)
    if isinstance(node, Chain) and id(atom) in fuser.made and node.shape == atom.aval.shape:
        again = isinstance(node.source, Map) or not node.can_end
        node = fuser.again(fuser.made[id(atom)]) if again else node
    if not isinstance(node, Lane) or node.shape != atom.aval.shape or sums_of(node.term):
        return None
    cheap = fuser.uses[id(atom)] == 1 or operations(node.term) <= SHARED
    reduces = any(t.name in REDUCTIONS for t in node.term.nodes())
    return node if cheap or (reduces and id(atom) not in fuser.written) else None


def elementwise(fuser: _Fuser, eqn: Eqn) -> Lane:
    """An equation of operands of one shape, or of one element."""
    shape = eqn.outputs[0].aval.shape
    lanes = [lane_of(fuser, a) for a in eqn.inputs]
    sums = [x is not None and bool(sums_of(x.term)) for x in lanes]
    if any(sums):
        plain = Lane(shape, Term("none", core.float32), ())
        joined = _joined(fuser, eqn, lanes, plain)
        if one_kernel(fuser.config, joined.term):
            return joined
        kept = [x if mine else None for x, mine in zip(lanes, sums, strict=True)]
        return _joined(fuser, eqn, kept, plain)
    joined = _joined(fuser, eqn, lanes, _like(shape, lanes))
    if fits(joined):
        return joined
    fuser.notes.append(
        f"equation {fuser.number} ({eqn.primitive.name}) begins a kernel: with its operands' own "
        f"there would be more than {MOST_VIEWS} arrays or {MOST_OPERATIONS} operations"
    )
    return _joined(fuser, eqn, [None] * len(lanes), Lane(shape, joined.term, ()))


def _like(shape: tuple[int, ...], lanes: list[Lane | None]) -> Lane:
    """A lane that says what the equation's result runs over."""
    rows = [x for x in lanes if x is not None and x.row and x.shape == shape]
    if rows:
        return max(rows, key=lambda x: prod(x.space))
    wide = [x for x in lanes if x is not None and x.cut is not None and x.space == shape]
    if wide:
        return replace(wide[0], shape=shape, given=shape, row=False)
    return Lane(shape, Term("none", core.float32), ())


def _joined(fuser: _Fuser, eqn: Eqn, lanes: list[Lane | None], like: Lane) -> Lane:
    """The equation over what `like` runs over; operands that do not fit to it are stored."""
    assert fuser.number is not None
    args, eqns = [], {fuser.number}
    for atom, lane in zip(eqn.inputs, lanes, strict=True):
        node = fuser.node(atom)
        if isinstance(node, Number):
            args.append(constant(node.value, atom.aval.dtype))
            continue
        term = _fitting(lane, like) if lane is not None else None
        if term is None:
            term = _view(fuser, fuser.exact(atom), like)
        else:
            assert lane is not None
            eqns.update(lane.eqns)
        args.append(term)
    out = eqn.outputs[0].aval
    term = Term(eqn.primitive.name, out.dtype, tuple(args), eqn.params)
    order = (*sorted(eqns - {fuser.number}), fuser.number)
    return Lane(out.shape, term, order, like.given, like.cut, like.row)


def _view(fuser: _Fuser, view: View, like: Lane) -> Term:
    """A stored operand over what `like` runs over."""
    if not like.row:
        return stored(view)
    found = as_rows(view, like)
    if found is None:
        found = as_rows(View.whole(fuser.move(view).buffer), like)
    assert found is not None, f"{view} is dense"
    return stored(found)


def _fitting(lane: Lane, like: Lane) -> Term | None:
    """The lane's term over what `like` runs over; None if it has to be stored."""
    if like.row:
        if lane.row:
            same = lane.space == like.space and lane.cut == like.cut
            return lane.term if same and lane.shape == like.shape else None
        if lane.cut is not None or lane.shape != like.shape:
            return None
        views = {v: as_rows(v, like) for v in lane.term.inputs() if isinstance(v, View)}
        if None in views.values():
            return None
        return lane.term.replaced(lambda v: views[v])  # type: ignore[index]
    if lane.space != like.space or (lane.row and lane.shape):
        return None
    return lane.term if lane.cut is None or lane.cut == like.cut else None


def moved(eqn: Eqn, lane: Lane) -> Lane | None:
    """A row's value in another shape, or for every element; None if it has to be stored."""
    shape, old = eqn.outputs[0].aval.shape, eqn.inputs[0].aval.shape
    name = eqn.primitive.name
    if not lane.row or name not in ("reshape", "broadcast_in_dim"):
        return None
    if prod(shape) == prod(old):
        return replace(lane, shape=shape, given=lane.space)
    assert lane.cut is not None
    if name == "reshape" or shape != lane.space:
        return None
    dims = eqn.params["broadcast_dimensions"]
    here = [d for d, n in zip(dims, old, strict=True) if n > 1]
    if here != [d for d, n in enumerate(shape[: lane.cut]) if n > 1]:
        return None
    return replace(lane, shape=shape, given=shape, row=False)


def reduction(fuser: _Fuser, eqn: Eqn) -> Node:
    """A reduction or a scan; of nothing it is a number."""
    (atom,) = eqn.inputs
    name, out = eqn.primitive.name, eqn.outputs[0].aval
    node = fuser.node(atom)
    if not prod(out.shape):
        return Number(out.dtype.type(0), out.shape)
    if name in SCANS:
        return scan(fuser, eqn)
    if not prod(atom.aval.shape):
        start = identity(name.removeprefix("reduce_"), out.dtype)
        return Number(start[()], out.shape)
    if isinstance(node, Number):
        node = View.whole(fuser.const(np.asarray(node.value))).broadcast(node.shape, ())
        fuser.nodes[id(atom)] = node
    lane = lane_of(fuser, atom)
    if lane is None:
        lane = Lane(atom.aval.shape, stored(fuser.exact(atom)), ())
    return _reduced(fuser, eqn, lane) if name in REDUCTIONS else _place(fuser, eqn, lane)


def _place(fuser: _Fuser, eqn: Eqn, lane: Lane) -> Node:
    """Where the largest key is: the smallest index of those that have the largest key."""
    name, out = eqn.primitive.name, eqn.outputs[0].aval
    ((p, r, c),) = groups(lane.shape, eqn.params["axes"])
    if r == 1:
        return Number(out.dtype.type(0), out.shape)
    far, index = constant(np.int32(2**31 - 1), core.int32), Term("index", core.int32)
    key = replace(lane, term=Term(f"{name}_key", core.int32, (lane.term,)))
    if c > 1:
        key = _sized(fuser, key, (p, r, c))
    best = _one(fuser, key, "reduce_max", core.int32, (p, r, c))
    if best.row:
        key, term = replace(best, term=best.term.args[0], row=False), best.term
    else:
        term = stored(_stored(fuser, best).broadcast((p, r, c), (0, 2)))
    chosen = _chosen(key, term, far, index)
    if c > 1 and not takes(fuser, chosen, "reduce_min", core.int32, (p, r, c)):
        key = Lane((p, r, c), stored(fuser.reshape(_stored(fuser, key), (p, r, c))), key.eqns)
        chosen = _chosen(key, term, far, index)
    if best.row:
        least = replace(best, shape=out.shape, term=Term("reduce_min", core.int32, (chosen.term,)))
    else:
        least = _one(fuser, chosen, "reduce_min", core.int32, (p, r, c))
        least = Lane(out.shape, stored(_stored(fuser, least, out.shape)), least.eqns)
    if out.dtype != core.int32:
        return converted(least, out.dtype)
    return least if best.row else _stored(fuser, least)


def _chosen(key: Lane, best: Term, far: Term, index: Term) -> Lane:
    """The index of elements whose key is the best one, else `far`."""
    same = Term("eq", core.bool_, (key.term, best))
    return replace(key, term=Term("select_n", core.int32, (same, far, index)))


def _sized(fuser: _Fuser, lane: Lane, size: tuple[int, int, int]) -> Lane:
    """The lane with views (P, R, C); stored first if they are none."""
    views = {v: flat(v if v.shape else v.broadcast(lane.space, ()), size)
             for v in lane.term.inputs() if isinstance(v, View)}  # fmt: skip
    if lane.cut is not None or lane.row or None in views.values():
        return Lane(size, stored(fuser.reshape(_stored(fuser, lane), size)), lane.eqns)
    return Lane(size, lane.term.replaced(lambda v: views[v]), lane.eqns)  # type: ignore[index]


def _reduced(fuser: _Fuser, eqn: Eqn, lane: Lane) -> Node:
    """All groups of dimensions, the last one first; in between in the accumulator's dtype."""
    name, out = eqn.primitive.name, eqn.outputs[0].aval
    steps = groups(lane.shape, eqn.params["axes"])
    for number, (p, r, c) in enumerate(steps):
        last = number == len(steps) - 1
        dtype = out.dtype if last else accumulator(out.dtype)
        if number:
            lane = Lane((p, r, c), stored(fuser.reshape(_stored(fuser, lane), (p, r, c))), ())
        lane = _one(fuser, lane, name, dtype, (p, r, c))
    return replace(lane, shape=out.shape, given=lane.space) if lane.row else _stored(
        fuser, lane, out.shape)  # fmt: skip


def _stored(fuser: _Fuser, lane: Lane, shape: tuple[int, ...] | None = None) -> View:
    """A lane as a view."""
    (view,) = lane.term.inputs() if lane.term.name == "input" else (fuser.compute(lane),)
    assert isinstance(view, View)
    return view if shape is None else fuser.reshape(view, shape)


def _one(fuser: _Fuser, lane: Lane, name: str, dtype: np.dtype,
         size: tuple[int, int, int]) -> Lane:  # fmt: skip
    """One group of dimensions of a lane."""
    assert fuser.number is not None
    p, r, c = size
    eqns = (*(n for n in lane.eqns if n != fuser.number), fuser.number)
    if c > 1:
        fuser.notes.append(
            f"equation {fuser.number} ({name}) is a kernel of its own: it reduces rows below each "
            f"other, {r} of {c} columns"
        )
        view = down(fuser, lane, name, dtype, size, eqns)
        return Lane((p, c), stored(view), ())
    cut = next((d for d in range(len(lane.shape) + 1) if prod(lane.shape[:d]) == p
                and prod(lane.shape[d:]) == r), None)  # fmt: skip
    total = Term(name, dtype, (lane.term,), Params())
    result = Lane((p,), total, eqns, lane.shape, cut, True)
    if cut is not None and not lane.row and lane.cut in (None, cut) and fits(result):
        return result
    view = _stored(fuser, lane)
    return Lane((p,), Term(name, dtype, (stored(fuser.reshape(view, (p, r))),)), eqns, (p, r), 1,
                True)  # fmt: skip
