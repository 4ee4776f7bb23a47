"""One column of the `int8` array: `dim` PEs, each with two weights, a product and an adder.

Ports, weight wave and rules of time are those of `column.Column`, at a fraction of the area:
operands are integers of 9 bits (int8 or uint8), products and sums are exact. An integer adder needs
one cycle, so sums run down the column by one PE row per cycle (`HOP` of this file, not that of
`isa.timing`), and the weights of the next tile reach all PE rows at once. `Array` delays the sums,
so that both arrays have the same latency. Nothing has a reset.
"""

from amaranth.hdl import Module
from tilewright.hw.column import Column, slices
from tilewright.hw.float import stage

#: Cycles that a row of sums spends in a PE row.
HOP = 1


class Int8Column(Column):
    """`dim` PEs in clock domain "array"; operands have `WIDTH` bits, the sum `sum_width`, signed.

    **Members** : those of `Column`.

    Timing
    ------
    Inputs to `o_a` and its like 1 cycle; row 0's activation to `o_sum` 2 + `data_skew(dim)`. One
    row and one weight per cycle.
    """

    #: Bits of an operand at the array's edge and inside: every int8 and every uint8.
    LANE = WIDTH = 9

    @staticmethod
    def name(dim):
        """Name of the Verilog module of a column."""
        return f"tw_column_int8_{dim}"

    @staticmethod
    def sum_width(dim):
        """Bits of a sum of `dim` products, each less than 2^16 in magnitude."""
        return 16 + dim.bit_length()

    @staticmethod
    def data_skew(row):
        """Cycles that PE row `row` lags behind row 0 with its activations and its switch."""
        return HOP * max(row - 1, 0)

    @staticmethod
    def weight_skew(row):
        """Cycles that PE row `row` lags behind row 0 with its weight: one less for each row."""
        return (HOP - 1) * max(row - 1, 0)

    @staticmethod
    def decode(word):
        """What the array's edge makes of an operand."""
        return word

    def elaborate(self, platform):
        m = Module()
        inputs = self._inputs(m)
        w = stage(m, "array", self.i_w, "w_q")
        width = self.sum_width(self.dim)
        total = None
        for r, a in enumerate(slices(inputs["a"], self.WIDTH)):
            active = self._weight(m, r, w, inputs["switch"][r], inputs["enable"][r])
            product = stage(m, "array", a.as_signed() * active.as_signed(), f"p{r}")
            if r:
                total = stage(m, "array", (total + product)[:width].as_signed(), f"sum{r}")
            else:
                total = product
        m.d.comb += self.o_sum.eq(total)
        return m
