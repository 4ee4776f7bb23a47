"""The clocks of LOAD, array, VECTOR and STORE in the model of schedules (`schedule_model`).

They move by slots and passes, and wait for each other where data or room is missing. Ports, queues
and exact alignments are left out.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from tilewright.compiler.bus_slots import load_row, store_row, words
from tilewright.compiler.schedule import Operand, Problem, Schedule, ceil_div
from tilewright.compiler.schedule_turns import Turn, packed_slots, turn
from tilewright.isa.config import XPOSE_BLOCKS, ChipConfig
from tilewright.isa.timing import (
    MATMUL_MIN_PERIOD,
    VECTOR_DONE,
    WEIGHT_LEAD,
    matmul_done,
)

START = 74  # cycle in which the first LOAD starts
DISPATCH = 9  # cycles of the sequencer for an instruction of a unit
AHEAD = 6  # instructions by which the order of dispatch may differ from the program's
LOADED = 69  # cycles from a LOAD's last slot to the MATMUL that waits for it
HANDED = 2  # cycles from a signal to the start of what waits for it
WRITTEN = 40  # cycles from STORE's last slot to the start of a LOAD that reads it
END = 34  # cycles from the last slot of STORE, if it goes the short way, to the end


@cache
def reads(
    config: ChipConfig, o: Operand, rows: int, cols: int, beside: bool = False, even: bool = False
) -> Turn:
    """LOADs of rows x cols local elements; `cols` are what a local row is made of.

    `beside`: units of a row follow each other, those of activations; `even`: so do the weights'.
    """
    if o.way == "gather":
        return Turn((), rows * cols)
    if o.way == "patches":
        return Turn((), rows * float(packed_slots(config, o, np.array(cols))))
    if o.way == "rows":
        units, narrow = ceil_div(cols, config.dim), o.size == 1
        if (beside or even) and narrow:
            units = words(config, units, even)
        each = load_row(config, cols * o.size, o.pitch, o.first, units, narrow)
        return Turn((), rows * each)
    return turn(config, o, rows, cols)


@cache
def write_slots(
    config: ChipConfig, turned: bool, size: int, pitch: int, rows: int, cols: int
) -> float:
    """STORE's slots for a piece of the result, whose rows are `pitch` bytes apart."""
    d = config.dim
    if not turned:
        return rows * store_row(config, cols * size, pitch, d * size)
    total, most = float(rows), XPOSE_BLOCKS * d  # the first block is read before its rows
    for width, count in ((most, rows // most), (rows % most, 1)):
        if width and count:
            total += count * cols * store_row(config, width * size, pitch, d * size)
    return total



class Clocks:
    """The clocks of the units, each at the cycle until which it is busy."""

    def __init__(self, config: ChipConfig, p: Problem, s: Schedule, pitch: int):
        self.config, self.p, self.s, self.d = config, p, s, config.dim
        self.pitch = pitch
        self.least, self.drain = (
            max(config.dim, MATMUL_MIN_PERIOD),
            matmul_done(config.dim) + HANDED,
        )
        self.load = self.array = self.vector = self.store = float(START)
        self.fetched = 0.0
        self.drained = 0.0  # when LOAD's transposer has written everything
        self.loads = self.ops = self.stores = self.multiplies = 0
        self.extra = 0.0 if p.after is None else p.after.beats(config, s.mt, ceil_div(s.nt, self.d))
        self.stored = [0.0] * s.parts  # when a part's last store has been read
        self.read: dict[int, float] = {}  # by slot: when the array has read it
        self.there: dict[int, float] = {}  # by slot: when its data can be multiplied
        self.there_at = 0.0  # when the rows of the image's copy that a tile reads are there

    def fetch(
        self, o: Operand, rows: int, cols: int, slot: int, wait: bool = True, beside: bool = False
    ) -> None:
        """LOAD into a slot, which must have been read if that is to be waited for."""
        self.ops += 1
        begin = max(self.load, START + DISPATCH * max(self.loads, self.ops - AHEAD))
        if wait and slot in self.read:
            begin = max(begin, self.read[slot] + HANDED)
        if o.taps:
            begin = max(begin, self.there_at)
        self.loads += 1
        what = reads(self.config, o, rows, cols, beside, self.s.across and not beside)
        self.fetched += what.slots
        self.load = max(begin, self.drained - what.hidden) + what.slots
        self.there[slot] = self.load + what.drain + LOADED
        if what.drain:
            self.drained = self.load + what.drain

    def make(self, rows: float, pieces: int) -> float:
        """Copy rows of the image in some pieces; when they can be read."""
        c = self.p.copy
        assert c is not None
        self.ops += 2 * pieces
        begin = max(self.store, self.load + rows * c.load / pieces + LOADED)
        self.load += rows * c.load
        self.store = max(begin + rows * c.store, self.load + LOADED + rows * c.store / pieces)
        return self.store + WRITTEN

    def multiply(self, ready: float, passes: int, rows: int) -> float:
        """MATMUL `passes` blocks; when its results can be stored."""
        self.ops += 1
        self.multiplies += 1
        begin = START + DISPATCH * max(self.multiplies, self.ops - AHEAD)
        period = max(rows, self.least)
        self.array = max(max(ready, begin) + WEIGHT_LEAD, self.array) + passes * period
        return self.array - period + rows + self.drain

    def finish(self, ready: float, rows: int, cols: int) -> float:
        """VECTOR over a piece; when it can be stored."""
        if self.p.after is None:
            return ready
        self.ops += 1
        slots = self.p.after.cycles(self.config, rows, -(-cols // self.d))
        self.vector = max(self.vector, ready) + slots
        return self.vector + VECTOR_DONE + HANDED

    def write(self, ready: float, rows: int, cols: int, part: int) -> None:
        """STORE a piece of the part, after VECTOR."""
        ready = self.finish(ready, rows, cols)
        self.ops += 1
        self.stores += 1
        begin = START + DISPATCH * max(self.stores, self.ops - AHEAD)
        self.store = max(self.store, ready, begin) + write_slots(
            self.config, self.p.turned, self.p.out_bytes, self.pitch, rows, cols
        )
        self.stored[part] = self.store
