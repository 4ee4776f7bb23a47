"""The part of a VECTOR lane without multiplier and tables: words, comparisons, shifts, rounding.

Stage 1 holds the operands (canonical for float operations), stage 2 does all but sums: a result is
p or q by a flag, p + q, or NaN; stage 3 finishes.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.float import NAN, flush, normalize, wire
from tilewright.hw.vector_control import LAYOUT, Basic, Order

ONE = 0x3F800000


class BasicPart(wiring.Component):
    """Stages 1 to 3 of these operations.

    Members
    -------
    i_a, i_b, i_c : operands, in stage 1
    i_control : `LAYOUT`, each field in its stage
    o_word : register of stage 3
    """

    def __init__(self):
        super().__init__(
            {
                "i_a": In(32),
                "i_b": In(32),
                "i_c": In(32),
                "i_control": In(LAYOUT),
                "o_word": Out(32),
            }
        )

    def elaborate(self, platform):
        m, ctl = Module(), self.i_control
        a, b, c, p, q, word = (Signal(32, name=n, reset_less=True) for n in
                               ("a1", "b1", "c1", "p2", "q2", "word3"))  # fmt: skip
        nan_a, nan_b, nan, pick, carry = (
            Signal(name=n, reset_less=True) for n in ("nan_a1", "nan_b1", "nan2", "pick2", "carry2")
        )
        is_float = ctl.order == Order.FLOAT
        with m.If(ctl.basic):
            for register, invalid, v in ((a, nan_a, self.i_a), (b, nan_b, self.i_b)):
                special = (v[23:31] == 255) & v[0:23].any()
                canonical = Mux(special, NAN, flush(v))
                m.d.sync += register.eq(Mux(is_float, canonical, v))
                m.d.sync += invalid.eq(is_float & special)
            m.d.sync += c.eq(self.i_c)

        values = self._second(m, a, b, c, nan_a, nan_b)
        with m.If(ctl.basic2):
            m.d.sync += [r.eq(v) for r, v in zip((p, q, pick, carry, nan), values, strict=True)]

        total = wire(m, (p + q + carry)[0:32], "total")
        total = Mux(ctl.bf16_3, Cat(Const(0, 16), total[16:32]), total)
        with m.If(ctl.basic3):
            m.d.sync += word.eq(Mux(nan, NAN, Mux(ctl.sum3, total, Mux(pick, p, q))))
        m.d.comb += self.o_word.eq(word)
        return m

    def _second(self, m, a, b, c, nan_a, nan_b):
        """What stage 2 registers: p, q, whether p is picked, carry into p + q, NaN."""
        ctl = self.i_control
        p, q, pick, carry, nan = (
            Signal(s, name=n)
            for s, n in ((32, "p"), (32, "q"), (1, "pick"), (1, "carry"), (1, "nan"))
        )
        less, equal = self._compare(m, a, b)
        is_float = ctl.order2 == Order.FLOAT
        zeros = is_float & (a[0:31] == 0) & (b[0:31] == 0)
        test = {
            Basic.LESS: less & ~zeros,
            Basic.LESS_EQUAL: less | equal | zeros,
            Basic.EQUAL: equal | zeros,
        }
        either = wire(m, nan_a | nan_b, "either")
        m.d.comb += [p.eq(a), q.eq(b), pick.eq(1)]
        with m.Switch(ctl.op):
            with m.Case(Basic.SELECT):
                m.d.comb += [p.eq(b), q.eq(c), pick.eq(a != 0)]
            with m.Case(Basic.SUM):
                m.d.comb += [q.eq(b ^ ctl.variant[0].replicate(32)), carry.eq(ctl.variant[0])]
            for op, value in test.items():
                with m.Case(op):
                    m.d.comb += [p.eq(1), q.eq(0), pick.eq(value & ~either)]
            with m.Case(Basic.MIN, Basic.MAX):
                m.d.comb += [pick.eq(less ^ (ctl.op == Basic.MAX)), nan.eq(either)]
            with m.Case(Basic.LOGIC):
                m.d.comb += p.eq(Mux(ctl.variant == 0, a & b, Mux(ctl.variant == 1, a | b, a ^ b)))
            with m.Case(Basic.SHIFT):
                m.d.comb += p.eq(self._shifted(m, a, b))
            with m.Case(Basic.COUNT):
                m.d.comb += p.eq(Mux(ctl.variant[0], self._ones(a), self._leading(m, a)))
            with m.Case(Basic.ROUND):
                kept, step = self._rounded(m, a)
                m.d.comb += [p.eq(kept), q.eq(step)]
            with m.Case(Basic.SIGN):
                unit = Mux(a[0:31] == 0, a[0:31], ONE)
                sign = a[31] & ~ctl.variant[0] ^ (ctl.variant == 0)
                m.d.comb += [
                    p.eq(Cat(Mux(ctl.variant[1], unit, a[0:31])[0:31], sign)),
                    nan.eq(nan_a),
                ]
            with m.Case(Basic.BF16):
                m.d.comb += [q.eq(0x7FFF), carry.eq(a[16] & ~nan_a)]
        return p, q, pick, carry, nan

    def _compare(self, m, a, b):
        """a < b and a == b in the order of the operands' type."""
        order = self.i_control.order2

        def key(x, name):
            flip = (order == Order.FLOAT) & x[31]
            top = x[31] ^ (order != Order.UNSIGNED)
            return wire(m, Cat(x[0:31] ^ flip.replicate(31), top), name)

        ka, kb = key(a, "key_a"), key(b, "key_b")
        return wire(m, ka < kb, "less"), wire(m, ka == kb, "equal")

    def _shifted(self, m, a, b):
        """shl, shr, sar: one shifter to the right, the word reversed for shl."""
        left, arithmetic = self.i_control.variant == 0, self.i_control.variant[1]
        word = Mux(left, Cat(*reversed([a[i] for i in range(32)])), a)
        fill = wire(m, arithmetic & a[31], "fill")
        wide = wire(m, Cat(word, fill).as_signed(), "shift_in").as_signed()
        moved = wire(m, (wide >> b[0:5])[0:32], "shifted")
        moved = Mux(b[5:32].any(), fill.replicate(32), moved)
        return Mux(left, Cat(*reversed([moved[i] for i in range(32)])), moved)

    def _leading(self, m, a):
        shifted, zeros = normalize(m, a, "clz")
        return Mux(shifted[31], zeros, 32)

    def _ones(self, a):
        """Number of ones, by a tree of adders."""
        terms = [a[i] for i in range(32)]
        while len(terms) > 1:
            terms = [x + y for x, y in zip(terms[::2], terms[1::2], strict=True)]
        return terms[0]

    def _rounded(self, m, a):
        """Floor or round: the word without its fraction, and what is to be added to it."""
        nearest, e, sign = self.i_control.variant[0], a[23:31], a[31]
        small = e < 127
        places = wire(m, Mux(e > 149, 0, 150 - e)[0:5], "places")  # of the fraction, if not small
        unit = wire(m, Cat(*(places == i for i in range(24))), "unit")
        mask = wire(m, Cat(*(places > i for i in range(23))), "mask")
        cut = wire(m, a[0:23] & mask, "cut")
        half = wire(m, mask ^ (mask >> 1), "half")
        beyond = (cut & ~half).any() | (a[0:24] & unit).any()
        up = Mux(nearest, (cut & half).any() & beyond, sign & cut.any())
        up_small = Mux(nearest, (e == 126) & (a[0:23] != 0), sign & (e != 0))
        kept = Mux(small, Cat(Const(0, 31), sign), Cat(a[0:23] & ~mask, a[23:32]))
        return kept, Mux(small, Mux(up_small, ONE, 0), Mux(up, unit, 0))
