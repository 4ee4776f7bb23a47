"""LOADs of a convolution's patches (`Patches`): as rows that LOAD packs, or transposed.

A part of the matrix is a box of pixels by a box of taps, or some of them. As rows, each pixel's
taps are runs that are packed into one local row. Transposed, pixels are lanes: runs of taps are
turned in blocks of `dim` pixels, which go on from one row of results to the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

from tilewright.compiler.boxes import box_loads, merged
from tilewright.compiler.operand_loads import Layout, operand, part_conv
from tilewright.compiler.patches import Box, Level, Patches, Run, boxes
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
        turned = self.patches.turned
        pixels, taps = (cols, rows) if turned else (rows, cols)
        ops: list[Op] = []
        for box, tap in product(boxes(self.pixels, pixels), boxes(self.taps, taps)):
            for run in self.patches.runs(box):
                skip = (run.pixel - pixels[0], tap[0] - taps[0])
                if turned:
                    ops += self._turned(batch, run, tap, skip, at, used, layout)
                else:
                    ops += self._packed(batch, run, tap, skip, at, used, layout)
        return ops

    def _element(self, batch: int, run: Run, tap: int) -> int:
        """Of a run's first pixel, the element of a tap."""
        at = batch * self.patches.batch[1] + run.element
        for n, s in self.patches.taps:
            at, tap = at + tap % n * s, tap // n
        return at

    def _read(self, first: int, levels: list[Level]) -> Dram:
        """The bytes from an element to the last one of a box that begins there."""
        last = first + sum((n - 1) * s for n, s in levels)
        return Dram(self.patches.buffer, first * self.size, (last + 1) * self.size)

    def _packed(self, batch: int, run: Run, tap: Box, skip: Span, at: int, used: Local,
                layout: Layout) -> list[Op]:  # fmt: skip
        """Rows of packed runs."""
        size, first = self.size, self._element(batch, run, tap[0])
        inner = [(n, s) for n, (_, s) in zip(tap[1], self.patches.taps, strict=True)]
        packed = merged([(n, s * size) for n, s in inner])
        outer = [(n, s * size, p * layout.row) for n, s, p in run.levels]
        place = at + skip[0] * layout.row + skip[1] // self.config.dim * layout.unit
        read = self._read(first, [*inner, *((n, s) for n, s, _ in run.levels)])
        return box_loads(self.patches, first * size, packed, outer, used, place, self.conv,
                         layout.unit, read, self.number)  # fmt: skip

    def _turned(self, batch: int, run: Run, tap: Box, skip: Span, at: int, used: Local,
                layout: Layout) -> Iterator[Op]:  # fmt: skip
        """Runs of taps, each cut as is best for so many pixels."""
        size = self.size
        pixels = merged([(n, s * size) for n, s, _ in run.levels]) or [(1, 0)]
        length, *counts = tap[1]
        outer, pitch = [], length * layout.row  # levels of taps: count, elements, granules
        for n, (_, s) in zip(counts, self.patches.taps[1:], strict=True):
            outer.append((n, s, pitch))
            pitch *= n
        first = self._element(batch, run, tap[0])
        place = at + skip[1] * layout.row + skip[0] // self.config.dim * layout.unit
        best = turn(self.config, self.operand, length, prod(n for n, _ in pixels))
        for width, number in best.cut:
            levels = [x for x in [(number, width, width * layout.row), *outer] if x[0] > 1]
            room = 3 - len(pixels)
            for index in product(*(range(n) for n, *_ in levels[room:])):
                steps = list(zip(index, levels[room:], strict=True))
                source = first + sum(i * s for i, (_, s, _) in steps)
                to = place + sum(i * p for i, (*_, p) in steps)
                fields = {"mem": Mem.SPAD, "conv": self.conv, "loc": to, "xpose": 1,
                          "pack": len(pixels), "c0": width, "l0": layout.row,
                          "l1": layout.unit}  # fmt: skip
                for i, (n, s) in enumerate(pixels, 1):
                    fields |= {f"c{i}": n, f"s{i}": s}
                for i, (n, s, p) in enumerate(levels[:room], len(pixels) + 1):
                    fields |= {f"c{i}": n, f"s{i}": s * size, f"l{i}": p}
                span = [(width, 1), *((n, s) for n, s, _ in (*levels[:room], *run.levels))]
                yield Op("load", fields, (self._read(source, span),), (used,), self.number, "dram",
                         self.patches.buffer, source * size)  # fmt: skip
            first += width * number
            place += width * number * layout.row
