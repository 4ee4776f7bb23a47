"""Are the micro-kernels of an executed trace legal? Found without moving the program's data.

Micro-kernels usually come from DRAM that nobody writes, so it is enough to run those LOADs that
write accumulator rows from which some VECTOR takes its words. Where anything else may have written
such a row, or the DRAM behind it, the whole program is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import Unit
from tilewright.sim.exec_vector import IllegalKernel, check_words
from tilewright.sim.footprint import accesses
from tilewright.sim.functional import Executed, Machine
from tilewright.sim.memory import Memory


@dataclass(frozen=True)
class _Effect:
    """What an instruction does to the rows that hold micro-kernels; `dram` is what a LOAD reads."""

    rows: np.ndarray
    brings: bool
    dram: tuple[int, int]


class _Unknown(Exception):
    """The words of a micro-kernel depend on more than LOADs of constant data."""


class _Tracker:
    """The accumulator, as far as micro-kernels lie in it."""

    def __init__(self, config: ChipConfig, memory: Memory, vectors: Sequence[Executed]):
        self.config = config
        self.machine = Machine(config, memory)
        self.needed = np.zeros(config.acc_rows, bool)
        for e in vectors:
            self.needed[_rows(config, e)] = True
        self.unsure = np.zeros(config.acc_rows, bool)
        self.dirty: list[tuple[int, int]] = []  # DRAM that was written
        self._effects: dict[int, _Effect] = {}  # by the identity of the resolved values

    def _effect(self, e: Executed) -> _Effect:
        known = self._effects.get(id(e.values))
        if known is not None:
            return known
        hit, dram = np.zeros(self.config.acc_rows, bool), (0, 0)
        for a in accesses(self.config, e.decoded.spec, e.values):
            if a.space == "acc" and a.write and self.needed[a.low : a.end].any():
                for first, end in zip(*a.spans, strict=True):
                    hit[first:end] = True
            if a.space == "dram":
                dram = a.low, a.end
        brings = e.unit is Unit.LOAD and not e.values["gather"]
        known = _Effect(np.flatnonzero(hit & self.needed), brings, dram)
        self._effects[id(e.values)] = known
        return known

    def see(self, e: Executed) -> None:
        """The next instruction takes effect."""
        if e.unit is Unit.SEQ:
            if e.name == "stw":
                self.dirty.append((e.address, e.address + 4))
            return
        effect = self._effect(e)
        if e.unit is Unit.STORE and effect.dram[1]:
            self.dirty.append(effect.dram)
        if not effect.rows.size:
            return
        low, end = effect.dram
        sure = effect.brings and not any(a < end and low < b for a, b in self.dirty)
        if sure and e.known is not None:
            e.known.run(self.machine)
        self.unsure[effect.rows] = not sure

    def check(self, e: Executed) -> str:
        """What is wrong with a VECTOR's micro-kernel, or nothing."""
        if self.unsure[_rows(self.config, e)].any():
            raise _Unknown
        self.machine.pc = e.pc + 1
        try:
            check_words(self.machine, e.values)
        except IllegalKernel as error:
            return str(error)
        return ""


def _rows(config: ChipConfig, e: Executed) -> slice:
    """The accumulator rows of a VECTOR's micro-kernel."""
    kernel = accesses(config, e.decoded.spec, e.values)[0]
    return slice(kernel.low, kernel.end)


def _by_running(config: ChipConfig, code: bytes, memory: Memory, window: tuple[int, int]) -> str:
    try:
        Machine(config, memory.snapshot(), window=window).run(code)
    except IllegalKernel as error:
        return str(error)
    return ""


def illegal_kernels(
    config: ChipConfig,
    code: bytes,
    trace: Sequence[Executed],
    memory: Memory,
    window: tuple[int, int],
) -> Iterator[tuple[int, str]]:
    """(pc, what is wrong) of the VECTORs of a trace that starts on `memory`, each pc once."""
    vectors = [e for e in trace if e.unit is Unit.VECTOR]
    if not vectors:
        return
    tracker = _Tracker(config, memory, vectors)
    seen: set[int] = set()
    try:
        for e in trace:
            if e.unit is Unit.VECTOR and e.pc not in seen:
                wrong = tracker.check(e)
                if wrong:
                    seen.add(e.pc)
                    yield e.pc, wrong
            tracker.see(e)
    except _Unknown:
        wrong = _by_running(config, code, memory, window)
        if wrong and not seen:
            yield next(e.pc for e in vectors), wrong
