"""Reductions over rows, one below the other, as kernels of their own: `Down`.

What is computed element by element before it is in the same kernel while its views and words allow,
else it is stored first. Too many rows are reduced in pieces, whose results another kernel combines.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from tilewright.compiler.down_steps import folds_of
from tilewright.compiler.fuse_group import rows_of
from tilewright.compiler.fuse_lanes import Lane, flat, stored
from tilewright.compiler.kernels import Buffer, Down, Epilogue, Kernel, View
from tilewright.compiler.primitives_reduce import CHUNK
from tilewright.compiler.schedule import ceil_div
from tilewright.compiler.terms import Term
from tilewright.compiler.tile_down import DownLayout
from tilewright.compiler.vector_reduce import accumulator
from tilewright.isa.units import LOAD_STREAMS

if TYPE_CHECKING:
    from tilewright.compiler.kernel_builder import KernelBuilder

Size = tuple[int, int, int]


def down(builder: KernelBuilder, lane: Lane, name: str, dtype: np.dtype, size: Size,
         eqns: tuple[int, ...]) -> View:  # fmt: skip
    """The reduction over R of a lane seen as (P, R, C), as a view (P, C)."""
    found = _source(builder, lane, name, dtype, size)
    if found is None:
        places = lane.cut is None and any(t.name == "index" for t in lane.term.nodes())
        assert not places, f"{lane} counts the rows that are reduced"
        view = lane.term.value if lane.term.name == "input" else builder.compute(lane)
        assert isinstance(view, View)
        whole = Lane(lane.shape, stored(View.whole(builder.move(view).buffer)), lane.eqns)
        found = _source(builder, whole, name, dtype, size)
        assert found is not None, f"{name} of a dense array has a kernel"
    p, _, c = size
    out = builder.temp((p, c), dtype)
    _write(builder, found, out, eqns)
    return View.whole(out)


def takes(builder: KernelBuilder, lane: Lane, name: str, dtype: np.dtype, size: Size) -> bool:
    """Whether one kernel computes a lane and reduces it."""
    return _source(builder, lane, name, dtype, size) is not None


def _source(builder: KernelBuilder, lane: Lane, name: str, dtype: np.dtype,
            size: Size) -> Down | None:  # fmt: skip
    """The kernel's source, or None if VECTOR cannot compute the lane beside."""
    given = lane.term.inputs()
    if lane.cut is not None or lane.row or len(given) > len(LOAD_STREAMS):
        return None
    full = [v if v.shape else v.broadcast(lane.shape, ()) for v in given if isinstance(v, View)]
    views = [flat(v, size) for v in full]
    if None in views or len(views) < len(given):
        return None
    term = Term(name, dtype, (lane.term.replaced(given.index),))
    source = Down(tuple(v for v in views if v is not None), term)
    folds, config = folds_of(source, builder.config.dim), builder.config
    if folds is None:
        return None
    small = all(rows_of(config, len(f.micro.words)) <= config.acc_rows // 4 for f in folds)
    return source if small else None


def _write(builder: KernelBuilder, source: Down, out: Buffer, eqns: tuple[int, ...]) -> None:
    """One kernel, or one of pieces and one that combines them."""
    config = builder.config
    if DownLayout(config, source).sizes is not None:
        _add(builder, source, out, eqns)
        return
    fitting = [n for n in (CHUNK * CHUNK, CHUNK)
               if DownLayout(config, replace(source, split=n)).sizes is not None]  # fmt: skip
    assert fitting, f"{source}: a chunk of rows fits"
    (p, r, c), wanted = source.shape, accumulator(source.term.args[0].dtype)
    shape = (p, ceil_div(r, fitting[0]), c)
    parts = builder.temp(shape, wanted)
    _add(builder, replace(source, split=fitting[0]), parts, eqns)
    term = Term(source.term.name, source.term.dtype, (Term("input", wanted, value=0),))
    _write(builder, Down((View.whole(parts),), term), out, eqns)


def _add(builder: KernelBuilder, source: Down, out: Buffer, eqns: tuple[int, ...]) -> None:
    folds = folds_of(source, builder.config.dim)
    assert folds is not None, f"{source} was made to fit"
    codes = [np.frombuffer(f.micro.code, np.uint32) for f in folds]
    source = replace(source, codes=tuple(View.whole(builder.const(code)) for code in codes))
    user = builder.jaxpr.eqns[eqns[-1]].source
    name = f"k{len(builder.kernels)}"
    builder.kernels.append(Kernel(name, source, Epilogue(out.dtype), out, eqns, user))
