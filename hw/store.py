"""The STORE unit: local memory through the epilogue to DRAM or to the scratchpad.

One slot per cycle goes down a pipeline of fixed latency: memory read, conversion, epilogue,
packing. It ends in the W channel's FIFO or in the scratchpad. The pipeline cannot stop, so a slot
is taken only when the FIFO has room for its beat (credits) and fewer than 64 bursts are unanswered.
Rows that the epilogue hardly changes leave most of its stages out (`isa.extent_table.SHORT`); such
an instruction's slots wait until they cannot overtake those of a long one before it.
Vectors travel as slots too and are written to their buffer at the stage where rows read it, so the
next instruction's preload never overtakes a row.

Valid bits and all handshakes are in domain "sync"; data and what goes with them are in domain
"epilogue", whose clock may rest while `busy_epilogue` is 0.
"""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.axi import AXIWrite
from tilewright.hw.decode import holds
from tilewright.hw.epilogue import NEUTRAL, Epilogue, Out32
from tilewright.hw.float import delay
from tilewright.hw.memory import AccRead, SpadRead, SpadWrite, widened
from tilewright.hw.payload import UnitSignature
from tilewright.hw.store_address import SlotGenerator
from tilewright.hw.store_bus import BEATS, StoreBus
from tilewright.hw.store_pack import BEAT_LATENCY, UNIT_LATENCY, Packer
from tilewright.hw.store_slot import VECTORS
from tilewright.hw.store_transpose import StoreTransposer
from tilewright.isa.config import STORE_VECTOR_UNITS, XPOSE_BLOCKS, ChipConfig
from tilewright.isa.extent_table import SHORT
from tilewright.isa.table import Dest, Type
from tilewright.isa.timing import (
    EPILOGUE_LATENCY,
    EPILOGUE_SHORT,
    MEM_READ,
    STORE_INFLIGHT,
    STORE_LONG,
    STORE_READ,
    STORE_SPAD,
    STORE_W,
)

#: Stages after a slot: its read is on the memory's port, data are there, rows enter the epilogue,
#: results are there. On the short way a row is as old as any at _AT_LAST one cycle after it enters.
_AT_READ = 1
_AT_DATA = _AT_READ + MEM_READ
_AT_ROW = _AT_DATA + 1
_AT_RESULT = _AT_ROW + EPILOGUE_LATENCY
_AT_LAST = _AT_RESULT - EPILOGUE_SHORT + 1
_AT_UNIT = _AT_RESULT + UNIT_LATENCY
_AT_BEAT = _AT_RESULT + BEAT_LATENCY
for _name, _is, _must in (
    ("STORE_READ", STORE_READ, _AT_READ),
    ("STORE_SPAD + STORE_LONG", STORE_SPAD + STORE_LONG, _AT_UNIT + 1),
    ("STORE_W + STORE_LONG", STORE_W + STORE_LONG, _AT_BEAT + 2),  # FIFO, boundary slice
):
    if _is != _must:
        raise AssertionError(f"{_name} must be {_must}, not {_is!r}")
if BEATS < STORE_W + STORE_LONG:
    raise AssertionError(f"BEATS must be at least {STORE_W + STORE_LONG}, not {BEATS!r}")

_OUT = {
    Type.I8: Out32.INT8,
    Type.U8: Out32.UINT8,
    Type.I32: Out32.INT32,
    Type.BF16: Out32.BF16,
    Type.F32: Out32.FP32,
}
_PARAMETERS = data.StructLayout(
    {
        "float": unsigned(1),
        "int_path": unsigned(1),
        "short": unsigned(1),
        "vectors": unsigned(3),
        "lo": unsigned(32),
        "hi": unsigned(32),
        "zero_point": signed(16),
        "out": Out32,
    }
)


class Store(wiring.Component):
    """STORE.

    Parameters
    ----------
    config : geometry.

    **Members**

    unit : In(UnitSignature("store"))
    bus : Out(AXIWrite())
    acc_r, spad_r : read clients of the memories
    spad_w : write client of the scratchpad
    stw_valid, stw_addr, stw_data, stw_done : see `StoreBus`.
    busy_epilogue : Out(1)
        Domain "epilogue" needs its clock. From a register; 1 at least one cycle ahead.
    o_beat, o_error : Out(1)
        A W beat is accepted; a write response is an error.

    **Timing** : docs/microarchitecture.md §4. `done` pulses come in order, one per cycle: a
    scratchpad store that follows an unanswered DRAM store is done one cycle after it at the
    earliest.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        super().__init__(
            {
                "unit": In(UnitSignature("store")),
                "bus": Out(AXIWrite(data=8 * config.bus_bytes)),
                "acc_r": Out(AccRead(config)),
                "spad_r": Out(SpadRead(config)),
                "spad_w": Out(SpadWrite(config)),
                "stw_valid": In(1),
                "stw_addr": In(32),
                "stw_data": In(32),
                "stw_done": Out(1),
                "busy_epilogue": Out(1),
                "o_beat": Out(1),
                "o_error": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.slots = slots = SlotGenerator(self.config)
        m.submodules.bus = bus = StoreBus(self.config)
        m.submodules.pack = pack = Packer(self.config)
        # bit n: a row slot is n cycles old (bit 0 unused); from _AT_UNIT on: its unit goes out
        rows = Signal(_AT_BEAT)
        m.d.comb += rows[_AT_READ].eq(slots.row)
        m.d.sync += rows[_AT_READ + 1 :].eq(rows[_AT_READ:-1])

        self._short = Signal()  # the instruction that starts
        m.d.comb += self._short.eq(reduce(or_, (holds(w, self.unit.instr) for w in SHORT)))
        self._connect_bus(m, slots, bus, pack, rows)
        result, late = self._compute(m, slots, rows)
        late = data.View(slots.late.shape(), late)
        m.d.sync += rows[_AT_UNIT].eq(rows[_AT_RESULT] & ~late.more)
        half, wide = 8 * self.config.dim, pack.unit_late.size[0]
        m.d.comb += [
            pack.i_row.eq(result),
            pack.i_late.eq(late),
            pack.i_valid.eq(rows[_AT_RESULT]),
            pack.i_window.eq(rows[_AT_UNIT]),
            self.spad_w.en.eq(rows[_AT_UNIT] & pack.unit_late.spad),
            self.spad_w.addr.eq(pack.unit_late.dst),
            self.spad_w.data.eq(Mux(wide, pack.unit_data, pack.unit_data[:half].replicate(2))),
            self.spad_w.mask.eq(Mux(wide, 3, 1 << pack.unit_late.dst[0])),
        ]
        written = rows[_AT_UNIT] & pack.unit_late.spad & pack.unit_late.final
        self._order(m, slots, written, bus.answered)
        self._gate(m, slots)
        return m

    def _connect_bus(self, m, slots, bus, pack, rows) -> None:
        wiring.connect(m, wiring.flipped(self.bus), bus.bus)
        beat = Signal()
        m.d.sync += beat.eq(rows[_AT_UNIT] & pack.unit_late.sends)
        m.d.comb += [
            slots.go.eq(bus.go & ~self._held(m, slots)),
            bus.beat_taken.eq(slots.beat),
            bus.burst_taken.eq(slots.burst),
            bus.aw_valid.eq(slots.aw_valid),
            bus.aw_addr.eq(slots.aw_addr),
            bus.aw_len.eq(slots.aw_len),
            bus.aw_final.eq(slots.aw_final),
            bus.beat_valid.eq(beat),
            bus.beat_data.eq(pack.beat_data),
            bus.beat_strb.eq(pack.beat_strb),
            bus.beat_last.eq(pack.beat_last),
            bus.stw_valid.eq(self.stw_valid),
            bus.stw_addr.eq(self.stw_addr),
            bus.stw_data.eq(self.stw_data),
            self.stw_done.eq(bus.stw_done),
            self.o_beat.eq(bus.o_beat),
            self.o_error.eq(bus.o_error),
        ]

    def _held(self, m, slots):
        """A short instruction's slots wait: a long one's last slot is less than STORE_LONG ago."""
        short = Signal()
        left = Signal(range(STORE_LONG + 1))
        held = short & (left != 0)
        ends = slots.active & slots.go & slots.last
        with m.If(ends & ~short):
            m.d.sync += left.eq(STORE_LONG)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.If(self.unit.start):
            m.d.sync += short.eq(self._short)
        m.d.comb += self.unit.issuing.eq(slots.active & ~held)
        return held

    def _compute(self, m, slots, rows) -> tuple:
        """Memory data to results: conversion, parameters, vectors, epilogue."""
        dim = self.config.dim
        early = delay(m, "epilogue", slots.early, MEM_READ, "early")
        early = data.View(slots.early.shape(), early)
        late = delay(m, "epilogue", slots.late, MEM_READ, "late")
        read = rows[_AT_DATA] & data.View(slots.late.shape(), late).read
        vector, block = Signal(MEM_READ + 1), Signal(MEM_READ + 1)  # slots, by their age
        m.d.comb += [vector[0].eq(slots.vector), block[0].eq(slots.block)]
        m.d.sync += [vector[1:].eq(vector[:-1]), block[1:].eq(block[:-1])]
        m.d.comb += [
            self.acc_r.en.eq(slots.acc_en),
            self.acc_r.addr.eq(slots.acc_addr),
            self.spad_r.en.eq(slots.spad_en),
            self.spad_r.addr.eq(slots.spad_addr),
        ]

        m.submodules.transpose = transpose = StoreTransposer(dim)
        lanes = widened(m, self.acc_r, self.spad_r, early.type)
        row, turned = Signal(32 * dim, reset_less=True), Signal(reset_less=True)
        m.d.comb += [
            transpose.i_write.eq(block[MEM_READ]),
            transpose.i_read.eq(read & early.xpose),
            transpose.i_row.eq(lanes),
            transpose.i_row_at.eq(Cat(early.row, early.to)),
            transpose.i_column.eq(early.column),
            transpose.i_unit.eq(Cat(early.unit[: exact_log2(XPOSE_BLOCKS)], early.side)),
        ]
        with m.If(read):
            m.d.epilogue += [row.eq(lanes), turned.eq(early.xpose)]
        m.submodules.epilogue = epilogue = Epilogue(dim, tag_width=len(late))
        parameters = self._parameters(m, slots, read, early.item)
        for i, name in enumerate(VECTORS):
            m.submodules[name] = buffer = Memory(
                shape=unsigned(32 * dim), depth=STORE_VECTOR_UNITS, init=[]
            )
            w, r = buffer.write_port(domain="epilogue"), buffer.read_port(domain="epilogue")
            neutral = Const(NEUTRAL[name], 32).replicate(dim)
            m.d.comb += [
                w.en.eq(vector[MEM_READ] & early.vectors[i]),
                w.addr.eq(early.unit),
                w.data.eq(self.acc_r.data),
                r.en.eq(read & early.vectors[i]),
                r.addr.eq(early.unit),
                getattr(epilogue, f"i_{name}").eq(Mux(parameters.vectors[i], r.data, neutral)),
            ]
        m.d.comb += [
            epilogue.i_valid.eq(rows[_AT_ROW]),
            epilogue.i_tag.eq(delay(m, "epilogue", late, 1, "late_row")),
            epilogue.i_row.eq(Mux(turned, transpose.o_unit, row)),
            epilogue.i_float.eq(parameters.float),
            epilogue.i_int_path.eq(parameters.int_path),
            epilogue.i_short.eq(parameters.short),
            epilogue.i_lo.eq(parameters.lo),
            epilogue.i_hi.eq(parameters.hi),
            epilogue.i_zero_point.eq(parameters.zero_point),
            epilogue.i_out.eq(parameters.out),
        ]
        enters = rows[_AT_ROW] & parameters.short
        m.d.sync += rows[_AT_ROW + 1].eq(rows[_AT_ROW] & ~parameters.short)
        m.d.sync += rows[_AT_LAST].eq(rows[_AT_LAST - 1] | enters)
        return epilogue.o_row, epilogue.o_tag

    def _parameters(self, m, slots, read, item) -> data.View:
        """Epilogue parameters of every instruction in flight, written at its start.

        Left-out clamps get bounds that change nothing.
        """
        i = self.unit.instr
        m.submodules.parameters = memory = Memory(shape=_PARAMETERS, depth=STORE_INFLIGHT, init=[])
        w, r = memory.write_port(), memory.read_port(domain="epilogue")
        out = Signal(Out32)
        with m.Switch(i.out):
            for kind, value in _OUT.items():
                with m.Case(kind):
                    m.d.comb += out.eq(value)

        def bound(name: str) -> Mux:
            open_ = Mux(i.int_path, NEUTRAL[f"int_{name}"], NEUTRAL[name])
            return Mux(i.clamp, i[name], open_)

        m.d.comb += [
            w.en.eq(self.unit.start),
            w.addr.eq(slots.item),
            w.data.float.eq((i.type == Type.F32) | (i.type == Type.BF16)),
            w.data.int_path.eq(i.int_path),
            w.data.short.eq(self._short),
            w.data.vectors.eq(Cat(i[name] for name in VECTORS)),
            w.data.lo.eq(bound("lo")),
            w.data.hi.eq(bound("hi")),
            w.data.zero_point.eq(i.zp),
            w.data.out.eq(out),
            r.en.eq(read),
            r.addr.eq(item),
        ]
        return r.data

    def _order(self, m, slots, written, answered) -> None:
        """Instructions in flight: accept up to STORE_INFLIGHT, finish them in order."""
        unit = self.unit
        to_dram = Signal(STORE_INFLIGHT)  # destination of each instruction in flight
        tail, head = Signal(range(STORE_INFLIGHT)), Signal(range(STORE_INFLIGHT))
        count = Signal(range(STORE_INFLIGHT + 1))
        finished = [Signal(range(STORE_INFLIGHT + 1), name=f"finished_{d.name}") for d in Dest]
        done = Signal()
        m.d.comb += [
            slots.start.eq(unit.start),
            slots.instr.eq(unit.instr),
            slots.item.eq(tail),
            slots.index_data.eq(self.spad_r.pair),
            unit.read_release.eq(slots.read_release),
            unit.ready.eq((~slots.active | (slots.last & slots.go)) & (count != STORE_INFLIGHT)),
            unit.done.eq(done),
        ]
        dram = to_dram.bit_select(head, 1)
        ends = {Dest.DRAM: answered, Dest.SPAD: written}
        m.d.comb += done.eq(Mux(dram, finished[Dest.DRAM] != 0, finished[Dest.SPAD] != 0))
        for kind, counter in zip(Dest, finished, strict=True):
            mine = dram == (kind == Dest.DRAM)
            m.d.sync += counter.eq(counter + ends[kind] - (done & mine))
        m.d.sync += count.eq(count + unit.start - done)
        with m.If(unit.start):
            m.d.sync += tail.eq(tail + 1)
            m.d.sync += to_dram.bit_select(tail, 1).eq(unit.instr.dest == Dest.DRAM)
        with m.If(done):
            m.d.sync += head.eq(head + 1)

    def _gate(self, m, slots) -> None:
        """Keep the epilogue's clock while any of its registers may have to move."""
        drain = Signal(range(_AT_UNIT + 1))
        m.d.sync += self.busy_epilogue.eq(self.unit.start | slots.active | (drain != 0))
        with m.If(slots.active):
            m.d.sync += drain.eq(_AT_UNIT)
        with m.Elif(drain != 0):
            m.d.sync += drain.eq(drain - 1)
