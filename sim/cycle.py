"""The cycle engine: the functional engine's bytes, and every cycle that the RTL would take.

The default engine; it needs no compiler on the machine. `time_program` gives the cycles alone, for
the tuner: only scalar instructions are executed, no data move.
"""

from __future__ import annotations

from tilewright.isa.config import INSTR_BYTES, ChipConfig
from tilewright.isa.extent import EVERYTHING
from tilewright.isa.table import Fault, Unit
from tilewright.sim.decoder import counted
from tilewright.sim.functional import (
    INSTRUCTION_LIMIT,
    EndlessProgram,
    Executed,
    Execution,
    Machine,
)
from tilewright.sim.memory import Memory
from tilewright.sim.result import UNTIMED_COUNTERS, FaultInfo, RunResult
from tilewright.sim.scalar import word_beats
from tilewright.sim.timing import Timing, simulate

#: Faults of the functional engine's order of execution, not of an instruction by itself.
_BLOCKING = (Fault.DEADLOCK, Fault.SEMAPHORE)
#: Timings of the last KNOWN programs: cycles do not depend on data unless `ldw` reads them.
KNOWN = 64
_known: dict[tuple[ChipConfig, bytes, tuple[int, int]], Timing] = {}
BEHIND = 100_000  # instructions that are followed behind a wait that blocks in program order


def forget() -> None:
    """Time every program anew."""
    _known.clear()


def _whole_trace(
    machine: Machine, code: bytes, execution: Execution, limit: int
) -> tuple[list[Executed], FaultInfo | None]:
    """What the sequencer of a chip dispatches, and the fault that ends it.

    Where the functional engine blocks, the chip's units block one by one while the sequencer goes
    on: follow it without data and without waiting.
    """
    executed, fault = execution.executed, execution.fault
    if fault is None or fault.code not in _BLOCKING:
        return executed, fault
    machine.data = machine.blocking = False
    try:
        more = machine.run(code, min(limit, machine.count + BEHIND))
    except EndlessProgram as e:
        more = e.execution
    return executed + more.executed, more.fault


def _done(machine: Machine, executed: list[Executed], timing: Timing) -> dict[str, int]:
    """The counters that need no clock, of what a deadlocked chip did."""
    counters = dict.fromkeys(UNTIMED_COUNTERS, 0)
    for e in executed[: timing.begun]:
        if e.unit is not Unit.SEQ and timing.start[e.id] >= 0:
            for name, n in counted(machine.config, e.unit, e.values):
                counters[name] += n
        elif timing.end[e.id] >= 0 and e.instr and e.instr.spec.name in ("ldw", "stw"):
            which = "beats_read" if e.instr.spec.name == "ldw" else "beats_written"
            counters[which] += word_beats(e.address, machine.config.bus_bytes)
    return counters


def _timed(
    machine: Machine, code: bytes, execution: Execution, limit: int, latencies: tuple[int, int]
) -> tuple[Timing, list[Executed]]:
    """The timing of what the sequencer dispatches, and that.

    A program that never reads DRAM into a register is timed once.
    """
    fixed = execution.fault is None and all(
        e.instr is None or e.instr.spec.name != "ldw" for e in execution.executed
    )
    key = (machine.config, code, latencies)
    if fixed and key in _known:
        return _known[key], execution.executed
    executed, fault = _whole_trace(machine, code, execution, limit)
    timing = simulate(
        machine.config,
        executed,
        code_count=len(code) // INSTR_BYTES,
        fault=None if fault is None else (fault.code, fault.pc),
        read_latency=latencies[0],
        write_latency=latencies[1],
    )
    if fixed:
        if len(_known) >= KNOWN:
            del _known[next(iter(_known))]  # the oldest
        _known[key] = timing
    return timing, executed


def run_timed(
    config: ChipConfig,
    code: bytes,
    memory: Memory,
    limit: int = INSTRUCTION_LIMIT,
    *,
    window: tuple[int, int] = EVERYTHING,
    read_latency: int = 60,
    write_latency: int = 20,
) -> tuple[RunResult, Timing]:
    """Run `code` on `memory`, which is changed in place; also give the timing's details.

    DMA may touch DRAM's bytes from `window[0]` to `window[1]`.

    Raises
    ------
    EndlessProgram
        After `limit` instructions.
    """
    machine = Machine(config, memory, window=window)
    execution = machine.run(code, limit)
    counters, trace, fault = machine.counters, execution.trace(), execution.fault
    timing, executed = _timed(machine, code, execution, limit, (read_latency, write_latency))
    if timing.stuck:
        text = "; ".join([*([] if fault is None else [fault.text]), *timing.stuck])
        fault = FaultInfo(Fault.DEADLOCK, timing.oldest, text=text)
        counters = _done(machine, executed, timing)
        trace = Execution(executed[: timing.begun]).trace()
    count = len(trace)
    trace["start"], trace["end"] = timing.start[:count], timing.end[:count]
    counters = counters | timing.counters
    return RunResult("cycle", memory, counters, trace, timing.cycles, fault), timing


def run(
    config: ChipConfig,
    code: bytes,
    memory: Memory,
    limit: int = INSTRUCTION_LIMIT,
    *,
    window: tuple[int, int] = EVERYTHING,
) -> RunResult:
    """Run `code` on `memory`, which is changed in place; DMA may touch `window` (first, last)."""
    return run_timed(config, code, memory, limit, window=window)[0]


def time_program(
    config: ChipConfig,
    code: bytes,
    memory: Memory | None = None,
    limit: int = INSTRUCTION_LIMIT,
    *,
    read_latency: int = 60,
    write_latency: int = 20,
) -> Timing:
    """Cycles of `code` without its data.

    `memory` is what `ldw` reads (default: empty); nothing but `stw` changes it.

    Raises
    ------
    EndlessProgram
        After `limit` instructions.
    """
    machine = Machine(config, Memory() if memory is None else memory, data=False)
    execution = machine.run(code, limit)
    return _timed(machine, code, execution, limit, (read_latency, write_latency))[0]
