"""What a debugger sees over AXI4-Lite: breakpoint, program counter, heads, semaphores, memories."""

import cocotb
import numpy as np
from chip_bench import (
    BREAK,
    COVER,
    CTRL,
    DEBUG_ADDR,
    DEBUG_DATA,
    HALTED,
    HEADS,
    PC,
    RESUME,
    RUNNING,
    SEMAPHORES,
    STATUS,
    STOPPED,
    UNITS,
    hit,
)
from chip_programs import CONFIG, DIM, GAPS, OUT, WORDS, program, ready, runs_right
from cocotb.triggers import ClockCycles

ON = 1 << 31
ROW = 4 * DIM  # bytes of an accumulator row
TEXT = f"""
    load acc[0x0], dram[0x1000], copy32, c0={DIM} c1=4 s1={ROW} l1=1 ; done s0
    load spad[0x0], dram[0x1000], copy8, c0={DIM} c1={4 * 4} s1={DIM} l1=1
    fence
    post s5, 7
    store dram[{OUT}], acc[0x0], i32->i32, int_path c0={DIM} c1=4 l1=1 s1={ROW} ; wait s9>=1
    load acc[0x8], dram[0x1000], copy32, c0={DIM} ; wait s10>=1
    matmul acc[0x10], spad[0x0], spad[{CONFIG.spad_bank}], i8*i8, r0=1 k=1 n=1 ; wait s11>=1
    post s9, 1
    post s10, 1
    post s11, 1
    halt"""


async def stopped(bench, pc: int):
    """Wait until the chip stands before `pc`."""
    for _ in range(500):
        if await bench.read(STATUS) & STOPPED:
            break
    assert await bench.read(STATUS) == RUNNING | STOPPED
    assert await bench.read(PC) == pc
    await ClockCycles(bench.dut.clk, 40)
    assert await bench.read(PC) == pc, "it must stay"
    hit("debug/stopped")


async def peek(bench, address: int) -> int:
    """A word of a local memory."""
    await bench.write(DEBUG_ADDR, address)
    return await bench.read(DEBUG_DATA)


async def head(bench, unit: str) -> int | None:
    """The PC of a queue's head."""
    value = await bench.read(HEADS + 4 * UNITS.index(unit))
    return value & ~ON if value & ON else None


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def a_debugger_sees_the_stopped_chip_and_goes_on(dut, gap):
    bench = await ready(dut, gap, seed=30)
    code = program(TEXT, (0x1000, WORDS))
    fill = f"load spad[{CONFIG.spad_bank}], fill, copy8, c0=1\n fence\n halt"
    await bench.run(program(fill))
    bench.place(code)
    await bench.write(BREAK, ON | 4)
    await bench.start(code)
    await stopped(bench, 4)
    assert [await head(bench, unit) for unit in UNITS] == [None] * 4
    counts = {0: 1, 5: 7, 9: 0}
    for sem, count in counts.items():
        assert await bench.read(SEMAPHORES + 4 * sem) == count, f"semaphore {sem}"
    hit("debug/semaphore")
    for row, lane in ((0, 0), (3, DIM - 1), (2, 1)):
        word = await peek(bench, ON | row * ROW + 4 * lane)
        assert word == WORDS[row, lane].view(np.uint32), f"accumulator row {row} lane {lane}"
    hit("debug/peek/acc")
    raw = WORDS.tobytes()
    for at in (0, 4, 16 * DIM - 4):
        assert await peek(bench, at) == int.from_bytes(raw[at : at + 4], "little"), f"spad at {at}"
    hit("debug/peek/spad")

    await bench.write(BREAK, ON | 7)
    await bench.write(CTRL, RESUME)
    await stopped(bench, 7)
    hit("debug/resumed")
    for unit, pc in (("load", 5), ("matmul", 6), ("vector", None), ("store", 4)):
        assert await head(bench, unit) == pc
        hit(f"debug/head/{unit}")
    assert not any(bench.data.read(OUT, 4 * ROW)), "the store must wait"
    await bench.write(BREAK, 0)
    await bench.write(CTRL, RESUME)
    outcome = await bench.finish()
    assert outcome.status == HALTED
    assert bench.data.read(OUT, 4 * ROW) == raw[: 4 * ROW]
    await runs_right(bench)


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def a_breakpoint_in_a_loop_stops_every_time(dut, gap):
    bench = await ready(dut, gap, seed=31)
    code = program("li r1, 0\n again:\n add r1, r1, 1\n blt r1, 3, again\n halt")
    bench.place(code)
    await bench.write(BREAK, ON | 1)
    await bench.start(code)
    for _ in range(3):
        await stopped(bench, 1)
        await bench.write(CTRL, RESUME)
        hit("debug/break_in_loop")
    assert (await bench.finish()).status == HALTED


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def registers_keep_what_concurrent_hosts_write(dut, gap):
    """Many accesses at once: the chip holds the host's channels back, nothing is lost."""
    bench = await ready(dut, gap, seed=32)
    rng = np.random.default_rng(32)
    places = (0x014, 0x018, 0x024, 0x028, 0x02C, 0x030, 0x038)
    masks = dict.fromkeys(places, 0xFFFFFFFF) | {0x038: ON | (1 << 26) - 1}
    for _ in range(3):
        values = {at: int(rng.integers(1 << 32)) & masks[at] for at in places}
        writes = [cocotb.start_soon(bench.write(at, value)) for at, value in values.items()]
        for write in writes:
            await write
        reads = {at: cocotb.start_soon(bench.read(at)) for at in places}
        for at, read in reads.items():
            assert await read == values[at], f"register {at:#x}"
    hit("debug/concurrent_host")


#: Bins of this file.
BINS = (
    *(f"debug/{x}" for x in ("stopped", "resumed", "semaphore", "peek/acc", "peek/spad")),
    *(f"debug/head/{unit}" for unit in UNITS),
    *("debug/break_in_loop", "debug/concurrent_host"),
)
COVER.update(dict.fromkeys(BINS, 0))
