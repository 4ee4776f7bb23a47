"""The host's registers: the only description of what a driver reads and writes over AXI4-Lite.

`hw.host`, the RTL engine, the C header and the table in `docs/driver.md` (printed by
``python -m tilewright.isa.registers``) derive from it. A register is 32 bits at a byte offset of
the chip's 4 KiB; reserved bits read 0. Writes to what is not here do nothing, reads give 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tilewright.isa.config import ARRAYS, INSTR_BYTES, LINE_INSTRS, SEMAPHORES, ChipConfig
from tilewright.isa.forms import Unit

ID = 0x54570001
PC_BITS = 26  # of an instruction's index in its program
CODE_ALIGN = LINE_INSTRS * INSTR_BYTES  # bytes: one line
QUEUED = tuple(unit for unit in Unit if unit != Unit.SEQ)
#: Where a unit's cycles go, in the order of its counters; `instructions` follows them.
CAUSES = ("issuing", "semaphore", "port", "memory", "empty")
UNIT_COUNTERS = (*CAUSES, "instructions")


class Access(Enum):
    """What the host can do with bits."""

    RO = "read"
    RW = "read and write"
    W1C = "read; writing 1 clears"
    W1 = "writing 1 acts; reads 0"


@dataclass(frozen=True)
class Bits:
    """Bits of a register, from bit `low` up."""

    name: str
    low: int
    width: int
    access: Access
    meaning: str

    @property
    def mask(self) -> int:
        """Its bits in the register's word."""
        return ((1 << self.width) - 1) << self.low


@dataclass(frozen=True)
class Register:
    """A register, or `count` of them, one word after the other.

    `idle`: writes do nothing while a program runs. Its bits are `bits`, or the whole word.
    """

    name: str
    offset: int
    access: Access
    meaning: str
    bits: tuple[Bits, ...] = ()
    reset: int = 0
    idle: bool = False
    count: int = 1

    def bit(self, name: str) -> int:
        """The lowest bit of a field."""
        return next(b.low for b in self.bits if b.name == name)


RO, RW, W1C, W1 = Access
_HEAD = (Bits("PC", 0, PC_BITS, RO, "its index"), Bits("VALID", 31, 1, RO, "the queue has a head"))
REGISTERS = {
    r.name: r
    for r in (
        Register("ID", 0x000, RO, "identifies the chip and its version", reset=ID),
        Register("CTRL", 0x004, W1, "commands", (
            Bits("START", 0, 1, W1, "start the program, unless one runs"),
            Bits("ABORT", 1, 1, W1, "stop it; fault ABORT"),
            Bits("RESUME", 2, 1, W1, "go on after the breakpoint"),
        )),
        Register("STATUS", 0x008, RO, "how the program ended; a start clears HALTED, FAULTED", (
            Bits("RUNNING", 0, 1, RO, "a program runs"),
            Bits("HALTED", 1, 1, W1C, "it ended"),
            Bits("FAULTED", 2, 1, W1C, "it stopped on a fault"),
            Bits("STOPPED", 3, 1, RO, "it waits at the breakpoint"),
        )),
        Register("FAULT", 0x00C, RO, "the fault's code; 0: none", (
            Bits("CODE", 0, 4, RO, "`Fault`"),
        )),
        Register("FAULT_PC", 0x010, RO, "the faulting instruction's index", (
            Bits("PC", 0, PC_BITS, RO, "the index"),
        )),
        Register("CODE_BASE", 0x014, RW, f"the program's address, a multiple of {CODE_ALIGN} bytes",
                 idle=True),
        Register("CODE_COUNT", 0x018, RW, "its instructions", idle=True),
        Register("GEOMETRY", 0x01C, RO, "the chip's geometry", (
            Bits("DIM", 0, 8, RO, "rows and columns of the array"),
            Bits("BUS_BYTES", 8, 8, RO, "bytes of a data beat"),
            Bits("LOG2_SPAD_KIB", 16, 8, RO, "scratchpad, log2 of KiB"),
            Bits("LOG2_ACC_KIB", 24, 7, RO, "accumulator, log2 of KiB"),
            Bits("INT8_ARRAY", 31, 1, RO, "the array has 8-bit integers only"),
        )),
        Register("IRQ_ENABLE", 0x020, RW, "the interrupt", (
            Bits("ENABLE", 0, 1, RW, "`irq` is HALTED or FAULTED"),
        )),
        Register("WINDOW_BASE", 0x024, RW, "the first byte of DRAM that a program may touch",
                 idle=True),
        Register("WINDOW_LIMIT", 0x028, RW, "the last one", reset=0xFFFFFFFF, idle=True),
        Register("WATCHDOG", 0x02C, RW, "cycles after which a program is stopped; 0: never"),
        Register("DEBUG_ADDR", 0x030, RW, "writing it reads a word of a local memory, while "
                 "nothing runs, or at the breakpoint while the units are quiet", (
            Bits("OFFSET", 0, 31, RW, "in bytes, a multiple of 4"),
            Bits("ACC", 31, 1, RW, "of the accumulator, else of the scratchpad"),
        )),
        Register("DEBUG_DATA", 0x034, RO, "that word"),
        Register("BREAK", 0x038, RW, "the sequencer stops before this instruction until RESUME; "
                 "the units go on", (
            Bits("PC", 0, PC_BITS, RW, "the index"),
            Bits("ON", 31, 1, RW, "the breakpoint is on"),
        )),
        Register("PC", 0x03C, RO, "the sequencer's program counter", (
            Bits("PC", 0, PC_BITS, RO, "the index"),
        )),
        *(
            Register(f"HEAD_{u.name}", 0x040 + 4 * u, RO, f"the head of {u.name}'s queue", _HEAD)
            for u in QUEUED
        ),
        Register("SEMAPHORE", 0x080, RO, "counts of the semaphores", count=SEMAPHORES),
        Register("COUNTER", 0x100, RO, "counters, below; a start clears them",
                 count=8 + 8 * len(QUEUED)),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Counter:
    """A chip-wide counter: `index` of its first word, how many words (low first), meaning."""

    name: str
    index: int
    words: int
    meaning: str


#: The chip's counters; those of unit u, as in UNIT_COUNTERS, begin at `unit_counter(u)`.
COUNTERS = {
    c.name: c
    for c in (
        Counter("cycles", 0, 1, "from the start to the end"),
        Counter("macs_useful", 1, 2, "multiplications of an activation and a weight"),
        Counter("macs_padding", 3, 2, "multiplications of the array's idle cells in its row slots"),
        Counter("beats_read", 5, 1, "beats of the data port, read"),
        Counter("beats_written", 6, 1, "beats of the data port, written"),
    )
}


def unit_counter(unit: int) -> int:
    """Index of a unit's first counter."""
    return 8 + 8 * unit


def geometry_word(config: ChipConfig) -> int:
    """What GEOMETRY reads."""
    geometry = REGISTERS["GEOMETRY"]
    values = {
        "DIM": config.dim,
        "BUS_BYTES": config.bus_bytes,
        "LOG2_SPAD_KIB": config.spad_kib.bit_length() - 1,
        "LOG2_ACC_KIB": config.acc_kib.bit_length() - 1,
        "INT8_ARRAY": ARRAYS.index(config.array),
    }
    return sum(value << geometry.bit(name) for name, value in values.items())


def _span(low: int, width: int) -> str:
    return str(low) if width == 1 else f"{low + width - 1}-{low}"


def render() -> str:
    """The tables of `docs/driver.md`."""
    lines = ["| offset | register | bits | access | meaning |", "|---|---|---|---|---|"]
    for r in REGISTERS.values():
        more = f" + 4 * i, i < {r.count}" if r.count > 1 else ""
        meaning = r.meaning + ("; writes do nothing while a program runs" if r.idle else "")
        meaning += f"; {r.reset:#x} after reset" if r.reset else ""
        access = "" if r.bits else r.access.value
        lines.append(f"| {r.offset:#05x}{more} | {r.name} | | {access} | {meaning} |")
        for b in r.bits:
            place = _span(b.low, b.width)
            lines.append(f"| | {b.name} | {place} | {b.access.value} | {b.meaning} |")
    lines += ["", "| counter | index | meaning |", "|---|---|---|"]
    for c in COUNTERS.values():
        index = f"{c.index}" if c.words == 1 else f"{c.index} (low), {c.index + 1} (high)"
        lines.append(f"| {c.name} | {index} | {c.meaning} |")
    first = unit_counter(0)
    for i, name in enumerate(UNIT_COUNTERS):
        meaning = "started" if name == "instructions" else "cycles with this cause"
        lines.append(f"| *unit* {name} | {first} + 8 * unit + {i} | {meaning} |")
    units = ", ".join(f"{u.value} {u.name}" for u in QUEUED)
    return "\n".join(lines) + f"\n\nUnits: {units}.\n"


if __name__ == "__main__":
    print(render(), end="")
