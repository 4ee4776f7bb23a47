"""Properties of the issue module: ports are exclusive, nobody starves, tokens are conserved.

The queues and the semaphores are cut away: a head is any instruction that stays until it leaves,
a count is any number. Both have proofs of their own (`properties_small`). So the issue module is
shown right for every program, not only for those that fit a bounded run. Items in flight are
limited to FLIGHT for each unit, less than in the chip.
"""

from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Module, Mux, Signal
from amaranth.hdl._ir import Fragment
from formal import Property
from mutate import mutant
from tilewright.hw import queue, semaphores
from tilewright.isa.config import BANKS

FLIGHT = 2
UNITS = ("load", "matmul", "vector", "store")
PORTS = ("spad_r", "spad_w", "acc_r", "acc_w")
#: docs/microarchitecture.md §2: what an item takes, and what frees it.
TAKES = {
    "load": {
        "spad_r": (("spad_r",), "read"),
        "spad_w": (("spad_w",), "done"),
        "acc_w": (("acc_w",), "done"),
    },
    "matmul": {"spad_r": (("spad_r",), "read"), "acc": (("acc_r", "acc_w"), "done")},
    "vector": {
        "spad_r": (("spad_r",), "read"),
        "acc_r": (("acc_r",), "read"),
        "spad_w": (("spad_w",), "done"),
        "acc_w": (("acc_w",), "done"),
    },
    "store": {
        "spad_r": (("spad_r",), "read"),
        "acc_r": (("acc_r",), "read"),
        "spad_w": (("spad_w",), "done"),
    },
}


#: Text added to the module under proof, so that its state can be named in an invariant.
SEE = (
    (
        "        held = {}\n        for mask, kind in kinds.items():",
        "        spies = [ring.read_port(domain='comb') for _ in range(2 * INFLIGHT)]\n"
        "        SPY[name] = lane, spies, write_at, read_at, done_at, count\n"
        "        held = {}\n        for mask, kind in kinds.items():",
    ),
    ("    return Cat(counts[b * bits", "    SPY[name] = counts\n    return Cat(counts[b * bits"),
)


class AnyQueue(queue.Queue):
    """In the place of a queue: any head at any time, which stays until it leaves."""

    def __init__(self, prop, layout, depth):
        super().__init__(layout, depth)
        self.stays = Signal()
        self.arrives = prop.free(1, f"arrives{len(prop.queues)}")
        self.fresh = prop.free(layout.size, f"fresh{len(prop.queues)}")
        prop.queues.append(self)

    def elaborate(self, platform):
        m = Module()
        kept = Signal(len(self.fresh))
        fields = Mux(self.stays, kept, self.fresh)
        m.d.comb += [self.valid.eq(self.stays | self.arrives), self.head.eq(fields)]
        m.d.comb += self.empty.eq(~self.valid)
        m.d.sync += [self.stays.eq(self.valid & ~self.pop), kept.eq(fields)]
        return m


class AnySemaphores(semaphores.Semaphores):
    """In the place of the semaphores: any counts, the same for the same semaphore; 0 is >= 0."""

    def __init__(self, prop, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.counts = [prop.free(len(r), f"count{i}") for i, r in enumerate(self.read)]
        prop.semaphores = self

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [r.eq(c) for r, c in zip(self.read, self.counts, strict=True)]
        for i, a in enumerate(self.read_sem):
            for b, other in zip(self.read_sem[:i], self.counts[:i], strict=True):
                m.d.comb += Assume((a != b) | (self.counts[i] == other))
        return m


class Lane:
    """A unit as seen from outside, and the ghost of what it holds."""

    def __init__(self, prop, m, dut, name):
        self.name, unit = name, getattr(dut, name)
        self.queue = prop.queues[UNITS.index(name)]
        self.head, self.start = self.queue.head, unit.start
        self.ready = prop.free(1, f"{name}_ready")
        self.read, self.done = prop.free(1, f"{name}_read"), prop.free(1, f"{name}_done")
        self.unread, self.undone = (Signal(range(FLIGHT + 1), name=f"{name}_{k}") for k in "rd")
        m.d.sync += [
            self.unread.eq(self.unread + self.start - self.read),
            self.undone.eq(self.undone + self.start - self.done),
        ]
        m.d.comb += [
            unit.ready.eq(self.ready),
            unit.read_release.eq(self.read),
            unit.done.eq(self.done),
            Assume(~self.ready | (self.undone < FLIGHT)),
            Assume(~self.read | (self.unread != 0)),
            Assume(~self.done | (self.undone > self.unread) | (self.read & (self.unread != 0))),
        ]
        if name == "matmul":
            self.last, self.blocked = prop.free(1, "last"), prop.free(1, "blocked")
            masks = {k: prop.free(BANKS, f"front_{k}") for k in ("spad_r", "acc")}
            m.d.comb += [dut.front.last.eq(self.last), dut.front.blocked.eq(self.blocked)]
            m.d.comb += [getattr(dut.front, k).eq(v) for k, v in masks.items()]
        else:
            self.last, self.blocked = Const(1), Const(0)
            masks = {k: self.head.masks[k] for k in TAKES[name]}
        self.masks = masks

        self.inside, self.spies, write_at, read_at, done_at, in_flight = prop.source.SPY[name]
        self.at = {"read": read_at, "done": done_at}
        m.d.comb += [
            Assert(in_flight == self.undone),
            Assert(self.undone >= self.unread),
            Assert(self.undone <= FLIGHT),
            Assert(write_at == (read_at + self.unread)[: len(write_at)]),
            Assert(write_at == (done_at + self.undone)[: len(write_at)]),
        ]
        self.rows = {
            kind: [self._row(m, at, i) for i in range(FLIGHT)] for kind, at in self.at.items()
        }

    def _row(self, m, at, i):
        """What the ring holds for the i-th oldest item."""
        port = self.spies.pop()
        m.d.comb += port.addr.eq(at + i)
        return port.data

    def flight(self, m, value, kind, name, stored):
        """Values of the items in flight, oldest first, 0 beyond; `kind` says what removes one.

        `stored` gives the same value from the ring's row: the invariant of an induction.
        """
        leaves, count = (self.read, self.unread) if kind == "read" else (self.done, self.undone)
        items = [Signal(len(value), name=f"{self.name}_{name}{i}") for i in range(FLIGHT)]
        after = [Mux(leaves, b, a) for a, b in zip(items, [*items[1:], 0], strict=True)]
        for i, item in enumerate(items):
            enters = self.start & (count - leaves == i)
            m.d.sync += item.eq(Mux(enters, value, after[i]))
            m.d.comb += Assert(item == Mux(count > i, stored(self.rows[kind][i]), 0))
        return items

    def by_port(self, masks):
        """32 bits, in PORTS order."""
        port = dict.fromkeys(PORTS, Const(0, BANKS))
        for mask, (ports, _) in TAKES[self.name].items():
            port |= dict.fromkeys(ports, masks[mask])
        return Cat(port.values())


class Issue(Property):
    """The issue module with queues and semaphores cut away."""

    def __init__(self, *changes):
        super().__init__()
        self.queues = []
        self.source = mutant("tilewright.hw.issue", *SEE, *changes)
        self.source.SPY = {}
        self.source.INFLIGHT = FLIGHT
        self.source.Queue = lambda *args: AnyQueue(self, *args)
        self.source.Semaphores = lambda *args, **kw: AnySemaphores(self, *args, **kw)

    def build(self, m):
        dut = self.source.Issue()
        m.submodules.dut = Fragment.get(dut, None)  # now, so that its parts can be named
        self.hold = self.free(1, "hold")  # an alarm keeps back what has not started
        m.d.comb += dut.hold.eq(self.hold)
        self.dut, self.lanes = dut, [Lane(self, m, dut, name) for name in UNITS]
        self.claim(m)


class Ports(Issue):
    """No two units hold one port of one bank; the oldest is served; nobody overtakes.

    Waits are for 0 tokens here: any pattern of requests comes from the units' `ready`.
    """

    def claim(self, m):
        lanes = self.lanes
        for a in lanes:
            sync = a.head.sync
            m.d.comb += Assume((sync.wait0_n == 0) & (sync.wait1_n == 0))
            held = {}
            for mask, (_, kind) in TAKES[a.name].items():
                items = a.flight(m, a.masks[mask], kind, mask, lambda row, k=mask: row.masks[k])
                each = [Cat(item[b] for item in items) for b in range(BANKS)]
                held[mask] = Cat(bits.any() for bits in each)
                counts = self.source.SPY[f"{a.name}_{mask}"]
                wide = len(counts) // BANKS
                m.d.comb += [
                    Assert(counts[b * wide : (b + 1) * wide] == sum(bits))
                    for b, bits in enumerate(each)
                ]
            a.held, a.wants = Signal(32, name=f"{a.name}_held"), Signal(32, name=f"{a.name}_wants")
            a.request = Signal(name=f"{a.name}_request")
            m.d.comb += [
                a.held.eq(a.by_port(held)),
                a.wants.eq(a.by_port(a.masks)),
                a.request.eq(a.queue.stays & a.ready),  # a head asks from its second cycle on
                Assert(a.inside.ok == a.queue.stays),
                Assert(~a.start | (a.request & ~self.hold)),
            ]
        for a in lanes:
            others = [b for b in lanes if b is not a]
            older = [b.request & (b.head.id < a.head.id) for b in others]
            free = [(a.wants & b.held) == 0 for b in others]
            m.d.comb += Assert(
                ~a.request | a.blocked | self.hold | Cat(older).any() | ~Cat(free).all() | a.start
            )
            for b in others:
                m.d.comb += [
                    Assume(~(a.queue.valid & b.queue.valid) | (a.head.id != b.head.id)),
                    Assert((a.held & b.held) == 0),
                    Assert(
                        ~(a.request & b.start & (a.head.id < b.head.id))
                        | ((a.wants & b.wants) == 0)
                    ),
                ]
        load, matmul, vector, store = lanes
        both = (matmul.held[:8] != 0) & (store.held[:8] != 0) & (load.held[8:16] != 0)
        m.d.comb += [Cover(both), Cover(load.request & ~load.start & store.start)]
        m.d.comb += Cover((vector.held[24:] != 0) & matmul.start & load.start)


class Conserved(Issue):
    """What the issue module tells the semaphores is exactly what the instructions say.

    For any semaphore s: signals on it are those of the items whose pulse comes in this cycle (last
    pass only), takes are the waits of the instruction that starts (first pass only), and no take
    exceeds the count. With `properties_small.Tokens`: no token is lost or invented.
    """

    def claim(self, m):
        s, sems = self.constant(m, 5, "s"), self.semaphores
        # the semaphores' read ports: two for each unit; the sequencer's is silent here
        want_in, want_out = [], []
        for i, a in enumerate(self.lanes):
            sync, first = a.head.sync, Signal(init=1, name=f"{a.name}_is_first")
            with m.If(a.start):
                m.d.sync += first.eq(a.last)
            for kind in ("rd", "done"):
                on = sync[f"{kind}_en"] & a.last & (sync[f"{kind}_sem"] == s)
                pulse = a.read if kind == "rd" else a.done
                items = a.flight(
                    m, on, "read" if kind == "rd" else "done", f"{kind}_on",
                    lambda row, k=kind: row[f"{k}_en"] & (row[f"{k}_sem"] == s),
                )  # fmt: skip
                want_in.append(pulse & items[0])
            begins = a.start & first
            waits = [(sync[f"wait{j}"] == s, sync[f"wait{j}_n"]) for j in (0, 1)]
            need = sum(Mux(on, n, 0) for on, n in waits)
            want_out.append(Mux(begins, need, 0))
            ok, enough = a.inside.ok, sems.read[2 * i] >= sync.wait0_n
            both = sync.wait1_n + Mux(sync.wait0 == sync.wait1, sync.wait0_n, 0)
            m.d.comb += [
                Assert(first == a.inside.first),
                Assert(~ok | (a.queue.stays & enough & (sems.read[2 * i + 1] >= both))),
            ]
            # a unit is the only one that takes from its semaphores: the count does not fall
            for j in (0, 1):
                read, before = sems.read[2 * i + j], Signal(8, name=f"{a.name}_before{j}")
                m.d.sync += before.eq(read)
                m.d.comb += Assume(~a.queue.stays | (read >= before))
                m.d.comb += Assert(~begins | (sync[f"wait{j}"] != s) | (need <= read))
        signals = [en & (sem == s) for en, sem in zip(sems.signal_en, sems.signal_sem, strict=True)]
        takes = [
            en & (sem == s) & (n != 0)
            for en, sem, n in zip(sems.take_en, sems.take_sem, sems.take_n, strict=True)
        ]
        told = [Mux(on, n, 0) for on, n in zip(takes, sems.take_n, strict=True)]
        self.takes(m, takes, s)
        m.d.comb += [
            Assert(sum(signals) == sum(want_in)),
            Assert(sum(told) == sum(want_out)),
            Cover(sum(signals) == 3),
            Cover(sum(told) == 5),
        ]

    def takes(self, m, takes, s):
        """One waiting unit for each semaphore: then no two takes of one cycle meet."""
        owner = self.constant(m, range(len(self.lanes)), "owner")
        for i, a in enumerate(self.lanes):
            sync = a.head.sync
            for j in (0, 1):
                mine = (sync[f"wait{j}"] != s) | (sync[f"wait{j}_n"] == 0) | (owner == i)
                m.d.comb += Assume(mine)
        for i, one in enumerate(takes):
            for two in takes[i + 1 :]:
                m.d.comb += Assert(~(one & two))
