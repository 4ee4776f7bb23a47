"""LOAD's transposer: blocks of dim runs of up to 8 * dim elements, runs in, columns out.

A run comes in units of `dim` elements of 16 bits. Element e of run j lies in bank (e + j) mod dim
at address e, so a unit and a column both meet each bank once. There are two buffers: while one
takes the runs of a block, the other gives the columns of the block before. A block has at least as
many units as columns, so the columns are out before the next block is complete.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.memory import SpadWrite
from tilewright.isa.config import LOCAL_BITS, XPOSE_BLOCKS, ChipConfig

BITS = 16  # of an element; those of one byte use half


class Transposer(wiring.Component):
    """Collects `dim` runs, then writes a local unit for each of their elements.

    **Members**

    i_valid, i_row : In(1), In(16 * dim)
        A unit of a run, its elements of 1 or 2 bytes dense. The fields below are the block's,
        and valid with its last unit.
    i_bytes : In(1)
        Elements have 1 byte.
    i_last : In(range(XPOSE_BLOCKS * dim))
        Number of a run's last element.
    i_unit, i_step : In(LOCAL_BITS)
        Where the column of element 0 goes (only valid with a run's first unit); granules from one
        column to the next, modulo 2 ** LOCAL_BITS.
    spad : Out(SpadWrite)

    **Timing** : the block's last unit at t: column e is written at t + 3 + e. One unit per cycle.
    The last unit of a block must not come before the last column of the block before is read.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        super().__init__(
            {
                "i_valid": In(1),
                "i_row": In(BITS * config.dim),
                "i_bytes": In(1),
                "i_last": In(range(XPOSE_BLOCKS * config.dim)),
                "i_unit": In(LOCAL_BITS),
                "i_step": In(LOCAL_BITS),
                "spad": Out(SpadWrite(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        dim, depth = self.config.dim, XPOSE_BLOCKS * self.config.dim
        low = exact_log2(dim)
        run, part = Signal(low), Signal(range(XPOSE_BLOCKS))  # of the next unit
        buffer = Signal()  # that takes units; the other one gives columns
        column, last = Signal(range(depth), reset_less=True), Signal(range(depth), reset_less=True)
        reading, run_end, whole = Signal(), Signal(), Signal()
        m.d.comb += [
            run_end.eq(self.i_valid & (part == self.i_last >> low)),
            whole.eq(run_end & (run == dim - 1)),
        ]
        with m.If(run_end):
            m.d.sync += [run.eq(run + 1), part.eq(0)]
        with m.Elif(self.i_valid):
            m.d.sync += part.eq(part + 1)
        with m.If(whole):
            m.d.sync += [buffer.eq(~buffer), reading.eq(1), column.eq(0), last.eq(self.i_last)]
        with m.Elif(reading):
            m.d.sync += [reading.eq(column != last), column.eq(column + 1)]

        turned = Signal(BITS * dim)
        wide = Cat(Cat(self.i_row[8 * e : 8 * e + 8], Const(0, 8)) for e in range(dim))
        with m.If(self.i_valid):
            source = Mux(self.i_bytes, wide, self.i_row)
            m.d.comb += turned.eq(rotate(source, -run, BITS))
        found = []
        for b in range(dim):
            m.submodules[f"bank{b}"] = bank = Memory(shape=BITS, depth=2 * depth, init=[])
            write, read = bank.write_port(), bank.read_port()
            found.append(read.data)
            m.d.comb += [
                write.en.eq(self.i_valid),
                write.addr.eq(Cat((b - run)[:low], part, buffer)),
                write.data.eq(turned[BITS * b : BITS * (b + 1)]),
                read.en.eq(reading),
                read.addr.eq(Cat(column, ~buffer)),
            ]
        self._write(m, part, whole, reading, column, Cat(found))
        return m

    def _write(self, m: Module, part, whole, reading, column, found):
        """Write the column that was read in the cycle before."""
        names = ("first", "place", "step")
        first, place, step = (Signal(LOCAL_BITS, name=n, reset_less=True) for n in names)
        bytes_ = Signal(reset_less=True)
        there = Signal()
        turn = Signal(exact_log2(self.config.dim), reset_less=True)
        with m.If(self.i_valid & (part == 0)):
            m.d.sync += first.eq(self.i_unit)
        with m.If(whole):
            m.d.sync += [step.eq(self.i_step), bytes_.eq(self.i_bytes)]
        m.d.sync += [there.eq(reading), self.spad.en.eq(there)]
        with m.If(reading):
            m.d.sync += [
                place.eq(Mux(column == 0, first, place + step)),
                turn.eq(column[: len(turn)]),
            ]
        with m.If(there):
            unit = Signal(BITS * self.config.dim)
            m.d.comb += unit.eq(rotate(found, turn, BITS))
            granule = Cat(unit[BITS * j : BITS * j + 8] for j in range(self.config.dim))
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
