"""Tiles of reductions over rows: LOADs, VECTORs whose units are rows of the tile, one STORE.

A tile is some rows (all of them, or a piece) of some columns; where all rows are few, of several P,
too. A VECTOR's own rows are blocks of columns, chunks, or P, whichever takes fewer slots.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import product

from tilewright.compiler.down_steps import Fold, Source, folds_of
from tilewright.compiler.kernels import Down, Kernel, View
from tilewright.compiler.lane_memory import code_load, local_of
from tilewright.compiler.primitives_reduce import CHUNK
from tilewright.compiler.schedule import MAX_COUNT, ScheduleError, ceil_div
from tilewright.compiler.tile_map import fields_of_rows
from tilewright.compiler.tile_store import TYPE
from tilewright.compiler.tile_vector import CONVERSION, SLOTS
from tilewright.compiler.tiles import Dram, Local, Op, Plan
from tilewright.isa.config import ChipConfig
from tilewright.isa.micro import WORD_BYTES
from tilewright.isa.table import Mem, Type
from tilewright.isa.timing import VECTOR_ROWS
from tilewright.isa.units import LOAD_STREAMS

_START = 24  # cycles of a VECTOR besides its rows, about
Range = tuple[int, int]


class DownLayout:
    """How a tile of a `Down` kernel lies in a slot.

    **Raises** ScheduleError: there is no micro-kernel.
    """

    def __init__(self, config: ChipConfig, source: Down):
        self.config, self.source, self.dim = config, source, config.dim
        found = folds_of(source, config.dim)
        if found is None:
            raise ScheduleError(f"{source} has no micro-kernel")
        self.folds = found
        self.rows = min(source.shape[1], source.split or source.shape[1])
        self.inputs = found[0].inputs
        self.arrays = [*self.inputs, *(f.output for f in found)]

    def places(self, heights: int, blocks: int) -> tuple[dict[Source, int], list[int], dict]:
        """First rows or granules in a slot: arrays, words of each step; and how many in all."""
        total = {Mem.ACC: 0, Mem.SPAD: 0}
        codes, at = [], {}
        for fold in self.folds:
            codes.append(total[Mem.ACC])
            total[Mem.ACC] += ceil_div(len(fold.micro.words) * WORD_BYTES, 4 * self.dim)
        for x in self.arrays:
            mem, local = local_of(x.dtype)
            at[x] = total[mem]
            total[mem] += x.units(heights, self.rows, blocks) * local
            total[mem] += total[mem] % 2 if mem == Mem.SPAD else 0
        return at, codes, total

    def room(self, slots: int) -> dict[Mem, int]:
        """Rows and granules of a slot."""
        spad = self.config.spad_granules // slots
        return {Mem.ACC: self.config.acc_rows // slots, Mem.SPAD: spad - spad % 2}

    def _most(self, slots: int, high: int, heights: bool) -> int:
        """The most P, or else blocks of columns, that fit a slot; or 0."""
        room, low = self.room(slots), 0
        while low < high:
            middle = (low + high + 1) // 2
            need = self.places(*((middle, self.blocks) if heights else (1, middle)))[2]
            fits = all(need[m] <= room[m] for m in Mem)
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    @property
    def blocks(self) -> int:
        """Blocks of all columns."""
        return ceil_div(self.source.shape[2], self.dim)

    @cached_property
    def sizes(self) -> tuple[int, int, int] | None:
        """P, blocks and slots of a tile; None if nothing fits."""
        for slots in SLOTS:
            blocks = self._most(slots, min(self.blocks, MAX_COUNT // self.dim), False)
            if blocks and (blocks == self.blocks or blocks * self.rows >= 8 * CHUNK or slots == 1):
                heights = 1
                if blocks == self.blocks and self._flat():
                    most = min(self.source.shape[0], MAX_COUNT // self.rows)
                    heights = max(1, self._most(slots, most, True))
                return heights, blocks, slots
        return None

    def _flat(self) -> bool:
        """Whether several P are rows one below the other, of all inputs that have rows."""
        if self.rows != self.source.shape[1]:
            return False
        return all(
            v.strides[0] == v.strides[1] * v.shape[1] and x.down and x.across
            for v, x in zip(self.source.views, self.inputs, strict=True)
        )


def tile_down(plan: Plan, kernel: Kernel, number: int) -> tuple[list[Op], str]:
    """All operations of one reduction over rows, and its schedule as text."""
    tiler = _Tiler(plan.config, kernel, number)
    heights, blocks, slots = tiler.sizes
    text = f"tiles of {heights} x {tiler.layout.rows} x {blocks * tiler.dim} in {slots} slots"
    return tiler.ops(), text


class _Tiler:
    """What the tiles of one kernel share."""

    def __init__(self, config: ChipConfig, kernel: Kernel, number: int):
        assert isinstance(kernel.source, Down)
        self.kernel, self.source, self.number, self.dim = kernel, kernel.source, number, config.dim
        self.layout = DownLayout(config, kernel.source)
        if self.layout.sizes is None:
            raise ScheduleError(f"{kernel} does not fit the memories of {config.name}")
        self.sizes = self.layout.sizes
        self.at, self.codes, _ = self.layout.places(*self.sizes[:2])
        self.held: dict[object, object] = {}

    def ops(self) -> list[Op]:
        """Tile after tile: columns, then P, then rows."""
        (p, r, c), (heights, blocks, slots) = self.source.shape, self.sizes
        width, rows = blocks * self.dim, self.layout.rows
        out: list[Op] = []
        steps = product(range(0, c, width), range(0, p, heights), range(0, r, rows))
        for turn, (c0, p0, r0) in enumerate(steps):
            out += self._tile(turn % slots, (p0, min(p, p0 + heights)), (r0, min(r, r0 + rows)),
                              (c0, min(c, c0 + width)))  # fmt: skip
        return out

    def _tile(self, slot: int, pr: Range, rr: Range, cr: Range) -> list[Op]:
        base = {mem: slot * size for mem, size in self.layout.room(self.sizes[2]).items()}
        heights, rows, blocks = pr[1] - pr[0], rr[1] - rr[0], ceil_div(cr[1] - cr[0], self.dim)
        places = {}
        for x, at in self.at.items():
            mem, local = local_of(x.dtype)
            lo = base[mem] + at
            places[x] = Local(mem, lo, lo + x.units(heights, rows, blocks) * local)
        ops: list[Op] = []
        for number, at in enumerate(self.codes):
            ops += self._code(slot, number, base[Mem.ACC] + at)
        for x in self.layout.inputs:
            ops += self._load(slot, x, places[x], pr, rr, cr)
        for fold, at in zip(self.layout.folds, self.codes, strict=True):
            ops += self._vectors(fold, base[Mem.ACC] + at, places, (heights, rows, blocks), rr[0])
        return [*ops, self._store(places[self.layout.arrays[-1]], pr, rr, cr)]

    def _code(self, slot: int, number: int, at: int) -> list[Op]:
        if self.held.get((slot, number)):
            return []
        self.held[slot, number] = True
        return [code_load(self.source.codes[number], at, self.dim, self.number)]

    def _load(self, slot: int, x: Source, place: Local, pr: Range, rr: Range,
              cr: Range) -> list[Op]:  # fmt: skip
        assert x.view is not None
        view, (_, r, _) = x.view, self.source.shape
        cols = cr if x.across else (0, 1)
        blocks = ceil_div(cols[1] - cols[0], self.dim)
        if pr[1] - pr[0] > 1:
            rows, offset = (pr[0] * r, pr[1] * r), view.offset
        else:
            rows, offset = rr if x.down else (0, 1), view.offset + pr[0] * view.strides[0]
        key, want = (slot, x), (rows, cols, offset, place)
        if self.held.get(key) == want and not x.down:
            return []
        self.held[key] = want
        mem, local = local_of(x.dtype)
        flat = View(view.buffer, (rows[1], view.shape[2]), view.strides[1:], offset)
        fields, first, read = fields_of_rows(flat, rows, cols, local, blocks * local)
        fields |= {"mem": mem, "conv": CONVERSION[x.dtype.itemsize], "loc": place.lo}
        return [Op("load", fields, (read,), (place,), self.number, "dram", view.buffer, first)]

    def _vectors(self, fold: Fold, code: int, places: dict[Source, Local],
                 size: tuple[int, int, int], first: int) -> Iterator[Op]:  # fmt: skip
        """One step, with the ways to lay its rows compared."""
        heights, rows, blocks = size
        level = max(x.level for x in fold.inputs)
        here = ceil_div(rows, CHUNK**level)
        ways = [list(_parts(way, heights, here, blocks, fold.chunked)) for way in "pbc"
                if way != "c" or (fold.chunked and not fold.indexed)]  # fmt: skip
        words = len(fold.micro.words)
        place = Local(Mem.ACC, code, code + ceil_div(2 * words, self.dim))
        for part in min(ways, key=lambda parts: sum(self._slots(fold, *p[1:3]) for p in parts)):
            at, count, units, way = part
            fields = {name: n for name, n in fold.micro.lengths.items() if n} | fold.micro.scalars
            fields |= {"kernel": code, "rows": count, "cols": units * self.dim}
            if fold.indexed:
                fields["v"] = first + at[1]
            for name, x in zip(LOAD_STREAMS, fold.inputs, strict=False):
                fields |= _stream(name, x, places[x], at, way, size, False)
            fields |= _stream("o", fold.output, places[fold.output], at, way, size, True)
            reads = (place, *(places[x] for x in fold.inputs))
            yield Op("vector", fields, reads, (places[fold.output],), self.number)

    def _slots(self, fold: Fold, count: int, units: int) -> int:
        n = fold.micro.lengths
        row = n["head"] + units * n["body"] + n["tail"]
        return _START + VECTOR_ROWS * (n["init"] + ceil_div(count, VECTOR_ROWS) * row)

    def _store(self, place: Local, pr: Range, rr: Range, cr: Range) -> Op:
        out, (_, r, c) = self.kernel.out, self.source.shape
        size, (mem, local) = out.dtype.itemsize, local_of(out.dtype)
        kind, part = (Type.I32, 1) if size == 4 else (Type.I8, size)
        blocks = ceil_div(cr[1] - cr[0], self.dim)
        pieces = ceil_div(r, self.source.split) if self.source.split else 1
        fields = {"mem": mem, "type": kind, "out": kind, "int_path": 1, "loc": place.lo,
                  "l0": 1, "c0": (cr[1] - cr[0]) * part, "c1": pr[1] - pr[0],
                  "l1": blocks * local, "s1": c * size}  # fmt: skip
        begin = (pr[0] * pieces + rr[0] // self.layout.rows) * c + cr[0]
        end = begin + (pr[1] - pr[0] - 1) * c + cr[1] - cr[0]
        written = Dram(out, begin * size, end * size)
        return Op("store", fields, (place,), (written,), self.number, "dst", out, begin * size)


Part = tuple[tuple[int, int, int], int, int, str]  # (P, row, block) of its first unit; rows; units


def _parts(way: str, heights: int, rows: int, blocks: int, chunked: bool) -> Iterator[Part]:
    """VECTORs whose rows are P ("p"), blocks ("b") or chunks ("c")."""
    step = CHUNK if chunked else rows
    starts = range(0, rows, step)
    if way == "p":
        for r, b in product(starts, range(blocks)):
            yield (0, r, b), heights, min(step, rows - r), way
    elif way == "b":
        for p, r in product(range(heights), starts):
            yield (p, r, 0), blocks, min(step, rows - r), way
    else:
        whole = rows // step
        for p, b in product(range(heights), range(blocks)):
            if whole:
                yield (p, 0, b), whole, step, way
            if whole * step < rows:
                yield (p, whole * step, b), 1, rows - whole * step, way


def _stream(name: str, x: Source, place: Local, at: tuple[int, int, int], way: str,
            size: tuple[int, int, int], result: bool) -> dict[str, int]:  # fmt: skip
    """A stream's fields; a result has one row for each chunk."""
    heights, rows, blocks = size
    mem, local = local_of(x.dtype)
    block = local if x.across else 0
    line = local * (blocks if x.across else 1) if x.down else 0
    whole = line * x.rows(rows) if x.down else 0
    whole = whole if heights > 1 else 0
    p, r, b = at
    row = {"p": whole, "b": block, "c": line * (1 if result else CHUNK)}[way]
    first = place.lo + p * whole + (r // CHUNK if result else r) * line + b * block
    fields = {"type": TYPE[x.dtype], "mem": mem, "on": 1, "row": row, "unit": 0 if result else line}
    return {name: first} | {f"{name}_{k}": int(v) for k, v in fields.items()}
