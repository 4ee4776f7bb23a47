"""Properties of the queue, the register slice and the semaphores."""

from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Module, Mux, Signal
from amaranth.hdl._ir import Fragment
from amaranth.lib import data
from formal import Property
from mutate import mutant
from tilewright.isa.config import QUEUE_DEPTH, SEM_MAX, SEMAPHORES

COUNT = 12  # bits of a ghost count


#: Text added to a module under proof, so that its state can be named in an invariant.
SEE_QUEUE = (
    "        return m",
    "        self.spy = store.read_port(domain='comb')\n"
    "        self.state = level, w_at, r_at\n        return m",
)
SEE_SLICE = (
    "m.d.sync += [skid.eq(self.i_data), free.eq(0)]\n        return m",
    "m.d.sync += [skid.eq(self.i_data), free.eq(0)]\n        self.skid = skid\n        return m",
)


class Stream(Property):
    """First in, first out; nothing lost, nothing twice: the n-th out is the n-th in, for any n.

    The solver chooses n; what goes in as number n must come out as number n. Numbers count modulo
    2^COUNT, more than what can be inside.
    """

    DATA, COUNT = 2, 6

    def __init__(self, name, *changes):
        super().__init__()
        self.source = mutant(name, *changes)

    def order(self, m: Module, put, entry, get, value):
        """Number what goes in and out: returns n, what n was, and both counts."""
        n = self.constant(m, self.COUNT, "n")
        ins, outs = Signal(self.COUNT), Signal(self.COUNT)
        kept = Signal(self.DATA)
        m.d.sync += [ins.eq(ins + put), outs.eq(outs + get)]
        with m.If(put & (ins == n)):
            m.d.sync += kept.eq(entry)
        m.d.comb += Assert(~(get & (outs == n)) | (value == kept))
        m.d.comb += Assert(~get | (outs != ins))
        m.d.comb += Cover(get & (outs == n) & (n == 3) & (value == 1))
        return n, kept, ins, outs


class Queue(Stream):
    """hw.queue.Queue at its real depth: order, and the head's timing."""

    def __init__(self, *changes, depth=QUEUE_DEPTH):
        super().__init__("tilewright.hw.queue", SEE_QUEUE, *changes)
        self.depth = depth

    def build(self, m):
        dut = self.source.Queue(data.StructLayout({"v": self.DATA}), self.depth)
        m.submodules.dut = Fragment.get(dut, None)  # now, so that its state can be named
        inside, w_at, r_at = dut.state
        push, pop, entry = self.free(1, "push"), self.free(1, "pop"), self.free(self.DATA, "entry")
        m.d.comb += [dut.push.eq(push), dut.pop.eq(pop), dut.entry.v.eq(entry)]
        m.d.comb += [Assume(~(push & dut.full)), Assume(~pop | dut.valid)]
        n, kept, ins, outs = self.order(m, push, entry, pop, dut.head.v)
        level, ahead, place = (Signal(self.COUNT, name=x) for x in ("held", "ahead", "place"))
        m.d.comb += [
            level.eq(ins - outs),
            Assert(level <= self.depth + 1),
            Assert(dut.empty == (level == 0)),
            Assert(~dut.full | (level >= self.depth)),
            Assert(dut.full | (level <= self.depth)),
            Cover(dut.full & dut.valid),
        ]
        # an entry pushed at d is at the head from max(d + 2, the last pop + 1)
        before = Signal(self.COUNT)  # those that were there, without what was just pushed
        m.d.sync += before.eq(level - pop)
        m.d.comb += Assert(dut.valid == (before != 0))
        # the invariant behind it: where entry n is, and that it is n
        m.d.comb += [
            ahead.eq(outs + dut.valid),  # number of the oldest in the memory
            place.eq(n - ahead),
            dut.spy.addr.eq(n),
            Assert(level == inside + dut.valid),
            Assert(w_at == ins[: len(w_at)]),
            Assert(r_at == ahead[: len(r_at)]),
            Assert((place >= inside) | (dut.spy.data == kept)),
            Assert(~dut.valid | (outs != n) | (dut.head.v == kept)),
        ]


class Slice(Stream):
    """hw.axi.Slice: order; valid and payload stay until they are taken."""

    def __init__(self, *changes):
        super().__init__("tilewright.hw.axi", SEE_SLICE, *changes)

    def build(self, m):
        dut = self.source.Slice(self.DATA)
        m.submodules.dut = Fragment.get(dut, None)  # now, so that its state can be named
        i_valid, o_ready = self.free(1, "i_valid"), self.free(1, "o_ready")
        entry = self.free(self.DATA, "entry")
        m.d.comb += [dut.i_valid.eq(i_valid), dut.o_ready.eq(o_ready), dut.i_data.eq(entry)]
        put, get = i_valid & dut.i_ready, dut.o_valid & o_ready
        n, kept, ins, outs = self.order(m, put, entry, get, dut.o_data)
        level, held, refused = Signal(self.COUNT), Signal(self.DATA), Signal()
        m.d.sync += [refused.eq(dut.o_valid & ~o_ready), held.eq(dut.o_data)]
        m.d.comb += [
            level.eq(ins - outs),
            Assert(level <= 2),
            Assert(dut.o_valid == (level != 0)),
            Assert(dut.i_ready == (level != 2)),
            Assert(~refused | (dut.o_valid & (dut.o_data == held))),
            Assert(~dut.o_valid | (outs != n) | (dut.o_data == kept)),
            Assert((level != 2) | ((outs + 1)[: self.COUNT] != n) | (dut.skid == kept)),
            Cover(level == 2),
        ]


class Tokens(Property):
    """hw.semaphores.Semaphores: a count is exactly what was added less what was taken.

    For any one semaphore `s`, under the contract that no take exceeds the count and at most one
    take of a cycle is on `s`. A count that passes SEM_MAX says `overflow`.
    """

    SIGNALS, TAKES = 8, 9  # as in hw.issue

    def __init__(self, *changes, sem=SEMAPHORES - 1):
        super().__init__()
        self.source, self.sem = mutant("tilewright.hw.semaphores", *changes), sem

    def build(self, m):
        m.submodules.dut = dut = self.source.Semaphores(self.SIGNALS, self.TAKES, reads=1)
        s = self.sem
        take, takers = Const(0, COUNT), []

        def access(kind, i=None):
            """Drive one access; returns whether it is on `s`."""
            part = (lambda n: getattr(dut, n)) if i is None else (lambda n: getattr(dut, n)[i])
            en, sem = self.free(1, f"{kind}_en{i}"), self.free(5, f"{kind}_sem{i}")
            m.d.comb += [part(f"{kind}_en").eq(en), part(f"{kind}_sem").eq(sem)]
            return en & (sem == s)

        added = sum(access("signal", i) for i in range(self.SIGNALS))
        post_n = self.free(len(dut.post_n), "post_n")
        m.d.comb += [dut.read_sem[0].eq(s), dut.post_n.eq(post_n)]
        posted = Mux(access("post"), post_n, 0)
        for i in range(self.TAKES):
            n = self.free(len(dut.take_n[i]), f"take_n{i}")
            m.d.comb += dut.take_n[i].eq(n)
            takers.append(access("take", i))
            take = Mux(takers[-1], n, take)
        alone = [~(a & b) for i, a in enumerate(takers) for b in takers[i + 1 :]]
        ghost, after = Signal(COUNT), Signal(COUNT)  # all that came in less all that was taken
        m.d.sync += ghost.eq(after)
        m.d.comb += [
            after.eq(ghost + added + posted - take),
            Assume(Cat(alone).all()),
            Assume(take <= ghost),
            Assume(after <= SEM_MAX),  # a program that overflows is stopped
            Assert(dut.read[0] == ghost),
            Cover((ghost > 200) & (take > 100) & (added == 5)),
        ]


class Overflow(Property):
    """hw.semaphores: `overflow` says a cycle later that a count passed SEM_MAX; it stays there."""

    def __init__(self, *changes, sem=SEMAPHORES - 1):
        super().__init__()
        self.source, self.sem = mutant("tilewright.hw.semaphores", *changes), sem

    def build(self, m):
        m.submodules.dut = dut = self.source.Semaphores(2, 1, reads=1)
        en, n, one, two = (self.free(w, x) for w, x in ((1, "en"), (8, "n"), (1, "a"), (1, "b")))
        after, over, expected = Signal(COUNT), Signal(), Signal(8)
        s = self.sem
        m.d.sync += [over.eq(after > SEM_MAX), expected.eq(Mux(after > SEM_MAX, SEM_MAX, after))]
        m.d.comb += [
            *(port.eq(s) for port in (*dut.read_sem, *dut.signal_sem, dut.post_sem)),
            *(port.eq(x) for port, x in zip(dut.signal_en, (one, two), strict=True)),
            dut.post_en.eq(en),
            dut.post_n.eq(n),
            after.eq(expected + one + two + Mux(en, n, 0)),
            Assert(dut.overflow == over),
            Assert(dut.read[0] == expected),
            Cover(over),
        ]
