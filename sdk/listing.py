"""A program as text: assembly with cycles, kernel and source line beside each instruction.

What is beside is a comment, so the listing of a straight program assembles back. An instruction
that ran several times shows its first start, its last end and how often it ran.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tilewright.isa.config import INSTR_BYTES
from tilewright.isa.disassembler import disassemble_program
from tilewright.isa.program import Origin, Program

WIDTH = 170  # columns of assembly, after which comments are no longer aligned


def short_line(line: str) -> str:
    """Return a source line without its folder and function."""
    return Path(line.partition(" in ")[0]).name if line else ""


def _origin(origin: Origin) -> str:
    place, _, function = origin.line.partition(" in ")
    shown = f"{Path(place).name} in {function}" if function else place
    if not origin.kernel or "<unknown>" in shown:
        return origin.kernel
    return f"{origin.kernel}  {shown}"


def _cycles(trace: np.ndarray, count: int) -> list[str]:
    """One text for each instruction: start..end."""
    texts = [""] * count
    for pc in np.unique(trace["pc"]).tolist():
        rows = trace[trace["pc"] == pc]
        start, end = int(rows["start"].min()), int(rows["end"].max())
        times = f" x{len(rows)}" if len(rows) > 1 else ""
        if pc < count and start >= 0:
            texts[pc] = f"{start:>8} {end:>8}{times}"
    return texts


def listing(program: Program, trace: np.ndarray | None = None) -> str:
    """Return the assembly of a program.

    Parameters
    ----------
    trace : `RunResult.trace` of a run; with it each line has its start and end cycle.
    """
    lines = disassemble_program(program).splitlines()
    count = len(program.code) // INSTR_BYTES
    code = [i for i, line in enumerate(lines) if line.startswith("    ")][-count:] if count else []
    if len(code) != count:
        raise ValueError(f"{count} instructions must give as many lines, not {len(code)}")
    origins = program.source_map or (Origin(),) * count
    cycles = _cycles(trace, count) if trace is not None else [""] * count
    width = min(max((len(lines[i]) for i in code), default=0), WIDTH)
    for i, origin, cycle in zip(code, origins, cycles, strict=True):
        note = "  ".join(part for part in (cycle, _origin(origin)) if part)
        if note:
            lines[i] = f"{lines[i]:<{width}}  # {note}"
    if trace is not None and count:
        heading = f"{'':<{width}}  # {'start':>8} {'end':>8}  kernel  source"
        lines.insert(code[0], heading)
    return "".join(line + "\n" for line in lines)
