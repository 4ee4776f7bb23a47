"""All kernels of a program as one synchronised tile program: a schedule and a tiler for each.

Waits and signals are derived over the whole program, so that a kernel boundary is no barrier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from tilewright.compiler.kernels import (
    Contract,
    Convolve,
    Down,
    Join,
    KernelProgram,
    KernelSource,
    Lanes,
    Map,
    Pad,
    Pool,
    View,
    operands_of,
)
from tilewright.compiler.refine import choose
from tilewright.compiler.refine_conv import choose_conv
from tilewright.compiler.schedule import A_BANKS, Schedule, ScheduleError
from tilewright.compiler.schedule_conv import ConvSchedule
from tilewright.compiler.sync import synchronise
from tilewright.compiler.tile_contract import tile_contract
from tilewright.compiler.tile_conv import Staged, planned, tile_conv
from tilewright.compiler.tile_down import tile_down
from tilewright.compiler.tile_map import tile_map, tile_move
from tilewright.compiler.tile_pad import tile_join, tile_pad
from tilewright.compiler.tile_pool import tile_pool
from tilewright.compiler.tile_vector import tile_vector
from tilewright.compiler.tiles import Op, Plan, TileProgram
from tilewright.compiler.weave import Group, groups
from tilewright.isa.config import ChipConfig

Schedules = Mapping[int, Schedule | ConvSchedule]  # by kernel number
S = TypeVar("S", Schedule, ConvSchedule)


def _given(schedules: Schedules | None, number: int, kind: type[S]) -> S | None:
    """The schedule that was given for a kernel, if it is one of its kind."""
    found = (schedules or {}).get(number)
    if found is None or isinstance(found, kind):
        return found
    raise ScheduleError(f"kernel {number}: its schedule must be a {kind.__name__}, not {found!r}")


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
) -> TileProgram:
    """Tile every kernel and derive all waits and signals.

    Parameters
    ----------
    schedules : by kernel number, for contractions and convolutions; the others get the default one.
    """
    plan = Plan(config, A_BANKS)
    pads = _staged(kernels)
    ops: list[Op] = []
    texts: list[str] = []
    half = 0
    grouped: dict[int, Group] = {}
    for group in [] if schedules else groups(config, kernels.kernels):
        grouped |= dict.fromkeys(group.texts, group)
    for number, kernel in enumerate(kernels.kernels):
        if number in grouped:
            group = grouped[number]
            more = list(group.ops) if number == group.at else []
            texts.append(group.texts[number])
        elif isinstance(kernel.source, Contract):
            schedule = _given(schedules, number, Schedule) or choose(config, kernel)
            more, half = tile_contract(plan, kernel, number, schedule, half)
            texts.append(str(schedule))
        elif isinstance(kernel.source, Convolve):
            given = _given(schedules, number, ConvSchedule)
            pad = pads.get(number)
            sizes = planned(config, kernel, given) if given else choose_conv(config, kernel, pad)
            more, half = tile_conv(plan, kernel, number, sizes, half, pad)
            texts.append(str(sizes.schedule))
        elif isinstance(kernel.source, Pool):
            more = tile_pool(plan, kernel, number)
            texts.append("windows on the way out")
        elif isinstance(kernel.source, Pad) and any(n == number for n, _ in pads.values()):
            more = []
            texts.append("rows ahead of the convolution's tiles")
        elif isinstance(kernel.source, Pad):
            more = tile_pad(plan, kernel, number)
            texts.append("rows through the scratchpad")
        elif isinstance(kernel.source, Join):
            more = tile_join(plan, kernel, number)
            texts.append("rows through the scratchpad")
        elif isinstance(kernel.source, Down):
            more, text = tile_down(plan, kernel, number)
            texts.append(text)
        elif isinstance(kernel.source, Lanes):
            more, text = tile_vector(plan, kernel, number)
            texts.append(text)
        elif isinstance(kernel.source, Map):
            more, half = tile_map(plan, kernel, number, half)
            texts.append("rows through a half")
        else:
            more = tile_move(plan, kernel, number)
            texts.append("pieces through the scratchpad")
        ops += more
    synchronise(ops, config)
    return TileProgram(kernels.kernels, tuple(ops), tuple(texts))
