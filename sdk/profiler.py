"""`tw.profile()`: what every program that is started within a block costs.

Runs are collected as they finish; the block's end waits for them. Utilisation is the useful MACs
per cell of the array and cycle; the roofline's bound is the least number of cycles in which array,
read port and write port can each do their work.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from tilewright.isa.program import Program
from tilewright.sim.result import RunResult

if TYPE_CHECKING:
    from types import TracebackType

_active: list[Profile] = []


def active() -> tuple[Profile, ...]:
    """Return the profiles that are open now."""
    return tuple(_active)


@dataclass(frozen=True, eq=False)
class ProgramRun:
    """One run of a program.

    Parameters
    ----------
    name, call : the function, and the user's line that called it.
    program : as it ran, at its addresses.
    cycles : None if the engine has no clock.
    counters, trace : as in `sim.RunResult`.
    words : what the sequencer read from DRAM, one after the other.
    """

    name: str
    call: str
    engine: str
    program: Program
    cycles: int | None
    counters: dict[str, int]
    trace: np.ndarray
    words: tuple[int, ...] = ()

    @staticmethod
    def of(
        name: str, call: str, program: Program, result: RunResult, words: tuple[int, ...] = ()
    ) -> ProgramRun:
        """The run whose result is given."""
        return ProgramRun(
            name, call, result.engine, program, result.cycles, dict(result.counters), result.trace,
            words,
        )  # fmt: skip

    @property
    def kind(self) -> object:
        """Equal for runs of one program, wherever its arrays are, with one course and duration."""
        program = self.program
        which = id(program.source_map) if program.source_map else program.code
        return self.name, which, self.cycles, self.words

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates."""
        return self.counters["macs_useful"]

    @property
    def bound(self) -> int:
        """Cycles that array, reads or writes need at least, whichever is most."""
        return roofline(self.program.config.dim, self.counters)


def roofline(dim: int, counters: dict[str, int]) -> int:
    """Return the largest of MACs / dim², read and write beats, and VECTOR's slots, in cycles."""
    array = -(-counters["macs_useful"] // dim**2)
    others = ("beats_read", "beats_written", "vector_issuing")
    return max(array, *(counters[name] for name in others))


class Profile:
    """The runs of a ``with tw.profile() as p`` block, in the order in which they ran."""

    def __init__(self) -> None:
        self.runs: list[ProgramRun] = []
        self._pending: list[Future[Any]] = []

    def expect(self, future: Future[Any]) -> None:
        """Wait for this work at the end of the block."""
        self._pending.append(future)

    def __enter__(self) -> Profile:
        _active.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        _active.remove(self)
        self.wait(quiet=kind is not None)

    def wait(self, quiet: bool = False) -> None:
        """Wait for all runs; raises what went wrong in one, unless `quiet`."""
        pending, self._pending = self._pending, []
        for future in pending:
            if future.exception() is not None and not quiet:
                future.result()

    def _clocked(self, what: str) -> Iterable[ProgramRun]:
        self.wait()
        for run in self.runs:
            if run.cycles is None:
                raise ValueError(
                    f"{what} needs an engine with a clock: {run.name} ran on the {run.engine} "
                    'engine; use tw.Device(engine="cycle") or TILEWRIGHT_ENGINE=cycle'
                )
        return self.runs

    @property
    def cycles(self) -> int:
        """Cycles of all runs together."""
        return sum(r.cycles or 0 for r in self._clocked("cycles"))

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates of all runs together."""
        self.wait()
        return sum(r.macs for r in self.runs)

    @property
    def utilisation(self) -> float:
        """Useful MACs / (dim² x cycles); 0 if nothing ran."""
        room = sum((r.cycles or 0) * r.program.config.dim**2 for r in self._clocked("utilisation"))
        return self.macs / room if room else 0.0

    @property
    def roofline_utilisation(self) -> float:
        """Roofline bound / cycles; 0 if nothing ran."""
        cycles = self.cycles
        return sum(r.bound for r in self.runs) / cycles if cycles else 0.0

    def report(self, width: int | None = None) -> str:
        """Return tables: kernels, where each unit's cycles went, the largest losses."""
        from tilewright.report import report_text

        self._clocked("a report")
        return report_text(self, width)

    def listing(self) -> str:
        """Return each program's listing with its cycles."""
        from tilewright.listing import listing

        self.wait()
        return "\n".join(listing(r.program, r.trace) for r in self.runs)

    def to_dict(self) -> dict[str, Any]:
        """Return the report's figures as JSON values."""
        from tilewright.report import profile_dict

        self._clocked("a report")
        return profile_dict(self)

    def to_json(self) -> str:
        """Return the report's figures as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def timeline(self, path: str | PathLike[str]) -> None:
        """Write the picture of the runs, a PNG."""
        from tilewright.timeline import save_timeline

        self._clocked("a timeline")
        save_timeline(self.runs, path)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the report as one HTML file without references to others."""
        from tilewright.html_report import save_html

        self._clocked("a report")
        save_html(self, path)


def profile() -> Profile:
    """Return a context manager that collects what every program started within it costs."""
    return Profile()
