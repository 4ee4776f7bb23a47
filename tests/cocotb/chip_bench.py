"""The world around the chip for cocotb: clocks, AXI memories, and the host as a driver sees it.
The top module is the `monitor` around the chip; what it finds wrong fails the test that runs.

Everything goes through the chip's pins. Programs run from a read-only instruction memory, data lie
in another; each AXI channel may pause at random. What a run gave is held against the functional
engine, which knows no clock. Local memories keep their content from run to run, as on the chip.
"""

import json
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import cocotb
import monitor
from cocotb.triggers import ClockCycles, RisingEdge, Timer, with_timeout
from simulators import SETTINGS
from tilewright.hw.chip import GATED  # clocks that may rest
from tilewright.isa.config import INSTR_BYTES, parse_config
from tilewright.isa.program import Program
from tilewright.isa.table import Fault
from tilewright.sim.functional import Machine
from tilewright.sim.memory import Memory
from tilewright.sim.result import UNTIMED_COUNTERS

with warnings.catch_warnings():  # cocotbext-axi 0.1.28 and cocotb-bus use names of cocotb 1
    warnings.simplefilter("ignore", DeprecationWarning)
    from cocotbext.axi import (
        AxiBus,
        AxiLiteBus,
        AxiLiteMaster,
        AxiRam,
        AxiRamRead,
        AxiReadBus,
    )
    from cocotbext.axi.sparse_memory import SparseMemory

HALF_PERIOD = 5  # ns
TIMEOUT = 400_000  # ns of one program
CODE_BASE = 0x7E00  # 512-byte aligned, not page aligned
DRAM_WINDOW = 1 << 17  # bytes that a test may touch
# docs/microarchitecture.md, section 7
ID, CTRL, STATUS, FAULT, FAULT_PC = 0x000, 0x004, 0x008, 0x00C, 0x010
BASE, COUNT, GEOMETRY, IRQ_ENABLE = 0x014, 0x018, 0x01C, 0x020
WINDOW_BASE, WINDOW_LIMIT, WATCHDOG = 0x024, 0x028, 0x02C
DEBUG_ADDR, DEBUG_DATA, BREAK, PC, HEADS, SEMAPHORES = 0x030, 0x034, 0x038, 0x03C, 0x040, 0x080
COUNTERS = 0x100
START, ABORT, RESUME = 1, 2, 4  # CTRL
RUNNING, HALTED, FAULTED, STOPPED = 0b0001, 0b0010, 0b0100, 0b1000
WINDOW = (0, (1 << 32) - 1)  # after reset
UNITS = ("load", "matmul", "vector", "store")


COVER = Counter()  # bins that the tests have hit


def settings() -> dict:
    """What the pytest side asks for: config (text), gated (bool), seeds and gaps (list of int)."""
    return json.loads(os.environ[SETTINGS])


def hit(name: str):
    """Count a bin of functional coverage."""
    COVER[name] += 1


def pauses(rng: Random, gap: int) -> Iterator[bool]:
    """Stalls of up to `gap` cycles, at times ten times longer, between short runs of transfers."""
    while True:
        longest = 10 * gap if rng.random() < 0.05 else gap
        for _ in range(rng.randint(0, longest)):
            yield True
        for _ in range(rng.randint(1, 8)):
            yield False


@dataclass
class Outcome:
    """What the host reads after a run."""

    status: int
    fault: tuple[Fault, int] | None
    counters: dict[str, int]
    causes: dict[str, int]  # sum of the causes of each unit's cycles
    cycles: int


class Bench:
    """One chip with its clocks, memories and host.

    Parameters
    ----------
    dut : the top module.
    """

    def __init__(self, dut):
        warnings.simplefilter("ignore", DeprecationWarning)
        logging.getLogger(f"cocotb.{dut._name}").setLevel(logging.WARNING)
        self.dut, self.config = dut, parse_config(settings()["config"])
        self.gated = settings()["gated"]
        self.edges = Counter()
        self.model: Machine | None = None  # its local memories are the chip's
        for name in GATED:
            getattr(dut, f"clk_{name}").value = 0
        dut.clk.value = 0
        dut.rst.value = 1
        cocotb.start_soon(self._clock())

    async def power(self, gap: int, seed: int):
        """Reset; then there are hosts and memories, because pins are X before.

        Parameters
        ----------
        gap : typical longest pause of each AXI channel in cycles; 0 is none.
        seed : of the pauses.
        """
        await ClockCycles(self.dut.clk, 6)
        dut = self.dut
        self.host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "host"), dut.clk, dut.rst)
        self.code = AxiRamRead(
            AxiReadBus.from_prefix(dut, "instr"), dut.clk, dut.rst, mem=SparseMemory(1 << 32)
        )
        self.data = AxiRam(
            AxiBus.from_prefix(dut, "data"), dut.clk, dut.rst, mem=SparseMemory(1 << 32)
        )
        read, write = self.data.read_if, self.data.write_if
        for channel in (read.ar_channel, read.r_channel, write.aw_channel, write.b_channel):
            channel.queue_occupancy_limit = 2 * monitor.OUTSTANDING  # the chip has the limit
        if gap:
            for i, channel in enumerate(self._channels()):
                channel.set_pause_generator(pauses(Random(f"{seed} {i}"), gap))
        cocotb.start_soon(self._watch())

    async def _watch(self):
        """Fail when the monitor sees a rule broken that was not broken before."""
        before = int(self.dut.violation.value)
        while True:
            await self.dut.violation.value_change
            new = int(self.dut.violation.value) & ~before
            names = [r for i, r in enumerate(monitor.rules(self.config)) if new >> i & 1]
            assert not names, "; ".join(names)

    def flying(self) -> dict[str, int]:
        """Bursts outstanding on each port."""
        value = int(self.dut.flying.value)
        return {port: value >> 8 * i & 0xFF for i, port in enumerate(monitor.PORTS)}

    def phases(self) -> set[str]:
        """What the chip has under way."""
        found = {port for port, bursts in self.flying().items() if bursts}
        found |= {"array"} if self.dut.busy_array.value == 1 else set()
        return found or {"idle"}

    def _channels(self):
        host, data = self.host, self.data
        return (
            *(host.write_if.aw_channel, host.write_if.w_channel, host.write_if.b_channel),
            *(host.read_if.ar_channel, host.read_if.r_channel),
            *(self.code.ar_channel, self.code.r_channel),
            *(data.read_if.ar_channel, data.read_if.r_channel),
            *(data.write_if.aw_channel, data.write_if.w_channel, data.write_if.b_channel),
        )

    async def _clock(self):
        """All clocks rise together; if gated, those of GATED only on request."""
        dut, half = self.dut, Timer(HALF_PERIOD, "ns")
        while True:
            rising = [dut.clk]
            for name in GATED:
                if not self.gated or getattr(dut, f"busy_{name}").value == 1:
                    rising.append(getattr(dut, f"clk_{name}"))
                    self.edges[name] += 1
            self.edges["chip"] += 1
            for level in (1, 0):
                for pin in rising:
                    pin.value = level
                await half

    async def reset(self):
        """Reset. It is the memories' too: what they had in flight never comes."""
        for phase in self.phases():
            hit(f"reset/{phase}")
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 6)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 4)

    async def read(self, register: int) -> int:
        """A host register."""
        return await self.host.read_dword(register)

    async def write(self, register: int, value: int):
        """Write a host register."""
        await self.host.write_dword(register, value)

    def place(self, program: Program):
        """Put code and data where the chip sees them."""
        self.code.write(CODE_BASE, program.code)
        for address, content in program.data:
            self.data.write(address, content)

    async def start(self, program: Program, irq: int = 1):
        """Acknowledge the run before, write the program's place, and start."""
        await self.write(STATUS, HALTED | FAULTED)
        await self.write(BASE, CODE_BASE)
        await self.write(COUNT, len(program.code) // INSTR_BYTES)
        await self.write(IRQ_ENABLE, irq)
        await self.write(CTRL, START)

    async def finish(self) -> Outcome:
        """Wait for the interrupt, then read status and counters."""
        if self.dut.irq.value != 1:
            await with_timeout(RisingEdge(self.dut.irq), TIMEOUT, "ns")
        status, code = await self.read(STATUS), await self.read(FAULT)
        hit("interrupt/fault" if status & FAULTED else "interrupt/halt")
        fault = (Fault(code), await self.read(FAULT_PC)) if code else None

        async def word(i: int) -> int:
            return await self.read(COUNTERS + 4 * i)

        counters = {
            "macs_useful": await word(1) | await word(2) << 32,
            "macs_padding": await word(3) | await word(4) << 32,
            "beats_read": await word(5),
            "beats_written": await word(6),
        }
        causes = {}
        for u, name in enumerate(UNITS):
            causes[name] = sum([await word(8 + 8 * u + i) for i in range(5)])
            counters[f"{name}_instructions"] = await word(8 + 8 * u + 5)
        return Outcome(status, fault, counters, causes, await word(0))

    async def run(self, program: Program, window: tuple[int, int] = WINDOW) -> Outcome:
        """Run to the end and check all that must not depend on the timing of the memories."""
        await self.write(WINDOW_BASE, window[0])
        await self.write(WINDOW_LIMIT, window[1])
        self.place(program)
        memory = Memory(DRAM_WINDOW)
        memory.write(0, bytes(self.data.read(0, DRAM_WINDOW)))
        await self.start(program)
        outcome = await self.finish()
        machine = Machine(program.config, memory, window=window)
        if self.model is not None:
            machine.spad[:] = self.model.spad
            machine.acc[:] = self.model.acc
        want = machine.run(program.code).fault
        self.model = machine
        fault = want and (want.code, want.pc)
        assert outcome.fault == fault, f"fault {outcome.fault}, not {fault}"
        assert outcome.status == (FAULTED if fault else HALTED), f"status {outcome.status:#x}"
        for name in UNTIMED_COUNTERS:
            got, expected = outcome.counters[name], machine.counters[name]
            assert got == expected, f"{name} is {got}, not {expected}"
        for unit, cycles in outcome.causes.items():
            assert cycles == outcome.cycles, f"causes of {unit}: {cycles} of {outcome.cycles}"
        self.compare(memory)
        await self.write(WINDOW_BASE, WINDOW[0])
        await self.write(WINDOW_LIMIT, WINDOW[1])
        return outcome

    def compare(self, memory):
        """All of DRAM against `memory`."""
        got, want = bytes(self.data.read(0, DRAM_WINDOW)), memory.read(0, DRAM_WINDOW).tobytes()
        if got != want:
            at = next(i for i, (a, b) in enumerate(zip(got, want, strict=True)) if a != b)
            raise AssertionError(f"DRAM at {at:#x} is {got[at]:#04x}, not {want[at]:#04x}")
        beyond = [a for a in self.data.mem.segs if a >= DRAM_WINDOW]
        assert not beyond, f"the chip wrote at {min(beyond):#x}"
