"""STORE's transposer: one block of rows of dim lanes of 32 bits, rows in, columns out.

A block is dim columns of up to 8 * dim elements; a column leaves in units of dim elements. As in
LOAD's, lane j of row e lies in bank (e + j) mod dim at address e, so a row and a unit of a column
both meet each bank once. STORE reads a block before it sends the first of its columns, so one
block is enough.
"""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.load_transpose import rotate
from tilewright.isa.config import XPOSE_BLOCKS

BITS = 32  # of a lane


class StoreTransposer(wiring.Component):
    """Keeps the rows of a block; gives a unit of a column.

    Parameters
    ----------
    dim : lanes of a row; a block has XPOSE_BLOCKS times so many rows.

    **Members**

    i_write : In(1)
        `i_row` is row `i_at` of the block.
    i_read : In(1)
        Unit `i_unit` of column `i_at` is asked for.
    i_at : In(range(XPOSE_BLOCKS * dim))
        The row that is written, or the column (its low bits).
    i_unit : In(range(XPOSE_BLOCKS))
    o_unit : Out(32 * dim)
        Element e is lane `i_at` of row `i_unit` * dim + e; undefined if that has not been written.

    **Timing** : domain "epilogue". A row written at t can be asked for from t + 1 on; the unit is
    there one cycle later, and stays until the next is asked for. One row or unit per cycle.
    """

    def __init__(self, dim: int):
        self.dim = dim
        super().__init__(
            {
                "i_write": In(1),
                "i_read": In(1),
                "i_at": In(range(XPOSE_BLOCKS * dim)),
                "i_unit": In(range(XPOSE_BLOCKS)),
                "i_row": In(BITS * dim),
                "o_unit": Out(BITS * dim),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        low = exact_log2(self.dim)
        turned, column = Signal(BITS * self.dim), Signal(low, reset_less=True)
        with m.If(self.i_write):
            m.d.comb += turned.eq(rotate(self.i_row, -self.i_at, BITS))
        with m.If(self.i_read):
            m.d.epilogue += column.eq(self.i_at)
        found = []
        for b in range(self.dim):
            m.submodules[f"bank{b}"] = bank = Memory(
                shape=BITS, depth=XPOSE_BLOCKS * self.dim, init=[]
            )
            write, read = bank.write_port(domain="epilogue"), bank.read_port(domain="epilogue")
            found.append(read.data)
            m.d.comb += [
                write.en.eq(self.i_write),
                write.addr.eq(self.i_at),
                write.data.eq(turned[BITS * b : BITS * (b + 1)]),
                read.en.eq(self.i_read),
                read.addr.eq(Cat((b - self.i_at)[:low], self.i_unit)),
            ]
        m.d.comb += self.o_unit.eq(rotate(Cat(found), column, BITS))
        return m
