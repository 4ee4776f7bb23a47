"""The rules of a legal program (DESIGN §5) on an executed trace, and who is stuck in a deadlock.

(a) In program order no wait blocks. (b) A semaphore has one signalling unit, one kind of signal and
one waiting unit; besides, the sequencer may post initial credits before the semaphore's first use.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tilewright.isa.config import QUEUE_DEPTH, SEM_MAX, SEMAPHORES
from tilewright.isa.table import Unit
from tilewright.sim.functional import Executed

#: Instructions of a unit that can be dispatched and not started: queue, its output, head.
PENDING = QUEUE_DEPTH + 2


def waits_of(e: Executed) -> list[tuple[int, int]]:
    """(semaphore, n) of an instruction's waits."""
    v = e.values
    if e.unit is Unit.SEQ:
        return [(v["sem"], v["n"])] if e.name == "wait" and v["n"] else []
    return [(v["wait" + i], v["wait" + i + "_n"]) for i in "01" if v["wait" + i + "_n"]]


def signals_of(e: Executed) -> list[tuple[int, int, str]]:
    """(semaphore, n, kind) of what an instruction signals or posts."""
    v = e.values
    if e.unit is Unit.SEQ:
        return [(v["sem"], v["n"], "post")] if e.name == "post" and v["n"] else []
    out = [(v["rd_sem"], 1, "read-done")] if v["rd_en"] else []
    return [*out, (v["done_sem"], 1, "done")] if v["done_en"] else out


@dataclass
class _Semaphore:
    """Who uses one semaphore, and its count in program order."""

    number: int
    count: int = 0
    source: tuple[Unit, str] | None = None  # unit and kind of signal; None: at most credits
    waiter: Unit | None = None
    credits: int = 0
    late: deque[int] = field(default_factory=lambda: deque(maxlen=PENDING))
    named: set[str] = field(default_factory=set)

    def once(self, rule: str, text: str) -> Iterator[str]:
        """The sentence, unless this rule was already reported for this semaphore."""
        if rule not in self.named:
            self.named.add(rule)
            yield text

    def signal(self, unit: Unit, kind: str, n: int, what: object) -> Iterator[str]:
        """An instruction signals or posts."""
        if unit is Unit.SEQ and self.source is None and self.waiter is None:
            self.credits += n
        else:
            if self.source is None:
                self.source = (unit, kind)
            if self.source[0] is not unit:
                yield from self.once(
                    "unit",
                    f"semaphore {self.number} must have one signalling unit: {what} signals it, "
                    f"but {self.source[0].name} did before (the sequencer may post initial "
                    "credits only before the first use)",
                )
            elif self.source[1] != kind:
                yield from self.once(
                    "kind",
                    f"semaphore {self.number} must have one kind of signal: {what} gives {kind}, "
                    f"but {self.source[0].name} gave {self.source[1]} before",
                )
        self.count += n
        ahead = sum(self.late) if self.waiter is not Unit.SEQ else 0
        if self.count + ahead > SEM_MAX:
            yield from self.once(
                "overflow",
                f"semaphore {self.number} may go above {SEM_MAX} at {what}: its count reaches "
                f"{self.count + ahead} if {self.waiter.name if self.waiter else 'nobody'} is late",
            )

    def wait(self, unit: Unit, n: int, what: object) -> Iterator[str]:
        """An instruction waits."""
        if self.waiter is None:
            self.waiter = unit
        if self.waiter is not unit:
            yield from self.once(
                "waiter",
                f"semaphore {self.number} must have one waiting unit: {what} waits for it, "
                f"but {self.waiter.name} did before",
            )
        self.count -= n
        self.late.append(n)


@dataclass(frozen=True)
class _Named:
    """An instruction whose text is made only if somebody reads it."""

    names: Callable[[Executed], str]
    executed: Executed

    def __str__(self) -> str:
        return self.names(self.executed)


class Legality:
    """Rule (b), one instruction at a time; `names` turns an instruction into text."""

    def __init__(self, names: Callable[[Executed], str]) -> None:
        self._names = names
        self._sems = [_Semaphore(i) for i in range(SEMAPHORES)]

    def add(self, e: Executed) -> Iterator[str]:
        """Breaches by the next executed instruction, one sentence each."""
        waits, signals = waits_of(e), signals_of(e)
        if len(waits) == 2 and waits[0][0] == waits[1][0]:
            yield f"{self._names(e)}: both waits name semaphore {waits[0][0]}; merge them"
        what = _Named(self._names, e)
        for sem, n in waits:
            yield from self._sems[sem].wait(e.unit, n, what)
        for sem, n, kind in signals:
            yield from self._sems[sem].signal(e.unit, kind, n, what)

    def left(self) -> Iterator[str]:
        """Semaphores that keep a count at the end."""
        for s in self._sems:
            if s.count > 0 and s.source is not None:
                yield f"semaphore {s.number} ends with a count of {s.count} that nobody waits for"


def stuck(executed: Sequence[Executed]) -> list[tuple[Executed, str]]:
    """What blocks for ever if units run concurrently: each unit's instruction, and why.

    `executed` is what the sequencer dispatches if waits did not block. Empty: all would finish.
    """
    counts = [0] * SEMAPHORES
    queues: dict[Unit, deque[Executed]] = {u: deque() for u in list(Unit)[:4]}
    queues[Unit.SEQ] = deque(executed)
    quiet = {"ldw": (Unit.LOAD,), "stw": (Unit.STORE,), "fence": tuple(Unit)[:4]}
    quiet["halt"] = quiet["fence"]

    def reason(e: Executed) -> str:
        """Why this head cannot go now, or nothing."""
        if e.unit is not Unit.SEQ:
            return lacking(waits_of(e))
        busy = [u.name for u in quiet.get(e.name, ()) if queues[u]]
        return f"waits for {', '.join(busy)} to be quiet" if busy else lacking(waits_of(e))

    def lacking(waits: list[tuple[int, int]]) -> str:
        short = [f"{n} of semaphore {s} (count {counts[s]})" for s, n in waits if counts[s] < n]
        return f"waits for {' and '.join(short)}" if short else ""

    moved = True
    while moved:
        moved = False
        for unit, queue in queues.items():
            while queue:
                e = queue[0]
                if unit is Unit.SEQ and e.unit is not Unit.SEQ:
                    queues[e.unit].append(queue.popleft())
                elif reason(e):
                    break
                else:
                    queue.popleft()
                    for sem, n in waits_of(e):
                        counts[sem] -= n
                    for sem, n, _ in signals_of(e):
                        counts[sem] += n
                moved = True
    return [(queue[0], reason(queue[0])) for queue in queues.values() if queue]
