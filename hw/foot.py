"""The foot of the array: adds a row of column sums to the old accumulator row.

Float rows add in fp32. int8 products sum exactly in the array's fp32 (below 2^21), so an int row
converts each sum to an integer without rounding and adds it to an int32 that wraps. The sums of an
`int8` array are integers already.
"""

from amaranth.hdl import Cat, Const, EnableInserter, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.array import COLUMNS
from tilewright.hw.blackbox import BlackBoxes
from tilewright.hw.column import slices
from tilewright.hw.float import delay, flush, fp32_add, stage, wire
from tilewright.isa.timing import FOOT_LATENCY

#: Bits of an integer column sum: at most 32 products below 2^16.
INT_BITS = 22


class Foot(wiring.Component):
    """`dim` accumulator adders in clock domain "array".

    Members
    -------
    i_sum : (dim x 32) canonical fp32 column sums; of an "int8" array as `Array.o_sum`
    i_acc : (dim x 32) the old row: fp32, or int32 if `i_int`; ignored if `i_overwrite`
    i_int : sums are integers and the accumulator is int32; always so with an "int8" array
    i_overwrite : the new row is the sum
    o_row : (dim x 32) the new row

    Timing
    ------
    `FOOT_LATENCY` cycles in every mode, one row per cycle; modes travel with their row.
    """

    def __init__(self, dim, kind="bf16"):
        self.dim = dim
        self.kind = kind
        self.width = COLUMNS[kind].sum_width(dim)
        super().__init__(
            {
                "i_sum": In(dim * self.width),
                "i_acc": In(dim * 32),
                "i_int": In(1),
                "i_overwrite": In(1),
                "o_row": Out(dim * 32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self._integers(m) if self.kind == "int8" else self._floats(m)
        m.d.comb += self.o_row.eq(Cat(*lanes))
        return m

    def _integers(self, m):
        """The lanes of an int8 array's foot."""
        rows = []
        for c, (x, old) in enumerate(
            zip(slices(self.i_sum, self.width), slices(self.i_acc, 32), strict=True)
        ):
            m.submodules[f"lane{c}"] = lane = Int8FootLane(self.width)
            m.d.comb += [lane.i_sum.eq(x), lane.i_acc.eq(Mux(self.i_overwrite, 0, old))]
            rows.append(lane.o_int)
        return rows

    def _floats(self, m):
        """The lanes of a bf16 array's foot; those of the kind that no row inside has, rest."""
        ints = Signal(FOOT_LATENCY, reset_less=True)  # of the rows inside
        m.d.array += ints.eq(Cat(self.i_int, ints))
        moving = wire(m, Cat(self.i_int, ints[: FOOT_LATENCY - 1]), "moving")
        # -0 is the neutral element of fp32 addition
        empty = wire(m, Mux(self.i_int, 0, Const(1 << 31, 32)), "empty")
        rows = []
        for c, (x, old) in enumerate(
            zip(slices(self.i_sum, 32), slices(self.i_acc, 32), strict=True)
        ):
            acc = Mux(self.i_overwrite, empty, old)
            results = []
            for lane, en in ((FloatLane(), ~moving.all()), (IntegerLane(), moving.any())):
                m.submodules[f"{lane.NAME}{c}"] = lane
                m.d.comb += [lane.en.eq(en), lane.i_sum.eq(x), lane.i_acc.eq(acc)]
                results.append(lane.o_row)
            rows.append(Mux(ints[-1], *reversed(results)))
        return rows


class _Lane(wiring.Component):
    """One sum and one old value, added; clock domain "array", at rest while `en` is 0.

    **Members** : en : In(1); i_sum, i_acc : In(32); o_row : Out(32).

    **Timing** : `FOOT_LATENCY` cycles, in all of which `en` must be 1.
    """

    def __init__(self):
        super().__init__({"en": In(1), "i_sum": In(32), "i_acc": In(32), "o_row": Out(32)})

    def elaborate(self, platform):
        if isinstance(platform, BlackBoxes):
            return platform.lane(self, self.NAME, "array", self._body, "en")
        return EnableInserter({"array": self.en})(self._body())

    def _body(self):
        m = Module()
        m.d.comb += self.o_row.eq(self._add(m, self.i_sum, self.i_acc))
        return m


class FloatLane(_Lane):
    """Adds as fp32."""

    NAME = "tw_foot_float"

    def _add(self, m, x, acc):
        return fp32_add(m, "array", wire(m, flush(acc), "facc"), x)


class IntegerLane(_Lane):
    """Converts the exact integer `i_sum` and adds it as int32."""

    NAME = "tw_foot_integer"

    def _add(self, m, x, acc):
        mantissa = Cat(x[0:23], Const(1, 1))
        size = wire(m, (mantissa >> (150 - x[23:31])[0:5])[0:INT_BITS], "size")
        size = Mux(x[23:31] < 127, 0, size)
        sign = x[31].replicate(INT_BITS + 1)  # no branch in a simulator
        signed = ((size ^ sign) + x[31])[0 : INT_BITS + 1].as_signed()
        whole = stage(m, "array", signed, "whole")
        old = stage(m, "array", acc, "old")
        total = stage(m, "array", (whole + old)[0:32], "itotal")
        return delay(m, "array", total, FOOT_LATENCY - 2, "ihold")


class Int8FootLane(wiring.Component):
    """One integer sum of `width` bits and one old int32, added; clock domain "array".

    **Members** : i_sum : In(width); i_acc : In(32); o_int : Out(32).

    **Timing** : `FOOT_LATENCY` cycles.
    """

    def __init__(self, width):
        super().__init__({"i_sum": In(width), "i_acc": In(32), "o_int": Out(32)})

    def elaborate(self, platform):
        if isinstance(platform, BlackBoxes):
            return platform.lane(self, f"tw_foot_int{len(self.i_sum)}", "array")
        m = Module()
        total = stage(m, "array", (self.i_sum.as_signed() + self.i_acc.as_signed())[:32], "total")
        m.d.comb += self.o_int.eq(delay(m, "array", total, FOOT_LATENCY - 1, "hold"))
        return m
