"""LOAD's transposer: blocks of dim x dim elements of 16 bits, rows in, columns out.

Element e of row j lies in bank (e + j) mod dim, so a row and a column both meet each bank once. A
block's rows go where the columns of the block before have just been read: the address in a bank is
the row's number in one block, the element's in the next. So one buffer takes a row and gives a
column in every cycle.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.memory import SpadWrite
from tilewright.isa.config import LOCAL_BITS, ChipConfig

BITS = 16  # of an element; those of one byte use half


class Transposer(wiring.Component):
    """Collects `dim` rows, then writes a local unit for each of their elements.

    **Members**

    i_valid, i_row : In(1), In(16 * dim)
        A row, its elements of 1 or 2 bytes dense. The fields below are the block's.
    i_bytes : In(1)
        Elements have 1 byte.
    i_lanes : In(dim)
        Elements that count, from the first on.
    i_unit, i_step : In(LOCAL_BITS)
        Where unit 0 goes; granules from one unit to the next, modulo 2 ** LOCAL_BITS.
    spad : Out(SpadWrite)

    **Timing** : the block's last row at t: unit e is written at t + 2 + e. One row per cycle.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        super().__init__(
            {
                "i_valid": In(1),
                "i_row": In(BITS * config.dim),
                "i_bytes": In(1),
                "i_lanes": In(config.dim),
                "i_unit": In(LOCAL_BITS),
                "i_step": In(LOCAL_BITS),
                "spad": Out(SpadWrite(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        dim = self.config.dim
        low = exact_log2(dim)
        row, flip = Signal(low), Signal()  # the next row's number; elements are addresses
        lanes = Signal(dim)  # columns that are still to be written, the next one first
        column, read_flip = Signal(low), Signal()
        whole = Signal()
        m.d.comb += whole.eq(self.i_valid & (row == dim - 1))
        with m.If(self.i_valid):
            m.d.sync += row.eq(row + 1)
        with m.If(whole):
            m.d.sync += [flip.eq(~flip), read_flip.eq(flip), lanes.eq(self.i_lanes), column.eq(0)]
        with m.Elif(lanes[0]):
            m.d.sync += [lanes.eq(lanes >> 1), column.eq(column + 1)]

        turned = Signal(BITS * dim)
        wide = Cat(Cat(self.i_row[8 * e : 8 * e + 8], Const(0, 8)) for e in range(dim))
        with m.If(self.i_valid):
            source = Mux(self.i_bytes, wide, self.i_row)
            m.d.comb += turned.eq(rotate(source, -row, BITS))
        found = []
        for b in range(dim):
            m.submodules[f"bank{b}"] = bank = Memory(shape=BITS, depth=dim, init=[])
            write, read = bank.write_port(), bank.read_port(domain="comb")
            found.append(read.data)
            m.d.comb += [
                write.en.eq(self.i_valid),
                write.addr.eq(Mux(flip, b - row, row)),
                write.data.eq(turned[BITS * b : BITS * (b + 1)]),
                read.addr.eq(Mux(read_flip, column, b - column)),
            ]
        self._write(m, whole, lanes[0], column, Cat(found))
        return m

    def _write(self, m: Module, whole, reading, column, found):
        """Register the column that is read in this cycle, and its place."""
        dim = self.config.dim
        place, step = (Signal(LOCAL_BITS, name=n, reset_less=True) for n in ("place", "step"))
        bytes_ = Signal(reset_less=True)
        with m.If(whole):
            m.d.sync += [place.eq(self.i_unit), step.eq(self.i_step), bytes_.eq(self.i_bytes)]
        with m.Elif(reading):
            m.d.sync += place.eq(place + step)
        m.d.sync += self.spad.en.eq(reading)
        with m.If(reading):
            unit = Signal(BITS * dim)
            m.d.comb += unit.eq(rotate(found, column, BITS))
            granule = Cat(unit[BITS * j : BITS * j + 8] for j in range(dim))
            m.d.sync += [
                self.spad.addr.eq(place),
                self.spad.data.eq(Mux(bytes_, granule.replicate(2), unit)),
                self.spad.mask.eq(Mux(bytes_, Cat(~place[0], place[0]), 3)),
            ]


def rotate(value, lanes, bits: int):
    """Element i of the result is element i + `lanes` of a power of two of elements of `bits`."""
    low = exact_log2(len(value) // bits)
    shift = Cat(Const(0, exact_log2(bits)), lanes[:low])
    return (value.replicate(2) >> shift)[: len(value)]
