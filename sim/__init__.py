"""tilewright.sim: three engines that agree, the memory model, and the checker.

`run(program)` executes on one engine and gives a `RunResult`; what is heavy is imported when used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tilewright.isa.extent import EVERYTHING
from tilewright.sim.memory import Memory
from tilewright.sim.result import FaultInfo, RunResult, differences

if TYPE_CHECKING:
    from tilewright.isa.program import Program

__all__ = [
    "ENGINES",
    "FaultInfo",
    "Memory",
    "RunResult",
    "differences",
    "load_memory",
    "run",
    "window",
]

ENGINES = ("functional", "cycle", "rtl")


def load_memory(program: Program, memory: Memory | None = None) -> Memory:
    """`memory` (or an empty one) with the program's data written to it."""
    if memory is None:
        memory = Memory(program.dram_size)
    for address, content in program.data:
        memory.write(address, content)
    return memory


def window(program: Program) -> tuple[int, int]:
    """First and last byte of DRAM that a program may touch: everything if it states no size."""
    return (0, program.dram_size - 1) if program.dram_size else EVERYTHING


def run(
    program: Program,
    memory: Memory | None = None,
    engine: str = "functional",
    check: bool = True,
) -> RunResult:
    """Run a program to its halt or fault; its DMA may touch the `dram_size` bytes that it states.

    Parameters
    ----------
    program : what to run; its data are written to memory first.
    memory : DRAM, changed in place; None is an empty one. The result holds it.
    engine : "functional", "cycle" or "rtl".
    check : before the cycle and the RTL engine, refuse an illegal or racy program.

    Raises
    ------
    ValueError
        Unknown engine.
    checker.CheckError
        The program is illegal, racy or leaves its DRAM; the message lists what and where.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    memory = load_memory(program, memory)
    if check and engine != "functional":
        from tilewright.sim import checker

        checker.check(program, memory).require()
    module = import_module(f"tilewright.sim.{engine}")
    return module.run(program.config, program.code, memory, window=window(program))
