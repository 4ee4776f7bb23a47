"""Waits and signals, derived from what each operation reads and writes.

Each unit works in order, so a consumer needs to wait only for the *latest* operation of another
unit that it depends on, and only if it has not waited for that one or a later one before. Each such
edge costs one token: the producer signals, the consumer waits for one. There is one semaphore for
each (producer, consumer) pair of units, hence one signaller, one kind of signal and one waiter, and
the k-th wait matches the k-th signal. At most `TOKENS` are under way on a semaphore: where there
would be more, a consumer waits for a later producer. That costs nothing, because a unit's queue is
shorter, so the earlier producers are done by the time that the consumer is dispatched.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

from tilewright.compiler.dispatch import reorder
from tilewright.compiler.kernels import Buffer
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
}  # MATMUL and VECTOR have a fence between them
TOKENS = 64


class SyncError(RuntimeError):
    """Operations that need a signal which their unit cannot give; a bug in the compiler."""


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

    def read(self, place: Local, number: int, unit: Unit) -> set[int]:
        first = self._cut(place.lo)
        end = self._cut(place.hi)
        for readers in self.readers[first:end]:
            readers[unit] = number
        return {n for n in self.writer[first:end] if n >= 0}

    def write(self, place: Local, number: int) -> set[int]:
        first = self._cut(place.lo)
        end = self._cut(place.hi)
        found: set[int] = set()
        for at in range(first, end):
            readers = self.readers[at]
            if readers:
                found.update(readers.values())
            elif self.writer[at] >= 0:
                found.add(self.writer[at])
        self.starts[first:end] = [place.lo]
        self.writer[first:end] = [number]
        self.readers[first:end] = [{}]
        return found


class _Bytes:
    """What was written and read of a buffer; LOAD reads and STORE writes, each in order."""

    def __init__(self) -> None:
        self.written: list[tuple[int, int, int]] = []
        self.read: list[tuple[int, int, int]] = []

    @staticmethod
    def latest(spans: list[tuple[int, int, int]], place: Dram) -> set[int]:
        """The last operation that touched one of these bytes."""
        for lo, hi, number in reversed(spans):
            if lo < place.hi and place.lo < hi:
                return {number}
        return set()


class Tracker:
    """Dependencies of each operation on earlier ones of other units."""

    def __init__(self) -> None:
        self.local = {mem: _Regions() for mem in Mem}
        self.dram: dict[Buffer, _Bytes] = {}

    def depends(self, number: int, op: Op) -> set[int]:
        """Numbers of operations that `op` must follow; records `op` as reader and writer."""
        found: set[int] = set()
        for place in op.reads:
            if isinstance(place, Local):
                found |= self.local[place.mem].read(place, number, op.unit)
            else:
                touched = self.dram.setdefault(place.buffer, _Bytes())
                found |= touched.latest(touched.written, place)
                touched.read.append((place.lo, place.hi, number))
        for place in op.writes:
            if isinstance(place, Local):
                found |= self.local[place.mem].write(place, number)
            else:
                touched = self.dram.setdefault(place.buffer, _Bytes())
                found |= touched.latest(touched.read, place)
                touched.written.append((place.lo, place.hi, number))
        return found


Needs = list[dict[Unit, int]]
Edges = list[tuple[int, int]]  # (producer, consumer), both strictly ascending


def synchronise(ops: list[Op], config: ChipConfig | None = None) -> None:
    """Fill in `sync` (wait, signal and semaphore fields) of every operation.

    With a chip, its first operations are put into the order in which the units will want them. A
    fence among them orders all before it and all behind it, so each part is on its own.
    """
    fences = [i for i, op in enumerate(ops) if op.name == "fence"]
    if fences:
        for number, (lo, hi) in enumerate(pairwise([-1, *fences, len(ops)])):
            part = ops[lo + 1 : hi]
            synchronise(part, None if number else config)
            ops[lo + 1 : hi] = part
        return
    needs = _needs(ops)
    if config is not None:
        needs = reorder(config, ops, needs)
    for pair, edges in sorted(_edges(ops, needs).items()):
        semaphore, signal = CHANNELS[pair]
        for producer, consumer in _bounded(edges):
            _signal(ops[producer], signal, semaphore)
            _wait(ops[consumer], semaphore)


def _needs(ops: list[Op]) -> Needs:
    """For each operation the latest one of each other unit that it must follow."""
    tracker = Tracker()
    needs: Needs = []
    for number, op in enumerate(ops):
        latest: dict[Unit, int] = {}
        for n in tracker.depends(number, op):
            unit = ops[n].unit
            if unit != op.unit and latest.get(unit, -1) < n:
                latest[unit] = n
        needs.append(latest)
    return needs


def _edges(ops: list[Op], needs: Needs) -> dict[tuple[Unit, Unit], Edges]:
    """The waits that are needed, for each pair of units."""
    edges: dict[tuple[Unit, Unit], Edges] = {}
    for number, op in enumerate(ops):
        for unit, n in needs[number].items():
            found = edges.setdefault((unit, op.unit), [])
            if not found or found[-1][0] < n:
                found.append((n, number))
    return edges


def _bounded(edges: Edges) -> Edges:
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
