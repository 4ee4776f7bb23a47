"""`take_rows` and `put_rows` as gathers and scatters of the chip, else as loops.

LOAD and STORE take rows that are a multiple of the bus from each other, at most `MOST` of them.
Rows of another size are copied first, each with zeros behind, if that is cheaper than a loop, which
takes some `STEP` cycles for a row. Arithmetic with rows that may repeat takes one after the other.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from tilewright.compiler import elementwise as ew
from tilewright.compiler import trace
from tilewright.compiler.control import closed, scan_p
from tilewright.compiler.core import Eqn, Literal, Params, Var
from tilewright.compiler.fuse_lanes import Lane, stored
from tilewright.compiler.kernel_builder import Node, Number
from tilewright.compiler.kernels import (
    Accumulate,
    Buffer,
    Epilogue,
    Gather,
    Kernel,
    Lanes,
    Scatter,
    View,
)
from tilewright.compiler.primitives_rows import COMBINE
from tilewright.compiler.schedule import A_BANKS
from tilewright.compiler.taking import MOST, row_of, with_row
from tilewright.compiler.terms import Term
from tilewright.compiler.tile_rows import one_row, row_parts
from tilewright.compiler.tiles import Plan

if TYPE_CHECKING:
    from tilewright.compiler.fuse import _Fuser

ROWS = ("take_rows", "put_rows")
STEP = 700  # cycles
LONGEST = 4096  # rows that are computed one after the other without a loop


def by_rows(fuser: _Fuser, eqn: Eqn) -> Node | None:
    """The result of one of `ROWS`; None if it must be a loop."""
    if not prod(eqn.outputs[0].aval.shape):
        return View.whole(fuser.temp(eqn.outputs[0].aval.shape, eqn.outputs[0].aval.dtype))
    return (_gather if eqn.primitive.name == "take_rows" else _scatter)(fuser, eqn)


def _gather(fuser: _Fuser, eqn: Eqn) -> Node | None:
    x, i = eqn.inputs
    aval, node = eqn.outputs[0].aval, fuser.node(x)
    if isinstance(node, Number):
        return Number(node.value, aval.shape)
    view = fuser.exact(x)
    bus = fuser.config.bus_bytes
    if view.shape[0] > MOST:
        return None
    run, around = row_parts(view)
    pitch = view.strides[0] * view.dtype.itemsize if view.shape[0] > 1 else 0
    if pitch % bus or (around and run < bus):
        if not _pays(fuser, view, i.aval.shape[0]):
            return None
        view = _aligned(fuser, view)
    out = fuser.temp(aval.shape, aval.dtype)
    fuser.add(Gather(view, _numbers(fuser, i)), Epilogue(aval.dtype), out)
    return View.whole(out)


def _scatter(fuser: _Fuser, eqn: Eqn) -> Node | None:
    x, i, y = eqn.inputs
    aval, kind = eqn.outputs[0].aval, eqn.params["kind"]
    if not prod(y.aval.shape):
        return fuser.node(x)
    if aval.shape[0] > MOST or (kind != "set" and y.aval.shape[0] > LONGEST):
        return None
    pair = _fitting(fuser, fuser.exact(x), fuser.exact(y))
    if pair is None:
        return None
    view, rows = pair
    out = fuser.temp(view.shape, aval.dtype)
    source: Scatter | Accumulate | None = Scatter(view, _numbers(fuser, i), rows)
    if kind != "set":
        source = _accumulate(fuser, Scatter(view, _numbers(fuser, i), rows), out, kind)
    if source is None:
        return None
    fuser.add(source, Epilogue(aval.dtype), out)
    width = prod(aval.shape[1:])
    flat = View.whole(out).reshape((aval.shape[0], prod(view.shape[1:])))
    assert flat is not None
    return flat.slice((0, 0), (aval.shape[0], width), (1, 1)).reshape(aval.shape)


def _fitting(fuser: _Fuser, view: View, rows: View) -> tuple[View, View] | None:
    """An array and rows for it, dense, a row a multiple of the bus; None if that takes too long."""
    if not _row_bytes(view) % fuser.config.bus_bytes:
        return _dense(fuser, view), _dense(fuser, rows)
    if not _pays(fuser, view, rows.shape[0]):
        return None
    return View.whole(_aligned(fuser, view).buffer), View.whole(_aligned(fuser, rows).buffer)


def _accumulate(fuser: _Fuser, given: Scatter, out: Buffer, kind: str) -> Accumulate | None:
    """Rows computed one after the other, by the operations of one; None if it has too many."""
    shape, dtype = (1, prod(given.y.shape[1:])), given.y.dtype
    old, new, sums = (Buffer(n, shape, dtype, "temp") for n in ("old", "new", "sums"))
    terms = tuple(stored(View.whole(b)) for b in (old, new))
    first = len(fuser.kernels)
    assert fuser.number is not None
    fuser.compute(Lane(shape, Term(kind, dtype, terms), (fuser.number,)), sums)
    made, fuser.kernels[first:] = fuser.kernels[first:], []
    step = made[0].source
    if len(made) > 1 or not isinstance(step, Lanes) or step.views[0].buffer is not old:
        return None
    source = Accumulate(given.x, given.index, given.y, step)
    kernel = Kernel("", source, Epilogue(dtype), out)
    return source if one_row(Plan(fuser.config, A_BANKS), kernel, 0) is not None else None


def _dense(fuser: _Fuser, view: View) -> View:
    return view if view.is_dense else View.whole(fuser.move(view).buffer)


def _row_bytes(view: View) -> int:
    return prod(view.shape[1:]) * view.dtype.itemsize


def _padded_bytes(fuser: _Fuser, view: View) -> int:
    bus = fuser.config.bus_bytes
    return -(-_row_bytes(view) // bus) * bus


def _pays(fuser: _Fuser, view: View, count: int) -> bool:
    """Whether a copy of all rows, in and out, takes less time than a loop over `count`."""
    beats = view.shape[0] * _padded_bytes(fuser, view) // fuser.config.bus_bytes
    return 2 * beats <= count * STEP


def _aligned(fuser: _Fuser, view: View) -> View:
    """The rows, dense but for zeros behind each."""
    shape, width = view.shape, prod(view.shape[1:])
    extra = _padded_bytes(fuser, view) // view.dtype.itemsize - width
    flat = fuser.reshape(view, (shape[0], width))
    if not extra:
        return View.whole(fuser.move(flat).buffer) if not flat.is_dense else flat
    zero = view.dtype.type(0)
    padded = fuser.pad(flat, zero, ((0, 0, 0), (0, extra, 0)))
    return padded.slice((0, 0), (shape[0], width), (1, 1))


def _numbers(fuser: _Fuser, atom: Var | Literal) -> View:
    """int32 one behind the other."""
    view = fuser.exact(atom)
    near = view.shape[0] == 1 or view.strides == (1,)
    return view if near else View.whole(fuser.move(view).buffer)


def _take(x, i):
    return [row_of(x, ew.maximum(i, 0))]


def _put(kind):
    def step(x, i, row):
        old = row_of(x, i)
        new = row if kind == "set" else trace.bind(COMBINE[kind], old, row)
        return [with_row(x, i, old, new)]

    return step


def as_loop(eqn: Eqn) -> Eqn:
    """The equation as a scan."""
    x, i, *y = eqn.inputs
    rows = [a.aval.update(shape=a.aval.shape[1:]) for a in (i, *y)]
    jaxpr, _ = closed(_put(eqn.params["kind"]) if y else _take, [x.aval, *rows])
    params = Params(jaxpr=jaxpr, length=i.aval.shape[0], reverse=False, consts=1 - len(y),
                    carry=len(y))  # fmt: skip
    return Eqn(scan_p, eqn.inputs, eqn.outputs, params, eqn.source)
