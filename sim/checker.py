"""The checker: is a program legal, race-free, and does it stay in its DRAM?

It executes the program (without the units' data, unless the sequencer reads DRAM), then walks the
trace once: `legality` has the rules on semaphores, `races` the happens-before relation; `kernels`
looks at micro-kernels. Faults are no errors here, except a deadlock: engines agree on them;
`Report.fault` says which one is met.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tilewright.isa.config import INSTR_BYTES
from tilewright.isa.disassembler import format_instruction
from tilewright.isa.extent import dram_extent
from tilewright.isa.program import Program
from tilewright.isa.table import INSTRUCTIONS, OPCODE_BITS, Fault
from tilewright.sim.exec_vector import IllegalKernel
from tilewright.sim.footprint import UNIT_OF
from tilewright.sim.functional import EndlessProgram, Executed, Execution, Machine
from tilewright.sim.kernels import illegal_kernels
from tilewright.sim.legality import Legality, stuck
from tilewright.sim.memory import Memory
from tilewright.sim.races import Order, Race
from tilewright.sim.result import FaultInfo

MOST = 20  # findings that are worth reading
DEADLOCK_LIMIT = 100_000  # instructions that are followed behind a deadlock


class CheckError(ValueError):
    """The program is illegal, racy, deadlocks or leaves its DRAM; the message says where."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: kind is "legality", "deadlock", "window", "race" or "kernel"."""

    kind: str
    text: str
    pcs: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass
class Report:
    """What the checker found; `fault` is the fault that the program runs into, if any."""

    errors: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    fault: FaultInfo | None = None
    instructions: int = 0

    @property
    def ok(self) -> bool:
        """Whether the program may run on every engine with the same result."""
        return not self.errors

    @property
    def racy(self) -> bool:
        """Whether there is a race."""
        return any(f.kind == "race" for f in self.errors)

    def __str__(self) -> str:
        lines = [f"error: {f}" for f in self.errors[:MOST]]
        if len(self.errors) > MOST:
            lines.append(f"... and {len(self.errors) - MOST} more errors")
        lines += [f"warning: {w}" for w in self.warnings]
        return "\n".join(lines) or f"ok: {self.instructions} executed instructions"

    def require(self) -> Report:
        """This report, if there are no errors.

        Raises
        ------
        CheckError
            With all findings.
        """
        if self.errors:
            raise CheckError(f"the program must be legal and race-free:\n{self}")
        return self


def name(e: Executed) -> str:
    """An executed instruction in text: number, pc, disassembly."""
    return f"#{e.id} (instruction {e.pc}: {format_instruction(e.decoded)})"


def _brief(e: Executed) -> str:
    return f"{e.name} #{e.id}"


def _race(r: Race) -> Finding:
    low, high = r.cells
    unit = UNIT_OF[r.space]
    where = f"{r.space} {unit} {low:#x}" if r.space == "dram" else f"{r.space} {unit} {low}"
    if high > low:
        where = where.replace(unit, unit + "s", 1) + (
            f" to {high:#x}" if r.space == "dram" else f" to {high}"
        )
    if r.first is r.second:
        text = f"{name(r.first)} reads {where} that it writes itself: split it"
    else:
        text = (
            f"{r.kind} at {where}: {_brief(r.second)} must wait for {r.missing} of "
            f"{_brief(r.first)}\n  {name(r.first)}\n  {name(r.second)}"
        )
    return Finding("race", text, (r.first.pc, r.second.pc))


def _window(program: Program, e: Executed) -> Finding | None:
    """DRAM operands stay below `dram_size`."""
    if e.name in ("ldw", "stw"):
        low, high = e.address, e.address + 3
    else:
        extent = dram_extent(e.decoded.spec, e.values)
        if extent is None:
            return None
        _, low, high = extent
    if low >= 0 and high < program.dram_size:
        return None
    text = (
        f"{name(e)}: DRAM bytes must stay below dram_size ({program.dram_size:#x}), "
        f"not {low:#x} to {high:#x}"
    )
    return Finding("window", text, (e.pc,))


def _reads_dram(code: bytes) -> bool:
    opcode, mask = INSTRUCTIONS["ldw"].opcode, (1 << OPCODE_BITS) - 1
    return any(code[i] & mask == opcode for i in range(0, len(code), INSTR_BYTES))


def _execute(program: Program, memory: Memory, blocking: bool, limit: int | None) -> Execution:
    data = _reads_dram(program.code)
    machine = Machine(
        program.config,
        memory.snapshot() if data else memory,
        data=data,
        blocking=blocking,
        window=(0, program.dram_size - 1),
    )
    return machine.run(program.code) if limit is None else machine.run(program.code, limit)


def _deadlock(program: Program, memory: Memory, fault: FaultInfo) -> Finding:
    """Who is stuck if the units go on concurrently."""
    text = f"instruction {fault.pc}: {fault.text}"
    try:
        execution = _execute(program, memory, False, DEADLOCK_LIMIT)
    except EndlessProgram as e:
        execution = e.execution
    except IllegalKernel as error:  # behind the wait
        return Finding("deadlock", f"{text}; then {error}", (fault.pc,))
    trace = execution.executed
    if execution.fault is not None and execution.fault.code != Fault.PC:
        trace = trace[:-1]
    heads = stuck(trace)
    if heads:
        text += "; stuck for ever:" + "".join(
            f"\n  {e.unit.name} at {name(e)} {why}" for e, why in heads
        )
    else:
        text += "; it would finish only by luck of the units' timing (legality rule a)"
    return Finding("deadlock", text, (fault.pc,))


def check(program: Program, memory: Memory, execution: Execution | None = None) -> Report:
    """Check one program on one memory.

    Parameters
    ----------
    memory : DRAM with inputs and the program's data; not changed.
    execution : its trace in program order, if the caller has it.
    """
    if execution is None:
        try:
            execution = _execute(program, memory, True, None)
        except IllegalKernel as error:
            return Report([Finding("kernel", str(error))])
    trace = execution.executed
    report = Report(fault=execution.fault, instructions=len(trace))
    fault = execution.fault
    faulted = fault is not None and fault.code != Fault.PC
    order, legal = Order(program.config), Legality(name)
    outside: set[int] = set()
    done, window = trace[:-1] if faulted else trace, (0, program.dram_size - 1)
    for pc, text in illegal_kernels(program.config, program.code, done, memory, window):
        report.errors.append(Finding("kernel", text, (pc,)))
    for e in done:
        report.errors += [Finding("legality", text, (e.pc,)) for text in legal.add(e)]
        finding = _window(program, e) if e.pc not in outside else None
        if finding is not None:
            outside.add(e.pc)
            report.errors.append(finding)
        order.add(e)
    report.errors += map(_race, order.races)
    if fault is None:
        report.warnings += legal.left()
    elif fault.code == Fault.DEADLOCK:
        report.errors.append(_deadlock(program, memory, fault))
    elif fault.code in (Fault.SEMAPHORE, Fault.WINDOW):
        kind = "legality" if fault.code == Fault.SEMAPHORE else "window"
        report.errors.append(Finding(kind, fault.text, (fault.pc,)))
    return report
