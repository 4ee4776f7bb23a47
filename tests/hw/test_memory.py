"""Local memories: every bank, both granules, several clients at once, against a NumPy array."""

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.sim import Simulator
from tilewright.hw.blackbox import BlackBoxes
from tilewright.hw.memory import Accumulator, Scratchpad
from tilewright.isa.config import BANKS, ChipConfig

CONFIGS = [
    ChipConfig(dim=2, spad_kib=1, acc_kib=1),
    ChipConfig(dim=4, spad_kib=2, acc_kib=1),
    ChipConfig(dim=16, spad_kib=8, acc_kib=8),
]
LATENCY, CYCLES = 2, 250


def number(row):
    return int.from_bytes(bytes(row), "little")


def run(dut, bench):
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


def traffic(rng, names, rows):
    """For each cycle: which bank each client uses (none: -1), no two clients in one bank."""
    banks = rng.permuted(np.tile(np.arange(BANKS), (CYCLES, 1)), axis=1)[:, : len(names)]
    idle = rng.random(banks.shape) < 0.2
    where = banks * (rows // BANKS) + rng.integers(0, rows // BANKS, banks.shape)
    return np.where(idle, -1, where)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_scratchpad_clients_see_one_array(config):
    rng = np.random.default_rng(1)
    dim, pairs = config.dim, config.spad_granules // 2
    model = np.zeros((pairs, 2, dim), np.uint8)
    dut = Scratchpad(config)
    readers, writers = ("matmul_a", "matmul_w", "store"), ("load", "store")
    reads, writes = traffic(rng, readers, pairs), traffic(rng, writers, pairs)

    async def bench(ctx):
        expected = {}
        for t in range(CYCLES):
            for i, name in enumerate(readers):
                port, pair, odd = getattr(dut, f"r_{name}"), int(reads[t, i]), int(rng.integers(2))
                used = pair >= 0 and pair not in writes[t]
                ctx.set(port.en, used)
                ctx.set(port.addr, 2 * max(pair, 0) + odd)
                if used:
                    expected[t + LATENCY, name] = (model[pair].copy(), odd)
            for i, name in enumerate(writers):
                port, pair = getattr(dut, f"w_{name}"), int(writes[t, i])
                data, mask = rng.integers(0, 256, (2, dim), np.uint8), int(rng.integers(1, 4))
                ctx.set(port.en, pair >= 0)
                ctx.set(port.addr, 2 * max(pair, 0) + int(rng.integers(2)))
                ctx.set(port.data, number(data.reshape(-1)))
                ctx.set(port.mask, mask)
                for g in (0, 1):
                    if pair >= 0 and mask >> g & 1:
                        model[pair, g] = data[g]
            for name in readers:
                if (t, name) in expected:
                    data, odd = expected[t, name]
                    port = getattr(dut, f"r_{name}")
                    assert ctx.get(port.pair) == number(data.reshape(-1))
                    assert ctx.get(port.data) == number(data[odd])
            await ctx.tick()
        assert len(expected) > CYCLES

    run(dut, bench)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_accumulator_clients_see_one_array(config):
    rng = np.random.default_rng(2)
    dim, rows = config.dim, config.acc_rows
    model = np.zeros((rows, 4 * dim), np.uint8)
    dut = Accumulator(config)
    readers, writers = ("matmul", "store"), ("load", "matmul")
    reads, writes = traffic(rng, readers, rows), traffic(rng, writers, rows)

    async def bench(ctx):
        expected = {}
        for t in range(CYCLES):
            for i, name in enumerate(readers):
                port, row = getattr(dut, f"r_{name}"), int(reads[t, i])
                used = row >= 0 and row not in writes[t]
                ctx.set(port.en, used)
                ctx.set(port.addr, max(row, 0))
                if used:
                    expected[t + LATENCY, name] = model[row].copy()
            for i, name in enumerate(writers):
                port, row = getattr(dut, f"w_{name}"), int(writes[t, i])
                data = rng.integers(0, 256, 4 * dim, np.uint8)
                ctx.set(port.en, row >= 0)
                ctx.set(port.addr, max(row, 0))
                ctx.set(port.data, number(data))
                if row >= 0:
                    model[row] = data
            for name in readers:
                if (t, name) in expected:
                    port = getattr(dut, f"r_{name}")
                    assert ctx.get(port.data) == number(expected[t, name])
            await ctx.tick()
        assert len(expected) > CYCLES

    run(dut, bench)


def test_read_data_holds_until_the_next_read():
    config = CONFIGS[1]
    dut = Accumulator(config)

    async def bench(ctx):
        ctx.set(dut.w_load.en, 1)
        ctx.set(dut.w_load.addr, 3)
        ctx.set(dut.w_load.data, 77)
        await ctx.tick()
        ctx.set(dut.w_load.en, 0)
        ctx.set(dut.r_store.en, 1)
        ctx.set(dut.r_store.addr, 3)
        await ctx.tick()
        ctx.set(dut.r_store.en, 0)
        ctx.set(dut.r_store.addr, 5)
        for _ in range(5):
            await ctx.tick()
            assert ctx.get(dut.r_store.data) == 77

    run(dut, bench)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_bank_is_one_ram_without_a_bit_too_many(config):
    """Pairs of granules that are written apart; rows of `dim` words of 32 bits; 8 banks each."""
    parts = {
        Scratchpad: (16 * config.dim, 1024 * config.spad_kib // (8 * 2 * config.dim), 2),
        Accumulator: (32 * config.dim, 1024 * config.acc_kib // (8 * 4 * config.dim), 1),
    }
    for part, (width, depth, masks) in parts.items():
        boxes = BlackBoxes()
        rtlil.convert(part(config), platform=boxes)
        assert list(boxes.sources()) == [f"tw_sram_{width}x{depth}x{masks}.v"]
