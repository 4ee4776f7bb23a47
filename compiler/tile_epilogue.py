"""VECTOR between MATMUL and STORE: a micro-kernel over each piece of a tile, in place.

Micro-kernel and operands of 32 bits lie at the end of a part of the accumulator, the other operands
in a slot of the scratchpad's last banks (`schedule_after`). What a tile needs is loaded ahead of
it, unless its part holds it since an earlier tile.
"""

from __future__ import annotations

from tilewright.compiler import core
from tilewright.compiler.fuse_epilogue import finish_code
from tilewright.compiler.kernels import Kernel, View
from tilewright.compiler.lane_memory import local_of
from tilewright.compiler.schedule import Problem, Schedule, Span, ceil_div, widest_tile
from tilewright.compiler.schedule_after import After, Stream, after_banks
from tilewright.compiler.schedule_pieces import Piece
from tilewright.compiler.share import spad_banks
from tilewright.compiler.tile_map import fields_of_rows
from tilewright.compiler.tile_store import TYPE, source_type
from tilewright.compiler.tile_vector import CONVERSION
from tilewright.compiler.tiles import Dram, Local, Op, Plan
from tilewright.compiler.vector_code import MicroKernel
from tilewright.isa.table import Conv, Mem, Type
from tilewright.isa.units import LOAD_STREAMS


def micro_of(kernel: Kernel) -> MicroKernel:
    """The micro-kernel of a kernel's epilogue."""
    finish = kernel.epilogue.finish
    assert finish is not None
    found = finish_code(finish.term, finish.views)
    assert found is not None, f"{kernel} was made with a micro-kernel"
    return found


def stream_of(view: View) -> Stream:
    """Which of an operand's elements (B, M, N) differ inside of a batch."""
    (_, rows, cols), (_, down, across) = view.shape, view.strides
    return Stream(view.dtype.itemsize, rows > 1 and down != 0, cols == 1 or across != 0)


def after_of(kernel: Kernel) -> After | None:
    """What a schedule must know of a kernel's VECTOR epilogue."""
    finish = kernel.epilogue.finish
    if finish is None:
        return None
    n = micro_of(kernel).lengths
    streams = tuple(map(stream_of, finish.views))
    return After(n["init"], n["head"], n["body"] + n["tail"], streams)


class Finisher:
    """The VECTOR epilogue of one kernel: what must be loaded, and the operation of a piece."""

    def __init__(self, plan: Plan, kernel: Kernel, number: int, p: Problem, s: Schedule):
        finish, config = kernel.epilogue.finish, plan.config
        assert finish is not None and p.after is not None
        self.kernel, self.number, self.dim = kernel, number, config.dim
        self.finish, self.after, self.micro = finish, p.after, micro_of(kernel)
        self.part = config.acc_rows // s.parts
        rows, wide = min(s.mt, p.m), widest_tile(config, p, s)
        blocks = ceil_div(wide, config.dim)
        self.rows = self.after.rows(config, rows, blocks)
        self.slot = self.after.granules(rows, blocks)
        self.code_rows = self.after.code_rows(config)
        banks = after_banks(config, p, rows, wide, s.parts)
        self.base = (spad_banks(config) - int(banks)) * config.spad_bank
        self.offsets: list[int] = []
        at = {Mem.ACC: self.code_rows, Mem.SPAD: 0}
        for x in self.after.streams:
            mem = Mem.ACC if x.size == 4 else Mem.SPAD
            self.offsets.append(at[mem])
            at[mem] += x.units(rows, blocks) if x.size == 4 else x.granules(rows, blocks)
        self.held: dict[tuple[int, int], object] = {}

    def region(self, part: int) -> Local:
        """All rows of a part that it takes, at the part's end."""
        end = (part + 1) * self.part
        return Local(Mem.ACC, end - self.rows, end)

    def _place(self, part: int, which: int, rows: int, blocks: int) -> Local:
        """An operand's place, for a tile of that size."""
        x = self.after.streams[which]
        mem = Mem.ACC if x.size == 4 else Mem.SPAD
        first = self.region(part).lo if mem == Mem.ACC else self.base + part * self.slot
        first += self.offsets[which]
        return Local(mem, first, first + x.units(rows, blocks) * (1 if x.size == 4 else x.size))

    def code(self, part: int) -> list[Op]:
        """LOAD the micro-kernel, if the part lacks it."""
        if self.held.get((part, -1)):
            return []
        self.held[part, -1] = True
        view, at = self.finish.code, self.region(part).lo
        fields = {"mem": Mem.ACC, "conv": Conv.COPY32, "loc": at, "l0": 1, "c0": view.shape[0]}
        read = Dram(view.buffer, 0, view.buffer.nbytes)
        place = Local(Mem.ACC, at, at + self.code_rows)
        return [Op("load", fields, (read,), (place,), self.number, "dram", view.buffer, 0)]

    def loads(self, part: int, batch: int, rows: Span, cols: Span) -> list[Op]:
        """LOAD what a part lacks for a tile."""
        out = self.code(part)
        blocks = ceil_div(cols[1] - cols[0], self.dim)
        for i, (whole, x) in enumerate(zip(self.finish.views, self.after.streams, strict=True)):
            view = whole.part(batch)
            rr, cr = rows if x.down else (0, 1), cols if x.across else (0, 1)
            place = self._place(part, i, rows[1] - rows[0], blocks)
            if self.held.get((part, i)) == (view.offset, rr, cr):
                continue
            self.held[part, i] = view.offset, rr, cr
            mem, local = local_of(view.dtype)
            step = local * (blocks if x.across else 1)
            fields, first, read = fields_of_rows(view, rr, cr, local, step)
            fields |= {"mem": mem, "conv": CONVERSION[x.size], "loc": place.lo}
            out.append(
                Op("load", fields, (read,), (place,), self.number, "dram", view.buffer, first)
            )
        return out

    def vector(self, piece: Piece, rows: Span, cols: Span, part: int) -> Op:
        """VECTOR over a piece of a tile, with what the part holds for the tile."""
        count, blocks = rows[1] - rows[0], ceil_div(cols[1] - cols[0], self.dim)
        tile = Local(Mem.ACC, piece.at, piece.at + piece.size)
        start = self.region(part).lo
        code = Local(Mem.ACC, start, start + self.code_rows)
        width = min(cols[1] - cols[0], piece.b1 * self.dim) - piece.b0 * self.dim
        made = Type.F32 if self.kernel.epilogue.out in core.FLOATS else Type.I32
        fields = {"kernel": code.lo, "rows": piece.r1 - piece.r0, "cols": width}
        fields |= {name: n for name, n in self.micro.lengths.items() if n} | self.micro.scalars
        sums = source_type(self.kernel)
        fields |= _fields(LOAD_STREAMS[0], Mem.ACC, sums, tile.lo, 1, piece.step)
        fields |= _fields("o", Mem.ACC, made, tile.lo, 1, piece.step)
        places: list[Local] = []
        for i, (view, x) in enumerate(zip(self.finish.views, self.after.streams, strict=True)):
            place = self._place(part, i, count, blocks)
            places.append(place)
            mem, local = local_of(view.dtype)
            unit = local if x.across else 0
            row = (local * (blocks if x.across else 1)) if x.down else 0
            first = place.lo + piece.r0 * row + piece.b0 * unit
            fields |= _fields(LOAD_STREAMS[i + 1], mem, TYPE[view.dtype], first, row, unit)
        return Op("vector", fields, (code, tile, *places), (tile,), self.number)


def _fields(name: str, mem: Mem, kind: Type, first: int, row: int, unit: int) -> dict[str, int]:
    """The fields of one stream."""
    values = {"on": 1, "mem": mem, "type": kind, "row": row, "unit": unit}
    return {name: first} | {f"{name}_{k}": int(v) for k, v in values.items()}
