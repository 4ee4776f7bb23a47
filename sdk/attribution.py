"""Each cycle of a unit belongs to an instruction: the one that issues, or that is to issue next.

So the cycles of a unit's instructions, and those after its last one, sum to the run's cycles, cause
by cause. A wait is traced to the instruction whose signal ended it: a semaphore has one signaller,
so the k-th token taken is the k-th one given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import Unit
from tilewright.sim.functional import Executed
from tilewright.sim.timing import UNITS, Timing
from tilewright.sim.timing_causes import CAUSES, Intervals
from tilewright.sim.timing_ops import POST, WAIT, Op, Passes, constants, lower


@dataclass(frozen=True)
class Wait:
    """Instruction `waiter` takes `count` of `semaphore`; `signaller` gave the last of them.

    `kind` is the signal: "done", "read" or "post". `signaller` is -1 if nobody gave it.
    """

    waiter: int
    semaphore: int
    count: int
    signaller: int
    kind: str


@dataclass(frozen=True, eq=False)
class Attribution:
    """Where each unit's cycles went, by instruction.

    Parameters
    ----------
    cycles : (instructions, causes) int64 by id; zero for the sequencer's.
    issued : by id, the last cycle in which it issues a slot or a row; -1 for the sequencer's.
    after : by unit, its cycles by cause after its last instruction.
    spans : by unit, (first cycles, causes' numbers) of what the unit did, one after the other.
    waits : in program order.
    """

    cycles: np.ndarray
    issued: list[int]
    after: dict[Unit, np.ndarray]
    spans: dict[Unit, tuple[np.ndarray, np.ndarray]]
    waits: list[Wait]


def _spans(sets: tuple[Intervals, ...], cycles: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut 0 <= cycle < `cycles` where the cause changes: (first cycles, causes)."""
    edges = [np.array([0])]
    for s in sets:
        edges += [np.array(s.starts, np.int64), np.array(s.ends, np.int64) + 1]
    points = np.unique(np.concatenate(edges))
    points = points[points < cycles]
    causes = np.full(len(points), len(CAUSES) - 1)
    for number in reversed(range(len(sets))):  # the first set that holds a cycle names it
        starts, ends = np.array(sets[number].starts), np.array(sets[number].ends)
        if len(starts):
            at = np.searchsorted(starts, points, side="right") - 1
            causes[(at >= 0) & (points <= ends[at])] = number
    keep = np.ones(len(points), bool)
    keep[1:] = causes[1:] != causes[:-1]
    return points[keep], causes[keep]


def before(spans: tuple[np.ndarray, np.ndarray], cycles: int, at: np.ndarray) -> np.ndarray:
    """(len(at), causes): how many cycles below each of `at` have each cause."""
    starts, causes = spans
    length = np.diff(starts, append=cycles)
    total = np.zeros((len(starts) + 1, len(CAUSES)), np.int64)
    np.add.at(total, (np.arange(1, len(starts) + 1), causes), length)
    total = np.cumsum(total, axis=0)
    which = np.searchsorted(starts, at, side="right") - 1
    out = total[which]
    np.add.at(out, (np.arange(len(at)), causes[which]), at - starts[which])
    return out


def _last_issue(op: Op, timing: Timing, k: Any) -> int:
    """Last cycle in which `op` issues a slot or a row."""
    start, end = timing.start[op.id], timing.end[op.id]
    if isinstance(op.work, Passes):
        rows = op.work.rows
        return end - rows - k.MATMUL_DONE + max(rows, k.dim, k.MATMUL_MIN_PERIOD)
    return start + op.work.slots


def _waits(ops: Sequence[Op]) -> list[Wait]:
    tokens: dict[int, list[tuple[int, str]]] = {}
    for op in ops:
        if op.kind == POST:
            tokens.setdefault(op.sem, []).extend([(op.id, "post")] * op.n)
        for sem, kind in ((op.rd, "read"), (op.done, "done")):
            if sem >= 0:
                tokens.setdefault(sem, []).append((op.id, kind))
    taken: dict[int, int] = {}
    found = []
    for op in ops:
        waits = ((op.sem, op.n),) if op.kind == WAIT else op.waits
        for sem, n in waits:
            if not n:
                continue
            last = taken[sem] = taken.get(sem, 0) + n
            given = tokens.get(sem, [])
            who, kind = given[last - 1] if last <= len(given) else (-1, "")
            found.append(Wait(op.id, sem, n, who, kind))
    return found


def attribute(config: ChipConfig, executed: Sequence[Executed], timing: Timing) -> Attribution:
    """Give each unit's cycles to its instructions; `executed` ran to its halt."""
    ops = lower(config, executed)
    k = constants(config)
    cycles = np.zeros((len(timing.start), len(CAUSES)), np.int64)
    issued = [-1] * len(cycles)
    after, spans = {}, {}
    for unit in UNITS:
        mine = [op for op in ops if op.unit == unit and timing.start[op.id] >= 0]
        spans[unit] = _spans(timing.activity[unit], timing.cycles)
        ids = [op.id for op in mine]
        for op in mine:
            issued[op.id] = _last_issue(op, timing, k)
        cuts = np.array([0, *(issued[i] + 1 for i in ids), timing.cycles])
        cuts = np.minimum(np.maximum.accumulate(cuts), timing.cycles)
        parts = np.diff(before(spans[unit], timing.cycles, cuts), axis=0)
        cycles[ids] = parts[:-1]
        after[unit] = parts[-1]
    return Attribution(cycles, issued, after, spans, _waits(ops))
