"""Tiles of element-wise kernels and groups: LOADs of each input, VECTORs step by step, STOREs.

The local memories are cut into slots, which tiles use in turn, so that loads, micro-kernels and
stores of successive tiles run at once, in banks of their own. Each slot has its own copy of the
micro-kernels and of what all rows share. One long row is cut into rows of one unit; rows that are
reduced stay whole, or are cut into pieces whose results another kernel combines.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tilewright.compiler.kernels import Kernel, Lanes
from tilewright.compiler.lane_memory import Allocator, Places, code_load, local_of
from tilewright.compiler.lane_steps import (
    FULL,
    ROW,
    Operand,
    is_flat,
    reduction,
    steps_of,
    units_of,
)
from tilewright.compiler.lane_vectors import cycles, vectors
from tilewright.compiler.primitives_reduce import CHUNK
from tilewright.compiler.schedule import MAX_COUNT, ScheduleError, ceil_div
from tilewright.compiler.tile_affine import affine_stores, vector_loads
from tilewright.compiler.tile_map import fields_of_rows
from tilewright.compiler.tiles import Dram, Local, Op, Plan
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import Conv, Mem, Type
from tilewright.isa.timing import VECTOR_ROWS

SLOTS = (4, 2, 1)
SWITCH, LATENCY = 16, 160  # cycles of a tile besides its work, about: with others beside it, alone
VECTORS = -1  # key of the epilogue's vectors among what all tiles share
CONVERSION = {1: Conv.COPY8, 2: Conv.COPY16, 4: Conv.COPY32}
Range = tuple[int, int]


def tile_vector(plan: Plan, kernel: Kernel, number: int) -> tuple[list[Op], str]:
    """All operations of one kernel of VECTOR, and its schedule as text."""
    tiler = _Tiler(plan.config, kernel, number)
    return tiler.ops(), str(tiler.layout.sizes)


@dataclass(frozen=True)
class Sizes:
    """Rows and columns of a tile, and between how many slots tiles take turns."""

    rows: int
    cols: int
    slots: int
    apart: bool = False  # what all tiles share lies where slots leave room, else in each slot

    def __str__(self) -> str:
        apart = ", what they share apart" if self.apart else ""
        return f"tiles of {self.rows} x {self.cols} in {self.slots} slots{apart}"


class Layout:
    """How the tiles of a `Lanes` lie in the local memories of a chip.

    **Raises** ScheduleError: a stage has no micro-kernel.
    """

    def __init__(self, config: ChipConfig, lanes: Lanes, vectors: int = 0):
        self.config, self.lanes, self.dim, self.vectors = config, lanes, config.dim, vectors
        self.is_flat = is_flat(lanes)
        found = steps_of(lanes, config.dim)
        if found is None:
            raise ScheduleError(f"{lanes}: a stage has no micro-kernel")
        self.steps = found
        self.outs = [found.operands[n] for n in lanes.outs]
        self.allocator = Allocator(found, self.outs, config.dim)
        self.whole = any(reduction(t) for s in lanes.stages for t in s.terms) and not lanes.split

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns as VECTOR sees them."""
        rows, cols = self.lanes.shape
        return (ceil_div(cols, self.dim), self.dim) if self.is_flat else (rows, cols)

    @property
    def most(self) -> int:
        """Elements that an instruction can count; bfloat16 is stored as bytes."""
        return MAX_COUNT // max(x.dtype.itemsize % 4 or 1 for x in self.outs)

    def room(self, slots: int) -> dict[Mem, int]:
        """Rows and granules of a slot."""
        spad = self.config.spad_granules // slots
        return {Mem.ACC: self.config.acc_rows // slots, Mem.SPAD: spad - spad % 2}

    def places(self, rows: int, cols: int) -> Places:
        """Where the arrays of a tile lie in a slot."""
        return self.allocator.places(rows, ceil_div(cols, self.dim))

    def common(self, slots: int, rows: int, cols: int) -> dict[Operand | int, int] | None:
        """Places of what all tiles share in what slots leave; None if it does not fit there."""
        room, blocks = self.room(slots), ceil_div(cols, self.dim)
        shared = [*self.allocator.common(blocks), (VECTORS, Mem.ACC, self.vectors * blocks)]
        own = self.allocator.places(rows, blocks, True).total
        if any(own[mem] > room[mem] for mem in Mem):
            return None
        level = {(mem, slot): own[mem] for mem in Mem for slot in range(slots)}
        out: dict[Operand | int, int] = {}
        for key, mem, size in sorted(shared, key=lambda c: -c[2]):
            slot = min(range(slots), key=lambda n: level[mem, n])
            if level[mem, slot] + size > room[mem]:
                return None
            out[key] = slot * room[mem] + level[mem, slot]
            level[mem, slot] += size
        return out

    def _tallest(self, slots: int, cols: int, apart: bool = False) -> int:
        """The most rows of a tile of these columns that fit a slot, or 0."""
        room = self.room(slots)
        low, high = 0, min(self.shape[0], self.most // self.dim)
        while low < high:
            middle = (low + high + 1) // 2
            if apart:
                fits = self.common(slots, middle, cols) is not None
            else:
                need = dict(self.places(middle, cols).total)
                need[Mem.ACC] += self.vectors * ceil_div(cols, self.dim)
                fits = all(need[mem] <= room[mem] for mem in Mem)
            if fits:
                low = middle
            else:
                high = middle - 1
        return low

    def _widths(self) -> list[int]:
        """Columns that a tile may have, the most first."""
        width = min(self.shape[1], self.most // self.dim * self.dim)
        if self.whole:
            return [width] if width == self.shape[1] else []
        if self.lanes.split:
            return [min(width, self.lanes.split * self.dim)]
        out = [width]
        while width > self.dim:
            width = ceil_div(width, 2 * self.dim) * self.dim
            out.append(width)
        return out

    @cached_property
    def sizes(self) -> Sizes | None:
        """Tall tiles of whole rows if they fit, in many slots if they fit; None if nothing fits.

        Of rows that are reduced, or go through several steps, what takes the fewest cycles.
        """
        rows, found = self.shape[0], []
        for least in (VECTOR_ROWS, 1):
            for slots in SLOTS:
                for width in self._widths():
                    whole = slots == 2 and width == self.shape[1] and not self.is_flat
                    for apart in (False, True) if whole else (False,):
                        tall = self._tallest(slots, width, apart)
                        if tall >= min(rows, least):
                            found.append(Sizes(self._height(tall), width, slots, apart))
                            if len(self.steps.steps) == 1 and not self.whole:
                                return found[0]
        return min(found, key=self._cycles, default=None)

    def _cycles(self, s: Sizes) -> int:
        """About how long all tiles take."""
        rows, blocks = min(s.rows, self.shape[0]), ceil_div(s.cols, self.dim)
        work = sum(cycles(x, rows, (0, s.cols), self.dim) for x in self.steps.steps)
        inputs = [x for x in self.steps.operands if x.view is not None]
        beats = self.dim / self.config.bus_bytes
        kinds = [x for x in inputs if x.down], [x for x in inputs if not x.down], self.outs
        read, once, write = (
            int(beats * sum(x.size(rows, blocks) * x.dtype.itemsize for x in some))
            for some in kinds
        )
        once *= 1 if s.apart else s.slots
        together = max(work, read, write) + SWITCH
        each = together if s.slots > 1 else work + read + write + LATENCY
        return once + each * ceil_div(self.shape[0], rows) * ceil_div(self.shape[1], s.cols)

    def _height(self, tall: int) -> int:
        """Whole groups of rows, and some tiles so that units work at once."""
        rows = self.shape[0]
        wanted = max(4 * VECTOR_ROWS, ceil_div(rows, 4))
        tall = min(tall, wanted)
        return tall // VECTOR_ROWS * VECTOR_ROWS if VECTOR_ROWS <= tall < rows else tall


class _Tiler:
    """What the tiles of one kernel share."""

    def __init__(self, config: ChipConfig, kernel: Kernel, number: int):
        assert isinstance(kernel.source, Lanes)
        self.config, self.kernel, self.number, self.dim = config, kernel, number, config.dim
        self.source = kernel.source
        self.layout = Layout(config, kernel.source, len(kernel.epilogue.vectors))
        if self.layout.sizes is None:
            raise ScheduleError(f"{kernel} does not fit the memories of {config.name}")
        self.sizes = self.layout.sizes
        self.is_flat = self.layout.is_flat
        s = self.sizes
        self.common = (self.layout.common(s.slots, s.rows, s.cols) or {}) if s.apart else {}
        blocks = ceil_div(s.cols, self.dim)
        self.places = self.layout.allocator.places(s.rows, blocks, s.apart)
        self.held: dict[tuple[int, object], object] = {}

    def ops(self) -> list[Op]:
        """Tile after tile: its columns, then its rows."""
        rows, cols = self.layout.shape
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

    def _tile(self, slot: int, rr: Range, cr: Range) -> list[Op]:
        room = self.layout.room(self.sizes.slots)
        base = {mem: slot * size for mem, size in room.items()}
        rows, blocks = rr[1] - rr[0], ceil_div(cr[1] - cr[0], self.dim)
        first = {x: base[local_of(x.dtype)[0]] + at for x, at in self.places.arrays.items()}
        first |= {x: at for x, at in self.common.items() if isinstance(x, Operand)}
        places = {
            x: Local(mem, at, at + x.size(rows, blocks) * local)
            for x, at in first.items()
            for mem, local in [local_of(x.dtype)]
        }
        codes = [base[Mem.ACC] + at for at in self.places.codes]
        if self.common:
            codes = [self.common[n] for n in range(len(self.layout.steps.steps))]
        ops: list[Op] = []
        for number, at in enumerate(codes):
            ops += self._code(slot, number, at)
        for x in self.layout.steps.operands:
            if x.view is not None:
                ops += self._load(slot, x, places[x], rr, cr, blocks)
        for number, step in enumerate(self.layout.steps.steps):
            for fields, reads, writes in vectors(step, codes[number], places, rows, cr, self.dim):
                ops.append(Op("vector", fields, reads, writes, self.number))
        if self.kernel.epilogue.vectors:
            at = self.common.get(VECTORS, base[Mem.ACC] + self.places.total[Mem.ACC])
            tile = places[self.layout.outs[0]]
            held = (0 if self.common else slot, VECTORS)
            if not self.held.get(held):
                ops += vector_loads(self.kernel, self.number, at, self.dim)
            self.held[held] = True
            return ops + affine_stores(self.kernel, self.number, tile, at, rr, self.dim)
        for x, out in zip(self.layout.outs, self.kernel.outs, strict=True):
            ops.append(self._store(x, out, places[x], rr, cr, blocks))
        return ops

    def _code(self, slot: int, number: int, at: int) -> list[Op]:
        slot = 0 if self.common else slot
        if self.held.get((slot, number)):
            return []
        self.held[slot, number] = True
        return [code_load(self.source.codes[number], at, self.dim, self.number)]

    def _elements(self, rr: Range, cr: Range) -> tuple[Range, ...]:
        """Rows and columns of the whole array that a tile holds."""
        if self.is_flat:
            return (0, 1), (rr[0] * self.dim, min(self.source.shape[1], rr[1] * self.dim))
        return rr, cr

    def _load(self, slot: int, x: Operand, place: Local, rr: Range, cr: Range,
              blocks: int) -> list[Op]:  # fmt: skip
        assert x.view is not None
        rows, cols = self._elements(rr, cr)
        rows = rows if x.down else (0, 1)
        cols = cols if x.across else (0, 1)
        if not (x.down and x.across):
            key, want = (0 if x in self.common else slot, x), (rows, cols, place)
            if self.held.get(key) == want:
                return []
            self.held[key] = want
        mem, local = local_of(x.dtype)
        step = local * (blocks if x.across and not self.is_flat else 1)
        fields, first, read = fields_of_rows(x.view, rows, cols, local, step)
        fields |= {"mem": mem, "conv": CONVERSION[x.dtype.itemsize], "loc": place.lo}
        return [Op("load", fields, (read,), (place,), self.number, "dram", x.view.buffer, first)]

    def _store(self, x: Operand, out, place: Local, rr: Range, cr: Range, blocks: int) -> Op:
        """STORE a result bit by bit: 32-bit elements, or bytes."""
        size, (mem, local) = x.dtype.itemsize, local_of(x.dtype)
        rows, cols = self._elements(rr, cr)
        pitch, step = self.source.shape[1], blocks * local
        if x.level > FULL:  # chunks of pieces
            pitch = ceil_div(ceil_div(pitch, self.dim), CHUNK) * self.dim
            first = cols[0] // CHUNK
            count = units_of(1, blocks)
            cols, step = (first, first + count * self.dim), count * local
        elif x.level == ROW:
            pieces = ceil_div(pitch, self.source.split * self.dim) if self.source.split else 1
            width = self.dim if self.source.split else 1
            pitch, step = pieces * width, local
            first = cols[0] // self.sizes.cols * width
            cols = (first, first + width)
        kind, part = (Type.I32, 1) if size == 4 else (Type.I8, size)
        fields = {"mem": mem, "type": kind, "out": kind, "int_path": 1, "loc": place.lo, "l0": 1,
                  "c0": (cols[1] - cols[0]) * part, "c1": rows[1] - rows[0],
                  "l1": step, "s1": pitch * size}  # fmt: skip
        begin = rows[0] * pitch + cols[0]
        end = begin + (rows[1] - rows[0] - 1) * pitch + cols[1] - cols[0]
        written = Dram(out, begin * size, end * size)
        return Op("store", fields, (place,), (written,), self.number, "dst", out, begin * size)
