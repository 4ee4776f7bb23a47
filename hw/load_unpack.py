"""LOAD's data side: beats of DRAM become chunks of local units, one slot per cycle.

A local row is a stream of bytes. Each beat is rotated so that its first useful byte lands where the
row's stream stands, and merged into the *chunk* register of two beats. A chunk leaves when a byte
of its row beyond it is there, but not in the row's first slot, or in the cycle after the row's last
slot: so never more than one chunk leaves in a cycle, whatever the alignment, and nothing has to be
buffered. A fill puts its value into the chunk register once for each unit, and the chunk leaves to
become a whole unit; so does each unit of the rows of zeros that complete a block to be transposed.

The first slot of a joined run (`load_run`) brings what it has of the beat before, and its own beat:
less than two beats. If a chunk has two beats, that is never beyond one. If it has one beat (that is
a unit, then), up to a beat more waits in the register; the row's slots after the first let a chunk
leave each, and a row has a slot for each unit, so at its end one chunk is left. A chunk of paired
runs is a word of two granules, the whole register.

Descriptors wait in a queue, since the beats come some 60 cycles after their slots; the unpacker
walks the same `Nest` as the address generator, on the low address bits alone.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.load_address import (
    Drain,
    Extra,
    Nest,
    copy,
    descriptor,
    next_run,
)
from tilewright.hw.load_convert import (
    chunk_bytes,
    chunk_layout,
    chunk_width,
    index_bits,
    low_bytes,
    unit_bytes,
)
from tilewright.hw.load_run import Run
from tilewright.isa.config import LOCAL_BITS, ChipConfig
from tilewright.isa.extent_table import LOCAL_BYTES
from tilewright.isa.table import CONV_BYTES, Conv, Mem
from tilewright.isa.timing import LOAD_INFLIGHT, LOAD_OUTSTANDING


class Unpacker(wiring.Component):
    """Receives beats and gives chunks.

    **Members**

    start, desc : In
        A descriptor, in the order of its beats; at most LOAD_INFLIGHT started and not done.
    rdata, rvalid : In, rready : Out
        Beats; refused without a descriptor, and in slots that have none.
    beat : Out(1)
        A beat is accepted.
    last : Out(1)
        The last slot, or filled unit, of a descriptor is at work in this cycle.
    done : Out(1)
        The same, but after the `Drain` of a transposing one.
    run, outside : In
        The next run of a gather is to be read; it holds `value`, whatever is read.
    o_valid, o : Out
        Chunks (`chunk_layout`); not refused.

    **Timing** : a descriptor of start s receives from s + 2. A row whose last slot is at z is at
    `o` by z + 2. One slot, or one filled unit, per cycle.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "desc": In(descriptor(config)),
                "rdata": In(8 * config.bus_bytes),
                "rvalid": In(1),
                "rready": Out(1),
                "beat": Out(1),
                "last": Out(1),
                "done": Out(1),
                "run": In(1),
                "outside": In(1),
                "o_valid": Out(1),
                "o": Out(chunk_layout(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        have, take = Signal(), Signal()
        self._next_run = Signal()  # the beat of this cycle is its run's last
        self._phase = Signal(2, reset_less=True)  # place of the beat's byte 0 in an element
        self._on = Signal()  # an extra slot, without a beat
        advance = Signal()  # take the next descriptor from the queue
        waiting, queued = self._queue(m, advance)
        held = Signal(self._kept(), reset_less=True)
        self._go = Signal()  # this slot is over
        with m.If(advance):
            m.d.sync += [have.eq(1), held.eq(queued)]
        with m.Elif(self.last):
            m.d.sync += have.eq(0)
        run, *walk = self._walk(m, advance, queued, take, held)
        drain = Drain(m, self.config, ended=self.last, held=held)
        able = have & ~drain.hold
        m.d.comb += [
            self.rready.eq(able & ~held.fill & ~self._on & run.beat),
            self.beat.eq(self.rready & self.rvalid),
            self._go.eq(self.beat | able & (held.fill | self._on | ~run.beat)),
            self.done.eq(self.last & ~held.xpose | drain.over),
            take.eq(self._go & ~run.lead),
            advance.eq((~have | self.last) & waiting),
        ]
        self._replace(m, held, take)
        self._merge(m, take, held, run, *walk)
        return m

    def _kept(self) -> data.StructLayout:
        """What the queue holds of a descriptor: of byte strides only the offset in a beat."""
        low = exact_log2(self.config.bus_bytes)
        members = {n: f.shape for n, f in descriptor(self.config) if n != "span"}
        far = ("dram", "outer", "back", "s1", "s2", "s3")
        return data.StructLayout(members | {n: unsigned(low) for n in far})

    def _queue(self, m: Module, advance):
        """(Something waits, the oldest descriptor)."""
        depth = LOAD_INFLIGHT
        kept = self._kept()
        m.submodules.queue = memory = Memory(shape=unsigned(kept.size), depth=depth, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        push = Signal(kept)
        level = Signal(range(depth + 1))
        m.d.comb += [
            *copy(push, self.desc),
            write.data.eq(push.as_value()),
            write.en.eq(self.start),
        ]
        for port, go in ((write, self.start), (read, advance)):
            pointer = Signal(exact_log2(depth), name="push_at" if port is write else "pop_at")
            m.d.comb += port.addr.eq(pointer)
            with m.If(go):
                m.d.sync += pointer.eq(pointer + 1)
        m.d.sync += level.eq(level + self.start - advance)
        return level != 0, data.View(kept, read.data)

    def _walk(self, m: Module, advance, queued, take, held):
        """Where this slot stands: (`Run`, row_first, row_last, row address)."""
        bus = self.config.bus_bytes
        low = exact_log2(bus)
        row_first = Signal(reset_less=True)
        run_end, row_last, step, go = Signal(), Signal(), Signal(), Signal()
        number = Signal(exact_log2(self.config.dim), reset_less=True)  # of a run in its block
        strides = {n: held[n] for n in held.shape().members}
        strides["l1"] = Mux(held.xpose & (number != self.config.dim - 1), 0, held.l1)
        goes_on = Signal()  # the next run is of the same sequence
        nest = Nest(
            m,
            "run",
            load=advance,
            new=queued,
            step=step,
            held=strides,
            tracks={
                "offset": (low, "dram", ("s1", "s2", "s3")),
                "row": (LOCAL_BITS, "loc", ("l1", "l2", "l3")),
            },
            straight={"row": goes_on},
            far="offset",
        )
        inner, middle, outer = nest.end
        end = nest.over
        extra = Extra(m, slot=self._go, run_end=run_end, held=held, end=end)
        offset = nest.next["offset"]
        comes = {n: Mux(advance, queued[n], held[n]) for n in ("joined", "single")}
        comes["run"] = Mux(advance, queued.run, next_run(held, nest))
        run = Run(
            m,
            self.config,
            begin=advance | step,
            group=advance | inner,
            desc=comes,
            offset=offset,
            go=go,
        )
        alone = (held.pack == 1) | held.xpose  # a run is a row
        m.d.comb += [
            goes_on.eq(held.xpose & ~end),
            run_end.eq(run.last),
            self._on.eq(extra.on),
            go.eq(self._go & ~extra.on),
            step.eq(take & extra.over),
            self._next_run.eq(step),
            row_last.eq(run_end & ~extra.on & (alone | inner & ((held.pack == 2) | middle))),
            self.last.eq(take & extra.final & inner & middle & outer),
        ]
        with m.If(advance | step & end):
            m.d.sync += number.eq(0)
        with m.Elif(step):
            m.d.sync += number.eq(number + 1)
        with m.If(advance | step):
            m.d.sync += self._phase.eq(-offset)
        with m.Elif(take):
            m.d.sync += self._phase.eq(self._phase + bus)
        with m.If(advance):
            m.d.sync += row_first.eq(1)
        with m.Elif(take & ~extra.on):
            m.d.sync += row_first.eq(row_last)
        return run, row_first, row_last, nest.at["row"]

    def _replace(self, m: Module, held, take):
        """The beat, or what stands for it in a run whose index is out of range.

        Flags wait in a ring; LOAD_OUTSTANDING bounds the runs between both sides.
        """
        bits = 8 * self.config.bus_bytes
        m.submodules.flags = ring = Memory(shape=1, depth=2 * LOAD_OUTSTANDING, init=[])
        write, read = ring.write_port(), ring.read_port(domain="comb")
        for port, go in ((write, self.run), (read, self._next_run & held.gather)):
            at = Signal(exact_log2(ring.depth), name="flag_put" if port is write else "flag_take")
            m.d.comb += port.addr.eq(at)
            with m.If(go):
                m.d.sync += at.eq(at + 1)
        value = Signal(32)
        with m.Switch(held.conv):
            for conv, size in CONV_BYTES.items():
                with m.Case(conv):
                    m.d.comb += value.eq(held.value[: 8 * size].replicate(4 // size))
        self._data = Signal(bits)
        m.d.comb += [
            write.en.eq(self.run),
            write.data.eq(self.outside),
            self._data.eq(self.rdata),
        ]
        with m.If(held.gather & read.data):
            turned = value.replicate(2) >> Cat(Const(0, 3), self._phase)
            m.d.comb += self._data.eq(turned[:32].replicate(max(1, bits // 32)))

    def _arriving(self, m: Module, run, at):
        """(Bytes that this slot brings, how many), byte 0 of the row's stream `at` its place.

        The place counts modulo the chunk register.
        """
        bus = self.config.bus_bytes
        low = exact_log2(bus)
        before = Signal(8 * bus, reset_less=True)  # the beat before this one
        with m.If(self.beat):
            m.d.sync += before.eq(self.rdata)
        mixed = Signal(8 * bus)
        old = Mux(run.shared, ~low_bytes(bus, run.first), 0)  # places of bytes from `before`
        m.d.comb += mixed.eq(before & old | self._data & ~old)
        turn = Cat(Const(0, 3), (run.first - at)[:low])
        halves = [(x.replicate(2) >> turn)[: 8 * bus] for x in (mixed, self._data)]
        count = Signal(range(2 * bus))
        full = run.end > bus
        m.d.comb += count.eq(
            Mux(full, bus, run.end[: low + 2]) + Mux(run.shared, bus, 0) - run.first
        )
        return Cat(halves), Mux(run.brings, count, 0)

    def _merge(self, m: Module, take, held, run, row_first, row_last, row):
        """The chunk register, and what leaves it."""
        config = self.config
        bus, width = config.bus_bytes, chunk_width(config)
        size, final = self._geometry(m, held)
        chunk = Signal(8 * width, reset_less=True)  # zero beyond `stand`
        stand = Signal(range(width + 1), reset_less=True)  # bytes in the chunk
        pending = Signal()  # the chunk is its row's last
        now = Signal(chunk_layout(config), reset_less=True)  # all but `bytes` of the chunk

        at, total = Signal(range(width + 1)), Signal(range(2 * width + 1))
        over, after = Signal(), Signal(range(width + 1))
        beat, useful = self._arriving(m, run, at)
        filled = low_bytes(width, at)
        m.d.comb += [
            at.eq(Mux(row_first, 0, stand)),
            total.eq(at + useful),
            over.eq(~row_first & (total > size)),
            after.eq(Mux(over, total - size, total)),
        ]

        def left(bytes_):
            """Those of bytes in the chunk register that are there after this slot."""
            rest = Mux(held.single, bytes_ >> 8 * bus, 0)
            return Mux(row_first, 0, Mux(over, rest, bytes_))

        with m.If(take & held.fill):
            m.d.sync += chunk.eq(self._pattern(m, held))
        with m.Elif(take & self._on):
            m.d.sync += chunk.eq(0)
        with m.Elif(take):
            fresh = beat & low_bytes(width, after) & ~left(filled)
            m.d.sync += [chunk.eq(left(chunk) | fresh), stand.eq(after)]

        done = Signal()  # this chunk is its unit's last
        m.d.comb += done.eq(now.index == final)
        with m.If(take):
            with m.If(row_first):
                m.d.sync += [now.unit.eq(row), now.index.eq(0)]
            with m.Elif(held.fill | over & done):
                m.d.sync += [now.unit.eq(now.unit + held.l0), now.index.eq(0)]
            with m.Elif(over):
                m.d.sync += now.index.eq(now.index + 1)
            m.d.sync += [
                *(now[n].eq(held[n]) for n in ("fill", "mem", "conv", "xpose", "l0", "half")),
                pending.eq(row_last | held.fill | self._on),
            ]
            with m.If(~self._on):
                m.d.sync += now.last.eq(Mux(run.last | held.xpose, held.last, -1))
        with m.Elif(pending):
            m.d.sync += pending.eq(0)

        leave = pending | take & over & ~held.fill
        m.d.sync += self.o_valid.eq(leave)
        with m.If(leave):
            m.d.sync += [
                *(
                    self.o[n].eq(now[n])
                    for n in self.o.shape().members
                    if n not in ("bytes", "close", "both")
                ),
                self.o.bytes.eq(Mux(pending, chunk, chunk | beat & ~filled)),
                self.o.close.eq(pending | done),
                self.o.both.eq(~pending | (stand > now.half)),
            ]

    def _geometry(self, m: Module, held):
        """(Bytes of a chunk, index of a unit's last chunk) of the held descriptor."""
        size = Signal(range(chunk_width(self.config) + 1))
        final = Signal(index_bits(self.config))
        with m.Switch(Cat(held.conv, held.mem)):
            for conv in Conv:
                for mem in Mem:
                    part = chunk_bytes(self.config, conv)
                    with m.Case(conv | mem << 4):
                        m.d.comb += size.eq(part)
                        m.d.comb += final.eq(unit_bytes(self.config, conv, mem) // part - 1)
        with m.If(held.half.any()):
            m.d.comb += [size.eq(chunk_width(self.config)), final.eq(0)]
        return size, final

    def _pattern(self, m: Module, held):
        """The fill value over the whole chunk register."""
        pattern = Signal(8 * chunk_width(self.config))
        with m.Switch(held.conv):
            for conv in Conv:
                bits = 8 * LOCAL_BYTES[conv]
                with m.Case(conv):
                    m.d.comb += pattern.eq(held.value[:bits].replicate(len(pattern) // bits))
        return pattern
