"""Stage an image: its padded copy in DRAM (a `Pad` kernel's result), in parts, as tiles need them.

Rows go from DRAM through the scratchpad to their places; a stage has a region of its own there, so
that the copy runs while the array works on what was copied before. A copy in phases gathers each
phase's columns on the way in, so that rows are long on the way out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from tilewright.compiler.boxes import merged
from tilewright.compiler.kernels import Kernel, Pad, View
from tilewright.compiler.schedule import MAX_COUNT, ceil_div, cell_granules
from tilewright.compiler.tiles import Dram, Local, Op
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import Conv, Mem, Type

FILL = {1: Conv.COPY8, 2: Conv.COPY16, 4: Conv.COPY32}
BYTES = {"mem": Mem.SPAD, "type": Type.I8, "out": Type.I8, "int_path": 1, "l0": 1}
ZEROS = 512  # bytes of the row that is stored where there is no image


Span = tuple[int, int]


@dataclass(frozen=True)
class Columns:
    """Columns of the image that lie `step` apart in the copy, from column `at` on."""

    x: View
    at: int
    step: int

    def within(self, cols: Span) -> Columns:
        """Those whose places in the copy are in cols[0] <= place < cols[1]."""
        first, last = (min(max(0, ceil_div(c - self.at, self.step)), self.x.shape[2]) for c in cols)
        start, limit = (0, 0, first, 0), (*self.x.shape[:2], max(first, last), self.x.shape[3])
        return Columns(self.x.slice(start, limit, (1, 1, 1, 1)), self.at + first * self.step,
                       self.step)  # fmt: skip


class Stage:
    """The padded copy of one image array (B, H, W, C).

    Parameters
    ----------
    kernel, number : of the `Pad`.
    region : granules first <= granule < last of the scratchpad.
    """

    def __init__(self, config: ChipConfig, kernel: Kernel, number: int, region: tuple[int, int]):
        source = kernel.source
        assert isinstance(source, Pad)
        self.source, self.out, self.number, self.dim = source, kernel.out, number, config.dim
        self.batch, self.height, self.width, self.channels = kernel.out.shape
        self.size = kernel.out.dtype.itemsize
        cell = cell_granules(config)
        self.first, self.room = region[0], (region[1] - region[0]) // 4 // cell * cell
        self.turn, self.zeros = 0, 0
        self.done = np.zeros((self.batch, self.height, self.width), bool)
        self.pixel = self.channels * self.size  # bytes
        self.pitch = self.width * self.pixel
        self.columns = [c for c in self._columns() if prod(c.x.shape)]

    def _columns(self) -> Iterator[Columns]:
        x, at, phases = self.source.x, self.source.start[2], self.source.phases
        for phase in range(phases):
            first = (phase - at) % phases
            if phases == 1:
                yield Columns(x, at, self.source.step[2])
            elif first < x.shape[2]:
                some = x.slice((0, 0, first, 0), x.shape, (1, 1, phases, 1))
                yield Columns(some, phase * (self.width // phases) + (first + at) // phases, 1)

    def rows(self, image: int, first: int, last: int, across: Span | None = None) -> list[Op]:
        """What makes rows first <= row < last of an image, but for what was made before.

        Parameters
        ----------
        across : of the rows only these columns, in the order that they have without phases.
        """
        ops: list[Op] = []
        for columns in self._places(across or (0, self.width)):
            at = first
            while at < last:
                missing = self._missing(image, at, columns)
                end = at + 1
                while end < last and self._missing(image, end, columns) == missing:
                    end += 1
                if missing[0] < missing[1]:
                    self.done[image, at:end, slice(*missing)] = True
                    ops += self._make(image, at, end, missing)
                at = end
        return ops

    def _places(self, across: Span) -> list[Span]:
        """Where these columns are in a row of the copy."""
        phases, part = self.source.phases, self.width // self.source.phases
        if across[1] - across[0] >= self.width:
            return [(0, self.width)]
        return [(i * part + ceil_div(across[0] - i, phases),
                 i * part + ceil_div(across[1] - i, phases)) for i in range(phases)]  # fmt: skip

    def _missing(self, image: int, row: int, columns: Span) -> Span:
        """The first to the last of these columns of a row that are not made."""
        missing = np.flatnonzero(~self.done[image, row, slice(*columns)])
        if not len(missing):
            return columns[0], columns[0]
        return columns[0] + int(missing[0]), columns[0] + int(missing[-1]) + 1

    def all(self) -> list[Op]:
        """The whole copy."""
        return [op for b in range(self.batch) for op in self.rows(b, 0, self.height)]

    def _make(self, image: int, first: int, last: int, cols: Span) -> list[Op]:
        start, step, x = self.source.start, self.source.step, self.source.x
        low = max(0, ceil_div(first - start[1], step[1]))
        high = min(x.shape[1], ceil_div(last - start[1], step[1]))
        columns = [c for some in self.columns if prod((c := some.within(cols)).x.shape)]
        inside = start[0] <= image < start[0] + x.shape[0] and low < high
        ops = self._fills(image, first, last, (low, high) if inside else None, columns, cols)
        for some in columns if inside else ():
            ops += self._copies(some, image, low, high)
        return ops

    # ---- zeros

    def _fills(self, image: int, first: int, last: int, part: Span | None,
               columns: list[Columns], cols: Span) -> list[Op]:  # fmt: skip
        """Zeros in some rows and columns of the copy; `part` are the rows of the image in them."""
        at = (image * self.height + first) * self.pitch + cols[0] * self.pixel
        step, many = self.source.step[1], last - first
        if part is None or step > 1 or any(c.step > 1 for c in columns):
            return self._rows_zero(at, many, cols)
        top, rows = self.source.start[1] + part[0] - first, part[1] - part[0]
        ops = self._rows_zero(at, top, cols)
        ops += self._rows_zero(at + (top + rows) * self.pitch, many - top - rows, cols)
        for begin, end in self._gaps(columns, cols):
            ops += self._zero(at + top * self.pitch + begin, end - begin, rows, self.pitch)
        return ops

    def _rows_zero(self, at: int, rows: int, cols: Span) -> list[Op]:
        """Zeros in rows, from byte `at` on."""
        width = (cols[1] - cols[0]) * self.pixel
        if width == self.pitch:
            return self._zero(at, rows * self.pitch)
        return self._zero(at, width, rows, self.pitch) if rows else []

    def _gaps(self, columns: list[Columns], cols: Span) -> Iterator[Span]:
        """Bytes of these columns, from their first one's on, that are not of the image."""
        begin = cols[0]
        for c in sorted(columns, key=lambda c: c.at):
            if begin < c.at:
                yield (begin - cols[0]) * self.pixel, (c.at - cols[0]) * self.pixel
            begin = c.at + c.x.shape[2]
        if begin < cols[1]:
            yield (begin - cols[0]) * self.pixel, (cols[1] - cols[0]) * self.pixel

    def _zero(self, at: int, length: int, count: int = 1, step: int = 0) -> list[Op]:
        """STORE zeros to `count` runs of bytes."""
        ops: list[Op] = []
        most = max(self.size, min(ZEROS, self.room * self.dim) // self.size * self.size)
        units = ceil_div(most, self.dim)
        row = Local(Mem.SPAD, self.first, self.first + units + units % 2)
        if length > 0 and not self.zeros:
            assert not isinstance(self.source.value, View), f"{self.source} has no known value"
            value = int.from_bytes(self.source.value.tobytes(), "little")
            fields = {"mem": Mem.SPAD, "conv": FILL[self.size], "fill": 1, "value": value,
                      "loc": self.first, "l0": 1 if self.size == 1 else 2,
                      "c0": most // self.size}  # fmt: skip
            ops.append(Op("load", fields, (), (row,), self.number))
            self.zeros = most
        if count == 1:  # one long run is many short ones
            whole = length // most
            runs = [(at + i * most, most, min(MAX_COUNT, whole - i), most)
                    for i in range(0, whole, MAX_COUNT)]  # fmt: skip
            runs.append((at + whole * most, length - whole * most, 1, 0))
        else:
            runs = [(at + i, min(most, length - i), count, step) for i in range(0, length, most)]
        for first, width, n, by in runs:
            if width > 0:
                fields = BYTES | {"loc": self.first, "c0": width, "c1": n, "s1": by}
                place = Dram(self.out, first, first + (n - 1) * by + width, width, by)
                ops.append(Op("store", fields, (row,), (place,), self.number, "dst", self.out,
                              first))  # fmt: skip
        return ops

    # ---- the image

    def _copies(self, columns: Columns, image: int, low: int, high: int) -> list[Op]:
        """Rows low <= row < high of the image, in pieces that fit."""
        most = min(self.room * self.dim, MAX_COUNT)
        deep = max(1, min(self.channels, most // self.size))
        across = max(1, most // self.pixel) if columns.step == 1 else MAX_COUNT
        across = min(columns.x.shape[2], across)
        runs = 1 if columns.step == 1 else across
        if columns.step > 1 or deep < self.channels:
            runs = across = max(1, min(across, self.room // ceil_div(deep * self.size, self.dim)))
        units = ceil_div((across if columns.step == 1 and deep == self.channels else 1)
                         * deep * self.size, self.dim)  # fmt: skip
        tall = min(MAX_COUNT, max(1, self.room // (units * runs)))
        ops: list[Op] = []
        for row in range(low, high, tall):
            for column in range(0, columns.x.shape[2], across):
                for channel in range(0, self.channels, deep):
                    ops += self._copy(columns, image, (row, min(high, row + tall)),
                                      (column, min(columns.x.shape[2], column + across)),
                                      (channel, min(self.channels, channel + deep)))  # fmt: skip
        return ops

    def _copy(self, columns: Columns, image: int, rows: tuple[int, int], cols: tuple[int, int],
              channels: tuple[int, int]) -> list[Op]:  # fmt: skip
        """A LOAD and a STORE: each local row is a run of the copy."""
        x, size, (start, step) = columns.x, self.size, (self.source.start, self.source.step)
        n2, n1, n0 = (b - a for a, b in (rows, cols, channels))
        whole = columns.step == 1 and n0 == self.channels
        levels = [(n0, x.strides[3] * size)] + [(n1, x.strides[2] * size)] * whole
        packed = merged([(size, 1), *levels]) if size > 1 or x.strides[3] != 1 else merged(levels)
        packed = packed if packed and packed[0][1] == 1 else [(1, 1), *packed]
        length = n0 * size * (n1 if whole else 1)
        units, runs = ceil_div(length, self.dim), 1 if whole else n1
        self.turn = self.turn % 3 + 1
        at = self.first + self.turn * self.room
        place = Local(Mem.SPAD, at, at + units * runs * n2)
        begin = x.offset + (image - start[0]) * x.strides[0]
        begin += sum(a * s for (a, _), s in zip((rows, cols, channels), x.strides[1:], strict=True))
        ends = [(n - 1) * s for n, s in zip((n2, n1, n0), x.strides[1:], strict=True)]
        read = Dram(x.buffer, (begin + sum(min(0, e) for e in ends)) * size,
                    (begin + sum(max(0, e) for e in ends) + 1) * size)  # fmt: skip
        outer = [(n2, x.strides[1] * size, units * runs)]
        if runs > 1:
            outer.insert(0, (n1, x.strides[2] * size, units))
        load = {"mem": Mem.SPAD, "conv": Conv.COPY8, "loc": at, "l0": 1, "pack": len(packed)}
        load |= {f"c{i}": n for i, (n, _) in enumerate(packed)}
        load |= {f"s{i}": s for i, (_, s) in enumerate(packed) if i}
        for i, (n, s, p) in enumerate(outer, len(packed)):
            load |= {f"c{i}": n, f"s{i}": s, f"l{i}": p}
        row = image * self.height + start[1] + rows[0] * step[1]
        first = row * self.pitch + (columns.at + cols[0] * columns.step) * self.pixel
        first += channels[0] * size
        down, right = self.pitch * step[1], self.pixel * columns.step
        store = BYTES | {"loc": at, "c0": length, "c1": n2, "l1": units, "s1": down}
        if runs > 1:
            store |= {"c1": n1, "s1": right, "c2": n2, "l2": units * n1, "s2": down}
        run = (n1 - 1) * right * (not whole) + length
        written = Dram(self.out, first, first + (n2 - 1) * down + run, run, down)
        return [
            Op("load", load, (read,), (place,), self.number, "dram", x.buffer, begin * size),
            Op("store", store, (place,), (written,), self.number, "dst", self.out, first),
        ]  # fmt: skip
