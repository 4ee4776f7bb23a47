"""STORE operations and the per-column vectors that their epilogues read.

Vectors (int32 bias, scale, bias) live at the end of every part of the accumulator, so that a STORE
reads no bank of the part that MATMUL fills. Few are loaded once, for all columns; else those of a
tile's columns are loaded where the part last held those of others.
"""

from __future__ import annotations

import struct

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.kernels import Contract, Epilogue, Kernel, View
from tilewright.compiler.schedule import ceil_div, vector_blocks
from tilewright.compiler.tiles import Dram, Local, Op, Plan
from tilewright.isa.config import XPOSE_BLOCKS
from tilewright.isa.extent import short
from tilewright.isa.table import INSTRUCTIONS, Conv, Dest, Mem, Type

TYPE = {
    core.int8: Type.I8,
    core.uint8: Type.U8,
    core.bool_: Type.U8,
    core.bfloat16: Type.BF16,
    core.float32: Type.F32,
    core.int32: Type.I32,
    core.uint32: Type.I32,
}


def word(value: float | int, integer: bool) -> int:
    """32 bits of an int32 or of an fp32 number, unsigned."""
    if integer:
        return int(value) & 0xFFFFFFFF
    return struct.unpack("<I", np.float32(value).tobytes())[0]


def limits(e: Epilogue) -> dict[str, int]:
    """STORE's clamp fields; an open side is an infinity (an integer extreme)."""
    if e.lo is None and e.hi is None:
        return {}
    low = e.lo if e.lo is not None else (-(2**31) if e.int_path else -np.inf)
    high = e.hi if e.hi is not None else (2**31 - 1 if e.int_path else np.inf)
    return {"clamp": 1, "lo": word(low, e.int_path), "hi": word(high, e.int_path)}


def store_fields(kernel: Kernel, source: Type) -> dict[str, int]:
    """The fields that depend on the epilogue only."""
    e = kernel.epilogue
    if e.finish and e.out.itemsize == 4:  # bit by bit
        return {"type": Type.I32, "out": Type.I32, "dest": Dest.DRAM, "int_path": 1}
    if e.finish:
        source = Type.F32 if e.out in core.FLOATS else Type.I32
    return {
        "type": source, "out": TYPE[e.out], "dest": Dest.DRAM, "int_path": int(e.int_path),
        "ibias": int(e.ibias is not None), "scale": int(e.scale is not None),
        "bias": int(e.bias is not None), "zp": e.zero_point, **limits(e),
    }  # fmt: skip


class Vectors:
    """The epilogue vectors of one kernel: where they are, and what must be loaded."""

    def __init__(self, plan: Plan, kernel: Kernel, number: int, n: int, nt: int,
                 parts: int = 2):  # fmt: skip
        self.plan, self.number, self.n = plan, number, n
        self.vectors = kernel.epilogue.vectors
        self.integer = (kernel.epilogue.ibias is not None,)
        self.held: dict[int, tuple[int, int]] = {}
        self.part = plan.config.acc_rows // parts
        self.pitch = vector_blocks(plan.config, len(self.vectors), n, nt, parts)
        self.resident = nt % plan.config.dim == 0 and self.pitch == ceil_div(n, plan.config.dim)

    def region(self, part: int) -> Local:
        """All their rows at the end of a part: vector by vector, `pitch` rows each."""
        end = (part + 1) * self.part
        return Local(Mem.ACC, end - len(self.vectors) * self.pitch, end)

    def fields(self, part: int, cols: tuple[int, int]) -> dict[str, int]:
        """STORE's fields for these columns, which are among those that the part holds."""
        if not self.vectors:
            return {}
        skip = (cols[0] - self.held[part][0]) // self.plan.config.dim
        return {"vec": self.region(part).lo + skip, "vs": self.pitch}

    def reads(self, tile: Local, part: int) -> tuple[Local, ...]:
        """What a STORE reads; all vectors count as read, so that whoever overwrites waits."""
        return (tile, self.region(part)) if self.vectors else (tile,)

    def loads(self, part: int, cols: tuple[int, int]) -> list[Op]:
        """LOADs of the vectors of these columns, empty if the part holds them already."""
        cols = (0, self.n) if self.resident else cols
        if self.held.get(part) == cols:
            return []
        self.held[part] = cols
        return [
            self._load(v, self.region(part).lo + i * self.pitch, cols, i == 0 and self.integer[0])
            for i, v in enumerate(self.vectors)
        ]

    def _load(self, vector, row: int, cols: tuple[int, int], integer: bool) -> Op:
        blocks = ceil_div(cols[1] - cols[0], self.plan.config.dim)
        place = Local(Mem.ACC, row, row + blocks)
        fields = {"mem": Mem.ACC, "conv": Conv.COPY32, "loc": row, "l0": 1}
        if not isinstance(vector, View):
            fields |= {"fill": 1, "value": word(vector, integer), "c0": cols[1] - cols[0]}
            return Op("load", fields, (), (place,), self.number)
        stride, size = vector.strides[0], vector.dtype.itemsize
        first = (vector.offset + cols[0] * stride) * size
        end = (vector.offset + (cols[1] - 1) * stride + 1) * size
        fields |= (
            {"c0": cols[1] - cols[0]}
            if stride == 1
            else {"c0": 1, "c1": cols[1] - cols[0], "s1": stride * size, "pack": 2}
        )
        read = Dram(vector.buffer, min(first, end - size), max(first + size, end))
        return Op("load", fields, (read,), (place,), self.number, "dram", vector.buffer, first)


def source_type(kernel: Kernel) -> Type:
    """The type of what lies in the accumulator."""
    if not isinstance(kernel.source, Contract):
        return Type.I32 if kernel.source.x.dtype in (core.int32, core.uint32) else Type.F32
    return Type.I32 if kernel.source.a.dtype in (core.int8, core.uint8) else Type.F32


def goes_short(kernel: Kernel) -> bool:
    """Whether a kernel's STOREs go the short way through the epilogue."""
    plain = {f.name: f.default for f in INSTRUCTIONS["store"].fields}
    return short(plain | store_fields(kernel, source_type(kernel)))


def store_op(plan: Plan, kernel: Kernel, number: int, tile: Local, rows: int, cols: tuple[int, int],
             first: int, pitch: int, vectors: Vectors,
             vector_part: int | None = None) -> Op:  # fmt: skip
    """STORE an accumulator tile (blocks of `rows` rows) as rows x cols of the kernel's output.

    Parameters
    ----------
    first : element of the output at which the tile begins.
    pitch : elements between rows of the output.
    vector_part : the part whose vectors it reads, by default that of the tile.
    """
    size = kernel.out.dtype.itemsize
    width = cols[1] - cols[0]
    fields = store_fields(kernel, source_type(kernel)) | {
        "mem": Mem.ACC, "loc": tile.lo, "c0": width, "c1": rows, "l0": rows, "l1": 1,
        "s1": pitch * size,
    }  # fmt: skip
    part = tile.lo // vectors.part if vector_part is None else vector_part
    fields |= vectors.fields(part, cols)
    end = first + (rows - 1) * pitch + width
    written = Dram(kernel.out, first * size, end * size, width * size, pitch * size)
    reads = vectors.reads(tile, part)
    return Op("store", fields, reads, (written,), number, "dst", kernel.out, first * size)


def turned_stores(plan: Plan, kernel: Kernel, number: int, tile: Local, rows: tuple[int, int],
                  cols: tuple[int, int], start: int, pitch: int, vectors: Vectors,
                  vector_part: int) -> list[Op]:  # fmt: skip
    """STOREs of an accumulator tile of the transposed result: its columns are the output's rows.

    A row of the output is sent in parts of XPOSE_BLOCKS * dim elements: one STORE for all whole
    parts and one for the rest; with vectors one for each part, because the vectors of an
    instruction begin at its first column.

    Parameters
    ----------
    rows, cols : of the transposed result; the tile has blocks of these rows.
    start : element of the output at which the batch begins.
    pitch : elements between rows of the output.
    """
    d, size = plan.config.dim, kernel.out.dtype.itemsize
    count, height = rows[1] - rows[0], cols[1] - cols[0]
    most = XPOSE_BLOCKS * d
    whole, rest = divmod(count, most)
    groups = [(g * most, 1, most) for g in range(whole)]
    if not vectors.vectors and whole:
        groups = [(0, whole, most)]
    groups += [(whole * most, 1, rest)] * (rest > 0)
    out = []
    for skip, number_of, width in groups:
        at = rows[0] + skip
        first = start + cols[0] * pitch + at
        fields = store_fields(kernel, source_type(kernel)) | {
            "mem": Mem.ACC, "loc": tile.lo + skip, "c0": width, "c1": height, "c2": number_of,
            "l0": 1, "l1": count, "l2": most, "s1": pitch * size, "s2": most * size, "xpose": 1,
        } | vectors.fields(vector_part, (at, at + width))  # fmt: skip
        end = first + (height - 1) * pitch + (number_of - 1) * most + width
        written = Dram(kernel.out, first * size, end * size)
        reads = vectors.reads(tile, vector_part)
        out.append(Op("store", fields, reads, (written,), number, "dst", kernel.out, first * size))
    return out
