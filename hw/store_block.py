"""STORE's block reader: which rows of a transposing STORE are read into its transposer, and when.

The first block of each i2 is read in slots of its own, before its rows are sent. Each later one is
read in the first slots of the rows of the block before it: these read nothing else, and they are
at least as many as a block has rows, because each of dim rows has a slot for each of its units. So
the transposer has two sides: one takes a block while the other gives columns.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.payload import payload
from tilewright.isa.config import LOCAL_BITS, XPOSE_BLOCKS, ChipConfig


class BlockReader(wiring.Component):
    """Counts rows of blocks in, and columns out.

    Parameters
    ----------
    config : geometry.

    **Members**

    start, instr : In
        A new instruction.
    c0, l0, l1, l2 : In
        Fields of the instruction under way.
    slot, row_ends : In(1)
        It transposes and takes a slot that is not a vector's; that is the last one of a row.
    rows : In(16)
        Rows left of this i2, with this slot's.
    alone : Out(1)
        The slot only reads. From a register.
    reads : Out(1)
        The slot reads row `row` of a block, at `at`, into side `to`. From registers.
    column, side : Out
        A row slot takes units of this column, on this side.

    **Timing** : outputs are of the slot that is taken or may be; state moves with `slot`.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        stride = In(LOCAL_BITS)
        super().__init__(
            {
                "start": In(1),
                "instr": In(payload("store")),
                "c0": In(range(XPOSE_BLOCKS * config.dim + 1)),
                **dict.fromkeys(("l0", "l1", "l2"), stride),
                "slot": In(1),
                "row_ends": In(1),
                "rows": In(16),
                "alone": Out(1),
                "reads": Out(1),
                "at": Out(LOCAL_BITS),
                "row": Out(range(XPOSE_BLOCKS * config.dim)),
                "to": Out(1),
                "column": Out(range(config.dim)),
                "side": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        dim, i = self.config.dim, self.instr
        left = Signal(range(XPOSE_BLOCKS * dim + 1))  # rows to read of the block
        base, outer = (Signal(LOCAL_BITS, name=n, reset_less=True) for n in ("base", "outer"))
        block, above = Signal(LOCAL_BITS), Signal(LOCAL_BITS)  # that come next
        last, turns = Signal(), Signal()  # the row is this i2's, its block's last one
        m.d.comb += [
            self.reads.eq(left != 0),
            self.to.eq(self.side ^ ~self.alone),
            block.eq(base + self.l1),
            above.eq(outer + self.l2),
            last.eq(self.rows == 1),
            turns.eq(self.row_ends & (last | self.column.all())),
        ]
        with m.If(self.slot & self.reads):
            m.d.sync += [
                left.eq(left - 1),
                self.row.eq(self.row + 1),
                self.at.eq(self.at + self.l0),
            ]
            with m.If(left == 1):
                m.d.sync += [self.row.eq(0), base.eq(block), self.at.eq(block)]
        with m.If(self.slot & self.alone & (left == 1)):
            m.d.sync += [self.alone.eq(0), left.eq(self._more(self.rows))]
        with m.If(self.slot & self.row_ends):
            m.d.sync += self.column.eq(self.column + 1)
            with m.If(turns):
                m.d.sync += [self.column.eq(0), self.side.eq(~self.side)]
                m.d.sync += left.eq(self._more((self.rows - 1)[:16]))
            with m.If(last):
                m.d.sync += [self.alone.eq(1), left.eq(self.c0)]
                m.d.sync += [outer.eq(above), base.eq(above), self.at.eq(above)]
        with m.If(self.start):
            m.d.sync += [self.alone.eq(i.xpose), left.eq(Mux(i.xpose, i.c0, 0))]
            m.d.sync += [self.row.eq(0), self.column.eq(0)]
            m.d.sync += [outer.eq(i.loc), base.eq(i.loc), self.at.eq(i.loc)]
        return m

    def _more(self, rows):
        """Rows to read of the block after the one that `rows` rows of an i2 begin with."""
        return Mux(rows > self.config.dim, self.c0, 0)
