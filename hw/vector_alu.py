"""VECTOR's arithmetic: one lane's ALU, and `dim` lanes with the movement between them.

A lane takes one operation per cycle, any after any, and gives every result after the same number of
cycles. Its parts: `vector_basic` (words, comparisons, shifts), `vector_mul` (everything with a
product or a sum), `special` (tables). They share the last stage, in which a rounding bit is added.
Registers of a part only move when an operation needs that part.
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.float import stage, wire
from tilewright.hw.special import Special
from tilewright.hw.vector_basic import BasicPart
from tilewright.hw.vector_control import LAYOUT, Out5, VectorControl, Word
from tilewright.hw.vector_mul import Multiply, overridden
from tilewright.hw.vector_route import VectorRoute
from tilewright.isa.special import Y_BITS


class VectorLane(wiring.Component):
    """The ALU of one lane.

    Members
    -------
    i_a, i_b, i_c : operands of an operation
    i_control : the operation, from `VectorControl`: each field in its stage
    o_q : result

    **Timing** : `VECTOR_ALU_LATENCY` cycles, one operation per cycle.
    """

    def __init__(self):
        super().__init__(
            {"i_a": In(32), "i_b": In(32), "i_c": In(32), "i_control": In(LAYOUT), "o_q": Out(32)}
        )

    def elaborate(self, platform):
        m, ctl = Module(), self.i_control
        m.submodules.basic = basic = BasicPart()
        m.submodules.mul = mul = Multiply()
        m.submodules.special = special = Special()
        for part in (basic, mul):
            m.d.comb += [part.i_a.eq(self.i_a), part.i_b.eq(self.i_b), part.i_c.eq(self.i_c)]
            m.d.comb += part.i_control.eq(ctl)
        m.d.comb += [special.i_a.eq(self.i_a), special.i_kind.eq(ctl.e)]
        m.d.comb += special.i_en.eq(Cat(ctl.special, ctl.special2, ctl.special3, ctl.special4))

        word4 = Signal(32, reset_less=True)
        with m.If(ctl.words4):
            m.d.sync += word4.eq(Mux(ctl.word4 == Word.BASIC, basic.o_word, mul.o_word4))

        low = Y_BITS - 23
        fraction, up = special.o_y[low:], special.o_y[low - 1]
        value, more = Signal(32, name="value"), Signal(name="more")
        with m.Switch(ctl.out):
            with m.Case(Out5.WORD):
                m.d.comb += [value.eq(word4), more.eq(0)]
            with m.Case(Out5.FMA):
                m.d.comb += [value.eq(mul.o_fma), more.eq(mul.o_round)]
            with m.Case(Out5.SPECIAL):
                m.d.comb += [value.eq(Cat(fraction, mul.o_e4[0:8], mul.o_sign4)), more.eq(up)]
            with m.Case(Out5.FIX):
                m.d.comb += [value.eq(mul.o_fix), more.eq(0)]
        case = wire(m, Mux(ctl.out == Out5.WORD, 0, mul.o_case4), "case")
        value5 = stage(m, "sync", overridden(m, value, case, mul.o_sign4), "value5")
        more5 = stage(m, "sync", more & (case == 0), "more5")
        m.d.comb += self.o_q.eq(stage(m, "sync", (value5 + more5)[0:32], "q6"))
        return m


class VectorAlu(wiring.Component):
    """`dim` lanes, the movement between them, and the decoder that they share.

    Members
    -------
    i_valid : an operation other than `nop`
    i_op, i_n : its fields (`isa.micro`); `i_step` is k of step k of a ``lanes_*`` operation
    i_a, i_b, i_c : (dim x 32) operands
    o_valid, o_q : (dim x 32) results

    **Timing** : `VECTOR_ROUTE_LATENCY` + `VECTOR_ALU_LATENCY` cycles, one operation per cycle.
    """

    def __init__(self, dim):
        self.dim = dim
        words = dim * 32
        super().__init__(
            {
                "i_valid": In(1),
                "i_op": In(7),
                "i_n": In(5),
                "i_step": In(3),
                "i_a": In(words),
                "i_b": In(words),
                "i_c": In(words),
                "o_valid": Out(1),
                "o_q": Out(words),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.control = control = VectorControl()
        m.submodules.route = route = VectorRoute(self.dim)
        m.d.comb += [control.i_valid.eq(self.i_valid), control.i_op.eq(self.i_op)]
        m.d.comb += [control.i_n.eq(self.i_n), self.o_valid.eq(control.o_valid)]
        m.d.comb += [route.i_valid.eq(self.i_valid), route.i_op.eq(self.i_op)]
        m.d.comb += [route.i_n.eq(self.i_n), route.i_step.eq(self.i_step)]
        m.d.comb += [route.i_a.eq(self.i_a), route.i_b.eq(self.i_b), route.i_c.eq(self.i_c)]
        for i in range(self.dim):
            m.submodules[f"lane{i}"] = lane = VectorLane()
            at = slice(32 * i, 32 * i + 32)
            m.d.comb += [lane.i_a.eq(route.o_a[at]), lane.i_b.eq(route.o_b[at])]
            m.d.comb += [lane.i_c.eq(route.o_c[at]), lane.i_control.eq(control.o_stage)]
            m.d.comb += self.o_q[at].eq(lane.o_q)
        return m
