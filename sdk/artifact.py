"""A compiled program as a file: `tw.load` runs it where there is no compiler.

It takes and gives what the saved function does: the same nested containers, with NumPy arrays in
them. A program from the assembler takes its inputs in order and gives a tuple of its outputs. The
program keeps the addresses that it was compiled with, so each run has a DRAM of its own.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import ml_dtypes
import numpy as np
from tilewright import artifact_tree, profiler, sim
from tilewright.config import default_engine, engine_named, settings
from tilewright.isa.config import ChipConfig, parse_config
from tilewright.isa.program import Port, Program, ProgramError
from tilewright.runs import fault_error


class ProgramArgumentError(TypeError):
    """An array that is not what the program takes."""


def port_dtype(port: Port) -> np.dtype:
    """Return the dtype of a program's input or output."""
    return np.dtype(ml_dtypes.bfloat16 if port.dtype == "bfloat16" else port.dtype)


def _trees(program: Program, where: str) -> list[artifact_tree.Tree]:
    """The structures of arguments and results; flat ones if the file has none.

    **Raises** ProgramError: they do not fit the ports.
    """
    counts = len(program.inputs), len(program.outputs)
    trees = program.meta.get("trees")
    if trees is None:
        inputs = {"tuple": [{"tuple": ["*"] * counts[0]}, {"dict": []}]}
        return [inputs, {"tuple": ["*"] * counts[1]}]
    sound = isinstance(trees, list) and len(trees) == 2 and all(map(artifact_tree.is_tree, trees))
    sound = sound and artifact_tree.is_arguments(trees[0])
    if not sound or tuple(map(artifact_tree.leaf_count, trees)) != counts:
        raise ProgramError(
            f"{where}: its structures of arguments and results must fit its {counts[0]} inputs and "
            f"{counts[1]} outputs, not {trees!r:.80}; compile the program again"
        )
    return trees


class LoadedProgram:
    """A program that can be called.

    Parameters
    ----------
    program : what to run.
    name : for messages and profiles.
    where : the file, for errors; by default its name.

    Raises
    ------
    ProgramError
        The structures in the program's `meta` do not fit its inputs and outputs.
    """

    def __init__(self, program: Program, name: str, where: str | None = None):
        self.program, self.name = program, name
        self._in_tree, self._out_tree = _trees(program, where or name)

    @property
    def config(self) -> ChipConfig:
        """The chip that it is for."""
        return self.program.config

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The arrays that it takes, in order: names, shapes, dtypes."""
        return self.program.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The arrays that it gives, in order."""
        return self.program.outputs

    def _leaves(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        positional, named = (tree for tree in self._in_tree["tuple"])
        wanted = positional["tuple"]
        if len(args) != len(wanted):
            many = "array" if all(tree == artifact_tree.LEAF for tree in wanted) else "argument"
            plural = "s" * (len(wanted) != 1)
            raise ProgramArgumentError(
                f"{self.name} takes {len(wanted)} {many}{plural}, not {len(args)}"
            )
        try:
            leaves = artifact_tree.flatten(positional, args, f"{self.name}: args")
            return leaves + artifact_tree.flatten(named, kwargs, f"{self.name}: kwargs")
        except artifact_tree.ProgramTreeError as error:
            raise ProgramArgumentError(str(error)) from None

    def _checked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[np.ndarray]:
        arrays = []
        for port, arg in zip(self.inputs, self._leaves(args, kwargs), strict=True):
            array = np.asarray(arg)
            if array.shape != port.shape or array.dtype != port_dtype(port):
                raise ProgramArgumentError(
                    f"{self.name}: {port.name} must be {port.dtype}{list(port.shape)}, "
                    f"not {array.dtype}{list(array.shape)}"
                )
            arrays.append(np.ascontiguousarray(array))
        return arrays

    def run(self, *args: Any, engine: str | None = None, **kwargs: Any) -> sim.RunResult:
        """Run on an engine (by default ``TILEWRIGHT_ENGINE``) and return the whole result.

        **Raises** ProgramArgumentError, ChipFaultError, sim.checker.CheckError.
        """
        engine = default_engine() if engine is None else engine_named(engine)
        memory = sim.Memory(self.program.dram_size)
        for port, array in zip(self.inputs, self._checked(args, kwargs), strict=True):
            memory.write(port.addr, array)
        result = sim.run(self.program, memory, engine, check=settings.check_programs)
        if result.fault is not None:
            raise fault_error(self.program, result.fault, self.name)
        run = profiler.ProgramRun.of(self.name, "", self.program, result)
        for profile in profiler.active():
            profile.runs.append(run)
        return result

    def results(self, result: sim.RunResult) -> Any:
        """Return the outputs of a run, in the function's structure."""
        out = []
        for port in self.outputs:
            dtype = port_dtype(port)
            count = int(np.prod(port.shape, dtype=np.int64)) * dtype.itemsize
            out.append(result.memory.read(port.addr, count).view(dtype).reshape(port.shape))
        return artifact_tree.unflatten(self._out_tree, iter(out))

    def __call__(self, *args: Any, engine: str | None = None, **kwargs: Any) -> Any:
        """Run and return the outputs."""
        return self.results(self.run(*args, engine=engine, **kwargs))

    def __repr__(self) -> str:
        ports = ", ".join(f"{p.dtype}{list(p.shape)}" for p in self.inputs)
        return f"<program {self.name}({ports}) for {self.program.config.name}>"


def load(path: str | PathLike[str], config: str | ChipConfig | None = None) -> LoadedProgram:
    """Read a program file that `Compiled.save` (or the assembler) wrote.

    Parameters
    ----------
    config : the chip that it must be for; None takes any.

    **Raises** isa.program.ProgramError: the file is missing, damaged, foreign or for another chip.
    """
    program = Program.load(path)
    if config is not None and parse_config(config).geometry != program.config.geometry:
        raise ProgramError(
            f"{path}: is for the chip {program.config.geometry}, not for "
            f"{parse_config(config).geometry}; compile it again for that chip"
        )
    name = program.meta.get("name")
    name = name if isinstance(name, str) and name else str(path)
    return LoadedProgram(program, name, str(path))
