"""Where the arrays of a tile lie in a slot of the local memories.

A place is given again when the step that reads its array last is over; a step's result may take the
place of an input of the same form, unit by unit. What all tiles share, and what is stored, keeps
its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tilewright.compiler.lane_steps import FULL, Operand, Steps
from tilewright.compiler.schedule import ceil_div
from tilewright.compiler.tiles import Dram, Local, Op
from tilewright.compiler.views import View
from tilewright.isa.micro import WORD_BYTES
from tilewright.isa.table import Conv, Mem


def local_of(dtype: np.dtype) -> tuple[Mem, int]:
    """The memory of a stream, and the rows or granules of a unit."""
    return (Mem.ACC, 1) if dtype.itemsize == 4 else (Mem.SPAD, dtype.itemsize)


def code_load(code: View, at: int, dim: int, kernel: int) -> Op:
    """The LOAD of a micro-kernel's words to rows of the accumulator from `at` on."""
    place = Local(Mem.ACC, at, at + ceil_div(code.shape[0], dim))
    fields = {"mem": Mem.ACC, "conv": Conv.COPY32, "loc": at, "l0": 1, "c0": code.shape[0]}
    read = Dram(code.buffer, 0, code.buffer.nbytes)
    return Op("load", fields, (read,), (place,), kernel, "dram", code.buffer, 0)


@dataclass(frozen=True)
class Places:
    """First rows or granules in a slot: of each array, of each step's words; how many in all."""

    arrays: dict[Operand, int]
    codes: tuple[int, ...]
    total: dict[Mem, int]


@dataclass
class _Place:
    """Some rows of a memory, and the step from which on they are free."""

    at: int
    mem: Mem
    size: int
    until: int


class Allocator:
    """Places for tiles of any height."""

    def __init__(self, steps: Steps, stored: list[Operand], dim: int):
        self.steps, self.dim = steps, dim
        self.last: dict[Operand, int] = {}
        for number, step in enumerate(steps.steps):
            for x in (*step.inputs, *step.outputs):
                self.last[x] = number
        for x in stored:
            self.last[x] = len(steps.steps)
        self.inputs = [x for x in steps.operands if x.view is not None]

    def _code_rows(self) -> list[int]:
        """Accumulator rows of each step's words."""
        return [ceil_div(len(s.micro.words) * WORD_BYTES, 4 * self.dim) for s in self.steps.steps]

    def common(self, blocks: int) -> list[tuple[Operand | int, Mem, int]]:
        """What all tiles of whole rows share: arrays and numbers of steps; memory and size."""
        out: list[tuple[Operand | int, Mem, int]] = []
        for x in self.inputs:
            if not x.down:
                mem, local = local_of(x.dtype)
                size = x.size(1, blocks) * local
                out.append((x, mem, size + (size % 2 if mem == Mem.SPAD else 0)))
        return out + [(n, Mem.ACC, rows) for n, rows in enumerate(self._code_rows())]

    def places(self, rows: int, blocks: int, apart: bool = False) -> Places:
        """Of a tile of `rows` rows of `blocks` units; without what is common, if that is apart."""
        total = {Mem.ACC: 0, Mem.SPAD: 0}
        codes = []
        for size in [] if apart else self._code_rows():
            codes.append(total[Mem.ACC])
            total[Mem.ACC] += size
        known: list[_Place] = []
        arrays: dict[Operand, int] = {}

        def take(x: Operand, number: int, inputs: tuple[Operand, ...]) -> None:
            mem, local = local_of(x.dtype)
            size = x.size(rows, blocks) * local
            size += size % 2 if mem == Mem.SPAD else 0
            until = self.last.get(x, 0) + 1 if x.down or x.view is None else 1 << 30
            meets = [arrays[y] for y in inputs if y.level == x.level == FULL and y.down
                     and local_of(y.dtype) == (mem, local)]  # fmt: skip
            for p in known:
                over = p.until <= number or (p.until == number + 1 and p.at in meets)
                if (p.mem, p.size) == (mem, size) and over:
                    p.until, arrays[x] = until, p.at
                    return
            known.append(_Place(total[mem], mem, size, until))
            arrays[x] = total[mem]
            total[mem] += size

        for x in self.inputs:
            if x.down or not apart:
                take(x, -1, ())
        for number, step in enumerate(self.steps.steps):
            for x in step.outputs:
                take(x, number, step.inputs)
        return Places(arrays, tuple(codes), total)
