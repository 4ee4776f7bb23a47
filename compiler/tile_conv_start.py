"""The start of a convolution: its first tile in portions of K, each behind what it needs first.

The array starts as soon as a few K-blocks of weights are there, and what they multiply: the rows
that the first kernel row reads, and of each pixel only these blocks. Every further kernel row adds
a few rows; while the array works on the one, LOAD brings those of the next, from the image's copy
too, which is made just ahead. Bits stay as they are: K ascends, in passes of one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tilewright.compiler.image import Image, Window, length
from tilewright.compiler.schedule import ceil_div
from tilewright.compiler.schedule_conv import ConvPlan, Span
from tilewright.compiler.tiles import Local, Op

Products = Callable[[Span, Local], list[Op]]  # MATMULs of K-blocks, whose weights are in a place
PIECES = 4  # in which the first rows are copied and loaded
HIDDEN = 250  # granules of weights that are loaded while the first rows are copied


@dataclass(frozen=True)
class Portion:
    """K-blocks of one chunk and one kernel row; `window` is what they are the first to read."""

    chunk: int
    ks: Span
    window: Window | None


def portions(p: ConvPlan, rows: Span, images: int) -> Iterator[Portion]:
    """Those of a tile with these rows of what the array computes."""
    image = p.image
    size = p.schedule.first_k or image.total
    line = image.blocks * image.axes[1].taps  # blocks of a kernel row
    for number, (at, last) in enumerate(p.chunks):
        while at < last:
            row, block = divmod(at, line)
            end = min(last, (row + 1) * line)
            if end - at >= 2 * size and not row:
                end = at + size
            ks = block, block + end - at
            yield Portion(number, (at, end), _window(image, rows, images, row, ks))
            at = end


def _window(image: Image, rows: Span, images: int, row: int, ks: Span) -> Window | None:
    """What blocks `ks` of a kernel row read that nothing before them did."""
    first, last = ks[0], min(ks[1], image.blocks)
    if not image.is_cut:  # the first block brings the others
        first, last = (0, image.blocks) if first == 0 else (0, 0)
    if first >= last:
        return None
    height = rows[1] - rows[0]
    if images > 1:  # all rows at once
        tall = (images - 1) * image.pitch(rows) + length(image.axes[0], height)
        return None if row else Window((0, tall), (first, last))
    above = image.reach(height, row - 1) if row else 0
    return Window((above, image.reach(height, row)), (first, last))


@dataclass
class Start:
    """Makes the operations of the first tile.

    Parameters
    ----------
    slot : of its image.
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
        found = [w for x in self.parts for w in self._cut(x.window)]
        self.fresh = [w for w in found if w.blocks[0] == 0]  # whose rows are still to be copied
        self.busy = max(x.chunk for x in self.parts if x.window)  # chunk of the last LOAD
        self.loaded = 0  # pieces of the image

    def _cut(self, window: Window | None) -> list[Window]:
        """Pieces of a window, each of which is loaded while the next one is copied."""
        if window is None:
            return []
        if not self.p.schedule.stage or window.blocks[0] or self.p.schedule.images > 1:
            return [window]
        (top, bottom), many = window.rows, PIECES if window.rows[0] == 0 else 1
        share = max(1, ceil_div(bottom - top, many))
        return [Window((at, min(bottom, at + share)), window.blocks)
                for at in range(top, bottom, share)]  # fmt: skip

    def copy(self) -> list[Op]:
        """The copy of the rows of the next piece."""
        return self.copies(self.fresh.pop(0)) if self.fresh else []

    def chunk(self, number: int, slot: Local, wide: int) -> list[Op]:
        """All of one chunk, whose blocks are `wide` granules each."""
        begin = self.p.chunks[number][0]
        parts = [x for x in self.parts if x.chunk == number]
        places = {x: Local(slot.mem, *(slot.lo + (k - begin) * wide for k in x.ks)) for x in parts}
        ops: list[Op] = []
        early = parts[:1]
        if number == 0 and self.p.schedule.stage:
            pieces = self._cut(parts[0].window)
            ops = [op for _ in pieces for op in self.copy()]
            room = HIDDEN - places[parts[0]].hi + places[parts[0]].lo
            for part in parts[1:]:
                room -= places[part].hi - places[part].lo
                early += [part] if room > 0 else []
        for part in early:
            ops += self.weights(part.ks, places[part])
        for part in parts:
            ops += [] if part in early else self.weights(part.ks, places[part])
            pieces = self._cut(part.window)
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
        if self.loaded == 0:
            ops[0].writes = (self.slot,)
        self.loaded += 1
        return ops

    def _products(self, part: Portion, place: Local) -> list[Op]:
        """MATMULs of a portion; the last one counts as reading all of the image's slot."""
        ops = self.matmuls(part.ks, place)
        for op in ops:
            op.reads = (self._name(self.loaded - 1), place)
        if part is self.parts[-1]:
            ops[-1].reads = (self.slot, place)
        return ops

    def _name(self, number: int) -> Local:
        at = min(self.slot.lo + number, self.slot.hi - 1)
        return Local(self.slot.mem, at, at + 1)
