"""The event-driven timing against the cycle-by-cycle transcription of the contract."""

import random
from types import SimpleNamespace

import pytest
from tilewright.isa.config import parse_config
from tilewright.sim.timing import UNITS, run_ops
from tilewright.sim.timing_ops import (
    FAULT,
    FENCE,
    HALT,
    LDW,
    POST,
    PUSH,
    SCALAR,
    STW,
    WAIT,
    Op,
    Passes,
    Work,
    constants,
)

from tests.sim import reference_timing as reference

CONFIG = parse_config("tw4")
SEQ = 4
WITH_VECTOR = ((0, 1, 2, 3), (1, 1, 0, 3), (1, 2, 2), (0, 3), (1,), (2,), (0,))  # units
WITHOUT = ((0, 1, 3), (1, 1, 0, 3), (0, 3), (1,), (0,))
LATE = 6  # cycles that a long STORE takes longer than a short one


def random_constants(rng, vector):
    """Contract constants, small, so that short programs meet every limit."""
    return SimpleNamespace(
        dim=rng.choice((2, 4, 8)),
        read_latency=rng.choice((3, 10, 60)),
        write_latency=rng.choice((1, 5, 20)),
        LOAD_AR=rng.randint(0, 3),
        LOAD_WRITE=rng.randint(1, 6),
        LOAD_FILL=rng.randint(0, 3),
        LOAD_INFLIGHT=rng.choice((1, 2, 4)),
        STORE_W=rng.randint(2, 12),
        STORE_B=rng.randint(1, 3),
        STORE_SPAD=rng.randint(2, 12),
        STORE_READ=rng.randint(0, 2),
        STORE_INFLIGHT=rng.choice((1, 2, 4)),
        MATMUL_READ=rng.randint(0, 3),
        MATMUL_DONE=rng.choice((3, 8, 20, 40)) + 8,  # weights may be read after the last row
        MATMUL_MIN_PERIOD=rng.choice((1, 5, 8)),
        MATMUL_INFLIGHT=rng.choice((2, 3, 8)),
        FETCH_START=rng.randint(0, 2),
        FETCH_AR=rng.randint(0, 2),
        FETCH_WRITE=rng.randint(1, 2),
        FETCH_RESTART=rng.randint(1, 2),
        SEQ_QUIET=rng.randint(1, 2),
        LDW=rng.randint(1, 70),
        STW=rng.randint(1, 30),
        SEQ_HALT=rng.randint(0, 2),
        SEQ_FAULT=rng.randint(0, 2),
        SEQ_DEADLOCK=rng.randint(1, 2),
        WEIGHT_LEAD=vector.choice((1, 2)),
        VECTOR_READ=vector.randint(0, 2),
        VECTOR_DONE=vector.randint(2, 6),
        VECTOR_INFLIGHT=vector.choice((1, 2, 3)),
    )


def span(rng, width=2):
    """A mask of neighbouring banks."""
    first = rng.randrange(8)
    return (2 << min(7, first + rng.randrange(width))) - (1 << first)


def random_work(rng, unit):
    """Slots and ports of one instruction of `unit`."""
    size = rng.choice((1, 2, 5, 20))
    if unit == 0:
        shift = rng.choice((8, 24))
        return Work(rng.randint(1, size), 0, span(rng) << shift, rng.random() < 0.3)
    if unit == 3:
        local = rng.random() < 0.4
        reads = span(rng) << rng.choice((0, 16)) | (span(rng) << 16 if rng.random() < 0.3 else 0)
        slots = rng.randint(1, size)
        late = LATE * (slots % 3 > 0)
        return Work(slots, reads, span(rng) << 8 if local else 0, local, late, late)
    if unit == 2:
        reads = span(rng) << 16 | span(rng) << rng.choice((0, 16))
        return Work(3 * rng.randint(1, size), reads, span(rng) << rng.choice((8, 24)), True)
    count = rng.choice((1, 1, 2, 4, 9, 15))
    stay = rng.choice((0, 0.5, 0.95))  # how often the next pass has the same banks
    few = [[span(rng), span(rng, 1), span(rng)] for _ in range(count)]
    for i in range(1, count):
        few[i] = few[i - 1] if rng.random() < stay else few[i]
    a, w, acc = ([x[i] for x in few] for i in range(3))
    return Passes(
        rng.randint(1, size), a, w, [x | y for x, y in zip(a, w, strict=True)],
        [x << 16 | x << 24 for x in acc],
    )  # fmt: skip


class Program:
    """A random program with semaphores that never block in program order (unless `racy`)."""

    def __init__(self, rng, length, kinds):
        self.rng, self.length, self.kinds = rng, length, kinds
        self.ops = []
        self.counts = [0] * 32
        self.taker = {}
        self.signaller = {}
        self.risky = rng.random() < 0.1  # any unit may signal or wait: may deadlock

    def free_semaphore(self, table, who, need):
        for s in self.rng.sample(range(8), 8):
            if self.counts[s] >= need and (self.risky or table.get(s, who) == who):
                table[s] = who
                return s
        return -1

    def waits(self, unit):
        out = {}
        for _ in range(self.rng.choice((0, 0, 1, 2))):
            s = self.free_semaphore(self.taker, unit, 1)
            if s >= 0 and s not in out:
                n = self.rng.randint(1, min(2, self.counts[s]))
                self.counts[s] -= n
                out[s] = n
        return tuple(out.items())

    def signal(self, who):
        if self.rng.random() < 0.6:
            return -1
        s = self.free_semaphore(self.signaller, who, 0)
        if s >= 0:
            self.counts[s] += 1
        return s

    def build(self):
        rng, pc = self.rng, 0
        lines = rng.choice((1, 3, 6))
        mix = rng.choice(((0.8, 0.0), (0.5, 0.1), (0.95, 0.02)))
        kinds = rng.choice(self.kinds)
        while len(self.ops) < self.length:
            op = self.one(pc, mix, kinds, 8 * lines)
            self.ops.append(op)
            pc = op.target if op.target >= 0 else pc + 1
            if pc >= 8 * lines:
                self.ops.append(Op(len(self.ops), pc, SEQ, FAULT, 0, stage="fetch"))
                return self.ops, 8 * lines
        ends = ((HALT, "exec"), (FAULT, "exec"), (FAULT, "decode"))
        kind, stage = rng.choice(ends)
        lead = 1 if stage == "decode" else 2
        self.ops.append(Op(len(self.ops), pc, SEQ, kind, lead, stage=stage))
        return self.ops, 8 * lines

    def one(self, pc, mix, kinds, count):
        rng, number = self.rng, len(self.ops)
        lead = 2 + rng.choice((0, 0, 1, 7))
        if rng.random() < mix[0]:
            unit = rng.choice(kinds)
            waits = self.waits(unit)
            rd, done = self.signal((unit, "rd")), self.signal((unit, "done"))
            work = random_work(rng, unit)
            return Op(number, pc, unit, PUSH, lead, work, waits, rd, done)
        if rng.random() < mix[1] or pc == count - 1:
            return Op(number, pc, SEQ, SCALAR, lead, target=rng.randrange(count))
        kind = rng.choice((SCALAR, SCALAR, POST, WAIT, FENCE, LDW, STW))
        op = Op(number, pc, SEQ, kind, lead, n=rng.randint(1, 2))
        if kind == WAIT:
            op.sem = self.free_semaphore(self.taker, SEQ, op.n)
            if op.sem < 0:
                op.kind = SCALAR
            else:
                self.counts[op.sem] -= op.n
        elif kind == POST:
            op.sem = self.free_semaphore(self.signaller, SEQ, 0)
            if op.sem < 0:
                op.kind = SCALAR
            else:
                self.counts[op.sem] += op.n
        return op


def compare(seed, length, kinds=WITH_VECTOR):
    """Run both; what they disagree about, as text. Also whether it deadlocked."""
    rng = random.Random(seed)
    k = random_constants(rng, random.Random(~seed))
    ops, count = Program(rng, length, kinds).build()
    want = reference.Chip(k, ops, count).run()
    got = run_ops(CONFIG, ops, count, k)
    assert bool(got.stuck) == want.deadlock, f"seed {seed}: stuck {got.stuck}"
    for op in ops:
        a, b = (got.start[op.id], got.end[op.id]), (want.start[op.id], want.end[op.id])
        assert a == b, f"seed {seed}: #{op.id} kind {op.kind} unit {op.unit}: {a}, reference {b}"
    assert got.cycles == want.cycles, f"seed {seed}"
    for unit, row in zip(UNITS, got.causes, strict=True):
        expected = want.causes[int(unit)]
        assert row == expected, f"seed {seed}: {unit.name} {row}, reference {expected}"
    return want.deadlock


@pytest.mark.parametrize("block", range(8))
def test_random_streams_equal_the_reference(block):
    deadlocks = sum(compare(1000 * block + i, 4 + i) for i in range(40))
    assert deadlocks < 20


def test_slots_of_a_short_pass_may_end_with_a_deadlock():
    assert compare(310043, 47, WITHOUT)  # a pass of one row is done before its period is over


def test_a_head_that_asks_keeps_its_ok_when_another_unit_takes_the_count():
    assert not compare(409097, 41, WITHOUT)  # STORE's and MATMUL's heads wait for the same signal


@pytest.mark.full
@pytest.mark.parametrize("block", range(100, 105))
def test_many_random_streams_equal_the_reference(block):
    for i in range(100):
        compare(1000 * block + i, 4 + i % 60)


def test_constants_have_the_contract_s_names():
    k = constants(CONFIG)
    assert vars(random_constants(random.Random(0), random.Random(0))).keys() <= vars(k).keys()
