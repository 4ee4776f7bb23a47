"""Waits and signals, derived from what each operation reads and writes.

Each unit works in order, so a consumer needs to wait only for the *latest* operation of another unit that it
depends on, and only if it has not waited for that one or a later one before. Each such pair costs one token: the
producer signals, the consumer waits for one. There is one semaphore for each (producer, consumer) pair of units, hence
one signaller, one kind of signal and one waiter, and the k-th wait matches the k-th signal.
"""

from __future__ import annotations

from tilewright.compiler.kernels import Buffer
from tilewright.compiler.tiles import Dram, Local, Op
from tilewright.isa.table import Mem, Unit

#: (producer, consumer) -> (semaphore, signal). Reads free a place for the consumer with "rd"; where the same
#: signal also announces results it is "done", which implies that the sources have been read.
CHANNELS = {
    (Unit.LOAD, Unit.MATMUL): (0, "done"),
    (Unit.LOAD, Unit.STORE): (1, "done"),
    (Unit.MATMUL, Unit.LOAD): (2, "rd"),
    (Unit.MATMUL, Unit.STORE): (3, "done"),
    (Unit.STORE, Unit.MATMUL): (4, "rd"),
    (Unit.STORE, Unit.LOAD): (5, "done"),
}


class SyncError(RuntimeError):
    """Operations that need a signal which their unit cannot give; a bug in the compiler."""


class _Cells:
    """Last writer and later readers (one per unit) of every cell of one local memory."""

    def __init__(self, cell: int):
        self.cell = cell
        self.writer: dict[int, int] = {}
        self.readers: dict[int, dict[Unit, int]] = {}

    def span(self, place: Local) -> range:
        return range(place.lo // self.cell, -(-place.hi // self.cell))


class Tracker:
    """Dependencies of each operation on earlier ones of other units.

    Parameters
    ----------
    cells : granularity of each local memory, in its rows; slots do not share a cell.
    """

    def __init__(self, cells: dict[Mem, int]):
        self.local = {mem: _Cells(size) for mem, size in cells.items()}
        self.written: dict[Buffer, list[tuple[int, int, int]]] = {}
        self.read: dict[Buffer, list[tuple[int, int, int]]] = {}

    def depends(self, number: int, op: Op, ops: list[Op]) -> set[int]:
        """Numbers of the operations that `op` must follow; records `op` as reader and writer."""
        found: set[int] = set()
        for place in op.reads:
            if isinstance(place, Dram):
                found |= _overlaps(self.written.get(place.buffer, ()), place)
                self.read.setdefault(place.buffer, []).append((place.lo, place.hi, number))
                continue
            cells = self.local[place.mem]
            for c in cells.span(place):
                if c in cells.writer:
                    found.add(cells.writer[c])
                cells.readers.setdefault(c, {})[op.unit] = number
        for place in op.writes:
            if isinstance(place, Dram):
                found |= _overlaps(self.written.get(place.buffer, ()), place)
                found |= _overlaps(self.read.get(place.buffer, ()), place)
                self.written.setdefault(place.buffer, []).append((place.lo, place.hi, number))
                continue
            cells = self.local[place.mem]
            for c in cells.span(place):
                before = cells.readers.pop(c, None)
                if before:
                    found.update(before.values())
                elif c in cells.writer:
                    found.add(cells.writer[c])
                cells.writer[c] = number
        found.discard(number)
        return {n for n in found if ops[n].unit != op.unit}


def _overlaps(spans, place: Dram) -> set[int]:
    return {n for lo, hi, n in spans if lo < place.hi and place.lo < hi}


def synchronise(ops: list[Op], cells: dict[Mem, int]) -> None:
    """Fill in `sync` (wait, signal and semaphore fields) of every operation, in program order."""
    tracker = Tracker(cells)
    waited: dict[tuple[Unit, Unit], int] = {}
    for number, op in enumerate(ops):
        latest: dict[Unit, int] = {}
        for n in tracker.depends(number, op, ops):
            unit = ops[n].unit
            latest[unit] = max(latest.get(unit, -1), n)
        for unit, n in sorted(latest.items()):
            pair = (unit, op.unit)
            if waited.get(pair, -1) >= n:
                continue
            waited[pair] = n
            semaphore, signal = CHANNELS[pair]
            _signal(ops[n], signal, semaphore)
            _wait(op, semaphore)


def _signal(op: Op, signal: str, semaphore: int) -> None:
    if op.sync.get(f"{signal}_en") and op.sync[f"{signal}_sem"] != semaphore:
        raise SyncError(f"{op} would signal two semaphores with one {signal}")
    op.sync |= {f"{signal}_en": 1, f"{signal}_sem": semaphore}


def _wait(op: Op, semaphore: int) -> None:
    slot = "wait1" if "wait0_n" in op.sync else "wait0"
    if f"{slot}_n" in op.sync:
        raise SyncError(f"{op} would need a third wait")
    op.sync |= {slot: semaphore, f"{slot}_n": 1}
