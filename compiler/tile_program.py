"""All kernels of a program as one synchronised tile program: a schedule and a tiler for each.

Waits and signals are derived over the whole program, so that a kernel boundary is no barrier.
"""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.compiler.choose_conv import Planned, choose_conv, planned_product
from tilewright.compiler.kernels import (
    Accumulate,
    Contract,
    Control,
    Convolve,
    Down,
    Gather,
    Join,
    Kernel,
    KernelProgram,
    KernelSource,
    Lanes,
    Map,
    Move,
    Pad,
    Pool,
    Row,
    Scatter,
    Slide,
    Update,
    View,
    operands_of,
)
from tilewright.compiler.patch_product import beside
from tilewright.compiler.refine import choose
from tilewright.compiler.reuse import Temps, shared
from tilewright.compiler.schedule import A_BANKS, Schedule, ScheduleError
from tilewright.compiler.schedule_conv import ConvPlan, ConvSchedule
from tilewright.compiler.sync import synchronise
from tilewright.compiler.tile_contract import tile_contract
from tilewright.compiler.tile_control import Controller, count_of, tile_row
from tilewright.compiler.tile_conv import Staged, planned, tile_conv
from tilewright.compiler.tile_down import tile_down
from tilewright.compiler.tile_dynamic import tile_slide, tile_update
from tilewright.compiler.tile_map import tile_map, tile_move
from tilewright.compiler.tile_pad import tile_join, tile_pad
from tilewright.compiler.tile_pool import tile_pool
from tilewright.compiler.tile_rows import tile_accumulate, tile_gather, tile_scatter
from tilewright.compiler.tile_vector import tile_vector
from tilewright.compiler.tiles import Op, Plan, TileProgram
from tilewright.compiler.weave import Group, groups
from tilewright.isa.config import ChipConfig

Schedules = Mapping[int, Schedule | ConvSchedule]  # by kernel number


def _given(schedules: Schedules | None, number: int) -> Schedule | None:
    """The schedule that was given for a contraction."""
    found = (schedules or {}).get(number)
    if isinstance(found, ConvSchedule):
        raise ScheduleError(f"kernel {number}: its schedule must be a Schedule, not {found!r}")
    return found


def _is_known(source: KernelSource) -> bool:
    """Whether it pads with a number."""
    return isinstance(source, Pad) and not isinstance(source.value, View)


def _staged(kernels: KernelProgram) -> dict[int, Staged]:
    """By number of a convolution, the pad kernel whose result only this convolution reads."""
    found: dict[int, Staged] = {}
    for at, pad in enumerate(kernels.kernels):
        readers = [
            n for n, k in enumerate(kernels.kernels)
            if any(v.buffer is pad.out for v in operands_of(k))
        ]  # fmt: skip
        if not _is_known(pad.source) or len(readers) != 1 or pad.out in kernels.outputs:
            continue
        source = kernels.kernels[readers[0]].source
        if not isinstance(source, Convolve) or source.w.buffer is pad.out:
            continue
        if source.packing and source.x.buffer is pad.out and len(pad.out.shape) == 4:
            found[readers[0]] = at, pad
    return found


def tile(
    config: ChipConfig, kernels: KernelProgram, schedules: Schedules | None = None
) -> tuple[TileProgram, Temps]:
    """Tile every kernel, place all temporaries, and derive all waits and signals.

    Parameters
    ----------
    schedules : by kernel number, for contractions and convolutions; the others get the default one.
    """
    tiler = _Tiler(config)
    ops = tiler.program(kernels, schedules)
    temps = shared(ops, kernels.outputs)
    synchronise(ops, config, temps.before)
    return TileProgram(kernels.all, tuple(ops), tuple(tiler.texts)), temps


class _Tiler:
    """The operations of kernels, and their schedules as text, in the order of their numbers."""

    def __init__(self, config: ChipConfig):
        self.config, self.plan = config, Plan(config, A_BANKS)
        self.texts: list[str] = []
        self.half = 0
        self.control = Controller(self.plan, self.inside)

    def program(self, kernels: KernelProgram, schedules: Schedules | None) -> list[Op]:
        """All operations."""
        simple = not any(isinstance(k.source, Control) for k in kernels.kernels)
        pads = _staged(kernels) if simple else {}
        grouped: dict[int, Group] = {}
        for group in groups(self.config, kernels.kernels) if simple and not schedules else []:
            grouped |= dict.fromkeys(group.texts, group)
        ops: list[Op] = []
        number = 0
        for place, kernel in enumerate(kernels.kernels):
            if place in grouped:
                group = grouped[place]
                ops += group.ops if place == group.at else []
                self.texts.append(group.texts[place])
            elif place in pads:
                ops += self.convolution(kernel, number, schedules, pads[place])
            elif any(n == place for n, _ in pads.values()):
                self.texts.append("rows ahead of the convolution's tiles")
            else:
                ops += self.kernel(kernel, number, 0, schedules)
            number += count_of((kernel,))
        return ops

    def inside(self, kernels: tuple[Kernel, ...], number: int, depth: int) -> list[Op]:
        """All operations of kernels within another one."""
        ops: list[Op] = []
        for kernel in kernels:
            ops += self.kernel(kernel, number, depth, None)
            number += count_of((kernel,))
        return ops

    def kernel(
        self, kernel: Kernel, number: int, depth: int, schedules: Schedules | None
    ) -> list[Op]:
        """All operations of one kernel."""
        plan, source = self.plan, kernel.source
        if isinstance(source, Contract):
            schedule = _given(schedules, number) or choose(self.config, kernel)
            ops, self.half = tile_contract(plan, kernel, number, schedule, self.half)
            self.texts.append(str(schedule))
        elif isinstance(source, Convolve):
            ops = self.convolution(kernel, number, schedules, None)
        elif isinstance(source, Down | Lanes):
            ops, text = (tile_down if isinstance(source, Down) else tile_vector)(
                plan, kernel, number
            )
            self.texts.append(text)
        elif isinstance(source, Map):
            ops, self.half = tile_map(plan, kernel, number, self.half)
            self.texts.append("rows through a half")
        elif isinstance(source, Control):
            self.texts.append("one kernel after the other")
            ops = self.control.ops(kernel, number, depth)
        elif isinstance(source, Row):
            self.texts.append("pieces through the scratchpad")
            ops = tile_row(plan, kernel, number, depth)
        else:
            make, text = SIMPLE[type(source)]
            self.texts.append(text)
            ops = make(plan, kernel, number)
        return ops

    def convolution(
        self, kernel: Kernel, number: int, schedules: Schedules | None, pad: Staged | None
    ) -> list[Op]:
        """All operations of a convolution, and of the kernel that pads its image."""
        given = (schedules or {}).get(number)
        sizes: ConvPlan | Planned
        if given is None:
            sizes = choose_conv(self.config, kernel, pad)
        elif isinstance(given, Schedule):
            sizes = planned_product(self.config, kernel, pad, given)
        else:
            sizes = planned(self.config, kernel, given)
        if isinstance(sizes, Planned):
            plan = Plan(beside(self.config, pad), A_BANKS)
            ops, self.half = tile_contract(plan, sizes.product.kernel, number, sizes.schedule,
                                           self.half, sizes.copies())  # fmt: skip
        else:
            ops, self.half = tile_conv(self.plan, kernel, number, sizes, self.half, pad)
        self.texts.append(str(sizes.schedule))
        return ops


#: How a kernel is tiled that needs no schedule, and what is said of it.
SIMPLE = {
    Pool: (tile_pool, "windows on the way out"),
    Pad: (tile_pad, "rows through the scratchpad"),
    Join: (tile_join, "rows through the scratchpad"),
    Move: (tile_move, "pieces through the scratchpad"),
    Slide: (tile_slide, "rows through the scratchpad"),
    Gather: (tile_gather, "rows by numbers in the scratchpad"),
    Scatter: (tile_scatter, "rows by numbers in the scratchpad"),
    Accumulate: (tile_accumulate, "row after row by numbers in the scratchpad"),
    Update: (tile_update, "rows through the scratchpad"),
}
