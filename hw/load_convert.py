"""LOAD's last stage: chunks become local units.

The *unit* register collects the converted chunks of one unit and is the write data of both local
memories. Its first chunk clears the rest, so the tail of a row's last unit is zero.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.float import NAN, flush, fp32_to_bf16
from tilewright.hw.memory import AccWrite, SpadWrite
from tilewright.isa.config import LOCAL_BITS, ChipConfig
from tilewright.isa.table import CONV_BYTES, Conv, Mem

COPY8, COPY16, COPY32 = Conv.COPY8, Conv.COPY16, Conv.COPY32
BUILT = (COPY8, COPY16, COPY32, Conv.F32_BF16, Conv.I8_I32, Conv.U8_I32)
LOCAL_BYTES = {c: {COPY8: 1, COPY16: 2, Conv.F32_BF16: 2}.get(c, 4) for c in BUILT}


def chunk_width(config: ChipConfig) -> int:
    """Bytes of the chunk register: a beat, at least an fp32 element."""
    return max(config.bus_bytes, 4)


def unit_bytes(config: ChipConfig, conv: Conv, mem: Mem) -> int:
    """DRAM bytes that fill one local unit."""
    half = conv == COPY32 and mem == Mem.SPAD
    return config.dim * CONV_BYTES[conv] // (2 if half else 1)


def chunk_bytes(config: ChipConfig, conv: Conv) -> int:
    """Bytes of a chunk: the whole register, but never more than a unit."""
    return min(chunk_width(config), unit_bytes(config, conv, Mem.SPAD))


def index_bits(config: ChipConfig) -> int:
    """Bits of a chunk's index in its unit."""
    return exact_log2(4 * config.dim // chunk_width(config))


def chunk_layout(config: ChipConfig) -> data.StructLayout:
    """A chunk on its way: bytes, conversion, place in its unit, the unit's place.

    `close`: it completes its unit. `fill`: the low 32 bits stand for a whole unit, in `lanes`.
    """
    return data.StructLayout(
        {
            "bytes": unsigned(8 * chunk_width(config)),
            "index": unsigned(index_bits(config)),
            "close": 1,
            "unit": unsigned(LOCAL_BITS),
            "fill": 1,
            "lanes": unsigned(config.dim),
            "mem": 1,
            "conv": 4,
        }
    )


def f32_to_bf16(x):
    """Round any fp32: subnormals to zero with their sign, NaN to the canonical one."""
    return Mux(x[:31] > 0x7F800000, NAN >> 16, fp32_to_bf16(flush(x)))


class Converter(wiring.Component):
    """Puts chunks into units and writes complete units.

    **Members** : i_valid, i (`chunk_layout`); spad, acc, write clients of the local memories.

    **Timing** : a closing chunk at t is written at t + 1. One chunk per cycle.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        super().__init__(
            {
                "i_valid": In(1),
                "i": In(chunk_layout(config)),
                "spad": Out(SpadWrite(config)),
                "acc": Out(AccWrite(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        dim = self.config.dim
        unit = Signal(32 * dim, reset_less=True)
        with m.If(self.i_valid):
            with m.If(self.i.fill), m.Switch(self.i.conv):
                for conv in BUILT:
                    with m.Case(conv):
                        m.d.sync += unit.eq(self._filled(conv))
            with m.Else(), m.Switch(self.i.conv):
                for conv in BUILT:
                    with m.Case(conv):
                        self._place(m, unit, conv)
        m.d.comb += [self.spad.data.eq(unit), self.acc.data.eq(unit)]
        self._write(m)
        return m

    def _filled(self, conv: Conv):
        bits = 8 * LOCAL_BYTES[conv]
        value = self.i.bytes[:bits]
        lanes = Cat(Mux(lane, value, Const(0, bits)) for lane in self.i.lanes)
        return lanes.replicate(2) if conv == COPY8 else lanes

    def _place(self, m: Module, unit: Signal, conv: Conv):
        """Put the converted chunk where its index says; an index of 0 starts the unit."""
        size = chunk_bytes(self.config, conv)
        raw = self.i.bytes[: 8 * size]
        if conv == Conv.F32_BF16:
            piece = Cat(f32_to_bf16(raw[n : n + 32]) for n in range(0, 8 * size, 32))
        elif conv in (Conv.I8_I32, Conv.U8_I32):
            sign = conv == Conv.I8_I32
            bytes_ = [raw[n : n + 8] for n in range(0, 8 * size, 8)]
            piece = Cat(Cat(b, (b[7] if sign else Const(0, 1)).replicate(24)) for b in bytes_)
        else:
            piece = raw
        width, granule = len(piece), 8 * self.config.dim
        with m.If(self.i.index == 0):
            if conv == COPY8:  # a granule, for either half of its pair
                m.d.sync += unit.eq(Cat(piece, Const(0, granule - width), piece))
            else:
                m.d.sync += unit.eq(piece)
        for n in range(1, unit_bytes(self.config, conv, Mem.ACC) // size):
            with m.If(self.i.index == n):
                m.d.sync += unit[n * width :][:width].eq(piece)
                if conv == COPY8:
                    m.d.sync += unit[granule + n * width :][:width].eq(piece)

    def _write(self, m: Module):
        whole = self.i_valid & self.i.close
        single = self.i.conv == COPY8
        m.d.sync += [
            self.spad.en.eq(whole & (self.i.mem == Mem.SPAD)),
            self.acc.en.eq(whole & (self.i.mem == Mem.ACC)),
        ]
        with m.If(self.i_valid):
            m.d.sync += [
                self.spad.addr.eq(self.i.unit),
                self.acc.addr.eq(self.i.unit),
                self.spad.mask.eq(Mux(single, Cat(~self.i.unit[0], self.i.unit[0]), 3)),
            ]
