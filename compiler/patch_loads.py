"""LOADs of a convolution's patches (`Patches`): as rows that LOAD packs, or transposed.

A part of the matrix is some boxes of pixels by boxes of taps. As rows, each pixel's taps are runs
that are packed into one local row. Transposed, pixels are lanes: runs of taps are turned in blocks
of `dim` pixels, which begin and end anywhere and go on from one row of results to the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tilewright.compiler.boxes import box_loads, merged
from tilewright.compiler.operand_loads import Layout, operand, part_conv
from tilewright.compiler.patches import Box, Lanes, Patches, Run, boxes
from tilewright.compiler.schedule import Span
from tilewright.compiler.schedule_turns import turn
from tilewright.compiler.tiles import Dram, Local, Op
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import Mem


class PatchLoader:
    """The LOADs of one operand that is patches."""

    def __init__(self, patches: Patches, config: ChipConfig, number: int):
        self.patches, self.config, self.number = patches, config, number
        self.operand = operand(patches)
        self.size = patches.dtype.itemsize
        self.taps = tuple(n for n, _ in patches.taps)
        self.pixels = tuple(n for n, _ in patches.pixels)

    def loads(
        self, batch: int, rows: Span, cols: Span, at: int, used: Local, layout: Layout, part: int
    ) -> list[Op]:
        """As `operand_loads.Loader.loads`; rows are pixels, or taps of patches that are turned."""
        self.conv = part_conv(self.patches, part)
        ops: list[Op] = []
        if self.patches.turned:
            lanes = self.patches.lanes_of(batch, cols)
            for tap in boxes(self.taps, rows):
                ops += self._turned(lanes, tap, at + (tap[0] - rows[0]) * layout.row, used, layout)
            return ops
        for box, tap in product(boxes(self.pixels, rows), boxes(self.taps, cols)):
            for run in self.patches.runs(box):
                units = (tap[0] - cols[0]) // self.config.dim
                place = at + (run.pixel - rows[0]) * layout.row + units * layout.unit
                ops += self._packed(run, tap, place, used, layout)
        return ops

    def _tap(self, tap: int) -> int:
        """Elements from a window's first tap to another one."""
        at = 0
        for n, s in self.patches.taps:
            at, tap = at + tap % n * s, tap // n
        return at

    def _read(self, first: int, last: int) -> Dram:
        """The bytes from an element to another one."""
        return Dram(self.patches.buffer, first * self.size, (last + 1) * self.size)

    def _packed(self, run: Run, tap: Box, place: int, used: Local, layout: Layout) -> list[Op]:
        """Rows of packed runs."""
        size, first = self.size, run.element + self._tap(tap[0])
        inner = [(n, s) for n, (_, s) in zip(tap[1], self.patches.taps, strict=True)]
        packed = merged([(n, s * size) for n, s in inner])
        outer = [(n, s * size, p * layout.row) for n, s, p in run.levels]
        levels = [*inner, *((n, s) for n, s, _ in run.levels)]
        read = self._read(first, first + sum((n - 1) * s for n, s in levels))
        return box_loads(self.patches, first * size, packed, outer, used, place, self.conv,
                         layout.unit, read, self.number)  # fmt: skip

    def _turned(self, lanes: Lanes, tap: Box, place: int, used: Local,
                layout: Layout) -> Iterator[Op]:  # fmt: skip
        """Runs of taps, each cut as is best for so many pixels."""
        size, pixels = self.size, lanes.levels
        length, *counts = tap[1]
        outer, pitch = [], length * layout.row  # levels of taps: count, elements, granules
        for n, (_, s) in zip(counts, self.patches.taps[1:], strict=True):
            outer.append((n, s, pitch))
            pitch *= n
        first, last = (at + self._tap(tap[0]) for at in lanes.read())
        best = turn(self.config, self.operand, length, lanes.count)
        done = 0
        for width, number in best.cut:
            levels = [x for x in [(number, width, width * layout.row), *outer] if x[0] > 1]
            room = 3 - len(pixels)
            for index in product(*(range(n) for n, *_ in levels[room:])):
                steps = list(zip(index, levels[room:], strict=True))
                skip = done + sum(i * s for i, (_, s, _) in steps)
                to = place + done * layout.row + sum(i * p for i, (*_, p) in steps)
                fields = {"mem": Mem.SPAD, "conv": self.conv, "loc": to, "xpose": 1,
                          "pack": len(pixels), "c0": width, "l0": layout.row,
                          "l1": layout.unit}  # fmt: skip
                for i, (n, s) in enumerate(pixels, 1):
                    fields |= {f"c{i}": n, f"s{i}": s * size}
                for i, (before, after) in enumerate(zip(lanes.skip, lanes.drop, strict=True), 1):
                    fields |= {f"skip{i}": before, f"drop{i}": after}
                for i, (n, s, p) in enumerate(levels[:room], len(pixels) + 1):
                    fields |= {f"c{i}": n, f"s{i}": s * size, f"l{i}": p}
                reach = width - 1 + sum((n - 1) * s for n, s, _ in levels[:room])
                yield Op("load", fields, (self._read(first + skip, last + skip + reach),), (used,),
                         self.number, "dram", self.patches.buffer,
                         (lanes.element + self._tap(tap[0]) + skip) * size)  # fmt: skip
            done += width * number
