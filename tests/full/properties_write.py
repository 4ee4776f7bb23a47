"""No AXI write outside the granted window: STORE's slots, their strobes, and `stw`.

As in `properties_window`: a ghost walks the rows by repeated addition; that its rows are granted is
what `properties_extent` shows, and all bytes that STORE strobes are bytes of the ghost's row.
"""

from amaranth.hdl import Assert, Assume, Cat, Cover, DomainRenamer, Mux, Signal
from amaranth.hdl._ir import Fragment
from formal import Property
from mutate import mutant
from properties_bursts import CONFIG, SEE_STORE
from properties_window import Walk, Window, drive
from tilewright.isa.config import MAX_BURST, PRESETS
from tilewright.isa.table import TYPE_BYTES, Dest, Type
from tilewright.isa.timing import MEM_READ, STORE_INDEX

SEE_ROWS = (
    *SEE_STORE,
    ('index[:16] * k["s1"]', "self.any_product"),
    (
        "        m.d.sync += fetch.eq(Cat(self.reads_index, fetch[:-1]))\n",
        "        m.d.sync += fetch.eq(Cat(self.reads_index, fetch[:-1]))\n"
        "        self.index_state = fetch, index\n",
    ),
    # local addresses do not matter here: any
    ("i.l1 * i.pool_sw", "i.l1 ^ i.pool_sw"),
    ("i.l2 * i.pool_sh", "i.l2 ^ i.pool_sh"),
)


def strobes(late, bus: int):
    """Which bytes of a beat a slot's control word lets through, as STORE's contract says."""
    after = [b >= late.head for b in range(bus)]
    before = [(late.end == 0) | (b < late.end) for b in range(bus)]
    return Cat(~late.skip & a & b for a, b in zip(after, before, strict=True))


class StoreWindow(Property):
    """STORE: each byte that is strobed is a byte of a row of the instruction, each burst in it.

    Joined rows are one line of `span` bytes; that the last row ends where the line does is assumed
    (`span` is c1 rows: `properties_extent`). Any sequence of instructions, scatter, max-pool and
    transposition included; the product of a scatter's index and stride is any multiple of the bus.
    """

    def __init__(self, *changes, config=CONFIG):
        super().__init__()
        self.source = mutant("tilewright.hw.store_address", *SEE_ROWS, *changes)
        self.config = config

    def build(self, m):
        self.product = self.free(32, "product")
        self.source.SlotGenerator.any_product = self.product
        dut = self.source.SlotGenerator(self.config)
        m.submodules.dut = Fragment.get(dut, None)  # now, so that its state can be named
        self.shift = (self.config.bus_bytes - 1).bit_length()
        window, i = Window(self, m), dut.instr
        drive(self, m, i)
        start = self.free(1, "start")
        m.d.comb += [
            dut.index_data.eq(self.free(len(dut.index_data), "index_data")),
            dut.start.eq(start),
            dut.go.eq(self.free(1, "go")),
            Assume(~start | ~dut.active | (dut.go & dut.last)),
            *(Assume(i[c] != 0) for c in ("c0", "c1", "c2")),
            Assume((i.units != 0) & (i.units <= 16)),
            Assume(i.out <= max(Type)),
            Assume(~i.scatter | ((i.dest == Dest.DRAM) & (i.s1[: self.shift] == 0))),
            Assume(~i.scatter | ((i.bound != 0) & ~i.xpose)),
            Assume(~i.joined | ((i.dest == Dest.DRAM) & ~i.scatter)),
            Assume(~i.joined | (i.s1 == dut.keep["new_length"])),
            Assume(self.product[: self.shift] == 0),
        ]
        self._ghost(m, dut, start)
        self._claim(m, dut, window)
        self._invariant(m, dut, window)
        self._indices(m, dut)

    def _ghost(self, m, dut, start):
        i, rows = dut.instr, dut.active & dut.go & ~dut.in_vectors
        step, ready, sends = Signal(), Signal(), Signal()
        m.d.comb += [
            sends.eq(rows & ~dut.in_index & ~dut.in_block & ~dut.more),
            step.eq(sends & dut.row_last & ~dut.final),
            ready.eq(rows & (dut.waiting == 1)),
        ]
        strides = ((i.c1, Mux(i.scatter, 0, i.s1)), (i.c2, i.s2))
        self.walk = walk = Walk(m, start, step, i.dst, strides)
        self.dram, self.scatter = Signal(name="ghost_dram"), Signal(name="ghost_scatter")
        self.s1, self.bound = Signal(32, name="ghost_s"), Signal(16, name="ghost_bound")
        self.length, self.row = Signal(18, name="ghost_length"), Signal(32, name="ghost_row")
        self.distance, self.skip = Signal(32, name="ghost_distance"), Signal(name="ghost_skip")
        self.have = Signal(name="ghost_have")  # this row's distance has come
        self.joined, self.span = Signal(name="ghost_joined"), Signal(32, name="ghost_span")
        self.line, self.bytes = Signal(32, name="ghost_line"), Signal(32, name="ghost_bytes")
        m.d.comb += self.line.eq(Mux(self.joined, walk.row[1], self.row))
        m.d.comb += self.bytes.eq(Mux(self.joined, self.span, self.length))
        fetch, index = dut.index_state
        length = Signal(18)
        with m.Switch(i.out):
            for kind, size in TYPE_BYTES.items():
                with m.Case(kind):
                    m.d.comb += length.eq(i.c0 * size)
        with m.If(start):
            m.d.sync += [self.dram.eq(i.dest == Dest.DRAM), self.scatter.eq(i.scatter)]
            m.d.sync += [self.s1.eq(i.s1), self.bound.eq(i.bound), self.length.eq(length)]
            m.d.sync += [self.row.eq(i.dst), self.skip.eq(0), self.have.eq(0)]
            m.d.sync += [self.joined.eq(i.joined), self.span.eq(i.span)]
        with m.Elif(step):
            m.d.sync += [self.row.eq(walk.to), self.have.eq(0)]
        with m.Elif(ready):
            m.d.sync += self.row.eq(walk.row[0] + self.distance)
        with m.If(fetch[MEM_READ + 1] & ~start):
            named = index < self.bound
            m.d.sync += [self.distance.eq(Mux(named, self.product, 0)), self.skip.eq(~named)]
            m.d.sync += self.have.eq(1)

    def _claim(self, m, dut, window):
        """One cycle after the slot: its burst, if it starts one, and its beat."""
        bus, shift = self.config.bus_bytes, self.shift
        was_beat, beat, line = Signal(), Signal(32), Signal(32)
        bytes_, skip = Signal(32), Signal()
        m.d.sync += [
            was_beat.eq(dut.beat),
            beat.eq(dut.dst >> shift << shift),
            line.eq(self.line),
            bytes_.eq(self.bytes),
            skip.eq(self.skip),
        ]
        here, after = Signal(32), Signal(32)  # the beat's address by its burst; of the next
        self.expected = Signal(32)
        m.d.comb += here.eq(Mux(dut.aw_valid, dut.aw_addr, after))
        m.d.comb += self.expected.eq(Mux(was_beat, here + bus, after))
        m.d.sync += after.eq(self.expected)
        last = Signal(34)
        m.d.comb += last.eq(dut.aw_addr + (dut.aw_len << shift))
        m.d.comb += [
            Assert(~was_beat | (here == beat)),
            Assert(~dut.aw_valid | (was_beat & (dut.aw_addr + bus > line))),
            Assert(~dut.aw_valid | (last < line + bytes_)),
            Assert(~(was_beat & skip) | dut.late.skip),
            Cover(was_beat & (dut.late.end != 0) & (self.walk.at[0] == 2) & ~skip),
            Cover(was_beat & (dut.late.end != 0) & self.joined & (dut.late.offset == 3)),
            Cover(was_beat & self.scatter & (line != self.walk.row[0]) & ~skip),
        ]
        for b, strobe in enumerate(strobes(dut.late, bus)):
            byte, on = Signal(34, name=f"byte{b}"), Signal(name=f"on{b}")
            m.d.comb += [
                byte.eq(beat + b),
                on.eq(was_beat & strobe),
                Assert(~on | ((byte >= line) & (byte < line + bytes_))),
                Assert(~on | window.holds(byte, byte)),
            ]

    def _invariant(self, m, dut, window):
        shift, k, walk = self.shift, dut.keep, self.walk
        dst_row, dst_outer, n1, n2 = dut.rows_at
        writes, runs, waits, floor = Signal(), Signal(), Signal(), Signal(34)
        end = Signal(34)  # of the line
        m.d.comb += [
            writes.eq(dut.active & self.dram),
            runs.eq(writes & ~dut.in_vectors & ~dut.in_index),
            waits.eq(writes & ~runs),
            floor.eq(dut.dst >> shift << shift),
            end.eq(self.line + self.bytes),
            # by EXTENT
            Assume(~runs | window.holds(self.line, end - 1)),
            Assume(~self.joined | (end <= 1 << 32)),
            Assume(~self.joined | (n1 != 1) | (self.row + self.length == end)),
            Assume(~self.joined | (n1 == 1) | (self.row + 2 * self.length <= end)),
        ]
        kept = [("c1", walk.count[0]), ("step1", walk.stride[0]), ("s2", walk.stride[1])]
        kept += [("length", self.length), ("scatter", self.scatter), ("s1", self.s1)]
        kept += [("bound", self.bound), ("joined", self.joined), ("reach", (self.bytes - 1)[:32])]
        place = dut.dst[shift : shift + MAX_BURST.bit_length() - 1]
        m.d.comb += [
            Assert(~dut.active | (k["spad"] == ~self.dram)),
            *(Assert(~writes | (k[n].as_unsigned() == value)) for n, value in kept),
            *(Assert(~writes | ok) for ok in walk.inside()),
            Assert(~writes | (n1 + walk.at[0] == walk.count[0])),
            Assert(~writes | (n2 + walk.at[1] == walk.count[1])),
            Assert(~writes | ((dst_row == walk.row[0]) & (dst_outer == walk.row[1]))),
            Assert(~writes | (self.length != 0)),
            Assert(~waits | (dut.first & (dut.dst == walk.row[0]) & (self.row == walk.row[0]))),
            Assert(~waits | (dut.left == dut.offset + self.length)),
            Assert(~waits | (self.line == self.row)),
            Assert(~writes | (dut.offset == self.row[:shift])),
            Assert(~writes | (dut.offset == dut.dst[:shift])),
            Assert(~runs | (dut.left != 0)),
            Assert(~runs | (floor + dut.left == self.row + self.length)),
            Assert(~writes | Mux(dut.first, floor + dut.head == self.line, floor > self.line)),
            Assert(~runs | (floor > self.row) | (dut.dst == self.row)),
            Assert(~writes | (dut.head == self.line[:shift])),
            Assert(~writes | ((floor >> shift) + dut.after == (end - 1) >> shift)),
            Assert(~self.joined | ~writes | ~self.scatter),
            Assert(~self.joined | ~writes | (self.row == walk.row[0])),
            Assert(~self.joined | ~writes | (k["step1"].as_unsigned() == self.length)),
            Assert(~runs | dut.first | (place == 0) | (self.expected == floor)),
        ]

    def _indices(self, m, dut):
        """A scattered row waits for its own distance, and for no other."""
        fetch, _ = dut.index_state
        waiting, known = dut.waiting, Signal()
        m.d.comb += known.eq(dut.active & self.dram & self.scatter)
        m.d.comb += [
            Assert(~dut.active | (dut.keep["scatter"] == self.scatter)),
            Assert(~dut.active | ~self.scatter | (self.dram & ~dut.keep["xpose"])),
            Assert((waiting == 0) | ~dut.active | known),
            Assert(waiting <= STORE_INDEX),
            Assert(~(known & dut.in_vectors) | (waiting == STORE_INDEX)),
            Assert((fetch == 0) | (known & dut.in_index & ~dut.in_vectors & ~self.have)),
            Assert((fetch & (fetch - 1))[: len(fetch)] == 0),
            *(
                Assert(~fetch[n] | ((waiting < STORE_INDEX) & (waiting >= STORE_INDEX - 1 - n)))
                for n in range(len(fetch))
            ),
            Assert(~known | (waiting != STORE_INDEX) | ~self.have),
            Assert(~known | (waiting == STORE_INDEX) | self.have | (fetch != 0)),
            Assert(~known | ~self.have | (dut.distance == self.distance)),
            Assert(~known | ~self.have | (dut.skip == self.skip)),
            Assert(self.distance[: self.shift] == 0),
            Assert(~dut.active | self.scatter | ~self.skip),
        ]


class Strobes(Property):
    """STORE's packer puts out exactly the strobes of the slot that went in."""

    def __init__(self, *changes, config=CONFIG):
        super().__init__()
        self.source, self.config = mutant("tilewright.hw.store_pack", *changes), config

    def build(self, m):
        dut = self.source.Packer(self.config)
        m.submodules.dut = DomainRenamer({"epilogue": "sync"})(dut)
        drive(self, m, dut.i_late)
        valid, window, was_window = self.free(1, "valid"), Signal(), Signal()
        late = Signal(dut.i_late.shape())
        want = Signal(self.config.bus_bytes)
        with m.If(valid):
            m.d.sync += late.eq(dut.i_late)
        with m.If(window):
            m.d.sync += want.eq(strobes(late, self.config.bus_bytes))
        m.d.sync += [window.eq(valid & ~dut.i_late.more), was_window.eq(window)]
        m.d.comb += [
            dut.i_row.eq(self.free(len(dut.i_row), "row")),
            dut.i_valid.eq(valid),
            dut.i_window.eq(window),
            Assert(dut.unit_late.as_value() == late.as_value()),
            Assert(dut.beat_strb == want),
            Cover(was_window & (dut.beat_strb == 6)),
        ]


class Word(Property):
    """`stw`: one burst and one beat, which strobes the four bytes that the sequencer named."""

    SEE = (
        "        writing = self._word(m, burst, address, push, beat)\n",
        "        writing = self._word(m, burst, address, push, beat)\n"
        "        self.see = writing, burst, address, push, beat\n",
    )
    SEE_AT = "        second = step[1]\n", "        second, self.see_at = step[1], at\n"

    def __init__(self, *changes, config=PRESETS["tw16"]):
        super().__init__()
        self.source = mutant("tilewright.hw.store_bus", self.SEE, self.SEE_AT, *changes)
        self.config = config

    def build(self, m):
        bus = self.config.bus_bytes
        dut = self.source.StoreBus(self.config)
        m.submodules.dut = Fragment.get(dut, None)  # now, so that its state can be named
        writing, burst, address, push, beat = dut.see
        asked, word = self.free(1, "stw_valid"), self.free(32, "stw_addr")
        at, busy = Signal(32), Signal()
        begins = asked & ~busy
        m.d.comb += [
            dut.stw_valid.eq(asked),
            dut.stw_addr.eq(word),
            dut.stw_data.eq(self.free(32, "stw_data")),
            dut.bus.awready.eq(self.free(1, "awready")),
            dut.bus.wready.eq(self.free(1, "wready")),
            dut.bus.bvalid.eq(self.free(1, "bvalid")),
            Assume(~asked | (word[:2] == 0)),
        ]
        with m.If(begins):
            m.d.sync += [at.eq(word), busy.eq(1)]
        with m.Elif(dut.stw_done):
            m.d.sync += busy.eq(0)
        strobe = beat[8 * bus : 9 * bus]
        place = at[: (bus - 1).bit_length()]
        m.d.comb += [
            Assert(writing == busy),
            Assert(~burst | (busy & (address == (at - place)[:32]))),  # a burst of one beat
            Assert(~push | (busy & (strobe == (15 << place)))),
            Assert(~busy | ((at[:2] == 0) & (dut.see_at == at))),
            Cover(push & (at == 0x1234)),
        ]
