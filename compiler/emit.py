"""From kernels to a program: tiles, addresses, words.

`compile_kernels` is the back end in one function; it reads top to bottom. The program's DRAM is
laid out from address 0: constants, temporaries, inputs, outputs, each 64-byte aligned.
`Compiled.link` moves buffers elsewhere, so that arrays which are already in the chip's DRAM are
used where they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import groupby

import numpy as np
from tilewright.compiler.kernels import Buffer, KernelProgram
from tilewright.compiler.loops import Word, plain
from tilewright.compiler.reuse import ALIGN, Temps
from tilewright.compiler.roll import roll
from tilewright.compiler.tile_control import FREE, straight
from tilewright.compiler.tile_program import Schedules, tile
from tilewright.compiler.tiles import Op, TileProgram
from tilewright.isa.config import INSTR_BYTES, REGISTERS, ChipConfig
from tilewright.isa.encoding import Instr, Reg, encode
from tilewright.isa.program import Origin, Port, Program
from tilewright.isa.table import INSTRUCTIONS, Unit

QUIET = ("load", "matmul", "vector", "store", "fence")  # operations without a register


@dataclass(frozen=True)
class Reloc:
    """The field at bit `at` of instruction `number` is `buffer`'s address + `offset`."""

    number: int
    at: int
    buffer: Buffer
    offset: int


@dataclass(frozen=True, eq=False)
class Compiled:
    """A compiled program with what is needed to show and to move it."""

    config: ChipConfig
    kernels: KernelProgram
    tiles: TileProgram
    temps: Temps
    program: Program
    addresses: Mapping[Buffer, int]
    relocs: tuple[Reloc, ...] = field(repr=False)

    @property
    def buffers(self) -> list[Buffer]:
        """All buffers in the order of the default layout."""
        return list(self.addresses)

    @property
    def straight(self) -> Program:
        """The program without loops and branches over kernels, to be checked instead of it."""
        ops = straight(self.tiles.ops)
        if len(ops) == len(self.tiles.ops):
            return self.program
        return _assembled(self.config, self.kernels, ops, self.temps, self.addresses)[0]

    @cached_property
    def _tables(self) -> tuple[np.ndarray, ...]:
        numbers = np.array([r.number * 64 + r.at // 8 for r in self.relocs], np.int64)
        shifts = np.array([r.at % 8 for r in self.relocs], np.uint64)
        order = {b: i for i, b in enumerate(self.addresses)}
        which = np.array([order[r.buffer] for r in self.relocs], np.int64)
        offsets = np.array([r.offset for r in self.relocs], np.int64)
        return numbers, shifts, which, offsets

    def link(self, addresses: Mapping[Buffer, int]) -> bytes:
        """The code with buffers at other DRAM byte addresses (all of `buffers` must be there)."""
        numbers, shifts, which, offsets = self._tables
        base = np.array([addresses[b] for b in self.addresses], np.int64)
        values = ((base[which] + offsets) & 0xFFFFFFFF).astype(np.uint64)
        code = np.frombuffer(self.program.code + bytes(8), np.uint8).copy()
        at = numbers[:, None] + np.arange(8)
        words = code[at].view("<u8")[:, 0]
        mask = np.uint64(0xFFFFFFFF) << shifts
        words = (words & ~mask) | (values << shifts)
        code[at] = words[:, None].view(np.uint8)
        return code[:-8].tobytes()


def layout(kernels: KernelProgram, temps: Temps) -> dict[Buffer, int]:
    """Default DRAM addresses: constants, temporaries, inputs, outputs."""
    outputs = [b for b in kernels.outputs if b not in (*kernels.inputs, *kernels.consts)]
    whole = [temps.whole] if temps.whole.nbytes else []
    addresses: dict[Buffer, int] = {}
    at = 0
    for buffer in (*kernels.consts, *whole, *kernels.inputs, *outputs):
        if buffer not in addresses:
            addresses[buffer] = at
            at += -(-max(buffer.nbytes, 1) // ALIGN) * ALIGN
    return addresses


@cache
def _blank(name: str) -> tuple[int, dict[str, tuple[int, int, int, int, int]]]:
    """An instruction's word with every default; by field its bit, mask, range and default."""
    spec = INSTRUCTIONS[name]
    places = {
        key: (at, (1 << f.bits) - 1, f.low, f.high, f.default)
        for key, (at, f) in spec.layout.items()
    }
    return int.from_bytes(encode(Instr.make(name)), "little"), places


def word(name: str, fields: Mapping[str, int], regs: Collection[str] = ()) -> bytes:
    """``encode(Instr.make(name, **fields))``, in a tenth of the time; `regs` name registers."""
    bits, places = _blank(name)
    for key in regs:
        bits |= 1 << INSTRUCTIONS[name].reg_bit[key]
    for key, value in fields.items():
        at, mask, low, high, default = places.get(key, (0, 0, 1, 0, 0))
        if not low <= value <= high:
            given = {k: Reg(v) if k in regs else v for k, v in fields.items()}
            return encode(Instr.make(name, **given))  # which says what is wrong
        bits ^= ((value ^ default) & mask) << at
    return bits.to_bytes(INSTR_BYTES, "little")


def compile_kernels(config: ChipConfig, kernels: KernelProgram,
                    schedules: Schedules | None = None) -> Compiled:  # fmt: skip
    """Kernels to a program."""
    tiles, temps = tile(config, kernels, schedules)
    addresses = layout(kernels, temps)
    program, relocs = _assembled(config, kernels, tiles.ops, temps, addresses)
    return Compiled(config, kernels, tiles, temps, program, addresses, relocs)


def _assembled(config: ChipConfig, kernels: KernelProgram, ops: Sequence[Op], temps: Temps,
               addresses: Mapping[Buffer, int]) -> tuple[Program, tuple[Reloc, ...]]:  # fmt: skip
    """The program of operations, and where its addresses are."""
    words, relocs = [], []
    code = [*_rolled(config, ops), Word("halt", {}, -1)]
    for number, step in enumerate(code):
        fields = step.fields
        if step.buffer is not None:
            at, spec = INSTRUCTIONS[step.name].layout[step.address]
            buffer, offset = temps.place(step.buffer, step.offset)
            value = (addresses[buffer] + offset) & 0xFFFFFFFF
            fields[step.address] = value - (value > spec.high) * (1 << 32)
            relocs.append(Reloc(number, at, buffer, offset))
        words.append(word(step.name, fields, step.regs))
    known = [Origin(k.name, ",".join(map(str, k.eqns)), str(k.user)) for k in kernels.all]
    origins = [known[w.kernel] if w.kernel >= 0 else Origin() for w in code]
    data = tuple(
        (addresses[b], np.ascontiguousarray(b.value).tobytes()) for b in kernels.consts if b.nbytes
    )
    size = max((a + -(-max(b.nbytes, 1) // ALIGN) * ALIGN for b, a in addresses.items()), default=0)
    program = Program(
        config, b"".join(words), data,
        tuple(_port(b, addresses) for b in kernels.inputs),
        tuple(_port(b, addresses) for b in kernels.outputs),
        tuple(origins), size,
    )  # fmt: skip
    return program, tuple(relocs)


def _rolled(config: ChipConfig, ops: Sequence[Op]) -> list[Word]:
    """All instructions, with loops between those of the sequencer; jumps know their targets."""
    words: list[Word] = []
    jumps: list[Word] = []
    labels: dict[int, int] = {}
    registers = REGISTERS if all(op.name in QUIET for op in ops) else FREE
    for is_alone, some in groupby(ops, lambda op: op.unit is Unit.SEQ or op.register is not None):
        if not is_alone:
            part = roll(config, list(some), registers)
            for step in part:
                if "target" in step.fields:
                    step.fields["target"] += len(words)
            words += part
            continue
        for op in some:
            if op.name == "label":
                labels[op.fields["id"]] = len(words)
                continue
            words.append(plain(op))
            jumps += words[-1:] if "target" in op.fields else []
    for jump in jumps:
        jump.fields["target"] = labels[jump.fields["target"]]
    return words


def _port(buffer: Buffer, addresses: Mapping[Buffer, int]) -> Port:
    return Port(buffer.name, buffer.shape, str(buffer.dtype), addresses[buffer])
