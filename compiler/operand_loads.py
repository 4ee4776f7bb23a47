"""LOADs of a contraction's operands: rectangles of a view into slots, by the fastest way there is.

Contiguous rows become local rows as they are. Where the columns of the view are contiguous instead
(`x.T`, `w.T`), LOAD transposes runs of them at the speed of the bus (`schedule_turns`). Else every
element is a beat of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from tilewright.compiler import core
from tilewright.compiler.kernels import View
from tilewright.compiler.patches import Patches
from tilewright.compiler.schedule import SHORT, Operand, Span
from tilewright.compiler.schedule_turns import turn
from tilewright.compiler.tiles import Dram, Local, Op
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import Conv, Mem, Type

OPERAND_TYPE = {
    core.int8: Type.I8,
    core.uint8: Type.U8,
    core.bfloat16: Type.BF16,
    core.float32: Type.BF16,
}
OPERAND_CONV = {
    core.int8: Conv.COPY8,
    core.uint8: Conv.COPY8,
    core.bfloat16: Conv.COPY16,
    core.float32: Conv.F32_BF16,
}
PARTS = (Conv.F32_BF16, Conv.F32_MID, Conv.F32_LO)


def way(view: View) -> str:
    """How the rows of a (B, R, C) view come to be local rows; see `Operand`."""
    _, rows, cols = view.shape
    _, row_stride, col_stride = view.strides
    if cols == 1 or col_stride == 1:
        return "rows"
    return "columns" if row_stride == 1 and rows > SHORT else "gather"


def part_conv(view: View | Patches, part: int) -> Conv:
    """LOAD's conversion of an operand, or of a part of it if it is float32."""
    return PARTS[part] if view.dtype == core.float32 else OPERAND_CONV[view.dtype]


def operand(view: View | Patches) -> Operand:
    """What scheduling knows of a view."""
    if isinstance(view, Patches):
        return _patches(view)
    size, kind = view.dtype.itemsize, way(view)
    pitch = view.strides[2 if kind == "columns" else 1] * size
    return Operand(size, kind, pitch, view.offset * size % 64, view.strides[0] == 0)


def _patches(patches: Patches) -> Operand:
    size = patches.dtype.itemsize
    pitch = gcd(*(s * size for n, s in (*patches.pixels, *patches.taps[1:]) if n > 1))
    taps, pixels = (tuple(n for n, _ in levels) for levels in (patches.taps, patches.pixels))
    way = "turned" if patches.turned else "patches"
    return Operand(size, way, pitch, patches.offset * size % 64, patches.batch[0] == 1, taps,
                   pixels, patches.lanes)  # fmt: skip


def span_bytes(view: View, low: tuple[int, ...], high: tuple[int, ...]) -> Dram:
    """Bytes of the buffer between the lowest and the highest element of low <= index < high."""
    size = view.dtype.itemsize
    lo = hi = view.offset
    run, pitch = 1, 0
    for a, b, s in zip(low, high, view.strides, strict=True):
        lo += min(a * s, (b - 1) * s)
        hi += max(a * s, (b - 1) * s)
        if s == 1:
            run = b - a
        elif b - a > 1:
            pitch = -1 if pitch else s  # of one dimension only
    if pitch < run:
        run = pitch = 0
    return Dram(view.buffer, lo * size, (hi + 1) * size, run * size, pitch * size)


@dataclass(frozen=True)
class Layout:
    """Where a chunk's elements lie in its slot, in granules.

    Parameters
    ----------
    row : from one local row to the next.
    unit : from one unit of `dim` elements of a row to the next.
    local : granules of a unit.
    """

    row: int
    unit: int
    local: int


class Loader:
    """The LOADs of one operand."""

    def __init__(self, view: View, config: ChipConfig, number: int):
        self.view, self.config, self.number = view, config, number
        self.operand = operand(view)
        self.way = self.operand.way
        size = view.dtype.itemsize
        self.size = size
        self.batch, self.row, self.col = (s * size for s in view.strides)

    def loads(
        self, batch: int, rows: Span, cols: Span, at: int, used: Local, layout: Layout, part: int
    ) -> list[Op]:
        """LOAD rows x cols; their first local row begins at granule `at`, `used` is written.

        Parameters
        ----------
        part : of float32 elements (0: high, 1: middle, 2: low).
        """
        self.conv = part_conv(self.view, part)
        if self.way != "columns":
            return [self._plain(batch, rows, cols, at, used, layout)]
        out, first = [], rows[0]
        best = turn(self.config, self.operand, rows[1] - rows[0], cols[1] - cols[0])
        for run, count in best.cut:
            place = at + (first - rows[0]) * layout.row
            out.append(self._turned(batch, (first, run, count), cols, place, used, layout))
            first += run * count
        return out

    def _op(self, batch: int, rows: Span, cols: Span, at: int, used: Local, fields: dict) -> Op:
        (r0, r1), (c0, c1) = rows, cols
        place = span_bytes(self.view, (batch, r0, c0), (batch + 1, r1, c1))
        first = self.view.offset * self.size + batch * self.batch + r0 * self.row + c0 * self.col
        head = {"mem": Mem.SPAD, "conv": self.conv, "loc": at}
        return Op("load", head | fields, (place,), (used,), self.number, "dram",
                  self.view.buffer, first)  # fmt: skip

    def _plain(self, batch, rows, cols, at, used, layout) -> Op:
        width, height = cols[1] - cols[0], rows[1] - rows[0]
        if self.way == "rows":
            fields = {"l0": layout.unit, "c0": width, "c1": height, "s1": self.row,
                      "l1": layout.row, "pack": 1}  # fmt: skip
        else:
            fields = {"l0": layout.unit, "c0": 1, "c1": width, "s1": self.col, "c2": height,
                      "s2": self.row, "l2": layout.row, "pack": 2}  # fmt: skip
        return self._op(batch, rows, cols, at, used, fields)

    def _turned(self, batch, rows, cols, at, used, layout) -> Op:
        """Runs of the transposer are parts of the view's columns; its units are the view's rows."""
        first, run, count = rows
        fields = {
            "xpose": 1, "pack": 1, "c0": run, "c1": cols[1] - cols[0], "s1": self.col,
            "l0": layout.row, "l1": layout.unit, "c2": count, "s2": run * self.row,
            "l2": run * layout.row,
        }  # fmt: skip
        return self._op(batch, (first, first + run * count), cols, at, used, fields)
