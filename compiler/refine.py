"""The default schedule: the cheapest by the cost formula, refined by exact timing without data.

A few candidates of the formula are tiled and timed by the cycle engine's model, the best one is
changed in one field after another while that helps. The effort is bounded by the number of
operations that are timed, not by a clock, so the choice is deterministic; a program too long for it
keeps what the formula says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import inf
from random import Random
from types import SimpleNamespace

from tilewright.compiler.kernels import Kernel
from tilewright.compiler.schedule import (
    A_BANKS,
    Problem,
    Schedule,
    ScheduleError,
    ceil_div,
)
from tilewright.compiler.schedule_check import (
    check,
)
from tilewright.compiler.schedule_cost import floor, ranked
from tilewright.compiler.schedule_model import model, work
from tilewright.compiler.sync import synchronise
from tilewright.compiler.tile_contract import problem, tile_contract
from tilewright.compiler.tiles import Op, Plan
from tilewright.isa.config import ChipConfig
from tilewright.isa.encoding import Instr
from tilewright.isa.table import INSTRUCTIONS
from tilewright.sim.timing import simulate

BUDGET = 800  # operations that are timed for one kernel, about 45 us each
TRIAL = 5  # what a trial costs besides, in operations
MODELLED = 9000  # operations that are modelled for one kernel, about 5 us each
SAMPLED = 0.5  # of that is left after samples
STEP = 20  # what a model costs besides, in operations
BASES = 12  # candidates of the formula that are modelled
STARTS = 3  # of them are changed while that helps
FINAL = 60  # candidates of the model that are timed
GOOD = 1.003  # of the least cycles that there can be: the search stops
_chosen: dict[tuple[ChipConfig, Problem], Schedule] = {}


@cache
def _defaults(name: str) -> dict[str, int]:
    return dict(Instr.make(name).values)


def exact_cycles(config: ChipConfig, ops: list[Op]) -> int:
    """Cycles of synchronised operations and a halt, each buffer at a multiple of 64 bytes."""
    records = []
    for number, op in enumerate(ops):
        values = _defaults(op.name) | op.fields | op.sync
        if op.address:
            values[op.address] = op.offset
        instr = SimpleNamespace(spec=INSTRUCTIONS[op.name], regs=())
        records.append(
            SimpleNamespace(known=None, instr=instr, values=values, id=number, pc=number)
        )
    halt = SimpleNamespace(spec=INSTRUCTIONS["halt"], regs=())
    end = len(ops)
    records.append(SimpleNamespace(known=None, instr=halt, values={}, id=end, pc=end))
    return simulate(config, records).cycles


@dataclass
class _Search:
    """The best schedule so far; `left` is what may still be timed."""

    config: ChipConfig
    kernel: Kernel
    left: int

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
            ops, _ = tile_contract(Plan(self.config, A_BANKS), self.kernel, 0, s, 0)
        except ScheduleError:
            return None
        if len(ops) > self.left:
            return None
        self.left -= len(ops)
        synchronise(ops, self.config)
        self.seen[s] = exact_cycles(self.config, ops)
        return self.seen[s]


#: Whether to begin with a head; to end with a tail: not, of few rows, of column groups only;
#: column blocks that are stored first.
SHAPES = ((1, 1, 0), (1, 2, 0), (1, 0, 0), (0, 0, 0), (1, 1, 1))


def _shaped(config: ChipConfig, s: Schedule, shape: tuple[int, int, int]) -> Schedule:
    """A candidate with or without head, tail and lead."""
    head, tail, lead = shape
    d = min(s.mt, config.dim)
    return replace(s, head=d * head, tail=(0, few(config, s), s.mt)[tail], lead=lead)


def few(config: ChipConfig, s: Schedule) -> int:
    """Rows of a tail that is not the whole of a tile of `dim` rows, even if it is not cut."""
    return min(s.mt - 1, config.dim - 1)


def moves(config: ChipConfig, p: Problem, s: Schedule) -> Iterator[Schedule]:
    """Schedules that differ in one respect."""
    d, p = config.dim, p.oriented(s)
    for ka in (0, p.k, 2 * s.kt, 4 * s.kt, ceil_div(ceil_div(p.k, s.kt), 2) * s.kt):
        if s.kt < ka < p.k + s.kt or not ka:
            yield replace(s, ka=min(ka, p.k))
    yield replace(s, head=0 if s.head else min(d, s.mt))
    yield replace(s, head=s.mt)
    for tail in (0, few(config, s), s.mt):
        yield replace(s, tail=tail)
    for lead in (0, 1, 2, 4):
        if lead < ceil_div(s.nt, d):
            yield replace(s, lead=lead)
    for last_n in (0, p.n % d or d, d + p.n % d, 2 * d + p.n % d, 4 * d + p.n % d):
        if last_n <= s.nt and last_n < p.n:
            yield replace(s, last_n=last_n)
    for value in (2, 4, 8):
        if value != s.parts:
            yield replace(s, parts=value)
    for value in (1, 2, 5, 7):
        yield replace(s, a_banks=value)
    for mt in (s.mt - d, s.mt + d, ceil_div(s.mt, 2), 2 * s.mt, d, s.mt // d * d):
        if 0 < mt < p.m + d:
            mt = min(mt, p.m)
            yield fitted(p, replace(s, mt=mt))
    for kt in (ceil_div(ceil_div(s.kt, d), 2) * d, 2 * s.kt, p.k, d):
        if kt < p.k + d:
            yield fitted(p, replace(s, kt=min(kt, p.k)))
    for nt in (ceil_div(ceil_div(s.nt, d), 2) * d, 2 * s.nt, s.nt - d, s.nt + d, p.n):
        if 0 < nt < p.n + d:
            yield fitted(p, replace(s, nt=min(nt, p.n)))
    for value in (d, 2 * d, 4 * d, 0):
        if value < s.kt:
            yield replace(s, first_k=value)
            yield replace(s, last_k=value)
    for value in (d // 4, d // 2, d, 2 * d, 0):
        if value < s.mt < p.m:
            yield replace(s, last_m=value)
            yield replace(s, first_m=value, head=min(s.head, value or s.mt))


def sample(config: ChipConfig, p: Problem, swap: bool, rng: Random) -> Schedule:
    """A schedule of which each field is drawn from what is usual."""
    d = config.dim

    def blocks(length: int, *parts: int) -> list[int]:
        return [min(length, ceil_div(ceil_div(length, d), x) * d) for x in parts]

    mt = rng.choice([p.m, p.m, *(min(p.m, d * x) for x in (1, 2, 4, 8)),
                     *(ceil_div(p.m, x) for x in (2, 3, 4))])  # fmt: skip
    nt = rng.choice([p.n, p.n, *(min(p.n, d * x) for x in (1, 2, 4, 8, 16)),
                     *blocks(p.n, 2, 3, 4)])  # fmt: skip
    kt = rng.choice([p.k, *(min(p.k, d * x) for x in (1, 1, 2, 4, 8)), *blocks(p.k, 2)])
    rest = p.n % d or d
    first_m = rng.choice([0, 0, d // 4, d // 2])
    last_m = rng.choice([0, 0, d // 4, d // 2, d])
    some = {
        "first_m": first_m, "last_m": last_m, "last_n": rng.choice([0, 0, rest, rest + d]),
        "head": rng.choice([0, d // 2, d, mt]), "tail": rng.choice([0, min(d, mt) - 1, mt]),
        "first_k": rng.choice([0, 0, d]), "last_k": rng.choice([0, 0, d, 2 * d]),
    }  # fmt: skip
    s = Schedule(mt, nt, kt, rng.choice(["mn", "nm"]), lead=rng.choice([0, 0, 1, 2]), swap=swap,
                 ka=rng.choice([0, p.k, 4 * kt]), a_banks=rng.choice([1, 2, 5, 7]),
                 parts=rng.choice([2, 4, 8]))  # fmt: skip
    return fitted(p, replace(s, **some))


def fitted(p: Problem, s: Schedule) -> Schedule:
    """The schedule with what its first and last tiles are cut into made to fit its sizes."""
    s = replace(
        s, first_m=min(s.first_m, s.mt) * (s.mt < p.m), last_m=min(s.last_m, s.mt) * (s.mt < p.m),
        last_n=min(s.last_n, s.nt) * (s.nt < p.n), tail=min(s.tail, s.mt),
        first_k=s.first_k * (s.first_k < s.kt), last_k=s.last_k * (s.last_k < s.kt),
        ka=s.ka * (s.kt < s.ka <= p.k and (s.ka == p.k or s.ka % s.kt == 0)),
    )  # fmt: skip
    return replace(s, head=min(s.head, s.first_m or s.mt))


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


def refine(config: ChipConfig, kernel: Kernel) -> Schedule:
    """The schedule that a kernel gets by default."""
    p = problem(kernel)
    bases = ranked(config, p, BASES)
    modelled = _Model(config, p, MODELLED)
    for shape in SHAPES:
        for base in bases:
            modelled.cycles(_shaped(config, base, shape))
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
    search = _Search(config, kernel, BUDGET)
    timed = [(c, s) for s in modelled.best(FINAL) if (c := search.cycles(s)) is not None]
    if timed:
        return min(timed, key=lambda pair: pair[0])[1]
    return next(iter(modelled.best(1)), bases[0])


def shaped_cycles(config: ChipConfig, kernel: Kernel, s: Schedule) -> int:
    """Exact cycles of a candidate of the formula, with a head and a tail where that is best."""
    search = _Search(config, kernel, 1 << 60)
    found = [search.cycles(_shaped(config, s, x)) for x in SHAPES]
    return min(c for c in found if c is not None)


def choose(config: ChipConfig, kernel: Kernel) -> Schedule:
    """The default schedule of a contraction kernel, remembered for kernels like it."""
    key = (config, problem(kernel))
    if key not in _chosen:
        _chosen[key] = refine(config, kernel)
    return _chosen[key]
