"""Tile a contraction: chunks of activations and weights into slots, macro tiles into an accumulator
half, stores out.

For each output tile (in the schedule's order) and each chunk of K: load what its slot lacks, one
MATMUL; then one STORE with the epilogue. Tiles alternate between the accumulator's halves.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.kernels import Contract, Kernel, View
from tilewright.compiler.schedule import (
    Problem,
    Schedule,
    ceil_div,
    cell_granules,
    check,
    slots,
)
from tilewright.compiler.tile_store import Vectors, store_op
from tilewright.compiler.tiles import Dram, Local, Op, Plan, Slots
from tilewright.isa.table import Conv, Mem, Type

OPERAND_TYPE = {
    core.int8: Type.I8,
    core.uint8: Type.U8,
    core.bfloat16: Type.BF16,
    core.float32: Type.BF16,
}
OPERAND_CONV = {
    core.int8: Conv.COPY8,
    core.uint8: Conv.COPY8,
    core.bfloat16: Conv.COPY16,
    core.float32: Conv.F32_BF16,
}


def problem(kernel: Kernel) -> Problem:
    """Sizes and element widths, for the cost model."""
    source = kernel.source
    assert isinstance(source, Contract)
    _, m, n, k = source.sizes
    a, w = source.a.dtype, source.w.dtype
    local = 2 if OPERAND_TYPE[a] == Type.BF16 else 1
    out, vectors = kernel.epilogue.out.itemsize, len(kernel.epilogue.vectors)
    dense = [v.strides[2] == 1 or v.shape[2] == 1 for v in (source.a, source.w)]
    return Problem(m, n, k, local, a.itemsize, w.itemsize, out, vectors, *dense)


def accumulates_int(dtype: np.dtype) -> bool:
    """Whether a contraction of this operand type accumulates in int32."""
    return dtype in (core.int8, core.uint8)


def span_bytes(view: View, low: tuple[int, ...], high: tuple[int, ...]) -> Dram:
    """Bytes of the buffer between the lowest and the highest element of low <= index < high."""
    size = view.dtype.itemsize
    lo = hi = view.offset
    for a, b, s in zip(low, high, view.strides, strict=True):
        lo += min(a * s, (b - 1) * s)
        hi += max(a * s, (b - 1) * s)
    return Dram(view.buffer, lo * size, (hi + 1) * size)


def load_rows(view: View, batch: int, rows: tuple[int, int], cols: tuple[int, int], slot: Local,
              units: int, local: int, number: int) -> Op:  # fmt: skip
    """LOAD rows x cols of a (B, R, C) view: one local row of `units` units for each row.

    A view whose columns are not contiguous is gathered element by element with `pack`.
    """
    (r0, r1), (c0, c1) = rows, cols
    size = view.dtype.itemsize
    _, row_stride, col_stride = (s * size for s in view.strides)
    place = span_bytes(view, (batch, r0, c0), (batch + 1, r1, c1))
    first = view.offset * size + batch * view.strides[0] * size + r0 * row_stride + c0 * col_stride
    fields = {
        "mem": slot.mem, "conv": OPERAND_CONV[view.dtype], "loc": slot.lo, "l0": local,
    }  # fmt: skip
    if c1 - c0 == 1 or col_stride == size:
        fields |= {"c0": c1 - c0, "c1": r1 - r0, "s1": row_stride, "l1": units * local, "pack": 1}
    else:
        fields |= {"c0": 1, "c1": c1 - c0, "s1": col_stride, "c2": r1 - r0, "s2": row_stride,
                   "l2": units * local, "pack": 2}  # fmt: skip
    used = Local(slot.mem, slot.lo, slot.lo + (r1 - r0) * units * local)
    return Op("load", fields, (place,), (used,), number, "dram", view.buffer, first)


def walk(s: Schedule, m: int, n: int) -> Iterator[tuple[int, int]]:
    """Tile indices (row, column) in the schedule's order, as a snake: a turn keeps one operand."""
    rows, cols = range(ceil_div(m, s.mt)), range(ceil_div(n, s.nt))
    if s.order == "mn":
        yield from ((i, j) for i in rows for j in (cols[::-1] if i % 2 else cols))
    else:
        yield from ((i, j) for j in cols for i in (rows[::-1] if j % 2 else rows))


def tile_contract(
    plan: Plan, kernel: Kernel, number: int, s: Schedule, half: int
) -> tuple[list[Op], int]:
    """All operations of one contraction kernel.

    Parameters
    ----------
    half : accumulator half of the first tile; the half of the next kernel's first tile is returned.
    """
    source = kernel.source
    assert isinstance(source, Contract)
    batches, m, n, k = source.sizes
    p = problem(kernel)
    d = plan.config.dim
    check(plan.config, p, s)
    a_count, w_count = slots(plan.config, p, s)
    cell = cell_granules(plan.config)
    chunks = ceil_div(k, s.kt)
    tiles = [(b, i, j) for b in range(batches) for i, j in walk(s, m, n)]
    if batches > 1:  # operands that do not depend on the batch are the same chunk in every one
        shared_a, shared_w = source.a.strides[0] == 0, source.w.strides[0] == 0
    else:
        shared_a = shared_w = True
    a_uses = [(0 if shared_a else b, i, c) for b, i, _ in tiles for c in range(chunks)]
    w_uses = [(0 if shared_w else b, j, c) for b, _, j in tiles for c in range(chunks)]
    depth, blocks = ceil_div(s.kt, d), ceil_div(s.nt, d)
    a_size = ceil_div(s.mt * depth * p.local, cell) * cell
    w_size = ceil_div(d * depth * blocks * p.local, cell) * cell
    a_slots = Slots(Mem.SPAD, 0, a_size, a_count, a_uses)
    w_slots = Slots(Mem.SPAD, plan.w_base, w_size, w_count, w_uses)
    vectors = Vectors(plan, kernel, number, n, s.nt)
    ops: list[Op] = []
    for at, (b, i, j) in enumerate(tiles):
        rows = (i * s.mt, min(m, (i + 1) * s.mt))
        cols = (j * s.nt, min(n, (j + 1) * s.nt))
        base = half * plan.half
        count, nblocks = rows[1] - rows[0], ceil_div(cols[1] - cols[0], d)
        tile = Local(Mem.ACC, base, base + count * nblocks)
        for c in range(chunks):
            ks = (c * s.kt, min(k, (c + 1) * s.kt))
            w_slot, w_new = w_slots.take(w_uses[at * chunks + c])
            a_slot, a_new = a_slots.take(a_uses[at * chunks + c])
            nb = ceil_div(cols[1] - cols[0], d)
            kb = ceil_div(ks[1] - ks[0], d)
            if w_new:
                ops.append(load_rows(source.w, b, ks, cols, w_slot, nb, p.local, number))
            if a_new:
                ops.append(load_rows(source.a, b, rows, ks, a_slot, kb, p.local, number))
            ops.append(
                _matmul(kernel, number, a_slot, w_slot, tile, count, ks, cols, c > 0, p.local, d)
            )
        ops += vectors.loads(half, cols)
        out = (b * m + rows[0]) * n + cols[0]
        ops.append(
            store_op(plan, kernel, number, tile, count, cols, out, n, vectors)
        )
        half = 1 - half
    return ops, half


def _matmul(kernel, number, a_slot, w_slot, tile, rows, ks, cols, accumulate, local, d) -> Op:
    a, w = kernel.source.a.dtype, kernel.source.w.dtype
    kb, nb = ceil_div(ks[1] - ks[0], d), ceil_div(cols[1] - cols[0], d)
    fields = {
        "a_type": OPERAND_TYPE[a], "w_type": OPERAND_TYPE[w], "acc": int(accumulate),
        "a": a_slot.lo, "r0": rows, "r1": 1, "as0": kb * local, "ak": local,
        "w": w_slot.lo, "ws": nb * local, "wk": d * nb * local, "wn": local,
        "k": ks[1] - ks[0], "n": cols[1] - cols[0], "c": tile.lo, "cn": rows,
    }  # fmt: skip
    a_used = Local(Mem.SPAD, a_slot.lo, a_slot.lo + rows * kb * local)
    w_used = Local(Mem.SPAD, w_slot.lo, w_slot.lo + kb * d * nb * local)  # whole tiles are read
    return Op("matmul", fields, (a_used, w_used), (tile,), number)
