"""LOAD's last stage: chunks become local units.

The *unit* register collects the converted chunks of one unit and is the write data of both local
memories. Its first chunk clears the rest, so the tail of a row's last unit is zero. A chunk that is
a word of two granules is cut, each part zero-filled to a granule, one stage before. There, too,
fp32 elements become x - hi, whose bf16 is the middle part, and whose rounding error
is the low one.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.float import INF, NAN, flush, fp32_to_bf16, normalize, wire
from tilewright.hw.load_address import copy, fields
from tilewright.hw.load_transpose import Transposer
from tilewright.hw.memory import AccWrite, SpadWrite
from tilewright.isa.config import LOCAL_BITS, XPOSE_BLOCKS, ChipConfig
from tilewright.isa.extent_table import LOCAL_BYTES
from tilewright.isa.table import CONV_BYTES, Conv, Mem

COPY8, COPY32 = Conv.COPY8, Conv.COPY32
ROUNDED = (Conv.F32_BF16, Conv.F32_HI, Conv.F32_MID)  # bf16 of what the first stage gives


def chunk_width(config: ChipConfig) -> int:
    """Bytes of the chunk register: two beats, so at least an fp32 element."""
    return 2 * config.bus_bytes


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


def low_bytes(width: int, count):
    """Mask of `width` bytes with the `count` low ones set, count in 0 to width."""
    return Const(-1, unsigned(8 * width)) >> Cat(Const(0, 3), (width - count)[: width.bit_length()])


def chunk_layout(config: ChipConfig) -> data.StructLayout:
    """A chunk on its way: bytes, conversion, place in its unit, the unit's place.

    `close`: it completes its unit. `xpose`: the unit is a part of a run whose elements, up to
    number `last`, become units, `l0` apart. `fill`: the low 32 bits stand for a whole unit, in
    its lanes up to `last`, modulo dim. `half`, if not 0: the chunk is the units at `unit` and, if
    `both`, at `unit` + 1; the first has so many bytes.
    """
    return data.StructLayout(
        {
            "bytes": unsigned(8 * chunk_width(config)),
            "index": unsigned(index_bits(config)),
            "close": 1,
            "half": range(config.bus_bytes + 1),
            "both": 1,
            "unit": unsigned(LOCAL_BITS),
            "fill": 1,
            "last": range(XPOSE_BLOCKS * config.dim),
            "mem": 1,
            "conv": 4,
            "xpose": 1,
            "l0": unsigned(LOCAL_BITS),
        }
    )


def f32_to_bf16(x):
    """Round any fp32: subnormals to zero with their sign, NaN to the canonical one."""
    return Mux(x[:31] > INF, NAN >> 16, fp32_to_bf16(flush(x)))


def remainder(m: Module, x, width: int, name: str):
    """x - bf16(x) of an fp32 whose bits below 16 - `width` are 0. Combinational; exact or flushed.

    +0 if x counts as zero, or bf16(x) is not finite.
    """
    low = x[16 - width : 16]
    up = wire(m, low[-1] & (low[:-1].any() | x[16]), f"{name}_up")
    size = wire(m, Mux(up, (1 << width) - low, low)[:width], f"{name}_size")
    mant, zeros = normalize(m, size, f"{name}_n")
    exponent = wire(m, x[23:31] - 8 - zeros, f"{name}_e")
    over = (x[23:31] == 255) | up & (x[16:31] == 0x7F7F)
    none = over | (x[23:31] == 0) | ~mant[-1]
    magnitude = Cat(Const(0, 24 - width), mant[:-1], exponent[:8])
    return Mux(none, 0, Cat(Mux(exponent <= 0, 0, magnitude), x[31] ^ up))


class Converter(wiring.Component):
    """Puts chunks into units and writes complete units.

    **Members** : i_valid, i (`chunk_layout`); spad, acc, write clients of the local memories.

    **Timing** : a closing chunk at t is written at t + 2; if it is transposed, it enters the
    transposer then. One chunk per cycle.
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
        self._first(m)
        with m.If(self._valid):
            with m.If(self._chunk.fill), m.Switch(self._chunk.conv):
                for conv in Conv:
                    with m.Case(conv):
                        m.d.sync += unit.eq(self._filled(conv))
            with m.Else(), m.Switch(self._chunk.conv):
                for conv in Conv:
                    with m.Case(conv):
                        self._place(m, unit, conv)
        self._write(m, unit)
        return m

    def _first(self, m: Module):
        """Register the chunk; fp32 elements of the lower parts as what their high part leaves.

        The granules of a word begin at the register's first and middle byte then.
        """
        self._valid = Signal()
        self._chunk = chunk = Signal(chunk_layout(self.config), reset_less=True)
        m.d.sync += self._valid.eq(self.i_valid)
        with m.If(self.i_valid):
            m.d.sync += chunk.eq(self.i)
            lower = (self.i.conv == Conv.F32_MID) | (self.i.conv == Conv.F32_LO)
            with m.If(lower & ~self.i.fill):
                for n in range(0, 8 * chunk_width(self.config), 32):
                    rest = remainder(m, self.i.bytes[n : n + 32], 16, f"hi{n}")
                    m.d.sync += chunk.bytes[n : n + 32].eq(rest)
            self._paired = Signal(reset_less=True)
            m.d.sync += self._paired.eq(self.i.half.any())
            with m.If(self.i.half.any()):
                bus = self.config.bus_bytes
                low = self.i.bytes & low_bytes(bus, self.i.half)
                high = self.i.bytes >> Cat(Const(0, 3), self.i.half)
                m.d.sync += chunk.bytes.eq(Cat(low[: 8 * bus], high[: 8 * bus]))

    def _filled(self, conv: Conv):
        bits = 8 * LOCAL_BYTES[conv]
        value = self._chunk.bytes[:bits]
        dim = self.config.dim
        last = self._chunk.last[: exact_log2(dim)]
        lanes = Cat(Mux(n <= last, value, Const(0, bits)) for n in range(dim))
        return lanes.replicate(2) if conv == COPY8 else lanes

    def _place(self, m: Module, unit: Signal, conv: Conv):
        """Put the converted chunk where its index says; an index of 0 starts the unit."""
        size = chunk_bytes(self.config, conv)
        raw = self._chunk.bytes[: 8 * size]
        words = [raw[n : n + 32] for n in range(0, 8 * size, 32)]
        if conv in ROUNDED:
            piece = Cat(f32_to_bf16(x) for x in words)
        elif conv == Conv.F32_LO:
            piece = Cat(remainder(m, x, 8, f"mid{n}")[16:32] for n, x in enumerate(words))
        elif conv in (Conv.I8_I32, Conv.U8_I32):
            sign = conv == Conv.I8_I32
            bytes_ = [raw[n : n + 8] for n in range(0, 8 * size, 8)]
            piece = Cat(Cat(b, (b[7] if sign else Const(0, 1)).replicate(24)) for b in bytes_)
        else:
            piece = raw
        width, granule = len(piece), 8 * self.config.dim
        with m.If(self._chunk.index == 0):
            if conv == COPY8:  # a granule, for either half of its pair
                m.d.sync += unit.eq(Cat(piece, Const(0, granule - width), piece))
                with m.If(self._paired):
                    bits = 8 * self.config.bus_bytes
                    halves = (self._chunk.bytes[:bits], self._chunk.bytes[bits:])
                    m.d.sync += unit.eq(Cat(Cat(x, Const(0, granule - bits)) for x in halves))
            else:
                m.d.sync += unit.eq(piece)
        for n in range(1, unit_bytes(self.config, conv, Mem.ACC) // size):
            with m.If(self._chunk.index == n):
                m.d.sync += unit[n * width :][:width].eq(piece)
                if conv == COPY8:
                    m.d.sync += unit[granule + n * width :][:width].eq(piece)

    def _write(self, m: Module, unit: Signal):
        chunk = self._chunk
        place = fields(chunk_layout(self.config), "unit", "last", "l0", "conv")
        now = Signal(place, reset_less=True)
        m.submodules.transpose = transpose = Transposer(self.config)
        whole = self._valid & chunk.close
        spad, rows = Signal(), Signal()
        single = chunk.conv == COPY8
        mask = Signal(2)
        first = self._paired | ~chunk.unit[0]
        second = Mux(self._paired, chunk.both, chunk.unit[0])
        m.d.sync += [
            spad.eq(whole & (chunk.mem == Mem.SPAD) & ~chunk.xpose),
            rows.eq(whole & chunk.xpose),
            self.acc.en.eq(whole & (chunk.mem == Mem.ACC)),
        ]
        with m.If(self._valid):
            m.d.sync += [
                *copy(now, chunk),  # type: ignore[arg-type]
                mask.eq(Mux(single, Cat(first, second), 3)),
            ]
        turned = transpose.spad
        m.d.comb += [
            self.acc.addr.eq(now.unit),
            self.acc.data.eq(unit),
            self.spad.en.eq(spad | turned.en),
            self.spad.addr.eq(Mux(turned.en, turned.addr, now.unit)),
            self.spad.mask.eq(Mux(turned.en, turned.mask, mask)),
            self.spad.data.eq(Mux(turned.en, turned.data, unit)),
            transpose.i_valid.eq(rows),
            transpose.i_row.eq(unit),
            transpose.i_bytes.eq(now.conv == COPY8),
            transpose.i_last.eq(now.last),
            transpose.i_unit.eq(now.unit),
            transpose.i_step.eq(now.l0),
        ]
