"""The timing contract, cycle by cycle: a literal transcription of docs/microarchitecture.md.

Slow and plain on purpose. It shares the lowered `Op` with the event-driven engine and nothing
else: every cycle, each register looks at the registers of the cycle before. Where the two disagree,
one of them does not say what the contract says.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

LOAD, MATMUL, VECTOR, STORE = range(4)
PUSH, SCALAR, POST, WAIT, FENCE, HALT, LDW, STW, FAULT = range(9)


@dataclass
class Item:
    """One granted item on its way through a unit."""

    op: object
    reads: int
    rest: int
    last: bool
    read_at: int | None = None
    done_at: int | None = None
    granted: int = 0


class Fetch:
    """Address generator and instruction buffer."""

    def __init__(self, k, count):
        self.k, self.lines = k, -(-count // 8)
        self.next = 0
        self.busy = 0  # cycles that the generator is still busy
        self.half = None  # line whose second burst is not sent yet
        self.beats = {}  # (line, beat) -> cycle from which it can be read
        self.hold = k.FETCH_START  # no request before
        self.oldest = 0  # line held
        self.loop = self.coming = None  # first line and last instruction; from the next cycle on
        self.backward = False  # a jump of this cycle

    def readable(self, pc, t):
        beats = [self.beats.get((pc // 8, pc % 8 * 4 + i)) for i in range(4)]
        return all(b is not None and b <= t for b in beats)

    def inside(self, pc):
        return self.loop is not None and pc // 8 >= self.loop[0] and pc <= self.loop[1]

    def jump(self, pc, target, t):
        line = target // 8
        self.backward = target <= pc
        if self.backward and not (self.inside(pc) and line >= self.loop[0]) and pc // 8 - line < 4:
            self.coming = (line, pc)
        if self.oldest <= line < self.next or line >= self.lines:
            return
        self.beats.clear()
        self.half = None
        self.next = self.oldest = line
        self.hold = t + self.k.FETCH_RESTART

    def step(self, pc, t):
        """One cycle, after a jump of this cycle."""
        backward, self.backward = self.backward, False
        if self.busy:
            self.busy -= 1
        base = self.loop[0] if self.inside(pc) else pc // 8
        if self.loop is not None and not self.inside(pc):
            self.loop = None
        if self.coming is not None:
            self.loop, self.coming = self.coming, None
        if self.busy or t < self.hold:
            return
        if self.half is not None:
            self._burst(self.half, 16, t)
            self.half = None
        elif base <= self.next <= base + 3 and self.next < self.lines and not backward:
            self._burst(self.next, 0, t)
            for beat in range(32):
                self.beats.pop((self.next - 4, beat), None)
            self.half = self.next
            self.next += 1
            self.oldest = max(self.oldest, self.next - 4)

    def _burst(self, line, first, t):
        self.busy, k = 16, self.k
        for j in range(16):
            self.beats[line, first + j] = t + k.FETCH_AR + k.read_latency + k.FETCH_WRITE + j


class UnitBase:
    """Queue, head, and what is in flight."""

    def __init__(self, number, limit):
        self.number, self.limit = number, limit
        self.queue = deque()
        self.head = None
        self.ok = False
        self.passes = 0
        self.flight = []
        self.causes = [0] * 5

    def masks(self):
        """(read ports, other ports, last item of the head)."""
        w = self.head.work
        if self.number == MATMUL:
            return w.reads[self.passes], w.rest[self.passes], self.passes + 1 == len(w.reads)
        return w.reads, w.rest, True

    def held(self, t):
        mask = 0
        for i in self.flight:
            if i.granted < t:
                mask |= i.reads if i.read_at is None or i.read_at >= t else 0
                mask |= i.rest if i.done_at is None or i.done_at >= t else 0
        return mask

    def busy(self, t):
        return sum(i.granted < t and (i.done_at is None or i.done_at >= t) for i in self.flight)

    def blocked(self, t):
        return False


class Load(UnitBase):
    def __init__(self, k):
        super().__init__(LOAD, k.LOAD_INFLIGHT)
        self.k, self.left, self.item = k, 0, None
        self.tokens = deque()  # (cycle at the unpacker, item, last of the item)
        self.drains = [0, 0]  # cycles of the transposer that slots, and tokens, have to wait for

    def begin(self, t):
        waits, self.drains = self.drains, [max(0, n - 1) for n in self.drains]
        self.slot = self.left > 0 and waits[0] <= self.item.op.work.hidden
        if self.slot:
            self.left -= 1
            k, work = self.k, self.item.op.work
            delay = k.LOAD_FILL if work.local else k.LOAD_AR + k.read_latency
            self.tokens.append((t + delay, self.item, self.left == 0))
            if self.left == 0:
                self.drains[0] = work.drain or self.drains[0]
        due = self.tokens and self.tokens[0][0] <= t
        if due and waits[1] <= self.tokens[0][1].op.work.hidden:
            _, item, last = self.tokens.popleft()
            if last:
                drain = item.op.work.drain
                self.drains[1] = drain or self.drains[1]
                item.read_at = item.done_at = t + drain + self.k.LOAD_WRITE

    def ready(self, t):
        return self.left == 0 and self.busy(t) < self.limit

    def grant(self, item, t):
        self.item, self.left = item, item.op.work.slots


class Store(UnitBase):
    def __init__(self, k):
        super().__init__(STORE, k.STORE_INFLIGHT)
        self.k, self.left, self.item = k, 0, None
        self.due = deque()
        self.drain = 0  # cycles in which a short one's slots would overtake a long one's

    def begin(self, t):
        waits, self.drain = self.drain, max(0, self.drain - 1)
        self.slot = self.left > 0 and waits <= self.item.op.work.hidden
        k = self.k
        if self.slot:
            self.left -= 1
            if self.left == 0:
                work = self.item.op.work
                self.drain = work.drain or self.drain
                wait = k.STORE_SPAD if work.local else k.STORE_W + k.write_latency + k.STORE_B
                self.due.append((t + work.drain + wait, self.item))
                self.item.read_at = t + k.STORE_READ
        if self.due and self.due[0][0] <= t:
            self.due.popleft()[1].done_at = t

    def ready(self, t):
        return self.left == 0 and self.busy(t) < self.limit

    def grant(self, item, t):
        self.item, self.left = item, item.op.work.slots


class Vector(UnitBase):
    def __init__(self, k):
        super().__init__(VECTOR, k.VECTOR_INFLIGHT)
        self.k, self.left, self.item = k, 0, None

    def begin(self, t):
        self.slot = self.left > 0
        if self.slot:
            self.left -= 1
            if self.left == 0:
                self.item.read_at = t + self.k.VECTOR_READ
                self.item.done_at = t + self.k.VECTOR_DONE

    def ready(self, t):
        return self.left == 0 and self.busy(t) < self.limit

    def grant(self, item, t):
        self.item, self.left = item, item.op.work.slots


class Matmul(UnitBase):
    def __init__(self, k):
        super().__init__(MATMUL, k.MATMUL_INFLIGHT)
        self.k = k
        self.pending = None  # (grant cycle, item, rows): first weights on their way
        self.loads = 0  # weight slots left
        self.slots = 0  # left of the running pass's period
        self.previous_a = 0

    def begin(self, t):
        k = self.k
        self.slot = self.slots > 0
        self.slots -= self.slot
        self.loads -= self.loads > 0
        if self.pending and self.slots == 0 and t >= self.pending[0] + self.lead:
            _, item, rows = self.pending
            self.pending = None
            self.slots = max(rows, k.dim, k.MATMUL_MIN_PERIOD)
            item.read_at = t + max(rows, k.dim - k.WEIGHT_LEAD) + k.MATMUL_READ
            item.done_at = t + rows + k.MATMUL_DONE

    def ready(self, t):
        return self.pending is None and self.loads == 0 and self.busy(t) < self.limit

    def blocked(self, t):
        reading = any(i.granted < t and (i.read_at is None or i.read_at >= t) for i in self.flight)
        return reading and self.head.work.w[self.passes] & self.previous_a

    def grant(self, item, t):
        work = item.op.work
        self.previous_a = work.a[self.passes]
        self.pending, self.loads = (t, item, work.rows), self.k.dim
        shared = work.a[self.passes] & work.w[self.passes]  # one after the other through a port
        self.lead = self.k.dim if shared else self.k.WEIGHT_LEAD


@dataclass
class Outcome:
    cycles: int
    start: list
    end: list
    causes: dict = field(default_factory=dict)
    deadlock: bool = False


class Sequencer:
    """FETCH, DECODE to EXTENT as one countdown, EXEC."""

    def __init__(self, chip, ops):
        self.chip, self.ops, self.at = chip, ops, 0
        self.state, self.count, self.first = "fetch", 0, True
        self.stopped = None
        self.waits = False  # in EXEC, for a unit or a semaphore

    def step(self, t):
        """One cycle; whether something moved."""
        self.waits = False
        if self.stopped is not None or self.at >= len(self.ops):
            return False
        op = self.ops[self.at]
        if self.state == "fetch":
            at_once = op.kind == FAULT and op.stage == "fetch"
            if not at_once:
                if not self.chip.fetch.readable(op.pc, t):
                    return False
                self.state, self.count = "lead", op.lead
                return True
            self.state, self.count = "lead", 0
        if self.state == "lead":
            self.count -= 1
            if self.count > 0:
                return True
            self.state, self.first = "exec", True
        if self.first and op.kind != PUSH:
            self.chip.start[op.id] = t
        if self.state == "bus":
            self.count -= 1
            if self.count == 0:
                self._leave(op, t)
            return True
        moved = self._exec(op, t)
        self.first = False
        self.waits = not moved
        return moved

    def _leave(self, op, t):
        if op.kind != PUSH:
            self.chip.end[op.id] = t
        self.at += 1
        self.state = "fetch"

    def _exec(self, op, t):
        chip, k = self.chip, self.chip.k
        units = chip.units.values()
        if op.target >= 0:
            chip.fetch.jump(op.pc, op.target, t)
        if op.kind == PUSH:
            unit = chip.units[op.unit]
            if len(unit.queue) == 16:
                return False
            chip.pushes.append((unit, op))
        elif op.kind == POST:
            chip.posts.append((t + 1, op.sem, op.n))
        elif op.kind == WAIT:
            if chip.counts[op.sem] < op.n:
                return False
            chip.takes.append((op.sem, op.n))
        elif op.kind in (FENCE, HALT, FAULT):
            if not all(chip.quiet(u, t) for u in units):
                return False
            if op.kind == HALT:
                self.stopped = t + k.SEQ_HALT
            if op.kind == FAULT:
                self.stopped = t + k.SEQ_FAULT
        elif op.kind in (LDW, STW):
            if not chip.quiet(chip.units[LOAD if op.kind == LDW else STORE], t):
                return False
            self.state = "bus"
            self.count = k.LDW if op.kind == LDW else k.STW
            return True
        self._leave(op, t)
        return True


class Chip:
    def __init__(self, k, ops, code_count):
        self.k = k
        size = max(op.id for op in ops) + 1
        self.start, self.end = [-1] * size, [-1] * size
        self.units = {LOAD: Load(k), MATMUL: Matmul(k), VECTOR: Vector(k), STORE: Store(k)}
        self.fetch = Fetch(k, code_count)
        self.seq = Sequencer(self, ops)
        self.counts = [0] * 32
        self.posts, self.takes, self.pushes = [], [], []

    def quiet(self, unit, t):
        """Nothing in queue, head or pipeline, SEQ_QUIET cycles after the last done."""
        late = any(i.done_at is None or i.done_at + self.k.SEQ_QUIET > t for i in unit.flight)
        return not unit.queue and unit.head is None and not late

    def run(self):
        t = 0
        while True:
            dead = self.step(t)
            if self.seq.stopped is not None:
                for _ in range(t, self.seq.stopped):
                    t += 1
                    for u in self.units.values():
                        u.begin(t)
                    self.count_causes(t, [])
                return self.outcome(t + 1)
            t += 1
            if dead:
                for later in range(t, t + self.k.SEQ_DEADLOCK):
                    for u in self.units.values():
                        u.begin(later)
                    self.count_causes(later, [])
                return self.outcome(t + self.k.SEQ_DEADLOCK, deadlock=True)

    def outcome(self, cycles, deadlock=False):
        causes = {n: u.causes for n, u in self.units.items()}
        return Outcome(cycles, self.start, self.end, causes, deadlock)

    def step(self, t):
        for sem, n in self.takes:
            self.counts[sem] -= n
        self.takes = []
        for _, sem, n in [p for p in self.posts if p[0] == t]:
            self.counts[sem] = min(self.counts[sem] + n, 255)
        self.posts = [p for p in self.posts if p[0] > t]
        for u in self.units.values():
            u.begin(t)
        pc = self.seq.ops[self.seq.at].pc if self.seq.at < len(self.seq.ops) else 0
        self.seq.step(t)
        self.fetch.step(pc, t)
        dead = self.dead(t)
        granted = self.arbitrate(t)
        self.count_causes(t, granted)
        self.release(t)
        self.advance(granted)
        return dead

    def dead(self, t):
        """The sequencer waits, and no unit can move any more."""
        if not self.seq.waits:
            return False
        for u in self.units.values():
            held = u.head and not u.ok and any(self.counts[s] < n for s, n in u.head.waits)
            empty = u.head is None and not u.queue
            if u.busy(t) or not (held or empty):
                return False
        heads = any(u.head for u in self.units.values())
        return heads or self.seq.ops[self.seq.at].kind == WAIT  # else it is quiet soon

    def arbitrate(self, t):
        """Grants of this cycle; the oldest request first."""
        asking = [u for u in self.units.values() if u.head and u.ok and u.ready(t)]
        granted, wanted = [], 0
        for u in sorted(asking, key=lambda u: u.head.id):
            reads, rest, last = u.masks()
            taken = wanted
            for other in self.units.values():
                if other is not u:
                    taken |= other.held(t)
            wanted |= reads | rest
            if not taken & (reads | rest) and not u.blocked(t):
                item = Item(u.head, reads, rest, last, granted=t)
                granted.append((u, item))
        return granted

    def count_causes(self, t, granted):
        start = {u for u, _ in granted}
        for u in self.units.values():
            if u.slot or u in start:
                cause = 0
            elif u.head and not u.ok:
                cause = 1
            elif u.head and u.ready(t):
                cause = 2
            elif u.busy(t):
                cause = 3
            else:
                cause = 4
            u.causes[cause] += 1

    def release(self, t):
        """Signals of pulses in this cycle; a unit's end."""
        for u in self.units.values():
            for i in u.flight:
                if i.last and i.read_at == t and i.op.rd >= 0:
                    self.posts.append((t + 1, i.op.rd, 1))
                if i.last and i.done_at == t:
                    self.end[i.op.id] = t
                    if i.op.done >= 0:
                        self.posts.append((t + 1, i.op.done, 1))
            u.flight = [i for i in u.flight if i.done_at is None or i.done_at > t - 8]

    def advance(self, granted):
        """Registers of the next cycle: unit, head, ok, queue."""
        counts = list(self.counts)
        for u in self.units.values():
            holds = u.head is not None and all(counts[s] >= n for s, n in u.head.waits)
            u.ok = u.head is not None and (u.ok or holds)
        for u, item in granted:
            if u.passes == 0:
                self.start[item.op.id] = item.granted
                self.takes += list(item.op.waits)
            u.flight.append(item)
            u.grant(item, item.granted)
            u.passes += 1
            if item.last:
                u.passes, u.head, u.ok = 0, None, False
        for u in self.units.values():
            if u.head is None and u.queue:
                u.head, u.ok = u.queue.popleft(), False
        for u, op in self.pushes:
            u.queue.append(op)
        self.pushes = []
