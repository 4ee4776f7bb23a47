"""The functional engine: one instruction at a time in program order, bit-exact, without a clock.

`Machine` holds the chip's state; `Machine.run` gives the dynamic trace, from which the cycle engine
takes its timing and the checker its happens-before relation. A wait that blocks in program order is
a DEADLOCK fault (legality rule (a) of DESIGN §5): legal programs never meet it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from tilewright.isa.config import INSTR_BYTES, REGISTERS, SEM_MAX, SEMAPHORES, ChipConfig
from tilewright.isa.encoding import IllegalInstruction, Instr, decode, truncated
from tilewright.isa.extent import EVERYTHING, check_window
from tilewright.isa.table import Fault, Unit
from tilewright.sim.decoder import Decoder, Prepared
from tilewright.sim.memory import Memory
from tilewright.sim.result import TRACE, UNTIMED_COUNTERS, FaultInfo, RunResult
from tilewright.sim.scalar import ALU, BRANCH, MASK, word_beats

INSTRUCTION_LIMIT = 5_000_000
_decoders: dict[ChipConfig, Decoder] = {}


class EndlessProgram(RuntimeError):
    """A program executed more instructions than its limit; `execution` is what it did so far."""

    def __init__(self, message: str, execution: Execution):
        super().__init__(message)
        self.execution = execution


class Executed(NamedTuple):
    """One executed instruction.

    `values` are the fields with registers resolved. An instruction that faulted is the trace's last
    entry, has `unit` SEQ, and `instr` None if its word could not be decoded. `address` is what
    `ldw` and `stw` accessed. `known` is what the decoder made of it.
    """

    id: int
    pc: int
    unit: Unit
    instr: Instr | None
    values: Mapping[str, int]
    address: int = 0
    known: Prepared | None = None

    @property
    def decoded(self) -> Instr:
        """The instruction, which could be decoded."""
        if self.instr is None:
            raise ValueError(f"instruction {self.pc} (#{self.id}) could not be decoded")
        return self.instr

    @property
    def name(self) -> str:
        """Its mnemonic."""
        return self.decoded.spec.name


@dataclass
class Execution:
    """A dynamic trace in program order, and how it ended."""

    executed: list[Executed] = field(default_factory=list)
    fault: FaultInfo | None = None

    def trace(self) -> np.ndarray:
        """The trace as `result.TRACE`, starts and ends -1."""
        out = np.full(len(self.executed), -1, TRACE)
        for i, name in enumerate(("id", "pc", "unit")):
            out[name] = [e[i] for e in self.executed]
        return out


class Machine:
    """One chip with its memory, at rest: registers, semaphores and local memories are zero.

    Parameters
    ----------
    config : the geometry.
    memory : DRAM, changed in place.
    data : False leaves the units' data alone (timing, legality): only scalar effects take place.
    blocking : False lets a wait pass that would block (what a deadlocked sequencer dispatches).
    window : first and last byte of DRAM that the program may touch.
    """

    def __init__(
        self,
        config: ChipConfig,
        memory: Memory,
        *,
        data: bool = True,
        blocking: bool = True,
        window: tuple[int, int] = EVERYTHING,
    ):
        self.config = config
        self.memory = memory
        self.data = data
        self.blocking = blocking
        self.window = window
        self.regs = [0] * REGISTERS
        self.sems = [0] * SEMAPHORES
        self.pc = 0
        self.count = 0
        self.halted = False
        self.counters = dict.fromkeys(UNTIMED_COUNTERS, 0)
        # (granules * dim,) bytes; (rows, dim) words and the same words as bytes
        self.spad = np.zeros(config.spad_granules * config.dim if data else 0, np.uint8)
        self.acc = np.zeros((config.acc_rows if data else 0, config.dim), np.int32)
        self.acc_bytes = self.acc.reshape(-1).view(np.uint8)
        self.kernels: set[bytes] = set()  # micro-kernels that ran
        self._decode = _decoders.setdefault(config, Decoder(config))

    def run(self, code: bytes, limit: int = INSTRUCTION_LIMIT) -> Execution:
        """Execute until halt or fault.

        Raises
        ------
        EndlessProgram
            After `limit` instructions.
        """
        words = [bytes(code[i : i + INSTR_BYTES]) for i in range(0, len(code), INSTR_BYTES)]
        out = Execution()
        while not self.halted and out.fault is None:
            if self.count >= limit:
                raise EndlessProgram(
                    f"program executed {limit} instructions without halt (now at instruction "
                    f"{self.pc}); raise the limit if it is meant to run that long",
                    out,
                )
            out.fault = self._step(words, out.executed)
        return out

    def _step(self, words: list[bytes], executed: list[Executed]) -> FaultInfo | None:
        """Execute one instruction and append it; gives the fault that stops the chip, if any."""
        pc, number = self.pc, self.count
        if pc >= len(words):
            text = f"the program counter left the program of {len(words)} instructions"
            return FaultInfo(Fault.PC, pc, Unit.SEQ, text)
        self.count += 1
        try:
            done = self._decode(words[pc], self.regs)
            dram, (first, last) = done.dram, self.window
            if dram is not None and (dram[1] < first or dram[2] > last):
                check_window(done.name, *dram[1:], self.window)
        except IllegalInstruction as e:
            executed.append(Executed(number, pc, Unit.SEQ, *self._refused(words[pc], self.regs)))
            return FaultInfo(e.fault, pc, Unit.SEQ, str(e))
        unit, v, name = done.unit, done.values, done.name
        self.pc = pc + 1
        address = 0
        fault: FaultInfo | None
        if unit is Unit.SEQ:
            if name in ("ldw", "stw"):
                address = (self.regs[v["ra"]] + v["b"]) & MASK
            if address % 4:
                text = f"{name}: ra + b must be a multiple of 4, not {address:#x}"
                fault = FaultInfo(Fault.FIELD, pc, unit, text)
            else:
                fault = self._scalar(name, v, pc, address)
        else:
            fault = self._queued(done, pc)
        executed.append(Executed(number, pc, unit, done.instr, v, address, done))
        return fault

    @staticmethod
    def _refused(word: bytes, regs: list[int]) -> tuple[Instr | None, Mapping[str, int]]:
        try:
            instr = decode(word)
        except IllegalInstruction:
            return None, {}
        return instr, truncated(instr, regs)

    def _take(self, sem: int, n: int, pc: int, unit: Unit) -> FaultInfo | None:
        if self.sems[sem] < n and self.blocking:
            text = (
                f"in program order the wait for {n} of semaphore {sem} blocks: "
                f"its count is {self.sems[sem]}"
            )
            return FaultInfo(Fault.DEADLOCK, pc, unit, text)
        self.sems[sem] = max(self.sems[sem] - n, 0)
        return None

    def _post(self, sem: int, n: int, pc: int, unit: Unit) -> FaultInfo | None:
        self.sems[sem] += n
        if self.sems[sem] > SEM_MAX and self.blocking:
            text = f"semaphore {sem} went above {SEM_MAX}"
            return FaultInfo(Fault.SEMAPHORE, pc, unit, text)
        return None

    def _queued(self, done: Prepared, pc: int) -> FaultInfo | None:
        """A unit's instruction: waits, data, counters, signals."""
        for sem, n in done.waits:
            fault = self._take(sem, n, pc, done.unit)
            if fault is not None:
                return fault
        if self.data:
            done.run(self)
        counters = self.counters
        for name, n in done.counts:
            counters[name] += n
        for sem in done.signals:
            fault = self._post(sem, 1, pc, done.unit)
            if fault is not None:
                return fault
        return None

    def _scalar(self, name: str, v: Mapping[str, int], pc: int, address: int) -> FaultInfo | None:
        """A sequencer instruction."""
        regs = self.regs
        if name in ALU:
            regs[v["rd"]] = ALU[name](regs[v["ra"]], v["b"]) & MASK
        elif name == "li":
            regs[v["rd"]] = v["b"] & MASK
        elif name in BRANCH:
            if BRANCH[name](regs[v["ra"]], v["b"]):
                self.pc = v["target"]
        elif name == "jmp":
            self.pc = v["target"]
        elif name == "wait":
            return self._take(v["sem"], v["n"], pc, Unit.SEQ)
        elif name == "post":
            return self._post(v["sem"], v["n"], pc, Unit.SEQ)
        elif name in ("ldw", "stw"):
            return self._word(name, v["rd"], pc, address)
        elif name == "halt":
            self.halted = True
        return None

    def _word(self, name: str, rd: int, pc: int, address: int) -> FaultInfo | None:
        """The sequencer loads or stores a word."""
        try:
            check_window(name, address, address + 3, self.window)
        except IllegalInstruction as e:
            return FaultInfo(e.fault, pc, Unit.SEQ, str(e))
        beats = word_beats(address, self.config.bus_bytes)
        if name == "ldw":
            self.regs[rd] = int(self.memory.read(address, 4).view("<u4")[0])
            self.counters["beats_read"] += beats
        else:
            self.memory.write(address, self.regs[rd].to_bytes(4, "little"))
            self.counters["beats_written"] += beats
        return None


def run(
    config: ChipConfig,
    code: bytes,
    memory: Memory,
    limit: int = INSTRUCTION_LIMIT,
    *,
    window: tuple[int, int] = EVERYTHING,
) -> RunResult:
    """Run `code` on `memory`, which is changed in place; DMA may touch `window` (first, last)."""
    machine = Machine(config, memory, window=window)
    execution = machine.run(code, limit)
    return RunResult(
        "functional", memory, machine.counters, execution.trace(), fault=execution.fault
    )
