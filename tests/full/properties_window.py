"""No AXI address outside the granted window: LOAD's and STORE's address generators.

A row of an instruction begins at A = base + i1*s1 + i2*s2 + i3*s3, each i below its count. A ghost
walks the indices and adds strides, so no proof has to multiply. EXTENT (`properties_extent`) lets
only instructions pass whose least and greatest i*s keep A and its row in the window; i*s lies
between them (it is monotonic in i). So what is assumed here of the ghost's A, that its bytes are
granted, is what is shown there; what is shown here is that the hardware's addresses are those of
the ghost, with indices below their counts.

A read fetches whole beats: each beat of each burst holds a byte of the row that it is for, so if
the window's ends are multiples of the bus, no byte outside it is read. A write strobes only bytes
of its row.
"""

from amaranth.hdl import Assert, Assume, Cover, Module, Mux, Signal, Value
from amaranth.hdl._ir import Fragment
from formal import Property
from mutate import mutant
from properties_bursts import CONFIG, SEE_LOAD, Behind
from tilewright.hw.payload import payload
from tilewright.isa.table import CONV_BYTES, Conv
from tilewright.isa.timing import LOAD_GATHER


class Walk:
    """The ghost: indices, and for each dimension where its row begins, by repeated addition.

    `start` takes `base` and the counts and strides of `new` ((count, stride), inner first); `step`
    goes on. When an index grows by 1 its row grows by the stride, when it becomes 0 its row is the
    next outer one's: row = base + i1*s1 + i2*s2 + ...
    With `cut` (now, i1 and i2 of the first row, where dimension 3 steps on from, bytes of its i1)
    `base` is that row, and where it is cut the next i3's first row is at this i1, too, s3 further.
    """

    def __init__(self, m: Module, start, step, base, new, cut=None):
        dims = range(1, len(new) + 1)
        self.count = [Signal(16, name=f"ghost_c{n}") for n in dims]
        self.stride = [Signal(32, name=f"ghost_s{n}") for n in dims]
        self.at = [Signal(16, name=f"ghost_i{n}") for n in dims]
        self.row = [Signal(32, name=f"ghost_row{n}") for n in dims]
        self.to = Signal(32, name="ghost_to")  # the row that `start` or `step` takes
        more = [a + 1 < c for a, c in zip(self.at, self.count, strict=True)]
        if cut is not None:
            now, first1, first2, outer, back = cut
            more[:2] = [x & ~now for x in more[:2]]
            self.kept = kept1, kept_back = Signal(16), Signal(32)
            with m.If(start):
                m.d.sync += [kept1.eq(first1), kept_back.eq(back)]
        nexts = [(r + s)[:32] for r, s in zip(self.row, self.stride, strict=True)]
        chosen = nexts[-1]
        for grows, value in reversed(list(zip(more[:-1], nexts[:-1], strict=True))):
            chosen = Mux(grows, value, chosen)
        m.d.comb += self.to.eq(Mux(start, base, chosen))
        wraps = step  # all inner dimensions do
        for i, (count, stride) in enumerate(new):
            with m.If(start):
                m.d.sync += [self.count[i].eq(count), self.stride[i].eq(stride), self.at[i].eq(0)]
            with m.Elif(wraps):
                m.d.sync += self.at[i].eq(Mux(more[i], self.at[i] + 1, 0))
            with m.If(start | wraps):
                m.d.sync += self.row[i].eq(self.to)
            wraps = wraps & ~more[i]
        if cut is not None:
            with m.If(start):
                m.d.sync += [self.at[0].eq(first1), self.at[1].eq(first2)]
                m.d.sync += [self.row[1].eq(self.to - back), self.row[2].eq(outer)]
            with m.Elif(step & now):
                m.d.sync += [self.at[0].eq(kept1), self.row[1].eq(self.to - kept_back)]

    def inside(self):
        """Each index is below its count."""
        return [i < c for i, c in zip(self.at, self.count, strict=True)]


class Window:
    """The granted bytes, chosen once."""

    def __init__(self, prop: Property, m: Module):
        self.base = prop.constant(m, 32, "window_base")
        self.limit = prop.constant(m, 32, "window_limit")

    def holds(self, first, last):
        """Whether bytes `first` to `last` (wider than an address, so that nothing wraps) are in."""
        return (first >= self.base) & (last <= self.limit)


def drive(prop: Property, m: Module, view) -> None:
    """Let the solver choose each field."""
    for name in view.shape().members:
        field = Value.cast(getattr(view, name))
        m.d.comb += field.eq(prop.free(len(field), f"{name}_in"))


class LoadWindow(Property):
    """LOAD: every beat of every read burst holds a byte of a row of the instruction, or the word.

    Joined rows count as one; what is paired is walked in runs of two rows.

    Any sequence of instructions, any back-pressure; gather (an offset that the index reader gives),
    transpose, fill; and the sequencer's `ldw`.
    """

    def __init__(self, *changes, config=CONFIG):
        super().__init__()
        self.source = mutant("tilewright.hw.load_address", *SEE_LOAD, *changes)
        self.config = config

    def build(self, m):
        dut = self.source.AddressGenerator(self.config)
        m.submodules.dut = Fragment.get(dut, None)  # now, so that its state can be named
        window = Window(self, m)
        instr = Signal(payload("load"))
        drive(self, m, instr)
        start, word = self.free(1, "start"), self.free(1, "word")
        self.word_addr = self.free(32, "word_addr")
        low = (self.config.bus_bytes - 1).bit_length()
        m.d.comb += [
            dut.start.eq(start),
            dut.desc.eq(self.source.describe(m, self.config, start, instr)),
            dut.arready.eq(self.free(1, "arready")),
            dut.burst_end.eq(self.free(1, "burst_end")),
            dut.offset.eq(self.free(32, "offset")),
            dut.word.eq(word),
            dut.word_addr.eq(self.word_addr),
            Assume(~start | dut.idle),
            # a word is asked for only while LOAD is quiet, and granted
            Assume(~word | (~dut.state[0] & ~start & ~dut.arvalid & (self.word_addr[:2] == 0))),
            Assume(~word | window.holds(self.word_addr, self.word_addr | 3)),
            # rules of the instruction table; s1, and so each offset, is a multiple of the bus
            *(Assume(instr[c] != 0) for c in ("c0", "c1", "c2", "c3")),
            Assume(instr.conv <= max(Conv)),
            Assume(~(instr.xpose & (instr.fill | instr.gather)) & ~(instr.gather & instr.fill)),
            Assume(~dut.desc.gather | (instr.s1[:low] == 0)),
            Assume(dut.offset[:low] == 0),
            # joined runs follow each other
            Assume(~instr.joined | ~(instr.fill | instr.gather | instr.xpose)),
            Assume(~instr.joined | (dut.desc.s1 == dut.desc.run)),
            Assume(~instr.joined | (instr.span >= dut.desc.run)),
            Assume(~instr.joined | (instr.c1 != 1)),
            Assume(~instr.paired | (instr.joined & (instr.conv == Conv.COPY8))),
            *self._partial(dut, instr),
        ]
        self._ghost(m, dut, instr, start)
        self.reads, self.runs = Signal(), Signal()  # it reads; this slot belongs to a run
        self.behind = Behind(m, dut, self.runs, self.config.bus_bytes)
        self._claim(m, dut, window, word)
        self._invariant(m, dut, window)

    def _partial(self, dut, instr):
        """What the rules, and EXTENT's sums and count of runs, say of sequences that lack some."""
        held, nest = dut.state[1], dut.more[2]
        some = instr.xpose & instr.pack[1]
        ends = (nest.left[0] == 1) & (nest.left[1] == 1)
        return (
            Assume((instr.skip1 < instr.c1) & (some | (instr.skip1 == 0))),
            Assume((instr.skip2 < instr.c2) & (some & (instr.pack == 3) | (instr.skip2 == 0))),
            # a sequence's runs come to their end in the last row, of the last i3 that is in it
            Assume(~nest.cut | (held.pack != 2) | (nest.left[1] == 1)),
            Assume(~nest.cut | (held.pack != 3) | (nest.left[2] == 1)),
            Assume(~(held.xpose & (held.pack == 2) & ends) | nest.cut),
            Assume(~(held.xpose & (held.pack == 3) & ends & (nest.left[2] == 1)) | nest.cut),
        )

    def _ghost(self, m, dut, instr, start):
        """The instruction under way, from its fields, and where its walk is."""
        step, last = dut.more[4], dut.more[5]
        double = instr.paired & instr.l1[0]
        stride1 = Mux(instr.gather, 0, Mux(double, 2 * instr.s1, instr.s1))
        count1 = Mux(double, (instr.c1 >> 1) + instr.c1[0], instr.c1)
        strides = ((count1, stride1), (instr.c2, instr.s2), (instr.c3, instr.s3))
        cut = dut.more[2].cut
        outer = Mux(instr.pack == 3, instr.dram, instr.begin)
        cut = cut, instr.skip1, instr.skip2, outer, instr.back
        self.walk = walk = Walk(m, start, step & ~last, instr.begin, strides, cut)
        self.first1, self.back = walk.kept
        self.fill, self.gather = Signal(name="ghost_fill"), Signal(name="ghost_gather")
        self.run = Signal(18, name="ghost_run")
        self.odd = Signal(name="ghost_odd")
        final = walk.at[0] + 1 == walk.count[0]
        self.size = Mux(self.odd & final, self.run >> 1, self.run)  # of the run under way
        self.row = Signal(32, name="ghost_row")  # with the offset of a gathered one
        run = Signal(18)
        with m.Switch(instr.conv):
            for conv, size in CONV_BYTES.items():
                with m.Case(conv):
                    m.d.comb += run.eq(instr.c0 * size)
        with m.If(start):
            m.d.sync += [self.fill.eq(instr.fill), self.gather.eq(instr.gather)]
            m.d.sync += [self.run.eq(Mux(double, 2 * run, run)), self.row.eq(instr.begin)]
            m.d.sync += self.odd.eq(double & instr.c1[0])
        with m.Elif(dut.take):  # a gathered row, the first or the next
            m.d.sync += self.row.eq(Mux(step, walk.to, walk.row[0]) + dut.offset)
        with m.Elif(step & ~last):
            m.d.sync += self.row.eq(walk.to)

    def _claim(self, m, dut, window, word):
        bus = self.config.bus_bytes
        fresh, seen, was_word = Signal(), Signal(), Signal()
        row, run, addr = Signal(32), Signal(33), Signal(32)  # one cycle before AR
        walk_row = self.walk.row[0]
        m.d.sync += [
            seen.eq(dut.arvalid & ~dut.arready),
            was_word.eq(word),
            row.eq(self.row),
            run.eq(self.size + self.behind.bytes),
            addr.eq(self.word_addr),
        ]
        first, last = Signal(34), Signal(34)  # bytes of the burst
        ask = Signal()
        even = (window.base & (bus - 1) == 0) & (window.limit & (bus - 1) == bus - 1)
        begin = Mux(was_word, addr, row)
        end = Mux(was_word, addr + 3, row + run - 1)
        m.d.comb += [
            fresh.eq(dut.arvalid & ~seen),
            first.eq(dut.araddr),
            last.eq(dut.araddr + ((dut.arlen + 1) << (bus - 1).bit_length()) - 1),
            ask.eq(fresh),
            Assert(~ask | (first + bus > begin)),  # the first beat holds the first byte, or a later
            Assert(~ask | (last - bus < end)),  # and the last beat the last byte, or an earlier
            Assert(~ask | ~even | window.holds(first, last)),
            Cover(ask & ~was_word & (self.walk.at[0] == 2) & (self.walk.at[1] == 1)),
            Cover(ask & self.gather & (row != walk_row)),
            Cover(ask & was_word),
            Cover(ask & (self.first1 == 1) & (self.walk.at[1] == 1) & (self.walk.at[2] == 1)),
            Cover(ask & (self.behind.bytes != 0) & (dut.arlen == 3)),
        ]

    def _invariant(self, m, dut, window):
        active, held, _, left, burst, _ = dut.state
        beat, lead, nest, extra, _, _ = dut.more
        walk, bus, behind = self.walk, self.config.bus_bytes, self.behind
        low = (bus - 1).bit_length()
        reads, runs = self.reads, self.runs
        m.d.comb += [
            reads.eq(active & ~self.fill),
            runs.eq(reads & (extra.left == 0) & (lead == 0)),
            # by EXTENT, for this run and those joined to it
            Assume(~runs | window.holds(self.row, self.row + self.size + behind.bytes - 1)),
            Assume(behind.holds),
            Assert(behind.true),
        ]
        at = Signal(34)  # of the next beat; it may be the first one beyond the address space
        beyond = (beat == 0) & (behind.end <= 0)
        m.d.comb += at.eq(beat << low | beyond << 32)
        levels = nest.levels["dram"]
        some = held.xpose & held.pack[1]
        kept = [(held.run, self.run), (held.odd, self.odd), (held.s1, walk.stride[0].as_signed())]
        kept += [(held.s2, walk.stride[1].as_signed()), (held.s3, walk.stride[2].as_signed())]
        kept += [(held[f"c{i + 1}"], walk.count[i]) for i in range(3)]
        m.d.comb += [
            *(Assert(~reads | (a == b)) for a, b in kept),
            Assert(~reads | ((self.run != 0) & (held.gather == self.gather))),
            Assert(~active | (held.fill == self.fill)),
            Assert(~reads | ~held.gather | ~held.xpose),
            *(Assert(~reads | ok) for ok in walk.inside()),
            *(Assert(~reads | (nest.left[i] + walk.at[i] == walk.count[i])) for i in range(3)),
            *(Assert(~reads | (a == b)) for a, b in zip(levels, walk.row, strict=True)),
            # what a step leads to; then rows are equal by one sum each
            Assert(~reads | dut.start | (nest.next["dram"] == walk.to)),
            Assert(~reads | (held.first1 + self.first1 == held.c1)),
            Assert(~reads | (held.back == self.back)),
            Assert(~reads | (self.first1 < held.c1) & (some | (self.first1 == 0))),
            Assert((lead == 0) | (active & held.gather & (extra.left == 0))),
            Assert(lead <= LOAD_GATHER),
            Assert((extra.left == 0) | (active & held.xpose)),
            # where the slot is in its row
            Assert(~runs | held.gather | (self.row == walk.row[0])),
            Assert(~runs | (at + behind.end == self.row + self.size)),
            Assert(~runs | (at + bus > self.row)),
            Assert(~reads | (self.size == behind.size)),
            Assert((burst == 0) | runs),
            Assert((burst == 0) | (burst <= left)),
        ]
