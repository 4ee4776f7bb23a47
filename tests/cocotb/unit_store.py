"""STORE alone: instructions of random programs, random AXI, against the functional engine."""

import cocotb
import numpy as np
from cocotbext.axi import AxiRamWrite, AxiWriteBus
from cocotbext.axi.sparse_memory import SparseMemory
from tilewright.isa.table import Mem
from unit_bench import GAPS, SEEDS, Unit, expect, instructions, move, pause, quiet

INPUTS = {"unit__start": 0, "stw_valid": 0, **quiet("bus", "awready", "wready", "bvalid")}


def memory_of(dut, gap: int, seed: int) -> AxiRamWrite:
    """DRAM at STORE's bus."""
    bus = AxiWriteBus.from_prefix(dut, "bus_")
    out = AxiRamWrite(bus, dut.clk, dut.rst, mem=SparseMemory(1 << 32))
    pause((out.aw_channel, out.w_channel, out.b_channel), gap, seed)
    return out


@cocotb.test()
@cocotb.parametrize(seed=SEEDS, gap=GAPS)
async def store_writes_what_the_functional_engine_writes(dut, seed, gap):
    unit = Unit(dut, seed)
    items, dram = instructions("store", seed)
    spad, _, want = expect(unit, "store", items, dram)
    await unit.reset(INPUTS)
    bus = memory_of(dut, gap, seed)
    bus.write(0, dram)
    unit.serve("acc_r", "spad_r", "spad_w")
    # these read what an earlier STORE may have written
    await move(unit, "store", items, lambda v: v["mem"] == Mem.SPAD or v["scatter"])
    assert np.array_equal(unit.spad, spad)
    assert bytes(bus.read(0, len(dram))) == want


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def store_writes_words_for_the_sequencer(dut, gap):
    unit = Unit(dut)
    await unit.reset(INPUTS)
    bus = memory_of(dut, gap, 5)
    words = {0: 0x12345678, 0x1FFC: 0xFFFFFFFF, 0x2000: 1}
    for at, word in words.items():
        await unit.ticks()
        dut.stw_valid.value, dut.stw_addr.value, dut.stw_data.value = 1, at, word
        await unit.ticks()
        dut.stw_valid.value = 0
        await unit.ticks()
        while not unit.get("stw_done"):
            await unit.ticks()
        assert bus.read_dword(at) == word
