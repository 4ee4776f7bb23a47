"""One run of a program on a device's engine, as its worker does it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from tilewright import sim
from tilewright.course import reads_words, words_read
from tilewright.isa.config import INSTR_BYTES
from tilewright.isa.disassembler import disassemble
from tilewright.isa.program import Program
from tilewright.profiler import ProgramRun

if TYPE_CHECKING:
    from tilewright.device import Device
    from tilewright.profiler import Profile


class ChipFaultError(RuntimeError):
    """The chip stopped with a fault; the message shows the instruction and the user's line."""


def fault_error(program: Program, fault: sim.FaultInfo, where: str) -> ChipFaultError:
    """Return the exception for a fault of a program called `where`."""
    word = program.code[fault.pc * INSTR_BYTES : (fault.pc + 1) * INSTR_BYTES]
    text = disassemble(word).strip() if word else "outside of the program"
    line = program.source_map[fault.pc].line if fault.pc < len(program.source_map) else ""
    origin = f" (from {line})" if line else ""
    return ChipFaultError(f"{where}: {fault}\n  {text}{origin}")


def execute_program(
    device: Device,
    program: Program,
    name: str,
    call: str,
    pending: Sequence[Future[Any]],
    profiles: Sequence[Profile],
) -> None:
    """Run a linked program on the device's memory; give the profiles what it cost.

    Parameters
    ----------
    call : the user's line of the call.
    pending : what it waits for; an error there is this call's error.

    **Raises** ChipFaultError, and what the engine raises.
    """
    for future in pending:
        future.result()
    known = not profiles or not reads_words(program.code)
    before = None if known else device.memory.snapshot()
    try:
        result = sim.run(program, device.memory, engine=device.engine, check=False)
    except Exception as error:
        error.add_note(f"in the call of {name} at {call}")
        raise
    if result.fault is not None:
        raise fault_error(program, result.fault, f"{name} at {call}")
    words = () if before is None else words_read(program, before)
    run = ProgramRun.of(name, call, program, result, words)
    for profile in profiles:
        profile.runs.append(run)
