"""Schedules of convolutions: a tile of the result, a chunk of the weights, and a loop order.

A tile is rows x cols results of one image by `nt` channels; its part of the image lies in one slot,
so that all taps share it. Weights come in chunks of K-blocks, in the order of K. A schedule never
changes bits. The default one minimises an analytic cost, like `schedule`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import nsmallest
from itertools import product
from math import prod

from tilewright.compiler.image import Image, length
from tilewright.compiler.kernels import Axis
from tilewright.compiler.schedule import (
    A_BANKS,
    LONG,
    SEQUENCER,
    ScheduleError,
    ceil_div,
    cell_granules,
    cell_rows,
    vector_rows,
)
from tilewright.isa.config import BANKS, STORE_VECTOR_UNITS, ChipConfig
from tilewright.isa.timing import MATMUL_MIN_PERIOD, matmul_done

Span = tuple[int, int]
Tile = tuple[int, Span, Span, Span, Span]  # group, images, rows, columns, channels
PARTS = (2, 4, 8)  # of the accumulator
SPLITS = (A_BANKS, 3, 7)  # banks of the image that a default schedule tries
SHARP = 4  # the higher, the more the busiest unit alone counts
FEW = 16  # heights above twice this are tried in larger steps
W_SLOTS = 4  # weight slots that a default schedule asks for, if K has as many blocks


@dataclass(frozen=True)
class ConvSchedule:
    """How one convolution runs.

    Parameters
    ----------
    rows, cols : results of a tile along H and W (behind the max-pool, if there is one).
    nt : its channels.
    kt : K-blocks of a chunk of weights (counted over all segments of K).
    order : "sn" walks channels inside places, "ns" places inside channels.
    a_banks : scratchpad banks of the image; the others hold weights.
    head, tail : rows of the very first and the very last tile (0: as the others), so that the array
        starts sooner, and the last store is short.
    first_k : K-blocks of the first chunk (0: as the others).
    images : of the batch in a tile; more than one have all of their rows in it, below each other.
    parts : parts of the accumulator: tiles that grow, wait for their store or are stored.
    """

    rows: int
    cols: int
    nt: int
    kt: int
    order: str = "sn"
    a_banks: int = A_BANKS
    head: int = 0
    tail: int = 0
    first_k: int = 0
    images: int = 1
    parts: int = 2

    def __str__(self) -> str:
        extra = "".join(
            f" {name} {value}"
            for name in ("head", "tail", "first_k", "images", "parts")
            if (value := getattr(self, name)) != getattr(ConvSchedule, name)
        )
        return (
            f"tile {self.rows}x{self.cols}x{self.nt} chunk {self.kt} order {self.order} "
            f"banks {self.a_banks}{extra}"
        )


@dataclass(frozen=True)
class ConvPlan:
    """Sizes that follow from a schedule; whether it fits is `check`'s business."""

    config: ChipConfig
    image: Image
    vectors: int
    out_bytes: int
    schedule: ConvSchedule
    pool: tuple[Axis, Axis] | None = None

    @cached_property
    def outs(self) -> tuple[int, int]:
        """Results along H and W."""
        h, w = self.pool or self.image.conv.axes
        return h.out, w.out

    def sums(self, rows: int, cols: int) -> tuple[int, int]:
        """What the array computes for this many results: the elements of their windows."""
        if self.pool is None:
            return rows, cols
        h, w = self.pool
        return (
            min(h.size, (rows - 1) * h.stride + h.taps),
            min(w.size, (cols - 1) * w.stride + w.taps),
        )

    def rows_of(self, rows: int, images: int) -> int:
        """Rows of what the array computes for these rows of so many images."""
        sums = self.sums(rows, 1)[0]
        return self.image.results((0, sums), images) if images > 1 else sums

    @cached_property
    def batch(self) -> int:
        return self.image.conv.x.shape[1]

    @cached_property
    def nb(self) -> int:
        """Column blocks of a tile."""
        return ceil_div(self.schedule.nt, self.config.dim)

    @cached_property
    def groups(self) -> int:
        return self.image.conv.w.shape[0]

    @cached_property
    def vector_tile(self) -> int:
        """Columns by which vectors are held; no multiple of dim if groups begin inside a block."""
        s, o = self.schedule, self.image.conv.w.shape[4]
        whole = self.groups == 1 or o % self.config.dim == 0
        return s.nt if whole or s.nt % self.config.dim else s.nt - 1

    @cached_property
    def chunks(self) -> list[tuple[int, int]]:
        """Ranges of K-blocks."""
        total, kt = self.image.segments * self.image.blocks, self.schedule.kt
        first = min(self.schedule.first_k, total)
        head = [(0, first)] if first else []
        return head + [(at, min(total, at + kt)) for at in range(first, total, kt)]

    @cached_property
    def a_size(self) -> int:
        """Granules of an image slot."""
        cell = cell_granules(self.config)
        sums = self.sums(self.schedule.rows, self.schedule.cols)
        return ceil_div(self.image.granules(*sums, self.schedule.images), cell) * cell

    @cached_property
    def w_size(self) -> int:
        """Granules of a weight slot."""
        cell, d = cell_granules(self.config), self.config.dim
        most = max(last - first for first, last in self.chunks)
        return ceil_div(most * d * self.nb * self.image.local, cell) * cell

    @cached_property
    def places(self) -> int:
        """Tiles of the result over one group's channels."""
        s, (h, w) = self.schedule, self.outs
        return ceil_div(self.batch, s.images) * ceil_div(h, s.rows) * ceil_div(w, s.cols)

    @cached_property
    def columns(self) -> int:
        """Tiles over a group's channels."""
        return ceil_div(self.image.conv.w.shape[4], self.schedule.nt)

    @cached_property
    def slots(self) -> tuple[int, int]:
        """Image and weight slots that fit, no more than there are tiles and chunks."""
        bank = self.config.spad_bank
        a_parts, w_parts = (len(set(parts)) for parts in zip(*self.image.conv.passes, strict=True))
        images = self.places * self.groups * a_parts
        return (
            min(self.schedule.a_banks * bank // self.a_size, images),
            min((BANKS - self.schedule.a_banks) * bank // self.w_size,
                len(self.chunks) * self.columns * self.groups * w_parts),
        )  # fmt: skip

    @cached_property
    def operations(self) -> int:
        """Instructions, about."""
        image = self.image
        pieces = image.segments if image.blocks > 1 else max(1, image.axes[0].taps)
        turns = self.places * self.columns * self.groups
        return turns * (len(self.chunks) + pieces + 3) * len(image.conv.passes)

    @cached_property
    def tiles(self) -> list[Tile]:
        """All tiles in the schedule's order; channels (or places) are walked as a snake."""
        s, conv = self.schedule, self.image.conv
        images, columns = _cuts(self.batch, s.images), _cuts(conv.w.shape[4], s.nt)
        out: list[Tile] = []
        for g in range(self.groups):
            places = [
                (b, rows, cols)
                for b in images
                for rows in self._rows(g == b[0] == 0, (g, b[1]) == (self.groups - 1, self.batch))
                for cols in _cuts(self.outs[1], s.cols)
            ]
            if s.order == "sn":
                for at, place in enumerate(places):
                    out += [(g, *place, n) for n in (columns[::-1] if at % 2 else columns)]
            else:
                for at, n in enumerate(columns):
                    out += [(g, *place, n) for place in (places[::-1] if at % 2 else places)]
        return out

    def _rows(self, first: bool, last: bool) -> list[Span]:
        """An image's tiles along H; the first and the last image may have a head and a tail."""
        s, h = self.schedule, self.outs[0]
        head = min(s.head, h) if first else 0
        tail = min(s.tail, h - head) if last else 0
        middle = [(a + head, b + head) for a, b in _cuts(h - head - tail, s.rows)]
        return [(0, head)] * (head > 0) + middle + [(h - tail, h)] * (tail > 0)

    def check(self) -> None:
        """Refuse a schedule that does not fit.

        Raises
        ------
        ScheduleError
            Names the buffer, and by how much it is too large.
        """
        s, d = self.schedule, self.config.dim
        h, w = self.outs
        total = self.image.segments * self.image.blocks
        for name, most in (("head", s.rows), ("tail", s.rows), ("first_k", s.kt)):
            if not 0 <= getattr(s, name) <= most:
                raise ScheduleError(f"{s}: {name} must be in 0 to {most}, not {getattr(s, name)}")
        limits = (("rows", h), ("cols", w), ("nt", self.image.conv.w.shape[4]), ("kt", total),
                  ("images", self.batch))  # fmt: skip
        for name, most in limits:
            if not 1 <= getattr(s, name) <= most:
                raise ScheduleError(f"{s}: {name} must be in 1 to {most}, not {getattr(s, name)}")
        if s.images > 1 and (s.rows < h or s.head or s.tail or self.pool):
            raise ScheduleError(f"{s}: {s.images} images in a tile must have all rows, unpooled")
        if s.parts not in PARTS:
            raise ScheduleError(f"{s}: parts must be one of {PARTS}, not {s.parts}")
        if s.order not in ("sn", "ns"):
            raise ScheduleError(f"{s}: order must be 'sn' or 'ns', not {s.order!r}")
        if s.nt % d and self.columns > 1:
            raise ScheduleError(f"{s}: nt must be a multiple of dim ({d}) or all channels")
        if self.vectors and self.nb > STORE_VECTOR_UNITS:
            raise ScheduleError(
                f"{s}: nt must be at most {STORE_VECTOR_UNITS * d} with a scale or bias"
            )
        unit, part = cell_rows(self.config), self.config.acc_rows // s.parts
        rows = self.rows_of(s.rows, s.images) * self.sums(s.rows, s.cols)[1]
        need = ceil_div(rows * self.nb, unit) * unit
        need += vector_rows(
            self.config, self.vectors, self.image.conv.cols, self.vector_tile, s.parts
        )
        if need > part:
            raise ScheduleError(
                f"{s}: a tile with its vectors needs {need} accumulator rows, "
                f"{need - part} more than 1 of {s.parts} parts has"
            )
        if not 1 <= s.a_banks < BANKS:
            raise ScheduleError(f"{s}: a_banks must be in 1 to {BANKS - 1}, not {s.a_banks}")
        for what, size, banks in (("image", self.a_size, s.a_banks),
                                  ("weight", self.w_size, BANKS - s.a_banks)):  # fmt: skip
            room = banks * self.config.spad_bank
            if size > room:
                raise ScheduleError(
                    f"{s}: one {what} slot needs {size} granules, {size - room} more than there are"
                )

    def cost(self) -> float:
        """Estimated cycles."""
        s, image, d, bus = self.schedule, self.image, self.config.dim, self.config.bus_bytes
        h, w = self.outs
        o = image.conv.w.shape[4]
        total, passes = image.segments * image.blocks, len(image.conv.passes)
        least = max(d, MATMUL_MIN_PERIOD)
        array = loads = 0.0
        for rows, many in _split(h, s.rows):
            for cols, more in _split(w, s.cols):
                for images, each in _split(self.batch, s.images):
                    count = many * more * each * self.groups
                    sums = self.rows_of(rows, images), self.sums(rows, cols)[1]
                    array += count * total * ceil_div(o, d) * max(prod(sums), least)
                    loads += count * images * self._image_beats(*self.sums(rows, cols))
        weights = self._weight_beats() * self.groups * self.columns
        a_slots, w_slots = self.slots
        places = self.places
        if s.order == "sn":
            keep = w_slots >= len(self.chunks) * self.columns
            weights *= 1 if keep else places
        else:
            loads *= 1 if a_slots >= places else self.columns
            weights *= 1 if w_slots >= len(self.chunks) else places
        beats = ceil_div(min(s.nt, o) * self.out_bytes, bus) + 0.5 * (o * self.out_bytes % bus > 0)
        drain = s.images * s.rows * s.cols * beats
        out = h * w * self.batch * self.groups * self.columns * beats
        tiles, count = places * self.columns * self.groups, self.operations
        alone = loads if a_slots < 2 <= places * self.groups else 0.0  # no overlap with one slot
        alone += weights if w_slots < 2 <= len(self.chunks) * self.columns else 0.0
        start = s.images * self._image_beats(*self.sums(s.rows, s.cols))
        start += self._weight_beats() / len(self.chunks)
        flush = matmul_done(d) + 2 * d  # from the last row of a tile to the start of its store
        array *= passes
        if tiles > 1:
            array = max(array, (array + tiles * flush + out) / s.parts)
        parts = max(array, SEQUENCER * passes * count), passes * (loads + weights), out
        steady = sum(x**SHARP for x in parts) ** (1 / SHARP)  # what is as busy is often waited for
        whole = steady + alone + start + drain + matmul_done(d)
        return whole + (1 + whole / LONG) * count

    def _image_beats(self, rows: int, cols: int) -> float:
        runs = self.image.pixel or [(1, 1)]
        size = self.image.conv.x.dtype.itemsize
        count, width = 1, 1
        if runs[0][1] == size:
            width = runs[0][0]
            runs = runs[1:]
        for n, _ in runs:
            count *= n
        bus = self.config.bus_bytes
        beats = ceil_div(width * size, bus) + (0.5 if width * size % bus else 0)
        pixels = length(self.image.axes[0], rows) * length(self.image.axes[1], cols)
        return pixels * max(count * beats, self.image.blocks)

    def _weight_beats(self) -> float:
        w = self.image.conv.w
        size, bus = w.dtype.itemsize, self.config.bus_bytes
        run = min(self.schedule.nt, w.shape[4]) * size
        if w.strides[4] != 1 and w.shape[4] > 1:
            beats = run / size
        else:
            beats = ceil_div(run, bus) + (0.5 if run % bus else 0)
        return self.image.segments * self.image.depth * beats


def _cuts(n: int, size: int) -> list[Span]:
    return [(at, min(n, at + size)) for at in range(0, n, size)]


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
    total = image.segments * image.blocks
    most = min(ceil_div(o, d), STORE_VECTOR_UNITS if vectors else 32)
    blocks = sorted({min(most, 1 << i) for i in range(6)} | {most})
    for nb, a_banks, parts in product(blocks, SPLITS, PARTS[:2]):
        nt = min(nb * d, o)
        part = config.acc_rows // parts - vector_rows(config, vectors, image.conv.cols, nt, parts)
        fit = part // cell_rows(config) * cell_rows(config) // nb
        per_slot = max(1, (BANKS - a_banks) * config.spad_bank // (d * nb * image.local))
        kts = {max(1, min(total, per_slot // n)) for n in (1, 2, W_SLOTS)}
        if image.blocks < min(kts):  # whole segments
            kts |= {kt // image.blocks * image.blocks for kt in kts}
        shapes = list(_shapes(plan, fit, a_banks * config.spad_bank))
        for (rows, cols, images), kt, order in product(shapes, sorted(kts), ("sn", "ns")):
            yield ConvSchedule(rows, cols, nt, kt, order, a_banks, images=images, parts=parts)


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
                tall = plan.rows_of(h, images) * cols
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


def ranked(config: ChipConfig, image: Image, vectors: int, out_bytes: int,
           pool: tuple[Axis, Axis] | None, count: int) -> list[ConvPlan]:  # fmt: skip
    """The cheapest candidates that fit, by their estimated cycles; ties go to the first.

    Raises
    ------
    ScheduleError
        Not even one result and one block of its weights fit; says what is too large.
    """
    least = ConvSchedule(1, 1, min(config.dim, image.conv.w.shape[4]), 1)
    smallest = ConvPlan(config, image, vectors, out_bytes, least, pool)
    found = []
    for number, s in enumerate(dict.fromkeys(candidates(smallest))):
        plan = replace(smallest, schedule=s)
        try:
            plan.check()
        except ScheduleError:
            continue
        found.append((plan.cost(), number, plan))
    if not found:
        smallest.check()
        return [smallest]
    return [plan for _, _, plan in nsmallest(count, found)]
