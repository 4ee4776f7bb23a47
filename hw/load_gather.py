"""LOAD's gather: row indices from the scratchpad become byte offsets of runs.

The reader runs ahead of the address generator: index by index it reads an aligned pair of granules
(again only where the next one begins), clamps, multiplies by the row's stride and queues the
offset. It takes one index per cycle, so after LOAD_GATHER cycles no run ever waits for its index.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.load_address import Nest
from tilewright.hw.memory import SpadRead
from tilewright.hw.payload import payload
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import Oob
from tilewright.isa.timing import LOAD_GATHER, MEM_READ

DEPTH = 16  # offsets that are asked for and not taken
STAGES = 3  # clamp; partial products; sum
INDEX = 32  # bits


class IndexReader(wiring.Component):
    """Queue of run offsets.

    **Members**

    start, instr : In
        A gathering instruction; the one before has taken all its offsets.
    offset, outside : Out(32), Out(1)
        Byte offset of the next run; its index is out of range and it holds `value` instead.
    take : In(1)
        The next run takes its offset.
    spad : Out(SpadRead)

    **Timing** : start at s, first offset at s + LOAD_GATHER; then one per cycle.
    """

    def __init__(self, config: ChipConfig):
        built = 1 + MEM_READ + 1 + STAGES + 1
        if built != LOAD_GATHER:
            raise ValueError(f"LOAD_GATHER must be {built}, not {LOAD_GATHER}")
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "instr": In(payload("load")),
                "offset": Out(32),
                "outside": Out(1),
                "take": In(1),
                "spad": Out(SpadRead(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        held = Signal(payload("load"), reset_less=True)
        active, issue = Signal(), Signal()
        asked = Signal(range(DEPTH + 1))
        with m.If(self.start):
            m.d.sync += [held[n].eq(self.instr[n]) for n in _KEPT]
        m.d.comb += issue.eq(active & (asked != DEPTH))
        m.d.sync += asked.eq(asked + issue - self.take)
        nest = Nest(m, "index", load=self.start, new=self.instr, step=issue, held=held, tracks={})
        with m.If(self.start):
            m.d.sync += active.eq(1)
        with m.Elif(issue & nest.end[0] & nest.end[1] & nest.end[2]):
            m.d.sync += active.eq(0)

        lanes = self.config.dim // 2  # indices of a pair
        lane = Signal(range(max(2, lanes)))
        pair = Signal(len(self.spad.addr), reset_less=True)
        with m.If(self.start):
            m.d.sync += [lane.eq(0), pair.eq(self.instr.index)]
        with m.Elif(issue & nest.end[0]):
            m.d.sync += [lane.eq(0), pair.eq(held.index)]
        with m.Elif(issue):
            turn = lane == lanes - 1
            m.d.sync += [lane.eq(Mux(turn, 0, lane + 1)), pair.eq(pair + Cat(Const(0, 1), turn))]
        m.d.comb += [self.spad.en.eq(issue & (lane == 0)), self.spad.addr.eq(pair)]
        self._offsets(m, held, issue, lane)
        return m

    def _offsets(self, m: Module, held, issue, lane):
        """From a pair to the queue."""
        valid = Signal(MEM_READ + 1 + STAGES)
        m.d.sync += valid.eq(Cat(issue, valid))
        for _ in range(MEM_READ):
            late = Signal.like(lane)
            m.d.sync += late.eq(lane)
            lane = late
        index, row, outside = Signal(INDEX), Signal(INDEX), Signal()
        low, high, product, beyond = Signal(32), Signal(16), Signal(32), Signal(2)
        with m.If(valid.any()):
            m.d.sync += index.eq(self.spad.pair.word_select(lane, INDEX))
            m.d.sync += row.eq(index)
            m.d.sync += outside.eq(0)
            with m.If(index[-1]):
                m.d.sync += [row.eq(0), outside.eq(held.oob == Oob.FILL)]
            with m.Elif(index >= held.bound):
                m.d.sync += [row.eq(held.bound - 1), outside.eq(held.oob == Oob.FILL)]
            m.d.sync += [
                low.eq((row[:16] * held.s1)[:32]),
                high.eq((row[16:] * held.s1)[:16]),
                product.eq(low + (high << 16)),
                beyond.eq(Cat(outside, beyond)),
            ]
        m.submodules.queue = queue = Memory(shape=unsigned(33), depth=DEPTH, init=[])
        write, read = queue.write_port(), queue.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(valid[-1]),
            write.data.eq(Cat(product, beyond[1])),
            self.offset.eq(read.data[:32]),
            self.outside.eq(read.data[32]),
        ]
        for port, go in ((write, valid[-1]), (read, self.take)):
            at = Signal(exact_log2(DEPTH), name="put_at" if port is write else "take_at")
            m.d.comb += port.addr.eq(at)
            with m.If(go):
                m.d.sync += at.eq(at + 1)


_KEPT = ("c1", "c2", "c3", "s1", "index", "bound", "oob")
