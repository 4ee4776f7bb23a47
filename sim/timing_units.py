"""The units' side of the contract: when a unit can take an item, and when it lets go of it.

Everything a unit does with an item is fixed in the cycle of the grant, so a unit is two formulas:
`ready`, the first cycle in which it can take the next item, and `grant`, which gives the cycles of
read_release and done. `Held` remembers the ports until then.
"""

from __future__ import annotations

from typing import Any

from tilewright.isa.table import Unit as Number
from tilewright.sim.timing_causes import Intervals
from tilewright.sim.timing_ops import Passes, Work

NEVER = 1 << 62


class Held:
    """Ports that one unit holds: (mask, last cycle) in order of release; `ever` held."""

    __slots__ = ("ever", "last", "masks")

    def __init__(self) -> None:
        self.ever = 0
        self.masks: list[int] = []
        self.last: list[int] = []

    def hold(self, mask: int, until: int) -> None:
        """Hold `mask` up to and including cycle `until`, the cycle of the release pulse."""
        if self.masks and self.masks[-1] == mask:
            self.last[-1] = until  # granted later, released later: one entry is enough
        elif mask:
            self.ever |= mask
            self.masks.append(mask)
            self.last.append(until)

    def free(self, mask: int, t: int) -> int:
        """First cycle from `t` on in which none of `mask` is held, if nothing more is granted."""
        masks, last = self.masks, self.last
        for i in range(len(last) - 1, -1, -1):
            if last[i] < t:
                break
            if masks[i] & mask:
                return last[i] + 1
        return t


class Unit:
    """What the units share: held ports, items in flight, cycles in use.

    `ready` is the first cycle in which the unit can take its next item.
    """

    number: Number
    limit: int

    def __init__(self, k: Any):
        self.k = k
        self.ready = 0
        self.reading = Held()  # until read_release
        self.writing = Held()  # until done
        self.done: list[int] = []  # of every item granted
        self.last_done = -1
        self.issuing = Intervals()
        self.flight = Intervals()
        self.drained = -1  # last cycle of the last drain, counted as slots

    def _slots(self, t: int, work: Work) -> int:
        """Last slot of an item granted at `t`; the first one may have to wait for a drain."""
        first = max(t + 1, self.drained + 1 - work.hidden)
        last = first + work.slots - 1
        if work.drain:
            self.drained = last + work.drain
        self.issuing.add(t, t)
        self.issuing.add(first, last)
        return last

    def _finish(self, t: int, work: Work, slots_end: int, read: int, done: int) -> None:
        """Record an item granted at `t`; `slots_end` is when its slots allow the next grant."""
        self.reading.hold(work.reads, read)
        self.writing.hold(work.rest, done)
        dones = self.done
        dones.append(done)
        self.last_done = done
        self.flight.add(t + 1, done)
        self.ready = slots_end
        if len(dones) >= self.limit and dones[-self.limit] >= slots_end:
            self.ready = dones[-self.limit] + 1


class Load(Unit):
    """LOAD (contract §3): one slot for each beat, or for each local unit of a fill."""

    number = Number.LOAD

    def __init__(self, k: Any):
        super().__init__(k)
        self.limit = k.LOAD_INFLIGHT
        self.passed = -1  # last cycle in which the last granted item passes the unpacker, or drains

    def grant(self, t: int, work: Work) -> tuple[int, int]:
        """Start at `t`; (read_release, done)."""
        k, last = self.k, self._slots(t, work)
        if work.local:
            self.passed = max(last + k.LOAD_FILL, self.passed + work.slots)
        else:
            self.passed = last + work.drain + k.LOAD_AR + k.read_latency
        done = self.passed + k.LOAD_WRITE
        self._finish(t, work, last, done, done)
        return done, done


class Vector(Unit):
    """VECTOR (contract §6): slots for the micro-kernel's rows, then eight for each word."""

    number = Number.VECTOR

    def __init__(self, k: Any):
        super().__init__(k)
        self.limit = k.VECTOR_INFLIGHT

    def grant(self, t: int, work: Work) -> tuple[int, int]:
        """Start at `t`; (read_release, done)."""
        last = t + work.slots
        read, done = last + self.k.VECTOR_READ, last + self.k.VECTOR_DONE
        self.issuing.add(t, last)
        self._finish(t, work, last, read, done)
        return read, done


class Store(Unit):
    """STORE (contract §4): vector slots, then one slot for each beat or scratchpad unit."""

    number = Number.STORE

    def __init__(self, k: Any):
        super().__init__(k)
        self.limit = k.STORE_INFLIGHT

    def grant(self, t: int, work: Work) -> tuple[int, int]:
        """Start at `t`; (read_release, done). Done pulses come in order, one in a cycle."""
        k, last = self.k, self._slots(t, work)
        delay = k.STORE_SPAD if work.local else k.STORE_W + k.write_latency + k.STORE_B
        read, done = last + k.STORE_READ, last + work.drain + delay
        if done <= self.last_done:
            done = self.last_done + 1
        self._finish(t, work, last, read, done)
        return read, done


class Matmul(Unit):
    """MATMUL (contract §5): the head's instruction is granted pass by pass.

    `granted` is G of the last pass granted, `row` its T, `period` its P, `read` its read_release,
    `a` its A banks.
    """

    number = Number.MATMUL

    def __init__(self, k: Any):
        super().__init__(k)
        self.limit = k.MATMUL_INFLIGHT
        self.least = max(k.dim, k.MATMUL_MIN_PERIOD)  # period of a pass of few rows
        self.granted = self.row = self.read = -1
        self.period = self.a = self.rows = 0
        self.alike = 0  # index in `done` of the first of the passes with as many rows as the last
        self.next = 0  # pass of the head that comes next

    def own(self, work: Passes, t: int) -> int:
        """First cycle from `t` on in which the next pass may load its weights: W against A."""
        return self.read + 1 if t <= self.read and work.w[self.next] & self.a else t

    def grant(self, t: int, work: Passes) -> None:
        """Grant the next pass at `t`; `read` and `last_done` are its releases."""
        k, i, rows = self.k, self.next, work.rows
        row = t + (k.dim if work.w[i] & work.a[i] else k.WEIGHT_LEAD)
        if row < self.row + self.period:
            row = self.row + self.period
        self.period = rows if rows > self.least else self.least
        self._issue(t, row)
        self.granted, self.row, self.a = t, row, work.a[i]
        self.read = row + max(rows, k.dim - k.WEIGHT_LEAD) + k.MATMUL_READ
        done = row + rows + k.MATMUL_DONE
        self.reading.hold(work.reads[i], self.read)
        self.writing.hold(work.rest[i], done)
        dones = self.done
        if rows != self.rows:
            self.rows, self.alike = rows, len(dones)
        dones.append(done)
        self.last_done = done
        if self.flight.ends and t <= self.flight.ends[-1]:
            self.flight.ends[-1] = done
        else:
            self.flight.add(t + 1, done)
        self.ready = max(row, t + k.dim)
        if len(dones) >= self.limit and dones[-self.limit] >= self.ready:
            self.ready = dones[-self.limit] + 1
        self.next = i + 1

    def _issue(self, t: int, row: int) -> None:
        """The unit uses its slots in the cycle `t` of a grant, and from `row` + 1 for a period."""
        starts, ends = self.issuing.starts, self.issuing.ends
        if not starts or t > ends[-1] + 1:
            starts.append(t)
            ends.append(t)
        elif t == ends[-1] + 1:
            ends[-1] = t
        elif t == starts[-1] - 1:  # the cycle before the previous pass's first slot
            starts[-1] = t
        if row == ends[-1]:
            ends[-1] += self.period
        else:
            starts.append(row + 1)
            ends.append(row + self.period)

    def _room(self, row: int) -> bool:
        """Whether `limit` does not bind passes that are granted a period apart, from `row` on."""
        k, limit, period = self.k, self.limit, self.period
        if (limit - 1) * period <= self.rows + k.MATMUL_DONE:
            return False
        if len(self.done) - self.alike >= limit:
            return True  # so are those before
        recent = self.done[-limit:]
        return all(d < row + x * period for x, d in enumerate(recent, limit - len(recent)))

    def grant_run(self, work: Passes, stop: int, horizon: int) -> None:
        """Grant the passes before number `stop` that follow back to back before cycle `horizon`.

        The caller knows that their ports are free from `ready` on, and that none has to wait for
        the one before. Each is granted in the cycle T of the one before, if `limit` does not bind;
        or, where the weights of one follow those of the one before without a gap, as long after it.
        """
        k, rows, period, row, first = self.k, work.rows, self.period, self.row, self.next
        late = self.ready - row
        stop = min(stop, first + (horizon - self.ready - 1) // period + 1)
        gapless = not late or (period == k.dim and not work.meets)
        if stop <= first or not gapless or not self._room(self.ready):
            return
        count = stop - first
        if not late and row == self.issuing.starts[-1] - 1:
            self.issuing.starts[-1] = row
        self.issuing.ends[-1] += count * period
        hold_read, hold_write = self.reading.hold, self.writing.hold
        alike, reads, rest, i, at = work.alike, work.reads, work.rest, first, row + rows
        released = k.MATMUL_READ + max(k.dim - k.WEIGHT_LEAD - rows, 0)
        while i < stop:  # the passes with the same ports, by the releases of the last one
            end = alike[i]
            if end > stop:
                end = stop
            at += (end - i) * period
            hold_read(reads[i], at + released)
            hold_write(rest[i], at + k.MATMUL_DONE)
            i = end
        self.row = row + count * period
        self.granted, self.ready = self.row - period + late, self.row + late
        self.read, done = at + released, at + k.MATMUL_DONE
        self.last_done, self.a = done, work.a[stop - 1]
        self.done += range(done - (min(count, self.limit) - 1) * period, done + 1, period)
        self.flight.ends[-1] = done
        self.next = stop
