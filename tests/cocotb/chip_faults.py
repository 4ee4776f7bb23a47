"""Each fault on the exported chip: code, PC, interrupt, write-one-to-clear, recovery.

Precise faults are held against the functional engine. Imprecise ones (BUS, ABORT, WATCHDOG) have
their code, and a PC that the program allows. After each the next program runs right, without reset.
"""

from random import Random

import cocotb
from chip_bench import (
    ABORT,
    COVER,
    CTRL,
    FAULT,
    FAULT_PC,
    FAULTED,
    HALTED,
    STATUS,
    WATCHDOG,
    WINDOW,
    hit,
    settings,
)
from chip_programs import (
    BUSY,
    CONFIG,
    DIM,
    GAPS,
    OUT,
    SLOW,
    SMALL,
    WORDS,
    program,
    ready,
    runs_right,
)
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from tilewright.isa.table import Fault

BEYOND = CONFIG.acc_rows
OPERANDS = f"spad[0x0], spad[{CONFIG.spad_bank}], i8*i8"
GRANTED = (0x1000, 0x8FFF)  # window
#: fault/where -> program; the functional engine says the PC.
PRECISE = {
    "opcode/dispatch": "post s0, 1\n .raw 0x3f\n halt",
    "field/load": "li r1, 0\n load acc[0x0], fill, copy32, c0=r1\n halt",
    "field/matmul": f"li r1, 0\n matmul acc[0x0], {OPERANDS}, k=r1 n=1\n halt",
    "field/store": f"li r1, 0\n store dram[{OUT}], acc[0x0], i32->i32, int_path c0=r1\n halt",
    "field/ldw": "li r1, 2\n ldw r2, r1, 0\n halt",
    "range/load": f"li r1, {BEYOND}\n load acc[r1], fill, copy32, c0=1\n halt",
    "range/matmul": f"li r1, {BEYOND}\n matmul acc[r1], {OPERANDS}, k=1 n=1\n halt",
    "range/store": f"li r1, {BEYOND}\n store dram[{OUT}], acc[r1], i32->i32, int_path c0=1\n halt",
    "window/load": f"load acc[0x0], dram[0xffc], copy32, c0={DIM}\n halt",
    "window/store": f"store dram[0x8ffc], acc[0x0], i32->i32, int_path c0={DIM}\n halt",
    "window/ldw": "ldw r2, r0, 0x9000\n halt",
    "window/stw": "stw r2, r0, 0xffc\n halt",
    "pc/jump": "jmp 77",
    "semaphore/post": "post s3, 255\n post s3, 1\n fence\n halt",
    "semaphore/load": "post s3, 255\n load acc[0x0], fill, copy32, c0=1 ; done s3\n fence\n halt",
    "deadlock/wait": "li r1, 1\n wait s3, 1\n halt",
    "deadlock/load": "load acc[0x0], fill, copy32, c0=1 ; wait s3>=1\n fence\n halt",
    "deadlock/store": f"store dram[{OUT}], acc[0x0], i32->i32, int_path c0=1 ; wait s3>=1\n halt",
}
FOREVER = program("li r1, 1\n again:\n jmp again")
WORD_READ = program("fence\n ldw r1, r0, 0x1000\n halt")
WORD_WRITTEN = program(f"fence\n stw r1, r0, {OUT}\n halt")


async def acknowledge(bench, code: Fault):
    """The interrupt stays until the bit that is set is written with one."""
    dut = bench.dut
    assert dut.irq.value == 1
    assert await bench.read(STATUS) == FAULTED
    assert await bench.read(FAULT) == code
    await bench.write(STATUS, HALTED)
    assert await bench.read(STATUS) == FAULTED
    await bench.write(STATUS, FAULTED)
    assert await bench.read(STATUS) == 0
    assert dut.irq.value == 0
    hit("interrupt/cleared")


@cocotb.test()
@cocotb.parametrize(case=list(PRECISE), gap=(0, SLOW) if settings()["long"] else (SLOW,))
async def a_precise_fault_names_its_instruction(dut, case, gap):
    bench = await ready(dut, gap, seed=20)
    code = Fault[case.split("/")[0].upper()]
    window = GRANTED if code == Fault.WINDOW else WINDOW
    outcome = await bench.run(program(PRECISE[case]), window)
    assert outcome.fault is not None
    assert outcome.fault[0] == code
    hit(f"chip_fault/{case}")
    await acknowledge(bench, code)
    await runs_right(bench)


def answers(channel, name: str, resp: int, beat: int):
    """Let one response of a channel be an error: the `beat`-th from now. Gives the way back."""
    send, left = channel.send, beat

    async def wrong(cycle):
        nonlocal left
        if left == 0:
            setattr(cycle, name, resp)
        left -= 1
        await send(cycle)

    channel.send = wrong

    def restore():
        channel.send = send

    return restore


#: where -> port, field, program, which response, PCs that may be named
BUS = {
    "load": ("data_r", "rresp", SMALL, 3, {0}),
    "store": ("data_b", "bresp", SMALL, 0, {1}),
    "ldw": ("data_r", "rresp", WORD_READ, 0, {1}),
    "stw": ("data_b", "bresp", WORD_WRITTEN, 0, {1}),
    "fetch": ("instr_r", "rresp", SMALL, 9, set(range(4))),
}


@cocotb.test()
@cocotb.parametrize(where=list(BUS), resp=[2, 3], gap=(0, SLOW) if settings()["long"] else (SLOW,))
async def an_error_response_is_a_bus_fault(dut, where, resp, gap):
    """SLVERR or DECERR on each port, and the unit's instruction is named."""
    bench = await ready(dut, gap, seed=21)
    port, field, code, beat, named = BUS[where]
    channel = {
        "data_r": bench.data.read_if.r_channel,
        "data_b": bench.data.write_if.b_channel,
        "instr_r": bench.code.r_channel,
    }[port]
    bench.place(code)
    restore = answers(channel, field, resp, beat)
    await bench.start(code)
    outcome = await bench.finish()
    restore()
    assert outcome.fault is not None
    assert outcome.fault[0] == Fault.BUS
    assert outcome.fault[1] in named, f"PC {outcome.fault[1]}, not one of {named}"
    assert not any(bench.flying().values()), "bursts must have ended"
    hit(f"chip_fault/bus/{where}")
    await acknowledge(bench, Fault.BUS)
    await runs_right(bench)


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def the_watchdog_ends_an_endless_loop(dut, gap):
    bench = await ready(dut, gap, seed=22)
    await bench.write(WATCHDOG, 500)
    bench.place(FOREVER)
    await bench.start(FOREVER)
    outcome = await bench.finish()
    assert outcome.fault == (Fault.WATCHDOG, 1)
    assert 500 <= outcome.cycles < 700
    hit("chip_fault/watchdog/loop")
    await acknowledge(bench, Fault.WATCHDOG)
    await bench.write(WATCHDOG, 0)
    await runs_right(bench)


async def until(bench, phase: str, rng: Random):
    """A moment at which `phase` is under way."""
    for _ in range(4000):
        await RisingEdge(bench.dut.clk)
        if phase in bench.phases() and rng.random() < 0.15:
            return
    raise AssertionError(f"{phase} was never under way")


PHASES = ("idle", "instr", "read", "write", "array")


@cocotb.test()
@cocotb.parametrize(phase=PHASES[1:], gap=GAPS)
async def an_abort_drains_and_the_next_program_runs(dut, phase, gap):
    """All bursts end, the fault is reported, no reset is needed."""
    bench = await ready(dut, gap, seed=23)
    rng = Random(f"{phase} {gap}")
    bench.place(BUSY)
    await bench.start(BUSY)
    await until(bench, phase, rng)
    for found in bench.phases():
        hit(f"abort/{found}")
    await bench.write(CTRL, ABORT)
    outcome = await bench.finish()
    assert outcome.fault is not None
    assert outcome.fault[0] == Fault.ABORT
    assert outcome.fault[1] < 10
    assert not any(bench.flying().values()), "bursts must have ended"
    for unit, cycles in outcome.causes.items():
        assert cycles == outcome.cycles, f"causes of {unit}: {cycles} of {outcome.cycles}"
    hit("chip_fault/abort/host")
    await acknowledge(bench, Fault.ABORT)
    await runs_right(bench)


@cocotb.test()
async def an_abort_of_nothing_is_ignored(dut):
    bench = await ready(dut)
    hit("abort/idle")
    await bench.write(CTRL, ABORT)
    await ClockCycles(dut.clk, 20)
    assert await bench.read(STATUS) == 0
    await runs_right(bench)


@cocotb.test()
@cocotb.parametrize(phase=PHASES, gap=GAPS)
async def reset_in_mid_flight_leaves_nothing_behind(dut, phase, gap):
    """The memories share the reset, so no response comes late; then a correct run."""
    bench = await ready(dut, gap, seed=24)
    rng = Random(f"{phase} {gap}")
    for _ in range(2):
        if phase != "idle":
            bench.place(BUSY)
            await bench.start(BUSY)
        await until(bench, phase, rng)
        await bench.reset()
        assert await bench.read(STATUS) == 0
        assert await bench.read(FAULT) == 0
        assert await bench.read(FAULT_PC) == 0
        assert dut.irq.value == 0
        await runs_right(bench)


@cocotb.test()
async def an_interrupt_comes_only_if_it_is_enabled(dut):
    bench = await ready(dut, SLOW, seed=25)
    bench.place(SMALL)
    await bench.start(SMALL, irq=0)
    while await bench.read(STATUS) != HALTED:
        assert dut.irq.value == 0
    await ClockCycles(dut.clk, 5)
    assert dut.irq.value == 0
    hit("interrupt/disabled")
    await bench.write(0x020, 1)
    if dut.irq.value != 1:
        await with_timeout(RisingEdge(dut.irq), 200, "ns")
    hit("interrupt/enabled_late")
    await bench.write(STATUS, FAULTED)
    assert dut.irq.value == 1
    await bench.write(STATUS, HALTED)
    assert await bench.read(STATUS) == 0
    assert dut.irq.value == 0
    assert bench.data.read(OUT, WORDS.nbytes) == WORDS.tobytes()


@cocotb.test()
async def starting_while_it_runs_changes_nothing(dut):
    bench = await ready(dut, 3, seed=10)
    bench.place(SMALL)
    await bench.start(SMALL)
    await bench.write(CTRL, 1)
    outcome = await bench.finish()
    assert outcome.status == HALTED
    assert outcome.counters["load_instructions"] == 1
    assert bench.data.read(OUT, WORDS.nbytes) == WORDS.tobytes()


#: Bins of this file.
BINS = (
    *(f"chip_fault/{case}" for case in PRECISE),
    *(f"chip_fault/bus/{where}" for where in BUS),
    *("chip_fault/watchdog/loop", "chip_fault/abort/host"),
    *(f"{how}/{phase}" for how in ("abort", "reset") for phase in PHASES),
    *(f"interrupt/{x}" for x in ("halt", "fault", "cleared", "disabled", "enabled_late")),
)
COVER.update(dict.fromkeys(BINS, 0))
