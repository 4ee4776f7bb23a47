"""Tile a convolution: a tile's part of the image into one slot, chunks of weights into others.

For each tile of the result (in the schedule's order): load what its slots lack, one MATMUL for each
tap and chunk, which reads the image shifted by that tap, then one STORE with the epilogue. Tiles
alternate between the accumulator's halves, as those of a contraction do. The next tile's part of
the image is loaded in pieces between chunks of weights, so that neither keeps the array waiting.
How the first tile starts is `tile_conv_start`'s business.
"""

from __future__ import annotations

from functools import partial

from tilewright.compiler.image import Image, Spans, Window, length, step
from tilewright.compiler.kernels import Convolve, Kernel
from tilewright.compiler.operand_loads import OPERAND_TYPE
from tilewright.compiler.schedule import ceil_div
from tilewright.compiler.schedule_conv import ConvPlan, ConvSchedule, Span, Tile
from tilewright.compiler.schedule_conv_cost import ranked
from tilewright.compiler.tile_conv_copies import Copies, Staged
from tilewright.compiler.tile_conv_start import Products, Start, portions
from tilewright.compiler.tile_pool import pool_stores, reads
from tilewright.compiler.tile_store import Vectors, store_fields
from tilewright.compiler.tiles import Dram, Local, Op, Plan, Slots, share_of
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import Mem, Type

PIECES = 6  # into which the first tile's image is divided if it has no `first_k`


def conv_plans(
    config: ChipConfig, kernel: Kernel, count: int, pad: Staged | None = None
) -> list[ConvPlan]:
    """The most promising schedules with the sizes that follow from them.

    Raises
    ------
    ScheduleError
        None fits.
    """
    source = kernel.source
    assert isinstance(source, Convolve)
    image, e = Image(source, config.dim), kernel.epilogue
    copied = pad[1].out.nbytes if pad else 0
    return ranked(config, image, len(e.vectors), e.out.itemsize, e.pool, count, copied)


def planned(config: ChipConfig, kernel: Kernel, schedule: ConvSchedule) -> ConvPlan:
    """The sizes of a given schedule.

    Raises
    ------
    ScheduleError
        It does not fit.
    """
    source = kernel.source
    assert isinstance(source, Convolve)
    image, e = Image(source, config.dim), kernel.epilogue
    plan = ConvPlan(config, image, len(e.vectors), e.out.itemsize, schedule, e.pool)
    plan.check()
    return plan


def tile_conv(
    plan: Plan, kernel: Kernel, number: int, p: ConvPlan, half: int, pad: Staged | None = None,
    count: int | None = None,
) -> tuple[list[Op], int]:  # fmt: skip
    """All operations of one convolution; see `tile_contract` for `half`.

    Parameters
    ----------
    pad : makes the image; its operations come ahead of the tiles that need them.
    count : makes the first so many tiles only, for their timing.
    """
    turn = half * p.schedule.parts // 2
    image, s = p.image, p.schedule
    conv = image.conv
    o = conv.w.shape[4]
    plan = Plan(plan.config, s.a_banks)
    images = _ImageSlots(p.a_size, p.slots[0])
    turns = [(tile, pass_) for tile in p.tiles for pass_ in conv.passes]
    uses: list[object] = [
        (g, cols, w_part, c) for (g, *_, cols), (_, w_part) in turns for c in range(len(p.chunks))
    ]
    w_slots = Slots(Mem.SPAD, plan.w_base, p.w_size, p.slots[1], uses)
    vectors = Vectors(plan, kernel, number, conv.cols, p.vector_tile, s.parts)

    def spans(tile: Tile) -> Spans:
        """What the array computes: the results, or the elements of their windows."""
        rows, cols = tile[2:4]
        if p.pool is None:
            return rows, cols
        return reads(p.pool[0], *rows), reads(p.pool[1], *cols)

    def image_loads(tile: Tile, part: int, pieces: int) -> list[Op]:
        slot, new = images.take((*tile[:4], part))
        g, b = tile[:2]
        return image.loads(g, b, spans(tile), slot, number, part, pieces) if new else []

    def started(tile: Tile, slot: Local, matmuls: Products) -> Start:
        g, b, _, _, cols = tile
        a_part, w_part = conv.passes[0]

        def loads(window: Window) -> list[Op]:
            return image.loads(g, b, spans(tile), slot, number, a_part, window=window)

        def weights(ks: Span, place: Local) -> list[Op]:
            return image.weight_loads(g, *ks, cols, place, number, w_part)

        parts = list(portions(p, spans(tile), b[1] - b[0]))
        return Start(p, slot, parts, partial(copies.of, 0), loads, weights, matmuls)

    needs = [(*tile[:2], *spans(tile)) for tile, _ in turns]
    copies = Copies(plan.config, p, pad, needs)
    ops = [] if s.stage and s.first_k else copies.of(0)
    end = len(turns) if count is None else count * len(conv.passes)
    for at, (tile, (a_part, w_part)) in enumerate(turns[:end]):
        g, b, _, _, cols = tile
        (r0, r1), (c0, c1) = spans(tile)
        base = turn * vectors.part
        height, above, many = r1 - r0, 0, b[1] - b[0]
        if p.together:
            height, many = image.results((r0, r1), many), 1
        elif many > 1:
            above = image.pitch((r0, r1))
        blocks = ceil_div(cols[1] - cols[0], plan.config.dim)
        place = Local(Mem.ACC, base, base + many * height * (c1 - c0) * blocks)
        first, last = at % len(conv.passes) == 0, (at + 1) % len(conv.passes) == 0
        begin = at == 0 < s.first_k
        now = [] if begin else image_loads(tile, a_part, 1 if at else PIECES)
        a_slot, _ = images.take((*tile[:4], a_part))
        matmuls = partial(_matmuls, image, number, (height, spans(tile)[1], many, above), cols,
                          a_slot, place, first)  # fmt: skip
        start = started(tile, a_slot, matmuls) if begin else None
        ahead = turns[at + 1 : at + 2] if images.count > 1 else []
        later = [op for t, (i, _) in ahead for op in image_loads(t, i, len(p.chunks))]
        quiet = start.busy if start else 0
        copy: list[Op] = []
        for c, chunk in enumerate(p.chunks):
            w_slot, w_new = w_slots.take((g, cols, w_part, c))
            if start:
                ops += start.chunk(c, w_slot, image.wide(cols) * plan.config.dim)
            elif w_new:
                ops += image.weight_loads(g, *chunk, cols, w_slot, number, w_part)
            ops += now if c == 0 else []
            if c == quiet:
                ops += copies.of(at + 1)  # which is new at the very beginning only
                copy = copies.of(at + 2)
            if c >= quiet:
                ops += share_of(copy, c - quiet, len(p.chunks) - quiet)
                ops += share_of(later, c - quiet, len(p.chunks) - quiet)
            ops += [] if start else matmuls(chunk, w_slot)
        if not last:
            continue
        shown = (g * o + cols[0], g * o + cols[1])
        ops += vectors.loads(turn, shown)
        head = vectors.fields(turn, shown), vectors.reads(place, turn)
        if p.pool is None:
            ops += _stores(kernel, number, many * height, place, b, spans(tile), shown, *head)
        else:
            source = Type.I32 if conv.is_integer else Type.F32
            steps = ((r1 - r0) * (c1 - c0), c1 - c0, 1)
            ops += pool_stores(kernel, p.pool, source, b[0], tile[2:4], shown, place, head[1],
                               steps, conv.cols, number, head[0])  # fmt: skip
        turn = (turn + 1) % s.parts
    return ops, turn * 2 // s.parts


class _ImageSlots:
    """Places for tiles of the image; the one that was used longest ago is given away."""

    def __init__(self, size: int, count: int):
        self.size, self.count = size, count
        self.held: dict[object, int] = {}  # the last used is last

    def take(self, key: object) -> tuple[Local, bool]:
        """The slot of `key`, and whether it must be filled now."""
        new = key not in self.held
        if not new:
            slot = self.held.pop(key)
        elif len(self.held) < self.count:
            slot = len(self.held)
        else:
            slot = self.held.pop(next(iter(self.held)))
        self.held[key] = slot
        return Local(Mem.SPAD, slot * self.size, (slot + 1) * self.size), new


def _matmuls(image: Image, number: int, tile: tuple[int, Span, int, int], cols: Span,
             a_slot: Local, place: Local, fresh: bool, chunk: Span, w_slot: Local,
             some: Span | None = None) -> list[Op]:  # fmt: skip
    """MATMULs of a chunk: one for each segment in it, or for a kernel row of one-block taps.

    Parameters
    ----------
    tile : rows of results of a pass, columns, passes one for each image, local rows between them.
    fresh : whether the first one of the first chunk overwrites the accumulator.
    some : these of a pass's rows, not all.
    """
    d, local, blocks = image.dim, image.local, image.blocks
    first_row, end = some or (0, tile[0])
    rows, across = end - first_row, tile[1][1] - tile[1][0]
    width = length(image.axes[1], across)
    unit = blocks * local  # granules of a pixel
    wide = image.wide(cols)
    fields = {
        "a_type": OPERAND_TYPE[image.conv.x.dtype], "w_type": OPERAND_TYPE[image.conv.w.dtype],
        "r0": across, "r1": rows, "as0": step(image.axes[1]) * unit,
        "as1": step(image.axes[0]) * width * unit, "ws": wide, "wk": d * wide, "wn": local,
        "n": cols[1] - cols[0], "cn": tile[2] * tile[0] * across,
    }  # fmt: skip
    tall = ((rows - 1) * step(image.axes[0]) + 1) * width * unit  # granules that a tap reads
    ops = []
    first, last = chunk
    at = first
    while at < last:
        segment, block = divmod(at, blocks)
        taken, k, ak = min(last - at, blocks - block), 0, local
        if blocks == 1 and image.depth == d:  # taps of one kernel row are blocks, too
            taken = min(last - at, image.axes[1].taps - segment % image.axes[1].taps)
            k, ak = taken * d, image.axes[1].dilation * unit
        else:
            k = min(image.deep(segment), (block + taken) * d) - block * d
        fields |= {"acc": int(at > 0 or not fresh), "ak": ak, "k": k,
                   "w": w_slot.lo + (at - first) * d * wide}  # fmt: skip
        begin = image.tap(segment, width) * unit
        for i in range(tile[2]):
            top = a_slot.lo + (i * tile[3] + first_row * step(image.axes[0])) * width * unit
            row = top + begin // (width * unit) * width * unit
            mine = fields | {"a": top + begin + block * local,
                             "c": place.lo + (i * tile[0] + first_row) * across}  # fmt: skip
            read = Local(Mem.SPAD, row, row + tall)
            ops.append(Op("matmul", mine, (read, w_slot), (place,), number))
        at += taken
    return ops


def _stores(kernel: Kernel, number: int, height: int, place: Local, images: Span, spans: Spans,
            cols: Span, vectors: dict[str, int], read: tuple[Local, ...]) -> list[Op]:  # fmt: skip
    """STORE a tile as rows of the result (B, OH, OW, channels), one by one if they are apart.

    Parameters
    ----------
    height : rows of results in the accumulator, those between images included.
    """
    conv = kernel.source
    assert isinstance(conv, Convolve)
    size, pitch = kernel.out.dtype.itemsize, conv.cols
    h, w = conv.axes
    (r0, r1), (c0, c1) = spans
    rows, across, count = r1 - r0, c1 - c0, images[1] - images[0]
    apart = (height - rows) // (count - 1) if count > 1 else rows
    if apart == rows == h.out:
        rows, count = height, 1
    common = store_fields(kernel, Type.I32 if conv.is_integer else Type.F32) | vectors | {
        "mem": Mem.ACC, "c0": cols[1] - cols[0], "c1": across, "c2": rows, "l0": height * across,
        "l1": 1, "l2": across, "s1": pitch * size, "s2": w.out * pitch * size,
    }  # fmt: skip
    ops = []
    for i in range(count):
        first = ((((images[0] + i) * h.out + r0) * w.out + c0) * pitch + cols[0]) * size
        last = first + (((rows - 1) * w.out + across - 1) * pitch + cols[1] - cols[0]) * size
        fields = common | {"loc": place.lo + i * apart * across}
        ops.append(Op("store", fields, read, (Dram(kernel.out, first, last),), number, "dst",
                      kernel.out, first))  # fmt: skip
    return ops
