"""VECTOR: a micro-kernel over rows, each word on many rows at once.

Rows have their own registers, so a word may run over all rows before the next one does; only where
rows store to the same places their order matters, and then they run in the chip's groups. `prepare`
works out once what follows from the fields; the micro-kernel is known when the instruction runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from tilewright.isa.config import ChipConfig
from tilewright.isa.encoding import IllegalInstruction
from tilewright.isa.micro import REGISTERS, SOURCES, WORD_BYTES, MicroOp, decode_micro
from tilewright.isa.micro_rules import READS, KernelError, check_kernel, section_of
from tilewright.isa.table import Fault, Mem, Type
from tilewright.isa.timing import VECTOR_ROWS
from tilewright.isa.units import LOAD_STREAMS, SECTIONS, STORE_STREAMS, STREAMS
from tilewright.sim.memory import disjoint
from tilewright.sim.numerics import INT_RANGE, f32_to_bf16
from tilewright.sim.vector_alu import across, alu

if TYPE_CHECKING:
    from tilewright.sim.functional import Machine

Lanes = np.ndarray  # (rows, dim) uint32, or what broadcasts to it
_BLOCK = 1 << 14  # lanes that run at once: a register's stay in the processor's cache
_DTYPE: dict[int, Any] = {
    Type.I8: np.int8, Type.U8: np.uint8, Type.BF16: np.uint16, Type.F32: np.uint32,
    Type.I32: np.uint32,
}  # fmt: skip
_NARROW = {Type.I8: "int8", Type.U8: "uint8"}


class IllegalKernel(IllegalInstruction):
    """A micro-kernel that the chip would run, but nobody may rely on."""

    def __init__(self, message: str):
        super().__init__(Fault.OPCODE, message)

    def __reduce__(self):
        return IllegalKernel, (str(self),)


def apply(name: str, a: Lanes, b: Lanes, c: Lanes, n: int) -> Lanes:
    """The result of an ALU operation on lanes (rows, dim)."""
    if name in ("rotate", "broadcast"):
        return across(name, a, n)
    return alu(name, a, b, c, n)


@lru_cache(maxsize=256)
def _decoded(data: bytes, lengths: tuple[int, ...], on: tuple[str, ...]) -> tuple[MicroOp, ...]:
    """The words of a micro-kernel, which keeps the rules."""
    out = []
    for i in range(0, len(data), WORD_BYTES):
        try:
            out.append(decode_micro(data[i : i + WORD_BYTES]))
        except IllegalInstruction as e:
            raise KernelError(i // WORD_BYTES, str(e)) from e
    check_kernel(out, dict(zip(SECTIONS, lengths, strict=True)), on)
    return tuple(out)


@dataclass(frozen=True)
class _Stream:
    """Rows of one stream in a local memory; base and steps in bytes of that memory."""

    kind: Type
    accumulator: bool
    base: int
    row: int
    unit: int
    dim: int

    @staticmethod
    def make(name: str, v: Mapping[str, int], dim: int) -> _Stream:
        accumulator = v[f"{name}_mem"] == Mem.ACC
        cell = 4 * dim if accumulator else dim
        places = (v[f] * cell for f in (name, f"{name}_row", f"{name}_unit"))
        return _Stream(Type(v[f"{name}_type"]), accumulator, *places, dim)

    @property
    def width(self) -> int:
        """Bytes of a unit."""
        return self.dim * np.dtype(_DTYPE[self.kind]).itemsize

    def _view(self, m: Machine, first: int, rows: int, unit: int) -> np.ndarray:
        dtype = np.dtype(_DTYPE[self.kind])
        buffer = m.acc_bytes if self.accumulator else m.spad
        at = self.base + first * self.row + unit * self.unit
        steps = (self.row if rows > 1 else 0, dtype.itemsize)
        return np.ndarray((rows, self.dim), dtype, buffer, at, steps)

    def load(self, m: Machine, first: int, rows: int, unit: int) -> Lanes:
        """Unit `unit` of `rows` rows from `first` on, as the lanes hold it."""
        x = self._view(m, first, rows, unit)
        if self.kind is Type.BF16:
            return x.astype(np.uint32) << np.uint32(16)
        return x.astype(np.int32).view(np.uint32) if self.kind in _NARROW else x.copy()

    def store(self, m: Machine, first: int, unit: int, x: Lanes) -> None:
        """Write unit `unit` of the rows from `first` on; of rows at one place the last one wins."""
        rows = len(x)
        if self.row == 0:
            x, first, rows = x[-1:], first + rows - 1, 1
        y: np.ndarray = x
        if self.kind is Type.BF16:
            y = f32_to_bf16(x.view(np.float32)).view(np.uint16)
        elif self.kind in _NARROW:
            y = np.clip(x.view(np.int32), *INT_RANGE[_NARROW[self.kind]])
        self._view(m, first, rows, unit)[...] = y


def _apart(streams: list[_Stream], rows: int, units: int) -> bool:
    """Whether different rows store to different places, whatever the words do."""
    spans: list[tuple[bool, int, int]] = []
    for s in streams:
        if not disjoint((rows, units), (s.row, s.unit), s.width):
            return False
        reach = [(rows - 1) * s.row, (units - 1) * s.unit]
        low = s.base + sum(min(r, 0) for r in reach)
        spans.append((s.accumulator, low, s.base + sum(max(r, 0) for r in reach) + s.width))
    if len(spans) < 2:
        return True
    (mem, low, end), (other, first, last) = spans
    return mem != other or end <= first or last <= low


class _Rows:
    """The registers of some rows, and the words that run on them."""

    def __init__(self, run: _Run, m: Machine, first: int, rows: int):
        self.run, self.m, self.first, self.rows = run, m, first, rows
        self.registers: list[Any] = [None] * REGISTERS
        dim = run.dim
        column = np.arange(first, first + rows, dtype=np.uint32)[:, None]
        one = {"u": run.u, "v": run.v, "zero": 0, "one": 0x3F800000}
        self.sources: dict[int, Lanes] = {SOURCES[k]: np.uint32(x) for k, x in one.items()}
        self.sources[SOURCES["lane"]] = np.arange(dim, dtype=np.uint32)
        self.sources[SOURCES["row"]] = column

    def words(self, ops: tuple[MicroOp, ...], unit: int) -> None:
        """Run one section, in unit `unit`."""
        lanes = np.arange(self.run.dim) + unit * self.run.dim
        self.sources[SOURCES["unit"]] = np.uint32(unit)
        self.sources[SOURCES["active"]] = (lanes < self.run.cols).astype(np.uint32)
        for op in ops:
            self._word(op, unit)

    def _source(self, number: int) -> Lanes:
        known = self.registers[number] if number < REGISTERS else self.sources[number]
        return np.broadcast_to(known, (self.rows, self.run.dim))

    def _word(self, op: MicroOp, unit: int) -> None:
        v, streams = op.values, self.run.streams
        result = self._result(op)
        loaded = kept = None
        if v["store"]:
            kept = self._source(v["store_src"])
        if v["load"]:
            stream = streams[LOAD_STREAMS[v["load"] - 1]]
            loaded = stream.load(self.m, self.first, self.rows, unit)
        if kept is not None:
            streams[STORE_STREAMS[v["store"] - 1]].store(self.m, self.first, unit, kept)
        if loaded is not None:
            self.registers[v["load_dst"]] = loaded
        if result is not None:
            self.registers[v["dst"]] = result

    def _result(self, op: MicroOp) -> Lanes | None:
        if op.name == "nop":
            return None
        if op.name == "const":
            return np.uint32(op.values["imm"])
        zero = np.uint32(0)
        a, b, c = (
            self._source(op.values[f]) if f in READS[op.name] else zero for f in "abc"
        )
        return apply(op.name, a, b, c, op.values["n"])


@dataclass(frozen=True)
class _Run:
    """What follows from the fields of one VECTOR."""

    dim: int
    rows: int
    cols: int
    kernel: slice  # bytes of the accumulator
    lengths: tuple[int, ...]
    u: int
    v: int
    streams: dict[str, _Stream]
    step: int  # rows that run at once
    kernel_row: int

    def ops(self, m: Machine) -> tuple[MicroOp, ...]:
        """The words that the accumulator holds now."""
        data = m.acc_bytes[self.kernel].tobytes()
        m.kernels.add(data)
        try:
            return _decoded(data, self.lengths, tuple(self.streams))
        except KernelError as e:
            section, number = section_of(e.word, dict(zip(SECTIONS, self.lengths, strict=True)))
            row, place = divmod(e.word, self.dim // 2)
            word = data[e.word * WORD_BYTES : (e.word + 1) * WORD_BYTES]
            raise IllegalKernel(
                f"vector at instruction {m.pc - 1}: word {e.word} of its micro-kernel ({section} "
                f"{number}, {word[::-1].hex()} at accumulator row {self.kernel_row + row}, "
                f"place {place}): {e}"
            ) from e

    def blocks(self) -> Iterator[tuple[int, int]]:
        """(first row, rows) that run at once, in order."""
        for first in range(0, self.rows, self.step):
            yield first, min(self.step, self.rows - first)

    def __call__(self, m: Machine) -> None:
        ops = self.ops(m)
        parts, at = [], 0
        for n in self.lengths:
            parts.append(ops[at : at + n])
            at += n
        init, head, body, tail = parts
        units = -(-self.cols // self.dim)
        for first, rows in self.blocks():
            block = _Rows(self, m, first, rows)
            block.words(init, 0)
            block.words(head, 0)
            for unit in range(units):
                block.words(body, unit)
            block.words(tail, 0)


def prepare(config: ChipConfig, v: Mapping[str, int]) -> Callable[[Machine], None]:
    """What one VECTOR with resolved values `v` does to a machine."""
    dim, rows = config.dim, v["rows"]
    lengths = tuple(v[s] for s in SECTIONS)
    start = v["kernel"] * 4 * dim
    streams = {s: _Stream.make(s, v, dim) for s in STREAMS if v[f"{s}_on"]}
    stores = [streams[s] for s in STORE_STREAMS if s in streams]
    step = VECTOR_ROWS
    if _apart(stores, rows, -(-v["cols"] // dim)):
        step = max(_BLOCK // dim, VECTOR_ROWS)
    return _Run(
        dim, rows, v["cols"], slice(start, start + WORD_BYTES * sum(lengths)), lengths,
        v["u"] & 0xFFFFFFFF, v["v"] & 0xFFFFFFFF, streams, step, v["kernel"],
    )  # fmt: skip
