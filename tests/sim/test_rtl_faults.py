"""Imprecise faults, abort, watchdog on the RTL: they end, and the next program is right."""

import pytest
from tilewright import sim
from tilewright.isa.config import parse_config
from tilewright.isa.encoding import Instr, encode
from tilewright.isa.table import Conv, Fault
from tilewright.sim import cycle, functional
from tilewright.sim.generate import generate
from tilewright.sim.rtl import STATUS, WATCHDOG, RtlChip, fault_of

CONFIG = parse_config("dim=2,spad_kib=4,acc_kib=2")
I = Instr.make  # noqa: E741
HALT = I("halt")
POST = I("post", sem=3, n=200)
LOAD = I("load", c0=8, c1=40, s1=16, l1=4, conv=Conv.COPY8, done_en=1, done_sem=3)
STORE = I("store", c0=8, c1=40, l1=4, s1=16, dst=0x800)
MISSING = I("store", c0=8, dst=0x800, wait0=9, wait0_n=1)  # waits for ever
LEGAL = generate(4, CONFIG, faults=False).program  # what runs afterwards


def code_of(*instrs):
    return b"".join(map(encode, instrs))


def begin(chip, *instrs, base=0x10000000):
    code = code_of(*instrs)
    chip.write(base, code)
    chip.start(base, len(instrs))


def runs_the_next_program(chip):
    """Everything as on a chip out of reset, cycles included."""
    memory = sim.load_memory(LEGAL)
    for address, content in memory.chunks():
        chip.write(address, content)
    want = cycle.run(CONFIG, LEGAL.code, memory)
    base = 0x20000000
    chip.write(base, LEGAL.code)
    chip.start(base, len(LEGAL))
    chip.finish(1_000_000)
    assert fault_of(chip) is None and chip.host_read(STATUS) == 2
    for address, content in want.memory.chunks():
        assert (chip.read(address, content.size) == content).all()
    return chip.counters(), want.counters


@pytest.mark.parametrize(
    "instrs, pc",
    [
        ((POST, POST, HALT), 1),
        ((POST, I("post", sem=3, n=55), I("fence"), LOAD, HALT), 3),
        ((POST, I("post", sem=3, n=55), LOAD, MISSING, LOAD, HALT), 2),
        ((I("post", sem=3, n=255), LOAD, I("wait", sem=8, n=1), HALT), 1),
    ],
)
def test_semaphore_overflow(instrs, pc):
    machine = functional.run(CONFIG, code_of(*instrs), sim.Memory())
    assert (machine.fault.code, machine.fault.pc) == (Fault.SEMAPHORE, pc)
    with RtlChip(CONFIG) as chip:
        begin(chip, *instrs)
        chip.finish(100_000)
        assert fault_of(chip) == (Fault.SEMAPHORE, pc)
        got, want = runs_the_next_program(chip)
        assert got == want


LI = I("li", rd=1, b=0x400)
BUS = {
    "load": ((LI, LOAD, LOAD, HALT), "read", 1),
    "ldw": ((LI, I("ldw", rd=2, ra=1, b=0), HALT), "read", 1),
    "store": ((LI, STORE, STORE, HALT), "write", 1),
    "stw": ((LI, I("stw", rd=2, ra=1, b=0), HALT), "write", 1),
    "blocked": ((LI, LOAD, MISSING, I("fence"), HALT), "read", 1),
}


@pytest.mark.parametrize("stall", [0, 30])
@pytest.mark.parametrize("name", BUS)
def test_bus_error(name, stall):
    instrs, way, pc = BUS[name]
    with RtlChip(CONFIG, stall=stall, seed=1) as chip:
        chip.options(error_read=way == "read", error_write=way == "write")
        begin(chip, *instrs)
        chip.finish(100_000)
        code, at = fault_of(chip)
        # a word's error is seen when the sequencer may already be at the next instruction
        assert code == Fault.BUS and at in ((pc,) if name in ("load", "store") else (pc, pc + 1))
        chip.options()
        got, want = runs_the_next_program(chip)
        assert stall or got == want


@pytest.mark.parametrize("after", [1, 70, 130, 150, 175, 220, 300, 500, 900])
@pytest.mark.parametrize("stall", [0, 30])
def test_abort_at_any_time(after, stall):
    busy = generate(6, CONFIG, faults=False).program
    memory = sim.load_memory(busy)
    with RtlChip(CONFIG, stall=stall, seed=after) as chip:
        for address, content in memory.chunks():
            chip.write(address, content)
        chip.write(0x10000000, busy.code)
        chip.start(0x10000000, len(busy))
        chip.spin(after)
        chip.abort()
        chip.finish(100_000)
        found = fault_of(chip)
        assert found is None or found[0] == Fault.ABORT  # it may have halted before
        got, want = runs_the_next_program(chip)
        assert stall or got == want


@pytest.mark.parametrize(
    "instrs", [(I("jmp", target=0),), (LOAD, I("wait", sem=3, n=1), I("jmp", target=0))]
)
def test_watchdog_ends_an_endless_program(instrs):
    with RtlChip(CONFIG) as chip:
        chip.host_write(WATCHDOG, 3000)
        begin(chip, *instrs)
        chip.finish(100_000)
        assert fault_of(chip)[0] == Fault.WATCHDOG
        cycles = chip.counters()["cycles"]
        assert 3000 < cycles < 3200
        chip.host_write(WATCHDOG, 0)
        got, want = runs_the_next_program(chip)
        assert got == want
