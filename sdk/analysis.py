"""Where the cycles of a run went: by kernel, by unit and cause, and by name for the array.

Kernels overlap, so the run is cut into windows that sum to its cycles: a kernel's window ends with
the last row of its last MATMUL (its last instruction, if it has none), the next one's begins there;
each step of a loop on the chip has windows of its own.
The causes come from the cycle engine's timing of the same code, which equals the RTL's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tilewright.attribution import Attribution, attribute, before
from tilewright.course import follow
from tilewright.isa.table import Unit
from tilewright.profiler import ProgramRun, roofline
from tilewright.sim.exec_load import beats as load_beats
from tilewright.sim.exec_matmul import macs as matmul_macs
from tilewright.sim.exec_store import beats as store_beats
from tilewright.sim.functional import Executed
from tilewright.sim.timing import UNITS, Timing, simulate
from tilewright.sim.timing_causes import CAUSES

WORK = ("macs_useful", "macs_padding", "beats_read", "beats_written", "vector_issuing")
#: What each cause means for the array; shown beside its share.
MEANING = {
    "useful": "useful MACs",
    "padding": "MACs on padding: sizes that are no multiple of dim",
    "issuing": "passes with fewer rows than the array's period",
    "semaphore": "waiting for other units' results",
    "port": "waiting for a memory bank's port",
    "memory": "draining: the last results leave the array",
    "empty": "no instruction: start, dispatch, and the last stores",
}


@dataclass
class Part:
    """A share of a run: one kernel's window, or the whole.

    Parameters
    ----------
    line : the user's line.
    cycles : of its window.
    counters : its own work (`WORK`), whenever it ran.
    causes : by unit, cycles by cause; each sums to `cycles`.
    waits_for : units for whose signals its MATMULs wait.
    """

    name: str
    line: str
    dim: int
    cycles: int
    counters: dict[str, int]
    causes: dict[Unit, dict[str, int]]
    waits_for: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        return self.counters["macs_useful"]

    @property
    def utilisation(self) -> float:
        """Useful MACs / (dim² x cycles)."""
        return self.macs / (self.dim**2 * self.cycles) if self.cycles else 0.0

    @property
    def bound(self) -> int:
        """Least cycles by the roofline."""
        return roofline(self.dim, self.counters)

    @property
    def limit(self) -> str:
        """What gives the bound: array, vector, reads or writes."""
        needs = {
            "array": self.macs / self.dim**2,
            "vector": self.counters["vector_issuing"],
            "reads": self.counters["beats_read"],
            "writes": self.counters["beats_written"],
        }
        return max(needs, key=lambda k: needs[k])

    def array(self) -> dict[str, float]:
        """The array's cycles by name (`MEANING`); they sum to `cycles`."""
        causes = self.causes[Unit.MATMUL]
        cells = self.dim**2
        useful, padding = self.macs / cells, self.counters["macs_padding"] / cells
        rest = {c: float(causes[c]) for c in CAUSES}
        rest["issuing"] -= useful + padding
        return {"useful": useful, "padding": padding, **rest}


@dataclass
class Analysis:
    """A run's parts, and the same by instruction.

    `count` is how often the same program ran with the same cycles.
    """

    run: ProgramRun
    total: Part
    attribution: Attribution = field(repr=False)
    kernels: list[Part] = field(default_factory=list)
    count: int = 1


def _work(
    run: ProgramRun, executed: Sequence[Executed], attribution: Attribution
) -> dict[str, int]:
    config, out = run.program.config, dict.fromkeys(WORK, 0)
    for e in executed:
        if e.unit is Unit.MATMUL:
            useful, padding = matmul_macs(e.values, config.dim)
            out["macs_useful"] += useful
            out["macs_padding"] += padding
        elif e.unit is Unit.LOAD:
            out["beats_read"] += load_beats(e.values, config.bus_bytes)
        elif e.unit is Unit.STORE:
            out["beats_written"] += store_beats(e.values, config.bus_bytes)
        elif e.unit is Unit.VECTOR:
            out["vector_issuing"] += int(attribution.cycles[e.id, CAUSES.index("issuing")])
    return out


def _signallers(executed: Sequence[Executed]) -> dict[int, str]:
    """By semaphore, the unit that signals it."""
    out: dict[int, str] = {}
    for e in executed:
        for kind in ("rd", "done"):
            if e.values.get(f"{kind}_en"):
                out[e.values[f"{kind}_sem"]] = e.unit.name
    return out


def _waits_for(executed: Sequence[Executed], signallers: dict[int, str]) -> tuple[str, ...]:
    found = {
        signallers[e.values[w]]
        for e in executed
        if e.unit is Unit.MATMUL
        for w in ("wait0", "wait1")
        if e.values[f"{w}_n"] and e.values[w] in signallers
    }
    return tuple(sorted(found))


def _groups(run: ProgramRun, executed: Sequence[Executed]) -> dict[tuple[int, str], list[Executed]]:
    """By kernel what it executed, between one fence and the next: units are quiet there."""
    groups: dict[tuple[int, str], list[Executed]] = {}
    fences, origins = 0, run.program.source_map
    for e in executed if origins else ():
        fences += e.name == "fence"
        if origins[e.pc].kernel:
            groups.setdefault((fences, origins[e.pc].kernel), []).append(e)
    return groups


def _cuts(
    groups: Sequence[list[Executed]], attribution: Attribution, timing: Timing
) -> np.ndarray:
    """The first cycles of the groups' windows, and the end of the run."""
    cuts = [0]
    for group in groups:
        passes = [attribution.issued[e.id] for e in group if e.unit is Unit.MATMUL]
        high = max(passes or [timing.end[e.id] for e in group]) + 1
        cuts.append(max(cuts[-1], min(high, timing.cycles)))
    if groups:
        cuts[-1] = timing.cycles
    return np.array(cuts)


def analyse(run: ProgramRun) -> Analysis:
    """Cut one run into its kernels.

    A kernel in a loop has a window in each step; they are one part.

    **Raises** ValueError: timed again, the program takes another number of cycles.
    """
    program = run.program
    config, origins = program.config, program.source_map
    executed = follow(program, run.words).executed
    timing = simulate(config, executed, code_count=len(program))
    if timing.cycles != run.cycles:
        raise ValueError(
            f"{run.name} took {run.cycles} cycles on the {run.engine} engine, but {timing.cycles} "
            "when it was timed again: no report by kernel"
        )
    attribution = attribute(config, executed, timing)
    signallers = _signallers(executed)
    groups = _groups(run, executed)
    cuts = _cuts(list(groups.values()), attribution, timing)
    causes = {u: np.diff(before(attribution.spans[u], timing.cycles, cuts), axis=0) for u in UNITS}
    kernels = []
    for name in dict.fromkeys(name for _, name in groups):
        rows = [i for i, (_, other) in enumerate(groups) if other == name]
        mine = [e for (_, other), group in groups.items() if other == name for e in group]
        kernels.append(Part(
            name, origins[mine[0].pc].line, config.dim, int(np.diff(cuts)[rows].sum()),
            _work(run, mine, attribution), {u: _named(c[rows]) for u, c in causes.items()},
            _waits_for(mine, signallers),
        ))  # fmt: skip
    ends = np.array([0, timing.cycles])
    whole = {u: _named(before(attribution.spans[u], timing.cycles, ends)[1:]) for u in UNITS}
    work = {name: run.counters[name] for name in WORK}
    waits = _waits_for(executed, signallers)
    total = Part(run.name, run.call, config.dim, timing.cycles, work, whole, waits)
    return Analysis(run, total, attribution, kernels)


def _named(rows: np.ndarray) -> dict[str, int]:
    """The sum of rows of cycles, by cause."""
    return dict(zip(CAUSES, rows.sum(0).tolist(), strict=True))


def analyse_all(runs: Sequence[ProgramRun]) -> list[Analysis]:
    """Analyse runs; those of one program with equal cycles once, with their number."""
    found: dict[object, Analysis] = {}
    for run in runs:
        if run.kind in found:
            found[run.kind].count += 1
        else:
            found[run.kind] = analyse(run)
    return list(found.values())


def shares(values: Sequence[float], digits: int = 1) -> list[float]:
    """Return values as per cent, rounded so that they sum to exactly 100 (or all are 0)."""
    total, unit = sum(values), 10**digits
    if not total:
        return [0.0] * len(values)
    exact = np.array(values, float) * (100 * unit / total)
    whole = np.floor(exact).astype(int)
    missing = 100 * unit - int(whole.sum())
    for i in np.argsort(-(exact - whole), kind="stable")[:missing]:
        whole[i] += 1
    return [int(w) / unit for w in whole]
