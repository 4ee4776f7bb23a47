"""Loops in a synchronised operation list: runs that repeat become scalar loops of the sequencer.

Bodies are searched for loops again, so that they nest. What the units execute does not change,
hence neither do waits, signals, legality nor races.

A loop pays if it is shorter and the sequencer, which executes its scalar instructions too, stays
ahead of the units. Where even the plain list keeps them waiting, only a long one is rolled.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from tilewright.compiler.loops import Loop, Nodes, NoRegister, Word, Writer
from tilewright.compiler.periods import Motion, Run, motion, runs, tables
from tilewright.compiler.tiles import Op
from tilewright.isa.config import REGISTERS, ChipConfig
from tilewright.isa.extent import extent_cycles
from tilewright.isa.table import CONV_BYTES, INSTRUCTIONS, TYPE_BYTES, Conv, Type, Unit
from tilewright.isa.timing import MATMUL_MIN_PERIOD

LEAST, INNER = 16, 4  # instructions that an outermost loop, and one in it, must save
LONG = 1 << 14  # instructions from which on a program is rolled even if that costs cycles
UNIT_CYCLES = 3  # of the sequencer for a unit's instruction, besides EXTENT and registers
SLACK = 0.8  # of the units' time: what the sequencer may take for a loop
CHAIN = 160  # cycles from a gather by way of VECTOR to a scatter, for which the next gather waits
TRIES = 6  # runs that are tried for a range at a time
MANY = 256  # runs that may be chosen beside the best one


def roll(config: ChipConfig, ops: Sequence[Op], registers: int = REGISTERS) -> list[Word]:
    """All instructions, with loops where they pay, that use so many registers."""
    roller = _Roller(config, ops, registers)
    nodes = roller.search(0, len(ops), [])
    writer = Writer(ops, roller.values, roller.frugal, registers)
    writer.nodes(nodes, [])
    return writer.words


class _Roller:
    """One list of operations and the search for its loops."""

    def __init__(self, config: ChipConfig, ops: Sequence[Op], registers: int = REGISTERS):
        self.config, self.ops, self.registers = config, ops, registers
        self.shape, self.values = tables(ops)
        self.long = len(ops) >= LONG
        self.frugal: set[Loop] = set()

    def search(self, lo: int, hi: int, outer: list[Motion]) -> Nodes:
        """The operations of a range, with loops; `outer` is how they move in loops around it."""
        least = INNER if outer else LEAST
        if hi - lo < least + least // 2:
            return list(range(lo, hi))
        shape, values = self.shape[lo:hi], self.values[lo:hi]
        if outer:
            last = outer[-1]
            rows = np.column_stack([shape, *(m.step for m in outer), last.size, last.low])
            shape = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
        failed: set[tuple[int, int]] = set()
        chosen: list[tuple[Run, Loop]] = []
        bar = hi - lo
        while bar > least and not chosen:  # long runs first: few periods have any
            bar = max(least, bar // 8)
            found = runs(shape, values, outer, bar)
            chosen = self._choose(lo, found, outer, least, failed)
        nodes: Nodes = []
        at = 0
        for run, loop in chosen:
            nodes += self.search(lo + at, lo + run.start, [m.part(at, run.start) for m in outer])
            nodes.append(loop)
            at = run.end
        if not chosen:
            return list(range(lo, hi))
        return nodes + self.search(lo + at, hi, [m.part(at, hi - lo) for m in outer])

    def _choose(
        self, lo: int, found: list[Run], outer: list[Motion], least: int,
        failed: set[tuple[int, int]],
    ) -> list[tuple[Run, Loop]]:  # fmt: skip
        """The run that saves most, with its loop, and others beside it that save, in order."""
        best: tuple[int, Run, Loop] | None = None
        tried = 0
        for run in found:
            if tried == TRIES or (best and not outer and best[0] >= run.saved):
                break
            if (run.start, run.period) in failed:
                continue
            tried += 1
            loop, saved = self._priced(lo, run, outer)
            if saved < least:
                failed.add((run.start, run.period))
            elif best is None or saved > best[0]:
                best = saved, run, loop
        if best is None:
            return []
        chosen = [best[1:]]
        for run in found[:MANY]:
            if all(run.end <= r.start or r.end <= run.start for r, _ in chosen):
                loop, saved = self._priced(lo, run, outer)
                if saved >= least:
                    chosen.append((run, loop))
        return sorted(chosen, key=lambda c: c[0].start)

    def _priced(self, lo: int, run: Run, outer: list[Motion]) -> tuple[Loop, int]:
        """A run as a loop, and the instructions that it saves."""
        loop = self._loop(lo, run, outer)
        return loop, self._inner(loop, run, outer) if outer else self._pays(loop, run)

    def _loop(self, lo: int, run: Run, outer: list[Motion]) -> Loop:
        at, end = run.start, run.start + run.period
        around = [m.part(at, end) for m in outer]
        own = motion(self.values[lo:], run, outer)
        assert own is not None
        body = self.search(lo + at, lo + end, [*around, own])
        return Loop(lo + at, run.count, own, body)

    def _inner(self, loop: Loop, run: Run, outer: list[Motion]) -> int:
        """Instructions that an inner loop saves, about, in it and in the loops around it."""
        before = self._moves(loop.lo, [m.part(run.start, run.end) for m in outer])
        first = [m.part(run.start, run.start + run.period) for m in outer]
        return run.saved + before - self._moves(loop.lo, [*first, loop.motion]) - 1

    def _moves(self, at: int, motions: list[Motion]) -> int:
        """Instructions that move the addresses of operations from `at` on: two or four for each."""
        moved = np.logical_or.reduce([m.step != 0 for m in motions])
        values = self.values[at : at + len(moved)]
        rows = (values, motions[-1].size, *(m.step for m in motions))
        alike = set(zip(*(r[moved].tolist() for r in rows), strict=True))
        return sum(4 if size else 2 for _, size, *_ in alike)

    def _pays(self, loop: Loop, run: Run) -> int:
        """Instructions that an outermost loop saves.

        0 if there are not registers enough, or if the units would have to wait.
        """
        before = run.period * run.count
        busy, dispatch = dict.fromkeys(Unit, 0), 0
        body = self.ops[loop.lo : loop.lo + run.period]
        for op in body:
            busy[op.unit] += _work(self.config, op)
            dispatch += UNIT_CYCLES + extent_cycles(INSTRUCTIONS[op.name], op.values)
        work = max(*busy.values(), CHAIN if _is_chain(body) else 0)
        most = run.count * (SLACK * work - dispatch)
        best = 0
        for frugal in ((), (loop,)):
            writer = Writer(self.ops, self.values, frugal, self.registers)
            try:
                writer.nodes([loop], [])
            except NoRegister:
                continue
            saved = before - len(writer.words)
            if saved > best and (self.long or writer.extra <= most):
                best = saved
                self.frugal.difference_update((loop,))
                self.frugal.update(frugal)
        return best


def _is_chain(body: Sequence[Op]) -> bool:
    """Whether a LOAD gathers what the STORE before scattered."""
    scattered = {op.buffer for op in body if op.fields.get("scatter")}
    return any(op.fields.get("gather") and op.buffer in scattered for op in body)


def _work(config: ChipConfig, op: Op) -> int:
    """Cycles that the unit is busy with an operation, about."""
    d, get = config.dim, op.fields.get
    if op.name == "matmul":
        blocks = -(-op.fields["k"] // d) * -(-op.fields["n"] // d)
        return blocks * max(d, MATMUL_MIN_PERIOD, get("r0", 1) * get("r1", 1))
    if op.name == "vector":
        return get("rows", 1) * -(-get("cols", 1) // d) * max(1, get("body", 1))
    load = op.name == "load"
    size = CONV_BYTES[Conv(op.fields["conv"])] if load else TYPE_BYTES[Type(op.fields["out"])]
    rows = prod(get(c, 1) for c in ("c1", "c2", "c3"))
    return rows * -(-get("c0", 1) * size // config.bus_bytes)
