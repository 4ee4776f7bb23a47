"""MATMUL's front against `isa.extent`'s passes, with the contract's cycles."""

import random

from amaranth.sim import Simulator
from tilewright.hw.matmul_front import MatmulFront
from tilewright.isa.config import PRESETS
from tilewright.isa.encoding import IllegalInstruction
from tilewright.isa.extent import bank_masks, check_range, pass_extents, pass_offsets
from tilewright.isa.table import INSTRUCTIONS

CONFIG = PRESETS["tw4"]
SPEC = INSTRUCTIONS["matmul"]


def legal(rng):
    """Fields of a legal macro tile that crosses banks now and then."""
    while True:
        v = {f.name: 0 for f in SPEC.fields}
        v |= {n: rng.randrange(CONFIG.spad_granules) for n in ("a", "w")}
        v |= {n: rng.choice((1, 4, -4, 37, 200)) for n in ("as0", "as1", "ak", "ws", "wk", "wn")}
        v |= {"r0": rng.randrange(1, 9), "r1": rng.randrange(1, 4), "k": rng.randrange(1, 14)}
        v |= {
            "n": rng.randrange(1, 14),
            "c": rng.randrange(CONFIG.acc_rows),
            "cn": rng.choice((30, 8, 64)),
        }
        v["a_type"] = v["w_type"] = rng.choice((0, 2))
        try:
            check_range(CONFIG, SPEC, v)
        except IllegalInstruction:
            continue
        return v


def test_front_steps_through_all_passes():
    rng = random.Random(5)
    dut = MatmulFront(CONFIG)
    dim = CONFIG.dim

    async def body(ctx):
        issue = dut.issue
        blocked = 0
        previous = 0
        for _ in range(60):
            v = legal(rng)
            for name in ("a", "w", "c", "k", "n", "ak", "wk", "wn", "cn"):
                ctx.set(issue.head[name], v[name])
            ctx.set(issue.head.rows, v["r0"] * v["r1"])
            for name, value in pass_offsets(CONFIG, v).items():
                ctx.set(issue.head[name], value)
            ctx.set(issue.head_valid, 1)
            await ctx.tick()  # h: masks from h + 1
            kbs, nbs = -(-v["k"] // dim), -(-v["n"] // dim)
            for nb in range(nbs):
                for kb in range(kbs):
                    a, w, c = pass_extents(CONFIG, v, kb, nb)
                    masks = bank_masks(CONFIG, (a, w, c))
                    assert (ctx.get(issue.spad_r), ctx.get(issue.acc)) == (masks[0], masks[2])
                    assert ctx.get(issue.last) == (kb == kbs - 1 and nb == nbs - 1)
                    own = {
                        n: ctx.get(dut.pass_[n]) for n in ("a", "w", "c", "k", "n", "first", "macs")
                    }
                    k, n = min(dim, v["k"] - dim * kb), min(dim, v["n"] - dim * nb)
                    assert own == {
                        "a": v["a"] + kb * v["ak"],
                        "w": v["w"] + kb * v["wk"] + nb * v["wn"],
                        "c": v["c"] + nb * v["cn"],
                        "k": k,
                        "n": n,
                        "first": kb == 0,
                        "macs": k * n,
                    }
                    weights = bank_masks(CONFIG, (w,))[0]
                    for reading in (0, 1):
                        ctx.set(issue.reading, reading)
                        want = bool(reading and weights & previous)
                        assert ctx.get(issue.blocked) == want
                        blocked += want
                    previous = bank_masks(CONFIG, (a,))[0]
                    for _ in range(rng.randrange(3)):
                        await ctx.tick()
                    ctx.set(issue.advance, 1)
                    await ctx.tick()
                    ctx.set(issue.advance, 0)
                    if nb < nbs - 1 or kb < kbs - 1:
                        await ctx.tick()  # G + 1; masks from G + 2
            if rng.random() < 0.5:
                ctx.set(issue.head_valid, 0)
                await ctx.tick()
        assert blocked > 10

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(body)
    sim.run()


def test_front_counts_columns_of_all_sizes():
    """65,535 columns over and over the same weights and sums, four in a pass."""
    dut = MatmulFront(CONFIG)

    async def body(ctx):
        issue = dut.issue
        for name, value in {"k": 1, "n": 65535, "rows": 1}.items():
            ctx.set(issue.head[name], value)
        ctx.set(issue.head_valid, 1)
        await ctx.tick()
        ctx.set(issue.advance, 1)
        last = [await ctx.tick().sample(issue.last, dut.pass_.n) for _ in range(65535 // 4 + 1)]
        assert [(v[-2], v[-1]) for v in last] == [(0, 4)] * (65535 // 4) + [(1, 3)]

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(body)
    sim.run()
