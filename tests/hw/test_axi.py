"""Register slices: order, throughput and latency under back-pressure; the chip's pins."""

import random

import pytest
from amaranth.hdl import Module, Shape
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.sim import Simulator
from tilewright.hw.axi import AXILite, AXIRead, AXIWrite, BusSlice, Slice, channels
from tilewright.hw.chip import GATED, Chip
from tilewright.isa.config import parse_config

# A master's outputs and inputs; addresses have 32 bits, identifiers one, data `d` bytes.
READ_OUT = {"arid": 1, "araddr": 32, "arlen": 8, "arsize": 3, "arburst": 2, "arvalid": 1,
            "rready": 1}  # fmt: skip
WRITE_OUT = {"awid": 1, "awaddr": 32, "awlen": 8, "awsize": 3, "awburst": 2, "awvalid": 1,
             "wlast": 1, "wvalid": 1, "bready": 1}  # fmt: skip
READ_IN = {"arready": 1, "rid": 1, "rresp": 2, "rlast": 1, "rvalid": 1}
WRITE_IN = {"awready": 1, "wready": 1, "bid": 1, "bresp": 2, "bvalid": 1}
LITE_IN = {"awaddr": 12, "awprot": 3, "awvalid": 1, "wdata": 32, "wstrb": 4, "wvalid": 1,
           "bready": 1, "araddr": 12, "arprot": 3, "arvalid": 1, "rready": 1}  # fmt: skip
LITE_OUT = {"awready": 1, "wready": 1, "bresp": 2, "bvalid": 1, "arready": 1, "rdata": 32,
            "rresp": 2, "rvalid": 1}  # fmt: skip


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


@pytest.mark.parametrize(
    "text, width", [("tw4", 4), ("tw16", 16), ("dim=8,spad_kib=8,acc_kib=8,bus_bytes=2", 2)]
)
def test_every_pin_has_the_width_and_direction_of_the_specification(text, width):
    chip = Chip(parse_config(text))
    chip._MustUse__silence = True  # only its signature is wanted
    pins = {"__".join(map(str, path)): member for path, member, _ in chip.signature.flatten(chip)}
    inward = {name: Shape.cast(m.shape).width for name, m in pins.items() if m.flow == In}
    outward = {name: Shape.cast(m.shape).width for name, m in pins.items() if m.flow != In}
    want_in = {f"host_{n}": w for n, w in LITE_IN.items()}
    want_in |= {f"instr_{n}": w for n, w in (READ_IN | {"rdata": 128}).items()}
    want_in |= {f"data_{n}": w for n, w in (READ_IN | WRITE_IN | {"rdata": 8 * width}).items()}
    want_in |= {"clk": 1, "rst": 1, **{f"clk_{g}": 1 for g in GATED}}
    assert inward == want_in
    want_out = {f"host_{n}": w for n, w in LITE_OUT.items()}
    want_out |= {f"instr_{n}": w for n, w in READ_OUT.items()}
    written = {"wdata": 8 * width, "wstrb": width}
    want_out |= {f"data_{n}": w for n, w in (READ_OUT | WRITE_OUT | written).items()}
    want_out |= {"irq": 1, **{f"busy_{g}": 1 for g in GATED}}
    assert {n: w for n, w in outward.items() if not n.startswith("trace_")} == want_out
