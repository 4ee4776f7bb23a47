"""Tiles of element-wise kernels: LOADs of each input, one VECTOR, one STORE.

The local memories are cut into slots, which tiles use in turn, so that loads, the micro-kernel and
stores of successive tiles run at once, in banks of their own. Each slot has its own copy of the
micro-kernel and of what all rows share. The result replaces an input of its size, where there is
one. One long row is cut into rows of one unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tilewright.compiler.kernels import Kernel, Lanes, View
from tilewright.compiler.schedule import MAX_COUNT, ScheduleError, ceil_div
from tilewright.compiler.tile_map import fields_of_rows
from tilewright.compiler.tile_store import TYPE
from tilewright.compiler.tiles import Dram, Local, Op, Plan
from tilewright.compiler.vector_code import MicroKernel, levels_of, micro_kernel
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import Conv, Mem, Type
from tilewright.isa.timing import VECTOR_ROWS
from tilewright.isa.units import LOAD_STREAMS

SLOTS = (4, 2, 1)
CONVERSION = {1: Conv.COPY8, 2: Conv.COPY16, 4: Conv.COPY32}


@dataclass(frozen=True)
class Input:
    """One array: how many local units a tile needs of it.

    Parameters
    ----------
    down, across : whether elements differ from row to row, from column to column.
    """

    view: View
    down: bool
    across: bool

    @property
    def size(self) -> int:
        return self.view.dtype.itemsize

    def units(self, rows: int, blocks: int) -> int:
        """Units of a tile."""
        return (rows if self.down else 1) * (blocks if self.across else 1)


def local_of(dtype: np.dtype) -> tuple[Mem, int]:
    """The memory of a stream, and the rows or granules of a unit."""
    return (Mem.ACC, 1) if dtype.itemsize == 4 else (Mem.SPAD, dtype.itemsize)


def tile_vector(plan: Plan, kernel: Kernel, number: int) -> tuple[list[Op], str]:
    """All operations of one element-wise kernel, and its schedule as text."""
    tiler = _Tiler(plan.config, kernel, number)
    return tiler.ops(), str(tiler.sizes)


@dataclass(frozen=True)
class Sizes:
    """Rows and columns of a tile, and between how many slots tiles take turns."""

    rows: int
    cols: int
    slots: int

    def __str__(self) -> str:
        return f"tiles of {self.rows} x {self.cols} in {self.slots} slots"


class _Tiler:
    """What the tiles of one kernel share."""

    def __init__(self, config: ChipConfig, kernel: Kernel, number: int):
        assert isinstance(kernel.source, Lanes)
        self.config, self.kernel, self.number, self.dim = config, kernel, number, config.dim
        self.source = kernel.source
        self.total = self.source.shape
        self.is_flat = self.total[0] == 1
        found = micro_kernel(self.source.term, levels_of(self.source.views))
        assert found is not None, f"{kernel} was made with a micro-kernel"
        self.micro: MicroKernel = found
        self.inputs = [self._input(v) for v in self.source.views]
        self.code_rows = ceil_div(2 * len(found.words), self.dim)
        self.held: dict[tuple[int, object], object] = {}

    def _input(self, v: View) -> Input:
        rows, cols = self.total
        across = v.strides[1] != 0 or cols == 1
        if self.is_flat:
            return Input(v, across, across)
        return Input(v, rows == 1 or v.strides[0] != 0, (across and cols > 1) or cols == 1)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns as VECTOR sees them."""
        rows, cols = self.total
        return (ceil_div(cols, self.dim), self.dim) if self.is_flat else (rows, cols)

    @cached_property
    def in_place(self) -> int | None:
        """The input whose place the result takes."""
        size = self.kernel.out.dtype.itemsize
        for i, x in enumerate(self.inputs):
            if x.down and x.across and x.size == size:
                return i
        return None

    def _needs(self, rows: int, cols: int) -> dict[Mem, int]:
        """Local rows or granules of a tile, the micro-kernel's included."""
        blocks = ceil_div(cols, self.dim)
        need = {Mem.ACC: self.code_rows, Mem.SPAD: 0}
        for x in self.inputs:
            mem, local = local_of(x.view.dtype)
            need[mem] += x.units(rows, blocks) * local
        if self.in_place is None:
            mem, local = local_of(self.kernel.out.dtype)
            need[mem] += rows * blocks * local
        need[Mem.SPAD] += 2 * len(self.inputs) + 2  # bf16 begins at even granules
        return need

    def _room(self, slots: int) -> dict[Mem, int]:
        return {
            Mem.ACC: self.config.acc_rows // slots,
            Mem.SPAD: self.config.spad_granules // slots,
        }

    def _tallest(self, slots: int, cols: int) -> int:
        """The most rows of a tile of these columns that fit a slot, or 0."""
        room = self._room(slots)
        low, high = 0, min(self.shape[0], MAX_COUNT // self.dim)
        while low < high:
            middle = (low + high + 1) // 2
            need = self._needs(middle, cols)
            if all(need[mem] <= room[mem] for mem in Mem):
                low = middle
            else:
                high = middle - 1
        return low

    @cached_property
    def sizes(self) -> Sizes:
        """Tall tiles of whole rows if they fit, in many slots if they fit."""
        rows, cols = self.shape
        for least in (VECTOR_ROWS, 1):
            for slots in SLOTS:
                width = min(cols, MAX_COUNT // self.dim * self.dim)
                while True:
                    tall = self._tallest(slots, width)
                    if tall >= min(rows, least):
                        return Sizes(self._height(tall), width, slots)
                    if width <= self.dim:
                        break
                    width = ceil_div(width, 2 * self.dim) * self.dim
        raise ScheduleError(f"{self.kernel} does not fit the memories of {self.config.name}")

    def _height(self, tall: int) -> int:
        """Whole groups of rows, and some tiles so that units work at once."""
        rows = self.shape[0]
        wanted = max(4 * VECTOR_ROWS, ceil_div(rows, 4))
        tall = min(tall, wanted)
        return tall // VECTOR_ROWS * VECTOR_ROWS if VECTOR_ROWS <= tall < rows else tall

    def ops(self) -> list[Op]:
        """Tile after tile: its columns, then its rows."""
        rows, cols = self.shape
        s = self.sizes
        out: list[Op] = []
        turn = 0
        for c0 in range(0, cols, s.cols):
            for r0 in range(0, rows, s.rows):
                pair = (r0, min(rows, r0 + s.rows)), (c0, min(cols, c0 + s.cols))
                out += self._tile(turn % s.slots, *pair)
                turn += 1
        return out

    # ---- one tile

    def _tile(self, slot: int, rr: tuple[int, int], cr: tuple[int, int]) -> list[Op]:
        rows, blocks = rr[1] - rr[0], ceil_div(cr[1] - cr[0], self.dim)
        full = ceil_div(self.sizes.cols, self.dim)
        at = {mem: slot * size for mem, size in self._room(self.sizes.slots).items()}
        at[Mem.SPAD] += at[Mem.SPAD] % 2
        code = Local(Mem.ACC, at[Mem.ACC], at[Mem.ACC] + self.code_rows)
        at[Mem.ACC] += self.code_rows
        ops = self._code(slot, code)
        fields: dict[str, int] = {}
        places: list[Local] = []
        for i, x in enumerate(self.inputs):
            mem, local = local_of(x.view.dtype)
            place = Local(mem, at[mem], at[mem] + x.units(rows, blocks) * local)
            at[mem] += x.units(self.sizes.rows, full) * local
            at[mem] += at[mem] % 2 if mem == Mem.SPAD else 0
            places.append(place)
            ops += self._load(slot, x, place, rr, cr, blocks)
            fields |= self._stream(LOAD_STREAMS[i], x.view.dtype, place, x.down, x.across, blocks)
        mem, local = local_of(self.kernel.out.dtype)
        result = Local(mem, at[mem], at[mem] + rows * blocks * local)
        if self.in_place is not None:
            result = places[self.in_place]
        fields |= self._stream("o", self.kernel.out.dtype, result, True, True, blocks)
        fields |= {name: n for name, n in self.micro.lengths.items() if n} | self.micro.scalars
        fields |= {"kernel": code.lo, "rows": rows, "cols": cr[1] - cr[0]}
        ops.append(Op("vector", fields, (code, *places), (result,), self.number))
        return [*ops, self._store(result, rr, cr, blocks)]

    def _stream(self, name: str, dtype: np.dtype, place: Local, down: bool, across: bool,
                blocks: int) -> dict[str, int]:  # fmt: skip
        mem, local = local_of(dtype)
        row = local * (blocks if across else 1) if down else 0
        kind = {"type": TYPE[dtype], "mem": mem, "on": 1, "row": row, "unit": local * across}
        return {name: place.lo} | {f"{name}_{k}": int(v) for k, v in kind.items()}

    def _code(self, slot: int, place: Local) -> list[Op]:
        if self.held.get((slot, "code")):
            return []
        self.held[slot, "code"] = True
        code = self.source.code
        fields = {"mem": Mem.ACC, "conv": Conv.COPY32, "loc": place.lo, "l0": 1,
                  "c0": code.shape[0]}  # fmt: skip
        read = Dram(code.buffer, 0, code.buffer.nbytes)
        return [Op("load", fields, (read,), (place,), self.number, "dram", code.buffer, 0)]

    def _elements(self, rr: tuple[int, int], cr: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Rows and columns of the whole array that a tile holds."""
        if self.is_flat:
            return (0, 1), (rr[0] * self.dim, min(self.total[1], rr[1] * self.dim))
        return rr, cr

    def _load(self, slot: int, x: Input, place: Local, rr: tuple[int, int], cr: tuple[int, int],
              blocks: int) -> list[Op]:  # fmt: skip
        rows, cols = self._elements(rr, cr)
        if not x.down:
            rows = (0, 1)
        if not x.across:
            cols = (0, 1)
        if not (x.down and x.across):
            key, want = (slot, id(x)), (rows, cols, place)
            if self.held.get(key) == want:
                return []
            self.held[key] = want
        mem, local = local_of(x.view.dtype)
        step = local * (blocks if x.across and not self.is_flat else 1)
        fields, first, read = fields_of_rows(x.view, rows, cols, local, step)
        fields |= {"mem": mem, "conv": CONVERSION[x.size], "loc": place.lo}
        return [Op("load", fields, (read,), (place,), self.number, "dram", x.view.buffer, first)]

    def _store(self, place: Local, rr: tuple[int, int], cr: tuple[int, int], blocks: int) -> Op:
        """STORE the result bit by bit: 32-bit elements, or bytes."""
        out = self.kernel.out
        size, (mem, local) = out.dtype.itemsize, local_of(out.dtype)
        rows, cols = self._elements(rr, cr)
        kind, part = (Type.I32, 1) if size == 4 else (Type.I8, size)
        fields = {"mem": mem, "type": kind, "out": kind, "int_path": 1, "loc": place.lo, "l0": 1,
                  "c0": (cols[1] - cols[0]) * part, "c1": rows[1] - rows[0],
                  "l1": blocks * local, "s1": self.total[1] * size}  # fmt: skip
        first = rows[0] * self.total[1] + cols[0]
        end = first + (rows[1] - rows[0] - 1) * self.total[1] + cols[1] - cols[0]
        written = Dram(out, first * size, end * size)
        return Op("store", fields, (place,), (written,), self.number, "dst", out, first * size)
