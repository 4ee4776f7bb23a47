"""A convolution as a contraction of its patches (`Patches`), and the copy of its image for that.

The contraction gets a schedule like any other. Its activations are patches of all images; or, if
that costs less, it runs transposed, and the array's columns are pixels. The image must have its
padding: often a kernel copies it, whose rows are made ahead of the tiles that read them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from tilewright.compiler.boxes import merged
from tilewright.compiler.core import FLOATS
from tilewright.compiler.image import Image
from tilewright.compiler.kernels import Axis, Contract, Convolve, Kernel
from tilewright.compiler.patch_copies import Staged
from tilewright.compiler.patches import Patches
from tilewright.compiler.schedule import MAX_COUNT
from tilewright.compiler.schedule_cost import floor
from tilewright.compiler.share import share
from tilewright.compiler.tile_contract import problem
from tilewright.isa.config import BANKS, ChipConfig


def _is_whole(axis: Axis) -> bool:
    """Whether windows see nothing but elements of the image."""
    reach = (axis.out - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1
    return axis.gap == 1 and axis.pad == 0 and reach <= axis.size


def _patches(source: Convolve, together: bool, lanes: bool) -> Patches:
    """The patches of all images `together`, or a matrix for each."""
    x, (h, w), phases = source.x, source.axes, source.phases
    image, row, column = x.strides[1:4]
    across = column if phases > 1 else w.dilation * column
    taps = merged([(x.shape[4], x.strides[4]), (w.taps, across), (h.taps, h.dilation * row)])
    pixels = [(w.out, w.stride * column), (h.out, h.stride * row)]
    pixels += [(x.shape[1], image)] * together
    if phases == 1:
        pixels = merged(pixels)
    if not taps or taps[0][1] != 1:
        taps = [(1, 1), *taps]
    batch = (1, 0) if together else (x.shape[1], image)
    return Patches(x.buffer, x.offset, batch, tuple(pixels or [(1, 0)]), tuple(taps), phases,
                   x.shape[3] // phases * column, w.stride, lanes)  # fmt: skip


@dataclass(frozen=True)
class Product:
    """A convolution kernel as a contraction.

    Parameters
    ----------
    lanes : whether pixels are columns of the array.
    least : cycles below which it does not get.
    """

    kernel: Kernel
    lanes: bool
    least: float


def products(config: ChipConfig, kernel: Kernel) -> list[Product]:
    """A convolution kernel as contractions, the most promising first; none where it is none.

    Tiles that go on in the next image need a LOAD that counts the runs of both. The order of
    additions is that of the convolution: K is cut into its segments, if it must be.
    """
    source = kernel.source
    assert isinstance(source, Convolve)
    _, i, j, c, o = source.w.shape
    k, many, dim = i * j * c, source.x.shape[1], config.dim
    results = prod(a.out for a in source.axes)
    weights = source.w.reshape((1, k, o))
    alone = source.w.shape[0] == 1 and not kernel.epilogue.pool
    if not alone or not all(map(_is_whole, source.axes)) or weights is None:
        return []
    image = Image(source, dim)
    flat = source.x.dtype not in FLOATS or image.segments == 1 or image.depth % dim == 0
    found = []
    for segment in sorted({0 if flat else image.depth, image.depth % k}):
        for lanes in (False, True)[: 1 + (source.phases == 1 and not segment)]:
            together = not lanes or many == 1 or 2 * results <= MAX_COUNT
            w = weights if together else weights.broadcast((many, k, o), (0, 1, 2))
            patches = _patches(source, together, lanes)
            product = replace(kernel, source=Contract(patches, w, source.passes, segment))
            p = problem(product)
            least = floor(config, p.transposed if lanes else p)
            found.append(Product(product, lanes, least))
    return sorted(found, key=lambda x: x.least)


def beside(config: ChipConfig, pad: Staged | None) -> ChipConfig:
    """The chip without the bank through which an image is copied."""
    return share(config, BANKS, BANKS - 1) if pad else config
