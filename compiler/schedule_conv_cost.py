"""What schedules of convolutions cost, about, and which are worth timing.

The slower of array, loads and stores, what is nearly as busy counting too; plus the first load and
the last store, which nothing hides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from heapq import nsmallest
from itertools import product
from math import gcd, prod

from tilewright.compiler.bus_slots import load_row, row_beats, store_row, words
from tilewright.compiler.image import Image, length
from tilewright.compiler.kernels import Axis
from tilewright.compiler.schedule import (
    A_BANKS,
    LONG,
    SEQUENCER,
    ScheduleError,
    ceil_div,
    cell_rows,
    vector_rows,
)
from tilewright.compiler.schedule_conv import PARTS, ConvPlan, ConvSchedule
from tilewright.isa.config import BANKS, STORE_VECTOR_UNITS, ChipConfig
from tilewright.isa.timing import MATMUL_MIN_PERIOD, matmul_done

SPLITS = (A_BANKS, 3, 7)  # banks of the image that a default schedule tries
SHARP = 4  # the higher, the more the busiest unit alone counts
FEW = 16  # heights above twice this are tried in larger steps
W_SLOTS = 4  # weight slots that a default schedule asks for, if K has as many blocks


def cost(p: ConvPlan) -> float:
    """Estimated cycles."""
    s, image, d, bus = p.schedule, p.image, p.config.dim, p.config.bus_bytes
    h, w = p.outs
    o = image.conv.w.shape[4]
    total, passes = image.total, len(image.conv.passes)
    least = max(d, MATMUL_MIN_PERIOD)
    array = loads = 0.0
    for rows, many in _split(h, s.rows):
        for cols, more in _split(w, s.cols):
            for images, each in _split(p.batch, s.images):
                count = many * more * each * p.groups
                sums = p.rows_of(rows, images) * p.sums(rows, cols)[1]
                apart = 1 if p.together else images
                array += count * total * ceil_div(o, d) * max(sums, least * apart)
                loads += count * images * _image_beats(p, *p.sums(rows, cols))
    weights = _weight_beats(p) * p.groups * p.columns
    a_slots, w_slots = p.slots
    places = p.places
    if s.order == "sn":
        keep = w_slots >= len(p.chunks) * p.columns
        weights *= 1 if keep else places
    else:
        loads *= 1 if a_slots >= places else p.columns
        weights *= 1 if w_slots >= len(p.chunks) else places
    size = p.out_bytes
    beats = store_row(p.config, min(s.nt, o) * size, image.conv.cols * size, d * size)
    drain = s.images * s.rows * s.cols * beats
    out = h * w * p.batch * p.groups * p.columns * beats
    tiles, count = places * p.columns * p.groups, p.operations
    alone = loads if a_slots < 2 <= places * p.groups else 0.0  # no overlap with one slot
    alone += weights if w_slots < 2 <= len(p.chunks) * p.columns else 0.0
    start = s.images * _image_beats(p, *p.sums(s.rows, s.cols))
    start += _weight_beats(p) / len(p.chunks)
    flush = matmul_done(d) + 2 * d  # from the last row of a tile to the start of its store
    array *= passes
    if tiles > 1:
        array = max(array, (array + tiles * flush + out) / s.parts)
    copy = p.copied / bus * 1.2
    if s.stage:
        loads, out = loads + copy / passes, out + copy
        first = s.images * s.rows * (s.cols if s.stage > 1 else w)
        start += copy * min(1, first / (p.batch * h * w))
    else:
        start += copy
    parts = max(array, SEQUENCER * passes * count), passes * (loads + weights), out
    steady = sum(x**SHARP for x in parts) ** (1 / SHARP)  # what is as busy is often waited for
    whole = steady + alone + start + drain + matmul_done(d)
    return whole + (1 + whole / LONG) * count


def floor(p: ConvPlan) -> float:
    """Cycles below which no schedule gets: the busier one of array and stores."""
    (h, w), o = p.outs, p.image.conv.w.shape[4]
    array = array_cycles(p.image, prod(p.sums(h, w)))
    return max(array, p.groups * p.batch * h * w * o * p.out_bytes / p.config.bus_bytes)


def array_cycles(image: Image, results: int) -> int:
    """The array's part of it, for so many results of an image before a max-pool."""
    groups, o, d = image.conv.w.shape[0], image.conv.w.shape[4], image.dim
    rows = groups * max(image.conv.x.shape[1] * results, d)
    return rows * image.total * ceil_div(o, d) * len(image.conv.passes)


def _image_beats(p: ConvPlan, rows: int, cols: int) -> float:
    x, runs = p.image.conv.x, p.image.pixel or [(1, 1)]
    size = x.dtype.itemsize
    count, width = 1, 1
    if runs[0][1] == size:
        width = runs[0][0]
        runs = runs[1:]
    for n, _ in runs:
        count *= n
    beats = row_beats(p.config, width * size, gcd(*(s * size for s in x.strides[1:4])))
    pixels = length(p.image.axes[0], rows) * length(p.image.axes[1], cols)
    return pixels * max(count * beats, p.image.blocks)


def _weight_beats(p: ConvPlan) -> float:
    w = p.image.conv.w
    size = w.dtype.itemsize
    run = min(p.schedule.nt, w.shape[4]) * size
    if w.strides[4] != 1 and w.shape[4] > 1:
        beats = run / size
    else:
        units = ceil_div(min(p.schedule.nt, w.shape[4]), p.config.dim)
        least = words(p.config, units) if size == 1 else units
        beats = load_row(p.config, run, w.strides[3] * size, 0, least, size == 1)
    return prod(w.shape[1:4]) * beats


def _split(n: int, size: int) -> Iterator[tuple[int, int]]:
    """(size, how many) of the tiles along an axis."""
    if n // size:
        yield size, n // size
    if n % size:
        yield n % size, 1


def candidates(plan: ConvPlan) -> Iterator[ConvSchedule]:
    """Schedules worth pricing for what is in a plan; those that do not fit are among them."""
    config, image, vectors = plan.config, plan.image, plan.vectors
    o, d = image.conv.w.shape[4], config.dim
    total = image.total
    most = min(ceil_div(o, d), STORE_VECTOR_UNITS if vectors else 32)
    blocks = sorted({min(most, 1 << i) for i in range(6)} | {most})
    stages = (0, 1) if plan.copied else (0,)
    for nb, a_banks, parts, stage in product(blocks, SPLITS, PARTS[:2], stages):
        a_banks -= stage
        nt = min(nb * d, o)
        part = config.acc_rows // parts - vector_rows(config, vectors, image.conv.cols, nt, parts)
        fit = part // cell_rows(config) * cell_rows(config) // nb
        per_slot = max(1, (BANKS - a_banks - stage) * config.spad_bank // (d * nb * image.local))
        kts = {max(1, min(total, per_slot // n)) for n in (1, 2, W_SLOTS)}
        if image.blocks < min(kts):  # whole segments
            kts |= {kt // image.blocks * image.blocks for kt in kts}
        shapes = list(_shapes(plan, fit, a_banks * config.spad_bank))
        for (rows, cols, images), kt, order in product(shapes, sorted(kts), ("sn", "ns")):
            yield ConvSchedule(rows, cols, nt, kt, order, a_banks, images=images, parts=parts,
                               stage=stage)  # fmt: skip


def _shapes(plan: ConvPlan, fit: int, granules: int) -> Iterator[tuple[int, int, int]]:
    """Rows, columns and images of tiles of up to `fit` results, two of them in the scratchpad."""
    (h, w), image = plan.outs, plan.image
    for cols in sorted({ceil_div(w, i) for i in _shares(w)}):
        if cols > 1 and not _fits(plan.sums(1, cols), image, fit, granules // 2):
            continue
        rows = h
        while rows > 1 and not _fits(plan.sums(rows, cols), image, fit, granules // 2):
            rows -= 1 if rows < 2 * FEW else ceil_div(rows, FEW)
        for height in sorted({rows, ceil_div(h, ceil_div(h, rows)), ceil_div(rows, 2)}):
            yield height, cols, 1
        if rows == h and plan.pool is None:
            for images in sorted({ceil_div(plan.batch, i) for i in _shares(plan.batch)} - {1}):
                s = ConvSchedule(h, cols, 1, 1, images=images)
                tall = replace(plan, schedule=s).rows_of(h, images) * cols
                room = granules // (2 if images < plan.batch else 1)
                if tall <= fit and image.granules(h, cols, images) <= room:
                    yield h, cols, images


def _shares(n: int) -> Iterator[int]:
    """Into how many parts an axis is cut: 1, 2, 3, 4, 6, 8, 12 and so on; and each by itself."""
    yield n
    for power in range(n.bit_length()):
        yield from (part for part in (1 << power, 3 << power) if part <= n)


def _fits(sums: tuple[int, int], image: Image, rows: int, granules: int) -> bool:
    return prod(sums) <= rows and image.granules(*sums) <= granules


def ranked(
    config: ChipConfig, image: Image, vectors: int, out_bytes: int, pool: tuple[Axis, Axis] | None,
    count: int, copied: int = 0,
) -> list[ConvPlan]:  # fmt: skip
    """The cheapest candidates that fit, by their estimated cycles; ties go to the first.

    Raises
    ------
    ScheduleError
        Not even one result and one block of its weights fit; says what is too large.
    """
    least = ConvSchedule(1, 1, min(config.dim, image.conv.w.shape[4]), 1)
    smallest = ConvPlan(config, image, vectors, out_bytes, least, pool, copied)
    found = []
    for number, s in enumerate(dict.fromkeys(candidates(smallest))):
        plan = replace(smallest, schedule=s)
        try:
            plan.check()
        except ScheduleError:
            continue
        found.append((cost(plan), number, plan))
    if not found:
        smallest.check()
        return [smallest]
    return [plan for _, _, plan in nsmallest(count, found)]
