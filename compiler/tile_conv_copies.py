"""When an image's padded copy is made: before the first tile, or ahead of the tiles that read it.

Whole rows: a row of tiles adds some of the image at once; they are copied in pieces during the row
of tiles before, so that its first tile need not wait for all of them. Or only the columns that a
tile reads, of which the next one adds a few: then the array starts before much is copied.
"""

from __future__ import annotations

from collections.abc import Iterator

from tilewright.compiler.image import Window
from tilewright.compiler.kernels import Kernel
from tilewright.compiler.schedule_conv import ConvPlan, Span
from tilewright.compiler.tile_stage import Stage
from tilewright.compiler.tiles import Op
from tilewright.isa.config import BANKS, ChipConfig

FEW = 4  # rows of the image that are copied at once, ahead of a row of tiles
COLUMNS = 2  # the `stage` of a schedule that copies parts of rows
Part = tuple[int, int, int, Span]  # of an image: first <= row < last; columns
Staged = tuple[int, Kernel]  # number and kernel of the `Pad` that only this convolution reads


class Copies:
    """The operations of the kernel that pads the image, in time for the tiles."""

    def __init__(self, config: ChipConfig, p: ConvPlan, pad: Staged | None,
                 needs: list[tuple[int, Span, Span, Span]]):  # fmt: skip
        self.p, self.needs = p, needs  # group, images, rows and columns of each turn
        self.stage: Stage | None = None
        if pad is not None:
            banks = (BANKS - 1, BANKS) if p.schedule.stage else (0, p.schedule.a_banks)
            region = banks[0] * config.spad_bank, banks[1] * config.spad_bank
            self.stage = Stage(config, pad[1], pad[0], region)
            self.ahead = self._spread()

    def of(self, at: int, window: Window | None = None) -> list[Op]:
        """What this turn (or a window of it) reads, but for what was copied before."""
        if self.stage is None:
            return []
        if not self.p.schedule.stage:
            return [] if at else self.stage.all()
        pieces = [*self._read(at, window), *(self.ahead.pop(at, []) if window is None else [])]
        return [op for piece in pieces for op in self.stage.rows(*piece)]

    def _read(self, at: int, window: Window | None) -> Iterator[Part]:
        """Parts of images that a turn (or a window of it) reads."""
        x, stage = self.p.image.conv.x, self.stage
        assert stage is not None
        for group, images, rows, cols in self.needs[at : at + 1]:
            local = None
            if window is not None and images[1] - images[0] == 1:
                local = window.rows.start, window.rows.stop
            first, last = self.p.image.rows_read(rows, local)
            across = 0, stage.width
            if self.p.schedule.stage == COLUMNS:
                across = self.p.image.columns_read(cols)
            for image in range(*images):
                place = (x.offset + group * x.strides[0] + image * x.strides[1]) * x.dtype.itemsize
                yield place // (stage.pitch * stage.height), first, last, across

    def _spread(self) -> dict[int, list[Part]]:
        """Parts by the turn in which they are copied: in pieces, ahead of the one that reads them.

        Else all that a row of tiles adds would come at once, too late for its first one.
        """
        ahead: dict[int, list[Part]] = {}
        there: dict[tuple[int, Span], int] = {}  # by image and columns: rows that are copied
        before = 1  # the last turn that added some
        for at in range(len(self.needs)):
            pieces = []
            for image, first, last, across in self._read(at, None):
                first = max(first, there.get((image, across), 0))
                there[image, across] = max(last, first)
                pieces += [(image, row, min(last, row + FEW), across)
                           for row in range(first, last, FEW)]  # fmt: skip
            for n, piece in enumerate(reversed(pieces)):
                ahead.setdefault(at - max(0, at - before) * n // len(pieces), []).append(piece)
            before = max(before, at if pieces else 0)
        return ahead
