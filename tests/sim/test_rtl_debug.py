"""The debug registers of the RTL: pc, heads, semaphores, memories, breakpoint; interrupts."""

import numpy as np
import pytest
from tilewright import sim
from tilewright.isa.config import parse_config
from tilewright.isa.encoding import Instr, encode
from tilewright.isa.table import Conv, Fault, Mem, Unit
from tilewright.sim import cycle
from tilewright.sim.rtl import (
    BREAK,
    CTRL,
    HEADS,
    ON,
    PC,
    SEMAPHORE_COUNTS,
    STATUS,
    RtlChip,
    fault_of,
)

SMALL = "dim=2,spad_kib=4,acc_kib=2"
I = Instr.make  # noqa: E741
BASE = 0x10000000


def begin(chip, *instrs):
    chip.write(BASE, b"".join(map(encode, instrs)))
    chip.start(BASE, len(instrs))


@pytest.fixture
def chip():
    with RtlChip(parse_config(SMALL)) as chip:
        yield chip


def test_what_is_stuck_can_be_read_after_a_deadlock(chip):
    blocked = {"load": 2, "matmul": 4, "store": 5}
    begin(
        chip,
        I("post", sem=31, n=200),
        I("post", sem=0, n=7),
        I("load", fill=1, wait0=0, wait0_n=8),
        I("load", fill=1),
        I("matmul", wait0=1, wait0_n=1),
        I("store", wait0=2, wait0_n=1),
        I("wait", sem=9, n=1),
    )
    chip.finish(10_000)
    assert fault_of(chip) == (Fault.DEADLOCK, 2)
    assert chip.host_read(PC) == 6
    heads = {u: chip.host_read(HEADS + 4 * Unit[u.upper()]) for u in blocked}
    assert heads == {u: ON | pc for u, pc in blocked.items()}
    assert chip.host_read(HEADS + 4 * Unit.VECTOR) == 0
    counts = [chip.host_read(SEMAPHORE_COUNTS + 4 * i) for i in range(32)]
    assert counts == [7] + [0] * 30 + [200]


@pytest.mark.parametrize("stall", [0, 30])
def test_local_memories_can_be_read_when_the_chip_has_halted(stall):
    config = parse_config(SMALL)
    rng = np.random.default_rng(1)
    spad = rng.integers(0, 256, 4096, np.uint8)
    acc = rng.integers(0, 256, 2048, np.uint8)
    with RtlChip(config, stall=stall) as chip:
        chip.write(0, spad)
        chip.write(0x1000, acc)
        begin(
            chip,
            I("load", c0=4096, l0=1, conv=Conv.COPY8),
            I("load", c0=512, l0=1, dram=0x1000, conv=Conv.COPY32, mem=Mem.ACC),
            I("halt"),
        )
        chip.finish(100_000)
        for mem, content in ((Mem.SPAD, spad), (Mem.ACC, acc)):
            words = content.view("<u4")
            some = [0, 1, 2, 3, 200, len(words) - 1]
            assert [chip.peek(mem, 4 * i) for i in some] == [int(words[i]) for i in some]


def test_a_breakpoint_stops_before_the_instruction_each_time(chip):
    words = [I("li", rd=1, b=0), I("add", rd=1, ra=1, b=1), I("stw", rd=1, ra=0, b=64),
             I("blt", ra=1, b=3, target=1), I("halt")]  # fmt: skip
    chip.host_write(BREAK, ON | 2)
    begin(chip, *words)
    for turn in range(3):
        chip.spin(400)
        assert chip.host_read(STATUS) == 1 | 8 and chip.host_read(PC) == 2
        assert chip.read(64, 1)[0] == turn
        if turn < 2:
            chip.host_write(CTRL, 4)
    chip.host_write(BREAK, 0)
    chip.finish(10_000)
    assert chip.host_read(STATUS) == 2 and chip.read(64, 1)[0] == 3


def test_at_a_breakpoint_memories_can_be_read_and_the_program_goes_on(chip):
    """Units finish what they have; bytes are those of a run without a breakpoint."""
    chip.write(0, bytes(range(16)))
    load = I("load", c0=16, l0=1, conv=Conv.COPY8, done_en=1, done_sem=1)
    words = [load, I("wait", sem=1, n=1), I("store", c0=16, l0=1, dst=0x100), I("halt")]
    chip.host_write(BREAK, ON | 1)
    begin(chip, *words)
    chip.spin(500)
    assert chip.peek(Mem.SPAD, 4) == 0x07060504
    assert chip.host_read(SEMAPHORE_COUNTS + 4) == 1
    chip.host_write(CTRL, 4)
    chip.finish(10_000)
    assert fault_of(chip) is None
    assert chip.read(0x100, 16).tolist() == list(range(16))


def test_abort_at_a_breakpoint(chip):
    chip.host_write(BREAK, ON | 0)
    begin(chip, I("halt"))
    chip.spin(300)
    assert chip.host_read(STATUS) == 9
    chip.abort()
    chip.finish(1000)
    assert fault_of(chip) == (Fault.ABORT, 0)


def test_a_breakpoint_that_is_not_met_changes_no_cycle(chip):
    words = [I("load", fill=1, c0=64), I("halt")]
    want = cycle.run(chip.config, b"".join(map(encode, words)), sim.Memory())
    chip.host_write(BREAK, ON | 7)
    begin(chip, *words)
    chip.finish(1000)
    assert chip.counters() == want.counters
