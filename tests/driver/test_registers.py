"""The table of host registers: sound, printed in the documents, and what the RTL does."""

from pathlib import Path

import pytest
from tilewright.isa.config import parse_config
from tilewright.isa.registers import (
    COUNTERS,
    REGISTERS,
    UNIT_COUNTERS,
    Access,
    geometry_word,
    render,
    unit_counter,
)
from tilewright.isa.table import Unit
from tilewright.sim import rtl_build
from tilewright.sim.rtl import RtlChip

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = parse_config("dim=2,spad_kib=4,acc_kib=2")
PATTERNS = (0xFFFFFFFF, 0, 0xA5A5A5A5, 0x5A5A5A5A)


def test_document_is_current():
    text = (ROOT / "docs" / "driver.md").read_text()
    assert text.endswith("Do not edit below.*\n\n" + render())


def test_words_and_bits_do_not_overlap():
    words = [r.offset + 4 * i for r in REGISTERS.values() for i in range(r.count)]
    assert len(set(words)) == len(words)
    assert all(at % 4 == 0 and at < 1 << 12 for at in words)
    for r in REGISTERS.values():
        assert sum(b.mask for b in r.bits) == sum({1 << i for b in r.bits for i in _bits(b)})
        assert [b.low for b in r.bits] == sorted(b.low for b in r.bits)
        assert all(b.low + b.width <= 32 for b in r.bits)
    indices = [c.index + i for c in COUNTERS.values() for i in range(c.words)]
    indices += [unit_counter(u) + i for u in range(4) for i in range(len(UNIT_COUNTERS))]
    assert len(set(indices)) == len(indices) and max(indices) < REGISTERS["COUNTER"].count


def _bits(field):
    return range(field.low, field.low + field.width)


def test_offsets_are_those_of_the_first_chip():
    """Firmware that was built once goes on working."""
    want = {
        "ID": 0x000, "CTRL": 0x004, "STATUS": 0x008, "FAULT": 0x00C, "FAULT_PC": 0x010,
        "CODE_BASE": 0x014, "CODE_COUNT": 0x018, "GEOMETRY": 0x01C, "IRQ_ENABLE": 0x020,
        "WINDOW_BASE": 0x024, "WINDOW_LIMIT": 0x028, "WATCHDOG": 0x02C, "DEBUG_ADDR": 0x030,
        "DEBUG_DATA": 0x034, "BREAK": 0x038, "PC": 0x03C, "HEAD_LOAD": 0x040,
        "HEAD_MATMUL": 0x044, "HEAD_VECTOR": 0x048, "HEAD_STORE": 0x04C, "SEMAPHORE": 0x080,
        "COUNTER": 0x100,
    }  # fmt: skip
    assert {r.name: r.offset for r in REGISTERS.values()} == want
    assert [unit_counter(u) for u in Unit if u != Unit.SEQ] == [8, 16, 24, 32]


@pytest.fixture(scope="module")
def chip():
    try:
        rtl_build.require_tools()
        rtl_build.verilator_root()
    except rtl_build.RtlUnavailableError as error:
        pytest.skip(str(error))
    with RtlChip(CONFIG) as chip:
        yield chip


def test_reset_values_and_access_are_the_rtl_s(chip):
    """Registers that the host only reads stay; of the others exactly the table's bits change."""
    reset = {name: r.reset for name, r in REGISTERS.items()} | {"GEOMETRY": geometry_word(CONFIG)}
    undefined = {"DEBUG_DATA"}  # a word of a memory
    for name, r in REGISTERS.items():
        if r.access is Access.W1 or name in undefined:
            continue
        for i in range(r.count):
            assert chip.host_read(r.offset + 4 * i) == reset[name], name
        writable = sum(b.mask for b in r.bits if b.access is Access.RW)
        if not r.bits and r.access is Access.RW:
            writable = 0xFFFFFFFF
        for value in PATTERNS if writable else (0xFFFFFFFF,):
            chip.host_write(r.offset, value)
            want = value & writable if writable else reset[name]
            assert chip.host_read(r.offset) == want, name
        chip.host_write(r.offset, reset[name])


def test_all_other_words_read_zero_and_take_nothing(chip):
    known = {r.offset + 4 * i for r in REGISTERS.values() for i in range(r.count)}
    before = {name: chip.host_read(REGISTERS[name].offset) for name in REGISTERS}
    for at in range(0, 0x400, 4):
        if at not in known:
            chip.host_write(at, 0xFFFFFFFF)
            assert chip.host_read(at) == 0
    assert {name: chip.host_read(REGISTERS[name].offset) for name in REGISTERS} == before
