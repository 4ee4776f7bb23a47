"""An image's padded copy for a contraction of its patches: rows are made when a tile asks."""

from __future__ import annotations

from collections.abc import Iterator

from tilewright.compiler.kernels import Convolve
from tilewright.compiler.schedule import Span, ceil_div
from tilewright.compiler.tile_conv_copies import Staged
from tilewright.compiler.tile_stage import Stage
from tilewright.compiler.tiles import Op
from tilewright.isa.config import BANKS, ChipConfig

__all__ = ["PatchCopies", "Staged"]


class PatchCopies:
    """The operations of the kernel that pads the image of a convolution.

    They go through the scratchpad's last bank, which the contraction must leave to them.
    """

    def __init__(self, config: ChipConfig, pad: Staged, source: Convolve):
        self.source = source
        bank = config.spad_bank
        self.stage = Stage(config, pad[1], pad[0], ((BANKS - 1) * bank, BANKS * bank))

    def of(self, batch: int, pixels: Span, pieces: int = 1) -> list[Op]:
        """What the patches of these pixels read, but for what was copied before, in some pieces."""
        ops = []
        for image, first, last in _rows_read(self.source, batch, pixels):
            step = max(1, ceil_div(last - first, pieces))
            for row in range(first, last, step):
                ops += self.stage.rows(image, row, min(last, row + step))
        return ops


def _rows_read(source: Convolve, batch: int, pixels: Span) -> Iterator[tuple[int, int, int]]:
    """Image, first and last row of it (of the padded copy) that some pixels' patches lie in."""
    h, w = source.axes
    reach = (h.taps - 1) * h.dilation + 1
    first, last = pixels[0] // w.out, (pixels[1] - 1) // w.out
    for image in range(first // h.out, last // h.out + 1):
        top, bottom = max(first, image * h.out), min(last, (image + 1) * h.out - 1)
        rows = top - image * h.out, bottom - image * h.out
        yield batch + image, rows[0] * h.stride, rows[1] * h.stride + reach
