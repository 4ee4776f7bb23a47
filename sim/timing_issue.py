"""The issue module's side of the contract (§2): queues, heads, semaphores, and the arbiter's loop.

Time jumps from event to event. Each unit has one next event: a new head looks at its semaphores, or
a request is tried (again). Releases need no events, because a granted item's release cycles are
known at its grant. Signals on their way are a heap. Inside one cycle the order is that of the
registers: counts first, then waits, then the sequencer's wait, then requests, the oldest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

from tilewright.isa.config import SEM_MAX, SEMAPHORES
from tilewright.isa.table import Unit
from tilewright.sim.timing_front import NOBODY, Front
from tilewright.sim.timing_ops import POST, Op
from tilewright.sim.timing_seq import COUNT, QUIET, ROOM, Waits
from tilewright.sim.timing_units import NEVER, Load, Matmul, Store, Vector


def _only_matmul(ops: Sequence[Op]) -> list[bool]:
    """For each semaphore whether nobody but MATMUL signals it."""
    matmul = int(Unit.MATMUL)
    others = [op for op in ops if op.unit != matmul]
    signalled = {op.sem if op.kind == POST else op.rd for op in others} | {op.done for op in others}
    return [sem not in signalled for sem in range(SEMAPHORES)]


class Issue:
    """Runs the units and the sequencer against each other.

    `start` and `end` are cycles by instruction id, -1 where it did not happen; `stopped` is the
    last counted cycle, or None if everything is blocked for ever.
    """

    def __init__(self, k: Any, ops: Sequence[Op]):
        size = max((op.id for op in ops), default=-1) + 1
        self.start, self.end = [-1] * size, [-1] * size
        self.matmul = Matmul(k)
        self.fronts = [Front(u) for u in (Load(k), self.matmul, Vector(k), Store(k))]  # by Unit
        for f in self.fronts:
            held = [(g.unit.reading, g.unit.writing) for g in self.fronts if g is not f]
            f.others = [h for pair in held for h in pair]
        self.counts = [0] * SEMAPHORES
        self.by_matmul = _only_matmul(ops)
        self.overflow: tuple[int, int] | None = None
        self.posts: list[tuple[int, int, int]] = []
        self.stopped: int | None = None
        self.quiet_delay, self.dead_delay = k.SEQ_QUIET, k.SEQ_DEADLOCK
        self.sequencer: Waits  # set by `run`
        self.waits_for: tuple[str, int, Any] | None = None
        self.look = NEVER  # when the sequencer's wait looks at its semaphore

    # What the sequencer does to this module.

    def push(self, op: Op, t: int) -> None:
        """Put `op` into its unit's queue in cycle `t`."""
        front = self.fronts[op.unit]
        front.pushed.append((op, t))
        if front.head is NOBODY:
            front.load_head()

    def room(self, op: Op, t: int) -> int | None:
        """`Front.room` of the queue that `op` goes to."""
        return self.fronts[op.unit].room(t)

    def post(self, t: int, sem: int, n: int = 1) -> None:
        """Semaphore `sem` counts `n` more from `t` on."""
        heappush(self.posts, (t, sem, n))

    def stop(self, t: int) -> None:
        """The chip reports in cycle `t`, the last one."""
        self.stopped = t

    def settle(self) -> int:
        """Last cycle of a deadlocked run; its heads wait for semaphores until then."""
        at = 0 if self.waits_for is None else self.waits_for[1]
        last = max([at, *(f.unit.last_done + 1 for f in self.fronts)])
        last = max([last, *(f.valid for f in self.fronts if f.head is not NOBODY)])
        last += self.dead_delay
        for f in self.fronts:
            if f.head is not NOBODY:
                f.semaphore.add(f.valid, last)
        return last

    # The sequencer's waits.

    def _resume(self, t: int | None) -> None:
        """Let the sequencer go on (its wait ended in `t`) until it has to wait again."""
        self.look = NEVER
        while True:
            try:
                step = next(self.sequencer) if t is None else self.sequencer.send(t)
            except StopIteration:
                self.waits_for = None
                return
            self.waits_for = what, at, arg = step
            if what == COUNT:
                self.look = at
                return
            t = self._answer(what, at, arg)
            if t is None:
                return

    def _answer(self, what: str, at: int, arg: Any) -> int | None:
        if what == ROOM:
            return self.room(arg, at)
        last = -1
        for u in arg:
            front = self.fronts[u]
            if front.head is not NOBODY:
                return None
            last = max(last, front.unit.last_done)
        return max(at, last + self.quiet_delay)

    def _unit_moved(self, f: Front) -> None:
        """The head of `f` left: the sequencer may be waiting for room or quiet."""
        if self.waits_for is None:
            return
        what, at, arg = self.waits_for
        if what == QUIET or (what == ROOM and self.fronts[arg.unit] is f):
            t = self._answer(what, at, arg)
            if t is not None:
                self._resume(t)

    # The loop.

    def run(self, sequencer: Waits) -> None:
        """Run until nothing can happen any more."""
        self.sequencer = sequencer
        self._resume(None)
        posts, (first, second, third, fourth) = self.posts, self.fronts
        while True:
            t = min(self.look, first.event, second.event, third.event, fourth.event)
            if posts and posts[0][0] <= t:
                t = posts[0][0]
                self._count(t)
            elif t == NEVER:
                return
            if first.event == t and first.request == NEVER:
                self._check(first, t)
            if second.event == t and second.request == NEVER:
                self._check(second, t)
            if third.event == t and third.request == NEVER:
                self._check(third, t)
            if fourth.event == t and fourth.request == NEVER:
                self._check(fourth, t)
            if self.look <= t:
                self._look(t)
            if t in (first.event, second.event, third.event, fourth.event):
                self._arbitrate(t)

    def _count(self, t: int) -> None:
        """Apply the signals that count from `t` on, and wake who waits for them."""
        posts, counts = self.posts, self.counts
        while posts and posts[0][0] == t:
            _, sem, n = heappop(posts)
            counts[sem] += n
            if counts[sem] > SEM_MAX:
                counts[sem] = SEM_MAX
                self.overflow = self.overflow or (t, sem)
        for f in self.fronts:
            if f.request == NEVER and f.valid <= t and f.head is not NOBODY:
                self._check(f, t)
        if self.waits_for is not None and self.waits_for[0] == COUNT:
            self.look = max(t, self.waits_for[1])

    def _check(self, f: Front, t: int) -> None:
        """The head of `f` looks at its waits in cycle `t`; a signal makes it look again."""
        counts = self.counts
        for sem, n in f.head.waits:
            if counts[sem] < n:
                f.event = NEVER
                return
        f.ok(t + 1)

    def _look(self, t: int) -> None:
        assert self.waits_for is not None
        op = self.waits_for[2]
        self.look = NEVER
        if self.counts[op.sem] >= op.n:
            self.counts[op.sem] -= op.n
            self._resume(t)

    def _arbitrate(self, t: int) -> None:
        """Try the requests of cycle `t`, the oldest first."""
        asking = [f for f in self.fronts if f.request <= t]
        if len(asking) == 1:
            self._grant_alone(asking[0], t)
            return
        asking.sort(key=lambda f: f.head.id)
        older: list[tuple[int, Front]] = []  # (ports wanted, by whom)
        matmul = self.matmul
        for f in asking:
            work, at = f.head.work, t
            passes = f.unit is matmul
            if passes:
                mask = work.masks[matmul.next]
                at = matmul.own(work, t)
            else:
                mask = work.mask
            if f.event == t:
                at = f.free(mask, at)
                for wanted, g in older:
                    if wanted & mask:
                        at = max(at, t + 1, g.event if g.request <= t else 0)
                if at > t:
                    f.event = at
                elif passes:
                    wanted = 0  # by older requests that cannot be granted before the horizon
                    for ports, _ in older:
                        wanted |= ports
                    self._grant_passes(f, t, wanted, False)
                else:
                    self._grant(f, t)
            older.append((mask, f))

    def _grant_alone(self, f: Front, t: int) -> None:
        """Try the only request of cycle `t`."""
        unit, work = f.unit, f.head.work
        if unit is self.matmul:
            at = unit.own(work, t)
            clear = f.free(work.onward[unit.next], at) == at
            if not clear:
                at = f.free(work.masks[unit.next], at)
            if at == t:
                self._grant_passes(f, t, 0, clear)
        else:
            at = f.free(work.mask, t)
            if at == t:
                self._grant(f, t)
        if at > t:
            f.event = at

    def _begin(self, f: Front, t: int) -> None:
        """The head of `f` starts in cycle `t`."""
        op = f.head
        self.start[op.id] = t
        for sem, n in op.waits:
            self.counts[sem] -= n

    def _leave(self, f: Front, t: int, read: int, done: int) -> None:
        """The head of `f` leaves in cycle `t`; its last item's releases are `read` and `done`."""
        op = f.head
        self.end[op.id] = done
        if op.rd >= 0:
            heappush(self.posts, (read + 1, op.rd, 1))
        if op.done >= 0:
            heappush(self.posts, (done + 1, op.done, 1))
        f.left.append(t)
        f.load_head()
        self._unit_moved(f)

    def _grant(self, f: Front, t: int) -> None:
        if f.request < t:
            f.port.add(f.request, t - 1)
        self._begin(f, t)
        read, done = f.unit.grant(t, f.head.work)
        self._leave(f, t, read, done)

    def _horizon(self, f: Front, mask: int) -> int:
        """Before this cycle no other unit wants ports of `mask`; NEVER: until the head of `f` left.

        Nobody disturbs the head's passes if nothing more is pushed until it leaves, and what is
        pushed wants other ports or waits for signals that come later.
        """
        if self._pushes_wait():
            for g in self.fronts:
                if g is not f and self._wants(g, mask):
                    break
            else:
                return NEVER
        events = [g.event for g in self.fronts if g is not f]
        return min(self.look, self.posts[0][0] if self.posts else NEVER, *events)

    def _pushes_wait(self) -> bool:
        """Whether the sequencer pushes nothing before MATMUL's head leaves."""
        if self.waits_for is None:
            return True
        what, _, arg = self.waits_for
        if what == ROOM:
            return arg.unit == Unit.MATMUL
        return what == QUIET and Unit.MATMUL in arg

    def _wants(self, g: Front, mask: int) -> bool:
        """Whether what is pushed to `g` may want ports of `mask` before MATMUL's head leaves."""
        for op, _ in g.pushed[len(g.left) :]:
            # a head that asks for its ports has its signals, whoever took the counts since then
            waits = () if op is g.head and g.request < NEVER else op.waits
            for sem, n in waits:
                lack = n - self.counts[sem]
                if lack > 0 and self.by_matmul[sem] and lack > self._coming(sem):
                    return False
            if op.work.mask & mask:
                return True
        return False

    def _coming(self, sem: int) -> int:
        """Signals to `sem` that are on their way."""
        return sum(n for _, s, n in self.posts if s == sem)

    def _grant_passes(self, f: Front, t: int, wanted: int, clear: bool) -> None:
        """Grant MATMUL's pass at `t`, and those after it that come before any other event.

        `wanted` are the ports of older requests, which cannot be granted before that. `clear` means
        that the ports of all passes to come are free now.
        """
        unit, work = self.matmul, f.head.work
        horizon = self._horizon(f, work.onward[unit.next])
        if unit.next == 0:
            self._begin(f, t)
        count, request = len(work.a), f.request
        while True:
            if request < t:
                f.port.add(request, t - 1)
            unit.grant(t, work)
            i = unit.next
            if i < count and unit.ready < horizon:
                stop, ports = work.clash[i], work.onward[i]
                if ports & wanted or not (clear or f.free(ports, unit.ready) == unit.ready):
                    stop = min(stop, work.alike[i - 1])  # their ports were free just now
                unit.grant_run(work, stop, horizon)
            if unit.next == count:
                unit.next = 0
                self._leave(f, unit.granted, unit.read, unit.last_done)
                return
            mask = work.masks[unit.next]
            request = unit.ready
            t = f.free(mask, unit.own(work, request))
            if t >= horizon or mask & wanted:
                break
        f.request, f.event = request, max(t, request)
