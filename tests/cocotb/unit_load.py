"""LOAD alone: instructions of random programs, random AXI, against the functional engine."""

import cocotb
import numpy as np
from cocotbext.axi import AxiRamRead, AxiReadBus
from cocotbext.axi.sparse_memory import SparseMemory
from unit_bench import GAPS, SEEDS, Unit, expect, instructions, move, pause, quiet


def memory_of(dut, gap: int, seed: int) -> AxiRamRead:
    """DRAM at LOAD's bus."""
    bus = AxiReadBus.from_prefix(dut, "axi_")
    out = AxiRamRead(bus, dut.clk, dut.rst, mem=SparseMemory(1 << 32))
    pause((out.ar_channel, out.r_channel), gap, seed)
    return out


@cocotb.test()
@cocotb.parametrize(seed=SEEDS, gap=GAPS)
async def load_writes_what_the_functional_engine_writes(dut, seed, gap):
    unit = Unit(dut, seed)
    items, dram = instructions("load", seed)
    spad, acc, _ = expect(unit, "load", items, dram)
    await unit.reset({"unit__start": 0, "ldw_valid": 0, **quiet("axi", "arready", "rvalid")})
    bus = memory_of(dut, gap, seed)
    bus.write(0, dram)
    unit.serve("spad", "acc", "spad_r")
    # gather reads what an earlier LOAD may have written
    await move(unit, "load", items, lambda v: v["gather"])
    assert np.array_equal(unit.spad, spad)
    assert np.array_equal(unit.acc, acc)


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def load_reads_words_for_the_sequencer(dut, gap):
    unit = Unit(dut)
    words = np.random.default_rng(5).integers(0, 1 << 32, 16, np.uint32)
    await unit.reset({"unit__start": 0, "ldw_valid": 0, **quiet("axi", "arready", "rvalid")})
    bus = memory_of(dut, gap, 5)
    bus.write(0, words.tobytes())
    for i in (0, 3, 15, 7):
        await unit.ticks()
        dut.ldw_valid.value, dut.ldw_addr.value = 1, 4 * i
        await unit.ticks()
        dut.ldw_valid.value = 0
        await unit.ticks()
        while not unit.get("ldw_done"):
            await unit.ticks()
        assert unit.get("ldw_data") == words[i]
