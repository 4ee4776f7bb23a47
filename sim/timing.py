"""Cycles of an executed program, exactly as the RTL takes them, without any data.

Waits, branches and addresses of a legal program do not depend on time, so the functional engine
gives the trace first; `simulate` then replays it against docs/microarchitecture.md: the sequencer
(`timing_seq`) runs ahead and pushes, the issue module (`timing_issue`) jumps from event to event,
the units (`timing_units`) answer each grant with the cycles of their releases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tilewright.isa.config import ChipConfig
from tilewright.isa.table import Fault, Unit
from tilewright.sim.timing_causes import CAUSES, Intervals, classify
from tilewright.sim.timing_front import NOBODY
from tilewright.sim.timing_issue import Issue
from tilewright.sim.timing_ops import Op, constants, lower
from tilewright.sim.timing_seq import COUNT, QUIET, ROOM, sequence

UNITS = (Unit.LOAD, Unit.MATMUL, Unit.VECTOR, Unit.STORE)


@dataclass
class Timing:
    """What a run costs.

    Parameters
    ----------
    cycles : from the first cycle after the host's start to the report of halt or fault, inclusive.
    start, end : by instruction id; a unit's grant and done pulse, the sequencer's first and last
        EXEC cycle; -1 if it never came to that.
    causes : (4 units) x (issuing, semaphore, port, memory, empty) cycles.
    stuck : one sentence for each blocked unit; empty unless the program is deadlocked. Then
    oldest, begun : pc of the oldest blocked instruction; instructions that the sequencer began.
    overflow : (cycle, semaphore) of the first count above its limit.
    activity : for each unit the intervals behind `causes`, for pictures.
    """

    cycles: int
    start: list[int]
    end: list[int]
    causes: list[list[int]]
    stuck: list[str] = field(default_factory=list)
    oldest: int = -1
    begun: int = 0
    overflow: tuple[int, int] | None = None
    activity: dict[Unit, tuple[Intervals, ...]] = field(default_factory=dict, repr=False)

    @property
    def counters(self) -> dict[str, int]:
        """The counters that need a clock, by `sim.result`'s names."""
        out = {"cycles": self.cycles}
        for unit, row in zip(UNITS, self.causes, strict=True):
            for name, value in zip(CAUSES, row, strict=True):
                out[f"{unit.name.lower()}_{name}"] = value
        return out


def _stuck(issue: Issue) -> list[str]:
    """Who is blocked for ever, by what, in words."""
    out = []
    for u in UNITS:
        front = issue.fronts[u]
        if front.head is NOBODY:
            continue
        op = front.head
        waits = " and ".join(
            f"{n} of semaphore {s} (its count is {issue.counts[s]})" for s, n in op.waits
        )
        out.append(f"{u.name}: instruction {op.pc} (#{op.id}) waits for {waits}")
    if issue.waits_for is not None:
        what, _, arg = issue.waits_for
        if what == COUNT:
            why = (
                f"instruction {arg.pc} (#{arg.id}) waits for {arg.n} of semaphore {arg.sem} "
                f"(its count is {issue.counts[arg.sem]})"
            )
        elif what == ROOM:
            unit = Unit(arg.unit).name
            why = f"instruction {arg.pc} (#{arg.id}) waits for room in {unit}'s queue"
        else:
            names = ", ".join(Unit(u).name for u in arg)
            why = f"a fence, halt, ldw or stw waits until these units are quiet: {names}"
        out.append(f"sequencer: {why}")
    return out


def _dead(issue: Issue, ops: Sequence[Op]) -> tuple[int, int]:
    """Pc of the oldest blocked instruction, and how many instructions the sequencer began."""
    assert issue.waits_for is not None
    what, _, arg = issue.waits_for
    if what == QUIET:
        done = [op.id for op in ops if op.unit == Unit.SEQ and issue.start[op.id] >= 0]
        last = max(done, default=-1)
    else:
        last = arg.id
    heads = [f.head for f in issue.fronts if f.head is not NOBODY]
    oldest = min(heads, key=lambda op: op.id).pc if heads else next(
        op.pc for op in ops if op.id == last
    )  # fmt: skip
    return oldest, last + 1


def run_ops(config: ChipConfig, ops: Sequence[Op], code_count: int, k: Any = None) -> Timing:
    """Time lowered instructions; `k` are `timing_ops.constants`.

    A program that ends in a deadlock stops with that fault.
    """
    k = k or constants(config)
    issue = Issue(k, ops)
    issue.run(sequence(ops, issue, k, code_count))
    stuck: list[str] = []
    last, oldest, begun = issue.stopped, -1, 0
    if last is None:
        stuck = _stuck(issue)
        oldest, begun = _dead(issue, ops)
        last = issue.settle()
    activity: dict[Unit, tuple[Intervals, ...]] = {}
    causes = []
    for u in UNITS:
        front = issue.fronts[u]
        sets = (front.unit.issuing, front.semaphore, front.port, front.unit.flight)
        activity[u] = sets
        causes.append(classify(last + 1, sets))
    return Timing(
        last + 1, issue.start, issue.end, causes, stuck, oldest, begun, issue.overflow, activity
    )


def simulate(
    config: ChipConfig,
    executed: Sequence[Any],
    *,
    code_count: int | None = None,
    fault: tuple[Fault, int] | None = None,
    read_latency: int = 60,
    write_latency: int = 20,
) -> Timing:
    """Time an executed trace.

    Parameters
    ----------
    config : the geometry.
    executed : `sim.functional.Executed` records in program order; the last one is the faulting
        instruction if `fault` is given (except for a PC fault, which has none).
    code_count : instructions in the program (default: up to the highest pc executed).
    fault : code and pc, if the program ended so.
    read_latency, write_latency : of the ideal memory, in cycles. Exact up to 60 and 20; above, the
        RTL's limit of 64 unanswered bursts may bind, which the contract leaves out.
    """
    if code_count is None:
        code_count = max((e.pc for e in executed), default=0) + 1
    k = constants(config, read_latency, write_latency)
    return run_ops(config, lower(config, executed, fault), code_count, k)
