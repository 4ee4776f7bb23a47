"""Tile a windowed maximum: part of the image into a local memory, STOREs that pool on the way out.

STORE knows no padding, so results whose windows reach over an edge get STOREs of their own, with
the smaller window that is left of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from tilewright.compiler import core
from tilewright.compiler.boxes import box_loads, merged
from tilewright.compiler.image import Spans
from tilewright.compiler.kernels import Axis, Kernel, Pool
from tilewright.compiler.operand_loads import span_bytes
from tilewright.compiler.schedule import ceil_div, cell_granules
from tilewright.compiler.tile_store import TYPE, store_fields
from tilewright.compiler.tiles import Dram, Local, Op, Plan
from tilewright.isa.table import Conv, Mem, Type

CONV = {1: Conv.COPY8, 2: Conv.COPY16, 4: Conv.COPY32}


@dataclass(frozen=True)
class Run:
    """Results first <= o < first + count, whose windows hold `taps` elements from `source` on."""

    first: int
    count: int
    source: int
    taps: int


def runs(axis: Axis, o0: int, o1: int) -> list[Run]:
    """Results o0 <= o < o1, those with whole windows together."""
    out: list[Run] = []
    for o in range(o0, o1):
        begin = o * axis.stride - axis.pad
        low, high = max(0, begin), min(axis.size, begin + axis.taps)
        whole = high - low == axis.taps
        if whole and out and out[-1].taps == axis.taps:
            out[-1] = Run(out[-1].first, out[-1].count + 1, out[-1].source, axis.taps)
        else:
            out.append(Run(o, 1, low, high - low))
    return out


def reads(axis: Axis, o0: int, o1: int) -> tuple[int, int]:
    """Elements of the image that these results' windows hold."""
    begin = o0 * axis.stride - axis.pad
    end = (o1 - 1) * axis.stride - axis.pad + axis.taps
    return max(0, begin), min(axis.size, end)


def tile_pool(plan: Plan, kernel: Kernel, number: int) -> list[Op]:
    """All operations of one pool kernel."""
    source = kernel.source
    assert isinstance(source, Pool)
    x, (h, w), d = source.x, source.axes, plan.config.dim
    batches, _, _, c = x.shape
    wide = x.dtype.itemsize == 4
    mem = Mem.ACC if wide else Mem.SPAD
    local = 2 if x.dtype == core.bfloat16 else 1
    cell = cell_granules(plan.config)
    slots = 2 if wide else 4
    room = plan.half if wide else plan.w_base // slots // cell * cell
    pixels = room // local  # of one unit
    least = min(h.taps, h.size) * min(w.taps, w.size)
    units = max(1, min(ceil_div(c, d), pixels // least))
    rows, cols = _tile(h, w, pixels // units)
    ops: list[Op] = []
    turn = 0
    for b, r0, c0, k0 in product(range(batches), range(0, h.out, rows), range(0, w.out, cols),
                                 range(0, c, units * d)):  # fmt: skip
        spans = (r0, min(h.out, r0 + rows)), (c0, min(w.out, c0 + cols))
        channels = (k0, min(c, k0 + units * d))
        slot = Local(mem, turn * room, (turn + 1) * room)
        ops += _load(source, b, spans, channels, slot, d, local, number)
        width = reads(w, *spans[1])
        unit = ceil_div(channels[1] - channels[0], d) * local
        steps = local, (width[1] - width[0]) * unit, unit
        ops += pool_stores(kernel, source.axes, TYPE[x.dtype], b, spans, channels, slot, (slot,),
                           steps, c, number)  # fmt: skip
        turn = (turn + 1) % slots
    return ops


def _tile(h: Axis, w: Axis, pixels: int) -> tuple[int, int]:
    """Results along each axis whose windows fit; whole rows if one of them does."""

    def need(rows: int, cols: int) -> int:
        tall = min(h.size, (rows - 1) * h.stride + h.taps)
        return tall * min(w.size, (cols - 1) * w.stride + w.taps)

    rows, cols = 1, w.out
    while cols > 1 and need(1, cols) > pixels:
        cols = ceil_div(cols, 2)
    while rows < h.out and need(rows + 1, cols) <= pixels:
        rows += 1
    return rows, cols


def _load(source: Pool, batch: int, spans, channels: tuple[int, int], slot: Local, d: int,
          local: int, number: int) -> list[Op]:  # fmt: skip
    x = source.x
    size = x.dtype.itemsize
    (h0, h1), (w0, w1) = (reads(a, *s) for a, s in zip(source.axes, spans, strict=True))
    low, high = (batch, h0, w0, channels[0]), (batch + 1, h1, w1, channels[1])
    first = x.offset + sum(i * s for i, s in zip(low, x.strides, strict=True))
    count = channels[1] - channels[0]
    unit = ceil_div(count, d) * local
    outer = [(w1 - w0, x.strides[2] * size, unit), (h1 - h0, x.strides[1] * size, (w1 - w0) * unit)]
    return box_loads(x, first * size, merged([(count, x.strides[3] * size)]), outer, slot, slot.lo,
                     CONV[size], local, span_bytes(x, low, high), number)  # fmt: skip


def pool_stores(kernel: Kernel, axes: tuple[Axis, Axis], source: Type, batch: int, spans: Spans,
                channels: tuple[int, int], place: Local, read: tuple[Local, ...],
                steps: tuple[int, int, int], pitch: int, number: int,
                vectors: dict[str, int] | None = None) -> list[Op]:  # fmt: skip
    """STOREs of the windows' maxima for some results (B, H, W, channels) of a kernel.

    Parameters
    ----------
    spans : results along H and W.
    place : where the elements of their windows lie, of these channels.
    steps : local rows from one unit of `dim` channels, one row, one column to the next.
    pitch : channels of a result.
    """
    h, w = axes
    out, c = kernel.out, pitch
    size = out.dtype.itemsize
    unit, row_step, col_step = steps
    top, left = (reads(a, *s)[0] for a, s in zip(axes, spans, strict=True))
    ops = []
    for row, col in product(runs(h, *spans[0]), runs(w, *spans[1])):
        first = ((batch * h.out + row.first) * w.out + col.first) * c + channels[0]
        last = ((row.count - 1) * w.out + col.count - 1) * c + channels[1] - channels[0]
        fields = store_fields(kernel, source) | (vectors or {}) | {
            "mem": place.mem, "pool": 1, "pool_h": row.taps, "pool_w": col.taps,
            "pool_sh": h.stride, "pool_sw": w.stride, "l0": unit, "l1": col_step, "l2": row_step,
            "c0": channels[1] - channels[0], "c1": col.count, "c2": row.count,
            "s1": c * size, "s2": w.out * c * size,
            "loc": place.lo + (row.source - top) * row_step + (col.source - left) * col_step,
        }  # fmt: skip
        written = Dram(out, first * size, (first + last) * size)
        ops.append(Op("store", fields, read, (written,), number, "dst", out, first * size))
    return ops
