"""The end of a normalisation on STORE: its factor and summand of each column, its rounding.

VECTOR leaves rows of float32 in the accumulator; STORE reads as many column blocks of both vectors
as it can hold, so wide rows leave in pieces.
"""

from __future__ import annotations

from tilewright.compiler.kernels import Kernel, View
from tilewright.compiler.schedule import ceil_div
from tilewright.compiler.tile_store import store_fields
from tilewright.compiler.tiles import Dram, Local, Op
from tilewright.isa.config import STORE_VECTOR_UNITS
from tilewright.isa.table import Conv, Mem, Type


def vector_loads(kernel: Kernel, number: int, at: int, dim: int) -> list[Op]:
    """LOADs of the vectors of an epilogue, one behind the other."""
    out = []
    for v in kernel.epilogue.vectors:
        assert isinstance(v, View) and v.strides == (1,), v
        (cols,), size = v.shape, v.dtype.itemsize
        blocks, first = ceil_div(cols, dim), v.offset * size
        fields = {"mem": Mem.ACC, "conv": Conv.COPY32, "loc": at, "l0": 1, "c0": cols}
        read = Dram(v.buffer, first, first + cols * size)
        place = Local(Mem.ACC, at, at + blocks)
        out.append(Op("load", fields, (read,), (place,), number, "dram", v.buffer, first))
        at += blocks
    return out


def affine_stores(
    kernel: Kernel, number: int, tile: Local, vectors: int, rows: tuple[int, int], dim: int
) -> list[Op]:
    """STOREs of whole rows, which lie in the accumulator row by row.

    Parameters
    ----------
    vectors : accumulator row of the first vector.
    """
    first_vector = kernel.epilogue.vectors[0]
    assert isinstance(first_vector, View)
    cols, size = first_vector.shape[0], kernel.out.dtype.itemsize
    blocks, out = ceil_div(cols, dim), []
    held = Local(Mem.ACC, vectors, vectors + len(kernel.epilogue.vectors) * blocks)
    for b in range(0, blocks, STORE_VECTOR_UNITS):
        c0, c1 = b * dim, min(cols, (b + STORE_VECTOR_UNITS) * dim)
        fields = store_fields(kernel, Type.F32) | {
            "mem": Mem.ACC, "loc": tile.lo + b, "c0": c1 - c0, "c1": rows[1] - rows[0], "l0": 1,
            "l1": blocks, "s1": cols * size, "vec": vectors + b, "vs": blocks,
        }  # fmt: skip
        first = rows[0] * cols + c0
        end = first + (rows[1] - rows[0] - 1) * cols + c1 - c0
        written = Dram(kernel.out, first * size, end * size, (c1 - c0) * size, cols * size)
        out.append(
            Op("store", fields, (tile, held), (written,), number, "dst", kernel.out, first * size)
        )
    return out
