"""Tile gathers and scatters: LOAD and STORE take the rows' numbers from the scratchpad.

The first quarter of the activations' banks holds the numbers, the others rows in turn. Waits order
operations of different units only, so a fence stands between the LOAD of the numbers and those that
gather by them. The operations are said to touch all of the array.

Where a row is computed from the one that is there, and rows may repeat, each waits for the one
before: the operations of one row of VECTOR are repeated with other addresses. Then the last quarter
of the scratchpad holds the numbers, each in a pair of granules of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import cast

from tilewright.compiler.kernels import Accumulate, Gather, Kernel, Move, Scatter, View, collapse
from tilewright.compiler.schedule import ceil_div, cell_granules
from tilewright.compiler.tile_control import scalar
from tilewright.compiler.tile_map import tile_move
from tilewright.compiler.tile_pad import BYTES, MAX_COUNT
from tilewright.compiler.tile_vector import tile_vector
from tilewright.compiler.tiles import Dram, Local, Op, Plan
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import Conv, Mem

BEATS = 256  # of a piece, so that STORE works on one while LOAD fetches the next
Piece = tuple[int, int, int, int, int]  # first row, rows, first byte of a run, bytes, local row


@dataclass(frozen=True)
class Room:
    """How rows are cut: the numbers of `chunk` rows at a time, pieces of `rows` x `width` bytes.

    The numbers of a piece begin with an aligned pair of granules, which holds `dim` / 2 of them.
    """

    slot: int
    pair: int
    run: int
    dim: int
    bus: int

    @staticmethod
    def of(plan: Plan, run: int) -> Room:
        """For rows of `run` bytes."""
        cell = cell_granules(plan.config)
        dim = plan.config.dim
        return Room(plan.w_base // 4 // cell * cell, dim // 2, run, dim, plan.config.bus_bytes)

    @property
    def chunk(self) -> int:
        return min(self.slot // 2 * self.pair, MAX_COUNT // self.pair * self.pair)

    @property
    def width(self) -> int:
        return min(self.run, self.slot // self.pair * self.dim, MAX_COUNT)

    @property
    def rows(self) -> int:
        fits = self.slot // ceil_div(self.width, self.dim) // self.pair
        return max(1, min(fits, BEATS * self.bus // self.width // self.pair)) * self.pair

    def pieces(self, count: int) -> Iterator[Piece]:
        """Of `count` rows."""
        starts = product(range(0, count, self.rows), range(0, self.run, self.width))
        for turn, (r, c) in enumerate(starts):
            width = min(self.width, self.run - c)
            yield r, min(self.rows, count - r), c, width, (1 + turn % 3) * self.slot

    def numbers(self, index: View, first: int, count: int, number: int) -> Op:
        """LOAD of rows' numbers."""
        place = Local(Mem.SPAD, 0, 2 * ceil_div(count, self.pair))
        at = (index.offset + first) * 4
        fields = {"mem": Mem.SPAD, "conv": Conv.COPY32, "loc": 0, "l0": 2, "c0": count}
        return Op("load", fields, (Dram(index.buffer, at, at + 4 * count),), (place,), number,
                  "dram", index.buffer, at)  # fmt: skip

    def at(self, r: int, rows: int) -> Local:
        """Where the numbers of some rows are."""
        first = r // self.pair * 2
        return Local(Mem.SPAD, first, first + 2 * ceil_div(rows, self.pair))

    def place(self, loc: int, rows: int, width: int) -> tuple[Local, dict[str, int]]:
        """Where a piece lies, and the fields of both operations that say so."""
        units = ceil_div(width, self.dim)
        fields = {"loc": loc, "l0": 1, "l1": units, "c0": width, "c1": rows}
        return Local(Mem.SPAD, loc, loc + units * rows), fields


def row_parts(x: View) -> tuple[int, list[tuple[int, int]]]:
    """Neighbouring bytes of a row (N, ...), and (count, bytes between them) of what is around."""
    size = x.dtype.itemsize
    dims = collapse((*x.shape[1:], size), (*(s * size for s in x.strides[1:]), 1))
    return (dims[-1][0], dims[:-1]) if dims and dims[-1][1] == 1 else (1, dims)


def tile_gather(plan: Plan, kernel: Kernel, number: int) -> list[Op]:
    """All operations of one `Gather`."""
    source = cast(Gather, kernel.source)
    x, size, ops = source.x, source.x.dtype.itemsize, list[Op]()
    run, around = row_parts(x)
    room, whole = Room.of(plan, run), prod(x.shape[1:]) * size
    read = Dram(x.buffer, 0, x.buffer.nbytes)
    pitch = x.strides[0] * size if x.shape[0] > 1 else 0
    parts = list(product(*(range(n) for n, _ in around)))
    for first in range(0, source.index.shape[0], room.chunk):
        count = min(room.chunk, source.index.shape[0] - first)
        ops += [room.numbers(source.index, first, count, number), scalar("fence", number)]
        for (turn, part), (r, rows, c, width, loc) in product(
            enumerate(parts), list(room.pieces(count))
        ):
            place, fields = room.place(loc, rows, width)
            at = x.offset * size + c + sum(i * s for i, (_, s) in zip(part, around, strict=True))
            load = fields | {"mem": Mem.SPAD, "conv": Conv.COPY8, "gather": 1, "s1": pitch,
                             "index": room.at(r, rows).lo, "bound": x.shape[0]}  # fmt: skip
            ops.append(Op("load", load, (read, room.at(r, rows)), (place,), number, "dram",
                          x.buffer, at))  # fmt: skip
            start = (first + r) * whole + turn * run + c
            wrote = Dram(kernel.out, start, start + (rows - 1) * whole + width)
            ops.append(Op("store", BYTES | fields | {"s1": whole}, (place,), (wrote,), number,
                          "dst", kernel.out, start))  # fmt: skip
    return ops


def tile_scatter(plan: Plan, kernel: Kernel, number: int) -> list[Op]:
    """All operations of one `Scatter`."""
    source, ops = cast(Scatter, kernel.source), list[Op]()
    if source.x.buffer is not kernel.out:
        ops += tile_move(plan, replace(kernel, source=Move(source.x)), number)
    count, y = source.x.shape[0], source.y
    run = prod(y.shape[1:]) * y.dtype.itemsize
    room, wrote = Room.of(plan, run), Dram(kernel.out, 0, kernel.out.nbytes)
    for first in range(0, y.shape[0], room.chunk):
        some = min(room.chunk, y.shape[0] - first)
        ops.append(room.numbers(source.index, first, some, number))
        for r, rows, c, width, loc in room.pieces(some):
            place, fields = room.place(loc, rows, width)
            at = y.offset * y.dtype.itemsize + (first + r) * run + c
            read = Dram(y.buffer, at, at + (rows - 1) * run + width)
            load = fields | {"mem": Mem.SPAD, "conv": Conv.COPY8, "s1": run}
            ops.append(Op("load", load, (read,), (place,), number, "dram", y.buffer, at))
            store = BYTES | fields | {"scatter": 1, "s1": run, "bound": count,
                                      "index": room.at(r, rows).lo}  # fmt: skip
            ops.append(Op("store", store, (place, room.at(r, rows)), (wrote,), number, "dst",
                          kernel.out, c))  # fmt: skip
    return ops


def one_row(plan: Plan, kernel: Kernel, number: int) -> list[Op] | None:
    """The operations of an `Accumulate` for one row; None if they do not leave room for numbers.

    LOADs of the micro-kernel come first, then those of y's row, which need not wait.
    """
    source = cast(Accumulate, kernel.source)
    ops, _ = tile_vector(plan, replace(kernel, source=source.step), number)
    old = source.step.views[0].buffer
    places = [p for op in ops for p in (*op.reads, *op.writes) if isinstance(p, Local)]
    free = all(p.mem != Mem.SPAD or p.hi <= _numbers_at(plan.config) for p in places)
    if not free or sum(op.name == "vector" for op in ops) != 1:
        return None
    return sorted(ops, key=lambda op: op.name != "load" or op.buffer is old)


def _numbers_at(config: ChipConfig) -> int:
    return config.spad_granules // 4 * 3 // 2 * 2


def tile_accumulate(plan: Plan, kernel: Kernel, number: int) -> list[Op]:
    """All operations of one `Accumulate`."""
    source, ops = cast(Accumulate, kernel.source), list[Op]()
    if source.x.buffer is not kernel.out:
        ops += tile_move(plan, replace(kernel, source=Move(source.x)), number)
    row = one_row(plan, kernel, number)
    assert row is not None, f"{kernel} was made to fit"
    base, count, index = _numbers_at(plan.config), source.index.shape[0], source.index
    chunk = (plan.config.spad_granules - base) // 2
    for first in range(0, count, chunk):
        some = min(chunk, count - first)
        at = (index.offset + first) * 4
        fields = {"mem": Mem.SPAD, "conv": Conv.COPY32, "loc": base, "l0": 2, "l1": 2, "c0": 1,
                  "c1": some, "s1": 4, "pack": 1}  # fmt: skip
        ops.append(Op("load", fields, (Dram(index.buffer, at, at + 4 * some),),
                      (Local(Mem.SPAD, base, base + 2 * some),), number, "dram", index.buffer,
                      at))  # fmt: skip
        ops.append(scalar("fence", number))
        for r in range(some):
            place = Local(Mem.SPAD, base + 2 * r, base + 2 * r + 2)
            ops += _one(kernel, row, first + r, place)
    return ops


def _one(kernel: Kernel, row: list[Op], number: int, place: Local) -> Iterator[Op]:
    """The operations of one row, whose number is at a place."""
    source = cast(Accumulate, kernel.source)
    old, new = (v.buffer for v in source.step.views)
    y, out = source.y, kernel.out
    run, whole = new.nbytes, Dram(out, 0, out.nbytes)
    found = {"index": place.lo, "bound": source.x.shape[0], "s1": run}
    for op in row:
        if op.name == "vector":
            yield replace(op, sync={})
        elif op.name == "store":
            fields = op.fields | found | {"scatter": 1}
            yield replace(op, fields=fields, reads=(*op.reads, place), writes=(whole,), sync={})
        elif op.buffer is old:
            fields = op.fields | found | {"gather": 1}
            yield replace(op, fields=fields, reads=(whole, place), buffer=out, sync={})
        elif op.buffer is new:
            first = y.offset * y.dtype.itemsize + number * run
            (read,) = op.reads
            moved = Dram(y.buffer, read.lo + first, read.hi + first)
            yield replace(op, reads=(moved,), buffer=y.buffer, offset=op.offset + first, sync={})
        elif not number:
            yield op
