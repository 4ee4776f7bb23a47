"""LOAD's gather: each offset is x * s1 for an x below `bound`, and is there when it is taken.

`Indices` cuts the multipliers out (a product is any number); its claim is that they get x and s1,
that x is below bound, and that what they give is what the queue gets. `Taken` puts reader and
address generator together: from the start of a gather on, no row takes an offset that has not come.
"""

from amaranth.hdl import Assert, Assume, Cover, Mux, Signal
from amaranth.hdl._ir import Fragment
from formal import Property
from mutate import mutant
from properties_bursts import CONFIG
from properties_window import drive
from tilewright.hw.load_address import AddressGenerator, describe
from tilewright.hw.payload import payload
from tilewright.isa.timing import LOAD_OUTSTANDING
from tilewright.isa.units import LACKS

SEE = (
    ("(row[:16] * held.s1)[:32]", "self.any_low"),
    ("(row[16:] * held.s1)[:16]", "self.any_high"),
    (
        "        m.submodules.queue = queue = Memory(",
        "        self.see = valid, row, held\n        m.submodules.queue = queue = Memory(",
    ),
    (
        "        m.d.comb += issue.eq(active & (asked != DEPTH))",
        "        self.active = active\n        m.d.comb += issue.eq(active & (asked != DEPTH))",
    ),
    (
        "            write.en.eq(valid[-1]),",
        "            *self.watch(write, product),\n            write.en.eq(valid[-1]),",
    ),
)


class Reader(Property):
    """A reader of indices whose products are any."""

    def __init__(self, *changes, config=CONFIG):
        super().__init__()
        self.source = mutant("tilewright.hw.load_gather", *SEE, *changes)
        self.config, self.written = config, Signal(32)

    def reader(self, m):
        kind = self.source.IndexReader
        kind.any_low, kind.any_high = self.free(32, "any_low"), self.free(16, "any_high")
        kind.watch = lambda _, write, product: [self.written.eq(write.data)]
        dut = kind(self.config)
        m.submodules.dut = Fragment.get(dut, None)  # now, so that its state can be named
        drive(self, m, dut.instr)
        m.d.comb += dut.spad.pair.eq(self.free(len(dut.spad.pair), "pair"))
        return dut


class Indices(Reader):
    """For any indices: the multipliers see an x below bound; the queue gets their result."""

    def build(self, m):
        dut = self.reader(m)
        valid, row, held = dut.see
        start, take = self.free(1, "start"), self.free(1, "take")
        bound, s1, result = Signal(32), Signal(32), Signal(32)
        at = len(valid) - 3  # the stage in which the multipliers work
        with m.If(start):
            m.d.sync += [bound.eq(dut.instr.bound), s1.eq(dut.instr.s1)]
        m.d.sync += result.eq(dut.any_low)
        product = Signal(32)
        m.d.sync += product.eq(result)
        high = Signal(16)
        m.d.sync += high.eq(dut.any_high)
        m.d.comb += [
            dut.start.eq(start),
            dut.take.eq(take),
            # the instruction before has taken all its offsets; the sequencer checks bound
            Assume(~start | ((valid == 0) & ~dut.active)),
            Assume((dut.instr.bound != 0) & (dut.instr.bound < (1 << 16))),
            Assume((row[16:] != 0) | (dut.any_high == 0)),  # 0 * s1
            Assert((held.bound == bound) & (held.s1.as_unsigned() == s1)),
            Assert(((valid == 0) & ~dut.active) | ((bound != 0) & (bound < (1 << 16)))),
            Assert(~valid[at] | (row < bound)),
            Assert(~valid[at + 1] | (high == 0)),
            Assert(~valid[-1] | (self.written == product)),
            Cover(valid[at] & (row == bound - 1) & (bound == 7)),
        ]


class Taken(Reader):
    """A row takes its offset only when it is in the queue, from reset and one start on."""

    def build(self, m):
        dut = self.reader(m)
        valid, _, _ = dut.see
        m.submodules.address = address = AddressGenerator(self.config)
        instr = self.constant_instr(m)
        started, level = Signal(), Signal(8)
        start = Signal()
        out = Signal(range(LOAD_OUTSTANDING + 1))
        m.d.comb += [
            start.eq(~started),
            dut.start.eq(start),
            Assume(~start | (dut.instr.as_value() == instr.as_value())),
            address.start.eq(start),
            address.desc.eq(describe(m, self.config, start, instr)),
            address.arready.eq(self.free(1, "arready")),
            address.offset.eq(self.free(32, "offset")),
            dut.take.eq(address.take),
            Assume(instr.gather & ~instr.fill & ~instr.xpose & ~instr.joined & ~instr.paired),
            *(Assume(instr[n] == 0) for n in LACKS),
            *(Assume(instr[c] != 0) for c in ("c0", "c1", "c2", "c3")),
            Assert(~address.take | (level != 0)),
            Assert(level <= 16),
            Cover(address.take & (out == 3)),
        ]
        m.d.sync += [started.eq(1), level.eq(level + valid[-1] - address.take)]
        m.d.sync += out.eq(Mux(address.take & (out != 3), out + 1, out))

    def constant_instr(self, m):
        """The instruction that starts."""
        instr = Signal(payload("load"))
        drive(self, m, instr)
        return instr
