"""Periods in a list of operations: where it repeats itself, but for addresses that move.

Operations are two tables: a number for all that must not move, and *columns* that may: addresses in
DRAM (as offsets in a buffer) and in the local memories. From one repetition to the next a column
moves by a constant step; a local address may also wrap round a region (slots that are used in turn,
halves of the accumulator), which is the step modulo the region's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from tilewright.compiler.tiles import Op
from tilewright.isa.extent_table import DRAM
from tilewright.isa.table import INSTRUCTIONS, Unit

ADDRESS_BITS = 18  # of an address in a local memory
LONGEST = 4096  # operations of a period that is looked for


@cache
def columns(name: str) -> tuple[str, ...]:
    """The fields of an instruction that may move: its DRAM address first, or nothing ("")."""
    fields = (f for _, f in INSTRUCTIONS[name].layout.values())
    local = (f.name for f in fields if f.reg and not f.signed and f.bits == ADDRESS_BITS)
    return (DRAM[name].base if name in DRAM else "", *local)


WIDTH = max(len(columns(s.name)) for s in INSTRUCTIONS.values() if s.unit != Unit.SEQ)


def tables(ops: Sequence[Op]) -> tuple[np.ndarray, np.ndarray]:
    """(n,) numbers of what must not move, and (n, WIDTH) columns."""
    shapes: dict[object, int] = {}
    shape = np.empty(len(ops), np.int64)
    rows = []
    blank = [0] * WIDTH
    for i, op in enumerate(ops):
        fields, names = op.fields, columns(op.name)
        row = [op.offset if n == op.address else fields.get(n, 0) for n in names]
        rows.append(row + blank[len(row) :])
        fixed = tuple([item for item in fields.items() if item[0] not in names])
        key = (op.name, op.kernel, op.buffer, op.address, fixed, frozenset(op.sync.items()))
        shape[i] = shapes.setdefault(key, len(shapes))
    return shape, np.array(rows, np.int64).reshape(len(ops), WIDTH)


@dataclass(frozen=True, eq=False)
class Motion:
    """How the columns of some operations move in an iteration, (operations, WIDTH) each.

    `step` is added; where `size` is not 0 the sum wraps in low <= address < low + size.
    """

    step: np.ndarray
    size: np.ndarray
    low: np.ndarray

    def part(self, lo: int, hi: int) -> Motion:
        """That of some of the operations."""
        return Motion(self.step[lo:hi], self.size[lo:hi], self.low[lo:hi])


@dataclass(frozen=True, eq=False)
class Run:
    """Operations from `start` on, `period` of them, `count` times."""

    start: int
    period: int
    count: int

    @property
    def end(self) -> int:
        """The operation behind them."""
        return self.start + self.period * self.count

    @property
    def saved(self) -> int:
        """Operations that need not be written."""
        return (self.count - 1) * self.period


def _lengths(mask: np.ndarray, least: int) -> Iterator[tuple[int, int]]:
    """(start, length) of the stretches of True that have at least that length."""
    edges = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    bounds = [0, *edges.tolist(), len(mask)]
    for i in range(0 if mask[0] else 1, len(bounds) - 1, 2):
        if bounds[i + 1] - bounds[i] >= least:
            yield bounds[i], bounds[i + 1] - bounds[i]


def _fit(x: np.ndarray, outer: list[Motion]) -> Motion | None:
    """The motion of (repetitions, operations, WIDTH) columns in loops that move them already."""
    d = x[1:] - x[:-1]
    most, least = d.max(0), d.min(0)
    size = low = np.zeros_like(most)
    good = most == least
    if outer:
        size, low = outer[-1].size, outer[-1].low
        turned = (d % np.where(size, size, 1) == most % np.where(size, size, 1)).all(0)
        good |= (size > 0) & turned
    if good.all():
        return Motion(np.where(size, most % np.where(size, size, 1), most), size, low)
    free = ~good
    free[:, 0] = False
    for motion in outer:
        free &= motion.step == 0
    own = most - least
    bottom, top = x.min(0), x.max(0)
    wraps = free & (top - bottom < own) & ((d == most) | (d == least)).all(0)
    if not (good | wraps).all():
        return None
    base = bottom.copy()
    for pair in set(zip(own[wraps].tolist(), most[wraps].tolist(), strict=True)):
        alike = wraps & (own == pair[0]) & (most == pair[1])
        first = bottom[alike].min()  # addresses that wrap alike share their region if they can
        base[alike & (top < first + own)] = first
    step = np.where(size, most % np.where(size, size, 1), most)
    return Motion(step, np.where(wraps, own, size), np.where(wraps, base, low))


def motion(values: np.ndarray, run: Run, outer: list[Motion]) -> Motion | None:
    """How a run's columns move, or None if they do not move in the same way all the time."""
    x = values[run.start : run.end].reshape(run.count, run.period, WIDTH)
    return _fit(x, [m.part(run.start, run.start + run.period) for m in outer])


def _prefixes(values: np.ndarray, start: int, p: int, count: int, outer: list[Motion]
              ) -> Iterator[Run]:  # fmt: skip
    """The longest runs, one behind the other, among `count` repetitions."""
    while count >= 3:
        good, bad = 2, count + 1
        probe = count
        while bad - good > 1:
            if motion(values, Run(start, p, probe), outer) is None:
                bad = probe
            else:
                good = probe
            probe = min(2 * good, (good + bad) // 2) if bad <= count else probe
        if good >= 3:
            yield Run(start, p, good)
        step = good if good >= 3 else 1
        start, count = start + step * p, count - step


def runs(shape: np.ndarray, values: np.ndarray, outer: list[Motion], least: int) -> list[Run]:
    """Runs of at least three repetitions that save `least` operations, the greatest saving first.

    Parameters
    ----------
    shape, values : tables of the operations.
    outer : how loops around them move them, outermost first.
    """
    n = len(shape)
    found: list[Run] = []
    for p in range(1, min(n // 3, LONGEST) + 1):
        same = shape[p:] == shape[:-p]
        if np.count_nonzero(same) < max(2 * p, least):
            continue
        for start, length in _lengths(same, max(2 * p, least)):
            dram = values[start : start + length + p, 0]
            delta = dram[p:] - dram[:-p]
            for at, more in _lengths(delta[p:] == delta[:-p], p):
                if (1 + more // p) * p >= least:
                    found += _prefixes(values, start + at, p, 2 + more // p, outer)
    found = [f for f in found if f.saved >= least]
    return sorted(found, key=lambda f: (-f.saved, f.period))
