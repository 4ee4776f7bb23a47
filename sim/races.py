"""Happens-before over semaphores, and the accesses that it leaves unordered.

Every instruction has three events: start, read-done, done. Within a unit starts, read-dones and
dones are each in order. Across units only signals order: the wait that takes the k-th token starts
after the event that gave it. The sequencer is in order; dispatch comes before start. A clock says,
for each unit, how many read-dones and dones are known; they come in order, so that is enough.

An earlier write and a later access need done before start; an earlier read and a later write need
read-done before start. Within a unit writes land in order and never pass older reads; only a read
after a write needs an edge, and MATMULs that accumulate on the same rows in sequence do not, nor do
the streams of VECTORs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
from tilewright.isa.config import SEMAPHORES, ChipConfig
from tilewright.isa.table import Dest, Mem, Type, Unit
from tilewright.sim.footprint import Access, Box, accesses, word
from tilewright.sim.functional import Executed

UNITS = 4  # queued units; a clock is their read-dones, then their dones
Clock = tuple[int, ...]
ZERO: Clock = (0,) * (2 * UNITS)
_DIRECT = 24  # pairs that a loop compares faster than NumPy


def _join(a: Clock, b: Clock) -> Clock:
    return a if a is b else tuple(map(max, a, b))


def _known(clock: Clock, at: int, count: int) -> Clock:
    out = list(clock)
    out[at] = count
    return tuple(out)


@dataclass
class Race:
    """Two accesses that nothing orders. `missing` is the event that must be waited for."""

    first: Executed
    second: Executed
    space: str
    cells: tuple[int, int]
    missing: str  # "done" or "read-done"
    kind: str  # "read after write", "write after read", "write after write"


class _History:
    """All accesses of one unit and kind to one memory, in order."""

    def __init__(self) -> None:
        self.numbers: list[int] = []  # of the instruction within its unit
        self.items: list[tuple[Executed, Access]] = []
        self._bounds = np.empty((2, 64), np.int64)

    def add(self, number: int, e: Executed, access: Access) -> None:
        n = len(self.items)
        if n == self._bounds.shape[1]:
            self._bounds = np.concatenate([self._bounds, np.empty_like(self._bounds)], axis=1)
        self._bounds[:, n] = access.low, access.end
        self.numbers.append(number)
        self.items.append((e, access))

    def near(self, known: int, access: Access) -> Iterator[tuple[Executed, Access]]:
        """Those of instructions from number `known` on whose bounds meet the access's."""
        first = bisect_left(self.numbers, known)
        if len(self.items) - first <= _DIRECT:
            for item in self.items[first:]:
                if item[1].low < access.end and access.low < item[1].end:
                    yield item
            return
        low, end = self._bounds[:, first : len(self.items)]
        for i in np.flatnonzero((low < access.end) & (access.low < end)).tolist():
            yield self.items[first + i]


def _same_rows(config: ChipConfig, a: Mapping[str, int], b: Mapping[str, int]) -> bool:
    """Whether MATMUL `b` meets each row of `a` at the same place of a pass's sequence."""
    bases = [v["c"] + np.arange(-(-v["n"] // config.dim), dtype=np.int64) * v["cn"] for v in (a, b)]
    gap = bases[1][:, None] - bases[0]
    meet = (gap < a["r0"] * a["r1"]) & (-gap < b["r0"] * b["r1"])
    return not (meet & (gap != 0)).any()


def _once(box: Box) -> bool:
    """Whether a box names each of its cells once."""
    starts, ends = Access("", False, (box,)).spans
    return int((ends - starts).sum()) == box.width * prod(n for n, _ in box.dims)


def _in_place(v: Mapping[str, int], target: Access) -> bool:
    """Whether a scratchpad STORE writes each unit once and only where it has just read it."""
    same = (v["loc"], v["l0"], v["l1"], v["l2"]) == (v["dst"], v["d0"], v["s1"], v["s2"])
    if not same or v["pool"] or v["xpose"] or (v["type"] == Type.BF16) != (v["out"] == Type.BF16):
        return False
    return _once(target.boxes[0])


def _unit_by_unit(read: Access, written: Access) -> bool:
    """Whether a VECTOR's stores to `written` meet loads of `read` only in place."""
    if not read.ordered:  # the micro-kernel
        return False
    a, b = read.boxes[0], written.boxes[0]
    steps = [[(n, s) for n, s in box.dims if n > 1] for box in (a, b)]
    return a.base == b.base and a.width == b.width and steps[0] == steps[1] and _once(b)


@dataclass
class Order:
    """The happens-before relation of a trace, built one instruction at a time."""

    config: ChipConfig
    seq: Clock = ZERO
    counts: list[int] = field(default_factory=lambda: [0] * UNITS)
    races: list[Race] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._last = {event: [ZERO] * UNITS for event in ("start", "read", "done")}
        self._tokens: list[list[Clock]] = [[] for _ in range(SEMAPHORES)]
        self._taken = [0] * SEMAPHORES
        self._history = {
            (space, unit, write): _History()
            for space in ("spad", "acc", "dram")
            for unit in Unit
            for write in (False, True)
        }
        self._footprints: dict[int, tuple[Mapping[str, int], tuple[Access, ...]]] = {}
        self._met: dict[tuple[int, int], tuple[int, int] | None] = {}
        self._seen: set[tuple[int, int, str]] = set()

    def add(self, e: Executed) -> None:
        """Take the next instruction of the trace, which did not fault."""
        assert e.instr is not None
        if e.unit is Unit.SEQ:
            self._scalar(e, e.decoded.spec.name)
        else:
            self._queued(e)

    def _take(self, clock: Clock, sem: int, n: int) -> Clock:
        """The clock after taking `n` tokens; those that never came (a deadlock) order nothing."""
        first = self._taken[sem]
        self._taken[sem] += n
        for token in self._tokens[sem][first : first + n]:
            clock = _join(clock, token)
        return clock

    def _scalar(self, e: Executed, name: str) -> None:
        v, done = e.values, self._last["done"]
        if name == "wait":
            self.seq = self._take(self.seq, v["sem"], v["n"])
        elif name == "post":
            self._tokens[v["sem"]] += [self.seq] * v["n"]
        elif name in ("fence", "halt"):
            for clock in done:
                self.seq = _join(self.seq, clock)
        elif name in ("ldw", "stw"):
            self.seq = _join(self.seq, done[Unit.LOAD if name == "ldw" else Unit.STORE])
            self._compare(e, self.seq, word(e.address, name == "stw"))

    def _queued(self, e: Executed) -> None:
        unit, v, last = int(e.unit), e.values, self._last
        number = self.counts[unit]
        start = _join(self.seq, last["start"][unit])
        for i in ("0", "1"):
            if v["wait" + i + "_n"]:
                start = self._take(start, v["wait" + i], v["wait" + i + "_n"])
        touched = self._accesses(e)
        for access in touched:
            self._compare(e, start, access)
        for access in touched:
            self._history[access.space, e.unit, access.write].add(number, e, access)
        self._within(e, touched)
        read = _known(_join(start, last["read"][unit]), unit, number + 1)
        done = _known(_join(read, last["done"][unit]), UNITS + unit, number + 1)
        last["start"][unit], last["read"][unit], last["done"][unit] = start, read, done
        if v["rd_en"]:
            self._tokens[v["rd_sem"]].append(read)
        if v["done_en"]:
            self._tokens[v["done_sem"]].append(done)
        self.counts[unit] += 1

    def _accesses(self, e: Executed) -> tuple[Access, ...]:
        """Footprints, built once for each distinct set of resolved values."""
        known = self._footprints.get(id(e.values))
        if known is None:
            known = (e.values, tuple(accesses(self.config, e.decoded.spec, e.values)))
            self._footprints[id(e.values)] = known
        return known[1]

    def _meets(self, a: Access, b: Access) -> tuple[int, int] | None:
        if b.boxes and not b.boxes[0].dims:  # a scalar's word, which nothing keeps alive
            return a.meets(b)
        key = (id(a), id(b))
        if key not in self._met:
            self._met[key] = a.meets(b)
        return self._met[key]

    def _compare(self, e: Executed, start: Clock, access: Access) -> None:
        """Report every earlier access that conflicts with this one and is not known to be over."""
        for unit in list(Unit)[:UNITS]:
            own = unit is e.unit
            if not (own and (access.write or access.ordered)):
                older = self._history[access.space, unit, True]
                for first, other in older.near(start[UNITS + unit], access):
                    if (
                        own
                        and unit is Unit.MATMUL
                        and _same_rows(self.config, first.values, e.values)
                    ):
                        continue
                    kind = "write after write" if access.write else "read after write"
                    self._report(first, other, e, access, "done", kind)
            if access.write and not own:
                # a MATMUL's accumulator reads are over with its writes, which the above has seen
                if unit is Unit.MATMUL and access.space == "acc":
                    continue
                older = self._history[access.space, unit, False]
                for first, other in older.near(start[unit], access):
                    self._report(first, other, e, access, "read-done", "write after read")

    def _report(
        self, first: Executed, a: Access, second: Executed, b: Access, missing: str, kind: str
    ) -> None:
        key = (first.pc, second.pc, kind)
        if key in self._seen:
            return
        cells = self._meets(a, b)
        if cells is not None:
            self._seen.add(key)
            self.races.append(Race(first, second, b.space, cells, missing, kind))

    def _within(self, e: Executed, touched: tuple[Access, ...]) -> None:
        """An instruction that reads what it writes itself, other than row by row in place."""
        v = e.values
        if e.unit is Unit.MATMUL and v["acc"] and not _same_rows(self.config, v, v):
            self._report(e, touched[2], e, touched[3], "done", "read after write")
        if e.unit is Unit.LOAD and v["gather"] and v["mem"] == Mem.SPAD:
            self._report(e, touched[0], e, touched[-1], "done", "read after write")
        if e.unit is Unit.STORE and v["dest"] == Dest.SPAD and not _in_place(v, touched[-1]):
            for access in touched[:-1]:
                if access.space == "spad":
                    self._report(e, touched[-1], e, access, "done", "read after write")
        if e.unit is Unit.VECTOR:
            for written in (a for a in touched if a.write):
                for read in (a for a in touched if not a.write):
                    if read.space == written.space and not _unit_by_unit(read, written):
                        self._report(e, written, e, read, "done", "read after write")
