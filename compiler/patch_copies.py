"""An image's padded copy for a contraction of its patches: rows are made when a tile asks."""

from __future__ import annotations

from tilewright.compiler.dispatch import duration
from tilewright.compiler.kernels import Convolve
from tilewright.compiler.schedule import Copy, Span, ceil_div
from tilewright.compiler.tile_conv_copies import Staged
from tilewright.compiler.tile_stage import Stage
from tilewright.compiler.tiles import Op
from tilewright.isa.config import BANKS, ChipConfig
from tilewright.isa.table import Unit

__all__ = ["PatchCopies", "Staged"]


class PatchCopies:
    """The operations of the kernel that pads the image of a convolution.

    They go through the scratchpad's last bank, which the contraction must leave to them.
    """

    def __init__(self, config: ChipConfig, pad: Staged, source: Convolve):
        self.config, self.source, self.pad = config, source, (pad[1], pad[0])
        bank = config.spad_bank
        self.region = (BANKS - 1) * bank, BANKS * bank
        self.stage = Stage(config, *self.pad, self.region)

    def price(self) -> Copy:
        """What the model of schedules needs to know; nothing counts as copied."""
        slots = {Unit.LOAD: 0, Unit.STORE: 0}
        for op in Stage(self.config, *self.pad, self.region).all():
            slots[op.unit] += duration(self.config, op)
        (h, w), rows = self.source.axes, self.source.x.shape[2]
        load, store = (n / (self.source.x.shape[1] * rows) for n in slots.values())
        return Copy(w.out, h.out, self.taps, h.stride, h.dilation, load, store)

    @property
    def taps(self) -> int:
        """Elements of K of a kernel row."""
        return self.source.w.shape[2] * self.source.w.shape[3]

    def of(self, batch: int, pixels: Span, taps: int, pieces: int = 1) -> list[Op]:
        """What some taps of these pixels read, but for what was copied before, in some pieces."""
        (h, w), ops = self.source.axes, []
        first, last = pixels[0] // w.out, (pixels[1] - 1) // w.out
        for image in range(first // h.out, last // h.out + 1):
            top, bottom = max(first, image * h.out), min(last, (image + 1) * h.out - 1)
            row = (top - image * h.out) * h.stride
            end = (bottom - image * h.out) * h.stride + (taps - 1) // self.taps * h.dilation + 1
            step = max(1, ceil_div(end - row, pieces))
            for at in range(row, end, step):
                ops += self.stage.rows(batch + image, at, min(end, at + step))
        return ops
