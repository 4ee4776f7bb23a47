"""VECTOR: a micro-kernel over rows, each word on many rows at once.

Rows have their own registers, so a word may run over all rows before the next one does, and over
all units of a row if the body carries nothing from one to the next. Only where rows or units store
to the same places their order matters; then they run in the chip's. `prepare` works out once what
follows from the fields; the micro-kernel is known when the instruction runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from tilewright.isa.config import ChipConfig
from tilewright.isa.encoding import IllegalInstruction
from tilewright.isa.micro import REGISTERS, SOURCES, WORD_BYTES, MicroOp, decode_micro
from tilewright.isa.micro_rules import (
    READS,
    KernelError,
    check_kernel,
    registers_read,
    registers_written,
    section_of,
)
from tilewright.isa.table import Fault, Mem, Type
from tilewright.isa.timing import VECTOR_ROWS
from tilewright.isa.units import LOAD_STREAMS, SECTIONS, STORE_STREAMS, STREAMS
from tilewright.sim.memory import disjoint
from tilewright.sim.numerics import INT_RANGE, f32_to_bf16
from tilewright.sim.vector_alu import across, alu

if TYPE_CHECKING:
    from tilewright.sim.functional import Machine

Lanes = np.ndarray  # (rows, units, dim) uint32
Value = np.ndarray | np.uint32  # or what broadcasts to it
_BLOCK = 1 << 14  # lanes that run at once: a register's stay in the processor's cache
_ZERO = np.zeros(1, np.uint32)
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
    """The result of an ALU operation on lanes, the last axis."""
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
        base, row, unit = (v[f] * cell for f in (name, f"{name}_row", f"{name}_unit"))
        return _Stream(Type(v[f"{name}_type"]), accumulator, base, row, unit, dim)

    @property
    def width(self) -> int:
        """Bytes of a unit."""
        return self.dim * np.dtype(_DTYPE[self.kind]).itemsize

    def _view(self, m: Machine, rows: range, units: range) -> np.ndarray:
        dtype = np.dtype(_DTYPE[self.kind])
        buffer = m.acc_bytes if self.accumulator else m.spad
        at = self.base + rows.start * self.row + units.start * self.unit
        many = (len(rows), self.row), (len(units), self.unit)
        steps = (*(s if n > 1 else 0 for n, s in many), dtype.itemsize)
        return np.ndarray((len(rows), len(units), self.dim), dtype, buffer, at, steps)

    def load(self, m: Machine, rows: range, units: range) -> Lanes:
        """Units of rows, as the lanes hold them."""
        x = self._view(m, rows, units)
        if self.kind is Type.BF16:
            return x.astype(np.uint32) << np.uint32(16)
        return x.astype(np.int32).view(np.uint32) if self.kind in _NARROW else x.copy()

    def store(self, m: Machine, rows: range, units: range, x: Lanes) -> None:
        """Write units of rows; of rows at one place the last one wins."""
        if self.row == 0:
            x, rows = x[-1:], rows[-1:]
        y: np.ndarray = x
        if self.kind is Type.BF16:
            y = f32_to_bf16(x.view(np.float32)).view(np.uint16)
        elif self.kind in _NARROW:
            y = np.clip(x.view(np.int32), *INT_RANGE[_NARROW[self.kind]])
        self._view(m, rows, units)[...] = y


def _apart(streams: list[_Stream], rows: int, units: int) -> bool:
    """Whether all units of all rows are stored to different places, whatever the words do."""
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


def _carries(body: tuple[MicroOp, ...]) -> bool:
    """Whether a unit reads a register as the unit before left it."""
    theirs = {r for op in body for r in registers_written(op)}
    written: set[int] = set()
    for op in body:
        if any(r in theirs and r not in written for r in registers_read(op)):
            return True
        written.update(registers_written(op))
    return False


class _Rows:
    """The registers of some rows, and the words that run on them."""

    def __init__(self, run: _Run, m: Machine, rows: range):
        self.run, self.m, self.rows, self.units = run, m, rows, range(1)
        self.registers: list[Any] = [None] * REGISTERS
        one = {"u": run.u, "v": run.v, "zero": 0, "one": 0x3F800000}
        self.sources: dict[int, Value] = {SOURCES[k]: np.uint32(x) for k, x in one.items()}
        self.sources[SOURCES["lane"]] = np.arange(run.dim, dtype=np.uint32)
        self.sources[SOURCES["row"]] = np.array(rows, np.uint32)[:, None, None]

    def words(self, ops: tuple[MicroOp, ...], units: range = range(1)) -> None:
        """Run one section in these units; what the last one leaves stays."""
        self.units, dim = units, self.run.dim
        unit = np.array(units, np.uint32)[:, None]
        self.sources[SOURCES["unit"]] = unit
        active = unit * dim + np.arange(dim) < self.run.cols
        self.sources[SOURCES["active"]] = active.astype(np.uint32)
        for op in ops:
            self._word(op)
        if len(units) > 1:
            for r in {r for op in ops for r in registers_written(op)}:
                if np.ndim(self.registers[r]):
                    self.registers[r] = self.registers[r][:, -1:]

    def _source(self, number: int) -> Lanes:
        known = self.registers[number] if number < REGISTERS else self.sources[number]
        return np.broadcast_to(known, (len(self.rows), len(self.units), self.run.dim))

    def _word(self, op: MicroOp) -> None:
        v, streams = op.values, self.run.streams
        result = self._result(op)
        loaded = kept = None
        if v["store"]:
            kept = self._source(v["store_src"])
        if v["load"]:
            loaded = streams[LOAD_STREAMS[v["load"] - 1]].load(self.m, self.rows, self.units)
        if kept is not None:
            streams[STORE_STREAMS[v["store"] - 1]].store(self.m, self.rows, self.units, kept)
        if loaded is not None:
            self.registers[v["load_dst"]] = loaded
        if result is not None:
            self.registers[v["dst"]] = result

    def _result(self, op: MicroOp) -> Value | None:
        if op.name == "nop":
            return None
        if op.name == "const":
            return np.uint32(op.values["imm"])
        used = READS[op.name]
        a, b, c = (self._source(op.values[f]) if f in used else _ZERO for f in "abc")
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
    apart: bool  # nothing is stored to one place twice
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

    def __call__(self, m: Machine) -> None:
        ops = self.ops(m)
        parts, at = [], 0
        for n in self.lengths:
            parts.append(ops[at : at + n])
            at += n
        init, head, body, tail = parts
        units = range(-(-self.cols // self.dim))
        together = self.apart and not _carries(body)
        step = VECTOR_ROWS
        if self.apart:
            step = max(_BLOCK // (self.dim * (len(units) if together else 1)), 1)
        for first in range(0, self.rows, step):
            block = _Rows(self, m, range(first, min(first + step, self.rows)))
            block.words(init)
            block.words(head)
            for some in [units] if together else [range(j, j + 1) for j in units]:
                block.words(body, some)
            block.words(tail)


def check_words(m: Machine, v: Mapping[str, int]) -> None:
    """Check the micro-kernel that the accumulator of `m` holds for a VECTOR with values `v`.

    Raises
    ------
    IllegalKernel
    """
    prepare(m.config, v).ops(m)


def prepare(config: ChipConfig, v: Mapping[str, int]) -> _Run:
    """What one VECTOR with resolved values `v` does to a machine."""
    dim, rows = config.dim, v["rows"]
    lengths = tuple(v[s] for s in SECTIONS)
    start = v["kernel"] * 4 * dim
    streams = {s: _Stream.make(s, v, dim) for s in STREAMS if v[f"{s}_on"]}
    stores = [streams[s] for s in STORE_STREAMS if s in streams]
    return _Run(
        dim, rows, v["cols"], slice(start, start + WORD_BYTES * sum(lengths)), lengths,
        v["u"] & 0xFFFFFFFF, v["v"] & 0xFFFFFFFF, streams,
        _apart(stores, rows, -(-v["cols"] // dim)), v["kernel"],
    )  # fmt: skip
