"""The slots of a run, as LOAD's address side and data side both count them.

A run has a slot for each of its beats. *Joined* runs follow each other in DRAM, and a beat that two
share is fetched once: a run at offset o > 0 in its first beat gets those bytes from the beat that
its predecessor fetched last, so it has a slot less; the group (the runs of one i2, i3) gets a slot
before its first run, which fetches its first beat. But a run also has at least a slot for each
local unit: one without a beat if all of it lies in the beat before; and one more, without a beat,
if a unit is as long as a beat and run = q * bus + r with 0 < r and o + r <= bus: that is q new
beats, but q + 1 units. Longer units are never more than new beats.

Of *paired* rows, which are shorter than a beat, two are one run, but the last one of an odd number.
"""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.utils import exact_log2
from tilewright.isa.config import ChipConfig

RUN_BITS = 22  # bytes of a run from its first beat's address; units << 5 of a fill


class Run:
    """Registers in `m` that follow a run, slot by slot.

    Parameters
    ----------
    begin, group : the next slot is a run's first; of the first run of a group.
    desc, offset : what begins: its descriptor, and its offset in a beat.
    go : one of the run's slots is done.

    **Members**

    lead : this slot fetches a group's first beat, and nothing else.
    beat : this slot has a beat.
    brings : it has data of the run.
    last : it is the run's last.
    first : offset of the run's first byte, in the slot that has it; then 0.
    shared : bytes of the beat before come first.
    end : end of the run, from byte 0 of this slot's beat.
    """

    def __init__(self, m: Module, config: ChipConfig, *, begin, group, desc, offset, go):
        bus = config.bus_bytes
        low = exact_log2(bus)
        self.lead, self.beat, self.last, self.brings = Signal(), Signal(), Signal(), Signal()
        self.shared = Signal(reset_less=True)
        self.first = Signal(low, reset_less=True)
        self.end = end = Signal(signed(RUN_BITS + 1), reset_less=True)
        self.spare = spare = Signal(reset_less=True)  # a slot without a beat comes last
        over = desc["joined"] & (offset != 0)  # begins in a beat that was fetched before
        tail = desc["run"][:low]
        with m.If(begin):
            m.d.sync += [
                self.lead.eq(group & over),
                self.shared.eq(over),
                self.first.eq(offset),
                end.eq(desc["run"] + offset - Mux(over, bus, 0)),
                spare.eq(over & desc["single"] & (tail != 0) & (tail + offset <= bus)),
            ]
        with m.Elif(go & self.lead):
            m.d.sync += self.lead.eq(0)
        with m.Elif(go):
            m.d.sync += [self.shared.eq(0), self.first.eq(0), end.eq(end - bus)]
        m.d.comb += [
            self.beat.eq(self.lead | (end > 0)),
            self.brings.eq(~self.lead & (self.shared | (end > 0))),
            self.last.eq(~self.lead & ((end <= 0) | (end <= bus) & ~spare)),
        ]
