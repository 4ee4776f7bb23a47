"""The issue module against a model written from docs/microarchitecture.md §2, cycle by cycle."""

import random
from dataclasses import dataclass, field

import pytest
from amaranth.sim import Simulator
from tilewright.hw.issue import CAUSES, Issue
from tilewright.isa.config import QUEUE_DEPTH, SEM_MAX

UNITS = ("load", "matmul", "store")
INDEX = {"load": 0, "matmul": 1, "store": 3}
#: Masks by unit: name -> (ports, freed by).
MASKS = {
    "load": {"spad_w": (("spad_w",), "done"), "acc_w": (("acc_w",), "done")},
    "matmul": {"spad_r": (("spad_r",), "read"), "acc": (("acc_r", "acc_w"), "done")},
    "store": {
        "spad_r": (("spad_r",), "read"),
        "acc_r": (("acc_r",), "read"),
        "spad_w": (("spad_w",), "done"),
    },
}


@dataclass
class Work:
    """One instruction: waits, signals, and its passes (one for LOAD and STORE)."""

    id: int
    waits: list
    rd: int | None
    done: int | None
    passes: list  # of mask dicts
    slots: int
    read: int  # cycles from the last slot to read_release, then to done
    rest: int
    pushed: int = 0
    at: int = 0  # pass at the head


@dataclass
class Unit:
    """A fake unit, and the model's view of its queue."""

    name: str
    queue: list = field(default_factory=list)
    free_from: int = 0  # first cycle in which the next head may be valid
    ok: bool = False
    slot_end: int = -1
    flight: list = field(default_factory=list)  # [work, masks, last, read at, done at, read?]
    causes: dict = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))
    started: int = 0

    def head(self, t):
        if self.queue and t >= max(self.queue[0].pushed + 2, self.free_from):
            return self.queue[0]
        return None

    def waiting(self, t):
        """Entries in the queue's memory."""
        return sum(w.pushed < t for w in self.queue) - (self.head(t) is not None)

    def held(self):
        """Ports that items in flight hold."""
        ports = set()
        for _, masks, _, _, _, was_read in self.flight:
            for name, (targets, freed) in MASKS[self.name].items():
                if not (freed == "read" and was_read):
                    ports |= {(p, b) for p in targets for b in range(8) if masks[name] >> b & 1}
        return ports

    def wants(self, work):
        masks = work.passes[work.at]
        return {
            (p, b)
            for name, (targets, _) in MASKS[self.name].items()
            for p in targets
            for b in range(8)
            if masks[name] >> b & 1
        }


def make(rng, name, number, sems):
    """A random instruction; its semaphores are of this unit's own, so that nothing underflows."""
    mask = lambda: rng.choice((0, 1 << rng.randrange(8), 3 << rng.randrange(7)))  # noqa: E731
    count = rng.randrange(1, 4) if name == "matmul" else 1
    choose = lambda kind: rng.choice(sems[kind]) if rng.random() < 0.4 else None  # noqa: E731
    waits = [
        (rng.choice(sems["wait"]), rng.randrange(1, 4)) if rng.random() < 0.3 else (0, 0)
        for _ in range(2)
    ]
    return Work(
        number,
        waits,
        choose("rd"),
        choose("done"),
        [{n: mask() for n in MASKS[name]} for _ in range(count)],
        slots=rng.randrange(2, 9),
        read=rng.randrange(1, 5),
        rest=rng.randrange(0, 6),
    )


class Bench:
    """Drives the module and checks it against the rules."""

    def __init__(self, seed, cycles):
        self.rng = random.Random(seed)
        self.cycles = cycles
        self.units = {n: Unit(n) for n in UNITS}
        self.sems = [0] * 32
        self.number = 0
        self.grants = self.conflicts = self.fulls = 0

    async def run(self, ctx):
        self.dut_clear(ctx)
        await ctx.tick()
        ctx.set(self.dut.clear, 0)
        ctx.set(self.dut.run, 1)
        for t in range(self.cycles):
            await self.cycle(ctx, t)
        for name, unit in self.units.items():
            at = 6 * INDEX[name]
            got = [ctx.get(self.dut.counters[at + i]) for i in range(6)]
            assert got == [*unit.causes.values(), unit.started], name
            assert sum(got[:5]) == self.cycles
        assert ctx.get(self.dut.counters[12 + CAUSES.index("empty")]) == self.cycles

    def dut_clear(self, ctx):
        ctx.set(self.dut.clear, 1)

    async def cycle(self, ctx, t):
        rng, dut = self.rng, self.dut
        requests = {}
        busy = {}
        for name, unit in self.units.items():
            port = getattr(dut, name)
            reading = next((f for f in unit.flight if not f[5]), None)
            read_now = reading is not None and reading[3] <= t
            done_now = (
                bool(unit.flight)
                and unit.flight[0][4] <= t
                and (unit.flight[0][5] or (read_now and reading is unit.flight[0]))
            )
            ready = t >= unit.slot_end and len(unit.flight) < 8 and rng.random() < 0.9
            busy[name] = (read_now and reading, done_now, t <= unit.slot_end, bool(unit.flight))
            ctx.set(port.ready, ready)
            ctx.set(port.issuing, t <= unit.slot_end)
            ctx.set(port.read_release, read_now)
            ctx.set(port.done, done_now)
            head = unit.head(t)
            blocked = name == "matmul" and rng.random() < 0.1
            if name == "matmul" and head is not None:
                ctx.set(dut.front.spad_r, head.passes[head.at]["spad_r"])
                ctx.set(dut.front.acc, head.passes[head.at]["acc"])
                ctx.set(dut.front.last, head.at == len(head.passes) - 1)
                ctx.set(dut.front.blocked, blocked)
            if head is not None and unit.ok and ready:
                requests[name] = (head, blocked)
        pushed = self.push(ctx, t)
        post = self.sequencer(ctx)

        # Outputs of this cycle: who is granted.
        granted = {}
        for name, (head, blocked) in requests.items():
            unit = self.units[name]
            taken = set().union(*(u.held() for u in self.units.values() if u is not unit))
            for other, (rival, _) in requests.items():
                if rival.id < head.id:
                    taken |= self.units[other].wants(rival)
            granted[name] = not blocked and not unit.wants(head) & taken
            self.conflicts += not granted[name] and not blocked
        for name, unit in self.units.items():
            grant = granted.get(name, False)
            head = unit.head(t)
            assert ctx.get(getattr(dut, name).start) == grant, (t, name)
            first = grant and head.at == 0
            assert (ctx.get(dut.started) >> INDEX[name] & 1) == first
            dispatch = getattr(dut, f"dispatch_{name}")
            assert ctx.get(dispatch.full) == (unit.waiting(t) >= QUEUE_DEPTH), (t, name)
            quiet = not [w for w in unit.queue if w.pushed < t] and not unit.flight
            assert ctx.get(dispatch.quiet) == quiet, (t, name)
            if grant:
                assert ctx.get(getattr(dut, f"id_{name}")) == head.id

        # What the cycle changes.
        deltas = [0] * 32
        for name, unit in self.units.items():
            reading, done_now, slot, flying = busy[name]
            grant, head = granted.get(name, False), unit.head(t)
            cause = (
                "issuing"
                if slot or grant
                else "semaphore"
                if head is not None and not unit.ok
                else "port"
                if name in requests
                else "memory"
                if flying
                else "empty"
            )
            unit.causes[cause] += 1
            holds = head is not None and self.holds(head)
            if reading:
                reading[5] = True
                if reading[2] and reading[0].rd is not None:
                    deltas[reading[0].rd] += 1
            last_done = done_now and unit.flight[0][2]
            assert (ctx.get(dut.done) >> INDEX[name] & 1) == last_done
            if done_now:
                work, _, last, *_ = unit.flight.pop(0)
                if last and work.done is not None:
                    deltas[work.done] += 1
            if head is not None and not grant:
                unit.ok = unit.ok or holds
            if grant:
                self.grants += 1
                self.start(unit, head, t, deltas)
        for name, work in pushed:
            work.pushed = t
            self.units[name].queue.append(work)
        for sem, n in post:
            deltas[sem] += n
        over = any(s + d > SEM_MAX for s, d in zip(self.sems, deltas, strict=True))
        self.sems = [min(s + d, SEM_MAX) for s, d in zip(self.sems, deltas, strict=True)]
        await ctx.tick()
        assert ctx.get(dut.overflow) == over

    def holds(self, work):
        need = {}
        for sem, n in work.waits:
            need[sem] = need.get(sem, 0) + n
        return all(self.sems[sem] >= n for sem, n in need.items() if n)

    def start(self, unit, head, t, deltas):
        if head.at == 0:
            unit.started += 1
            for sem, n in head.waits:
                deltas[sem] -= n
        last = head.at == len(head.passes) - 1
        unit.slot_end = t + head.slots
        read = unit.slot_end + head.read
        unit.flight.append([head, head.passes[head.at], last, read, read + head.rest, False])
        head.at += 1
        if last:
            unit.queue.pop(0)
            unit.free_from = t + 1
            unit.ok = False

    def push(self, ctx, t):
        """At most one instruction per cycle, sometimes in long series for one unit."""
        rng = self.rng
        for name in UNITS:
            ctx.set(getattr(self.dut, f"dispatch_{name}").push, 0)
        busy_time = t % 400 < 200
        if rng.random() > (0.8 if busy_time else 0.1):
            return []
        name = rng.choice(("load", "load", "load", "matmul", "store") if t % 800 < 400 else UNITS)
        unit = self.units[name]
        if unit.waiting(t) >= QUEUE_DEPTH:
            self.fulls += 1
            return []
        base = 8 * UNITS.index(name)
        # each unit waits on what the next one signals, so that heads block on each other
        other = 8 * ((UNITS.index(name) + 1) % 3)
        sems = {
            "rd": [base, base + 1],
            "done": [base + 2, base + 3],
            "wait": [other, other + 2, 28 + UNITS.index(name)],
        }
        work = make(rng, name, self.number, sems)
        self.number += rng.randrange(1, 3)
        dispatch = getattr(self.dut, f"dispatch_{name}")
        entry = dispatch.entry
        (s0, n0), (s1, n1) = work.waits
        sync = {"wait0": s0, "wait0_n": n0, "wait1": s1, "wait1_n": n1}
        for kind in ("rd", "done"):
            sem = getattr(work, kind)
            sync |= {f"{kind}_en": sem is not None, f"{kind}_sem": sem or 0}
        for key, value in sync.items():
            ctx.set(entry.sync[key], value)
        ctx.set(entry.id, work.id)
        if name != "matmul":
            for key, value in work.passes[0].items():
                ctx.set(entry.masks[key], value)
        ctx.set(dispatch.push, 1)
        return [(name, work)]

    def sequencer(self, ctx):
        """Post credits, so that nothing waits for ever; now and then take some."""
        rng, port = self.rng, self.dut.semaphore
        sem, n = rng.randrange(32), rng.randrange(1, 4)
        if rng.random() < 0.02:
            n = 255
        ctx.set(port.sem, sem)
        ctx.set(port.n, n)
        assert ctx.get(port.enough) == (self.sems[sem] >= n)
        post = rng.random() < 0.4
        take = not post and sem >= 31 and self.sems[sem] >= n
        ctx.set(port.post, post)
        ctx.set(port.take, take)
        return [(sem, n)] if post else [(sem, -n)] if take else []


@pytest.mark.parametrize("seed", range(2))
def test_issue_follows_the_rules(seed):
    bench = Bench(seed, 1000)
    bench.dut = Issue()
    sim = Simulator(bench.dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench.run)
    sim.run()
    assert bench.grants > 80 and bench.conflicts > 15
    assert bench.fulls > 0
