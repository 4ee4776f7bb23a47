"""Movement between VECTOR's lanes: rotate, broadcast, and the exchange that reductions need.

One butterfly of log2(dim) stages does all three: in stage k a lane keeps its word, or takes that of
the lane 2^k further, or that of lane i xor 2^k. A ``lanes_*`` operation is log2(dim) ordinary
operations on a and the a of lane i xor 2^k, k ascending: a tree over neighbours whose result all
lanes have, because the operations commute bit by bit. It needs no adders of its own.
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.float import wire
from tilewright.isa.micro import OPERATIONS

_LANES = [code for name, (code, _) in OPERATIONS.items() if name.startswith("lanes_")]
_ROTATE, _BROADCAST = OPERATIONS["rotate"][0], OPERATIONS["broadcast"][0]


class VectorRoute(wiring.Component):
    """Operands of all lanes, moved as the operation asks.

    Members
    -------
    i_valid : an operation is there; without one the outputs rest
    i_op, i_n : its fields
    i_step : k of step k of a ``lanes_*`` operation
    i_a, i_b, i_c : (dim x 32) operands
    o_a : a, rotated by n or lane n's to all
    o_b : b; for ``lanes_*`` the a of lane i xor 2^k
    o_c : c

    **Timing** : `VECTOR_ROUTE_LATENCY` = 1 cycle.
    """

    def __init__(self, dim):
        self.dim = dim
        words = {f"{way}_{x}": dim * 32 for way in "io" for x in "abc"}
        super().__init__(
            {"i_valid": In(1), "i_op": In(7), "i_n": In(5), "i_step": In(3)}
            | {k: (In if k[0] == "i" else Out)(v) for k, v in words.items()}
        )

    def elaborate(self, platform):
        m, bits = Module(), self.dim.bit_length() - 1
        rotate = wire(m, self.i_op == _ROTATE, "rotate")
        broadcast = wire(m, self.i_op == _BROADCAST, "broadcast")
        lanes = Signal()
        with m.Switch(self.i_op), m.Case(*_LANES):
            m.d.comb += lanes.eq(1)
        moved = [self.i_a[32 * i : 32 * i + 32] for i in range(self.dim)]
        for k in range(bits):
            further = wire(m, rotate & self.i_n[k], f"further{k}")
            step = wire(m, lanes & (self.i_step == k), f"step{k}")
            words = []
            for i, word in enumerate(moved):
                exchange = step | broadcast & (self.i_n[k] ^ (i >> k & 1))
                word = Mux(exchange, moved[i ^ 1 << k], word)
                word = Mux(further, moved[(i + (1 << k)) % self.dim], word)
                words.append(wire(m, word, f"w{k}_{i}"))
            moved = words
        a, b, c = (Signal(self.dim * 32, name=n, reset_less=True) for n in ("a", "b", "c"))
        with m.If(self.i_valid):
            m.d.sync += [
                a.eq(Mux(lanes, self.i_a, Cat(*moved))),
                b.eq(Mux(lanes, Cat(*moved), self.i_b)),
                c.eq(self.i_c),
            ]
        m.d.comb += [self.o_a.eq(a), self.o_b.eq(b), self.o_c.eq(c)]
        return m
