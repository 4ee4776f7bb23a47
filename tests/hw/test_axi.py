"""Register slices: order, throughput and latency under back-pressure."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator
from tilewright.hw.axi import AXILite, AXIRead, AXIWrite, BusSlice, Slice, channels


@pytest.mark.parametrize("gap, stall", [(0.0, 0.0), (0.4, 0.0), (0.0, 0.5), (0.3, 0.6)])
def test_slice_keeps_every_word_in_order(gap, stall):
    dut, rng = Slice(8), random.Random(1)
    sent, got = [], []

    async def bench(ctx):
        word, accepted = 0, 0
        for _ in range(300):
            if not ctx.get(dut.i_valid) or accepted:
                ctx.set(dut.i_valid, rng.random() >= gap)
                word = rng.randrange(256)
                ctx.set(dut.i_data, word)
            ctx.set(dut.o_ready, rng.random() >= stall)
            accepted = ctx.get(dut.i_valid) and ctx.get(dut.i_ready)
            if accepted:
                sent.append(word)
            if ctx.get(dut.o_valid) and ctx.get(dut.o_ready):
                got.append(ctx.get(dut.o_data))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert len(got) > 50 and got == sent[: len(got)] and len(sent) - len(got) <= 2
    if not gap and not stall:
        assert len(got) == 299  # latency 1, throughput 1


def test_channels_splits_by_longest_prefix():
    found = channels(AXILite(12))
    assert found["aw"] == ["awaddr", "awprot"] and found["r"] == ["rdata", "rresp"]
    assert found["b"] == ["bresp"] and list(found) == ["aw", "w", "b", "ar", "r"]


@pytest.mark.parametrize("signature", [AXIRead(32, 64), AXIWrite(32, 64), AXILite(12)])
def test_bus_slice_passes_all_members(signature):
    dut, seen = BusSlice(signature), {}
    m = Module()
    m.submodules.dut = dut
    members = [n for p in channels(signature).items() for n in p[1]]

    async def bench(ctx):
        for i, name in enumerate(members):
            down = signature.members[name].flow == wiring.Out
            ctx.set(getattr(dut.s if down else dut.m, name), i % 2 + 1)
        for p in channels(signature):
            down = signature.members[f"{p}valid"].flow == wiring.Out
            ctx.set(getattr(dut.s if down else dut.m, f"{p}valid"), 1)
        await ctx.tick()
        for i, name in enumerate(members):
            down = signature.members[name].flow == wiring.Out
            value = ctx.get(getattr(dut.m if down else dut.s, name))
            width = len(getattr(dut.m, name))
            seen[name] = value == (i % 2 + 1) & ((1 << width) - 1)

    sim = Simulator(m)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert all(seen.values()) and len(seen) == len(members)


def test_widths_are_refused_by_name():
    with pytest.raises(ValueError, match="data width must be one of"):
        AXIRead(32, 12)
