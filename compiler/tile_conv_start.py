"""The start of a convolution: its first tile in portions of K, each behind what it needs first.

The array starts as soon as a few K-blocks of weights are there, and what they multiply: the rows
(with a stride also the columns) that the first kernel row reads for a band of results, and of each
pixel only these blocks. Every further kernel row adds some rows; while the array works on the one,
LOAD brings those of the next, from the image's copy too, which is made just ahead. Bits stay as
they are: K ascends for each result, in passes of one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tilewright.compiler.image import Image, Spans, Window, length, step
from tilewright.compiler.schedule import ceil_div
from tilewright.compiler.schedule_conv import ConvPlan, Span
from tilewright.compiler.tiles import Local, Op

#: MATMULs of K-blocks, whose weights are in a place, for some rows of a pass or all.
Products = Callable[[Span, Local, Span | None], list[Op]]
PIECES = 4  # in which the first rows are copied and loaded
HIDDEN = 250  # granules of weights that are loaded while the first rows are copied


@dataclass(frozen=True)
class Portion:
    """K-blocks of one chunk and one kernel row, for some rows of results.

    `windows` are what it is the first to read of the image, and `new` says whether also of weights.
    """

    chunk: int
    ks: Span
    rows: Span
    windows: tuple[Window, ...]
    new: bool = True


def portions(p: ConvPlan, spans: Spans, images: int) -> Iterator[Portion]:
    """Those of a tile with these rows and columns of what the array computes."""
    image, height, needs = p.image, spans[0][1] - spans[0][0], _Needs(p.image, spans, images)
    size, band = p.schedule.first_k or image.total, p.schedule.band or height
    line = image.blocks * image.axes[1].taps  # blocks of a kernel row
    for number, (at, last) in enumerate(p.chunks):
        while at < last:
            row, block = divmod(at, line)
            end = min(last, (row + 1) * line)
            cut = needs.above(row) is None
            for top in range(0, height, band):
                rows, begin = (top, min(height, top + band)), at
                while begin < end:
                    stop = begin + size if cut and not top and end - begin >= 2 * size else end
                    found = needs.of(row, (block + begin - at, block + stop - at), rows)
                    yield Portion(number, (begin, stop), rows, tuple(found), not top)
                    begin = stop
            at = end


class _Needs:
    """What of a tile's local image is there, while its K-blocks come one after another.

    Results that are `step` apart read every `step`-th row, from one that the kernel row says, and
    likewise columns: those of one remainder come together, when the first kernel row (column) of
    that remainder does.
    """

    def __init__(self, image: Image, spans: Spans, images: int):
        rows, cols = spans
        self.image, self.images = image, images
        self.height = rows[1] - rows[0]
        self.tall = length(image.axes[0], self.height)
        if images > 1:
            self.tall += (images - 1) * image.pitch(rows)
        self.width = length(image.axes[1], cols[1] - cols[0])
        self.by = tuple(step(a) if a.gap == 1 else 1 for a in image.axes)
        #: By kernel row, first row of results and remainder of columns: blocks.
        self.there: dict[tuple[int, int, int], int] = {}

    def above(self, row: int) -> int | None:
        """The kernel row before this one that reads rows of the same remainder."""
        by, dilation = self.by[0], self.image.axes[0].dilation
        return next((i for i in range(row)[::-1] if (row - i) * dilation % by == 0), None)

    def _rows(self, row: int, results: Span) -> range:
        """The rows that a kernel row is the first to read, for some results."""
        axis, above, by = self.image.axes[0], self.above(row), self.by[0]
        first = row * axis.dilation
        if self.images > 1:  # all rows of all images at once
            return range(first % by, self.tall if above is None else 0, by)
        end = self.image.reach(results[1], row)
        known = self.image.reach(self.height, above) if above is not None else 0
        if axis.gap > 1:
            return range(max(known, self.image.reach(results[0], row) if results[0] else 0), end)
        return range(max(first + results[0] * by, known - 1 + by if known else 0), end, by)

    def of(self, row: int, ks: Span, results: Span) -> Iterator[Window]:
        """What blocks `ks` of a kernel row read that nothing before them did, for some results."""
        image, axis, rows = self.image, self.image.axes[1], self._rows(row, results)
        by = self.by[1] if self.above(row) is None else 1
        found: dict[Span, set[int]] = {}
        for tap in range(ks[0] // image.blocks, ceil_div(ks[1], image.blocks)):
            at = tap * axis.dilation % by
            last = min(image.blocks, ks[1] - tap * image.blocks)
            if not image.is_cut:  # the first block brings the others
                last = image.blocks
            first = self.there.get((row, results[0], at), 0)
            if first < last and rows:
                self.there[row, results[0], at] = last
                found.setdefault((first, last), set()).add(at)
        for blocks, columns in found.items():
            whole = len(columns) == by
            for at in (0,) if whole else sorted(columns):
                yield Window(rows, range(at, self.width, 1 if whole else by), blocks)


@dataclass
class Start:
    """Makes the operations of the first tile.

    Parameters
    ----------
    slot : of its image.
    parts : its portions.
    copies : what makes the rows of the image that a window reads.
    loads : LOADs of a window.
    weights, matmuls : of some K-blocks, whose weights are in a place.
    """

    p: ConvPlan
    slot: Local
    parts: list[Portion]
    copies: Callable[[Window], list[Op]]
    loads: Callable[[Window], list[Op]]
    weights: Callable[[Span, Local], list[Op]]
    matmuls: Products

    def __post_init__(self) -> None:
        self.pieces = {part: self._cut(part) for part in self.parts}
        #: Pieces of each portion that reads further rows; these are still to be copied.
        self.fresh = [pieces for pieces in self.pieces.values()
                      if any(w.blocks[0] == 0 for w in pieces)]  # fmt: skip
        self.busy = max(x.chunk for x in self.parts if x.windows)  # chunk of the last LOAD
        self.loaded = 0  # pieces of the image

    def _cut(self, part: Portion) -> list[Window]:
        """Pieces of what it reads, each of which is loaded while the next one is copied."""
        if not self.p.schedule.stage or self.p.schedule.images > 1:
            return list(part.windows)
        pieces: list[Window] = []
        for window in part.windows:
            rows, many = window.rows, PIECES if part is self.parts[0] else 1
            share = max(1, ceil_div(len(rows), many))
            pieces += [replace(window, rows=rows[at : at + share])
                       for at in range(0, len(rows), share)]  # fmt: skip
        return pieces

    def copy(self) -> list[Op]:
        """The copy of the rows of the next portion."""
        return [op for w in (self.fresh.pop(0) if self.fresh else ()) for op in self.copies(w)]

    def chunk(self, number: int, slot: Local, wide: int) -> list[Op]:
        """All of one chunk, whose blocks are `wide` granules each."""
        begin = self.p.chunks[number][0]
        parts = [x for x in self.parts if x.chunk == number]
        places = {x: Local(slot.mem, *(slot.lo + (k - begin) * wide for k in x.ks)) for x in parts}
        ops: list[Op] = []
        early = parts[:1]
        if number == 0 and self.p.schedule.stage:
            ops = self.copy()
            room = HIDDEN - places[parts[0]].hi + places[parts[0]].lo
            for part in (x for x in parts[1:] if x.new):
                room -= places[part].hi - places[part].lo
                early += [part] if room > 0 else []
        for part in early:
            ops += self.weights(part.ks, places[part])
        for part in parts:
            ops += [] if part in early or not part.new else self.weights(part.ks, places[part])
            pieces = self.pieces[part]
            for window in pieces:
                last = window is pieces[-1] and window.blocks[0] == 0
                ops += self.copy() if last else []
                ops += self._image(window)
            ops += self._products(part, places[part])
        return ops

    def _image(self, window: Window) -> list[Op]:
        """LOADs of a portion of the image.

        LOAD works in order, so what there is of the slot need not be known by the granule: its n-th
        portion goes by the name of the n-th granule. The first LOAD counts as writing all of it.
        """
        ops = self.loads(window)
        for op in ops:
            op.writes = (self._name(self.loaded),)
        if self.loaded == 0 and ops:
            ops[0].writes = (self.slot,)
        self.loaded += 1
        return ops

    def _products(self, part: Portion, place: Local) -> list[Op]:
        """MATMULs of a portion; the last one counts as reading all of the image's slot."""
        ops = self.matmuls(part.ks, place, part.rows if self.p.schedule.band else None)
        for op in ops:
            op.reads = (self._name(self.loaded - 1), place)
        if part is self.parts[-1]:
            ops[-1].reads = (self.slot, place)
        return ops

    def _name(self, number: int) -> Local:
        at = min(self.slot.lo + number, self.slot.hi - 1)
        return Local(self.slot.mem, at, at + 1)
