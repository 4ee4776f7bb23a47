"""How a convolution's image and weights lie in the scratchpad, and the LOADs that put them there.

A *segment* is a piece of K: the channels of one tap, or those of one or more kernel rows; each is
zero-padded to a multiple of `dim`. A local *pixel* is one segment's elements: of an image position,
or of the part of a window that begins there. A tile's part of the
image is a grid of pixels; a tap is an offset into it, so that neighbours share what they read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

from tilewright.compiler.boxes import Level, box_loads, merged
from tilewright.compiler.kernels import Axis, Convolve, View
from tilewright.compiler.operand_loads import OPERAND_TYPE, part_conv, span_bytes
from tilewright.compiler.schedule import ceil_div
from tilewright.compiler.tiles import Dram, Local, Op
from tilewright.isa.table import Mem, Type

Span = tuple[int, int]
Spans = tuple[tuple[int, int], tuple[int, int]]  # results along H and along W


def is_sampled(axis: Axis) -> bool:
    """Whether only positions that a result needs are kept: nothing is shared between taps."""
    return axis.taps == 1 and axis.gap == 1


def length(axis: Axis, outs: int) -> int:
    """Local positions along an axis for this many results in a row."""
    if is_sampled(axis):
        return outs
    return (outs - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1


def step(axis: Axis) -> int:
    """Local positions from one result to the next."""
    return 1 if is_sampled(axis) else axis.stride


@dataclass(frozen=True)
class Part:
    """Elements of the image among the local positions of some results.

    `count` of them, from local position `at` in steps of `step`, element `first` of the image in
    steps of `source_step`; the other positions are zero.
    """

    at: int
    count: int
    step: int
    first: int
    source_step: int

    @staticmethod
    def of(axis: Axis, o0: int, o1: int) -> Part:
        """For results o0 <= o < o1."""
        if is_sampled(axis):
            low = max(o0, ceil_div(axis.pad, axis.stride))
            high = min(o1 - 1, (axis.size - 1 + axis.pad) // axis.stride)
            first = low * axis.stride - axis.pad
            return Part(low - o0, max(0, high - low + 1), 1, first, axis.stride)
        begin = o0 * axis.stride - axis.pad
        end = begin + length(axis, o1 - o0) - 1
        first, last = max(0, ceil_div(begin, axis.gap)), min(axis.size - 1, end // axis.gap)
        return Part(first * axis.gap - begin, max(0, last - first + 1), axis.gap, first, 1)

    def every(self, places: range) -> Part:
        """Those at places that are a step apart (its own are neighbours, if that is above 1)."""
        by = places.step
        if by == 1:
            return self
        some = self.cut((places.start - self.at) % by, self.count)
        return Part(some.at, ceil_div(some.count, by), by, some.first, by * some.source_step)

    @property
    def end(self) -> int:
        """The position behind its last element."""
        return self.at + (self.count - 1) * self.step + 1

    def cut(self, skip: int, count: int) -> Part:
        """`count` elements (or those that are left) behind the first `skip`."""
        count = max(0, min(count, self.count - skip))
        at, first = self.at + skip * self.step, self.first + skip * self.source_step
        return Part(at, count, self.step, first, self.source_step)

    def within(self, low: int, high: int) -> Part:
        """Those at local positions low <= position < high."""
        skip = max(0, ceil_div(low - self.at, self.step))
        return self.cut(skip, ceil_div(high - self.at, self.step) - skip)


@dataclass(frozen=True)
class Window:
    """What is loaded of a tile's local image: rows, columns, and of each pixel K-blocks."""

    rows: range
    cols: range
    blocks: Span


@dataclass(frozen=True)
class Image:
    """A convolution as the array sees it.

    Attributes
    ----------
    axes : of the local image; taps that lie inside a pixel are no taps of it.
    segments : number of pieces of K.
    depth : elements of a segment, of the longest one.
    blocks : its K-blocks.
    """

    conv: Convolve
    dim: int

    @cached_property
    def local(self) -> int:
        """Granules of `dim` elements."""
        return 2 if OPERAND_TYPE[self.conv.x.dtype] == Type.BF16 else 1

    @cached_property
    def axes(self) -> tuple[Axis, Axis]:
        (h, w), rows = self.conv.axes, self.conv.packing
        if rows:
            w = Axis(w.size, 1, w.out, w.stride)
        if rows > 1:
            taps = ceil_div(h.taps, rows)
            h = Axis(h.size, taps, h.out, h.stride, h.dilation * rows if taps > 1 else 1)
        return h, w

    @cached_property
    def inside(self) -> tuple[int, int]:
        """Taps along H and W that a pixel holds."""
        rows = self.conv.packing
        return max(rows, 1), self.conv.axes[1].taps if rows else 1

    @cached_property
    def pixel(self) -> list[Level]:
        """A pixel's elements in the image, in bytes, innermost first."""
        x = self.conv.x
        size = x.dtype.itemsize
        h, w = self.conv.axes
        rows, cols = self.inside
        by = 1 if self.conv.phases > 1 else w.dilation
        levels = [(x.shape[4], x.strides[4] * size), (cols, by * x.strides[3] * size),
                  (rows, h.dilation * x.strides[2] * size)]  # fmt: skip
        return merged(levels)

    @cached_property
    def depth(self) -> int:
        return self.conv.w.shape[3] * prod(self.inside)

    def deep(self, segment: int) -> int:
        """Elements of a segment: the last one may have fewer kernel rows."""
        if not self.conv.packing:
            return self.depth
        rows = self.conv.axes[0].taps - segment * self.inside[0]
        return min(self.depth, self.depth // self.inside[0] * rows)

    @cached_property
    def segments(self) -> int:
        return prod(a.taps for a in self.axes)

    @cached_property
    def blocks(self) -> int:
        return ceil_div(self.depth, self.dim)

    @cached_property
    def total(self) -> int:
        """K-blocks of all segments."""
        return (self.segments - 1) * self.blocks + ceil_div(self.deep(self.segments - 1), self.dim)

    def tap(self, segment: int, pitch: int) -> int:
        """Pixels from the first of a tile's local image to the first that this segment reads."""
        i, j = divmod(segment, self.axes[1].taps)
        return i * self.axes[0].dilation * pitch + j * self.axes[1].dilation

    def granules(self, height: int, width: int, images: int = 1) -> int:
        """Scratchpad granules of the local images of height x width results each.

        Several images have all of their rows.
        """
        tall = length(self.axes[0], height)
        if images > 1:
            tall += (images - 1) * self.pitch((0, height))
        return tall * length(self.axes[1], width) * self.blocks * self.local

    def pitch(self, rows: tuple[int, int]) -> int:
        """Local rows from one image to the next in a tile: a multiple of a result's step.

        Zeros below an image are those above the next one, as far as both have some.
        """
        axis = self.axes[0]
        tall, part, by = length(axis, rows[1] - rows[0]), Part.of(axis, *rows), step(axis)
        shared = min(part.at, tall - part.end) if part.count else tall - by
        return max(by, ceil_div(tall - shared, by) * by)

    def results(self, rows: tuple[int, int], images: int) -> int:
        """Rows of results of a tile, those between the images included."""
        between = self.pitch(rows) // step(self.axes[0]) if images > 1 else 0
        return (images - 1) * between + rows[1] - rows[0]

    # ---- loads

    def loads(self, group: int, images: Level, spans: Spans, slot: Local, number: int,
              part: int = 0, pieces: int = 1,
              window: Window | None = None) -> list[Op]:  # fmt: skip
        """LOADs of a tile's local images; positions outside of an image are filled with zeros.

        Parameters
        ----------
        images : first <= image < last.
        part : of float32 elements (0: high, 1: middle, 2: low).
        pieces : into how many LOADs its rows (or its images) are divided, about.
        window : only this part of it; rows of several images are below each other.
        """
        x = self.conv.x
        unit = self.blocks * self.local  # granules of a pixel
        parts = [Part.of(a, *s) for a, s in zip(self.axes, spans, strict=True)]
        height, width = (length(a, s[1] - s[0]) for a, s in zip(self.axes, spans, strict=True))
        rows, cols = parts
        count, pitch = images[1] - images[0], self.pitch(spans[0])
        seen = window or Window(range((count - 1) * pitch + height), range(width), (0, self.blocks))
        blocks = seen.blocks
        ops = [
            _fill(x, slot.lo + (r.start * width + c.start) * unit,
                  (len(r), r.step * width * unit), (len(c), c.step * unit), blocks, self, number)
            for zero_rows, zero_cols in _zeros(rows, cols, height, width, count, pitch)
            if (r := within(seen.rows, *zero_rows)) and (c := within(seen.cols, *zero_cols))
        ]  # fmt: skip
        if count == 1:
            rows = rows.within(seen.rows.start, seen.rows.stop)
        rows, cols = rows.every(seen.rows), cols.every(seen.cols)
        if not rows.count or not cols.count:
            return ops
        if count > 1:
            share = ceil_div(count, pieces)
            for skip in range(0, count, share):
                some = images[0] + skip, min(images[1], images[0] + skip + share)
                ops += self._rows(group, some, rows, cols, width, slot, number, part, blocks,
                                  skip * pitch, pitch)  # fmt: skip
            return ops
        share = ceil_div(rows.count, pieces)
        for skip in range(0, rows.count, share):
            some_rows = rows.cut(skip, share)
            ops += self._rows(group, images, some_rows, cols, width, slot, number, part, blocks)
        return ops

    def _rows(self, group: int, images: Level, rows: Part, cols: Part, width: int, slot: Local,
              number: int, part: int, blocks: Span, above: int = 0,
              pitch: int = 0) -> list[Op]:  # fmt: skip
        """LOADs of some rows of local images, `pitch` rows apart, the first one `above` down."""
        x, unit = self.conv.x, self.blocks * self.local
        pixel, skipped = self.pixel, blocks[0] * self.dim
        if blocks != (0, self.blocks):
            pixel = [(min(pixel[0][0], blocks[1] * self.dim) - skipped, pixel[0][1])]
        parts = (rows, cols)
        size = x.dtype.itemsize
        first = (rows.first, cols.first)
        origin = x.offset + group * x.strides[0] + images[0] * x.strides[1]
        origin += rows.first * x.strides[2] + skipped
        if self.conv.phases == 1:
            origin += cols.first * x.strides[3]
        last = [
            p.first + (p.count - 1) * p.source_step + 1 + (taps - 1) * axis.dilation
            for p, taps, axis in zip(parts, self.inside, self.conv.axes, strict=True)
        ]
        phases = self.conv.phases
        if phases > 1:
            first, last[1] = (rows.first, 0), x.shape[3]
        low, high = (group, images[0], *first, 0), (group + 1, images[1], *last, x.shape[4])
        down = slot.lo + (above + rows.at) * width * unit
        tall = (images[1] - images[0] - 1) * pitch + rows.end - rows.at
        used = Local(slot.mem, down, down + tall * width * unit)
        ops = []
        for i in range(min(phases, cols.count)):  # results whose taps are in the same phase
            column = cols.first + i * cols.source_step
            skip = 0
            if phases > 1:
                skip = column % phases * (x.shape[3] // phases) + column // phases
            outer = [
                (ceil_div(cols.count - i, phases), cols.source_step * x.strides[3] * size,
                 cols.step * phases * unit),
                (rows.count, rows.source_step * x.strides[2] * size, rows.step * width * unit),
                (images[1] - images[0], x.strides[1] * size, pitch * width * unit),
            ]  # fmt: skip
            at = slot.lo + ((above + rows.at) * width + cols.at + i * cols.step) * unit
            at += blocks[0] * self.local
            read = span_bytes(x, low, high)
            if images[1] - images[0] == 1 and x.strides[4] == 1 and min(x.strides[2:4]) > 0:
                read = self._read(origin + skip * x.strides[3] - skipped, rows,
                                  (outer[0][0] - 1) * cols.source_step)  # fmt: skip
            ops += box_loads(x, (origin + skip * x.strides[3]) * size, pixel, outer, used, at,
                             part_conv(x, part), self.local, read, number)  # fmt: skip
        return ops

    def _read(self, first: int, rows: Part, cols: int) -> Dram:
        """Bytes of pixels that hold taps, from an element on: of rows, and up to `cols` further."""
        x, inside = self.conv.x, self.inside
        by = 1 if self.conv.phases > 1 else self.conv.axes[1].dilation
        run = (cols + (inside[1] - 1) * by) * x.strides[3] + x.shape[4]
        down = (rows.count - 1) * rows.source_step + (inside[0] - 1) * self.conv.axes[0].dilation
        size = x.dtype.itemsize
        last = first + down * x.strides[2] + run
        return Dram(x.buffer, first * size, last * size, run * size, x.strides[2] * size)

    @cached_property
    def is_cut(self) -> bool:
        """Whether some K-blocks of a pixel can be loaded by themselves: it is one run."""
        runs = self.pixel
        return self.blocks > 1 and len(runs) == 1 and runs[0][1] == self.conv.x.dtype.itemsize

    def wide(self, cols: Span) -> int:
        """Granules of a weight row of these columns."""
        return ceil_div(cols[1] - cols[0], self.dim) * self.local

    def reach(self, rows: int, i: int) -> int:
        """Local rows that the first i + 1 kernel rows read, for so many rows of results."""
        return (rows - 1) * step(self.axes[0]) + i * self.axes[0].dilation + 1

    def rows_read(self, rows: Span, local: Span | None = None) -> Span:
        """Rows of an image that these rows of results need; or these local rows of theirs."""
        part = Part.of(self.axes[0], *rows)
        if local is not None:
            part = part.within(*local)
        if not part.count:
            return part.first, part.first
        inside = (self.inside[0] - 1) * self.conv.axes[0].dilation
        return part.first, part.first + (part.count - 1) * part.source_step + 1 + inside

    def columns_read(self, cols: Span) -> Span:
        """Columns of an image (in their order before phases) that these results need."""
        part = Part.of(self.axes[1], *cols)
        inside = (self.inside[1] - 1) * self.conv.axes[1].dilation
        return part.first, part.first + max(0, part.count - 1) * part.source_step + 1 + inside

    def weight_loads(self, group: int, first: int, last: int, cols: tuple[int, int], slot: Local,
                     number: int, part: int = 0) -> list[Op]:  # fmt: skip
        """LOADs of K-blocks first <= block < last (of all segments') for these columns of a group.

        Weight row k of a block is the local row of that number, so blocks follow each other.
        """
        w, d = self.conv.w, self.dim
        size = w.dtype.itemsize
        n0, n1 = cols
        unit = self.wide(cols)
        run = merged([(n1 - n0, w.strides[4] * size)])
        ops: list[Op] = []
        _, _, taps_w, c, _ = w.shape
        inside = self.depth // c  # taps of a segment
        for segment in range(first // self.blocks, ceil_div(last, self.blocks)):
            base = segment * self.blocks
            k0 = max(0, first - base) * d
            k1 = min(self.deep(segment), (last - base) * d)
            for (t0, t1), (c0, c1) in _ranges(k0, k1, c):
                taps = range(segment * inside + t0, segment * inside + t1)
                for i, j, count in _tap_runs(taps, taps_w):
                    local = (base - first) * d + (i * taps_w + j - segment * inside) * c + c0
                    low = (group, i, j, c0, n0)
                    high = (group + 1, i + 1, j + count, c1, n1)
                    origin = w.offset + sum(a * s for a, s in zip(low, w.strides, strict=True))
                    outer = [(c1 - c0, w.strides[3] * size, unit),
                             (count, w.strides[2] * size, c * unit)]  # fmt: skip
                    ops += box_loads(w, origin * size, run, outer, slot, slot.lo + local * unit,
                                     part_conv(w, part), self.local, span_bytes(w, low, high),
                                     number)  # fmt: skip
        return ops


def _zeros(rows: Part, cols: Part, height: int, width: int, images: int,
           pitch: int) -> Iterator[tuple[Level, Level]]:  # fmt: skip
    """Rectangles (rows, columns) of local images that hold all zeros around their elements."""
    tall = (images - 1) * pitch + height
    if not rows.count or not cols.count or rows.step > 1 or cols.step > 1:
        yield (0, tall), (0, width)
        return
    top = 0
    for image in range(images + 1):
        bottom = image * pitch + rows.at if image < images else tall
        if top < bottom:
            yield (top, bottom), (0, width)
        top = image * pitch + rows.end
    for c in ((0, cols.at), (cols.end, width)):
        if c[0] < c[1]:
            yield (rows.at, (images - 1) * pitch + rows.end), c


def within(places: range, low: int, high: int) -> range:
    """Those places that are at least `low` and less than `high`."""
    skipped = max(0, ceil_div(low - places.start, places.step))
    return range(places.start + skipped * places.step, min(places.stop, high), places.step)


def _ranges(k0: int, k1: int, c: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Rows k0 <= k < k1 of a segment as (taps, channels): a tail, whole taps, a head."""
    while k0 < k1:
        tap, channel = divmod(k0, c)
        if channel or k1 - k0 < c:
            end = min(c, channel + k1 - k0)
            yield (tap, tap + 1), (channel, end)
            k0 += end - channel
        else:
            whole = (k1 - k0) // c
            yield (tap, tap + whole), (0, c)
            k0 += whole * c


def _tap_runs(taps: range, width: int) -> Iterator[tuple[int, int, int]]:
    """Taps as (row, column, count) with `count` neighbours in one kernel row."""
    at = taps.start
    while at < taps.stop:
        i, j = divmod(at, width)
        count = min(width - j, taps.stop - at)
        yield i, j, count
        at += count


def _fill(x: View, at: int, rows: Level, cols: Level, blocks: Span, image: Image,
          number: int) -> Op:  # fmt: skip
    """LOAD zeros: K-blocks of rows x cols pixels, with their steps in granules."""
    at, many = at + blocks[0] * image.local, blocks[1] - blocks[0]
    fields = {
        "mem": Mem.SPAD, "conv": part_conv(x, 0), "fill": 1, "loc": at, "l0": image.local,
        "c0": many * image.dim, "c1": cols[0], "l1": cols[1], "c2": rows[0], "l2": rows[1],
    }  # fmt: skip
    end = at + (rows[0] - 1) * rows[1] + (cols[0] - 1) * cols[1] + many * image.local
    return Op("load", fields, (), (Local(Mem.SPAD, at, end),), number)
