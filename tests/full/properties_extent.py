"""No instruction leaves the sequencer whose DRAM operand is not wholly in the granted window.

The sequencer with its real decoder, resolver, rules and EXTENT; the fetched words, the registers
and everything at its ports are any. EXTENT's multiplier is cut out: a product is any number. What
is shown for that number: the multiplier gets (count - 1) and the stride of dimension k in its k-th
DRAM step, and the verdict is exactly "base + the negative products, or base + the positive products
+ run - 1, is not in the window", in integers, without wrapping. A dimension whose step is left out
has count 1, and so a product of 0. The RTL's clock of the sequencer
may rest where nothing changes; here it runs.
"""

from amaranth.hdl import Assert, Cat, Cover, DomainRenamer, Module, Mux, Signal, Value, signed
from amaranth.hdl._ir import Fragment
from amaranth.lib.wiring import In
from formal import Property
from mutate import mutant, text_of
from properties_bursts import CONFIG
from tilewright.hw import extent, fetch
from tilewright.hw.decode import fields
from tilewright.isa.extent_table import PARTS
from tilewright.isa.table import (
    CONV_BYTES,
    INSTRUCTIONS,
    OPCODE_BITS,
    TYPE_BYTES,
    Conv,
    Dest,
    Mem,
)

SEE_SEQUENCER = (
    (
        "        with m.FSM():\n",
        "        self.has_extent = has_extent\n        with m.FSM() as fsm:\n"
        "            self.ongoing = {s: fsm.ongoing(s) for s in ('RESOLVE', 'EXTENT', 'EXEC')}\n",
    ),
)
SEE_SCALAR = (
    ("value.eq(Mux(written.bit_select(number, 1), port.data, 0)),", "value.eq(any_value[name]),"),
    ('"mul": a * b,', '"mul": a ^ b,'),  # any value: registers are cut away
)
SEE_EXTENT = (
    ("self._count * self._stride", "self.any_reach"),
    (
        "        bad = Signal()\n",
        "        bad = Signal()\n        self.see = check, operand, fenced\n",
    ),
)
#: Byte address, counts with strides, inner first, and the field that says an element's size.
DRAM = {
    "load": ("dram", (("c1", "s1"), ("c2", "s2"), ("c3", "s3")), "conv", CONV_BYTES),
    "store": ("dst", (("c1", "s1"), ("c2", "s2")), "out", TYPE_BYTES),
}


class AnyFetch(fetch.Fetch):
    """In the place of instruction fetch: any word in every cycle."""

    def __init__(self, prop):
        super().__init__()
        names = ("readable", "word", "error", "idle")
        self.any = {n: prop.free(len(getattr(self, n)), f"fetch_{n}") for n in names}

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [getattr(self, n).eq(value) for n, value in self.any.items()]
        return m


class Granted(Property):
    """LOAD and STORE get only instructions inside the window, `ldw` and `stw` only such words."""

    def __init__(self, *changes):
        super().__init__()
        names = {n: f"tilewright.hw.{n}" for n in ("extent", "sequencer")}
        mine = {n: [c for c in changes if c[0] in text_of(names[n])] for n in names}
        if sum(len(c) for c in mine.values()) != len(changes):
            raise ValueError(f"{changes!r} must each occur in one of {tuple(names)}")
        stage = mutant(names["extent"], *SEE_EXTENT, *mine["extent"])
        self.source = mutant(names["sequencer"], *SEE_SEQUENCER, *mine["sequencer"])
        self.reach = stage.Extent.any_reach = self.free(signed(48), "reach")
        self.source.Extent = stage.Extent
        self.source.Fetch = lambda: AnyFetch(self)
        reads = ("operand", "read_a", "read_d")
        scalar = mutant("tilewright.hw.scalar", *SEE_SCALAR)
        scalar.any_value = {n: self.free(32, f"any_{n}") for n in reads}
        self.source.register_file, self.source.results = scalar.register_file, scalar.results

    def build(self, m):
        dut = self.source.Sequencer(CONFIG)
        inside = Fragment.get(dut, None)  # now, so that its parts can be named
        m.submodules.dut = DomainRenamer({"always": "sync"})(inside)
        self.base = self.constant(m, 32, "window_first")
        self.limit = self.constant(m, 32, "window_last")
        for path, member, value in dut.signature.flatten(dut):
            name = "_".join(str(p) for p in path)
            if name in ("window_base", "window_limit"):
                m.d.comb += value.eq(self.base if name == "window_base" else self.limit)
            elif member.flow == In:
                value = Value.cast(value)
                m.d.comb += value.eq(self.free(len(value), f"{name}_in"))
        self._words(m, dut)
        m.d.comb += Assert(~dut._extent.see[0] | dut.ongoing["EXTENT"] | dut.ongoing["EXEC"])
        at = 0
        for name in extent.UNITS:
            start, at = at, at + sum(part.steps for part in PARTS[name])
            on = Signal(name=f"is_{name}")
            m.d.comb += on.eq(dut._ir[:OPCODE_BITS] == INSTRUCTIONS[name].opcode)
            self._walk(m, dut, name, on, start, at)

    def _in(self, first, last):
        return (first >= self.base) & (last <= self.limit)

    def _words(self, m, dut):
        for word in (dut.ldw, dut.stw):
            m.d.comb += [
                Assert(~word.valid | ((word.addr[:2] == 0) & self._in(word.addr, word.addr | 3))),
                Cover(word.valid & (word.addr == self.base) & (self.base != 0)),
            ]

    def _walk(self, m, dut, name, on, start, end):
        """The steps of one instruction; and, if it has a DRAM operand, what they come to."""
        ext, now = dut._extent, dut.ongoing
        check, operand, fenced = ext.see
        terms = DRAM[name][1] if name in DRAM else ()
        dram = end - len(terms)
        within = (ext._at >= start) & (ext._at < dram)
        m.d.comb += [
            Assert(~(on & now["RESOLVE"]) | (dut.has_extent & within & ~fenced)),
            Assert(~(on & now["EXTENT"]) | ((ext._at >= start) & (ext._at < end))),
            Assert(~(on & now["EXTENT"]) | (~fenced & ~(check & operand.dram))),
        ]
        if name not in DRAM:
            return
        v = fields(INSTRUCTIONS[name], dut._ir)
        base, terms, kind, sizes = DRAM[name]
        indexed = v["gather" if name == "load" else "scatter"]
        exists = ~v["fill"] if name == "load" else v["dest"] == Dest.DRAM
        m.d.comb += Assert(~(on & now["EXTENT"] & (ext._at >= dram)) | exists)
        run = Signal(19, name=f"{name}_bytes")
        with m.Switch(v[kind]):
            for code, size in sizes.items():
                with m.Case(code):
                    m.d.comb += run.eq(v["c0"] * size)
        low, high = (Signal(signed(54), name=f"{name}_{n}") for n in ("low", "high"))
        sums = low, high  # of the negative products; of the run and the positive ones
        walked = Signal(range(len(terms)), name=f"{name}_walked")  # the last step
        for k, (count, stride) in enumerate(terms):
            here = now["EXTENT"] & on & (ext._at == dram + k)
            most = Mux(indexed, v["bound"], v[count]) if k == 0 else v[count]
            before = sums if k else (0, run - 1)
            less = self.reach < 0
            with m.If(here):
                m.d.sync += low.eq(before[0] + Mux(less, self.reach, 0))
                m.d.sync += high.eq(before[1] + Mux(less, 0, self.reach))
                m.d.sync += walked.eq(k)
            m.d.comb += [
                Assert(~here | (ext._count == (most - 1)[:16])),
                Assert(~here | (ext._stride == v[stride])),
                Assert(~here | (k == 0) | (run == 0) | ((ext._lo == low) & (ext._hi == high))),
                Assert(~here | (k == 0) | ((low >= -(k << 47)) & (low <= 0))),
                Assert(~here | (k == 0) | (run == 0) | (high <= (k << 47) + (1 << 19))),
                Assert(~here | (k == 0) | (run == 0) | (high >= 0)),
            ]
        first = signed54(m, f"{name}_first", v[base] + low)
        last = signed54(m, f"{name}_last", v[base] + high)
        fine = Signal(name=f"{name}_granted")
        m.d.comb += fine.eq(~exists | self._in(first, last))
        ends = check & operand.dram
        summed = (ext._lo == low) & (ext._hi == high) & ~fenced & operand.dram
        summed &= exists & (operand.base == v[base])
        single = Cat(v[count] == 1 for count, _ in terms[1:]).all()  # outer steps change nothing
        push, entry = self._pushed(dut, name)
        m.d.comb += [
            # a run of no bytes has no last one: such an instruction breaks a rule
            Assert(~(on & now["EXEC"]) | (run == 0) | Mux(ends, summed, fenced == ~fine)),
            Assert(~push | (run != 0)),
            Assert(~(on & now["EXEC"]) | ~exists | (walked == len(terms) - 1) | single),
            # the claim
            Assert(~push | (on & fine)),
            Assert(~push | ~indexed | ((v["bound"] != 0) & (v["bound"] < (1 << 16)))),
            Assert(~push | ~indexed | (v["s1"][: (CONFIG.bus_bytes - 1).bit_length()] == 0)),
            *(Assert(~push | (v[c] != 0)) for c in ("c0", *(c for c, _ in terms))),
            *(
                Assert(~push | (Value.cast(entry[f]).as_unsigned() == v[f].as_unsigned()))
                for f in self._used(v)
            ),
            Cover(push & exists & (last == self.limit) & (first == self.base) & (first != last)),
        ]
        self._joins(m, dut, name, (on, dram, exists), run, v)

    def _joins(self, m, dut, name, where, run, v):
        """What is pushed of joined rows: as the contract says; `span`: run and product."""
        ext, now, (on, dram, exists) = dut._extent, dut.ongoing, where
        push, entry = self._pushed(dut, name)
        apart = ("gather", "xpose") if name == "load" else ("pool", "scatter")
        ways = Cat(v[n] for n in apart)
        joins, span = Signal(name=f"{name}_joins"), Signal(32, name=f"{name}_span")
        before, after = Signal(name=f"{name}_before"), Signal(name=f"{name}_after")
        m.d.comb += [
            joins.eq(exists & (v["c1"] != 1) & (v["s1"] == run) & ~ways.any()),
            before.eq(on & (now["RESOLVE"] | (now["EXTENT"] & (ext._at <= dram)))),
            after.eq(on & (now["EXEC"] | (now["EXTENT"] & (ext._at > dram)))),
            Assert(~before | ~ext.joined),
            Assert(~after | (ext.joined == (joins & (v["pack"] == 1 if "pack" in v else 1)))),
            Assert(~(after & ext.joined) | (run == 0) | (ext.span == span)),
            Assert(~push | (entry.joined == ext.joined)),
            Assert(~push | ~entry.joined | (entry.span == span)),
            Cover(push & entry.joined & (entry.span == 12) & (run == 3)),
        ]
        if name == "load":
            bus, same = CONFIG.bus_bytes, CONFIG.bus_bytes == CONFIG.dim
            bytes_ = (v["mem"] == Mem.SPAD) & (v["conv"] == Conv.COPY8)
            even = (v["loc"][0] + v["l2"][0] + v["l3"][0]) == 0
            rows = (v["l1"].as_signed() == 1) & (v["c0"] < bus)
            units = same & (v["l0"].as_signed() == 1) & ~v["l1"][0]
            pairs = entry.joined & bytes_ & even & (rows | units)
            m.d.comb += Assert(~push | (entry.paired == pairs))
            m.d.comb += [Cover(push & entry.paired & (v["l1"][0] == x)) for x in (0, 1)]
        with m.If(on & now["EXTENT"] & (ext._at == dram)):
            m.d.sync += span.eq(run + Mux(self.reach < 0, 0, self.reach))

    def _pushed(self, dut, name):
        dispatch = getattr(dut, f"dispatch_{name}")
        return dispatch.push, dispatch.entry.instr

    def _used(self, v):
        """All fields that the address generators read."""
        names = "c0 c1 c2 c3 s1 s2 s3 dram dst conv out fill dest gather scatter bound xpose pack"
        return [n for n in names.split() if n in v]


def signed54(m: Module, name: str, value) -> Signal:
    """A named number that is wide enough for every sum here."""
    out = Signal(signed(54), name=name)
    m.d.comb += out.eq(value)
    return out
