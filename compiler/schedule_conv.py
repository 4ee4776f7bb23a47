"""Schedules of convolutions: a tile of the result, a chunk of the weights, and a loop order.

A tile is rows x cols results of one image (or of several, below each other) by `nt` channels; its
part of the image lies in one slot, so that all taps share it. Weights come in chunks of K-blocks,
in the order of K. A schedule never changes bits; `schedule_conv_cost` and `refine_conv` choose it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

from tilewright.compiler.image import Image
from tilewright.compiler.kernels import Axis
from tilewright.compiler.schedule import (
    A_BANKS,
    ScheduleError,
    ceil_div,
    cell_granules,
    cell_rows,
    spans,
    vector_rows,
)
from tilewright.isa.config import BANKS, STORE_VECTOR_UNITS, ChipConfig
from tilewright.isa.timing import MATMUL_MIN_PERIOD

Span = tuple[int, int]
Tile = tuple[int, Span, Span, Span, Span]  # group, images, rows, columns, channels
PARTS = (2, 4, 8)  # of the accumulator


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
    head, tail : rows of the very first and the very last tile, so that the array starts sooner, and
        the last store is short; rows double up to the others, and halve (0: they do not).
    first_k : K-blocks of the portions in which the first tile's first kernel row comes, and its
        others row by row; see `tile_conv_start` (0: it comes like the other tiles).
    band : rows of results of the first tile that are multiplied by themselves, if it comes in
        portions, so that the array starts when there are some (0: all together).
    images : of the batch in a tile; more than one have all of their rows in it, below each other.
    parts : parts of the accumulator: tiles that grow, wait for their store or are stored.
    stage : 1: the image's padded copy, if it has one, is made tile by tile, through a bank of the
        scratchpad that weights cannot have then: whole rows; 2: only the columns that a tile
        reads. 0: all of the copy is made before the first tile.
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
    band: int = 0
    images: int = 1
    parts: int = 2
    stage: int = 0

    def __str__(self) -> str:
        extra = "".join(
            f" {name} {value}"
            for name in ("head", "tail", "first_k", "band", "images", "parts", "stage")
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
    copied: int = 0  # bytes of the image's padded copy, if it is made on the way

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

    @cached_property
    def together(self) -> bool:
        """Whether one pass computes all images, with what is between them; else one for each."""
        s, least = self.schedule, max(self.config.dim, MATMUL_MIN_PERIOD)
        between = self.image.results((0, s.rows), s.images) * s.cols
        return s.images > 1 and max(between, least) <= s.images * max(s.rows * s.cols, least)

    def rows_of(self, rows: int, images: int) -> int:
        """Rows of what the array computes for so many results, and between the images."""
        if self.together:
            return self.image.results((0, rows), images)
        return self.sums(rows, 1)[0] * images

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
        total, kt = self.image.total, self.schedule.kt
        return _cuts(total, kt)

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

    @property
    def w_banks(self) -> int:
        """Scratchpad banks of weights."""
        return BANKS - self.schedule.a_banks - (self.schedule.stage > 0)

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
            min(self.w_banks * bank // self.w_size,
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
                for cols in _cuts(self.outs[1], self._width(rows[1] - rows[0]))
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
        s = self.schedule
        return spans(self.outs[0], s.rows, s.head * first, s.tail * last)

    def _width(self, rows: int) -> int:
        """Columns of a tile of so many rows: those of lower tiles are wider, as far as they fit."""
        s, width = self.schedule, self.schedule.cols
        while s.head + s.tail and s.images == 1:
            sums = self.sums(rows, min(width + s.cols, self.outs[1]))
            fits = self.image.granules(*sums) <= self.a_size
            if not fits or prod(sums) > prod(self.sums(s.rows, s.cols)) or width >= self.outs[1]:
                break
            width += s.cols
        return width

    def check(self) -> None:
        """Refuse a schedule that does not fit.

        Raises
        ------
        ScheduleError
            Names the buffer, and by how much it is too large.
        """
        s, d = self.schedule, self.config.dim
        h, w = self.outs
        total = self.image.total
        for name, most in (("head", s.rows), ("tail", s.rows), ("first_k", s.kt), ("band", s.rows)):
            if not 0 <= getattr(s, name) <= most:
                raise ScheduleError(f"{s}: {name} must be in 0 to {most}, not {getattr(s, name)}")
        limits = (("rows", h), ("cols", w), ("nt", self.image.conv.w.shape[4]), ("kt", total),
                  ("images", self.batch))  # fmt: skip
        for name, most in limits:
            if not 1 <= getattr(s, name) <= most:
                raise ScheduleError(f"{s}: {name} must be in 1 to {most}, not {getattr(s, name)}")
        if s.images > 1 and (s.rows < h or s.head or s.tail or s.band or self.pool):
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
        if s.stage not in (0, 1, 2):
            raise ScheduleError(f"{s}: stage must be 0, 1 or 2, not {s.stage}")
        most_banks = BANKS - 1 - (s.stage > 0)
        if not 1 <= s.a_banks <= most_banks:
            raise ScheduleError(f"{s}: a_banks must be in 1 to {most_banks}, not {s.a_banks}")
        for what, size, banks in (("image", self.a_size, s.a_banks),
                                  ("weight", self.w_size, self.w_banks)):  # fmt: skip
            room = banks * self.config.spad_bank
            if size > room:
                raise ScheduleError(
                    f"{s}: one {what} slot needs {size} granules, {size - room} more than there are"
                )


def _cuts(n: int, size: int) -> list[Span]:
    return [(at, min(n, at + size)) for at in range(0, n, size)]
