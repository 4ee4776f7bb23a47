"""STORE's transposer: blocks of rows of dim lanes of 32 bits, rows in, columns out.

A block is dim columns of up to 8 * dim elements; a column leaves in units of dim elements. As in
LOAD's, lane j of row e lies in bank (e + j) mod dim at address e, so a row and a unit of a column
both meet each bank once. There are two sides: one takes a block, the other gives columns.
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
    dim : lanes of a row; a block has up to XPOSE_BLOCKS times so many rows.

    **Members**

    i_write, i_row, i_row_at : In
        `i_row` is row `i_row_at` of a block; the highest bit is the side.
    i_read, i_column, i_unit : In
        Unit `i_unit` of column `i_column` is asked for; the highest bit of `i_unit` is the side.
    o_unit : Out(32 * dim)
        Element e is lane `i_column` of row `i_unit` * dim + e; undefined if that row has not been
        written.

    **Timing** : domain "epilogue". A row written at t can be asked for from t + 1 on; the unit is
    there one cycle later, and stays until the next is asked for. One row and one unit per cycle.
    """

    def __init__(self, dim: int):
        self.dim = dim
        super().__init__(
            {
                "i_write": In(1),
                "i_row": In(BITS * dim),
                "i_row_at": In(range(2 * XPOSE_BLOCKS * dim)),
                "i_read": In(1),
                "i_column": In(range(dim)),
                "i_unit": In(range(2 * XPOSE_BLOCKS)),
                "o_unit": Out(BITS * dim),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        low = exact_log2(self.dim)
        turned, column = Signal(BITS * self.dim), Signal(low, reset_less=True)
        with m.If(self.i_write):
            m.d.comb += turned.eq(rotate(self.i_row, -self.i_row_at, BITS))
        with m.If(self.i_read):
            m.d.epilogue += column.eq(self.i_column)
        found = []
        for b in range(self.dim):
            m.submodules[f"bank{b}"] = bank = Memory(
                shape=BITS, depth=2 * XPOSE_BLOCKS * self.dim, init=[]
            )
            write, read = bank.write_port(domain="epilogue"), bank.read_port(domain="epilogue")
            found.append(read.data)
            m.d.comb += [
                write.en.eq(self.i_write),
                write.addr.eq(self.i_row_at),
                write.data.eq(turned[BITS * b : BITS * (b + 1)]),
                read.en.eq(self.i_read),
                read.addr.eq(Cat((b - self.i_column)[:low], self.i_unit)),
            ]
        m.d.comb += self.o_unit.eq(rotate(Cat(found), column, BITS))
        return m
