"""The banked memories alone: all ports at random, each bank's port used by one client at a time."""

from random import Random

import cocotb
from unit_bench import CONFIG, LONG, Unit

CYCLES = 2000 if LONG else 400


async def hammer(dut, depth: int, readers, writers, word_bits: int, granules: bool):
    """Random reads and writes; a read never meets a write of its address in one cycle."""
    unit, rng = Unit(dut), Random(1)
    pins = [f"{p}__en" for p in (*readers, *writers)]
    await unit.reset(dict.fromkeys(pins, 0))
    bank = depth // 8
    model: dict[int, int] = {}
    late: dict[str, list] = {p: [None, None] for p in readers}  # words asked for, by age
    held: dict[str, int | None] = dict.fromkeys(readers)
    for _ in range(CYCLES):
        banks = rng.sample(range(8), len(readers))
        asked, written = {}, {}
        for port, b in zip(readers, banks, strict=True):
            asked[port] = b * bank + rng.randrange(4) if rng.random() < 0.7 else None
        for port, b in zip(writers, rng.sample(range(8), len(writers)), strict=True):
            at = b * bank + rng.randrange(4)
            near = {a >> granules for a in asked.values() if a is not None}
            if rng.random() < 0.7 and at >> granules not in near:
                mask = rng.randint(1, 3) if granules else 1
                written[port] = at, mask, rng.getrandbits(word_bits * (2 if granules else 1))
        for port, at in asked.items():
            unit.pins[f"{port}__en"].value = int(at is not None)
            unit.pins[f"{port}__addr"].value = at or 0
        for port in writers:
            at, mask, data = written.get(port, (0, 0, 0))
            unit.pins[f"{port}__en"].value = int(port in written)
            unit.pins[f"{port}__addr"].value = at
            unit.pins[f"{port}__data"].value = data
            if granules:
                unit.pins[f"{port}__mask"].value = mask
        await unit.ticks()
        for port in readers:  # this cycle shows what was asked two cycles before
            if late[port][0] is not None:
                held[port] = late[port][0]
            if held[port] not in (None, "unknown"):
                assert unit.get(f"{port}__data") == held[port]
            now = asked[port]
            late[port] = [late[port][1], None if now is None else model.get(now, "unknown")]
        for at, mask, data in written.values():
            if not granules:
                model[at] = data
                continue
            for half in range(2):
                if mask >> half & 1:
                    model[(at & ~1) + half] = data >> half * word_bits & (1 << word_bits) - 1


@cocotb.test()
async def the_scratchpad_keeps_granules(dut):
    if not hasattr(dut, "r_matmul_a__en"):
        return
    readers = ("r_load", "r_matmul_a", "r_matmul_w", "r_vector", "r_store")
    writers = ("w_load", "w_vector", "w_store")
    await hammer(dut, CONFIG.spad_granules, readers, writers, 8 * CONFIG.dim, True)


@cocotb.test()
async def the_accumulator_keeps_rows(dut):
    if hasattr(dut, "r_matmul_a__en"):
        return
    readers = ("r_matmul", "r_vector", "r_store")
    writers = ("w_load", "w_matmul", "w_vector")
    await hammer(dut, CONFIG.acc_rows, readers, writers, 32 * CONFIG.dim, False)
