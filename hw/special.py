"""The table-driven part of a VECTOR lane: reciprocal, reciprocal root, 2^t, slope of log2.

`isa.special` says what y is. Stage 1 finds the table's entry and the place in its segment, stage 2
reads the ROM, stages 3 and 4 are one multiplier each, stage 5 packs (in `hw.vector_alu`).
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.vector_control import E
from tilewright.isa.special import (
    C0_BITS,
    C1_BITS,
    C2_BITS,
    PLACES,
    ROM_DEPTH,
    STEP_BITS,
    Y_BITS,
    rom,
)  # fmt: skip

ROM_BITS = C0_BITS + C1_BITS + C2_BITS


class Special(wiring.Component):
    """Quadratic interpolation in a ROM.

    Members
    -------
    i_a : operand bits
    i_kind : `E` of the function
    i_en : (4) stages 1 to 4 have work; each in its own cycle
    o_y : y of `isa.special`, the significand behind its leading one

    **Timing** : 4 cycles, one operation per cycle.
    """

    def __init__(self):
        super().__init__({"i_a": In(32), "i_kind": In(E), "i_en": In(4), "o_y": Out(Y_BITS)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.rom = table = memory.Memory(shape=ROM_BITS, depth=ROM_DEPTH, init=rom())
        read = table.read_port()
        u1, u2, u3 = (Signal(STEP_BITS, name=f"u{i}", reset_less=True) for i in (1, 2, 3))
        entry = Signal(len(read.addr), reset_less=True)
        t3, c3 = (
            Signal(C1_BITS, name="t3", reset_less=True),
            Signal(C0_BITS, name="c3", reset_less=True),
        )
        y4 = Signal(Y_BITS, name="y4", reset_less=True)

        with m.If(self.i_en[0]):
            m.d.sync += [entry.eq(self._entry(m)), u1.eq(self._step())]
        m.d.comb += [read.addr.eq(entry), read.en.eq(self.i_en[1])]
        with m.If(self.i_en[1]):
            m.d.sync += u2.eq(u1)
        c0 = read.data[:C0_BITS]
        c1 = read.data[C0_BITS : C0_BITS + C1_BITS].as_signed()
        c2 = read.data[C0_BITS + C1_BITS :].as_signed()
        with m.If(self.i_en[2]):
            m.d.sync += [t3.eq(c1 + (c2 * u2 >> STEP_BITS)), c3.eq(c0), u3.eq(u2)]
        with m.If(self.i_en[3]):
            m.d.sync += y4.eq(c3 + (t3.as_signed() * u3 >> STEP_BITS))
        m.d.comb += self.o_y.eq(y4)
        return m

    def _entry(self, m):
        """Address in the ROM; functions begin at multiples of their number of entries."""
        high = self.i_a[16:23]
        entry = Signal(range(ROM_DEPTH), name="entry_of")
        with m.Switch(self.i_kind):
            with m.Case(E.RSQRT):
                m.d.comb += entry.eq(PLACES["rsqrt"][0] | Cat(high, ~self.i_a[23]))
            with m.Case(E.EXP2):
                m.d.comb += entry.eq(PLACES["exp2"][0] | self.i_a[18:24])
            with m.Case(E.SLOPE):
                m.d.comb += entry.eq(PLACES["log2"][0] | high)
            with m.Default():
                m.d.comb += entry.eq(PLACES["recip"][0] | high)
        return entry

    def _step(self):
        return Mux(self.i_kind == E.EXP2, self.i_a[0:18], Cat(Const(0, 2), self.i_a[0:16]))
