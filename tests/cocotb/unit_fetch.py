"""Fetch alone: a random walk of the program counter over random memory latency."""

from random import Random

import cocotb
from cocotbext.axi import AxiRamRead, AxiReadBus
from cocotbext.axi.sparse_memory import SparseMemory
from unit_bench import GAPS, LONG, Unit, pause, quiet

BASE, COUNT, SIZE = 0x4600, 90, 64
STEPS = 400 if LONG else 100


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def fetch_gives_the_instruction_at_every_pc(dut, gap):
    """Straight lines, loops, jumps far away while beats of the old place are on their way."""
    unit, rng = Unit(dut), Random(gap)
    code = rng.randbytes(SIZE * COUNT)
    still = dict.fromkeys(("run", "start", "read", "jump", "pc", "target"), 0)
    still |= quiet("bus", "arready", "rvalid")
    await unit.reset({**still, "base": BASE, "count": COUNT})
    memory = AxiRamRead(
        AxiReadBus.from_prefix(dut, "bus_"), dut.clk, dut.rst, mem=SparseMemory(1 << 32)
    )
    memory.write(BASE, code)
    pause((memory.ar_channel, memory.r_channel), gap, 1)
    dut.start.value = 1
    await unit.ticks()
    dut.start.value, dut.run.value, pc = 0, 1, 0
    for _ in range(STEPS):
        await unit.ticks()
        while not unit.get("readable"):
            await unit.ticks()
        dut.read.value = 1
        await unit.ticks()
        dut.read.value = 0
        await unit.ticks()
        await unit.ticks(rng.choice((0, 1, 5, 40)))
        assert unit.get("word") == int.from_bytes(code[SIZE * pc :][:SIZE], "little"), f"at {pc}"
        jump = rng.random() < 0.15 or pc + 1 == COUNT
        near = max(0, pc - rng.randint(1, 20))
        following = rng.choice((rng.randrange(COUNT), near)) if jump else pc + 1
        dut.jump.value, dut.target.value = int(jump), following
        await unit.ticks()
        dut.jump.value, dut.pc.value, pc = 0, following, following
    assert not unit.get("error")
    dut.run.value = 0
    for _ in range(3000):
        await unit.ticks()
        if unit.get("idle"):
            return
    raise AssertionError("beats must end when nothing runs")
