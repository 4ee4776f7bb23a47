"""STORE's transposer: one block of dim x dim lanes of 32 bits, rows in, columns out.

As in LOAD's, lane j of row e lies in bank (e + j) mod dim, so a row and a column both meet each
bank once. STORE reads a block before it sends the first of its columns, so one address is enough.
"""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from tilewright.hw.load_transpose import rotate

BITS = 32  # of a lane


class StoreTransposer(wiring.Component):
    """Keeps the rows of a block; gives a column.

    Parameters
    ----------
    dim : lanes of a row, and rows.

    **Members**

    i_write : In(1)
        `i_row` is row `i_at` of the block.
    i_at : In(range(dim))
        The row that is written, or the column that is asked for.
    o_column : Out(32 * dim)
        Element e is lane `i_at` of row e; undefined if that row has not been written.

    **Timing** : domain "epilogue". A row written at t can be read from t + 1 on; the column is
    combinational from `i_at`.
    """

    def __init__(self, dim: int):
        self.dim = dim
        super().__init__(
            {
                "i_write": In(1),
                "i_at": In(range(dim)),
                "i_row": In(BITS * dim),
                "o_column": Out(BITS * dim),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        turned = Signal(BITS * self.dim)
        with m.If(self.i_write):
            m.d.comb += turned.eq(rotate(self.i_row, -self.i_at, BITS))
        found = []
        for b in range(self.dim):
            m.submodules[f"bank{b}"] = bank = Memory(shape=BITS, depth=self.dim, init=[])
            write, read = bank.write_port(domain="epilogue"), bank.read_port(domain="comb")
            found.append(read.data)
            m.d.comb += [
                write.en.eq(self.i_write),
                write.addr.eq(self.i_at),
                write.data.eq(turned[BITS * b : BITS * (b + 1)]),
                read.addr.eq(b - self.i_at),
            ]
        m.d.comb += self.o_column.eq(rotate(Cat(found), self.i_at, BITS))
        return m
