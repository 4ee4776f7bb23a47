"""Tile kernels without a contraction: maps (an epilogue over an array) and moves (bytes into row-
major order).

A map of 32-bit elements goes through the accumulator, one of 8 or 16 bits through the scratchpad. A
move gathers bytes: each operation makes one contiguous piece of the result from up to three strided
dimensions, packed into one local row.
"""

from __future__ import annotations

from itertools import product
from math import prod

from tilewright.compiler import core
from tilewright.compiler.kernels import Kernel, Map, Move, View, collapse, dense_strides
from tilewright.compiler.operand_loads import span_bytes
from tilewright.compiler.schedule import ceil_div, cell_granules, vector_rows
from tilewright.compiler.tile_store import TYPE, Vectors, store_fields, store_op
from tilewright.compiler.tiles import Dram, Local, Op, Plan
from tilewright.isa.config import STORE_VECTOR_UNITS
from tilewright.isa.table import Conv, Mem, Type

MAX_COUNT = 65535


def tile_map(plan: Plan, kernel: Kernel, number: int, half: int) -> tuple[list[Op], int]:
    """All operations of one map kernel; see `tile_contract` for `half`."""
    assert isinstance(kernel.source, Map)
    x = kernel.source.x
    wide = x.dtype.itemsize == 4
    rows, cols = x.shape
    d = plan.config.dim
    width = min(cols, STORE_VECTOR_UNITS * d)
    blocks = ceil_div(width, d)
    slots = 2 if wide else 4
    while blocks > (room := _room(plan, kernel, cols, width)):
        width = blocks // 2 * d
        blocks = ceil_div(width, d)
    vectors = Vectors(plan, kernel, number, cols, width)
    height = min(rows, room // blocks, MAX_COUNT)
    ops: list[Op] = []
    turn = 0
    for c0, r0 in product(range(0, cols, width), range(0, rows, height)):
        cr, rr = (c0, min(cols, c0 + width)), (r0, min(rows, r0 + height))
        ops += vectors.loads(half, cr)
        first = rr[0] * cols + cr[0]
        if wide:
            ops += _through_accumulator(plan, kernel, number, half, rr, cr, first, vectors)
        else:
            ops += _through_scratchpad(
                plan, kernel, number, turn % slots, half, rr, cr, first, vectors
            )
        half, turn = 1 - half, turn + 1
    return ops, half


def _room(plan: Plan, kernel: Kernel, cols: int, width: int) -> int:
    """Local rows of `dim` elements that a tile of `width` columns may take.

    The vectors, at the end of the same accumulator half, must fit as well.
    """
    x = kernel.source.x
    left = plan.half - vector_rows(plan.config, len(kernel.epilogue.vectors), cols, width)
    if x.dtype.itemsize == 4:
        return left
    return 0 if left < 0 else plan.w_base // 4 // (2 if x.dtype == core.bfloat16 else 1)


def fields_of_rows(
    x: View, rr, cr, unit_step: int, row_step: int
) -> tuple[dict[str, int], int, Dram]:
    """LOAD's address fields for rows x cols of a (R, C) view; first byte; the bytes read."""
    size = x.dtype.itemsize
    row_stride, col_stride = (s * size for s in x.strides)
    first = x.offset * size + rr[0] * row_stride + cr[0] * col_stride
    fields = {"l0": unit_step}
    rows, cols = rr[1] - rr[0], cr[1] - cr[0]
    if cols == 1 or col_stride == size:
        fields |= {"c0": cols, "c1": rows, "s1": row_stride, "l1": row_step, "pack": 1}
    else:
        fields |= {"c0": 1, "c1": cols, "s1": col_stride, "c2": rows, "s2": row_stride,
                   "l2": row_step, "pack": 2}  # fmt: skip
    return fields, first, span_bytes(x, (rr[0], cr[0]), (rr[1], cr[1]))


def _through_accumulator(plan, kernel, number, half, rr, cr, first, vectors) -> list[Op]:
    x = kernel.source.x
    rows, blocks = rr[1] - rr[0], ceil_div(cr[1] - cr[0], plan.config.dim)
    base = half * plan.half
    tile = Local(Mem.ACC, base, base + rows * blocks)
    fields, address, read = fields_of_rows(x, rr, cr, rows, 1)
    fields |= {"mem": Mem.ACC, "conv": Conv.COPY32, "loc": base}
    load = Op("load", fields, (read,), (tile,), number, "dram", x.buffer, address)
    cols = kernel.source.x.shape[1]
    return [load, store_op(plan, kernel, number, tile, rows, cr, first, cols, vectors)]


def _through_scratchpad(plan, kernel, number, slot, half, rr, cr, first, vectors) -> list[Op]:
    x = kernel.source.x
    local = 2 if x.dtype == core.bfloat16 else 1
    rows, width = rr[1] - rr[0], cr[1] - cr[0]
    blocks = ceil_div(width, plan.config.dim)
    cell = cell_granules(plan.config)
    base = slot * (plan.w_base // 4 // cell * cell)
    tile = Local(Mem.SPAD, base, base + rows * blocks * local)
    fields, address, read = fields_of_rows(x, rr, cr, local, blocks * local)
    conv = Conv.COPY16 if local == 2 else Conv.COPY8
    fields |= {"mem": Mem.SPAD, "conv": conv, "loc": base}
    load = Op("load", fields, (read,), (tile,), number, "dram", x.buffer, address)
    size, pitch = kernel.out.dtype.itemsize, x.shape[1]
    out = store_fields(kernel, TYPE[x.dtype]) | {
        "mem": Mem.SPAD, "loc": base, "c0": width, "c1": rows, "l0": local, "l1": blocks * local,
        "s1": pitch * size,
    }  # fmt: skip
    out |= vectors.fields(half, cr)
    reads = vectors.reads(tile, half)
    written = Dram(kernel.out, first * size, (first + (rows - 1) * pitch + width) * size)
    return [load, Op("store", out, reads, (written,), number, "dst", kernel.out, first * size)]


def tile_move(plan: Plan, kernel: Kernel, number: int) -> list[Op]:
    """All operations of one move kernel: pieces of the result, each from one packed local row."""
    assert isinstance(kernel.source, Move)
    x = kernel.source.x
    size, taken = x.dtype.itemsize, kernel.out.dtype.itemsize  # the low bytes of each element
    dims = [(1, 1)] * 3 + collapse((*x.shape, taken), (*(s * size for s in x.strides), 1))
    if not dims or dims[-1][1] != 1:
        dims.append((1, 1))
    outer, inner = dims[:-3], dims[-3:]
    cell = cell_granules(plan.config)
    slot = plan.w_base // 4 // cell * cell
    room = min(slot * plan.config.dim, MAX_COUNT)
    tile = []
    for n, _ in reversed(inner):  # innermost first: whole dimensions while they fit
        fits = max(1, min(n, room // prod(tile)))
        tile.append(
            fits if all(t == m for t, (m, _) in zip(tile, reversed(inner), strict=False)) else 1
        )
    c0, c1, c2 = tile
    steps = (*(1 for _ in outer), c2, c1, c0)
    counts = [n for n, _ in (*outer, *inner)]
    strides = [s for _, s in (*outer, *inner)]
    dense = dense_strides(tuple(counts))
    ops: list[Op] = []
    for turn, at in enumerate(
        product(*(range(0, n, t) for n, t in zip(counts, steps, strict=True)))
    ):
        part = [min(t, n - i) for t, n, i in zip(steps, counts, at, strict=True)]
        first = x.offset * size + sum(i * s for i, s in zip(at, strides, strict=True))
        start = sum(i * s for i, s in zip(at, dense, strict=True))
        ops += _move_piece(
            plan, kernel, number, turn % 4 * slot, part[-3:], strides[-3:], first, start
        )
    return ops


def _move_piece(plan, kernel, number, base, part, strides, first, start) -> list[Op]:
    n2, n1, n0 = part
    s2, s1, _ = strides
    length = n0 * n1 * n2
    units = ceil_div(length, plan.config.dim)
    row = Local(Mem.SPAD, base, base + units)
    reach = [(n - 1) * s for n, s in ((n2, s2), (n1, s1))]
    read = Dram(kernel.source.x.buffer, first + sum(min(0, r) for r in reach),
                first + sum(max(0, r) for r in reach) + n0)  # fmt: skip
    fields = {"mem": Mem.SPAD, "conv": Conv.COPY8, "loc": base, "l0": 1, "pack": 3,
              "c0": n0, "c1": n1, "c2": n2, "s1": s1, "s2": s2}  # fmt: skip
    store = {"mem": Mem.SPAD, "type": Type.I8, "out": Type.I8, "int_path": 1, "loc": base,
             "c0": length, "l0": 1}  # fmt: skip
    source, out = kernel.source.x.buffer, kernel.out
    return [
        Op("load", fields, (read,), (row,), number, "dram", source, first),
        Op("store", store, (row,), (Dram(out, start, start + length),), number, "dst", out, start),
    ]
