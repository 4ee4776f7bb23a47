"""The sequencer's side of the contract: fetch, and the walk through the executed instructions.

`sequence` is a generator that runs ahead of the units as far as it can: it only stops where its
next cycle depends on them, and then yields what it waits for. Pushes and posts carry their cycle.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from tilewright.isa.config import LINE_INSTRS, LINES, MAX_BURST
from tilewright.isa.table import Unit
from tilewright.sim.timing_ops import FAULT, FENCE, HALT, LDW, POST, PUSH, STW, WAIT, Op

ROOM, COUNT, QUIET = "room", "count", "quiet"  # what the sequencer waits for
#: Of `sequence`: (what, from which cycle, argument) is answered with a cycle.
Waits = Generator[tuple[str, int, Any], int, None]
_LINE_CYCLES = 2 * MAX_BURST
_INSTR_BEATS = _LINE_CYCLES // LINE_INSTRS
EVERY = tuple(u for u in Unit if u != Unit.SEQ)


class Fetch:
    """The instruction buffer (contract §1): which lines were requested when.

    `requested` maps a line to the cycle in which its first burst takes the address generator; lines
    from `start` on, where the last discard was, to `next` are held or were. `loop` is the first
    line and the last instruction of the loop that the window follows; no instruction if there is
    none.
    """

    def __init__(self, k: Any, count: int):
        self.k = k
        self.latency = k.FETCH_AR + k.read_latency + k.FETCH_WRITE
        self.lines = -(-count // LINE_INSTRS)
        self.requested: dict[int, int] = {}
        self.start = self.next = 0
        self.idle = k.FETCH_START
        self.base = -1
        self.first, self.last = 0, -1  # of the loop

    def read(self, pc: int, t: int) -> int:
        """Cycle in which the FETCH state that begins at `t` reads the instruction."""
        line = base = pc // LINE_INSTRS
        if self.last >= 0:
            if pc > self.last or line < self.first:
                self.last = -1
            else:
                base = self.first
        if base != self.base:
            self._enter(base, t)
        beat = pc % LINE_INSTRS * _INSTR_BEATS + _INSTR_BEATS - 1
        return max(t, self.requested[line] + self.latency + beat)

    def _enter(self, base: int, t: int) -> None:
        """The window begins at line `base` from cycle `t` on: request what is new in it."""
        self.base = base
        while self.next < min(base + LINES, self.lines):
            q = max(self.idle, t)
            self.requested[self.next] = q
            self.idle = q + _LINE_CYCLES
            self.next += 1

    def jump(self, pc: int, target: int, t: int) -> None:
        """The branch at `pc` to instruction `target` is taken in EXEC cycle `t`."""
        line, here = target // LINE_INSTRS, pc // LINE_INSTRS
        following = self.next  # the next line to request in cycle `t`
        while following > self.start and self.requested[following - 1] >= t:
            following -= 1
        if target <= pc and (self.last < 0 or line < self.first) and here - line < LINES:
            self.first, self.last = line, pc
        if line >= self.lines:
            return
        if max(self.start, following - LINES) <= line < following:
            if target <= pc:  # no request in this cycle, then those of the target's window
                self.next, self.base = following, -1
                self.idle = max(t + 1, self.requested[following - 1] + _LINE_CYCLES)
            return
        self.idle = t + self.k.FETCH_RESTART
        if following > self.start:
            first = self.requested[following - 1]
            second = first + MAX_BURST
            self.idle = max(self.idle, (second if second < t else first) + MAX_BURST)
        self.start = self.next = line
        self.base = -1


def sequence(ops: Sequence[Op], issue: Any, k: Any, count: int) -> Waits:
    """Walk through `ops`; gives (what, from which cycle, argument) where it has to wait.

    ROOM of a queue (argument: the `Op`), COUNT of a semaphore (the `Op`), QUIET units (a tuple).
    The answer sent is the cycle in which the wait ended. `issue` takes `push`, `post`, and the
    cycles of the scalar instructions in `start` and `end`.
    """
    fetch = Fetch(k, count)
    start, end = issue.start, issue.end
    t = 0  # first cycle of the FETCH state
    for op in ops:
        kind = op.kind
        e = t if op.stage == "fetch" else fetch.read(op.pc, t) + op.lead
        last = e
        if kind == PUSH:
            room = issue.room(op, e)
            last = (yield (ROOM, e, op)) if room is None else room
            issue.push(op, last)
            t = last + 1
            continue
        start[op.id] = e
        if kind == WAIT:
            last = yield (COUNT, e, op)
        elif kind == POST:
            issue.post(e + 1, op.sem, op.n)
        elif kind in (FENCE, HALT, FAULT):
            last = yield (QUIET, e, EVERY)
        elif kind == LDW:
            quiet = yield (QUIET, e, (Unit.LOAD,))
            last = quiet + k.LDW
        elif kind == STW:
            quiet = yield (QUIET, e, (Unit.STORE,))
            last = quiet + k.STW
        if op.target >= 0:
            fetch.jump(op.pc, op.target, e)
        end[op.id] = last
        t = last + 1
        if kind == HALT:
            issue.stop(last + k.SEQ_HALT)
        elif kind == FAULT:
            issue.stop(last + k.SEQ_FAULT)
