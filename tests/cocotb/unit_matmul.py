"""MATMUL alone: passes of random instructions with random pauses, against the functional engine."""

import cocotb
import numpy as np
from tilewright.hw.matmul_front import PASS
from unit_bench import CONFIG, SEEDS, Unit, expect, instructions, pack

DIM = CONFIG.dim


def passes(v: dict[str, int]):
    """The passes of an instruction: N-blocks outside, K-blocks inside (docs §2, §5)."""
    for nb in range(-(-v["n"] // DIM)):
        for kb in range(-(-v["k"] // DIM)):
            k, n = min(DIM, v["k"] - kb * DIM), min(DIM, v["n"] - nb * DIM)
            yield {
                "a": v["a"] + kb * v["ak"],
                "w": v["w"] + kb * v["wk"] + nb * v["wn"],
                "c": v["c"] + nb * v["cn"],
                "k": k,
                "n": n,
                "first": kb == 0,
                "macs": k * n,
            }


@cocotb.test()
@cocotb.parametrize(seed=SEEDS)
async def matmul_adds_what_the_functional_engine_adds(dut, seed):
    unit = Unit(dut, seed)
    items, dram = instructions("matmul", seed)
    _, acc, _ = expect(unit, "matmul", items, dram)
    await unit.reset({"unit__start": 0})
    unit.serve("spad_a", "spad_w", "acc_r", "acc_w")
    unit.count()
    macs = rows = 0

    async def count():
        nonlocal macs, rows
        while True:
            await unit.ticks()
            if unit.get("o_row"):
                rows, macs = rows + 1, macs + unit.get("o_macs")

    cocotb.start_soon(count())
    for v in items:
        await unit.drain()  # the next instruction may read these rows
        for one in passes(v):
            await unit.start("matmul", v, pass_=pack(PASS, one))
    await unit.drain()
    assert np.array_equal(unit.acc, acc)
    assert macs == sum(v["r0"] * v["r1"] * v["k"] * v["n"] for v in items)
    assert rows == sum(v["r0"] * v["r1"] * len(list(passes(v))) for v in items)
