"""How a convolution runs by default: by taps that share its image, or as a product of its patches.

Both are searched (`refine_conv`, `refine`), the one that could cost least first; the other one only
if it could cost less than what was found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, prod

from tilewright.compiler.image import Image
from tilewright.compiler.kernels import Convolve, Kernel, Pad
from tilewright.compiler.patch_copies import PatchCopies
from tilewright.compiler.patch_product import Product, beside, products
from tilewright.compiler.refine import refined
from tilewright.compiler.refine_conv import refined_conv
from tilewright.compiler.schedule import Schedule, ScheduleError
from tilewright.compiler.schedule_conv import ConvPlan, ConvSchedule
from tilewright.compiler.schedule_conv_cost import array_cycles
from tilewright.compiler.tile_conv import Staged, planned
from tilewright.isa.config import ChipConfig

HOPELESS = 1.15  # times the best cycles known, by estimate: no search
ENOUGH = 1.002  # times the least cycles that there can be: what is known is as good
_chosen: dict[object, tuple[int, ConvSchedule | Schedule]] = {}


@dataclass(frozen=True)
class Planned:
    """A product with a schedule; `copies` makes the image's copy, anew for each trial."""

    product: Product
    schedule: Schedule
    copies: Callable[[], PatchCopies | None]


def planned_product(
    config: ChipConfig, kernel: Kernel, pad: Staged | None, s: Schedule, number: int = 0
) -> Planned:
    """The product that a schedule fits.

    Parameters
    ----------
    number : among those of the schedule's orientation.

    Raises
    ------
    ScheduleError
        There is none.
    """
    found = [x for x in products(beside(config, pad), kernel) if x.lanes == s.swap]
    if number >= len(found):
        raise ScheduleError(
            f"{kernel.name}: {s} needs patches as {'weights' if s.swap else 'activations'}, which "
            f"{kernel.source} does not have; take a ConvSchedule"
        )
    return Planned(found[number], s, _copies(config, kernel, pad))


def _copies(
    config: ChipConfig, kernel: Kernel, pad: Staged | None
) -> Callable[[], PatchCopies | None]:
    conv = kernel.source
    assert isinstance(conv, Convolve)
    return lambda: PatchCopies(config, pad, conv) if pad else None


def choose_conv(
    config: ChipConfig, kernel: Kernel, pad: Staged | None = None
) -> ConvPlan | Planned:
    """The way and the schedule that a kernel gets by default, remembered for kernels like it.

    Parameters
    ----------
    pad : makes the convolution's image.

    Raises
    ------
    ScheduleError
        None fits.
    """
    conv, e = kernel.source, kernel.epilogue
    assert isinstance(conv, Convolve)
    views = tuple((v.shape, v.strides, str(v.dtype)) for v in (conv.x, conv.w))
    how = conv.axes, conv.packing, conv.phases, conv.passes
    read = pad[1].source.x if pad is not None and isinstance(pad[1].source, Pad) else conv.x
    made = "temp" in (read.buffer.kind, conv.w.buffer.kind)
    key: object = (config, views, how, len(e.vectors), str(e.out), e.pool, made)
    if pad is not None and isinstance(pad[1].source, Pad):
        source = pad[1].source
        key = (key, source.x.shape, source.x.strides, source.start, source.step, source.phases)
    if key not in _chosen:
        _chosen[key] = _best(config, kernel, pad, made)
    number, schedule = _chosen[key]
    if isinstance(schedule, Schedule):
        return planned_product(config, kernel, pad, schedule, number)
    return planned(config, kernel, schedule)


def _best(
    config: ChipConfig, kernel: Kernel, pad: Staged | None, made: bool
) -> tuple[int, ConvSchedule | Schedule]:
    """The best schedule, and of products the number among those of its orientation."""
    conv, left = kernel.source, beside(config, pad)
    assert isinstance(conv, Convolve)
    array = array_cycles(Image(conv, config.dim), prod(a.out for a in conv.axes))
    ways: list[tuple[float, int, Product | None]] = [(array, 0, None)]
    for lanes in (False, True):
        found = [x for x in products(left, kernel) if x.lanes == lanes]
        ways += [(x.least, n, x) for n, x in enumerate(found)]
    best: tuple[float, int, ConvSchedule | Schedule] | None = None
    refused: list[ScheduleError] = []
    fitted = set()  # orientations of products for which there is a schedule
    for least, number, product in sorted(ways, key=lambda way: way[:2]):
        most = best[0] if best else inf
        if most <= least * ENOUGH or (product and product.lanes in fitted):
            continue
        try:
            cycles, schedule = _refined(config, kernel, pad, made, product, most * HOPELESS)
        except ScheduleError as error:
            refused.append(error)
            continue
        fitted |= {product.lanes} if product else set()
        if cycles < most:
            best = cycles, number, schedule
    if best is None:
        raise refused[0]
    return best[1:]


def _refined(
    config: ChipConfig, kernel: Kernel, pad: Staged | None, made: bool, product: Product | None,
    most: float,
) -> tuple[float, ConvSchedule | Schedule]:  # fmt: skip
    """Cycles and schedule of a product, or of the convolution by taps."""
    if product is None:
        cycles, plan = refined_conv(config, kernel, pad, made, most)
        return cycles, plan.schedule
    return refined(beside(config, pad), product.kernel, _copies(config, kernel, pad), most)
