"""Properties of the three address generators: AXI's burst rules, and beats that match their burst.

Bursts are aligned to the bus, have 1 to 16 beats, never cross 4 KiB; a refused address stays as it
is; and the beats of the data side are exactly those that the addresses promised.
"""

from itertools import combinations

from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Module, Mux, Signal, Value
from amaranth.hdl._ir import Fragment
from formal import Property
from mutate import mutant
from tilewright.isa.config import IBUS_BYTES, INSTR_BYTES, LINE_INSTRS, MAX_BURST, PRESETS
from tilewright.isa.table import Dest
from tilewright.isa.timing import LOAD_OUTSTANDING

PAGE = 4096
#: Text added to the modules under proof, so that their state can be named in an invariant.
SEE_LOAD = (
    (
        "        self._request(m, go & run.beat, first, rest, beat, burst, outstanding)\n",
        "        self._request(m, go & run.beat, first, rest, beat, burst, outstanding)\n"
        "        self.state = active, held, run, rest, burst, outstanding\n"
        "        self.more = beat, lead, nest, extra, step, last\n"
        "        self.begins = group, comes\n",
    ),
    (
        "        levels = {}\n",
        "        levels = {}\n        self.left, self.levels = left, levels\n"
        "        self.cut = cut\n",
    ),
    (
        "left, amount = Signal.like(held.pad), Signal.like(held.pad)\n",
        "left, amount = Signal.like(held.pad), Signal.like(held.pad)\n        self.left = left\n",
    ),
)
SEE_STORE = (
    (
        "        self._outputs(m, keep)\n",
        "        self._outputs(m, keep)\n        self.keep = keep\n",
    ),
    (
        'n1, n2 = register(16, "n1"), register(16, "n2")\n',
        'n1, n2 = register(16, "n1"), register(16, "n2")\n'
        "        self.rows_at = dst_row, dst_outer, n1, n2\n",
    ),
)
CONFIG = PRESETS["tw4"]


class Behind:
    """The ghost of joined runs: `bytes` of their group come after this run of `size`.

    A run is a row, or two; an `odd` number of rows leaves half a run at the end.

    `holds` is what the sequencer guarantees (a span is c1 runs long), stated for this slot without
    a product; `true` is an invariant. `runs`: the slot belongs to a run.
    """

    def __init__(self, m: Module, dut, runs, bus: int):
        active, held, run, rest, _, _ = dut.state
        _, _, nest, _, step, _ = dut.more
        group, comes = dut.begins
        low = bus.bit_length() - 1
        half = held.run >> 1
        left = nest.left[0]
        final = held.odd & (left == 2)  # the next run is half a one
        self.size = Mux(held.odd & (left == 1), half, held.run)
        self.bytes = Signal(32, name="ghost_behind")
        with m.If(group):
            m.d.sync += self.bytes.eq(comes["span"] - comes["run"])
        with m.Elif(step):
            m.d.sync += self.bytes.eq(self.bytes - Mux(final, half, held.run))
        self.end = run.end + Mux(run.lead, bus, 0)  # of the run, from the next beat's byte 0
        self.holds = ~runs | ((self.bytes == 0) == (nest.end[0] | ~held.joined))
        self.holds &= ~runs | (self.bytes == 0) | final | (self.bytes >= held.run)
        self.holds &= ~runs | ~final | (self.bytes == half)
        self.true = ~runs | (
            (rest == (self.end + self.bytes + bus - 1) >> low)
            & (run.end > -bus)
            & (held.joined | (self.bytes == 0) & ~run.lead & ~run.spare & (run.end > 0))
            & (run.end < (1 << 20) + bus)
            & ((run.end - self.size - nest.levels["dram"][0])[:low] == 0)
        )
        self.true &= ~active | ~held.odd | (held.joined & (held.c1 > 1) & ~held.run[0])
        self.true &= ~active | ~held.odd | (left != 0)
        self.true &= ~active | ~held.xpose | ~(held.joined | held.fill)
        self.true &= (
            ~active
            | held.fill
            | Mux(
                held.joined,
                (held.s1 == held.run) & (held.span >= held.run) & ~(held.gather | held.xpose),
                held.span == held.run,
            )
        )


def legal(m: Module, valid, addr, length, bus: int) -> None:
    """State AXI's rules for one address."""
    end = Signal(14, name=f"{addr.name}_end")
    m.d.comb += [
        end.eq(addr[:12] + (length + 1) * bus),
        Assert(~valid | (end <= PAGE)),
        Assert(~valid | (length < MAX_BURST)),
        Assert(~valid | (addr[: bus.bit_length() - 1] == 0)),
    ]


def stays(m: Module, valid, ready, *payload) -> None:
    """State that a refused `valid` and its payload stay."""
    refused = Signal()
    m.d.sync += refused.eq(valid & ~ready)
    m.d.comb += Assert(~refused | valid)
    for i, value in enumerate(payload):
        before = Signal(value.shape(), name=f"before{i}")
        m.d.sync += before.eq(value)
        m.d.comb += Assert(~refused | (value == before))


class Load(Property):
    """hw.load_address.AddressGenerator, for any legal instruction and any back-pressure."""

    def __init__(self, *changes, config=CONFIG):
        super().__init__()
        self.source, self.config = mutant("tilewright.hw.load_address", *SEE_LOAD, *changes), config

    def build(self, m):
        bus = self.config.bus_bytes
        dut = self.source.AddressGenerator(self.config)
        m.submodules.dut = Fragment.get(dut, None)  # now, so that its state can be named
        active, held, run, left, burst, outstanding = dut.state
        _, lead, _, extra, _, _ = dut.more
        start, ready, ends = (self.free(1, n) for n in ("start", "arready", "burst_end"))
        kinds = ("fill", "gather", "xpose", "joined")
        names = ("run", "span", "single", "odd", "c1", "c2", "c3", "s1", "s2", "s3")
        names = (*names, "first1", "first2", "runs", "outer", "back")
        for name in (*names, "dram", "pad", "pack", "last", *kinds):
            field = getattr(dut.desc, name)
            m.d.comb += field.eq(self.free(len(field), name))
        out = Signal(range(LOAD_OUTSTANDING + 1))
        run_bytes = dut.desc.run
        m.d.comb += [
            dut.start.eq(start),
            dut.arready.eq(ready),
            dut.burst_end.eq(ends),
            Assume(~start | dut.idle),
            Assume((run_bytes != 0) & (run_bytes < (1 << 20))),
            Assume(Mux(dut.desc.joined, dut.desc.span >= run_bytes, dut.desc.span == run_bytes)),
            Assume(~dut.desc.odd | (dut.desc.joined & (dut.desc.c1 > 1) & ~run_bytes[0])),
            Assume(~dut.desc.joined | (dut.desc.s1 == run_bytes)),
            *(Assume(dut.desc[c] != 0) for c in ("c1", "c2", "c3")),
            Assume(dut.desc.xpose | (dut.desc.first1 == dut.desc.c1)),
            Assume(~ends | (out != 0)),
            *(Assume(~(dut.desc[a] & dut.desc[b])) for a, b in combinations(kinds, 2)),
            dut.offset.eq(self.free(32, "offset")),
        ]
        legal(m, dut.arvalid, dut.araddr, dut.arlen, bus)
        stays(m, dut.arvalid, ready, dut.araddr, dut.arlen)
        # each slot belongs to a burst: as many as its length, the first one cycle before AR
        slot, filling = Signal(), Signal()
        fresh, beats, seen = Signal(), Signal(5), Signal()
        m.d.sync += [slot.eq(dut.issuing), seen.eq(dut.arvalid & ~ready)]
        with m.If(start):
            m.d.sync += filling.eq(dut.desc.fill)
        runs, plain, was_plain = Signal(), Signal(), Signal()  # slots of runs; with beats
        m.d.comb += runs.eq(active & ~filling & (extra.left == 0) & (lead == 0))
        m.d.comb += plain.eq(runs & run.beat)
        behind = Behind(m, dut, runs, bus)
        m.d.sync += was_plain.eq(plain)
        m.d.comb += fresh.eq(dut.arvalid & ~seen)
        with m.If(slot & was_plain):
            m.d.comb += Assert(fresh == (beats == 0))
            m.d.sync += beats.eq(Mux(fresh, dut.arlen, beats - 1))
        with m.Else():
            m.d.comb += Assert(~fresh)
        m.d.sync += out.eq(out + fresh - ends)
        rest = Signal(5)  # slots of this burst to come
        m.d.comb += [
            rest.eq(Mux(slot & was_plain, Mux(fresh, dut.arlen, beats - 1), beats)),
            Assume(behind.holds),
            Assert(behind.true),
            Assert(~active | ((held.run != 0) & (held.run < (1 << 20)) & (held.fill == filling))),
            Assert((lead == 0) | (active & held.gather & ~held.xpose & (extra.left == 0))),
            Assert(~active | ~(held.gather & held.fill)),
            Assert((extra.left == 0) | (active & held.xpose)),
            Assert(rest == burst),
            Assert((rest == 0) | runs),
            Assert((rest == 0) | (rest <= left)),
            Assert(outstanding == out + fresh),
            Assert(out <= LOAD_OUTSTANDING),
            Assert(~fresh | slot),
            Assert(~fresh | (out < LOAD_OUTSTANDING)),
            Cover(fresh & (dut.araddr[:12] + (dut.arlen + 1) * bus == PAGE) & (dut.arlen == 2)),
            Cover(fresh & (dut.arlen == MAX_BURST - 1)),
            Cover(slot & ~was_plain & (burst != 0)),
        ]


class Covered(Property):
    """hw.load_address: the bursts of a run follow each other and cover exactly its bytes."""

    long = 20  # beats that a cover reaches

    def __init__(self, *changes, config=CONFIG):
        super().__init__()
        self.source, self.config = mutant("tilewright.hw.load_address", *SEE_LOAD, *changes), config

    def runs(self, m):
        """How many runs there are."""
        return 1

    def build(self, m):
        bus = self.config.bus_bytes
        m.submodules.dut = dut = self.source.AddressGenerator(self.config)
        run, dram = self.constant(m, 10, "run"), self.constant(m, 32, "dram")
        span = Signal(12)  # of all runs
        runs = self.runs(m)
        started, at, fresh, seen = Signal(), Signal(33), Signal(), Signal()
        ready = self.free(1, "arready")
        low = (bus - 1).bit_length()
        last = Signal(33)
        m.d.comb += [
            dut.start.eq(~started),
            dut.desc.run.eq(run),
            dut.desc.dram.eq(dram),
            span.eq(sum([run] * runs) - Mux(dut.desc.odd, run >> 1, 0)),
            dut.desc.span.eq(span),
            dut.desc.joined.eq(runs > 1),
            dut.desc.s1.eq(run),
            *(dut.desc[c].eq(runs) for c in ("c1", "first1")),
            *(dut.desc[c].eq(1) for c in ("c2", "first2", "c3")),
            dut.arready.eq(ready),
            last.eq(((dram + span - 1) >> low) << low),
            Assume((run != 0) & (span <= 40 * bus)),
            Assume(~dram[31]),
            fresh.eq(dut.arvalid & ~seen),
            Assert(~fresh | (dut.araddr == at)),
            Assert(~fresh | (at <= last)),
            Assert(~(started & dut.idle & ~dut.issuing & ~dut.arvalid) | (at == last + bus)),
            Cover(started & dut.idle & ~dut.issuing & (span > self.long * bus)),
        ]
        m.d.sync += [started.eq(1), seen.eq(dut.arvalid & ~ready)]
        with m.If(~started):
            m.d.sync += at.eq((dram >> low) << low)
        with m.Elif(fresh):
            m.d.sync += at.eq(at + (dut.arlen + 1) * bus)


class Joined(Covered):
    """The bursts of three joined runs of less than two beats, each with or without a last unit
    that has no beat, the last run with half of the bytes or not: they go on from one to the next.
    """

    long = 3

    def runs(self, m):
        dut = m.submodules.dut
        m.d.comb += [
            dut.desc.single.eq(self.constant(m, 1, "single")),
            dut.desc.odd.eq(self.constant(m, 1, "odd")),
            Assume(~dut.desc.odd | ~dut.desc.run[0]),
            Assume(dut.desc.run < 2 * self.config.bus_bytes),
            Assume(dut.desc.dram[14:] == 0),
        ]
        return 3


class Sequences(Property):
    """hw.load_address: slots without a beat follow the last run of each transposed sequence.

    Each run is a beat, and so a burst of its own, that comes one cycle after its slot. No address
    is refused. A sequence of several dimensions lacks runs at its ends; those that are there are
    read at their addresses, in order.
    """

    def __init__(self, *changes, config=CONFIG):
        super().__init__()
        self.source, self.config = mutant("tilewright.hw.load_address", *SEE_LOAD, *changes), config

    def build(self, m):
        bus = self.config.bus_bytes
        m.submodules.dut = dut = self.source.AddressGenerator(self.config)
        pack, pad = self.constant(m, 2, "pack"), self.constant(m, 2, "pad")
        counts = [self.constant(m, 2, f"c{i}") for i in (1, 2, 3)]
        skips = [self.constant(m, 2, f"skip{i}") for i in (1, 2)]
        drops = [self.constant(m, 2, f"drop{i}") for i in (1, 2)]
        several, whole, at_run = Signal(), Signal(6), [Signal(2, name=f"i{i}") for i in (1, 2, 3)]
        wraps = Signal(2)
        length, runs = Signal(6), Signal(6)  # runs of a sequence, of all
        started, was_slot, fresh = Signal(), Signal(), Signal()
        at, total = Signal(6), Signal(6)  # runs of this sequence, of all
        zeros = Signal(2)  # slots without a beat to come
        c1, c2, c3 = counts
        over = started & dut.idle & ~dut.issuing & ~was_slot
        m.d.comb += [
            several.eq(pack[1]),
            whole.eq(Mux(pack == 1, c1, Mux(pack == 2, c1 * c2, c1 * c2 * c3))),
            length.eq(whole - skips[0] - drops[0] - (skips[1] + drops[1]) * c1),
            runs.eq(length * Mux(pack == 1, c2, 1) * Mux(pack == 3, 1, c3)),
            *(Assume((x < n) & (several | (x == 0)))
              for xs in (skips, drops) for x, n in zip(xs, (c1, c2), strict=True)),
            *(Assume((pack == 3) | (x[1] == 0)) for x in (skips, drops)),
            Assume(whole > skips[0] + drops[0] + (skips[1] + drops[1]) * c1),
            dut.start.eq(~started),
            dut.arready.eq(1),
            dut.desc.run.eq(bus),
            dut.desc.span.eq(bus),
            dut.desc.xpose.eq(1),
            dut.desc.pack.eq(pack),
            dut.desc.pad.eq(pad),
            *(dut.desc[f"c{i + 1}"].eq(c) for i, c in enumerate(counts)),
            *(dut.desc[f"first{i + 1}"].eq(c - skips[i]) for i, c in enumerate(counts[:2])),
            *(dut.desc[f"s{i + 1}"].eq(bus << 2 * i) for i in range(3)),  # i1 in bits 0, 1 ...
            dut.desc.runs.eq(length),
            dut.desc.back.eq(bus * skips[0]),
            dut.desc.dram.eq(bus * Cat(*skips)),
            dut.desc.outer.eq(Mux(pack == 3, 0, dut.desc.dram)),
            *(Assume(c != 0) for c in (pack, *counts)),
            fresh.eq(dut.arvalid),
            Assert(~fresh | was_slot),
            Assert(~was_slot | (fresh == (zeros == 0))),
            Assert(~over | ((total == runs) & (zeros == 0) & (at == 0))),
            Assert(total <= runs),
            Assert(~fresh | (dut.araddr == bus * Cat(*at_run))),
            wraps.eq(Cat(at_run[0] + 1 == c1, at_run[1] + 1 == c2)),
            Cover(over & (pack == 1) & (c2 == 2) & (c3 == 2) & (pad == 1)),
            Cover(over & (pack == 2) & (c1 == 2) & (c2 == 2) & (c3 == 2) & (pad == 2)),
            Cover(over & (pack == 3) & (c1 == 1) & (c2 == 2) & (c3 == 3) & (pad == 3)),
            Cover(over & (pack == 2) & (c2 == 2) & (c3 == 2) & (skips[0] == 1) & (drops[0] == 1)),
            Cover(over & (pack == 3) & (c3 == 2) & (Cat(*skips, *drops) == 0b01010101)),
        ]
        m.d.sync += [started.eq(1), was_slot.eq(dut.issuing)]
        with m.If(was_slot & (zeros != 0)):
            m.d.sync += zeros.eq(zeros - 1)
        with m.Elif(was_slot):
            m.d.sync += [at.eq(at + 1), total.eq(total + 1)]
            m.d.sync += at_run[0].eq(Mux(wraps[0], 0, at_run[0] + 1))
            with m.If(wraps[0]):
                m.d.sync += at_run[1].eq(Mux(wraps[1], 0, at_run[1] + 1))
            with m.If(wraps.all()):
                m.d.sync += at_run[2].eq(at_run[2] + 1)
            with m.If(at + 1 == length):
                m.d.sync += [at.eq(0), zeros.eq(pad)]
                with m.If(pack == 2):  # the next one is of the next i3
                    m.d.sync += [at_run[0].eq(skips[0]), at_run[1].eq(0)]
                    m.d.sync += at_run[2].eq(at_run[2] + 1)
        with m.If(~started):
            m.d.sync += [i.eq(x) for i, x in zip(at_run, skips, strict=False)]


class Store(Property):
    """hw.store_address.SlotGenerator: write bursts, and `wlast` on exactly their last beat.

    A ghost counts the bytes from this row's first one to the end of its line by subtraction. That
    they are those of n1 rows is assumed: `span` is those of c1 rows (`properties_extent`).
    """

    def __init__(self, *changes, config=CONFIG):
        super().__init__()
        self.source = mutant("tilewright.hw.store_address", *SEE_STORE, *changes)
        self.config = config

    def build(self, m):
        dut = self.source.SlotGenerator(self.config)
        m.submodules.dut = Fragment.get(dut, None)  # now, so that its state can be named
        start, go = self.free(1, "start"), self.free(1, "go")
        i = dut.instr
        for name in i.shape().members:
            field = Value.cast(getattr(i, name))
            m.d.comb += field.eq(self.free(len(field), name))
        m.d.comb += dut.index_data.eq(self.free(len(dut.index_data), "index_data"))
        m.d.comb += [
            dut.start.eq(start),
            dut.go.eq(go),
            Assume(~start | ~dut.active | (go & dut.last)),
            Assume((i.c0 != 0) & (i.c1 != 0) & (i.c2 != 0)),
            Assume((i.units != 0) & (i.units <= 16)),
            Assume(i.dest <= max(Dest)),
            Assume(~i.joined | ((i.dest == Dest.DRAM) & ~i.scatter)),
            Assume(~i.joined | (i.s1 == dut.keep["new_length"])),
        ]
        legal(m, dut.aw_valid, dut.aw_addr, dut.aw_len, self.config.bus_bytes)
        beat, left = Signal(), Signal(5)
        m.d.sync += beat.eq(dut.beat)
        with m.If(beat):
            m.d.comb += [
                Assert(dut.aw_valid == (left == 0)),
                Assert(dut.late.wlast == (Mux(dut.aw_valid, dut.aw_len, left - 1) == 0)),
            ]
            m.d.sync += left.eq(Mux(dut.aw_valid, dut.aw_len, left - 1))
        with m.Else():
            m.d.comb += Assert(~dut.aw_valid)
        bus, spad = self.config.bus_bytes, dut.keep["spad"]
        low = bus.bit_length() - 1
        place = dut.dst[low : low + MAX_BURST.bit_length() - 1]
        rest, beats, room, inside = Signal(5), Signal(32), Signal(5), Signal()
        self._rows(m, dut, start, low)
        m.d.comb += [
            rest.eq(Mux(beat, Mux(dut.aw_valid, dut.aw_len, left - 1), left)),
            beats.eq(dut.after + 1),  # of the line, this one included
            room.eq(MAX_BURST - place),
            inside.eq(dut.active & ~spad & ~dut.first & (place != 0)),
            Assert(rest == Mux(inside, Mux(beats < room, beats, room), 0)),
            Assert(~dut.active | ((dut.left != 0) & (dut.left < (1 << 18) + bus))),
            Assert(~dut.active | (dut.keep["length"] != 0)),
            Assert(~dut.active | ~(dut.in_vectors | dut.in_index) | dut.first),
            Assert(dut.offset < bus),
            Cover(beat & dut.late.wlast & (left == 1)),
            Cover(dut.aw_valid & (dut.aw_len == MAX_BURST - 1)),
            Cover(beat & dut.late.wlast & dut.keep["joined"] & (dut.late.offset == 3)),
        ]

    def _rows(self, m, dut, start, low):
        """The line's bytes and beats that are left."""
        k, (dst_row, _, n1, _) = dut.keep, dut.rows_at
        joined, length, bytes_, total = k["joined"], k["length"], Signal(33), Signal(35)
        ends, line = Signal(), Signal(33)
        waits = dut.in_vectors | dut.in_index | dut.in_block | dut.more
        with m.If(start):
            m.d.sync += line.eq(Mux(dut.instr.joined, dut.instr.span, k["new_length"]))
            m.d.sync += bytes_.eq(Mux(dut.instr.joined, dut.instr.span, k["new_length"]))
        with m.Elif(ends):
            m.d.sync += bytes_.eq(Mux(dut.goes_on, bytes_ - length, line))
        m.d.comb += [
            ends.eq(dut.active & dut.go & ~waits & dut.row_last),
            total.eq(bytes_ + dut.left - length),
            Assume(~joined | Mux(n1 == 1, bytes_ == length, bytes_ >= 2 * length)),
            Assume(~joined | (total <= 1 << 32)),
            Assert(~dut.active | (n1 != 0)),
            Assert(~dut.active | ~k["spad"] | dut.first),
            Assert(~dut.active | k["scatter"] | (dut.waiting == 0)),
            Assert(~dut.active | (k["c1"] != 0)),
            Assert(~dut.active | ~joined | ~(k["spad"] | k["scatter"])),
            Assert(~dut.active | ~joined | (k["step1"] == length)),
            Assert(~dut.active | (line == k["reach"] + 1)),
            Assert(~dut.active | joined | ((bytes_ == length) & (line == length))),
            Assert(~dut.active | k["spad"] | (dut.after == ((total - 1) >> low))),
            Assert(~dut.active | ~joined | (dut.offset == dst_row[:low])),
            Assert(
                ~dut.active
                | ~joined
                | ((((dut.dst >> low) << low) + dut.left)[:32] == (dst_row + length)[:32])
            ),
        ]


class Fetch(Property):
    """hw.fetch.Fetch: bursts of 16 beats inside 256 bytes, for any jumps and any back-pressure."""

    def __init__(self, *changes):
        super().__init__()
        self.source = mutant("tilewright.hw.fetch", *changes)

    def build(self, m):
        m.submodules.dut = dut = self.source.Fetch()
        base = self.constant(m, 32, "base")
        for name in ("run", "start", "count", "pc", "read", "jump", "target"):
            port = getattr(dut, name)
            m.d.comb += port.eq(self.free(len(port), name))
        m.d.comb += [
            dut.base.eq(base),
            dut.bus.arready.eq(self.free(1, "arready")),
            dut.bus.rvalid.eq(0),
            Assume(base[: (LINE_INSTRS * INSTR_BYTES).bit_length() - 1] == 0),
            Cover(dut.bus.arvalid & (dut.bus.araddr[:12] == PAGE - 256)),
        ]
        legal(m, Const(1), dut.bus.araddr, dut.bus.arlen, IBUS_BYTES)
