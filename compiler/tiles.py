"""Tile programs: explicit operations of the four units on named places, not yet synchronised.

An `Op` is an instruction without waits and signals, together with what it reads and writes: local
cells and DRAM bytes. `sync` derives every wait and signal from those sets, over the whole program,
so that a kernel boundary is no barrier. Printed, a tile program reads like the loop nest that made
it, unrolled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from tilewright.compiler.kernels import Buffer, Kernel
from tilewright.isa.config import BANKS, ChipConfig
from tilewright.isa.encoding import Instr
from tilewright.isa.table import Mem, Unit

UNIT_OF = {
    "load": Unit.LOAD, "matmul": Unit.MATMUL, "vector": Unit.VECTOR, "store": Unit.STORE,
}  # fmt: skip


@dataclass(frozen=True)
class Local:
    """Rows lo <= row < hi of a local memory (granules; rows of the accumulator)."""

    mem: Mem
    lo: int
    hi: int

    def __str__(self) -> str:
        return f"{self.mem.name.lower()}[{self.lo}:{self.hi}]"


@dataclass(frozen=True)
class Dram:
    """Bytes lo <= byte < hi of a buffer; with a pitch only `run` bytes from each `pitch`-th on."""

    buffer: Buffer
    lo: int
    hi: int
    run: int = 0
    pitch: int = 0

    def meets(self, other: Dram) -> bool:
        """Whether there may be a byte of both (of one buffer)."""
        if self.lo >= other.hi or other.lo >= self.hi:
            return False
        if not self.pitch or self.pitch != other.pitch:
            return True
        ahead = (other.lo - self.lo) % self.pitch  # columns from one's first to the other's
        return ahead < self.run or ahead + other.run > self.pitch

    def __str__(self) -> str:
        return f"{self.buffer.name}[{self.lo}:{self.hi}]"


Place = Local | Dram


@cache
def defaults(name: str) -> dict[str, int]:
    """Fields of an instruction of which nothing is said."""
    return dict(Instr.make(name).values)


@dataclass(eq=False)
class Op:
    """One instruction to be, of a unit or of the sequencer; or a label, at which jumps arrive.

    `address` is the field that holds the DRAM address, whose value is `buffer`'s address +
    `offset`; but if `register` is one, the field holds that register's number, and the address is
    what it would be in the first step of the loops around. `waits` and `signals` are filled in by
    `sync`. A jump's `target` is the `id` of a label.
    """

    name: str
    fields: dict[str, int]
    reads: tuple[Place, ...]
    writes: tuple[Place, ...]
    kernel: int
    address: str = ""
    buffer: Buffer | None = None
    offset: int = 0
    sync: dict[str, int] = field(default_factory=dict)
    register: int | None = None

    @property
    def unit(self) -> Unit:
        return UNIT_OF.get(self.name, Unit.SEQ)

    @property
    def values(self) -> dict[str, int]:
        """All fields, those that are not given at their defaults."""
        return defaults(self.name) | self.fields

    def __str__(self) -> str:
        what = " ".join(
            f"{k}={v}" for k, v in self.fields.items() if k not in ("mem", self.address)
        )
        reads, writes = ", ".join(map(str, self.reads)), ", ".join(map(str, self.writes))
        return f"{self.name:6} {writes} <- {reads}  ({what})"


def share_of(ops: list[Op], part: int, parts: int) -> list[Op]:
    """The part'th of `parts` equal parts."""
    return ops[len(ops) * part // parts : len(ops) * (part + 1) // parts]


#: Slots that are not given away right after their use, so that loads can run that far ahead.
AHEAD = 4


class Slots:
    """Places of equal size in one local memory, filled with named chunks.

    When all are taken, the one with the farthest next use goes, but none of the last `AHEAD`.

    Parameters
    ----------
    mem, lo, hi : the region.
    size : granules (rows) of a slot.
    count : number of slots.
    uses : the keys in the order in which they will be asked for.
    """

    def __init__(self, mem: Mem, lo: int, size: int, count: int, uses: list[object]):
        self.mem, self.lo, self.size = mem, lo, size
        self.free = list(range(count - 1, -1, -1))
        self.held: dict[object, int] = {}
        self.recent: deque[int] = deque(maxlen=min(count // 2, AHEAD))
        self.future: dict[object, list[int]] = {}
        for at in range(len(uses) - 1, -1, -1):
            self.future.setdefault(uses[at], []).append(at)

    def take(self, key: object) -> tuple[Local, bool]:
        """Return the slot of `key` and whether it must be filled now.

        Free slots are reused in the order in which they became free, so that loads run ahead.
        """
        self.future[key].pop()
        missing = key not in self.held
        if missing:
            if not self.free:
                self._evict()
            self.held[key] = self.free.pop()
        self.recent.append(self.held[key])
        at = self.lo + self.held[key] * self.size
        if not self.future[key]:
            self.free.insert(0, self.held.pop(key))
        return Local(self.mem, at, at + self.size), missing

    def _evict(self) -> None:
        old = [k for k, slot in self.held.items() if slot not in self.recent]
        victim = max(old or self.held, key=lambda k: self.future[k][-1])
        self.free.append(self.held.pop(victim))


@dataclass(frozen=True)
class Plan:
    """How the local memories are split, the same for every kernel of a program."""

    config: ChipConfig
    a_banks: int

    @property
    def w_base(self) -> int:
        """First granule of the weights' banks."""
        return self.a_banks * self.config.spad_bank

    @property
    def half(self) -> int:
        """Accumulator rows of one half."""
        return self.config.acc_bank * BANKS // 2


@dataclass(frozen=True)
class TileProgram:
    """All operations in program order."""

    kernels: tuple[Kernel, ...]
    ops: tuple[Op, ...]
    schedules: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The text, line by line; each kernel under its own heading with its schedule."""
        last = -1
        for op in self.ops:
            if op.kernel != last:
                last = op.kernel
                yield f"{self.kernels[last]}"
                yield f"  schedule: {self.schedules[last]}"
            yield f"  {op}"

    def __str__(self) -> str:
        return "\n".join(self.lines())
