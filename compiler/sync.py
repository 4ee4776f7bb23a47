"""Waits and signals, derived from what each operation reads and writes.

Each unit works in order, so a consumer needs to wait only for the *latest* operation of another
unit that it depends on, and only if nothing that it or its unit waited for says already that this
one is through (`Known`, the checker's happens-before). Each such edge costs one token: the producer
signals, the consumer waits for one. There is one semaphore for each (producer, consumer) pair of
units, hence one signaller, one kind of signal and one waiter, and the k-th wait matches the k-th
signal. At most `TOKENS` are under way on a semaphore: where there would be more, a consumer waits
for a later producer. That costs nothing, because a unit's queue is shorter, so the earlier ones are
done by the time that the consumer is dispatched.

An operation has two waits, and one signal of each kind. Where that is too little, `_Edges` takes a
later producer, or one of another unit that waited for it, or lets an earlier operation of the unit
wait; where nothing helps, a fence goes before the operation.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType

from tilewright.compiler.dispatch import Needs, reorder
from tilewright.compiler.kernels import Buffer
from tilewright.compiler.sync_edges import Edges, Need, Stuck
from tilewright.compiler.tiles import Dram, Local, Op
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import Mem, Unit

#: (producer, consumer) -> (semaphore, signal). Reads free a place for the consumer with "rd"; where
#: the same signal also announces results it is "done": then the sources have been read, too.
CHANNELS = {
    (Unit.LOAD, Unit.MATMUL): (0, "done"),
    (Unit.LOAD, Unit.STORE): (1, "done"),
    (Unit.MATMUL, Unit.LOAD): (2, "rd"),
    (Unit.MATMUL, Unit.STORE): (3, "done"),
    (Unit.STORE, Unit.MATMUL): (4, "rd"),
    (Unit.STORE, Unit.LOAD): (5, "done"),
    (Unit.LOAD, Unit.VECTOR): (6, "done"),
    (Unit.VECTOR, Unit.LOAD): (7, "rd"),
    (Unit.VECTOR, Unit.STORE): (8, "done"),
    (Unit.STORE, Unit.VECTOR): (9, "rd"),
    (Unit.MATMUL, Unit.VECTOR): (10, "done"),
    (Unit.VECTOR, Unit.MATMUL): (11, "done"),
}
TOKENS = 64


class SyncError(RuntimeError):
    """Operations that need a signal which their unit cannot give; a bug in the compiler."""


Before = Mapping[Buffer, tuple[Buffer, ...]]  # a temporary -> those that had its bytes
After = tuple[int, str]  # an operation, and whether it must have read ("rd") or be through ("done")


class _Regions:
    """Last writer and later readers (one per unit) of every row of one local memory.

    Rows with the same history form a region; the edges of what operations touch are its bounds.
    """

    def __init__(self) -> None:
        self.starts: list[int] = [0]  # of regions, ascending; the last one has no end
        self.writer: list[int] = [-1]
        self.readers: list[dict[Unit, int]] = [{}]

    def _cut(self, row: int) -> int:
        """The index of the region that begins at `row`."""
        at = bisect_left(self.starts, row)
        if at == len(self.starts) or self.starts[at] != row:
            self.starts.insert(at, row)
            self.writer.insert(at, self.writer[at - 1])
            self.readers.insert(at, dict(self.readers[at - 1]))
        return at

    def read(self, place: Local, number: int, unit: Unit) -> set[After]:
        first = self._cut(place.lo)
        end = self._cut(place.hi)
        for readers in self.readers[first:end]:
            readers[unit] = number
        return {(n, "done") for n in self.writer[first:end] if n >= 0}

    def write(self, place: Local, number: int) -> set[After]:
        first = self._cut(place.lo)
        end = self._cut(place.hi)
        found: set[After] = set()
        for at in range(first, end):
            found.update((n, "rd") for n in self.readers[at].values() if n != number)
            if self.writer[at] >= 0:
                found.add((self.writer[at], "done"))
        self.starts[first:end] = [place.lo]
        self.writer[first:end] = [number]
        self.readers[first:end] = [{}]
        return found


class _Bytes:
    """What was written and read of a buffer; LOAD reads and STORE writes, each in order."""

    def __init__(self) -> None:
        self.written: list[tuple[Dram, int]] = []
        self.read: list[tuple[Dram, int]] = []

    @staticmethod
    def latest(spans: list[tuple[Dram, int]], place: Dram, kind: str) -> set[After]:
        """The last operation that touched one of these bytes."""
        for other, number in reversed(spans):
            if other.meets(place):
                return {(number, kind)}
        return set()


class Tracker:
    """Dependencies of each operation on earlier ones of other units."""

    def __init__(self, before: Before) -> None:
        self.local = {mem: _Regions() for mem in Mem}
        self.dram: dict[Buffer, _Bytes] = {}
        self.before = before

    def depends(self, number: int, op: Op) -> set[After]:
        """What `op` must follow; records `op` as reader and writer."""
        found: set[After] = set()
        for place in op.reads:
            if isinstance(place, Local):
                found |= self.local[place.mem].read(place, number, op.unit)
            else:
                touched = self.dram.setdefault(place.buffer, _Bytes())
                found |= touched.latest(touched.written, place, "done")
                touched.read.append((place, number))
        for place in op.writes:
            if isinstance(place, Local):
                found |= self.local[place.mem].write(place, number)
            else:
                touched = self.dram.setdefault(place.buffer, _Bytes())
                found |= touched.latest(touched.read, place, "rd")
                if not touched.written:
                    found |= self._left(place.buffer)
                touched.written.append((place, number))
        return found

    def _left(self, buffer: Buffer) -> set[After]:
        """The last reads of those that were in a temporary's bytes before."""
        old = (self.dram.get(b) for b in self.before.get(buffer, ()))
        return {(o.read[-1][1], "rd") for o in old if o is not None and o.read}


Pairs = list[tuple[int, int]]  # (producer, consumer), both strictly ascending


def synchronise(
    ops: list[Op], config: ChipConfig | None = None, before: Before = MappingProxyType({})
) -> None:
    """Fill in `sync` (wait, signal and semaphore fields) of every operation.

    With a chip, its first operations are put into the order in which the units will want them. A
    fence among them orders all before it and all behind it, so each part is on its own. One is put
    in where an operation would need more waits or signals than it has.

    Parameters
    ----------
    before : temporaries whose bytes another one takes, which is written when they are dead.
    """
    fences = [i for i, op in enumerate(ops) if op.name == "fence"]
    if fences:
        out: list[Op] = []
        for number, (lo, hi) in enumerate(pairwise([-1, *fences, len(ops)])):
            part = ops[lo + 1 : hi]
            synchronise(part, None if number else config, before)
            out += part if hi == len(ops) else [*part, ops[hi]]
        ops[:] = out
        return
    needs = needs_of(ops, before)
    if config is not None:
        needs = reorder(config, ops, needs)
    edges = Edges(ops, CHANNELS)
    try:
        for number, need in enumerate(needs):
            edges.add(number, need)
    except Stuck as stuck:
        ops.insert(stuck.number, Op("fence", {}, (), (), ops[stuck.number].kernel))
        synchronise(ops, config, before)
        return
    for pair, found in sorted(edges.found.items()):
        semaphore, signal = CHANNELS[pair]
        for producer, consumer in _bounded(found):
            _signal(ops[producer], signal, semaphore)
            _wait(ops[consumer], semaphore)


def needs_of(ops: list[Op], before: Before = MappingProxyType({})) -> Needs:
    """For each operation the latest one of each other unit that it must follow."""
    tracker = Tracker(before)
    needs: Needs = []
    for number, op in enumerate(ops):
        latest: dict[Need, int] = {}
        for n, kind in tracker.depends(number, op):
            unit = ops[n].unit
            if unit != op.unit and latest.get((unit, kind), -1) < n:
                latest[unit, kind] = n
        needs.append(latest)
    return needs


def _bounded(edges: Pairs) -> Pairs:
    """The same edges or later producers, with at most `TOKENS` tokens under way."""
    out, at = [], 0
    producers = [n for n, _ in edges]
    while at < len(edges):
        consumer = edges[at][1]
        ahead = bisect_left(producers, consumer) - at  # tokens under way at this wait
        at += max(0, ahead - TOKENS)
        out.append((producers[at], consumer))
        at += 1
    return out


def _signal(op: Op, signal: str, semaphore: int) -> None:
    if op.sync.get(f"{signal}_en") and op.sync[f"{signal}_sem"] != semaphore:
        raise SyncError(f"{op} would signal two semaphores with one {signal}")
    op.sync |= {f"{signal}_en": 1, f"{signal}_sem": semaphore}


def _wait(op: Op, semaphore: int) -> None:
    slot = "wait1" if "wait0_n" in op.sync else "wait0"
    if f"{slot}_n" in op.sync:
        raise SyncError(f"{op} would need a third wait")
    op.sync |= {slot: semaphore, f"{slot}_n": 1}
