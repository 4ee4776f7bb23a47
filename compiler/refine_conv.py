"""The default schedule of a convolution: the formula's best candidates, timed exactly; then its
start and end.

As in `refine`, the effort is bounded by the operations that are timed, so the choice is
deterministic; where the first candidate is too long already, it is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tilewright.compiler.kernels import Convolve, Kernel, Pad
from tilewright.compiler.refine import TRIAL, exact_cycles
from tilewright.compiler.schedule import A_BANKS, ScheduleError, ceil_div
from tilewright.compiler.schedule_conv import PARTS, ConvPlan, ConvSchedule
from tilewright.compiler.schedule_conv_cost import floor
from tilewright.compiler.sync import synchronise
from tilewright.compiler.tile_conv import Staged, conv_plans, planned, tile_conv
from tilewright.compiler.tiles import Plan
from tilewright.isa.config import ChipConfig

BUDGET = 6000  # operations that are timed for one kernel, about 30 us each
BASES = 16  # candidates of the formula that are timed, if they are short
GOOD = 1.001  # of the least cycles that there can be: the search stops
_chosen: dict[object, ConvSchedule] = {}


def _moves(plan: ConvPlan) -> Iterator[ConvSchedule]:
    """Schedules that differ in one respect, those with another start or end first."""
    s = plan.schedule
    if s.images == 1:
        for rows in (ceil_div(s.rows, 4), 1, ceil_div(s.rows, 2), ceil_div(s.rows, 8), 0):
            if rows < s.rows:
                yield replace(s, head=rows)
                yield replace(s, tail=rows)
    for blocks in (0, 1, ceil_div(s.kt, 8), ceil_div(s.kt, 3)):
        if blocks < s.kt:
            yield replace(s, first_k=blocks)
    plain = replace(s, head=0, tail=0, first_k=0)
    yield from (replace(s, parts=parts) for parts in PARTS)
    if plan.copied:
        yield replace(s, stage=1 - s.stage, a_banks=max(1, s.a_banks - 1 + 2 * s.stage))
    yield replace(s, order="ns" if s.order == "sn" else "sn")
    yield from (replace(s, a_banks=banks) for banks in (s.a_banks - 1, s.a_banks + 1))
    (h, w), d = plan.outs, plan.config.dim
    for name, most in (("rows", h), ("cols", w), ("images", plan.batch)):
        size = getattr(s, name)
        for other in (2 * size, size + 1, size - 1, ceil_div(size, 2)):
            other = min(other, most)
            if other >= 1 and (name != "rows" or s.images == 1):
                changed: dict[str, Any] = {name: other}
                yield replace(plain, **changed)
    for kt in (2 * s.kt, ceil_div(s.kt, 2)):
        yield replace(plain, kt=min(kt, plan.image.total))
    for nt in (2 * s.nt, ceil_div(ceil_div(s.nt, d), 2) * d):
        yield replace(plain, nt=min(nt, plan.image.conv.w.shape[4]))


@dataclass
class _Search:
    """What may still be timed, in operations."""

    config: ChipConfig
    kernel: Kernel
    pad: Staged | None
    left: int
    seen: set[ConvSchedule] = field(default_factory=set)

    def cycles(self, plan: ConvPlan) -> int | None:
        """Exact cycles; None if it is known, does not fit, or is too long for what is left."""
        if plan.schedule in self.seen or plan.operations + TRIAL > self.left:
            return None
        self.seen.add(plan.schedule)
        self.left -= plan.operations + TRIAL
        try:
            plan.check()
        except ScheduleError:
            return None
        ops, _ = tile_conv(Plan(self.config, A_BANKS), self.kernel, 0, plan, 0, self.pad)
        synchronise(ops, self.config)
        return exact_cycles(self.config, ops)


def choose_conv(config: ChipConfig, kernel: Kernel, pad: Staged | None = None) -> ConvPlan:
    """The schedule that a kernel gets by default, remembered for kernels like it.

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
    key: object = (config, views, how, len(e.vectors), str(e.out), e.pool)
    if pad is not None and isinstance(pad[1].source, Pad):
        source = pad[1].source
        key = (key, source.x.shape, source.x.strides, source.start, source.step, source.phases)
    if key not in _chosen:
        _chosen[key] = _refined(config, kernel, pad).schedule
    return planned(config, kernel, _chosen[key])


def _refined(config: ChipConfig, kernel: Kernel, pad: Staged | None) -> ConvPlan:
    plans = conv_plans(config, kernel, BASES, pad)
    search = _Search(config, kernel, pad, BUDGET)
    best, price = plans[0], search.cycles(plans[0])
    if price is None:
        return best
    kept = 2 * search.left // 3  # for changes of the best one
    search.left -= kept
    enough = GOOD * floor(best)
    for plan in plans[1:]:
        cycles = search.cycles(plan) if price > enough else None
        if cycles is not None and cycles < price:
            best, price = plan, cycles
    search.left += kept
    better = True
    while better and price > enough:
        better = False
        for s in _moves(best):
            plan = replace(best, schedule=s)
            cycles = search.cycles(plan)
            if cycles is not None and cycles < price:
                best, price, better = plan, cycles, True
                break
    return best
