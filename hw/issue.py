"""Issue: queues, heads, semaphores, the port arbiter, releases, and where the cycles went.

One instruction of each unit stands at its queue's head until its waits hold, the unit is ready and
all ports of its banks are free (docs/microarchitecture.md §2). MATMUL's head asks once for each
pass, with masks that its front gives. Semaphores and the arbiter live here, so that a decision
needs no signal from outside but the units' registered `ready`.
"""

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.dispatch import (
    ENTRY_MASKS,
    ID_BITS,
    PC,
    UNITS,
    DispatchSignature,
    SemaphoreSignature,
    entry,
)
from tilewright.hw.fetch import PC_BITS
from tilewright.hw.matmul_front import MatmulFrontSignature
from tilewright.hw.payload import UnitSignature
from tilewright.hw.queue import Queue
from tilewright.hw.semaphores import COUNT_BITS, Semaphores
from tilewright.isa.config import BANKS, QUEUE_DEPTH
from tilewright.isa.registers import CAUSES
from tilewright.isa.table import Unit

INFLIGHT = 32  # items of one unit that are granted and not done; the units' own limits are lower
PORTS = ("spad_r", "spad_w", "acc_r", "acc_w")

#: What an item holds: (mask, its ports, whether read_release or done frees it).
HOLDS = {
    "load": (
        ("spad_r", ("spad_r",), "read"),
        ("spad_w", ("spad_w",), "done"),
        ("acc_w", ("acc_w",), "done"),
    ),
    "matmul": (("spad_r", ("spad_r",), "read"), ("acc", ("acc_r", "acc_w"), "done")),
    "vector": (
        ("spad_r", ("spad_r",), "read"),
        ("acc_r", ("acc_r",), "read"),
        ("spad_w", ("spad_w",), "done"),
        ("acc_w", ("acc_w",), "done"),
    ),
    "store": (
        ("spad_r", ("spad_r",), "read"),
        ("acc_r", ("acc_r",), "read"),
        ("spad_w", ("spad_w",), "done"),
    ),
}


@dataclass
class _Lane:
    """The signals of one unit inside the issue module."""

    name: str
    unit: wiring.PureInterface
    queue: Queue
    ok: Signal
    holds: Signal  # both waits of the head hold
    request: Signal
    grant: Signal
    first: Signal
    last: Signal
    busy: Signal  # an item is granted and not done
    masks: dict  # of the head
    ports: Signal  # 4 * BANKS bits, the head's
    held: Signal  # 4 * BANKS bits, of items in flight

    @property
    def head(self):
        return self.queue.head


class Issue(wiring.Component):
    """The issue module.

    **Members**

    <unit> : Out(UnitSignature(unit))
        load, matmul, vector, store.
    front : Out(MatmulFrontSignature())
        Cuts MATMUL's head into passes.
    dispatch_<unit> : In(DispatchSignature(unit))
        From the sequencer.
    semaphore : In(SemaphoreSignature())
        For the sequencer's post and wait.
    run, clear : In(1)
        Count causes; set semaphores and counters to 0 (all quiet).
    oldest : Out(1 + PC_BITS)
        The pc of the oldest head, and whether there is a head.
    overflow, blame : Out(1), Out(PC)
        A semaphore's count went above SEM_MAX in the cycle before; it stays there. The instruction
        that signalled, if it is a unit's.
    hold : In(1)
        Nothing is granted.
    flying_<unit> : Out(PC)
        The oldest instruction that is granted and not done.
    head_<unit> : Out(PC)
        The queue's head.
    debug_sem, debug_count : In(5), Out(8)
        The count of a semaphore, for the host.
    counters : Out(32) array of 4 * 6
        For each `Unit` the causes in CAUSES order, then instructions.
    started, done, id_<unit> : Out(4), Out(4), Out(32)
        For the trace: instruction started, instruction done, id of the head.

    **Timing**

    Exactly docs/microarchitecture.md §2.
    """

    def __init__(self):
        members = {}
        for name in UNITS:
            members[name] = Out(UnitSignature(name))
            members[f"dispatch_{name}"] = In(DispatchSignature(name))
            members[f"id_{name}"] = Out(ID_BITS)
            members[f"flying_{name}"] = Out(PC)
            members[f"head_{name}"] = Out(PC)
        super().__init__(
            members
            | {
                "front": Out(MatmulFrontSignature()),
                "semaphore": In(SemaphoreSignature()),
                "run": In(1),
                "clear": In(1),
                "oldest": Out(PC),
                "overflow": Out(1),
                "blame": Out(PC),
                "hold": In(1),
                "debug_sem": In(5),
                "debug_count": Out(COUNT_BITS),
                "started": Out(4),
                "done": Out(4),
                "counters": Out(32).array(4 * (len(CAUSES) + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = [self._lane(m, name) for name in UNITS]
        self._arbiter(m, lanes)
        signals = [s for lane in lanes for s in self._flight(m, lane)]
        self._semaphores(m, lanes, signals)
        for lane in lanes:
            self._count(m, lane)
        return m

    def _counter(self, unit, cause):
        names = (*CAUSES, "instructions")
        return self.counters[unit * len(names) + names.index(cause)]

    def _lane(self, m, name):
        """Queue, head and request of one unit."""
        m.submodules[f"queue_{name}"] = queue = Queue(entry(name), QUEUE_DEPTH)
        unit, dispatch = getattr(self, name), getattr(self, f"dispatch_{name}")
        lane = _Lane(
            name,
            unit,
            queue,
            ok=Signal(name=f"{name}_ok"),
            holds=Signal(name=f"{name}_holds"),
            request=Signal(name=f"{name}_request"),
            grant=Signal(name=f"{name}_grant"),
            first=Signal(name=f"{name}_first", init=1),
            last=Signal(name=f"{name}_last"),
            busy=Signal(name=f"{name}_busy"),
            masks={p: queue.head.masks[p] for p in ENTRY_MASKS[name]},
            ports=Signal(4 * BANKS, name=f"{name}_ports"),
            held=Signal(4 * BANKS, name=f"{name}_held"),
        )
        if name == "matmul":
            front = self.front
            lane.masks = {"spad_r": front.spad_r, "acc": front.acc}
            m.d.comb += [
                front.head_valid.eq(queue.valid),
                front.head.eq(queue.head.instr),
                front.advance.eq(lane.grant),
                lane.last.eq(front.last),
            ]
        else:
            m.d.comb += lane.last.eq(1)
        m.d.comb += [
            queue.push.eq(dispatch.push),
            queue.entry.eq(dispatch.entry),
            queue.pop.eq(lane.grant & lane.last),
            queue.clear.eq(self.clear),
            dispatch.full.eq(queue.full),
            lane.request.eq(lane.ok & unit.ready),
            unit.start.eq(lane.grant),
            unit.instr.eq(queue.head.instr),
            getattr(self, f"id_{name}").eq(queue.head.id),
            getattr(self, f"head_{name}").pc.eq(queue.head.pc),
            getattr(self, f"head_{name}").exists.eq(queue.valid),
            self.started[Unit[name.upper()]].eq(lane.grant & lane.first),
        ]
        m.d.comb += lane.ports.eq(_by_port(name, lane.masks))
        with m.If(self.clear):
            m.d.sync += lane.first.eq(1)
        with m.Elif(lane.grant):
            m.d.sync += lane.first.eq(lane.last)
        return lane

    def _arbiter(self, m, lanes):
        """All ports or none; oldest first; a younger one takes nothing that an older one wants."""
        older = {}
        for i, a in enumerate(lanes):
            for b in lanes[i + 1 :]:
                before = Signal(name=f"{a.name}_before_{b.name}")
                m.d.comb += before.eq(a.head.id < b.head.id)
                older[a.name, b.name], older[b.name, a.name] = before, ~before
        for lane in lanes:
            others = [o for o in lanes if o is not lane]
            taken = Signal(4 * BANKS, name=f"{lane.name}_taken")
            wanted = [
                o.ports & (o.request & older[o.name, lane.name]).replicate(4 * BANKS)
                for o in others
            ]
            m.d.comb += taken.eq(_any([o.held for o in others] + wanted))
            blocked = self.front.blocked if lane.name == "matmul" else Const(0, 1)
            free = ~(lane.ports & taken).any() & ~blocked & ~self.hold
            m.d.comb += lane.grant.eq(lane.request & free)
            first = [~o.queue.valid | older[lane.name, o.name] for o in others]
            with m.If(lane.queue.valid & Cat(first).all()):
                m.d.comb += [self.oldest.pc.eq(lane.head.pc), self.oldest.exists.eq(1)]

    def _flight(self, m, lane):
        """Items in flight: a ring of what to free and signal. Returns its two signals."""
        unit, name = lane.unit, lane.name
        kinds = {mask: kind for mask, _, kind in HOLDS[name]}
        layout = data.StructLayout(
            {
                "masks": data.StructLayout({k: BANKS for k in kinds}),
                "rd_en": 1,
                "rd_sem": 5,
                "done_en": 1,
                "done_sem": 5,
                "last": 1,
                "pc": PC_BITS,
            }
        )
        m.submodules[f"ring_{name}"] = ring = memory.Memory(shape=layout, depth=INFLIGHT, init=[])
        write = ring.write_port()
        at_read, at_done = ring.read_port(domain="comb"), ring.read_port(domain="comb")
        write_at = Signal(range(INFLIGHT), name=f"{name}_write_at")
        count = Signal(range(INFLIGHT + 1), name=f"{name}_in_flight")
        sync = lane.head.sync
        m.d.comb += [
            write.en.eq(lane.grant),
            write.addr.eq(write_at),
            *(write.data.masks[k].eq(lane.masks[k]) for k in kinds),
            write.data.rd_en.eq(sync.rd_en & lane.last),
            write.data.rd_sem.eq(sync.rd_sem),
            write.data.done_en.eq(sync.done_en & lane.last),
            write.data.done_sem.eq(sync.done_sem),
            write.data.last.eq(lane.last),
            write.data.pc.eq(lane.head.pc),
        ]
        read_at = Signal(range(INFLIGHT), name=f"{name}_read_at")
        done_at = Signal(range(INFLIGHT), name=f"{name}_done_at")
        m.d.comb += [at_read.addr.eq(read_at), at_done.addr.eq(done_at)]
        m.d.sync += [
            write_at.eq(write_at + lane.grant),
            read_at.eq(read_at + unit.read_release),
            done_at.eq(done_at + unit.done),
            count.eq(count + lane.grant - unit.done),
        ]
        held = {}
        for mask, kind in kinds.items():
            release, item = (unit.read_release, at_read) if kind == "read" else (unit.done, at_done)
            held[mask] = _hold(
                m,
                f"{name}_{mask}",
                (lane.grant, lane.masks[mask]),
                (release, item.data.masks[mask]),
            )
        m.d.comb += [
            lane.held.eq(_by_port(name, held)),
            lane.busy.eq(count != 0),
            getattr(self, f"dispatch_{name}").quiet.eq(lane.queue.empty & ~lane.busy),
            getattr(self, f"dispatch_{name}").still.eq(
                ~lane.busy & lane.queue.settled & ~(lane.queue.valid & (lane.ok | lane.holds))
            ),
            getattr(self, f"dispatch_{name}").idle.eq(~lane.busy),
            getattr(self, f"flying_{name}").pc.eq(at_done.data.pc),
            getattr(self, f"flying_{name}").exists.eq(lane.busy),
            self.done[Unit[name.upper()]].eq(unit.done & at_done.data.last),
        ]
        if name == "matmul":
            m.d.comb += self.front.reading.eq(read_at != write_at)
        return [
            (unit.read_release & at_read.data.rd_en, at_read.data.rd_sem, at_read.data.pc),
            (unit.done & at_done.data.done_en, at_done.data.done_sem, at_done.data.pc),
        ]

    def _semaphores(self, m, lanes, signals):
        """Semaphores; and `ok` of each head, one cycle after both its waits hold."""
        takes = 2 * len(lanes) + 1
        m.submodules.semaphores = sems = Semaphores(len(signals), takes, reads=takes + 1)
        for i, lane in enumerate(lanes):
            sync = lane.head.sync
            same = sync.wait0 == sync.wait1
            need = Signal(9, name=f"{lane.name}_need")  # two waits on one semaphore add up
            m.d.comb += [
                need.eq(sync.wait1_n + Mux(same, sync.wait0_n, 0)),
                lane.holds.eq((sems.read[2 * i] >= sync.wait0_n) & (sems.read[2 * i + 1] >= need)),
            ]
            # 0 in a head's first cycle: cleared when the one before it leaves
            stays = lane.queue.valid & ~(lane.grant & lane.last) & ~self.clear
            m.d.sync += lane.ok.eq(stays & (lane.ok | lane.holds))
            begin = lane.grant & lane.first
            for j, sem, n, en in (
                (2 * i, sync.wait0, sync.wait0_n, begin & ~same),
                (2 * i + 1, sync.wait1, need, begin),
            ):
                m.d.comb += [
                    sems.read_sem[j].eq(sem),
                    sems.take_sem[j].eq(sem),
                    sems.take_n[j].eq(n),
                    sems.take_en[j].eq(en),
                ]
        for i, (en, sem, pc) in enumerate(signals):
            m.d.comb += [sems.signal_en[i].eq(en), sems.signal_sem[i].eq(sem)]
            # who signalled in the cycle before, in which the counts that are over became so
            was = Signal(name=f"signalled{i}")
            to, by = Signal(5, name=f"signalled{i}_sem"), Signal(PC_BITS, name=f"signalled{i}_pc")
            m.d.sync += was.eq(en)
            with m.If(en):
                m.d.sync += [to.eq(sem), by.eq(pc)]
            with m.If(sems.overflow & was & sems.over.bit_select(to, 1)):
                m.d.comb += [self.blame.pc.eq(by), self.blame.exists.eq(1)]
        seq = self.semaphore
        m.d.comb += [
            sems.read_sem[-1].eq(self.debug_sem),
            self.debug_count.eq(sems.read[-1]),
            sems.read_sem[-2].eq(seq.sem),
            seq.enough.eq(sems.read[-2] >= seq.n),
            sems.take_sem[-1].eq(seq.sem),
            sems.take_n[-1].eq(seq.n),
            sems.take_en[-1].eq(seq.take),
            sems.post_sem.eq(seq.sem),
            sems.post_n.eq(seq.n),
            sems.post_en.eq(seq.post),
            sems.clear.eq(self.clear),
            self.overflow.eq(sems.overflow),
        ]

    def _count(self, m, lane):
        """One cause for each cycle of the unit, the first that holds."""
        unit = Unit[lane.name.upper()]
        cause = Signal(len(CAUSES), name=f"{lane.name}_cause")
        valid = lane.queue.valid
        with m.If(lane.unit.issuing | lane.grant):
            m.d.comb += cause[0].eq(1)
        with m.Elif(valid & ~lane.ok):
            m.d.comb += cause[1].eq(1)
        with m.Elif(valid & lane.request):
            m.d.comb += cause[2].eq(1)
        with m.Elif(lane.busy):
            m.d.comb += cause[3].eq(1)
        with m.Else():
            m.d.comb += cause[4].eq(1)
        events = {name: cause[i] for i, name in enumerate(CAUSES)}
        events["instructions"] = lane.grant & lane.first
        for name, event in events.items():
            counter = self._counter(unit, name)
            with m.If(self.clear):
                m.d.sync += counter.eq(0)
            with m.Elif(self.run & event):
                m.d.sync += counter.eq(counter + 1)


def _any(vectors):
    """Bitwise or."""
    total = vectors[0]
    for v in vectors[1:]:
        total = total | v
    return total


def _by_port(name, masks):
    """One vector of all ports, in PORTS order, from a unit's masks."""
    port = {p: Const(0, BANKS) for p in PORTS}
    for mask, ports, _ in HOLDS[name]:
        for p in ports:
            port[p] = masks[mask]
    return Cat(port[p] for p in PORTS)


def _hold(m, name, grant, release):
    """Count the holders of each of BANKS ports; which ports are held.

    `grant`, `release` : (when, which ports).

    The counts are fields of one register, because one wide addition simulates faster than eight;
    none goes above INFLIGHT or below 0, so that no carry crosses a field.
    """
    bits = INFLIGHT.bit_length()
    counts = Signal(BANKS * bits, name=f"{name}_holders")
    pad = Const(0, bits - 1)
    masks = (Mux(when, mask, 0) for when, mask in (grant, release))
    up, down = (Cat(Cat(mask[b], pad) for b in range(BANKS)) for mask in masks)
    with m.If(grant[0] | release[0]):
        m.d.sync += counts.eq(counts + up - down)
    return Cat(counts[b * bits : (b + 1) * bits].any() for b in range(BANKS))
