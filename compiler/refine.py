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
from types import SimpleNamespace

from tilewright.compiler.kernels import Kernel
from tilewright.compiler.schedule import A_BANKS, Problem, Schedule, ScheduleError, ceil_div
from tilewright.compiler.schedule_cost import floor, ranked
from tilewright.compiler.sync import synchronise
from tilewright.compiler.tile_contract import problem, tile_contract
from tilewright.compiler.tiles import Op, Plan
from tilewright.isa.config import ChipConfig
from tilewright.isa.encoding import Instr
from tilewright.isa.table import INSTRUCTIONS
from tilewright.sim.timing import simulate

BUDGET = 1500  # operations that are timed for one kernel, about 30 us each
TRIAL = 10  # what a trial costs besides, in operations
BASES = 6  # candidates of the formula that are timed
GOOD = 1.01  # of the least cycles that there can be: the search stops
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


#: Whether to begin with a head; to end with a tail: not, of few rows, of column groups only.
SHAPES = ((1, 1), (1, 2), (1, 0), (0, 0))


def _shaped(config: ChipConfig, s: Schedule, shape: tuple[int, int]) -> Schedule:
    """A candidate with or without head and tail."""
    d = min(s.mt, config.dim)
    return replace(s, head=d * shape[0], tail=(0, few(config, s), s.mt)[shape[1]])


def few(config: ChipConfig, s: Schedule) -> int:
    """Rows of a tail that is not the whole of a tile of `dim` rows, even if it is not cut."""
    return min(s.mt - 1, config.dim - 1)


def moves(config: ChipConfig, p: Problem, s: Schedule) -> Iterator[Schedule]:
    """Schedules that differ in one respect."""
    d = config.dim
    plain = replace(s, first_m=0, last_m=0, first_k=0, last_k=0)
    yield replace(s, head=0 if s.head else min(d, s.mt))
    for tail in (0, few(config, s), s.mt):
        yield replace(s, tail=tail)
    yield replace(s, parts=4 if s.parts == 2 else 2)
    for mt in (s.mt - d, s.mt + d, ceil_div(s.mt, 2), 2 * s.mt):
        if 0 < mt < p.m + d:
            mt = min(mt, p.m)
            yield replace(plain, mt=mt, head=min(s.head, mt), tail=min(s.tail, mt))
    for kt in (ceil_div(ceil_div(s.kt, d), 2) * d, 2 * s.kt):
        if kt < p.k + d:
            yield replace(plain, kt=min(kt, p.k))
    for nt in (ceil_div(ceil_div(s.nt, d), 2) * d, 2 * s.nt):
        if nt < p.n + d:
            yield replace(plain, nt=min(nt, p.n))
    for value in (d, 2 * d, 0):
        if value < s.kt < p.k:
            yield replace(s, first_k=value)
            yield replace(s, last_k=value)
        if value < s.mt < p.m:
            yield replace(s, last_m=value)
            yield replace(s, first_m=value, head=min(s.head, value or s.mt))


def refine(config: ChipConfig, kernel: Kernel) -> Schedule:
    """The schedule that a kernel gets by default."""
    p = problem(kernel)
    bases = ranked(config, p, BASES)
    search = _Search(config, kernel, BUDGET)
    enough = GOOD * floor(config, p)
    shapes, best = list(SHAPES), bases[0]
    price: int | None = None
    for base in bases:
        found = {x: c for x in shapes if (c := search.cycles(_shaped(config, base, x))) is not None}
        for shape, cycles in found.items():
            if price is None or cycles < price:
                best, price = _shaped(config, base, shape), cycles
                shapes = list(dict.fromkeys((shape, SHAPES[0])))
        if not found or (price is not None and price <= enough):
            break
    while price is not None and price > enough:
        for s in moves(config, p, best):
            changed = search.cycles(s)
            if changed is not None and changed < price:
                best, price = s, changed
                break
        else:
            break
    return best


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
