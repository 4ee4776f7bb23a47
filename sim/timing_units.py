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
    """Ports that one unit holds: (mask, last cycle) in order of release."""

    __slots__ = ("last", "masks")

    def __init__(self) -> None:
        self.masks: list[int] = []
        self.last: list[int] = []

    def hold(self, mask: int, until: int) -> None:
        """Hold `mask` up to and including cycle `until`, the cycle of the release pulse."""
        if self.masks and self.masks[-1] == mask:
            self.last[-1] = until  # granted later, released later: one entry is enough
        elif mask:
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
    """What LOAD, MATMUL and STORE share: held ports, items in flight, cycles in use.

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

    def free(self, mask: int, t: int) -> int:
        """First cycle from `t` on in which this unit holds none of `mask`."""
        return max(self.reading.free(mask, t), self.writing.free(mask, t))

    def _finish(self, t: int, work: Work, slots_end: int, read: int, done: int) -> None:
        """Record an item granted at `t`; `slots_end` is when its slots allow the next grant."""
        self.reading.hold(work.reads, read)
        self.writing.hold(work.rest, done)
        self.done.append(done)
        self.last_done = done
        self.flight.add(t + 1, done)
        limit = self.limit
        oldest = self.done[-limit] + 1 if len(self.done) >= limit else 0
        self.ready = max(slots_end, oldest)


class Load(Unit):
    """LOAD (contract §3): one slot for each beat, or for each local unit of a fill."""

    number = Number.LOAD

    def __init__(self, k: Any):
        super().__init__(k)
        self.limit = k.LOAD_INFLIGHT
        self.passed = -1  # last cycle in which the last granted item passes the unpacker

    def grant(self, t: int, work: Work) -> tuple[int, int]:
        """Start at `t`; (read_release, done)."""
        k, last = self.k, t + work.slots
        if work.local:
            self.passed = max(t + 1 + k.LOAD_FILL, self.passed + 1) + work.slots - 1
        else:
            self.passed = last + k.LOAD_AR + k.read_latency
        done = self.passed + k.LOAD_WRITE
        self.issuing.add(t, last)
        self._finish(t, work, last, done, done)
        return done, done


class Store(Unit):
    """STORE (contract §4): vector slots, then one slot for each beat or scratchpad unit."""

    number = Number.STORE

    def __init__(self, k: Any):
        super().__init__(k)
        self.limit = k.STORE_INFLIGHT

    def grant(self, t: int, work: Work) -> tuple[int, int]:
        """Start at `t`; (read_release, done). Done pulses come in order, one in a cycle."""
        k, last = self.k, t + work.slots
        delay = k.STORE_SPAD if work.local else k.STORE_W + k.write_latency + k.STORE_B
        read, done = last + k.STORE_READ, max(last + delay, self.last_done + 1)
        self.issuing.add(t, last)
        self._finish(t, work, last, read, done)
        return read, done


class Matmul(Unit):
    """MATMUL (contract §5): the head's instruction is granted pass by pass.

    `row` is T of the last pass granted, `period` its P, `read` its read_release, `a` its A banks.
    """

    number = Number.MATMUL

    def __init__(self, k: Any):
        super().__init__(k)
        self.limit = k.MATMUL_INFLIGHT
        self.row = self.read = -1
        self.period = self.a = 0
        self.next = 0  # pass of the head that comes next

    def own(self, work: Passes, t: int) -> int:
        """First cycle from `t` on in which the next pass may load its weights: W against A."""
        return max(t, self.read + 1) if work.w[self.next] & self.a else t

    def grant(self, t: int, work: Passes) -> tuple[int, int]:
        """Grant the next pass at `t`; (read_release, done) of the pass."""
        k, i, rows = self.k, self.next, work.rows
        row = t + k.dim
        if row < self.row + self.period:
            row = self.row + self.period
        issuing = self.issuing
        starts, ends = issuing.starts, issuing.ends
        if not starts or t > ends[-1] + 1:
            starts.append(t)
            ends.append(t)
        elif t == ends[-1] + 1:
            ends[-1] = t
        elif t == starts[-1] - 1:  # the cycle before the previous pass's first slot
            starts[-1] = t
        period = max(rows, k.dim, k.MATMUL_MIN_PERIOD)
        if row == ends[-1]:
            ends[-1] += period
        else:
            starts.append(row + 1)
            ends.append(row + period)
        self.row, self.period, self.a = row, period, work.a[i]
        self.read = row + rows + k.MATMUL_READ
        done = row + rows + k.MATMUL_DONE
        self.reading.hold(work.reads[i], self.read)
        self.writing.hold(work.rest[i], done)
        dones = self.done
        dones.append(done)
        self.last_done = done
        if self.flight.ends and t <= self.flight.ends[-1]:
            self.flight.ends[-1] = done
        else:
            self.flight.add(t + 1, done)
        self.ready = row
        if len(dones) >= self.limit and dones[-self.limit] >= row:
            self.ready = dones[-self.limit] + 1
        self.next = i + 1
        return self.read, done

    def grant_alike(self, work: Passes, horizon: int) -> bool:
        """Grant the passes that follow back to back with the same ports before `horizon`.

        The pass just granted had its ports free, so these have too. Each is granted in the cycle T
        of the one before, as long as `limit` does not bind. Whether there was any.
        """
        k, rows, period, row, limit = self.k, work.rows, self.period, self.row, self.limit
        count = min(work.alike[self.next - 1] - self.next, (horizon - row - 1) // period + 1)
        recent = self.done[-limit:]
        if (
            count <= 0
            or (limit - 1) * period <= rows + k.MATMUL_DONE
            or any(d >= row + x * period for x, d in enumerate(recent, limit - len(recent)))
        ):
            return False
        if row == self.issuing.starts[-1] - 1:
            self.issuing.starts[-1] = row
        self.issuing.ends[-1] += count * period
        self.row = self.ready = row = row + count * period
        self.read = row + rows + k.MATMUL_READ
        done = row + rows + k.MATMUL_DONE
        self.reading.last[-1], self.writing.last[-1] = self.read, done
        self.done += range(done - (min(count, limit) - 1) * period, done + 1, period)
        self.last_done = self.flight.ends[-1] = done
        self.next += count
        return True
