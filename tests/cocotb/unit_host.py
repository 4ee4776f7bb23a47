"""The host's registers alone: random events on one side, AXI4-Lite with pauses on the other."""

from random import Random

import cocotb
from chip_bench import (
    COUNTERS,
    FAULT,
    FAULT_PC,
    FAULTED,
    HALTED,
    IRQ_ENABLE,
    RUNNING,
    STATUS,
)
from cocotbext.axi import AxiLiteBus, AxiLiteMaster
from unit_bench import CONFIG, GAPS, Unit, pause, quiet

EVENTS = ("row", "row_macs", "beat_read", "beat_written")
QUIET = ("run", "clear", "halted", "faulted", "fault", "fault_pc", "stopped", "paused", *EVENTS)


async def ready(dut, gap: int) -> tuple[Unit, AxiLiteMaster]:
    """A unit and its host."""
    unit = Unit(dut)
    await unit.reset(dict.fromkeys(QUIET, 0) | quiet("bus", "awvalid", "wvalid", "arvalid"))
    host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "bus_"), dut.clk, dut.rst)
    write, read = host.write_if, host.read_if
    channels = (write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel)
    pause(channels, gap, 2)
    return unit, host


async def pulse(unit: Unit, **pins: int):
    """Inputs for one cycle."""
    for name, value in pins.items():
        unit.pins[name].value = value
    await unit.ticks()
    for name in pins:
        unit.pins[name].value = 0


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def counters_count_events_while_the_chip_runs(dut, gap):
    unit, host = await ready(dut, gap)
    rng, dim2 = Random(3), CONFIG.dim**2
    totals = [0] * 5  # cycles, useful, padding, read, written
    for run in (0, 1):
        if run:
            await pulse(unit, clear=1)
            totals = [0] * 5
        for _ in range(300):
            on, row, macs = rng.random() < 0.9, rng.random() < 0.4, rng.randint(1, dim2)
            read, written = rng.random() < 0.5, rng.random() < 0.5
            values = {"run": on, "row": row, "row_macs": macs, "beat_read": read,
                      "beat_written": written}  # fmt: skip
            await pulse(unit, **{name: int(value) for name, value in values.items()})
            steps = (on, macs * row, (dim2 - macs) * row, read and on, written and on)
            totals = [t + s for t, s in zip(totals, steps, strict=True)]
        await unit.ticks(3)
        got = [await host.read_dword(COUNTERS + 4 * i) for i in (0, 1, 3, 5, 6)]
        assert got == totals


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def status_bits_and_interrupt_are_write_one_to_clear(dut, gap):
    unit, host = await ready(dut, gap)
    await pulse(unit, halted=1)
    await unit.ticks(3)
    assert unit.get("irq") == 0
    await host.write_dword(IRQ_ENABLE, 1)
    await unit.ticks(3)
    assert unit.get("irq") == 1
    await pulse(unit, faulted=1, fault=9, fault_pc=12345)
    assert await host.read_dword(STATUS) == HALTED | FAULTED
    assert await host.read_dword(FAULT) == 9
    assert await host.read_dword(FAULT_PC) == 12345
    await host.write_dword(STATUS, HALTED)
    assert await host.read_dword(STATUS) == FAULTED
    assert unit.get("irq") == 1
    await host.write_dword(STATUS, FAULTED)
    assert await host.read_dword(STATUS) == 0
    await unit.ticks(3)
    assert unit.get("irq") == 0


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def start_is_one_pulse_and_only_at_rest(dut, gap):
    unit, host = await ready(dut, gap)
    seen = dict.fromkeys(("start", "abort", "resume"), 0)

    async def watch():
        while True:
            await unit.ticks()
            for name in seen:
                seen[name] += unit.get(name)

    cocotb.start_soon(watch())
    await host.write_dword(0x004, 1)
    assert seen == {"start": 1, "abort": 0, "resume": 0}
    dut.run.value = 1
    await unit.ticks(2)
    await host.write_dword(0x004, 7)
    assert seen == {"start": 1, "abort": 1, "resume": 1}
    assert await host.read_dword(STATUS) & RUNNING
    before = await host.read_dword(0x014)
    await host.write_dword(0x014, before ^ 0x200)
    assert await host.read_dword(0x014) == before, "CODE_BASE is fixed while it runs"
