"""The RTL engine: the chip's own Verilog, compiled by Verilator, with a C++ memory around it.

The program is put into the simulated DRAM, the host registers are written over AXI4-Lite as a
driver would, and the result is read back the same way. `RtlChip` is one powered-up chip; `run` is
what `sim.run` calls.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
from tilewright.isa.config import INSTR_BYTES, QUEUE_DEPTH, ChipConfig
from tilewright.isa.encoding import IllegalInstruction, decode
from tilewright.isa.extent import EVERYTHING
from tilewright.isa.registers import COUNTERS, QUEUED, REGISTERS, UNIT_COUNTERS, unit_counter
from tilewright.isa.table import Fault, Mem, Unit
from tilewright.sim.memory import Memory
from tilewright.sim.result import TRACE, FaultInfo, RunResult
from tilewright.sim.rtl_build import library
from tilewright.sim.rtl_wave import WaveSink, attach, wave_functions

EVENT = np.dtype(
    [("kind", "<u4"), ("unit", "<u4"), ("value", "<u4"), ("pad", "<u4"), ("cycle", "<u8")]
)
CTRL, STATUS, FAULT, FAULT_PC, CODE_BASE, CODE_COUNT, WINDOW_BASE, WINDOW_LIMIT, WATCHDOG = (
    REGISTERS[name].offset
    for name in ("CTRL", "STATUS", "FAULT", "FAULT_PC", "CODE_BASE", "CODE_COUNT", "WINDOW_BASE",
                 "WINDOW_LIMIT", "WATCHDOG")
)  # fmt: skip
DEBUG_ADDR, DEBUG_DATA, BREAK, PC, HEADS, SEMAPHORE_COUNTS, COUNTER = (
    REGISTERS[name].offset
    for name in ("DEBUG_ADDR", "DEBUG_DATA", "BREAK", "PC", "HEAD_LOAD", "SEMAPHORE", "COUNTER")
)
ON = 1 << REGISTERS["BREAK"].bit("ON")  # also of HEADS; of DEBUG_ADDR it selects the accumulator
START, ABORT = (1 << REGISTERS["CTRL"].bit(name) for name in ("START", "ABORT"))
PAGE = 1 << 16  # as in the harness
BEGIN, END, ISSUED, DONE = range(4)  # kinds of events, as in the harness


class RtlError(RuntimeError):
    """The RTL did something that no legal program explains (a hang, a silent host port)."""


def _open(path: Path, traced: bool = False) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(path))
    u32, u64, ptr = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
    functions = {
        "tw_new": (ptr, [u64, u64, u32, u64]),
        "tw_free": (None, [ptr]),
        "tw_copy": (None, [ptr, u32, ptr, u64, ctypes.c_int]),
        "tw_host_write": (ctypes.c_int, [ptr, u32, u32]),
        "tw_host_read": (ctypes.c_int, [ptr, u32, ctypes.POINTER(u32)]),
        "tw_options": (None, [ptr] + [ctypes.c_int] * 4),
        "tw_run": (ctypes.c_int, [ptr, u64, u64]),
        "tw_spin": (None, [ptr, u64]),
        "tw_array_cycles": (u64, [ptr]),
        "tw_pages": (u64, [ptr, ptr]),
        "tw_events": (u64, [ptr, ctypes.POINTER(ptr)]),
    }
    for name, (result, arguments) in (functions | (wave_functions() if traced else {})).items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class RtlChip:
    """One chip out of reset, with an empty memory.

    Parameters
    ----------
    config : the geometry.
    stall : per cent of cycles in which each AXI channel stalls at random (0: ideal memory, whose
        cycles equal the cycle engine's).
    seed : of the stalls.
    wave : where waves go; it takes another build of the model, which is slower.
    """

    def __init__(self, config: ChipConfig, *, stall: int = 0, seed: int = 0,
                 read_latency: int = 60, write_latency: int = 20,
                 wave: WaveSink | None = None):  # fmt: skip
        self.config = config
        traced = wave is not None
        self._lib = _open(library(config, traced), traced)
        self._chip = self._lib.tw_new(read_latency, write_latency, stall, seed)
        self._wave = None if wave is None else attach(self._lib, self._chip, wave)

    def close(self) -> None:
        """Free the model; the chip cannot be used afterwards."""
        if self._chip:
            self._lib.tw_free(self._chip)
            self._chip = None

    def __enter__(self) -> RtlChip:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def write(self, address: int, data: bytes | np.ndarray) -> None:
        """Put bytes into DRAM."""
        raw = np.frombuffer(bytes(data) if isinstance(data, bytes) else data, np.uint8)
        raw = np.ascontiguousarray(raw)
        self._lib.tw_copy(self._chip, address, raw.ctypes.data, raw.size, 1)

    def read(self, address: int, count: int) -> np.ndarray:
        """Take (count,) uint8 out of DRAM."""
        raw = np.empty(count, np.uint8)
        self._lib.tw_copy(self._chip, address, raw.ctypes.data, count, 0)
        return raw

    def pages(self) -> np.ndarray:
        """Addresses of the PAGE-sized pieces of DRAM that were ever touched, ascending."""
        count = self._lib.tw_pages(self._chip, None)
        addresses = np.empty(count, np.uint32)
        self._lib.tw_pages(self._chip, addresses.ctypes.data)
        return np.sort(addresses)

    def host_write(self, register: int, value: int) -> None:
        """Write a host register over AXI4-Lite."""
        if not self._lib.tw_host_write(self._chip, register, value):
            raise RtlError(f"host port did not answer a write to {register:#05x}")

    def host_read(self, register: int) -> int:
        """Read a host register over AXI4-Lite."""
        value = ctypes.c_uint32()
        if not self._lib.tw_host_read(self._chip, register, ctypes.byref(value)):
            raise RtlError(f"host port did not answer a read of {register:#05x}")
        return value.value

    def options(self, *, always_clock: bool = False, record: bool = True,
                error_read: bool = False, error_write: bool = False) -> None:  # fmt: skip
        """Harness switches: ungate the array's clock, keep events, answer with AXI errors."""
        self._lib.tw_options(self._chip, always_clock, record, error_read, error_write)

    def spin(self, cycles: int) -> None:
        """Give `cycles` clock cycles."""
        self._lib.tw_spin(self._chip, cycles)

    @property
    def array_cycles(self) -> int:
        """Cycles for which the array was clocked since power-up."""
        return self._lib.tw_array_cycles(self._chip)

    def start(self, code_base: int, code_count: int) -> None:
        """Write code address and length, then start."""
        self.host_write(CODE_BASE, code_base)
        self.host_write(CODE_COUNT, code_count)
        self.host_write(CTRL, START)

    def abort(self) -> None:
        """Stop the program; the fault is ABORT."""
        self.host_write(CTRL, ABORT)

    def peek(self, mem: Mem, offset: int) -> int:
        """A word of a local memory while nothing runs; `offset` in bytes, a multiple of 4."""
        self.host_write(DEBUG_ADDR, offset | (ON if mem == Mem.ACC else 0))
        return self.host_read(DEBUG_DATA)

    def finish(self, limit: int, patience: int = 100_000) -> None:
        """Run until the chip stops.

        Raises
        ------
        RtlError
            After `limit` cycles, or when nothing has moved for `patience` cycles.
        """
        status = self._lib.tw_run(self._chip, limit, patience)
        if status:
            why = (
                f"nothing moved for {patience} cycles"
                if status == 2
                else f"limit of {limit} cycles"
            )
            raise RtlError(f"the RTL did not finish: {why}")

    def events(self) -> np.ndarray:
        """(n,) EVENT: what the trace ports said, in order."""
        at = ctypes.c_void_p()
        count = self._lib.tw_events(self._chip, ctypes.byref(at))
        if not count:
            return np.empty(0, EVENT)
        raw = ctypes.string_at(at.value, count * EVENT.itemsize)
        return np.frombuffer(raw, EVENT)

    def counters(self) -> dict[str, int]:
        """All counters, by the names that `RunResult.counters` uses."""
        word = lambda i: self.host_read(COUNTER + 4 * i)  # noqa: E731
        out = {
            name: sum(word(counter.index + i) << 32 * i for i in range(counter.words))
            for name, counter in COUNTERS.items()
        }
        for unit in QUEUED:
            name = unit.name.lower()
            for j, cause in enumerate(UNIT_COUNTERS):
                out[f"{name}_{cause}"] = word(unit_counter(unit) + j)
        return out


def _unit_of(word: bytes) -> Unit:
    """The unit of an instruction; SEQ if it is none."""
    try:
        return decode(word).spec.unit
    except IllegalInstruction:
        return Unit.SEQ


def forget_unstarted(trace: np.ndarray, code: bytes) -> None:
    """After a deadlock: what the sequencer began for a unit and the unit did not.

    The last one was refused and stays the sequencer's, unless it waits for room in a full queue.
    """
    waiting = dict.fromkeys(QUEUED, 0)
    for i in np.flatnonzero(trace["unit"] == Unit.SEQ).tolist():
        pc = int(trace["pc"][i])
        unit = _unit_of(code[INSTR_BYTES * pc : INSTR_BYTES * (pc + 1)])
        if unit is Unit.SEQ or (trace["end"][i] < 0 and waiting[unit] <= QUEUE_DEPTH):
            continue
        waiting[unit] += 1
        trace["unit"][i], trace["start"][i], trace["end"][i] = int(unit), -1, -1


def trace_of(events: np.ndarray) -> np.ndarray:
    """(n,) TRACE of the executed instructions, from the trace ports' events.

    Instructions get their id in the sequencer's order; a unit's ends come in its starts' order.
    """
    begins = events[events["kind"] == BEGIN]
    out = np.full(len(begins), -1, TRACE)
    out["id"] = np.arange(len(begins))
    out["pc"], out["unit"], out["start"] = begins["value"], int(Unit.SEQ), begins["cycle"]
    ends = events[events["kind"] == END]["cycle"]
    out["end"][: len(ends)] = ends
    for unit in QUEUED:
        mine = events[events["unit"] == unit]
        starts, dones = mine[mine["kind"] == ISSUED], mine[mine["kind"] == DONE]["cycle"]
        which = starts["value"]
        out["unit"][which], out["start"][which], out["end"][which] = int(unit), starts["cycle"], -1
        out["end"][which[: len(dones)]] = dones
    return out


def run(
    config: ChipConfig,
    code: bytes,
    memory: Memory,
    *,
    stall: int = 0,
    seed: int = 0,
    limit: int = 2_000_000_000,
    window: tuple[int, int] = EVERYTHING,
    always_clock: bool = False,
    wave: WaveSink | None = None,
) -> RunResult:
    """Run `code` on the RTL; `memory` is changed in place.

    The code is put at the top of the address space, where no data may be.

    Parameters
    ----------
    stall, seed : random stalls of every AXI channel; then bytes are the same, cycles are not.
    limit : cycles.
    window : first and last byte of DRAM that the program may touch.
    always_clock : clock the array and the epilogue also when the chip does not ask for it.
    wave : where waves go (`tilewright.waveforms.fst` writes them to a file).

    Raises
    ------
    RtlUnavailableError
        No Verilator or no compiler.
    RtlError
        The chip did not stop.
    """
    base = (1 << 32) - PAGE - -(-len(code) // PAGE) * PAGE
    with RtlChip(config, stall=stall, seed=seed, wave=wave) as chip:
        for address, content in memory.chunks():
            if address + content.size > base:
                raise RtlError(f"DRAM from {base:#x} up must be free for the code")
            chip.write(address, content)
        chip.write(base, code)
        chip.options(always_clock=always_clock)
        if window != EVERYTHING:
            chip.host_write(WINDOW_BASE, window[0])
            chip.host_write(WINDOW_LIMIT, window[1])
        chip.start(base, len(code) // INSTR_BYTES)
        chip.finish(limit)
        for address in chip.pages().tolist():
            if address < base:
                memory.write(address, chip.read(address, PAGE))
        counters = chip.counters()
        trace = trace_of(chip.events())
        found = fault_of(chip)
        if found is not None and found[0] == Fault.DEADLOCK:
            forget_unstarted(trace, code)
    fault = None if found is None else FaultInfo(*found, text=found[0].meaning)
    return RunResult("rtl", memory, counters, trace, counters["cycles"], fault)


def fault_of(chip: RtlChip) -> tuple[Fault, int] | None:
    """(code, pc) if the chip stopped on a fault."""
    code = chip.host_read(FAULT)
    return (Fault(code), chip.host_read(FAULT_PC)) if code else None
