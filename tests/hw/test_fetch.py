"""The prefetcher: lines in order, windows, discards, against a memory with latency and stalls."""

import importlib.util
import random
from pathlib import Path

import pytest
from amaranth.sim import Simulator
from tilewright.hw.fetch import Fetch
from tilewright.isa.timing import AXI_SLICE, FETCH_AR, FETCH_WRITE

_spec = importlib.util.spec_from_file_location(
    "fetch_memory", Path(__file__).with_name("fetch_memory.py")
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
Memory = _module.Memory

BASE = 0x1000
LINE = 512


def instruction(index):
    """A recognisable 512-bit word."""
    return sum((index * 4 + lane + 1) << (128 * lane) for lane in range(4))


def word(address):
    at = (address - BASE) // 16
    return at + 1


def drive(body, dut):
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(body)
    sim.run()


async def begin(ctx, dut, count):
    ctx.set(dut.base, BASE)
    ctx.set(dut.count, count)
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)
    ctx.set(dut.run, 1)


@pytest.mark.parametrize("latency,stall", [(10, 0), (60, 0), (3, 40), (60, 30)])
def test_fetch_reads_the_program_in_any_order(latency, stall):
    rng = random.Random(latency + stall)
    dut = Fetch()
    count = 100
    seen = 0

    async def body(ctx):
        nonlocal seen
        memory = Memory(dut.bus, latency, stall, seed=1)
        await begin(ctx, dut, count)
        pc, reading, last = 0, None, None
        for t in range(6000):
            memory.ready(ctx)
            memory.beat(ctx, t)
            assert last is None or ctx.get(dut.word) == instruction(last)  # until the next read
            ctx.set(dut.pc, pc)
            ctx.set(dut.read, 0)
            ctx.set(dut.jump, 0)
            if reading is not None:
                assert ctx.get(dut.word) == instruction(reading)
                seen += 1
                reading = None
                target = pc + 1
                if rng.random() < 0.2 or target >= count:
                    target = rng.choice((rng.randrange(count), max(0, pc - rng.randrange(12))))
                    ctx.set(dut.jump, 1)
                    ctx.set(dut.target, target)
                following = target
            else:
                following = pc
                if ctx.get(dut.readable) and rng.random() < 0.7:
                    ctx.set(dut.read, 1)
                    reading = last = pc
            memory.accept(ctx, t, word)
            await ctx.tick()
            pc = following
        assert not ctx.get(dut.error)

    drive(body, dut)
    assert seen > 150


def test_fetch_timing_of_a_straight_program():
    """Bursts leave every 16 cycles; a beat can be read FETCH_WRITE - AXI_SLICE cycles later."""
    dut = Fetch()
    latency, count = 20, 64

    async def body(ctx):
        memory = Memory(dut.bus, latency, 0)
        await begin(ctx, dut, count)
        readable = {}
        pc = 0
        for t in range(400):
            memory.ready(ctx)
            memory.beat(ctx, t)
            ctx.set(dut.pc, pc)
            memory.accept(ctx, t, word)
            if ctx.get(dut.readable) and pc < count:
                readable[pc] = t
                await ctx.tick()
                pc += 1
            else:
                await ctx.tick()
        sent = [t + AXI_SLICE for t, _ in memory.requests]  # on the pins
        assert sent[:8] == [FETCH_AR + 16 * i for i in range(8)]
        assert [a for _, a in memory.requests] == [BASE + 256 * i for i in range(16)]
        for index in range(32):  # as the memory allows: one beat per cycle
            pins = FETCH_AR + latency + 4 * index + 3
            assert readable[index] == pins + FETCH_WRITE - 2 * AXI_SLICE

    drive(body, dut)


def test_fetch_has_at_most_512_beats_in_flight():
    """Far jumps ask for more and more of a silent memory; one beat makes room for more."""
    dut = Fetch()
    sent = 0

    async def body(ctx):
        async def cycles(count):
            nonlocal sent
            for _ in range(count):
                sent += ctx.get(dut.bus.arvalid) & ctx.get(dut.bus.arready)
                await ctx.tick()

        ctx.set(dut.bus.arready, 1)
        await begin(ctx, dut, 4000)
        for i in range(16):
            target = 1000 * (1 + i % 3)
            await cycles(60)
            ctx.set(dut.jump, 1)
            ctx.set(dut.target, target)
            await cycles(1)
            ctx.set(dut.jump, 0)
            ctx.set(dut.pc, target)
        await cycles(100)
        assert sent == 512 // 16
        ctx.set(dut.bus.rvalid, 1)
        await cycles(1)
        ctx.set(dut.bus.rvalid, 0)
        await cycles(100)
        assert sent == 512 // 16 + 1

    drive(body, dut)


def test_fetch_stays_in_its_window():
    """No more than four lines are requested until the program counter moves on."""
    dut = Fetch()

    async def body(ctx):
        memory = Memory(dut.bus, 5, 0)
        await begin(ctx, dut, 1000)
        for t in range(300):
            memory.ready(ctx)
            memory.beat(ctx, t)
            memory.accept(ctx, t, word)
            await ctx.tick()
        assert [a for _, a in memory.requests] == [BASE + 256 * i for i in range(8)]
        assert memory.requests[-1][0] == 7 * 16
        ctx.set(dut.pc, 8)
        memory.accept(ctx, 300, word)
        assert memory.requests[-1] == (300, BASE + 4 * LINE)

    drive(body, dut)


@pytest.mark.parametrize("when", range(1, 36))
def test_fetch_discard_ends_the_burst_in_progress(when):
    """After a far jump in cycle `when`: no second burst, and the target after the current one."""
    dut = Fetch()

    async def body(ctx):
        memory = Memory(dut.bus, 60, 0)
        await begin(ctx, dut, 1000)
        pc = 0
        for t in range(100):
            memory.ready(ctx)
            memory.beat(ctx, t)
            ctx.set(dut.pc, pc)
            ctx.set(dut.jump, t == when)
            ctx.set(dut.target, 80)
            memory.accept(ctx, t, word)
            pc = 80 if t >= when else 0
            await ctx.tick()
        bursts = [16 * i for i in range(3) if 16 * i < when]
        first = max(when + 1, bursts[-1] + 16)
        want = [(t, BASE + 256 * i) for i, t in enumerate(bursts)]
        want += [(first, BASE + 10 * LINE), (first + 16, BASE + 10 * LINE + 256)]
        assert memory.requests[: len(want)] == want

    drive(body, dut)


def test_fetch_reports_an_error_response():
    dut = Fetch()

    async def body(ctx):
        memory = Memory(dut.bus, 5, 0)
        await begin(ctx, dut, 8)
        for t in range(60):
            memory.ready(ctx)
            memory.beat(ctx, t)
            ctx.set(dut.bus.rresp, 2 if t > 20 else 0)
            memory.accept(ctx, t, word)
            await ctx.tick()
        assert ctx.get(dut.error)

    drive(body, dut)


def test_fetch_keeps_a_loop_that_fits():
    """Two passes over a loop of four lines from line 1 on; only the first one requests."""
    dut = Fetch()
    first, last = 12, 39

    async def body(ctx):
        memory = Memory(dut.bus, 10, 0)
        await begin(ctx, dut, 1000)
        pc, passes, requests = 0, 0, []
        for t in range(2000):
            memory.ready(ctx)
            memory.beat(ctx, t)
            ctx.set(dut.pc, pc)
            go = ctx.get(dut.readable)
            back = go and pc == last
            ctx.set(dut.jump, back)
            ctx.set(dut.target, first)
            memory.accept(ctx, t, word)
            await ctx.tick()
            pc = first if back else pc + 1 if go else pc
            if back:
                passes += 1
                requests.append(len(memory.requests))
        assert passes > 10
        assert set(requests[1:]) == {requests[1]}
        assert memory.requests[-1][1] == BASE + 4 * LINE + 256

    drive(body, dut)


def test_fetch_forgets_the_loop_of_the_program_before():
    """A program may end inside its loop; the next one's window begins at its own counter."""
    dut = Fetch()

    async def run(ctx, memory, pcs, times):
        for t in times:
            memory.ready(ctx)
            memory.beat(ctx, t)
            pc = pcs.get(t, ctx.get(dut.pc))
            ctx.set(dut.pc, pc)
            ctx.set(dut.jump, t in pcs and pc == 20)
            ctx.set(dut.target, 0)
            memory.accept(ctx, t, word)
            await ctx.tick()

    async def body(ctx):
        memory = Memory(dut.bus, 5, 0)
        await begin(ctx, dut, 1000)
        await run(ctx, memory, {200: 20, 201: 3}, range(300))  # back from 20 to 0, ends at 3
        ctx.set(dut.run, 0)
        ctx.set(dut.pc, 0)
        await ctx.tick()
        await begin(ctx, dut, 1000)
        memory.requests.clear()
        await run(ctx, memory, {}, range(300, 600))
        assert [a for _, a in memory.requests] == [BASE + 256 * i for i in range(8)]
        await run(ctx, memory, {600: 8}, range(600, 601))
        assert memory.requests[-1] == (600, BASE + 4 * LINE)

    drive(body, dut)
