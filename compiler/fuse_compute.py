"""Lanes become kernels: one for all that fits the chip together, else one for each stage.

Rows that are reduced and do not fit are reduced in pieces of CHUNK or CHUNK^2 units, whose results
another kernel combines; the order of additions stays the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.fuse_group import Root, group
from tilewright.compiler.fuse_lanes import MOST_OPERATIONS, MOST_VIEWS, Lane, arranged, flat
from tilewright.compiler.kernels import Buffer, Epilogue, Kernel, Lanes, Stage, View, dense_strides
from tilewright.compiler.lane_steps import combined, reduction, steps_of
from tilewright.compiler.primitives_reduce import CHUNK
from tilewright.compiler.schedule import ceil_div
from tilewright.compiler.terms import Term
from tilewright.compiler.tile_vector import Layout
from tilewright.compiler.vector_reduce import accumulator

if TYPE_CHECKING:
    from tilewright.compiler.kernel_builder import KernelBuilder


def compute(builder: KernelBuilder, lanes: Sequence[Lane], outs: Sequence[Buffer]) -> None:
    """Kernels that write lanes of one space to buffers; equal ones are computed once."""
    if not prod(lanes[0].shape):
        return
    made: dict[tuple[Term, bool], Buffer] = {}
    copies = []
    for lane, out in zip(lanes, outs, strict=True):
        known = made.setdefault((lane.term, lane.row), out)
        copies += [(known, out, lane.shape)] if known is not out else []
    again = {id(out) for _, out, _ in copies}
    pairs = [(x, b) for x, b in zip(lanes, outs, strict=True) if id(b) not in again]
    _compute(builder, [x for x, _ in pairs], [b for _, b in pairs])
    for known, out, shape in copies:
        builder.move(View(known, shape, dense_strides(shape)), out)


def _compute(builder: KernelBuilder, lanes: Sequence[Lane], outs: Sequence[Buffer]) -> None:
    first = max(lanes, key=lambda x: x.cut is not None)
    space = first.space
    terms = [x.term for x in lanes]
    given = list(dict.fromkeys(v for t in terms for v in t.inputs() if isinstance(v, View)))
    views = [v if v.shape else v.broadcast(space, ()) for v in given]
    pair = arranged(views, space)
    if first.cut is not None:
        pair = prod(space[: first.cut]), prod(space[first.cut :])
    ready = [flat(v, pair) or _copied(builder, v, pair) for v in views]
    made: dict[int, Term] = {}
    for t in dict.fromkeys(t for term in terms for t in term.nodes()):
        args = tuple(made[id(a)] for a in t.args)
        value = given.index(t.value) if t.name == "input" else t.value  # type: ignore[arg-type]
        made[id(t)] = Term(t.name, t.dtype, args, t.params, value)
    roots = [Root(made[id(x.term)], not x.row) for x in lanes]
    writer = _Writer(builder, lanes)
    if len(lanes) == 1 and first.cut is not None and roots[0].wide:
        root, epilogue = affine(roots[0].term, ready)
        if epilogue.vectors:
            used = root.inputs()
            root, left = root.replaced(used.index), [ready[n] for n in used]  # type: ignore[call-overload]
            found = group(builder.config, [Root(root, True)], left, pair)
            layout = found and Layout(builder.config, found, len(epilogue.vectors))
            if found and layout and layout.sizes is not None:
                writer.add(found, outs, epilogue)
                return
    found = group(builder.config, roots, ready, pair)
    assert found is not None, f"{lanes} were made to fit"
    writer.write(found, outs)


def affine(root: Term, views: Sequence[View]) -> tuple[Term, Epilogue]:
    """What is left of a term of float32 when STORE scales, adds and rounds at its end.

    As in a normalisation: one factor and one summand for each column, in views (R, C).
    """
    epilogue = Epilogue(root.dtype)
    if root.name == "convert_element_type" and root.dtype == core.bfloat16:
        root = root.args[0]
    if root.dtype != core.float32:
        return root, epilogue
    root, bias = _with_column(root, "add", views)
    root, scale = _with_column(root, "mul", views)
    return root, replace(epilogue, scale=scale, bias=bias)


def _with_column(root: Term, name: str, views: Sequence[View]) -> tuple[Term, View | None]:
    """The other operand of an operation with columns, and the columns."""
    if root.name == name:
        for a, b in (root.args, root.args[::-1]):
            column = _column(b, views)
            if column is not None:
                return a, column
    return root, None


def _column(term: Term, views: Sequence[View]) -> View | None:
    """The columns of an operand that is the same in every row."""
    if term.name != "input":
        return None
    view = views[term.value]  # type: ignore[call-overload]
    dense = view.strides[0] == 0 and view.strides[1] == 1 and view.shape[0] > 1
    if view.dtype != core.float32 or not dense:
        return None
    return View(view.buffer, view.shape[1:], (1,), view.offset)


def _copied(builder: KernelBuilder, view: View, pair: tuple[int, int]) -> View:
    """The view as (rows, columns): of what repeats along the one or the other only one is copied.

    What is one number for each row must stay so, or a row's results were as many as its columns.
    """
    sizes = [prod(view.shape[:d]) for d in range(len(view.shape) + 1)]
    cut = sizes.index(pair[0])
    repeats = [
        not any(s for n, s in zip(view.shape[part], view.strides[part], strict=True) if n > 1)
        for part in (slice(None, cut), slice(cut, None))
    ]
    if not any(repeats):
        return builder.reshape(view, pair)
    kept = slice(cut, None) if repeats[0] else slice(None, cut)
    part = View(view.buffer, view.shape[kept], view.strides[kept], view.offset)
    dense = builder.reshape(part, (prod(part.shape),))
    strides = (0, dense.strides[0]) if repeats[0] else (dense.strides[0], 0)
    return View(dense.buffer, pair, strides, dense.offset)


class _Writer:
    """Kernels of one group."""

    def __init__(self, builder: KernelBuilder, lanes: Sequence[Lane]):
        self.builder = builder
        self.eqns = tuple(sorted({n for x in lanes for n in x.eqns}))
        self.user = builder.jaxpr.eqns[self.eqns[-1]].source

    def write(self, lanes: Lanes, outs: Sequence[Buffer]) -> None:
        """One kernel if it fits, else one for each stage, or pieces of rows."""
        if Layout(self.builder.config, lanes).sizes is not None:
            self.add(lanes, outs)
        elif len(lanes.stages) > 1:
            rows, cols = lanes.shape
            self.builder.notes.append(
                f"equations {', '.join(map(str, self.eqns))} are {len(lanes.stages)} kernels: "
                f"{rows} rows of {cols} do not fit the local memories"
            )
            self.separate(lanes, outs)
        else:
            self.pieces(lanes, outs)

    def add(self, lanes: Lanes, outs: Sequence[Buffer], epilogue: Epilogue | None = None) -> None:
        """One kernel."""
        b = self.builder
        steps = steps_of(lanes, b.config.dim)
        assert steps is not None
        codes = [np.frombuffer(s.micro.code, np.uint32) for s in steps.steps]
        lanes = replace(lanes, codes=tuple(View.whole(b.const(code)) for code in codes))
        out, *more = outs
        epilogue = epilogue or Epilogue(out.dtype)
        b.kernels.append(Kernel(f"k{len(b.kernels)}", lanes, epilogue, out, self.eqns,
                                self.user, tuple(more)))  # fmt: skip

    def separate(self, lanes: Lanes, outs: Sequence[Buffer]) -> None:
        """A kernel for each stage; what they hand on goes through DRAM."""
        (rows, cols), values = lanes.shape, list(lanes.views)
        for stage in lanes.stages:
            numbers = list(dict.fromkeys(n for t in stage.terms for n in t.inputs()))
            terms = tuple(t.replaced(numbers.index) for t in stage.terms)
            views = tuple(values[n] for n in numbers)  # type: ignore[call-overload]
            buffers = []
            for t in terms:
                number = len(values)
                row = not stage.wide or (t is terms[-1] and reduction(t) is not None)
                shape = (rows,) if row else (rows, cols)
                wanted = [b for n, b in zip(lanes.outs, outs, strict=True) if n == number]
                buffers.append(wanted[0] if wanted else self.builder.temp(shape, t.dtype))
                values.append(View(buffers[-1], (rows, cols), (1, 0) if row else (cols, 1)))
            if not stage.wide:
                views = tuple(View(v.buffer, (1, rows), (0, v.strides[0]), v.offset) for v in views)
            shape = lanes.shape if stage.wide else (1, rows)
            results = tuple(range(len(views), len(views) + len(terms)))
            self.write(Lanes(shape, views, (Stage(terms),), results), buffers)

    def pieces(self, lanes: Lanes, outs: Sequence[Buffer]) -> None:
        """Pieces of rows, and a kernel that combines them."""
        (term, *_) = reversed(lanes.stages[0].terms)
        total, b = reduction(term), self.builder
        assert total is not None, f"{lanes} was made to fit"
        split = self._split(lanes)
        rows, cols = lanes.shape
        step = CHUNK if split < CHUNK * CHUNK else split
        count = ceil_div(ceil_div(cols, b.config.dim), step) * b.config.dim
        wanted = accumulator(total.args[0].dtype)
        parts = b.temp((rows, count), wanted)
        self.add(replace(lanes, split=split), [*outs[:-1], parts])
        stage = Stage((combined(term, total, wanted),))
        self.write(Lanes((rows, count), (View.whole(parts),), (stage,), (1,)), outs[-1:])

    def _split(self, lanes: Lanes) -> int:
        """Units of a piece: the most of which two tiles fit, else of which one fits."""
        fitting = []
        for count in range(CHUNK, 0, -1):
            sizes = Layout(self.builder.config, replace(lanes, split=count * CHUNK)).sizes
            if sizes is not None and sizes.slots > 1:
                return count * CHUNK
            fitting += [count * CHUNK] if sizes is not None else []
        assert fitting, f"{lanes}: a chunk fits"
        return fitting[0]


def together(builder: KernelBuilder, lanes: dict[int, Lane]) -> Iterator[list[int]]:
    """Numbers of the lanes that are results, those that share operands together."""
    parts: list[list[int]] = []
    for i, lane in lanes.items():
        for part in parts:
            if _alike([lanes[n] for n in part], lane):
                part.append(i)
                break
        else:
            parts.append([i])
    yield from parts


def _alike(known: list[Lane], lane: Lane) -> bool:
    """Whether a lane may be computed with others, and shares an array with them."""
    if not prod(lane.shape) or not prod(known[0].shape) or known[0].space != lane.space:
        return False
    if len({x.cut for x in (*known, lane) if x.cut is not None}) > 1:
        return False
    nodes = {t for x in (*known, lane) for t in x.term.nodes()}
    views = {t.value for t in nodes if t.name == "input"}
    if len(views) > MOST_VIEWS or sum(1 for t in nodes if t.args) > MOST_OPERATIONS:
        return False
    mine = {v for v in lane.term.inputs() if isinstance(v, View) and prod(v.shape) > 1}
    return any(mine & set(x.term.inputs()) for x in known)
