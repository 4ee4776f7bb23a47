"""VECTOR's lanes: `dim` ALUs that run one operation, and the movement between them.

`const`, `rotate` and `broadcast` go through the ALUs as `mov`; what they move between lanes they
move behind them, in a butterfly of log2(dim) stages: in stage k a lane keeps its word, or takes
that of lane i + 2^k (rotate), or of lane i xor 2^k (broadcast).
"""

from amaranth.hdl import Cat, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.float import delay, wire
from tilewright.hw.vector_alu import VectorLane
from tilewright.hw.vector_control import VectorControl
from tilewright.isa.micro import OPERATIONS
from tilewright.isa.timing import VECTOR_ALU_LATENCY

_ROTATE, _BROADCAST = OPERATIONS["rotate"][0], OPERATIONS["broadcast"][0]


class VectorLanes(wiring.Component):
    """The lanes of one row.

    Parameters
    ----------
    dim : lanes.

    **Members**

    i_valid, i_op, i_n : In
        An operation other than `nop`; one cycle before its operands.
    i_a, i_b, i_c : In(32 * dim)
        Its operands.
    o_valid, o_result : Out
        An operation that is none gives no result.

    **Timing** : VECTOR_ALU_LATENCY cycles from the operands on, one operation per cycle.
    """

    def __init__(self, dim: int):
        self.dim = dim
        words = {f"i_{n}": In(32 * dim) for n in "abc"}
        super().__init__(
            {"i_valid": In(1), "i_op": In(7), "i_n": In(5), "o_valid": Out(1)}
            | words
            | {"o_result": Out(32 * dim)}
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.control = control = VectorControl()
        m.d.comb += [
            control.i_valid.eq(self.i_valid),
            control.i_op.eq(self.i_op),
            control.i_n.eq(self.i_n),
            self.o_valid.eq(control.o_valid),
        ]
        results = []
        for i in range(self.dim):
            m.submodules[f"lane{i}"] = lane = VectorLane()
            at = slice(32 * i, 32 * i + 32)
            m.d.comb += lane.i_control.eq(control.o_stage)
            m.d.comb += [getattr(lane, f"i_{n}").eq(getattr(self, f"i_{n}")[at]) for n in "abc"]
            results.append(lane.o_q)
        age = VECTOR_ALU_LATENCY + 1
        rotates = delay(m, "sync", self.i_op == _ROTATE, age, "rotates")
        spreads = delay(m, "sync", self.i_op == _BROADCAST, age, "spreads")
        n = delay(m, "sync", self.i_n, age, "n")
        for k in range(self.dim.bit_length() - 1):
            step = 1 << k
            further = wire(m, rotates & n[k], f"further{k}")
            moved = []
            for i, word in enumerate(results):
                exchanged = spreads & (n[k] ^ (i >> k & 1))
                word = Mux(exchanged, results[i ^ step], word)
                word = Mux(further, results[(i + step) % self.dim], word)
                moved.append(wire(m, word, f"w{k}_{i}"))
            results = moved
        m.d.comb += self.o_result.eq(Cat(results))
        return m
