"""A run's timeline for Perfetto (https://ui.perfetto.dev) and Chrome: Trace Event JSON.

One cycle is shown as 1 ns. Each unit has a track of its cycles by cause, and one track (more, where
they overlap) of its instructions, from start to end, with assembly, kernel, the user's line and
waits; arrows lead from an instruction that signals to the one that waited for it. Counters are
means over each instruction: the work of a MATMUL, LOAD or STORE divided by its cycles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from tilewright.isa.encoding import Instr
from tilewright.isa.program import Origin, Program
from tilewright.isa.table import Fault, Unit
from tilewright.sim import Memory, RunResult, window
from tilewright.sim.decoder import work_of
from tilewright.sim.functional import EndlessProgram, Executed, Machine
from tilewright.sim.timing import Timing, simulate
from tilewright.sim.timing_causes import CAUSES
from tilewright.waveforms.assembly import assembly_lines, instructions

TRACKS = (Unit.SEQ, Unit.LOAD, Unit.MATMUL, Unit.VECTOR, Unit.STORE)
PID = 1
LANES = 32  # tids of one unit
NAMES = {Unit.SEQ: "sequencer"}


class Wait(NamedTuple):
    """Instruction `waiter` took `n` of `semaphore`; `giver` gave the last (-1: nobody)."""

    waiter: int
    semaphore: int
    n: int
    giver: int


class Replay(NamedTuple):
    """The same run with what `RunResult` does not keep."""

    executed: list[Executed]
    timing: Timing


def replay(result: RunResult, program: Program, before: Memory) -> Replay | None:
    """Run again on DRAM as it was `before`; None if the program blocked, or if clocks differ."""
    machine = Machine(program.config, before.snapshot(), window=window(program))
    try:
        execution = machine.run(program.code)
    except EndlessProgram:
        return None
    fault = execution.fault
    if fault is not None and fault.code in (Fault.DEADLOCK, Fault.SEMAPHORE):
        return None
    stop = None if fault is None else (fault.code, fault.pc)
    executed = execution.executed
    timing = simulate(program.config, executed, code_count=len(program), fault=stop)
    if timing.cycles != result.cycles or timing.start != result.trace["start"].tolist():
        return None
    return Replay(executed, timing)


def waits(trace: np.ndarray, code: Sequence[Instr | None]) -> list[Wait]:
    """Who waited for whom: the k-th token of a semaphore is that of its k-th signal."""
    given: dict[int, list[int]] = {}
    ran = [(int(i), code[pc]) for i, pc in zip(trace["id"], trace["pc"], strict=True)
           if pc < len(code)]  # fmt: skip
    for number, instr in ran:
        if instr is None:
            continue
        v = instr.values
        if instr.spec.name == "post":
            given.setdefault(v["sem"], []).extend([number] * v["n"])
        for kind in ("rd", "done"):
            if v.get(f"{kind}_en"):
                given.setdefault(v[f"{kind}_sem"], []).append(number)
    taken: dict[int, int] = {}
    out = []
    for number, instr in ran:
        if instr is None:
            continue
        v = instr.values
        found = [(v[w], v[f"{w}_n"]) for w in ("wait0", "wait1") if v.get(f"{w}_n")]
        if instr.spec.name == "wait":
            found = [(v["sem"], v["n"])]
        for semaphore, count in found:
            last = taken[semaphore] = taken.get(semaphore, 0) + count
            tokens = given.get(semaphore, [])
            giver = tokens[last - 1] if 0 < last <= len(tokens) else -1
            out.append(Wait(number, semaphore, count, giver))
    return out


def lanes(starts: Sequence[int], ends: Sequence[int]) -> list[int]:
    """For intervals [start, end) in order of their starts, the first lane that is free."""
    free: list[int] = []
    out = []
    for start, end in zip(starts, ends, strict=True):
        at = next((i for i, f in enumerate(free) if f <= start), len(free))
        free[at : at + 1] = [end]
        out.append(at)
    return out


def _us(cycle: float) -> float:
    """Trace Event time (microseconds) of a cycle."""
    return round(cycle / 1000, 6)


def _name(unit: Unit) -> str:
    return NAMES.get(unit, unit.name)


def _thread(tid: int, name: str) -> Iterator[dict[str, Any]]:
    common = {"ph": "M", "pid": PID, "tid": tid}
    yield common | {"name": "thread_name", "args": {"name": name}}
    yield common | {"name": "thread_sort_index", "args": {"sort_index": tid}}


def _slice(tid: int, name: str, start: int, end: int, **args: Any) -> dict[str, Any]:
    return {"ph": "X", "pid": PID, "tid": tid, "name": name, "ts": _us(start),
            "dur": _us(end - start), "args": args}  # fmt: skip


def _instructions(result: RunResult, program: Program) -> Iterator[dict[str, Any]]:
    """Tracks of instructions, and the arrows between them."""
    trace, code, text = result.trace, instructions(program), assembly_lines(program)
    origins = program.source_map or (Origin(),) * len(program)
    total = result.cycles or 0
    start = trace["start"]
    end = np.where(trace["end"] < 0, total, trace["end"] + 1)
    found = waits(trace, code)
    by_waiter: dict[int, list[Wait]] = {}
    for wait in found:
        by_waiter.setdefault(wait.waiter, []).append(wait)
    tids = np.full(len(trace), -1)
    for unit in TRACKS:
        rows = np.flatnonzero((trace["unit"] == int(unit)) & (start >= 0))
        rows = rows[np.argsort(start[rows], kind="stable")]
        first = (1 + TRACKS.index(unit)) * LANES + 1
        tids[rows] = first + np.array(lanes(start[rows].tolist(), end[rows].tolist()), int)
        for tid in np.unique(tids[rows]).tolist():
            more = f" ({tid - first + 1})" if tid > first else ""
            yield from _thread(tid, f"{_name(unit)}{more}")
        for i in rows.tolist():
            pc = int(trace["pc"][i])
            args: dict[str, Any] = {"id": int(trace["id"][i]), "pc": pc}
            name = "?"
            if pc < len(text):
                instr, origin = code[pc], origins[pc]
                name = text[pc].split()[0] if instr is None else instr.spec.name
                args["assembly"] = text[pc]
                known = {"kernel": origin.kernel, "equation": origin.equation, "line": origin.line}
                args |= {k: v for k, v in known.items() if v}
            if trace["end"][i] < 0:
                args["unfinished"] = True
            args["waits"] = [_wait_text(w, trace) for w in by_waiter.get(args["id"], ())]
            yield _slice(int(tids[i]), name, int(start[i]), int(end[i]), **args)
    for number, wait in enumerate(found):
        a, b = wait.giver, wait.waiter
        if a < 0 or tids[a] < 0 or tids[b] < 0 or start[a] > start[b]:
            continue
        common = {"pid": PID, "cat": "semaphore", "name": f"s{wait.semaphore}", "id": number}
        leaves = min(int(end[a]) - 1, int(start[b]))
        yield common | {"ph": "s", "tid": int(tids[a]), "ts": _us(leaves)}
        yield common | {"ph": "f", "bp": "e", "tid": int(tids[b]), "ts": _us(int(start[b]))}


def _wait_text(wait: Wait, trace: np.ndarray) -> str:
    text = f"s{wait.semaphore}>={wait.n}"
    if wait.giver < 0:
        return text
    unit, end = Unit(int(trace["unit"][wait.giver])), int(trace["end"][wait.giver])
    ended = "which did not end" if end < 0 else f"which ended in cycle {end}"
    return f"{text} from #{wait.giver} of {_name(unit)}, {ended}"


def _causes(timing: Timing) -> Iterator[dict[str, Any]]:
    """Each unit's cycles by cause, as slices that tile the run."""
    for unit, sets in timing.activity.items():
        if not sets:
            continue
        cause = np.full(timing.cycles, len(CAUSES) - 1)
        for i in reversed(range(len(sets))):
            for first, last in zip(sets[i].starts, sets[i].ends, strict=True):
                cause[max(first, 0) : last + 1] = i
        cuts = [0, *(np.flatnonzero(np.diff(cause)) + 1).tolist(), timing.cycles]
        tid = (1 + TRACKS.index(unit)) * LANES
        yield from _thread(tid, f"{_name(unit)} cycles by cause")
        for a, b in pairwise(cuts):
            yield _slice(tid, CAUSES[int(cause[a])], a, b, cycles=b - a)


def _counter(name: str, changes: Iterable[tuple[int, float]]) -> Iterator[dict[str, Any]]:
    """A counter track from (cycle, difference)."""
    total: dict[int, float] = {0: 0.0}
    for cycle, change in changes:
        total[cycle] = total.get(cycle, 0.0) + change
    value = 0.0
    for cycle in sorted(total):
        value += total[cycle]
        yield {"ph": "C", "pid": PID, "name": name, "ts": _us(cycle),
               "args": {"value": round(value, 6) + 0.0}}  # fmt: skip


def _counters(result: RunResult, program: Program, again: Replay | None) -> Iterator[dict]:
    trace, config = result.trace, program.config
    end = np.where(trace["end"] < 0, result.cycles or 0, trace["end"] + 1)
    for unit in TRACKS[1:]:
        rows = (trace["unit"] == int(unit)) & (trace["start"] >= 0)
        if rows.any():
            changes = [(int(c), 1.0) for c in trace["start"][rows]]
            changes += [(int(c), -1.0) for c in end[rows]]
            yield from _counter(f"{_name(unit)} in flight", changes)
    if again is None:
        return
    for unit, label, scale in (
        (Unit.MATMUL, "array % (mean over each MATMUL)", 100 / config.dim**2),
        (Unit.LOAD, "beats read per cycle (mean over each LOAD)", 1.0),
        (Unit.STORE, "beats written per cycle (mean over each STORE)", 1.0),
    ):
        changes = []
        for e in again.executed:
            if e.unit is unit and trace["start"][e.id] >= 0:
                beats, useful, _ = work_of(config, unit, e.values)
                a, b = int(trace["start"][e.id]), int(end[e.id])
                rate = scale * (useful if unit is Unit.MATMUL else beats) / (b - a)
                changes += [(a, rate), (b, -rate)]
        if changes:
            yield from _counter(label, changes)


def perfetto(result: RunResult, program: Program, before: Memory | None = None) -> dict[str, Any]:
    """The run as a Trace Event object, to be written as JSON.

    Parameters
    ----------
    result : of an engine with a clock.
    program : what ran.
    before : DRAM as it was before the run; with it come the causes and the work counters.

    **Raises** ValueError: the engine has no clock.
    """
    if result.cycles is None:
        raise ValueError(
            f"a timeline needs an engine with a clock, cycle or rtl, not {result.engine!r}"
        )
    again = None if before is None else replay(result, program, before)
    name = f"{program.config.name}, {result.engine} engine (1 cycle = 1 ns)"
    events = [{"ph": "M", "pid": PID, "name": "process_name", "args": {"name": name}}]
    events += _instructions(result, program)
    if again is not None:
        events += _causes(again.timing)
    events += _counters(result, program, again)
    about = {
        "unit of time": "1 ns is one cycle",
        "chip": program.config.geometry,
        "engine": result.engine,
        "cycles": result.cycles,
        "fault": None if result.fault is None else str(result.fault),
        "counters": {k: int(v) for k, v in result.counters.items()},
    }
    return {"displayTimeUnit": "ns", "otherData": about, "traceEvents": events}
