"""The default schedule: the cheapest by the cost formula, changed by a model, timed exactly.

The formula's first candidates, some that are drawn, and changes of the best ones in one field after
another are priced by the model of `schedule_model`; the cheapest of all are tiled and timed by the
cycle engine's model without data. The effort is bounded by the number of operations that are
modelled and timed, not by a clock, and what is drawn is always the same, so the choice is
deterministic; a program too long for it keeps what the model, or the formula, says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from random import Random
from types import SimpleNamespace

from tilewright.compiler.dispatch import duration
from tilewright.compiler.kernels import Kernel
from tilewright.compiler.patch_copies import PatchCopies
from tilewright.compiler.schedule import A_BANKS, Problem, Schedule, ScheduleError
from tilewright.compiler.schedule_check import check
from tilewright.compiler.schedule_cost import cost, floor, ranked
from tilewright.compiler.schedule_model import BESIDE, model, work
from tilewright.compiler.schedule_moves import SHAPES, moves, sample, shaped
from tilewright.compiler.share import whole, works_beside
from tilewright.compiler.sync import synchronise
from tilewright.compiler.tile_contract import problem, tile_contract
from tilewright.compiler.tiles import Op, Plan
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import INSTRUCTIONS, Unit
from tilewright.sim.timing import simulate

BUDGET = 600  # operations that are timed for one kernel, about 45 us each
CLIMBED = 600  # more of them, to change the best of those
TRIAL = 5  # what a trial costs besides, in operations
MODELLED = 18000  # operations that are modelled for one kernel, about 5 us each
SAMPLED = 0.5  # of that is left after samples
STEP = 20  # what a model costs besides, in operations
BASES = 12  # candidates of the formula that are modelled
STARTS = 3  # of them are changed while that helps
FINAL = 60  # candidates of the model that are timed
GOOD = 1.003  # of the least cycles that there can be: the search stops
FEWER = 2  # banks of activations beside patches, for some of the candidates
PATCHED = 8  # times the operations, where they load patches
Copies = Callable[[], PatchCopies | None]
_chosen: dict[tuple[ChipConfig, Problem], Schedule] = {}


def no_copies() -> None:
    """What makes the image of operands that are none."""


def exact_cycles(config: ChipConfig, ops: list[Op]) -> int:
    """Cycles of synchronised operations and a halt, each buffer at a multiple of 64 bytes."""
    records = []
    for number, op in enumerate(ops):
        values = op.values | op.sync
        if op.address:
            values[op.address] = op.offset
        instr = SimpleNamespace(spec=INSTRUCTIONS[op.name], regs=())
        records.append(
            SimpleNamespace(known=None, instr=instr, values=values, id=number, pc=number)
        )
    halt = SimpleNamespace(spec=INSTRUCTIONS["halt"], regs=())
    end = len(ops)
    records.append(SimpleNamespace(known=None, instr=halt, values={}, id=end, pc=end))
    return simulate(whole(config), records).cycles


@dataclass
class _Search:
    """The best schedule so far; `left` is what may still be timed."""

    config: ChipConfig
    kernel: Kernel
    left: int
    copies: Copies = no_copies

    def __post_init__(self) -> None:
        self.seen: dict[Schedule, int | None] = {}

    def cycles(self, s: Schedule) -> int | None:
        """Exact cycles; None if it does not fit, or not into what is left."""
        if s in self.seen:
            return self.seen[s]
        self.seen[s] = None
        if work(self.config, problem(self.kernel), s) > self.left:
            return None
        self.left -= TRIAL
        try:
            plan = Plan(self.config, A_BANKS)
            ops, _ = tile_contract(plan, self.kernel, 0, s, 0, self.copies())
        except ScheduleError:
            return None
        if len(ops) > self.left:
            return None
        self.left -= len(ops)
        beside = 0
        if works_beside(self.config):  # whose other kernel uses the bus, too
            loads = sum(duration(self.config, op) for op in ops if op.unit == Unit.LOAD)
            beside = int(BESIDE * loads)
        synchronise(ops, self.config)
        self.seen[s] = exact_cycles(self.config, ops) + beside
        return self.seen[s]

    def climb(self, s: Schedule) -> Schedule:
        """Change one field after another while that helps."""
        p, best = problem(self.kernel), self.cycles(s)
        assert best is not None
        better = True
        while better:
            better = False
            for changed in moves(self.config, p, s):
                cycles = self.cycles(changed)
                if cycles is not None and cycles < best:
                    s, best, better = changed, cycles, True
                    break
        return s


class _Model:
    """Modelled cycles of schedules; `left` is what may still be modelled."""

    def __init__(self, config: ChipConfig, p: Problem, left: int):
        self.config, self.p, self.left = config, p, left
        self.seen: dict[Schedule, float] = {}
        self.least = inf

    def cycles(self, s: Schedule) -> float:
        """Infinite if it does not fit, or not into what is left."""
        if s not in self.seen:
            self.seen[s], before = inf, self.left
            try:
                check(self.config, self.p, s)
                effort = STEP + work(self.config, self.p, s)
                if effort <= self.left:
                    self.left -= effort
                    self.seen[s] = model(self.config, self.p, s)
                    self.least = min(self.least, self.seen[s])
            except ScheduleError:
                self.left = before - STEP // 4
        return self.seen[s]

    def climb(self, s: Schedule, left: int) -> Schedule:
        """Change one field after another while that helps, with at most that effort."""
        end = max(self.left - left, 0)
        better = True
        while better and self.left > end:
            better = False
            for changed in moves(self.config, self.p, s):
                if self.cycles(changed) < self.cycles(s):
                    s, better = changed, True
                    break
                if self.left <= end:
                    break
        return s

    def best(self, count: int) -> list[Schedule]:
        """The cheapest, cheapest first; of those with one price the first."""
        found: dict[float, Schedule] = {}
        for s, cycles in self.seen.items():
            if cycles < inf:
                found.setdefault(cycles, s)
        return [found[c] for c in sorted(found)[:count]]


def refined(
    config: ChipConfig, kernel: Kernel, copies: Copies = no_copies, most: float = inf
) -> tuple[float, Schedule]:
    """The schedule that a kernel gets by default, and its cycles, an estimate if it is long.

    Parameters
    ----------
    copies : for each trial, what makes the image of patches.
    most : estimated cycles above which it is not searched.

    Raises
    ------
    ScheduleError
        None is known to fit; of operands that are no patches there is always one.
    """
    staged = copies()
    p = replace(problem(kernel), copy=staged.price() if staged else None)
    bases = ranked(config, p, BASES)
    if not bases:
        raise ScheduleError(f"{kernel.name}: not even one row of patches and one block fit")
    first = cost(config, p, bases[0])
    if first > most:
        return first, bases[0]
    more = PATCHED if p.a.taps else 1
    modelled = _Model(config, p, MODELLED * (1 + (more > 1)))
    for shape in SHAPES:
        for base in bases:
            modelled.cycles(shaped(config, base, shape))
            if more > 1:  # patches as weights want room, so that all stay for a tail
                modelled.cycles(shaped(config, replace(base, a_banks=FEWER), shape))
    enough = GOOD * floor(config, p.oriented(bases[0]))
    rng = Random(0)
    for _ in range(MODELLED // STEP):
        if modelled.left < MODELLED * SAMPLED or modelled.least <= enough:
            break
        modelled.cycles(sample(config, p.oriented(bases[0]), bases[0].swap, rng))
    starts: dict[tuple[int, ...], Schedule] = {}
    for s in modelled.best(FINAL):
        starts.setdefault((s.mt, s.nt, s.kt, s.ka), s)
    for n, s in enumerate(list(starts.values())[: STARTS * (modelled.least > enough)]):
        modelled.climb(s, modelled.left // (STARTS - n))
    search = _Search(config, kernel, BUDGET * more, copies)
    timed = [(c, s) for s in modelled.best(FINAL) if (c := search.cycles(s)) is not None]
    if timed:
        search.left += CLIMBED * more
        best = search.climb(min(timed, key=lambda pair: pair[0])[1])
        cycles = search.seen[best]
        assert cycles is not None
        return cycles, best
    best = next(iter(modelled.best(1)), bases[0])
    return modelled.seen.get(best, inf), best


def shaped_cycles(config: ChipConfig, kernel: Kernel, s: Schedule) -> int:
    """Exact cycles of a candidate of the formula, with a head and a tail where that is best."""
    search = _Search(config, kernel, 1 << 60)
    found = [search.cycles(shaped(config, s, x)) for x in SHAPES]
    return min(c for c in found if c is not None)


def choose(config: ChipConfig, kernel: Kernel) -> Schedule:
    """The default schedule of a contraction kernel, remembered for kernels like it."""
    key = (config, problem(kernel))
    if key not in _chosen:
        _, _chosen[key] = refined(config, kernel)
    return _chosen[key]
