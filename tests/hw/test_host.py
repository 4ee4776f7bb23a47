"""The host's registers over AXI4-Lite."""

import importlib.util
from pathlib import Path

from amaranth.sim import Simulator
from tilewright.hw.host import Host
from tilewright.isa.config import PRESETS, parse_config

_spec = importlib.util.spec_from_file_location("vsim", Path(__file__).parent / "vsim.py")
vsim = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(vsim)


def drive(body, config=PRESETS["tw16"]):
    dut = Host(config)
    sim = Simulator(dut)
    sim.add_clock(1e-6)

    async def bench(ctx):
        await body(ctx, dut)

    sim.add_testbench(bench)
    sim.run()


async def write(ctx, dut, address, value, gap=0):
    """AW first, W `gap` cycles later."""
    bus = dut.bus
    ctx.set(bus.awaddr, address)
    ctx.set(bus.awvalid, 1)
    await ctx.tick().repeat(gap) if gap else None
    ctx.set(bus.wdata, value)
    ctx.set(bus.wvalid, 1)
    assert ctx.get(bus.awready) and ctx.get(bus.wready)
    await ctx.tick()
    ctx.set(bus.awvalid, 0)
    ctx.set(bus.wvalid, 0)
    assert ctx.get(bus.bvalid) and ctx.get(bus.bresp) == 0
    ctx.set(bus.bready, 1)
    await ctx.tick()
    ctx.set(bus.bready, 0)
    assert not ctx.get(bus.bvalid)


async def read(ctx, dut, address):
    bus = dut.bus
    ctx.set(bus.araddr, address)
    ctx.set(bus.arvalid, 1)
    assert ctx.get(bus.arready)
    await ctx.tick()
    ctx.set(bus.arvalid, 0)
    while not ctx.get(bus.rvalid):
        await ctx.tick()
    value = ctx.get(bus.rdata)
    await ctx.tick().repeat(2)
    assert ctx.get(bus.rvalid) and ctx.get(bus.rdata) == value  # held
    ctx.set(bus.rready, 1)
    await ctx.tick()
    ctx.set(bus.rready, 0)
    return value


def test_identity_and_geometry():
    async def body(ctx, dut):
        assert await read(ctx, dut, 0x000) == 0x54570001
        assert await read(ctx, dut, 0x01C) == 16 | 16 << 8 | 8 << 16 | 6 << 24
        assert await read(ctx, dut, 0x7F0) == 0
        assert await read(ctx, dut, 0x004) == 0  # CTRL keeps nothing

    drive(body)


def test_geometry_tells_an_int8_array():
    async def body(ctx, dut):
        assert await read(ctx, dut, 0x01C) == 4 | 4 << 8 | 3 << 16 | 2 << 24 | 1 << 31

    drive(body, parse_config("dim=4,spad_kib=8,acc_kib=4,array=int8"))


def test_window_is_everything_after_reset_and_stays_while_running():
    async def body(ctx, dut):
        assert await read(ctx, dut, 0x024) == 0
        assert await read(ctx, dut, 0x028) == 0xFFFFFFFF
        await write(ctx, dut, 0x024, 0x1000)
        await write(ctx, dut, 0x028, 0x1FFF)
        ctx.set(dut.run, 1)
        await write(ctx, dut, 0x024, 0)
        await write(ctx, dut, 0x028, 0)
        assert (ctx.get(dut.window_base), ctx.get(dut.window_limit)) == (0x1000, 0x1FFF)

    drive(body)


def test_start_is_one_pulse_and_ignored_while_running():
    async def body(ctx, dut):
        await write(ctx, dut, 0x014, 0x2000, gap=3)
        await write(ctx, dut, 0x018, 7)
        assert (ctx.get(dut.base), ctx.get(dut.count)) == (0x2000, 7)
        ctx.set(dut.bus.awaddr, 0x004)
        ctx.set(dut.bus.wdata, 1)
        ctx.set(dut.bus.awvalid, 1)
        ctx.set(dut.bus.wvalid, 1)
        ctx.set(dut.bus.bready, 1)
        await ctx.tick()
        ctx.set(dut.bus.awvalid, 0)
        ctx.set(dut.bus.wvalid, 0)
        assert ctx.get(dut.start) == 1
        await ctx.tick()
        assert ctx.get(dut.start) == 0
        ctx.set(dut.bus.bready, 0)
        ctx.set(dut.run, 1)
        await write(ctx, dut, 0x004, 1)
        await write(ctx, dut, 0x018, 9)
        assert ctx.get(dut.start) == 0 and ctx.get(dut.count) == 7
        assert await read(ctx, dut, 0x008) == 1

    drive(body)


def test_what_the_host_asks_for_is_one_pulse_each():
    """START, ABORT and RESUME of CTRL, and a look at a local memory, in the cycle of the answer."""

    async def body(ctx, dut):
        names = ("start", "abort", "resume", "peek")
        asks = [(0x004, 1, "start"), (0x004, 2, "abort"), (0x004, 4, "resume"), (0x030, 8, "peek")]
        for address, value, name in asks:
            for port, x in (("awaddr", address), ("wdata", value), ("awvalid", 1), ("wvalid", 1)):
                ctx.set(getattr(dut.bus, port), x)
            ctx.set(dut.bus.bready, 1)
            await ctx.tick()
            ctx.set(dut.bus.awvalid, 0)
            ctx.set(dut.bus.wvalid, 0)
            assert [n for n in names if ctx.get(getattr(dut, n))] == [name]
            for _ in range(3):
                await ctx.tick()
                assert not any(ctx.get(getattr(dut, n)) for n in names)

    drive(body)


def test_status_is_write_one_to_clear_and_interrupts():
    async def body(ctx, dut):
        await write(ctx, dut, 0x020, 1)
        ctx.set(dut.faulted, 1)
        ctx.set(dut.fault, 3)
        ctx.set(dut.fault_pc, 0x123)
        await ctx.tick()
        ctx.set(dut.faulted, 0)
        await ctx.tick()
        assert ctx.get(dut.irq) == 1
        assert await read(ctx, dut, 0x008) == 4
        assert await read(ctx, dut, 0x00C) == 3
        assert await read(ctx, dut, 0x010) == 0x123
        await write(ctx, dut, 0x008, 2)
        assert await read(ctx, dut, 0x008) == 4
        await write(ctx, dut, 0x008, 4)
        assert await read(ctx, dut, 0x008) == 0 and ctx.get(dut.irq) == 0
        ctx.set(dut.halted, 1)
        await ctx.tick()
        ctx.set(dut.halted, 0)
        assert await read(ctx, dut, 0x008) == 2 and ctx.get(dut.irq) == 1

    drive(body)


def test_counters():
    async def body(ctx, dut):
        ctx.set(dut.run, 1)
        ctx.set(dut.row, 1)
        ctx.set(dut.row_macs, 200)
        ctx.set(dut.beat_read, 1)
        for unit in range(4):
            for i in range(6):
                ctx.set(dut.units[6 * unit + i], 1000 * unit + i)
        await ctx.tick().repeat(10)
        ctx.set(dut.row, 0)
        ctx.set(dut.beat_read, 0)
        await ctx.tick().repeat(2)
        ctx.set(dut.run, 0)
        await ctx.tick()
        values = [await read(ctx, dut, 0x100 + 4 * i) for i in range(40)]
        assert values[:7] == [12, 2000, 0, 560, 0, 10, 0]
        for unit in range(4):
            assert values[8 + 8 * unit : 14 + 8 * unit] == [1000 * unit + i for i in range(6)]
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        assert await read(ctx, dut, 0x100) == 0 and await read(ctx, dut, 0x104) == 0

    drive(body)


def test_counters_of_macs_have_64_bits():
    """256 in each of more than 2^24 cycles, first useful ones, then padding."""
    text = vsim.convert(Host(PRESETS["tw16"]), name="host").replace("abort", "stop")  # C's
    model = vsim.build(None, name="host", sources={"host.v": text.replace("__", "_")})
    model.set("run", 1)
    model.set("row", 1)
    cycles = (1 << 24) + 5
    for macs in (256, 0):
        model.set("row_macs", macs)
        model.tick(cycles)
    model.set("row", 0)
    words = []
    for address in (0x104, 0x108, 0x10C, 0x110):
        model.set("bus_araddr", address)
        model.set("bus_arvalid", 1)
        model.tick()
        model.set("bus_arvalid", 0)
        model.tick(3)
        words.append(model.get("bus_rdata"))
        model.set("bus_rready", 1)
        model.tick()
        model.set("bus_rready", 0)
    assert words == 2 * [(256 * cycles) & 0xFFFFFFFF, 1]
