"""VECTOR's arithmetic: one lane's ALU.

A lane takes one operation per cycle, any after any, and gives every result after the same number of
cycles. Its parts: `vector_basic` (words, comparisons, shifts), `vector_mul` (everything with a
product or a sum), `special` (tables). They share the last stage, in which a rounding bit is added.
Registers of a part only move when an operation needs that part.
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.blackbox import BlackBoxes
from tilewright.hw.float import stage, wire
from tilewright.hw.special import Special
from tilewright.hw.vector_basic import BasicPart
from tilewright.hw.vector_control import LAYOUT, Out5, Word
from tilewright.hw.vector_mul import Multiply, overridden
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
        if isinstance(platform, BlackBoxes):
            return platform.module(self, "tw_vector_lane")
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
