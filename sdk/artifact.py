"""A compiled program as a file: `tw.load` runs it where there is no compiler.

The program keeps the addresses that it was compiled with, so each run has a DRAM of its own. Arrays
go in by position in the order of `inputs`, and come out as NumPy arrays.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import ml_dtypes
import numpy as np
from tilewright import profiler, sim
from tilewright.config import default_engine, engine_named, settings
from tilewright.isa.program import Port, Program
from tilewright.runs import fault_error


class ProgramArgumentError(TypeError):
    """An array that is not what the program takes."""


def port_dtype(port: Port) -> np.dtype:
    """Return the dtype of a program's input or output."""
    return np.dtype(ml_dtypes.bfloat16 if port.dtype == "bfloat16" else port.dtype)


class LoadedProgram:
    """A program that can be called.

    Parameters
    ----------
    program : what to run.
    name : for messages and profiles.
    """

    def __init__(self, program: Program, name: str):
        self.program, self.name = program, name

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What it takes, in order: names, shapes, dtypes."""
        return self.program.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What it gives, in order."""
        return self.program.outputs

    def _checked(self, args: tuple[Any, ...]) -> list[np.ndarray]:
        ports = self.inputs
        if len(args) != len(ports):
            raise ProgramArgumentError(f"{self.name} takes {len(ports)} arrays, not {len(args)}")
        arrays = []
        for port, arg in zip(ports, args, strict=True):
            array = np.asarray(arg)
            if array.shape != port.shape or array.dtype != port_dtype(port):
                raise ProgramArgumentError(
                    f"{self.name}: {port.name} must be {port.dtype}{list(port.shape)}, "
                    f"not {array.dtype}{list(array.shape)}"
                )
            arrays.append(np.ascontiguousarray(array))
        return arrays

    def run(self, *args: Any, engine: str | None = None) -> sim.RunResult:
        """Run on an engine (by default ``TILEWRIGHT_ENGINE``) and return the whole result.

        **Raises** ProgramArgumentError, ChipFaultError, sim.checker.CheckError.
        """
        engine = default_engine() if engine is None else engine_named(engine)
        memory = sim.Memory(self.program.dram_size)
        for port, array in zip(self.inputs, self._checked(args), strict=True):
            memory.write(port.addr, array)
        result = sim.run(self.program, memory, engine, check=settings.check_programs)
        if result.fault is not None:
            raise fault_error(self.program, result.fault, self.name)
        run = profiler.ProgramRun.of(self.name, "", self.program, result)
        for profile in profiler.active():
            profile.runs.append(run)
        return result

    def results(self, result: sim.RunResult) -> tuple[np.ndarray, ...]:
        """Return the outputs of a run."""
        out = []
        for port in self.outputs:
            dtype = port_dtype(port)
            count = int(np.prod(port.shape, dtype=np.int64)) * dtype.itemsize
            out.append(result.memory.read(port.addr, count).view(dtype).reshape(port.shape))
        return tuple(out)

    def __call__(self, *args: Any, engine: str | None = None) -> tuple[np.ndarray, ...]:
        """Run and return the outputs."""
        return self.results(self.run(*args, engine=engine))

    def __repr__(self) -> str:
        ports = ", ".join(f"{p.dtype}{list(p.shape)}" for p in self.inputs)
        return f"<program {self.name}({ports}) for {self.program.config.name}>"


def load(path: str | PathLike[str]) -> LoadedProgram:
    """Read a program file that `Compiled.save` (or the assembler) wrote.

    **Raises** isa.program.ProgramError: the file is missing, damaged or foreign.
    """
    program = Program.load(path)
    name = str(program.meta.get("name") or path)
    return LoadedProgram(program, name)
