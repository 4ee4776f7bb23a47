"""A unit's instruction queue with its head register.

A memory of `depth` entries; the head is the memory's own read register, which loads the next entry
when it is empty or being vacated. So a wide entry is stored once and moves once.
"""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out


class Queue(wiring.Component):
    """FIFO of `depth` entries of `layout`, and a head.

    **Members**

    push, entry, full : In(1), In(layout), Out(1)
        Write an entry; only while `full` is 0.
    valid, head : Out(1), Out(layout)
        The head holds an entry.
    pop : In(1)
        The head leaves in this cycle; only while `valid`.
    empty : Out(1)
        No entry and no head.
    settled : Out(1)
        The head stays as it is, valid or not, until it is popped or an entry is pushed.
    clear : In(1)
        Forget all entries and the head.

    **Timing**

    Pushed at d: head valid from max(d + 2, s + 1), s the cycle of the previous entry's `pop`.
    An entry leaves the queue's count in the cycle in which it appears in the head.
    """

    def __init__(self, layout: data.Layout, depth: int):
        self.layout, self.depth = layout, depth
        super().__init__(
            {
                "push": In(1),
                "entry": In(layout),
                "full": Out(1),
                "valid": Out(1),
                "head": Out(layout),
                "pop": In(1),
                "empty": Out(1),
                "settled": Out(1),
                "clear": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = memory.Memory(
            shape=self.layout.size, depth=self.depth, init=[]
        )
        write, read = store.write_port(), store.read_port()
        level = Signal(range(self.depth + 1))
        w_at = Signal(range(self.depth))
        r_at = Signal(range(self.depth))
        load = Signal()
        m.d.comb += [
            self.full.eq(level == self.depth),
            self.empty.eq((level == 0) & ~self.valid),
            self.settled.eq((level == 0) | self.valid),
            load.eq((level != 0) & (~self.valid | self.pop)),
            write.en.eq(self.push),
            write.addr.eq(w_at),
            write.data.eq(self.entry),
            read.en.eq(load),
            read.addr.eq(r_at),
            self.head.eq(read.data),
        ]
        m.d.sync += level.eq(level + self.push - load)
        with m.If(self.push):
            m.d.sync += w_at.eq(w_at + 1)
        with m.If(load):
            m.d.sync += [r_at.eq(r_at + 1), self.valid.eq(1)]
        with m.Elif(self.pop):
            m.d.sync += self.valid.eq(0)
        with m.If(self.clear):
            m.d.sync += [level.eq(0), w_at.eq(0), r_at.eq(0), self.valid.eq(0)]
        return m
