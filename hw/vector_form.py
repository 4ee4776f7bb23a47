"""Stage 1 of a VECTOR lane's multiplier part: operands in the form that the operation needs.

The product is ``x * y``; z is what is added to it, or what a quotient or root is compared with.
Significands are 24 bits with the leading one on top. An exponent belongs to a significand of 1.f;
the product of log2 and of conversions may have leading zeros, which normalization removes.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.float import wire
from tilewright.hw.vector_control import LAYOUT, Case, E, X, Y, Z

E_BITS = 10
#: Exponent of a zero: below that of every product.
E_ZERO = -512
#: An overriding result: none, zero, infinity, NaN.
KEEP, ZERO, INFINITE, INVALID = range(4)


class Operand:
    """Fields of an fp32 operand, a subnormal being a zero."""

    def __init__(self, m, bits, name):
        self.bits, self.sign, self.exponent, self.fraction = bits, bits[31], bits[23:31], bits[0:23]
        self.zero = wire(m, self.exponent == 0, f"{name}_zero")
        special = self.exponent == 255
        self.infinite = wire(m, special & (self.fraction == 0), f"{name}_inf")
        self.nan = wire(m, special & (self.fraction != 0), f"{name}_nan")
        normal = ~self.zero
        self.significand = wire(m, Cat(self.fraction & normal.replicate(23), normal), f"{name}_sig")


def choose(m, selector, target, values):
    """`target` is the value of the selector's case."""
    with m.Switch(selector):
        for key, value in values.items():
            with m.Case(key):
                m.d.comb += target.eq(value)


class Form(wiring.Component):
    """Operands in form.

    Members
    -------
    i_a, i_b, i_c : operands
    i_control : `LAYOUT`, stage 1
    o_x, o_y : multiplicand and multiplier
    o_z, o_ez, o_sz : significand, exponent and sign of the addend; for a quotient or root the five
        bits of z are bits 23 to 27 of what the product should be
    o_e : exponent of the product or result, or shift to the right of `E.FX`
    o_case, o_sign : result that replaces the computed one; sign of the product or result

    **Timing** : combinational; stage 1's registers follow.
    """

    def __init__(self):
        super().__init__(
            {
                "i_a": In(32),
                "i_b": In(32),
                "i_c": In(32),
                "i_control": In(LAYOUT),
                "o_x": Out(32),
                "o_y": Out(32),
                "o_z": Out(24),
                "o_ez": Out(signed(E_BITS)),
                "o_sz": Out(1),
                "o_e": Out(signed(E_BITS)),
                "o_case": Out(2),
                "o_sign": Out(1),
            }
        )

    def elaborate(self, platform):
        m, ctl = Module(), self.i_control
        self.a, self.b, self.c = (
            Operand(m, v, n) for v, n in ((self.i_a, "a"), (self.i_b, "b"), (self.i_c, "c"))
        )
        a, b = self.a, self.b
        #: Division: the quotient of the significands is below 1.
        self.below = wire(m, a.significand < b.significand, "below")
        self.root_e = wire(m, (a.exponent + 1)[1:9] + 63, "root_e")
        #: log2: the significand is halved from 1.5 on; what is left of it is r - 1.
        self.high = a.fraction[22]
        rest = Mux(self.high, (1 << 23) - a.fraction, Cat(Const(0, 1), a.fraction))
        self.rest = wire(m, rest[0:24], "rest")
        self.whole = wire(m, a.exponent + self.high - 127, "whole")
        fix = self._approximation(m)
        choose(m, ctl.x, self.o_x, {
            X.SIG: a.significand, X.SIG8: Cat(Const(0, 8), a.significand), X.RAW: a.bits,
            X.ABS: Mux(ctl.signed & a.sign, -a.bits, a.bits)[0:32], X.FIX: fix, X.LOG: self.rest,
        })  # fmt: skip
        choose(m, ctl.y, self.o_y, {
            Y.SIG: b.significand, Y.RAW: b.bits, Y.ABS: Mux(b.sign, -b.bits, b.bits)[0:32],
            Y.FIX: fix, Y.SLOPE: Cat(b.fraction, Const(1, 1)), Y.ONE: 1 << 23, Y.INT: 1 << 16,
            Y.UNIT: 1,
        })  # fmt: skip
        product = self._signs(m)
        self._addend(m, product)
        self._exponent(m)
        self._override(m, product)
        return m

    def _approximation(self, m):
        """Of a quotient or root: the significand with the result's exponent that is nearest."""
        root = self.i_control.signed
        q = wire(m, Mux(root, self.i_b, self.i_c), "q")
        target = wire(m, Mux(root, self.root_e, 127 - self.below)[0:9], "target")
        over, under = q[23:31] > target, q[23:31] < target
        near = Mux(under, 1 << 23, Cat(q[0:23], Const(1, 1)))
        return wire(m, Mux(over, 0xFFFFFF, near)[0:24], "fix")

    def _signs(self, m):
        """Sign of the product, or of the result."""
        ctl, a, b = self.i_control, self.a, self.b
        sign = wire(m, a.sign ^ (ctl.flip & (ctl.z == Z.C)), "sign_a")
        product = Signal(name="sp")
        with m.Switch(ctl.x):
            with m.Case(X.LOG):
                m.d.comb += product.eq(self.high)
            with m.Case(X.RAW):
                m.d.comb += product.eq(0)
            with m.Default():
                by_b = ((ctl.y == Y.SIG) | (ctl.y == Y.ABS)) & ~ctl.special
                m.d.comb += product.eq(sign ^ b.sign & by_b)
        return product

    def _addend(self, m, product):
        ctl, a, b, c = self.i_control, self.a, self.b, self.c
        twice = Mux(ctl.signed, ~a.exponent[0], self.below)  # of a quotient or root
        low = Mux(twice, Cat(Const(0, 1), a.significand[0:4]), a.significand[0:5])
        with m.Switch(ctl.z):
            with m.Case(Z.C):
                m.d.comb += self.o_z.eq(Mux(ctl.x == X.FIX, low, c.significand))
                m.d.comb += [self.o_sz.eq(c.sign), self.o_ez.eq(Mux(c.zero, E_ZERO, c.exponent))]
            with m.Case(Z.B):
                m.d.comb += [self.o_z.eq(b.significand), self.o_sz.eq(b.sign ^ ctl.flip)]
                m.d.comb += self.o_ez.eq(Mux(b.zero, E_ZERO, b.exponent))
            with m.Case(Z.LOG):  # an integer of 8 bits, on top
                size = Mux(self.whole < 0, -self.whole, self.whole)[0:8]
                m.d.comb += [self.o_z.eq(Cat(Const(0, 16), size)), self.o_sz.eq(self.whole < 0)]
                m.d.comb += self.o_ez.eq(Mux(self.whole == 0, E_ZERO, 127 + 7))
            with m.Default():
                m.d.comb += [self.o_sz.eq(product), self.o_ez.eq(E_ZERO)]

    def _exponent(self, m):
        ctl, a, b = self.i_control, self.a, self.b
        ea, eb, either = a.exponent, b.exponent, a.zero | b.zero
        choose(m, ctl.e, self.o_e, {
            E.MUL: Mux(either, E_ZERO, ea + eb - 127),
            E.A: Mux(a.zero, E_ZERO, ea),
            E.B: Mux(either, E_ZERO, eb),
            E.LOG: Mux(self.rest == 0, E_ZERO, 126),  # 24 bits below 1
            E.INT: 127 + 30,  # 32 bits on top of the product's 48
            E.FX: Mux(ctl.rounds, 157 + ctl.n, 158) - ea,
            E.DIV: ea - eb + 127 - self.below,
            E.SQRT: self.root_e,
            E.RECIP: 253 - ea,
            E.HALF: 126,
            E.RSQRT: 190 - (ea + 1)[1:9],
            E.EXP2: a.bits[24:32].as_signed() + 127,
            E.SLOPE: 127,
        })  # fmt: skip

    def _override(self, m, product):
        """Zeros, infinities and NaNs of the operands, or of a result out of range."""
        ctl, a, b = self.i_control, self.a, self.b

        def replace(invalid, infinite, zero, sign=product):
            kind = Mux(invalid, INVALID, Mux(infinite, INFINITE, Mux(zero, ZERO, KEEP)))
            m.d.comb += [self.o_case.eq(kind), self.o_sign.eq(Mux(kind == KEEP, product, sign))]

        negative, never = a.sign & ~a.zero, Const(0, 1)
        with m.Switch(ctl.case):
            with m.Case(Case.NONE):
                replace(never, never, never)
            with m.Case(Case.FX):  # infinities saturate
                replace(a.nan | a.infinite & (ctl.y == Y.ABS) & (b.bits == 0), never, never)
            with m.Case(Case.FMA):
                self._override_sum(product, replace)
            with m.Case(Case.LOG):
                replace(a.nan | negative, a.infinite | a.zero, never, a.zero)
            with m.Case(Case.DIV):
                invalid = a.nan | b.nan | a.infinite & b.infinite | a.zero & b.zero
                replace(invalid, a.infinite | b.zero, a.zero | b.infinite)
            with m.Case(Case.SQRT):
                replace(a.nan | negative, a.infinite, a.zero)
            with m.Case(Case.RECIP):
                tiny = (a.exponent == 254) | (a.exponent == 253) & (a.fraction != 0)
                replace(a.nan, a.zero, a.infinite | tiny)
            with m.Case(Case.RSQRT):
                replace(a.nan | negative, a.zero, a.infinite, a.sign & a.zero)
            with m.Case(Case.EXP2):
                whole = a.bits[24:32].as_signed()
                replace(a.bits == 1 << 31, a.bits == (1 << 31) - 1, whole < -126, never)

    def _override_sum(self, product, replace):
        """x * y + z of fp32 operands."""
        ctl, a, b, c = self.i_control, self.a, self.b, self.c
        by_b, z_c, z_b = ctl.y == Y.SIG, ctl.z == Z.C, ctl.z == Z.B
        z_inf = z_c & c.infinite | z_b & b.infinite
        z_nan = z_c & c.nan | z_b & b.nan
        infinite = a.infinite | b.infinite & by_b
        bad = by_b & (a.infinite & b.zero | a.zero & b.infinite | b.nan)
        invalid = a.nan | bad | z_nan | infinite & z_inf & (product ^ self.o_sz)
        replace(invalid, infinite | z_inf, Const(0, 1), Mux(infinite, product, self.o_sz))
