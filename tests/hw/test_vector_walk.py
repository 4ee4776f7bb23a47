"""VECTOR's slots against plain loops: words, rows, units and streams' addresses, cycle by cycle."""

import random

import pytest
from amaranth.sim import Simulator
from tilewright.hw.vector_walk import Walk
from tilewright.isa.config import LOCAL_BITS, ChipConfig
from tilewright.isa.timing import VECTOR_LEAD
from tilewright.isa.units import STREAMS

CONFIGS = [ChipConfig(dim=2, spad_kib=2, acc_kib=2), ChipConfig(dim=8, spad_kib=8, acc_kib=4)]
GROUP = 8


def draw(rng, dim):
    """Fields of an instruction: every section may be missing but the body."""
    f = dict(
        init=rng.choice((0, 0, 1, 3)), head=rng.choice((0, 1, 4)), body=rng.choice((1, 2, 5)),
        tail=rng.choice((0, 1, 3)), rows=rng.choice((1, 7, 8, 9, 17)), cols=rng.randint(1, 3 * dim),
        kernel=rng.randrange(40),
    )  # fmt: skip
    f["units"] = -(-f["cols"] // dim)
    for s in STREAMS:
        f |= {s: rng.randrange(1 << LOCAL_BITS), f"{s}_on": rng.getrandbits(1)}
        f |= {f"{s}_{x}": rng.randrange(-300, 300) for x in ("row", "unit")}
    return f


def slots(f, dim):
    """Of each slot: (fetched row or None, (word, row in group, row, unit) or None)."""
    words = f["init"] + f["head"] + f["body"] + f["tail"]
    out = [(f["kernel"] + i, None) for i in range(-(-words * 2 // dim))]
    out += [(None, None)] * VECTOR_LEAD

    def section(first, count, base, unit):
        for word in range(first, first + count):
            out.extend((None, (word, r, base + r, unit)) for r in range(GROUP))

    section(0, f["init"], 0, 0)
    for base in range(0, f["rows"], GROUP):
        at = f["init"]
        section(at, f["head"], base, 0)
        for unit in range(f["units"]):
            section(at + f["head"], f["body"], base, unit)
        section(at + f["head"] + f["body"], f["tail"], base, 0)
    return out


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"dim{c.dim}")
def test_slots_are_those_of_plain_loops(config):
    """Instructions follow each other without a gap; the buffer is read a word ahead."""
    rng, dim = random.Random(config.dim), config.dim
    program = [draw(rng, dim) for _ in range(25)]
    dut = Walk(config)

    async def bench(ctx):
        word = None
        for k, f in enumerate(program):
            for name, value in f.items():
                ctx.set(getattr(dut.instr, name), value)
            ctx.set(dut.start, 1)
            if k == 0:
                await ctx.tick()
            plan = slots(f, dim)
            for n, (fetched, runs) in enumerate(plan):
                if k or n:
                    await ctx.tick()
                ctx.set(dut.start, 0)
                assert ctx.get(dut.active)
                assert ctx.get(dut.fetch) == (fetched is not None)
                assert ctx.get(dut.runs) == (runs is not None)
                assert ctx.get(dut.last) == (n == len(plan) - 1)
                if fetched is not None:
                    assert (ctx.get(dut.fetch_at), ctx.get(dut.fetch_row)) == (fetched, n)
                if runs is not None:
                    at, row, index, unit = runs
                    assert (word, ctx.get(dut.row)) == (at, row)
                    assert ctx.get(dut.exists) == (index < f["rows"])
                    assert (ctx.get(dut.index), ctx.get(dut.unit)) == (index, unit)
                    assert ctx.get(dut.final_unit) == (unit == f["units"] - 1)
                    for s in STREAMS:
                        want = f[s] + index * f[f"{s}_row"] + unit * f[f"{s}_unit"]
                        assert ctx.get(getattr(dut, s).at) == want % (1 << LOCAL_BITS)
                        assert ctx.get(getattr(dut, s).on) == f[f"{s}_on"]
                if ctx.get(dut.take):
                    word = ctx.get(dut.next_word)
            assert ctx.get(dut.columns) == (f["cols"] - 1) % dim
        await ctx.tick()
        assert not ctx.get(dut.active)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
