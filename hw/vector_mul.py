"""The multiplier part of a VECTOR lane: one 32 x 32 product, and four ways to use it.

fp32 sums, products and fused multiply-adds (also log2's, and conversions to fp32) are
``x * y + z`` rounded once: the product's 48 bits and z are ordered by size, aligned, added,
normalized and rounded, as in `hw.float.fp32_add`. Integer products are words of it. `FX` shifts it
to an integer (conversions to integer, `mul_fx`). `div_fix` and `sqrt_fix` compare the product with
what it should be and move the approximation by up to two units.

An operand is brought into form in stage 1, multiplied in stage 2; `docs/vector.md` has the rest.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.float import INF, NAN, wire
from tilewright.hw.vector_control import LAYOUT, Word
from tilewright.hw.vector_form import E_BITS, INFINITE, INVALID, ZERO, Form


def normalize(m, x, name):
    """Shift left until the top bit is set; (shifted, count of leading zeros); up to 63 bits."""
    width, counts = len(x), []
    for step in (32, 16, 8, 4, 2, 1):
        empty = wire(m, x[width - step :] == 0, f"{name}_z{step}")
        by = Cat(Const(0, step.bit_length() - 1), empty)
        x = wire(m, (x << by)[0:width], f"{name}_s{step}")
        counts.insert(0, empty)
    return x, Cat(*counts)


class Multiply(wiring.Component):
    """Multiplier and what follows it, stages 1 to 5.

    Members
    -------
    i_a, i_b, i_c : operands, in stage 1
    i_control : `LAYOUT`, each field in its stage
    o_word4 : word of an integer product or of `FX`, in stage 4 before its register
    o_e4, o_case4, o_sign4 : registers of stage 4: exponent, override and sign (special part too)
    o_fma, o_round : stage 5 before its register: bits, and what rounding adds
    o_fix : stage 5 before its register: quotient or root
    """

    def __init__(self):
        super().__init__(
            {
                "i_a": In(32),
                "i_b": In(32),
                "i_c": In(32),
                "i_control": In(LAYOUT),
                "o_word4": Out(32),
                "o_e4": Out(signed(E_BITS)),
                "o_case4": Out(2),
                "o_sign4": Out(1),
                "o_fma": Out(32),
                "o_round": Out(1),
                "o_fix": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._registers()
        self._form(m)
        self._multiply(m)
        self._order(m)
        self._words(m)
        self._add(m)
        self._correct(m)
        self._finish(m)
        return m

    def _registers(self):
        """Registers by stage; those of e, case and sign run along for the special part, too."""

        def register(shape, name):
            return Signal(shape, name=name, reset_less=True)

        self.x1, self.y1, self.z1 = register(32, "x1"), register(32, "y1"), register(24, "z1")
        self.ez1, self.sz1 = register(signed(E_BITS), "ez1"), register(1, "sz1")
        self.p2, self.k2 = register(64, "p2"), register(32, "k2")
        self.q2, self.z2 = register(24, "q2"), register(24, "z2")
        self.ez2, self.sz2 = register(signed(E_BITS), "ez2"), register(1, "sz2")
        self.large3, self.small3 = register(48, "large3"), register(48, "small3")
        self.gap3, self.minus3 = register(6, "gap3"), register(1, "minus3")
        self.el3, self.sl3 = register(signed(E_BITS), "el3"), register(1, "sl3")
        self.int3, self.fx3 = register(32, "int3"), register(32, "fx3")
        self.lost3, self.over3 = register(1, "lost3"), register(1, "over3")
        self.rest3, self.k3, self.q3 = register(28, "rest3"), register(24, "k3"), register(24, "q3")
        self.total4, self.minus4 = register(51, "total4"), register(1, "minus4")
        self.el4, self.sl4 = register(signed(E_BITS), "el4"), register(1, "sl4")
        self.q4, self.move4 = register(24, "q4"), register(signed(3), "move4")
        stages = (1, 2, 3, 4)
        self.e = [None, *(register(signed(E_BITS), f"e{s}") for s in stages)]
        self.case = [None, *(register(2, f"case{s}") for s in stages)]
        self.sign = [None, *(register(1, f"sign{s}") for s in stages)]

    # ---- stages 1 and 2: bring operands into form, multiply ----

    def _form(self, m):
        ctl = self.i_control
        m.submodules.form = form = Form()
        m.d.comb += [form.i_a.eq(self.i_a), form.i_b.eq(self.i_b), form.i_c.eq(self.i_c)]
        m.d.comb += form.i_control.eq(ctl)
        with m.If(ctl.mul):
            m.d.sync += [self.x1.eq(form.o_x), self.y1.eq(form.o_y), self.z1.eq(form.o_z)]
            m.d.sync += [self.ez1.eq(form.o_ez), self.sz1.eq(form.o_sz)]
        with m.If(ctl.mul | ctl.special):
            m.d.sync += [self.e[1].eq(form.o_e), self.case[1].eq(form.o_case)]
            m.d.sync += self.sign[1].eq(form.o_sign)

    def _multiply(self, m):
        ctl = self.i_control
        signs = Mux(self.x1[31], self.y1, 0) + Mux(self.y1[31], self.x1, 0)
        with m.If(ctl.mul2):
            m.d.sync += [
                self.p2.eq(self.x1 * self.y1),
                self.k2.eq(Mux(ctl.fix2, self.y1, signs[0:32])),
                self.q2.eq(self.x1),
                self.z2.eq(self.z1),
                self.ez2.eq(self.ez1),
                self.sz2.eq(self.sz1),
            ]
        with m.If(ctl.mul2 | ctl.special2):
            self._along(m, 2)

    def _along(self, m, s):
        for registers in (self.e, self.case, self.sign):
            m.d.sync += registers[s].eq(registers[s - 1])

    # ---- stage 3: order the summands; or pick a word; or shift; or subtract ----

    def _order(self, m):
        ctl, p, e, ez = self.i_control, self.p2, self.e[2], self.ez2
        product = wire(m, Mux(p[47], p[0:48], p << 1)[0:48], "product")
        ep = wire(m, (e + p[47])[0:E_BITS].as_signed(), "ep")
        distance = wire(m, ep - ez, "distance")
        smaller = wire(m, (ep < ez) | (ep == ez) & (product[24:48] < self.z2), "smaller")
        away = wire(m, Mux(distance < 0, -distance, distance)[0:11], "away")
        addend = Cat(Const(0, 24), self.z2)
        with m.If(ctl.fma3):
            m.d.sync += [
                self.large3.eq(Mux(smaller, addend, product)),
                self.small3.eq(Mux(smaller, product, addend)),
                self.gap3.eq(Mux(away > 63, 63, away[0:6])),
                self.el3.eq(Mux(smaller, ez, ep)),
                self.sl3.eq(Mux(smaller, self.sz2, self.sign[2])),
                self.minus3.eq(self.sz2 ^ self.sign[2]),
            ]
        with m.If(ctl.along3):
            self._along(m, 3)

    def _words(self, m):
        ctl, p, shift = self.i_control, self.p2, self.e[2]
        high = (p[32:64] - Mux(ctl.root3, self.k2, 0))[0:32]
        with m.If((ctl.word3 == Word.LOW) | (ctl.word3 == Word.HIGH)):
            m.d.sync += self.int3.eq(Mux(ctl.word3 == Word.HIGH, high, p[0:32]))
        by = wire(m, Mux(shift >= 63, 63, shift[0:6])[0:6], "by")
        moved = wire(m, p >> by, "moved")
        lost = (moved << by)[0:64] != p
        with m.If(ctl.word3 == Word.FX):
            m.d.sync += [self.fx3.eq(moved), self.lost3.eq(lost)]
            m.d.sync += self.over3.eq((shift < 0) & (p != 0) | moved[32:64].any())

        whole = Mux(ctl.rounds4, self.fx3[1:32], self.fx3)
        up = ctl.rounds4 & self.fx3[0] & (self.lost3 | self.fx3[1])
        size = wire(m, (whole + up)[0:32], "fx_size")
        over = wire(m, self.over3 | ctl.signed4 & size[31], "fx_over")
        negative, invalid = self.sign[3], self.case[3] == INVALID
        limit = Mux(ctl.signed4, Mux(negative, Mux(ctl.rounds4, 0x80000001, 0x80000000),
                                     0x7FFFFFFF), 0xFFFFFFFF)  # fmt: skip
        value = Mux(over, limit, Mux(negative, -size, size)[0:32])
        value = Mux(negative & ~ctl.signed4, 0, value)
        value = Mux(invalid, Mux(ctl.rounds4, 0x80000000, 0), value)
        m.d.comb += self.o_word4.eq(Mux(ctl.word4 == Word.FX, value, self.int3))

    # ---- stages 4 and 5 of a sum: align and add, normalize ----

    def _add(self, m):
        wide = wire(m, Cat(Const(0, 2), self.small3), "wide")
        moved = wire(m, wide >> self.gap3, "aligned")
        lost = wire(m, (moved << self.gap3)[0:50] != wide, "lost")
        term = wire(m, moved | lost, "term")
        base = Cat(Const(0, 2), self.large3)
        with m.If(self.i_control.fma4):
            flipped = term ^ Cat(self.minus3.replicate(50), self.minus3)
            m.d.sync += self.total4.eq(base + flipped + self.minus3)
            m.d.sync += [self.el4.eq(self.el3), self.sl4.eq(self.sl3), self.minus4.eq(self.minus3)]
        with m.If(self.i_control.along4):
            self._along(m, 4)
        m.d.comb += [self.o_e4.eq(self.e[4]), self.o_case4.eq(self.case[4])]
        m.d.comb += self.o_sign4.eq(self.sign[4])

        mant, zeros = normalize(m, self.total4, "n")
        exponent = wire(m, self.el4 + 1 - zeros, "exponent")
        empty = ~mant[50]
        m.d.comb += self.o_fma.eq(Cat(mant[27:50], exponent[0:8], self.sl4))
        m.d.comb += self.o_round.eq(mant[26] & (mant[0:26].any() | mant[27]))
        with m.If(empty | (exponent <= 0)):
            sign = self.sl4 & ~(empty & self.minus4)
            m.d.comb += [self.o_fma.eq(Cat(Const(0, 31), sign)), self.o_round.eq(0)]
        with m.Elif(exponent >= 255):
            m.d.comb += [self.o_fma.eq(Cat(Const(INF, 31), self.sl4)), self.o_round.eq(0)]

    # ---- stages 3 to 5 of a quotient or root ----

    def _correct(self, m):
        ctl = self.i_control
        rest = wire(m, (Cat(Const(0, 23), self.z2[0:5]) - self.p2[0:28])[0:28], "rest")
        with m.If(ctl.fix3):
            m.d.sync += [self.rest3.eq(Mux(ctl.root3, rest, rest << 1)), self.k3.eq(self.k2)]
            m.d.sync += self.q3.eq(self.q2)
        value, more = self.rest3.as_signed(), Cat(Const(0, 1), ctl.root4)
        thrice = wire(m, self.k3 + (self.k3 << 1), "thrice")
        up = (value > self.k3) + (value > thrice + more)
        down = (value <= -self.k3) + (value <= more - thrice)
        with m.If(ctl.fix4):
            m.d.sync += [self.move4.eq(up - down), self.q4.eq(self.q3)]

    def _finish(self, m):
        e, sign = self.e[4], self.sign[4]
        fraction = (self.q4 + self.move4)[0:23]
        m.d.comb += self.o_fix.eq(Cat(fraction, e[0:8], sign))
        with m.If(e <= 0):
            m.d.comb += self.o_fix.eq(Cat(Const(0, 31), sign))
        with m.Elif(e >= 255):
            m.d.comb += self.o_fix.eq(Cat(Const(INF, 31), sign))


def overridden(m, value, case, sign):
    """`value`, or the zero, infinity or NaN of `case`."""
    word = Signal(32, name="overridden")
    m.d.comb += word.eq(value)
    with m.Switch(case):
        with m.Case(ZERO):
            m.d.comb += word.eq(Cat(Const(0, 31), sign))
        with m.Case(INFINITE):
            m.d.comb += word.eq(Cat(Const(INF, 31), sign))
        with m.Case(INVALID):
            m.d.comb += word.eq(NAN)
    return Value.cast(word)
