"""The course of a run: the words of DRAM that the sequencer read, which decide where it went.

With them a run is followed again without its data: a report needs no memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from tilewright.isa.config import INSTR_BYTES, ChipConfig
from tilewright.isa.forms import OPCODE_BITS
from tilewright.isa.instructions import INSTRUCTIONS
from tilewright.isa.program import Program
from tilewright.sim import Memory, window
from tilewright.sim.functional import Execution, Machine
from tilewright.sim.result import FaultInfo


def reads_words(code: bytes) -> bool:
    """Tell whether the sequencer of a program reads DRAM."""
    opcodes = np.frombuffer(code, "<u4")[:: INSTR_BYTES // 4] & ((1 << OPCODE_BITS) - 1)
    return bool((opcodes == INSTRUCTIONS["ldw"].opcode).any())


class _Recorder(Machine):
    """Keeps the words that are read."""

    def __init__(self, config: ChipConfig, memory: Memory, **options: Any):
        super().__init__(config, memory, **options)
        self.words: list[int] = []

    def _word(self, name: str, rd: int, pc: int, address: int) -> FaultInfo | None:
        fault = super()._word(name, rd, pc, address)
        if name == "ldw" and fault is None:
            self.words.append(self.regs[rd])
        return fault


class _Follower(Machine):
    """Takes the words that are read from a list."""

    def __init__(self, config: ChipConfig, words: Iterable[int]):
        super().__init__(config, Memory(), data=False)
        self._words = iter(words)

    def _word(self, name: str, rd: int, pc: int, address: int) -> FaultInfo | None:
        fault = super()._word(name, rd, pc, address)
        if name == "ldw":
            self.regs[rd] = next(self._words)
        return fault


def words_read(program: Program, memory: Memory) -> tuple[int, ...]:
    """Run a program on `memory`, which changes, and return the words that its sequencer reads."""
    machine = _Recorder(program.config, memory, window=window(program))
    machine.run(program.code)
    return tuple(machine.words)


def follow(program: Program, words: Iterable[int]) -> Execution:
    """Return what a run executed whose sequencer read these words."""
    return _Follower(program.config, words).run(program.code)
