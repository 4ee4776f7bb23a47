"""LOAD's address side: what an instruction becomes on start, and the slots that issue its bursts.

A *descriptor* is the instruction as loops see it: bytes of a run, three counts with their DRAM and
local strides. Dimensions that do not move a row locally have stride 0, those that a fill does not
visit have count 1; a fill is a run of whole beats, one for each local unit. So the address
generator and the unpacker, some 60 cycles apart, walk the same `Nest` and never exchange a run.
A transposing instruction has *extra* slots without a beat after the last run of each *sequence*,
which are the runs of dimensions 1 to `pack`: `pad` units of the rows of zeros that complete the
block. A sequence of several dimensions may begin inside of a row, and ends when its runs are
counted, wherever that is in a row. What comes after its end may have to wait for the `Drain` of the
transposer.
A gathering instruction starts with LOAD_GATHER slots without a beat; then each run adds the offset
that the `IndexReader` has for it. Offsets are whole beats, so the unpacker need not know them. The
bursts of joined runs (`load_run`) go on from one to the next. If they are `paired`, local units are
words of two granules: a run is two rows, or l0 steps over two units.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.load_run import RUN_BITS, Run
from tilewright.hw.payload import payload
from tilewright.isa.config import LOCAL_BITS, MAX_BURST, XPOSE_BLOCKS, ChipConfig
from tilewright.isa.table import CONV_BYTES, Conv, Mem
from tilewright.isa.timing import LOAD_GATHER, LOAD_OUTSTANDING, load_drain

PAGE_BITS = 12  # a burst never crosses 4 KiB


def descriptor(config: ChipConfig) -> data.StructLayout:
    """Fields of one LOAD instruction as both sides keep it."""
    local, stride = unsigned(LOCAL_BITS), unsigned(LOCAL_BITS)  # modulo 2 ** LOCAL_BITS
    return data.StructLayout(
        {
            "fill": 1,
            "xpose": 1,
            "gather": 1,
            "joined": 1,
            "single": 1,  # a local unit has the bytes of a beat
            "half": range(config.bus_bytes + 1),  # bytes of a word's first granule; 0: not paired
            "odd": 1,  # the last run of a group is one row
            # units of the rows that a sequence lacks, if transposed
            "pad": range((config.dim - 1) * XPOSE_BLOCKS + 1),
            "mem": unsigned(1),
            "conv": unsigned(4),
            "pack": unsigned(2),
            "run": unsigned(RUN_BITS - 1),
            "span": unsigned(32),  # bytes that bursts go on for: the run, or all that are joined
            **{f"c{i}": unsigned(16) for i in (1, 2, 3)},
            # of the row, and of the i3, in which a sequence begins; runs of the sequence
            **{n: unsigned(16) for n in ("first1", "first2", "runs")},
            "dram": unsigned(32),  # of the first run
            "outer": unsigned(32),  # where dimension 3 steps on from
            "back": unsigned(32),  # bytes to a sequence's first run from where its row would begin
            **{f"s{i}": signed(32) for i in (1, 2, 3)},
            "loc": local,
            **{f"l{i}": stride for i in (0, 1, 2, 3)},
            "value": unsigned(32),
            # number of the last element: of a run, if transposed, else of a row's last unit
            "last": range(XPOSE_BLOCKS * config.dim),
        }
    )


def fields(layout: data.StructLayout, *names: str) -> data.StructLayout:
    """The layout of some fields of another, to register no more than is used."""
    return data.StructLayout({n: layout.members[n] for n in names})


def copy(target: data.View, source: data.View) -> list:
    """Assignments of all fields of `target` from the fields of the same name."""
    return [target[n].eq(source[n]) for n in target.shape().members]


def describe(m: Module, config: ChipConfig, start, instr) -> data.View:
    """The descriptor of a payload, combinationally; zero without `start`, as Verilator likes it."""
    out = Signal(descriptor(config))
    row = ~instr.xpose
    inside = {1: row & (instr.pack >= 2), 2: row & (instr.pack == 3)}  # inside a local row
    same = [n for n in descriptor(config).members if n in payload("load").members]
    rest = exact_log2(config.dim)
    pairs = (instr.conv == Conv.COPY32) & (instr.mem == Mem.SPAD)
    with m.If(start):
        m.d.comb += [out[n].eq(instr[n]) for n in same]
        m.d.comb += [
            out.dram.eq(instr.begin),
            # the sequences of each i3 begin alike; of one in dimension 3, only the first i3 is cut
            out.outer.eq(Mux(instr.pack == 3, instr.dram, instr.begin)),
            out.runs.eq(instr.row_elems),
            out.first1.eq(out.c1 - instr.skip1),
            out.first2.eq(out.c2 - instr.skip2),
        ]
        for i, packed in inside.items():
            with m.If(packed):
                m.d.comb += out[f"l{i}"].eq(0)
                with m.If(instr.fill):
                    m.d.comb += out[f"c{i}"].eq(1)
        with m.If(instr.fill):
            m.d.comb += out.run.eq(instr.units << exact_log2(config.bus_bytes))
            m.d.comb += [out[n].eq(0) for n in ("dram", "outer", "s1", "s2", "s3")]
        with m.Else(), m.Switch(instr.conv):
            for conv, size in CONV_BYTES.items():
                with m.Case(conv):
                    m.d.comb += out.run.eq(instr.c0 << exact_log2(size))
                    m.d.comb += out.single.eq(size * config.dim == config.bus_bytes)
        with m.If(instr.paired & instr.l1[0]):  # two rows are a run
            m.d.comb += [
                out.half.eq(instr.c0),
                out.odd.eq(instr.c1[0]),
                out.c1.eq((instr.c1 + 1) >> 1),
                out.run.eq(instr.c0 << 1),
                out.s1.eq(instr.s1 << 1),
                out.l1.eq(2),
                out.single.eq(0),
            ]
        with m.Elif(instr.paired):
            m.d.comb += [out.half.eq(config.bus_bytes), out.l0.eq(2), out.single.eq(0)]
        with m.If(~instr.joined):
            m.d.comb += out.span.eq(out.run)
        with m.If(instr.gather):
            m.d.comb += out.s1.eq(0)
        short = Mux(pairs, config.dim // 2 - 1, config.dim - 1)
        m.d.comb += out.last.eq((instr.row_elems - 1) & short)
        with m.If(instr.xpose):
            last = (instr.c0 - 1)[: len(out.last)]
            lacks = (-instr.row_elems)[:rest]
            m.d.comb += [out.last.eq(last), out.pad.eq(lacks * ((last >> rest) + 1))]
    return out


class Nest:
    """Three nested counters and the addresses that they step, as registers in `m`.

    Parameters
    ----------
    load, new : take the first position of descriptor `new`.
    step, held : go to the next position of the descriptor register `held`.
    tracks : name to (bits, start field, the three stride fields).
    far : the track in DRAM, if positions are runs: of sequences, that may begin inside of a row.
    straight : names to conditions: the track steps by its innermost stride, at an end, too.

    **Members** : `at[name]` of this position, `next[name]` of the one that `load` or `step` takes;
    `end[i]`: dimension i + 1 is at its last index, or cut there; `over`: so is the sequence, if
    transposed; `near`: a step leads to the last of dimension 1.
    """

    def __init__(
        self, m: Module, prefix: str, *, load, new, step, held, tracks, straight=None, far=""
    ):
        left = [Signal(16, name=f"{prefix}_left{i}", reset_less=True) for i in (1, 2, 3)]
        counts = [(new[c], held[c]) for c in ("c1", "c2", "c3")]  # at first, and again
        self.end = [count == 1 for count in left]
        if far:
            runs = Signal(16, name=f"{prefix}_runs", reset_less=True)  # of a sequence
            several = held["xpose"] & held["pack"][1]
            cut = several & (runs == 1)
            self.over = Mux(several, runs == 1, left[0] == 1)
            self.end[:2] = [self.end[0] | cut, self.end[1] | cut]
            counts[0] = new["first1"], Mux(cut, held["first1"], held["c1"])
            counts[1] = new["first2"], held["c2"]
        self.near = left[0] == 2
        self.at, self.next = {}, {}
        levels = {}
        for name, (bits, start, strides) in tracks.items():
            base = [Signal(bits, name=f"{prefix}_{name}{i}", reset_less=True) for i in (1, 2, 3)]
            to = Signal(bits, name=f"{prefix}_{name}_next")
            steps = [(b + held[s])[:bits] for b, s in zip(base, strides, strict=True)]
            first = ~self.end[0]
            if straight is not None and name in straight:
                first |= straight[name]
            inner = Mux(first, steps[0], Mux(~self.end[1], steps[1], steps[2]))
            m.d.comb += to.eq(Mux(load, new[start], inner))
            self.at[name], self.next[name], levels[name] = base[0], to, base
        carry = [load | step, load | step & self.end[0], load | step & self.end[0] & self.end[1]]
        for i, go in enumerate(carry):
            # the counter of a dimension is reloaded when the next outer one steps
            again = carry[i + 1] if i < 2 else load
            with m.If(again):
                m.d.sync += left[i].eq(Mux(load, *counts[i]))
            with m.Elif(go):
                m.d.sync += left[i].eq(left[i] - 1)
            with m.If(go):
                m.d.sync += [levels[n][i].eq(self.next[n]) for n in tracks]
        if far:
            begins = load | step & cut  # a sequence, perhaps inside of a row
            back = Mux(load, new["back"], held["back"])
            with m.If(begins):
                m.d.sync += runs.eq(Mux(load, new["runs"], held["runs"]))
                m.d.sync += levels[far][1].eq(self.next[far] - back)
            with m.Elif(step):
                m.d.sync += runs.eq(runs - 1)
            with m.If(load):
                m.d.sync += levels[far][2].eq(new["outer"])


def next_run(held, nest: Nest):
    """Bytes of the run that a step leads to: of one row only, if that is the odd one."""
    return Mux(held.odd & nest.near, held.run >> 1, held.run)


class Extra:
    """The extra slots after a run, as registers in `m`.

    Parameters
    ----------
    slot, run_end : a slot is in use; it holds a run's last beat.
    end : of a sequence.

    **Members** : `on`, this slot is extra and stands for a unit of zeros; `over`, it is the last
    slot of its run; `final`, the same of a sequence's last run, without waiting for `end`.
    """

    def __init__(self, m: Module, *, slot, run_end, held, end):
        left, amount = Signal.like(held.pad), Signal.like(held.pad)
        self.on, self.over, self.final = Signal(), Signal(), Signal()
        some = held.xpose & held.pad.any()
        with m.If(held.xpose & end):
            m.d.comb += amount.eq(held.pad)
        m.d.comb += [
            self.on.eq(left != 0),
            self.over.eq(Mux(self.on, left == 1, run_end & ~(some & end))),
            self.final.eq(Mux(self.on, left == 1, run_end & ~some)),
        ]
        with m.If(slot & self.on):
            m.d.sync += left.eq(left - 1)
        with m.Elif(slot & run_end):
            m.d.sync += left.eq(amount)


class Drain:
    """The columns of a transposing instruction's last block, written after its slots.

    Parameters
    ----------
    ended : the last slot of the instruction `held` is in use.
    held : the instruction whose slots come, or came last.

    **Members** : `hold`, no slot of `held` may come yet; `over`, in this cycle a drain ends.
    Another transposing instruction needs the write port only after the slots of a block, at least
    `dim` for each unit of a run.
    """

    def __init__(self, m: Module, config: ChipConfig, *, ended, held):
        most = load_drain(XPOSE_BLOCKS * config.dim)
        left = Signal(range(most + 1))
        hidden = Mux(held.xpose, (held.last | (config.dim - 1)) + 1, 0)
        self.hold, self.over = left > hidden, left == 1
        with m.If(ended & held.xpose):
            m.d.sync += left.eq(load_drain(held.last + 1))
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)


class AddressGenerator(wiring.Component):
    """Turns descriptors into read bursts, one slot per cycle.

    **Members**

    start, desc : In
        A descriptor, while `idle`.
    idle : Out(1)
        No slot after this cycle is left: `start` may come. Follows `arready` in back-pressure.
    issuing : Out(1)
        A slot is in use.
    burst_end : In(1)
        A burst's last beat is accepted.
    word, word_addr : In
        Read the 32-bit word at `word_addr` (quiet unit only).
    araddr, arlen, arvalid : Out, arready : In
    offset, take : In(32), Out(1)
        What the next run adds to its address, if the instruction gathers; it is taken.

    **Timing** : start at s, slots from s + 1 without gaps, later if a `Drain` holds the first one;
    AR one cycle after a burst's first slot.
    A slot that would need AR waits while the last AR is refused or LOAD_OUTSTANDING bursts are out.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "desc": In(descriptor(config)),
                "idle": Out(1),
                "issuing": Out(1),
                "burst_end": In(1),
                "word": In(1),
                "word_addr": In(32),
                "araddr": Out(32),
                "arlen": Out(8),
                "arvalid": Out(1),
                "arready": In(1),
                "offset": In(32),
                "take": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        bus = self.config.bus_bytes
        low = exact_log2(bus)
        names = ("fill", "gather", "joined", "single", "odd", "xpose", "pad", "pack", "last")
        steps = ("run", "span", "c1", "c2", "c3", "s1", "s2", "s3", "first1", "runs", "back")
        kept = fields(descriptor(self.config), *names, *steps)
        held = Signal(kept, reset_less=True)
        active = Signal()
        rest = Signal(33 - low, reset_less=True)  # beats until bursts end, this one included
        beat = Signal(32 - low, reset_less=True)  # address of this beat, in beats
        burst = Signal(range(MAX_BURST))  # beats of this burst after this one
        outstanding = Signal(range(LOAD_OUTSTANDING + 1))

        lead = Signal(range(LOAD_GATHER + 1))  # slots until the first run of a gather
        begin = Signal()  # of its first run
        first = Signal()
        slot, go = Signal(), Signal()
        run_end, step = Signal(), Signal()
        blocked = self.arvalid & ~self.arready | (outstanding == LOAD_OUTSTANDING)
        nest = Nest(
            m,
            "run",
            load=self.start,
            new=self.desc,
            step=step,
            held=held,
            tracks={"dram": (32, "dram", ("s1", "s2", "s3"))},
            far="dram",
        )
        extra = Extra(m, slot=slot, run_end=run_end, held=held, end=nest.over)
        last = extra.final & nest.end[0] & nest.end[1] & nest.end[2]
        drain = Drain(m, self.config, ended=slot & last, held=held)
        to = Mux(begin, nest.at["dram"], nest.next["dram"])
        comes = {n: Mux(self.start, self.desc[n], held[n]) for n in ("joined", "single", "span")}
        comes["run"] = Mux(self.start, self.desc.run, next_run(held, nest))
        group = self.start | begin | step & (nest.end[0] | ~held.joined)
        run = Run(
            m,
            self.config,
            begin=self.start | begin | step,
            group=group,
            desc=comes,
            offset=to[:low],
            go=go,
        )
        m.d.comb += [
            slot.eq(active & ~drain.hold & ~(first & blocked)),
            go.eq(slot & ~extra.on & (lead == 0)),
            run_end.eq((lead == 0) & run.last),
            begin.eq((lead == 1) & ~drain.hold),
            self.issuing.eq(slot),
            first.eq((burst == 0) & ~held.fill & ~extra.on & (lead == 0) & run.beat),
            step.eq(slot & extra.over),
        ]
        m.d.comb += self.idle.eq(~active | slot & last)

        base = Signal(32)
        m.d.comb += [
            base.eq(to + Mux(held.gather & ~self.start, self.offset, 0)),
            self.take.eq(begin | step & held.gather & ~last),
        ]
        with m.If(self.start & self.desc.gather):
            m.d.sync += lead.eq(LOAD_GATHER)
        with m.Elif((lead != 0) & ~drain.hold):
            m.d.sync += lead.eq(lead - 1)
        with m.If(self.start):
            m.d.sync += [active.eq(1), *copy(held, self.desc)]
        with m.Elif(slot & last):
            m.d.sync += active.eq(0)
        with m.If(group):
            bytes_ = comes["span"] + to[:low] + (bus - 1)
            m.d.sync += [rest.eq(bytes_ >> low), beat.eq(base[low:])]
        with m.Elif(go & run.beat):
            m.d.sync += [rest.eq(rest - 1), beat.eq(beat + 1)]
        self._request(m, go & run.beat, first, rest, beat, burst, outstanding)
        return m

    def _request(self, m: Module, fetch, first, rest, beat, burst, outstanding):
        """The AR register, burst lengths and the count of bursts in flight."""
        bus = self.config.bus_bytes
        low = exact_log2(bus)
        room = Signal(range(MAX_BURST + 1))  # beats to the page's end, at most a burst
        index = beat[: PAGE_BITS - low]
        split = exact_log2(MAX_BURST)
        m.d.comb += room.eq(Mux(index[split:].all(), MAX_BURST - index[:split], MAX_BURST))
        length = Signal(range(MAX_BURST + 1))
        m.d.comb += length.eq(Mux(rest < room, rest, room))
        issue = fetch & first
        with m.If(issue):
            m.d.sync += burst.eq(length - 1)
        with m.Elif(fetch & (burst != 0)):
            m.d.sync += burst.eq(burst - 1)

        with m.If(self.arready):
            m.d.sync += self.arvalid.eq(0)
        with m.If(issue):
            m.d.sync += [
                self.arvalid.eq(1),
                self.araddr.eq(Cat(Const(0, low), beat)),
                self.arlen.eq(length - 1),
            ]
        with m.Elif(self.word):
            m.d.sync += [
                self.arvalid.eq(1),
                self.araddr.eq(Cat(Const(0, low), self.word_addr[low:])),
                self.arlen.eq(max(1, 4 // bus) - 1),
            ]
        sent = issue | self.word
        with m.If(sent & ~self.burst_end):
            m.d.sync += outstanding.eq(outstanding + 1)
        with m.Elif(~sent & self.burst_end):
            m.d.sync += outstanding.eq(outstanding - 1)
