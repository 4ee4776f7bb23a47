"""Tile pads and joins: bits copied into a strided part of the result, the rest of a pad filled.

First STOREs of a filled scratchpad row write everything around the part (all of the result, if the
part has gaps), then rows go from DRAM through the scratchpad to their places. STORE writes in
order, so where both write, the copy wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

import numpy as np
from tilewright.compiler.kernels import Buffer, Join, Kernel, Pad, View, dense_strides
from tilewright.compiler.schedule import ceil_div, cell_granules
from tilewright.compiler.tile_stage import Stage
from tilewright.compiler.tiles import Dram, Local, Op, Plan
from tilewright.isa.table import Conv, Mem, Type

MAX_COUNT = 65535
FILL_CONV = {1: Conv.COPY8, 2: Conv.COPY16, 4: Conv.COPY32}
BYTES = {"mem": Mem.SPAD, "type": Type.I8, "out": Type.I8, "int_path": 1, "l0": 1}
Box = list[tuple[int, int, int]]  # count, bytes in the source, bytes in the result; outermost first


def tile_pad(plan: Plan, kernel: Kernel, number: int) -> list[Op]:
    """All operations of one pad kernel."""
    source = kernel.source
    assert isinstance(source, Pad)
    if source.phases > 1:
        return Stage(plan.config, kernel, number, (0, plan.w_base)).all()
    slots = _Slots(plan)
    ops = _fills(plan, kernel, number, source, slots)
    if prod(source.x.shape):
        ops += _copies(
            plan, kernel.out, number, source.x, source.start, source.step, slots, source.shape
        )
    return ops


def tile_join(plan: Plan, kernel: Kernel, number: int) -> list[Op]:
    """All operations of one join kernel: a copy of each part."""
    source = kernel.source
    assert isinstance(source, Join)
    slots = _Slots(plan)
    ones = (1,) * len(source.shape)
    start = [0] * len(ones)
    ops: list[Op] = []
    for x in source.views:
        ops += _copies(plan, kernel.out, number, x, tuple(start), ones, slots, source.shape)
        start[source.dim] += x.shape[source.dim]
    return ops


def copies(plan: Plan, out: Buffer, shape: tuple[int, ...], number: int, x: View) -> list[Op]:
    """A copy of x into the first elements, in each dimension, of an array of this shape."""
    zeros, ones = (0,) * len(x.shape), (1,) * len(x.shape)
    return _copies(plan, out, number, x, zeros, ones, _Slots(plan), shape)


class _Slots:
    """Quarters of the activations' banks in turn; the first one keeps the fill value."""

    def __init__(self, plan: Plan):
        cell = cell_granules(plan.config)
        self.size = plan.w_base // 4 // cell * cell
        self.turn = 0

    def take(self) -> int:
        self.turn = self.turn % 3 + 1
        return self.turn * self.size


def _fills(plan: Plan, kernel: Kernel, number: int, source: Pad, slots: _Slots) -> list[Op]:
    """One LOAD of the value, and a STORE for each run of the result that needs it."""
    out, d = kernel.out, plan.config.dim
    size = out.dtype.itemsize
    runs = list(_outside(source.shape, source, size))
    if not runs:
        return []
    longest = max(n for n, *_ in runs)
    room = min(slots.size * d, MAX_COUNT // size * size)
    length = min(longest, room)
    units = ceil_div(length, d)
    units += units % 2  # 4 byte elements lie in pairs of granules
    row = Local(Mem.SPAD, 0, units)
    ops = [_filled(source.value, size, length, row, number)]
    for n, first, count, step in runs:
        for at in range(0, n, length):
            width = min(length, n - at)
            for begin in range(0, count, MAX_COUNT):
                rows = min(MAX_COUNT, count - begin)
                start = first + at + begin * step
                place = Dram(out, start, start + (rows - 1) * step + width)
                store = BYTES | {"loc": 0, "c0": width, "c1": rows, "s1": step}
                ops.append(Op("store", store, (row,), (place,), number, "dst", out, start))
    return ops


def _filled(value: np.ndarray | View, size: int, length: int, row: Local, number: int) -> Op:
    """LOAD of a row of `length` bytes: an immediate value, or an element read again and again."""
    fields: dict[str, int] = {"mem": Mem.SPAD, "loc": row.lo, "l0": 1}
    if isinstance(value, View):
        first = value.offset * size
        fields |= {"conv": Conv.COPY8, "c0": size, "c1": length // size, "s1": 0, "pack": 2}
        read = Dram(value.buffer, first, first + size)
        return Op("load", fields, (read,), (row,), number, "dram", value.buffer, first)
    bits = int.from_bytes(value.tobytes(), "little")
    fields |= {"conv": FILL_CONV[size], "fill": 1, "value": bits, "l0": 1 if size == 1 else 2,
               "c0": ceil_div(length, size)}  # fmt: skip
    return Op("load", fields, (), (row,), number)


def _outside(shape: tuple[int, ...], source: Pad, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Runs of bytes around the part, as (bytes, first byte, how many, bytes between them)."""
    whole = dense_strides(shape)
    if any(s > 1 and n > 1 for s, n in zip(source.step, source.x.shape, strict=True)) or not prod(
        source.x.shape
    ):
        yield prod(shape) * size, 0, 1, 0
        return
    for d, (n, inner, at) in enumerate(zip(shape, source.x.shape, source.start, strict=True)):
        for low, high in ((0, at), (at + inner, n)):
            if low == high:
                continue
            run, first = (high - low) * whole[d] * size, low * whole[d] * size
            outer = source.x.shape[:d]  # places of the outer dimensions that have a part
            first += sum(s * w for s, w in zip(source.start[:d], whole, strict=False)) * size
            dims = [(m, w * size) for m, w in zip(outer, whole, strict=False) if m > 1]
            count, step = dims.pop() if dims else (1, 0)
            while dims and dims[-1][1] == count * step:
                count *= dims.pop()[0]
            for index in product(*(range(m) for m, _ in dims)):
                skip = sum(i * w for i, (_, w) in zip(index, dims, strict=True))
                yield run, first + skip, count, step


def _copies(plan: Plan, out: Buffer, number: int, x: View, places: tuple[int, ...],
            jumps: tuple[int, ...], slots: _Slots, shape: tuple[int, ...]) -> list[Op]:  # fmt: skip
    """LOADs of up to two dimensions of rows, each a contiguous run on both sides, and STOREs."""
    d = plan.config.dim
    size = x.dtype.itemsize
    box = [(1, 0, 0), (1, 0, 0)]
    whole = dense_strides(shape)
    for n, s, w, step in zip(x.shape, x.strides, whole, jumps, strict=True):
        _push(box, (n, s * size, w * step * size))
    _push(box, (size, 1, 1))
    if box[-1][1:] != (1, 1):
        box.append((1, 1, 1))
    origin = x.offset * size
    target = sum(a * w for a, w in zip(places, whole, strict=True)) * size
    *outer, (n2, a2, b2), (n1, a1, b1), (n0, _, _) = box
    width = min(n0, slots.size * d, MAX_COUNT)
    rows = min(n1, slots.size // ceil_div(width, d), MAX_COUNT)
    planes = min(n2, slots.size // (ceil_div(width, d) * rows), MAX_COUNT) if rows == n1 else 1
    steps = (*(1 for _ in outer), planes, rows, width)
    ops: list[Op] = []
    for at in product(*(range(0, n, s) for (n, _, _), s in zip(box, steps, strict=True))):
        first = origin + sum(i * a for i, (_, a, _) in zip(at, box, strict=True))
        start = target + sum(i * b for i, (_, _, b) in zip(at, box, strict=True))
        p2, p1, p0 = (min(steps[k], box[k][0] - at[k]) for k in (-3, -2, -1))
        units = ceil_div(p0, d)
        loc = slots.take()
        place = Local(Mem.SPAD, loc, loc + units * p1 * p2)
        counts = {"loc": loc, "l0": 1, "c0": p0, "c1": p1, "c2": p2, "l1": units, "l2": units * p1}
        ops.append(
            Op("load", {"mem": Mem.SPAD, "conv": Conv.COPY8, "s1": a1, "s2": a2, **counts},
               (_bytes(x.buffer, first, p0, (p1, a1), (p2, a2)),), (place,), number, "dram",
               x.buffer, first)
        )  # fmt: skip
        ops.append(
            Op("store", BYTES | counts | {"s1": b1, "s2": b2}, (place,),
               (_bytes(out, start, p0, (p1, b1), (p2, b2)),), number, "dst", out, start)
        )  # fmt: skip
    return ops


def _push(box: Box, level: tuple[int, int, int]) -> None:
    """Add an inner dimension, merged with the one outside if both sides are contiguous there."""
    n, a, b = level
    if n == 1:
        return
    m, c, e = box[-1]
    if m > 1 and c == n * a and e == n * b:
        box[-1] = (m * n, a, b)
    else:
        box.append(level)


def _bytes(buffer, first: int, run: int, *dims: tuple[int, int]) -> Dram:
    """The bytes between the lowest and the highest of a box."""
    low = sum(min(0, (n - 1) * s) for n, s in dims)
    high = sum(max(0, (n - 1) * s) for n, s in dims)
    return Dram(buffer, first + low, first + high + run)
