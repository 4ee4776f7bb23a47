"""LOAD: DRAM to scratchpad or accumulator.

The address generator issues bursts ahead, across instructions; the unpacker follows as beats come
and the converter writes local units. Write ports of the local memories are held by an instruction
from its grant to its `done`, so beats are held back only by slots that have none.
"""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2
from tilewright.hw.axi import AXIRead
from tilewright.hw.load_address import AddressGenerator, describe
from tilewright.hw.load_convert import Converter
from tilewright.hw.load_gather import IndexReader
from tilewright.hw.load_unpack import Unpacker
from tilewright.hw.memory import AccWrite, SpadRead, SpadWrite
from tilewright.hw.payload import UnitSignature
from tilewright.isa.config import ChipConfig
from tilewright.isa.timing import (
    AXI_SLICE,
    LDW_AR,
    LDW_DONE,
    LOAD_AR,
    LOAD_FILL,
    LOAD_INFLIGHT,
    LOAD_WRITE,
)

INCR = 1
STAGES = 4  # from an accepted beat to the last local write that it causes


class Load(wiring.Component):
    """The LOAD unit.

    **Members**

    unit : In(UnitSignature("load"))
        From the issue module.
    axi : Out(AXIRead)
        Data port, before the chip's boundary slice.
    spad, acc : Out
        Write clients of the local memories.
    spad_r : Out(SpadRead)
        Reads gather indices.
    ldw_valid, ldw_addr : In
        One pulse: read the word of DRAM at `ldw_addr` (a multiple of 4). Only while no instruction
        is granted and not done, and no word is outstanding.
    ldw_done, ldw_data : Out
        One pulse with the word.
    o_beat, o_error : Out
        A beat is accepted; it carries an error response.

    **Timing** : docs/microarchitecture.md §3, with the LOAD and LDW constants of `isa.timing`,
    counted on the chip's pins. On `axi`, AR comes AXI_SLICE earlier and R AXI_SLICE later.
    """

    def __init__(self, config: ChipConfig):
        built = (1 + AXI_SLICE, STAGES + AXI_SLICE, 1 - AXI_SLICE, 1 + AXI_SLICE, 1 + AXI_SLICE)
        stated = (LOAD_AR, LOAD_WRITE, LOAD_FILL, LDW_AR, LDW_DONE)
        if stated != built:
            raise ValueError(f"LOAD's constants in isa.timing must be {built!r}, not {stated!r}")
        self.config = config
        super().__init__(
            {
                "unit": In(UnitSignature("load")),
                "axi": Out(AXIRead(32, 8 * config.bus_bytes)),
                "spad": Out(SpadWrite(config)),
                "spad_r": Out(SpadRead(config)),
                "acc": Out(AccWrite(config)),
                "ldw_valid": In(1),
                "ldw_addr": In(32),
                "ldw_done": Out(1),
                "ldw_data": Out(32),
                "o_beat": Out(1),
                "o_error": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        axi, unit = self.axi, self.unit
        m.submodules.address = address = AddressGenerator(self.config)
        m.submodules.unpack = unpack = Unpacker(self.config)
        m.submodules.convert = convert = Converter(self.config)
        m.submodules.indices = indices = IndexReader(self.config)
        connect(m, flipped(self.spad), convert.spad)
        connect(m, flipped(self.spad_r), indices.spad)
        connect(m, flipped(self.acc), convert.acc)

        desc = describe(m, self.config, unit.start, unit.instr)
        flying = Signal(range(LOAD_INFLIGHT + 1))
        m.d.sync += flying.eq(flying + unit.start - unit.done)
        pipe = Signal(STAGES)
        m.d.sync += pipe.eq(Cat(unpack.done, pipe))
        m.d.comb += [
            unit.ready.eq(address.idle & (flying != LOAD_INFLIGHT)),
            unit.issuing.eq(address.issuing),
            unit.done.eq(pipe[-1]),
            unit.read_release.eq(pipe[-1]),
            address.start.eq(unit.start),
            indices.start.eq(unit.start & unit.instr.gather),
            indices.instr.eq(unit.instr),
            indices.take.eq(address.take),
            address.offset.eq(indices.offset),
            unpack.run.eq(address.take),
            unpack.outside.eq(indices.outside),
            address.desc.eq(desc),
            unpack.start.eq(unit.start),
            unpack.desc.eq(desc),
            convert.i_valid.eq(unpack.o_valid),
            convert.i.eq(unpack.o),
        ]

        word = self._word(m)
        accepted = axi.rvalid & axi.rready
        m.d.comb += [
            address.word.eq(self.ldw_valid),
            address.word_addr.eq(self.ldw_addr),
            address.burst_end.eq(accepted & axi.rlast),
            address.arready.eq(axi.arready),
            axi.arvalid.eq(address.arvalid),
            axi.araddr.eq(address.araddr),
            axi.arlen.eq(address.arlen),
            axi.arsize.eq(exact_log2(self.config.bus_bytes)),
            axi.arburst.eq(INCR),
            axi.rready.eq(unpack.rready | word),
            unpack.rdata.eq(axi.rdata),
            unpack.rvalid.eq(axi.rvalid),
            self.o_beat.eq(accepted),
            self.o_error.eq(accepted & axi.rresp[1]),
        ]
        return m

    def _word(self, m: Module) -> Signal:
        """The sequencer's word: whether it is outstanding."""
        axi, bits = self.axi, 8 * self.config.bus_bytes
        waiting = Signal()
        data = Signal(32, reset_less=True)
        end = waiting & axi.rvalid & axi.rlast
        m.d.comb += self.ldw_data.eq(data)
        m.d.sync += self.ldw_done.eq(end)
        with m.If(self.ldw_valid):
            m.d.sync += waiting.eq(1)
        with m.Elif(end):
            m.d.sync += waiting.eq(0)
        lane = Signal(range(max(2, bits // 32)), reset_less=True)  # of the word in its beat
        with m.If(self.ldw_valid):
            m.d.sync += lane.eq(self.ldw_addr[2:] if bits > 32 else 0)
        with m.If(waiting & axi.rvalid):
            if bits < 32:  # beats enter from the top
                m.d.sync += data.eq(Cat(data, axi.rdata) >> bits)
            else:
                m.d.sync += data.eq(axi.rdata.word_select(lane, 32))
        return waiting
