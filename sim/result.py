"""What a run gives back, the same from every engine, and what two results disagree about."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from tilewright.isa.registers import CAUSES, QUEUED
from tilewright.isa.table import Fault, Unit
from tilewright.sim.memory import Memory

#: One executed instruction. `start` and `end` are cycles; -1 where the engine has no clock.
TRACE = np.dtype([("id", "<i8"), ("pc", "<i8"), ("unit", "<i8"), ("start", "<i8"), ("end", "<i8")])

#: Counters of every engine, and those that need a clock.
UNTIMED_COUNTERS = (
    "macs_useful",
    "macs_padding",
    "beats_read",
    "beats_written",
    *(f"{u.name.lower()}_instructions" for u in QUEUED),
)
TIMED_COUNTERS = ("cycles", *(f"{u.name.lower()}_{c}" for u in QUEUED for c in CAUSES))


@dataclass(frozen=True)
class FaultInfo:
    """Why the chip stopped: code, instruction index; unit and a sentence that names the cause."""

    code: Fault
    pc: int
    unit: Unit = field(default=Unit.SEQ, compare=False)
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"fault {self.code.name} at instruction {self.pc}: {self.text}"


@dataclass
class RunResult:
    """One run.

    Parameters
    ----------
    engine : "functional", "cycle" or "rtl".
    memory : DRAM as the program left it.
    counters : by name, `UNTIMED_COUNTERS` and, if the engine has a clock, `TIMED_COUNTERS`.
    trace : (n,) TRACE, ids ascending.
    cycles : total, or None without a clock.
    fault : or None.
    """

    engine: str
    memory: Memory
    counters: dict[str, int]
    trace: np.ndarray
    cycles: int | None = None
    fault: FaultInfo | None = None


def _trace_differences(a: RunResult, b: RunResult, timed: bool) -> list[str]:
    out = []
    if len(a.trace) != len(b.trace):
        out.append(f"executed instructions: {a.engine} {len(a.trace)}, {b.engine} {len(b.trace)}")
    n = min(len(a.trace), len(b.trace))
    for name in ("pc", "unit", "start", "end") if timed else ("pc", "unit"):
        bad = np.flatnonzero(a.trace[name][:n] != b.trace[name][:n])
        if bad.size:
            i = int(bad[0])
            out.append(
                f"{name} of #{i} (pc {a.trace['pc'][i]}): {a.engine} {a.trace[name][i]}, "
                f"{b.engine} {b.trace[name][i]} ({bad.size} differ)"
            )
    return out


def differences(a: RunResult, b: RunResult) -> list[str]:
    """What two engines disagree about, one sentence each; empty if the results are equal.

    Bytes, fault, executed instructions and untimed counters always; cycles, starts, ends and the
    other counters if both engines have a clock.
    """
    out = []
    timed = a.cycles is not None and b.cycles is not None
    if a.fault != b.fault:
        out.append(f"fault: {a.engine} {a.fault}, {b.engine} {b.fault}")
    if timed and a.cycles != b.cycles:
        out.append(f"cycles: {a.engine} {a.cycles}, {b.engine} {b.cycles}")
    out += _trace_differences(a, b, timed)
    for name in UNTIMED_COUNTERS + (TIMED_COUNTERS if timed else ()):
        x, y = a.counters.get(name), b.counters.get(name)
        if x != y:
            out.append(f"counter {name}: {a.engine} {x}, {b.engine} {y}")
    at = a.memory.compare(b.memory)
    if at is not None:
        x, y = int(a.memory.read(at, 1)[0]), int(b.memory.read(at, 1)[0])
        out.append(f"DRAM at {at:#x}: {a.engine} {x:#04x}, {b.engine} {y:#04x}")
    return out
