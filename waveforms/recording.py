"""Run a program and keep what can be looked at: timeline, waves, viewer layouts.

Each file is there whole or not at all. The Perfetto timeline comes from every engine with a clock;
waves and their layouts from the RTL.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from tilewright import sim
from tilewright.isa.program import Program
from tilewright.sim import Memory, RunResult
from tilewright.waveforms import layouts
from tilewright.waveforms.fst_file import FstWriter, WaveError
from tilewright.waveforms.trace_events import perfetto


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def save_perfetto(
    result: RunResult, program: Program, path: str | os.PathLike[str], before: Memory | None = None
) -> None:
    """Write `perfetto` of a run as JSON, for https://ui.perfetto.dev."""
    text = json.dumps(perfetto(result, program, before), separators=(",", ":"), allow_nan=False)
    write_text(Path(path), text)


def fst(
    program: Program,
    path: str | os.PathLike[str],
    memory: Memory | None = None,
    first: int = 0,
    last: int | None = None,
) -> RunResult:
    """Run on the RTL and write its waves, with layouts for GTKWave and Surfer beside them.

    Parameters
    ----------
    path : of the FST file; the layouts have its stem with ``.gtkw`` and ``.sucl``.
    memory : DRAM, changed in place; None has only the program's data.
    first, last : cycles that are kept; all by default.

    Raises
    ------
    WaveError
        Wrong cycles, or pylibfst is missing.
    sim.rtl.RtlError
        The chip did not stop; the waves are written nevertheless.
    """
    from tilewright.sim import rtl

    path = Path(path)
    memory = sim.load_memory(program, memory)
    writer = FstWriter(path, program, first, last)
    try:
        with writer:
            result = rtl.run(
                program.config, program.code, memory, window=sim.window(program), wave=writer.sink
            )
            if result.cycles is not None and first > result.cycles:
                raise WaveError(f"cycle {first} to trace from is after the run's {result.cycles}")
    except rtl.RtlError:
        _save_layouts(writer, path)
        raise
    _save_layouts(writer, path)
    return result


def _save_layouts(writer: FstWriter, path: Path) -> None:
    write_text(path.with_suffix(".gtkw"), layouts.gtkwave(writer.signals, path))
    write_text(path.with_suffix(".sucl"), layouts.surfer(writer.signals))


def record(
    program: Program,
    memory: Memory,
    folder: str | os.PathLike[str],
    engine: str = "cycle",
    name: str = "run",
    first: int = 0,
    last: int | None = None,
) -> tuple[RunResult, dict[str, Path]]:
    """Run a program and write into `folder` all that its engine can show.

    Parameters
    ----------
    memory : DRAM with data and inputs, changed in place.
    name : of the files, without suffix.
    first, last : cycles of the waves.

    Returns
    -------
    The result, and what was written: what it is -> where.

    **Raises** WaveError, and what the engine raises.
    """
    if engine not in ("cycle", "rtl"):
        raise WaveError(f"a trace needs an engine with a clock, cycle or rtl, not {engine!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    memory = sim.load_memory(program, memory)
    before, files = memory.snapshot(), {}
    if engine == "rtl":
        wave = folder / f"{name}.fst"
        result = fst(program, wave, memory, first, last)
        files = {"waves": wave, "GTKWave": wave.with_suffix(".gtkw"),
                 "Surfer": wave.with_suffix(".sucl")}  # fmt: skip
    else:
        result = sim.run(program, memory, engine=engine, check=False)
    timeline = folder / f"{name}.perfetto.json"
    save_perfetto(result, program, timeline, before)
    return result, {"timeline": timeline} | files
