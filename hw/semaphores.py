"""The counting semaphores.

Counts are kept in planes: plane k holds bit k of all 32 counts, so that one adder of 32-bit
operations updates all of them at once. In gates this is the ripple-carry adder that each count has
anyway; a simulator does it in a fraction of the operations.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.isa.config import SEM_MAX, SEMAPHORES

COUNT_BITS = SEM_MAX.bit_length()
_PLANES = COUNT_BITS + 2  # of a count with everything added


class Semaphores(wiring.Component):
    """All counts, with every access that one cycle can have.

    Parameters
    ----------
    signals, takes, reads : how many of each.

    **Members**

    signal_en, signal_sem : In
        Add 1, for each of `signals`.
    post_en, post_sem, post_n : In
        Add n.
    take_en, take_sem, take_n : In
        Subtract n, for each of `takes`. Counts must be high enough, and no two takes of one cycle
        on one semaphore (a legal program has one waiting unit for each).
    read_sem, read : In, Out
        The count of a semaphore, for each of `reads`.
    clear : In(1)
        All counts become 0.
    over : Out(32)
        Counts that went above SEM_MAX in the cycle before; they stay there.
    overflow : Out(1)
        There is one.

    **Timing** : an access at t is seen in `read` from t + 1; `read` is combinational in `read_sem`.
    """

    def __init__(self, signals: int, takes: int, reads: int):
        self.signals, self.takes, self.reads = signals, takes, reads
        super().__init__(
            {
                "signal_en": In(1).array(signals),
                "signal_sem": In(5).array(signals),
                "post_en": In(1),
                "post_sem": In(5),
                "post_n": In(COUNT_BITS),
                "take_en": In(1).array(takes),
                "take_sem": In(5).array(takes),
                "take_n": In(COUNT_BITS + 1).array(takes),
                "read_sem": In(5).array(reads),
                "read": Out(COUNT_BITS).array(reads),
                "clear": In(1),
                "over": Out(SEMAPHORES),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # one register, which rests with the adders while nothing is added
        state = Signal(SEMAPHORES * (COUNT_BITS + 1), name="state")
        counts = [state[SEMAPHORES * k :][:SEMAPHORES] for k in range(COUNT_BITS)]
        for sem, value in zip(self.read_sem, self.read, strict=True):
            m.d.comb += value.eq(Cat(plane.bit_select(sem, 1) for plane in counts))

        hot = [
            self._hot(m, f"signal{i}", self.signal_en[i], self.signal_sem[i])
            for i in range(self.signals)
        ]
        post = self._planes(m, "post", self.post_en, self.post_sem, self.post_n)
        taken = [Const(0, SEMAPHORES)] * len(self.take_n[0])
        for i in range(self.takes):
            one = self._planes(m, f"take{i}", self.take_en[i], self.take_sem[i], self.take_n[i])
            taken = [a | b for a, b in zip(taken, one, strict=True)]
        total = [*counts, Const(0, SEMAPHORES), Const(0, SEMAPHORES)]
        total = self._add(m, "signalled", total, self._ones(m, hot))
        total = self._add(m, "posted", total, post)
        total = self._add(m, "left", total, taken, subtract=True)

        over = Signal(SEMAPHORES, name="over_now")
        m.d.comb += over.eq(total[COUNT_BITS] | total[COUNT_BITS + 1])
        moving = Cat(*self.signal_en, self.post_en, *self.take_en).any()
        with m.If(self.clear):
            m.d.sync += state.eq(0)
        with m.Elif(moving):
            m.d.sync += state.eq(Cat(*(plane | over for plane in total[:COUNT_BITS]), over))
        with m.Else():
            m.d.sync += state[SEMAPHORES * COUNT_BITS :].eq(0)
        m.d.comb += [
            self.over.eq(state[SEMAPHORES * COUNT_BITS :]),
            self.overflow.eq(self.over.any()),
        ]
        return m

    def _hot(self, m, name, en, sem):
        hot = Signal(SEMAPHORES, name=name)
        # 0 << X is X in a 4-state simulator, and `sem` may come from a queue that was never filled
        m.d.comb += hot.eq(Mux(en, Const(1) << sem, 0))
        return hot

    def _planes(self, m, name, en, sem, n):
        """The number `n` at one semaphore, 0 at the others."""
        hot = self._hot(m, name, en, sem)
        return [hot & bit.replicate(SEMAPHORES) for bit in n]

    def _ones(self, m, vectors):
        """Planes of how many of the one-bit vectors are set."""
        columns, planes = {0: list(vectors)}, []
        while columns.get(len(planes)):
            k = len(planes)
            column = columns[k]
            while len(column) > 1:
                a, b, *rest = column
                c = rest.pop(0) if rest else Const(0, SEMAPHORES)
                total = Signal(SEMAPHORES, name=f"ones_{k}_{len(column)}")
                carry = Signal(SEMAPHORES, name=f"ones_{k}_{len(column)}_carry")
                m.d.comb += [total.eq(a ^ b ^ c), carry.eq((a & b) | (a & c) | (b & c))]
                column = [*rest, total]
                columns.setdefault(k + 1, []).append(carry)
            planes.append(column[0])
        return planes[: len(vectors).bit_length()]

    def _add(self, m, name, total, amount, subtract=False):
        """Planes of `total` + (or -) `amount`; wraps at 2^_PLANES, which is never reached."""
        out, carry = [], Const(0, SEMAPHORES)
        for k, a in enumerate(total):
            b = amount[k] if k < len(amount) else Const(0, SEMAPHORES)
            plane = Signal(SEMAPHORES, name=f"{name}_{k}")
            following = Signal(SEMAPHORES, name=f"{name}_carry{k}")
            have = ~a if subtract else a
            m.d.comb += [
                plane.eq(a ^ b ^ carry),
                following.eq((have & b) | (have & carry) | (b & carry)),
            ]
            out.append(plane)
            carry = following
        return out
