"""The default schedule of a convolution: the formula's best candidates, timed exactly; then their
changes, and the start by its first tiles alone.

As in `refine`, the effort is bounded by the operations that are timed, so the choice is
deterministic; where the first candidate is too long already, only its start is tuned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tilewright.compiler.kernels import Kernel
from tilewright.compiler.refine import TRIAL, exact_cycles
from tilewright.compiler.schedule import A_BANKS, ScheduleError, ceil_div
from tilewright.compiler.schedule_conv import PARTS, ConvPlan, ConvSchedule
from tilewright.compiler.schedule_conv_cost import cost, floor
from tilewright.compiler.sync import synchronise
from tilewright.compiler.tile_conv import Staged, conv_plans, tile_conv
from tilewright.compiler.tiles import Plan
from tilewright.isa.config import ChipConfig

BUDGET = 7000  # operations that are timed for one kernel, about 30 us each
BASES = 16  # candidates of the formula that are timed, if they are short
STAGED = 4  # of them whose image is also copied by the columns of tiles
#: Candidates that are changed while that helps, best first; whether their start is tuned, too.
STARTS = ((0, True), (0, False), (1, True))
BANDS = (2, 4)  # in which the first tile is tried
FIRST = 2  # tiles by which the start is judged
GOOD = 1.001  # of the least cycles that there can be: the search stops


def _moves(plan: ConvPlan) -> Iterator[ConvSchedule]:
    """Schedules that differ in one respect, those with another start or end first."""
    s = plan.schedule
    if s.images == 1:
        for rows in (ceil_div(s.rows, 4), 1, ceil_div(s.rows, 2), ceil_div(s.rows, 8), 0):
            if rows < s.rows:
                yield replace(s, head=rows)
                yield replace(s, tail=rows)
    plain = replace(s, head=0, tail=0, band=0)
    yield from (replace(s, parts=parts) for parts in PARTS)
    if plan.copied:
        for stage in (0, 1, 2):
            banks = s.a_banks + (s.stage > 0) - (stage > 0)
            yield replace(s, stage=stage, a_banks=max(1, banks))
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
    for rows, cols in ((ceil_div(s.rows, 2), 2 * s.cols), (2 * s.rows, ceil_div(s.cols, 2))):
        if s.images == 1:
            yield replace(plain, rows=min(rows, h), cols=min(cols, w))
    for kt in (2 * s.kt, ceil_div(s.kt, 2)):
        kt = min(kt, plan.image.total)
        yield replace(plain, kt=kt, first_k=min(s.first_k, kt))
    for nt in (2 * s.nt, ceil_div(ceil_div(s.nt, d), 2) * d):
        yield replace(plain, nt=min(nt, plan.image.conv.w.shape[4]))


def _bands(plan: ConvPlan) -> list[int]:
    """Heights of bands of the first tile that fill the array's passes."""
    _, _, (r0, r1), (c0, c1), _ = plan.tiles[0]
    height, width = plan.sums(r1 - r0, c1 - c0)
    bands = [ceil_div(height, n) for n in BANDS if height * width >= n * plan.config.dim]
    return [n for n in bands if n < height]


@dataclass
class _Search:
    """What may still be timed, in operations."""

    config: ChipConfig
    kernel: Kernel
    pad: Staged | None
    left: int
    seen: set[ConvSchedule] = field(default_factory=set)
    firsts: dict[ConvSchedule, int] = field(default_factory=dict)  # cycles of the first tiles

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
        return self._time(plan)

    def _time(self, plan: ConvPlan, count: int | None = None) -> int:
        """Cycles of all its tiles, or of the first ones."""
        ops, _ = tile_conv(Plan(self.config, A_BANKS), self.kernel, 0, plan, 0, self.pad, count)
        synchronise(ops, self.config)
        return exact_cycles(self.config, ops)

    def started(self, plan: ConvPlan) -> ConvPlan:
        """The plan with the `first_k`, `stage` and `band` that are best for its first tiles."""
        s, blocks = plan.schedule, plan.image.blocks
        ks = s.first_k, 0, 1, 2, ceil_div(blocks, 2), blocks, ceil_div(s.kt, 4), s.kt
        plan = self._first(plan, "first_k", [k for k in ks if k <= s.kt])
        if s.stage:
            plan = self._first(plan, "stage", [s.stage, 1, 2])
        if plan.schedule.first_k and s.images == 1:
            plan = self._first(plan, "band", [s.band, 0, *_bands(plan)])
        return plan

    def _first(self, plan: ConvPlan, name: str, values: list[int]) -> ConvPlan:
        """The plan with that value of a field which is best for its first tiles."""
        found = []
        for value in dict.fromkeys(values):
            changed: dict[str, Any] = {name: value}
            if changed == {"first_k": 0}:
                changed["band"] = 0
            other = replace(plan, schedule=replace(plan.schedule, **changed))
            if other.schedule not in self.firsts:
                self.firsts[other.schedule] = self._time(other, FIRST)
                self.left -= TRIAL + plan.operations * FIRST // max(FIRST, len(plan.tiles))
            found.append((self.firsts[other.schedule], value, other))
        return min(found, key=lambda trial: trial[:2])[2]

    def climb(self, best: ConvPlan, price: int, enough: float, tuned: bool) -> tuple[int, ConvPlan]:
        """Change one thing after another while that helps; `tuned`: each time its start first."""
        better = True
        while better and price > enough:
            better = False
            if tuned:
                best, price = self._better(best, price, self.started(best))
            for s in _moves(best):
                plan = replace(best, schedule=s)
                cycles = self.cycles(plan)
                if cycles is not None and cycles < price:
                    best, price, better = plan, cycles, True
                    break
        return price, best

    def finish(self, price: int, best: ConvPlan) -> tuple[int, ConvPlan]:
        """The best one with its best start."""
        plan, cycles = self._better(best, price, self.started(best))
        return cycles, plan

    def _better(self, best: ConvPlan, price: int, other: ConvPlan) -> tuple[ConvPlan, int]:
        """The other one if it is faster; it is timed in any case."""
        if other.schedule == best.schedule:
            return best, price
        self.seen.add(other.schedule)
        self.left -= other.operations + TRIAL
        cycles = self._time(other)
        return (other, cycles) if cycles < price else (best, price)


def refined_conv(
    config: ChipConfig, kernel: Kernel, pad: Staged | None, made: bool, most: float
) -> tuple[float, ConvPlan]:
    """The best plan found and its cycles, which are an estimate if it is too long to time.

    Parameters
    ----------
    pad : makes the convolution's image.
    made : whether an operand is made by other kernels, so that it starts beside them.
    most : estimated cycles above which it is not searched.

    Raises
    ------
    ScheduleError
        None fits.
    """
    plans = conv_plans(config, kernel, BASES, pad)
    if cost(plans[0]) > most:
        return cost(plans[0]), plans[0]
    search = _Search(config, kernel, pad, BUDGET)
    first = search.cycles(plans[0])
    if first is None:
        return cost(plans[0]), plans[0] if made else search.started(plans[0])
    enough = GOOD * floor(plans[0])
    kept = 2 * search.left // 3  # for changes of the best ones
    search.left -= kept
    found = [(first, 0, plans[0])]
    for number, plan in enumerate(plans[1:], 1):
        cycles = search.cycles(plan) if min(c for c, *_ in found) > enough else None
        if cycles is not None:
            found.append((cycles, number, plan))
    search.left += kept
    for _, number, plan in sorted(found, key=lambda trial: trial[:2])[:STAGED]:
        if plan.schedule.stage:
            other = replace(plan, schedule=replace(plan.schedule, stage=2))
            cycles = search.cycles(other)
            found += [(cycles, number, other)] if cycles is not None else []
    found.sort(key=lambda trial: trial[:2])
    ends = []
    for at, tuned in STARTS:
        cycles, _, plan = found[min(at, len(found) - 1)]
        spare = 0 if (at, tuned) == STARTS[-1] else search.left // 4  # for the others
        search.left -= spare
        ends.append(search.climb(plan, cycles, enough, tuned and not made))
        search.left += spare
        if ends[-1][0] <= enough:
            break
    price, best = min(ends, key=lambda end: end[0])
    return (price, best) if made else search.finish(price, best)
