"""One column of the systolic array: `dim` PEs, each with two weights, a product and an adder.

A PE holds the active and the next (shadow) weight. Partial sums flow down, one PE per `HOP` cycles;
activations, switches and weight enables pass to the right, one column per cycle. PE 0 needs no
adder: +0 plus a product is the product with a zero made positive. The weights of the next tile run
down the column one register per row less than the sums, so that a tile may be used from two cycles
after its first weight row.

Every input is registered here, so that all columns of a simulation share their code. Nothing has
a reset.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.float import BF16_WIDTH, bf16_decode, bf16_product, delay, fp32_add, stage
from tilewright.isa.timing import HOP

#: Registers that a weight passes between two PE rows, from PE row 1 on (rows 0 and 1: none).
WEIGHT_HOP = HOP - 1


def data_skew(row):
    """Cycles that PE row `row` lags behind row 0 with its activations and its switch."""
    return HOP * max(row - 1, 0)


def weight_skew(row):
    """Cycles that PE row `row` lags behind row 0 with its weight and its enable."""
    return WEIGHT_HOP * max(row - 1, 0)


def column_name(dim):
    """Name of the Verilog module of a column."""
    return f"tw_column_{dim}"


def slices(vector, width):
    """Split a packed vector into words of `width` bits, lowest first."""
    return [vector[i : i + width] for i in range(0, len(vector), width)]


class Column(wiring.Component):
    """`dim` PEs in clock domain "array".

    Members
    -------
    i_a, o_a : decoded activations (`BF16_WIDTH` bits each), skewed by `data_skew`
    i_switch, o_switch : from this activation on, PE row r uses its shadow weight
    i_enable, o_enable : PE row r takes the passing weight as its shadow; skewed by `weight_skew`
    i_w : decoded weights, from the top
    o_sum : (32) fp32 column sum

    Timing
    ------
    Inputs to `o_a` and its like 1 cycle; row 0's activation to `o_sum` 2 + `data_skew(dim)`.
    """

    LANE = 16  #: Bits of an operand at the array's edge.
    WIDTH = BF16_WIDTH  #: Bits of an operand inside.
    decode = staticmethod(bf16_decode)
    data_skew = staticmethod(data_skew)
    weight_skew = staticmethod(weight_skew)
    name = staticmethod(column_name)

    @staticmethod
    def sum_width(dim):
        """Bits of a column's sum."""
        return 32

    def __init__(self, dim):
        self.dim = dim
        super().__init__(
            {
                "i_a": In(dim * self.WIDTH),
                "i_switch": In(dim),
                "i_enable": In(dim),
                "i_w": In(self.WIDTH),
                "o_a": Out(dim * self.WIDTH),
                "o_switch": Out(dim),
                "o_enable": Out(dim),
                "o_sum": Out(self.sum_width(dim)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        inputs = self._inputs(m)
        a = slices(inputs["a"], self.WIDTH)
        top = stage(m, "array", self.i_w, "w_q")
        w = [top, top]
        for r in range(2, self.dim):
            w.append(delay(m, "array", w[-1], WEIGHT_HOP, f"w{r}"))
        total = None
        for r in range(self.dim):
            active = self._weight(m, r, w[r], inputs["switch"][r], inputs["enable"][r])
            product = bf16_product(m, "array", a[r], active, f"p{r}", first=r == 0)
            total = product if r == 0 else fp32_add(m, "array", total, product, f"add{r}")
        m.d.comb += self.o_sum.eq(total)
        return m

    def _inputs(self, m):
        """Register what comes from the left, and pass it on."""
        inputs = {}
        for name in ("a", "switch", "enable"):
            inputs[name] = stage(m, "array", getattr(self, f"i_{name}"), f"{name}_q")
            m.d.comb += getattr(self, f"o_{name}").eq(inputs[name])
        return inputs

    def _weight(self, m, r, passing, switch, enable):
        """Return the weight that PE row `r` multiplies by in this cycle."""
        shadow = Signal(self.WIDTH, name=f"shadow{r}", reset_less=True)
        active = Signal(self.WIDTH, name=f"active{r}", reset_less=True)
        used = Signal(self.WIDTH, name=f"used{r}")
        m.d.comb += used.eq(Mux(switch, shadow, active))
        m.d.array += active.eq(used)
        with m.If(enable):
            m.d.array += shadow.eq(passing)
        return used
