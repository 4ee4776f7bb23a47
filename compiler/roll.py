"""Loops in a synchronised operation list: runs that repeat become scalar loops of the sequencer.

A run of `count` times `period` operations is rolled if each operation of a repetition equals that
of the one before, but for addresses that move by the same step every time. Such an address lives in
a register: set before the loop, moved at its end. Bodies are rolled again, so loops nest; an
address that moves in several of them is one register all the same, which is put back by the
difference where an inner loop ends. What the units execute does not change, hence neither do waits,
signals, legality nor races.

A loop pays if it is shorter and the sequencer, which executes its scalar instructions too, stays
ahead of the units. Where even the plain list keeps them waiting, only a long one is rolled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod

import numpy as np
from tilewright.compiler.kernels import Buffer
from tilewright.compiler.tiles import Op
from tilewright.isa.config import LINE_INSTRS, LINES, REGISTERS, ChipConfig
from tilewright.isa.table import CONV_BYTES, INSTRUCTIONS, TYPE_BYTES, Conv, Type, Unit
from tilewright.isa.timing import MATMUL_MIN_PERIOD

LEAST = 16  # instructions that a loop must save
LONG = 4096  # instructions from which on a program is rolled even if that costs cycles
UNIT_CYCLES, SCALAR_CYCLES = 14, 3  # of the sequencer, about
REFETCH = 100  # cycles of a jump out of the instruction buffer, about
SLACK = 0.8  # of the units' time: what the sequencer may take for a loop
TRIES = 6  # candidates that are tried for a range
ADDRESS_BITS = 18  # fields that move: unsigned and at least this wide
MASK = 0xFFFFFFFF


@dataclass(slots=True)
class Word:
    """An instruction of the program; `fields` named in `regs` hold register numbers.

    `address` is the field whose value is `buffer`'s address + `offset`, if there is a buffer.
    """

    name: str
    fields: dict[str, int]
    kernel: int
    regs: tuple[str, ...] = ()
    address: str = ""
    buffer: Buffer | None = None
    offset: int = 0


@dataclass(slots=True, eq=False)
class Loop:
    """Operations from `lo` on, `period` of them, `count` times.

    `step` has a row for each operation: what its columns move by in an iteration. `body` holds
    operation numbers and inner loops.
    """

    lo: int
    period: int
    count: int
    step: np.ndarray
    body: list[int | Loop] = field(default_factory=list)


Nodes = list["int | Loop"]


@cache
def moving(name: str) -> tuple[str, ...]:
    """The fields of an instruction that may be a register in a loop."""
    fields = (f for _, f in INSTRUCTIONS[name].layout.values())
    return tuple(f.name for f in fields if f.reg and not f.signed and f.bits >= ADDRESS_BITS)


COLUMNS = max(len(moving(s.name)) for s in INSTRUCTIONS.values() if s.unit != Unit.SEQ)


def plain(op: Op) -> Word:
    """The instruction of an operation outside of loops."""
    return Word(op.name, op.fields | op.sync, op.kernel, (), op.address, op.buffer, op.offset)


def roll(config: ChipConfig, ops: Sequence[Op]) -> list[Word]:
    """All instructions, with loops where they pay."""
    return _Roller(config, ops).words()


def _tables(ops: Sequence[Op]) -> tuple[np.ndarray, np.ndarray]:
    """For each operation a number of what must not move, and the columns that may."""
    shapes: dict[object, int] = {}
    shape = np.empty(len(ops), np.int64)
    values = np.zeros((len(ops), COLUMNS), np.int64)
    for i, op in enumerate(ops):
        fields = op.fields
        names = moving(op.name)
        fixed = tuple(item for item in fields.items() if item[0] not in names)
        row = [op.offset if n == op.address else fields.get(n, 0) for n in names]
        key = (op.name, op.kernel, op.buffer, op.address, fixed, tuple(sorted(op.sync.items())))
        shape[i] = shapes.setdefault(key, len(shapes))
        values[i, : len(row)] = row
    return shape, values


def _runs(mask: np.ndarray, least: int) -> Iterator[tuple[int, int]]:
    """(start, length) of the runs of True that have at least that length."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    keep = lengths >= least
    yield from zip(starts[keep].tolist(), lengths[keep].tolist(), strict=True)


def candidates(shape: np.ndarray, values: np.ndarray) -> list[tuple[int, int, int]]:
    """(start, period, count) of runs of at least three repetitions, the greatest saving first."""
    n = len(shape)
    found = []
    for p in range(1, n // 3 + 1):
        same = shape[p:] == shape[:-p]
        if np.count_nonzero(same) < 2 * p:
            continue
        for start, length in _runs(same, 2 * p):
            part = values[start : start + length + p]
            delta = part[p:] - part[:-p]
            steady = (delta[p:] == delta[:-p]).all(axis=1)
            for at, run in _runs(steady, p):
                count = 2 + run // p
                found.append(((count - 1) * p, start + at, p, count))
    found.sort(key=lambda f: (-f[0], f[2]))
    return [f[1:] for f in found]


class _Roller:
    """One list of operations and the search for its loops."""

    def __init__(self, config: ChipConfig, ops: Sequence[Op]):
        self.config, self.ops = config, ops
        self.shape, self.values = _tables(ops)
        self.work = [_work(config, op) for op in ops]
        self.long = len(ops) >= LONG

    def words(self) -> list[Word]:
        writer = _Writer(self.ops, self.values)
        writer.nodes(self._search(0, len(self.ops), []), [])
        return writer.words

    def _search(self, lo: int, hi: int, outer: list[np.ndarray]) -> Nodes:
        """The operations of a range, with loops; `outer` has their steps in loops around it."""
        if hi - lo < LEAST + LEAST // 2:
            return list(range(lo, hi))
        shape = self.shape[lo:hi]
        if outer:
            rows = np.column_stack([shape, *outer])
            shape = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
        tried: list[tuple[int, int, int]] = []
        for start, period, count in candidates(shape, self.values[lo:hi]):
            if len(tried) == TRIES or (count - 1) * period < LEAST:
                break
            if any(period % p == 0 and s <= start < s + p * c for s, p, c in tried):
                continue
            tried.append((start, period, count))
            loop = self._loop(lo, start, period, count, outer)
            if self._shorter(loop) if outer else self._pays(loop):
                end = start + period * count
                left = [s[:start] for s in outer]
                right = [s[end:] for s in outer]
                return [
                    *self._search(lo, lo + start, left), loop, *self._search(lo + end, hi, right)
                ]  # fmt: skip
        return list(range(lo, hi))

    def _loop(self, lo: int, start: int, p: int, count: int, outer: list[np.ndarray]) -> Loop:
        at = lo + start
        step = self.values[at + p : at + 2 * p] - self.values[at : at + p]
        inner = [*(s[start : start + p] for s in outer), step]
        return Loop(at, p, count, step, self._search(at, at + p, inner))

    @staticmethod
    def _shorter(loop: Loop) -> bool:
        """Whether an inner loop saves more than its scalar instructions, two for each address."""
        scalars = 2 * np.count_nonzero(loop.step) + 2
        return loop.period * (loop.count - 1) >= scalars + LEAST // 2

    def _pays(self, loop: Loop) -> bool:
        """Whether an outermost loop has registers enough, is shorter, and the units do not wait."""
        writer = _Writer(self.ops, self.values)
        try:
            writer.nodes([loop], [])
        except _NoRegister:
            return False
        before = loop.period * loop.count
        if before - len(writer.words) < LEAST:
            return False
        busy = dict.fromkeys(Unit, 0)
        for op, work in zip(self.ops[loop.lo :][: loop.period], self.work[loop.lo :], strict=False):
            busy[op.unit] += work
        units = loop.count * max(busy.values())
        return self.long or UNIT_CYCLES * before + writer.extra <= SLACK * units


def _work(config: ChipConfig, op: Op) -> int:
    """Cycles that the unit is busy with an operation, about; at least its rows."""
    d, get = config.dim, op.fields.get
    if op.name == "matmul":
        blocks = -(-op.fields["k"] // d) * -(-op.fields["n"] // d)
        return blocks * max(d, MATMUL_MIN_PERIOD, get("r0", 1) * get("r1", 1))
    if op.name == "vector":
        return get("rows", 1) * -(-get("cols", 1) // d) * max(1, get("body", 1))
    load = op.name == "load"
    size = CONV_BYTES[Conv(op.fields["conv"])] if load else TYPE_BYTES[Type(op.fields["out"])]
    rows = prod(get(c, 1) for c in ("c1", "c2", "c3"))
    return rows * -(-get("c0", 1) * size // config.bus_bytes)


class _NoRegister(Exception):
    """A loop needs more registers than there are."""


@dataclass(slots=True)
class _Held:
    """A register for a moving address: the loops around its use, outermost first, and its steps."""

    register: int
    chain: list[tuple[Loop, int]]


#: Buffer, first value, and (loop, step) of each loop in which it moves: equal keys, one register.
Key = tuple[Buffer | None, int, tuple[tuple[Loop, int], ...]]


class _Writer:
    """Writes nodes as instructions; `extra` counts the sequencer's cycles for loops."""

    def __init__(self, ops: Sequence[Op], values: np.ndarray):
        self.ops, self.values = ops, values
        self.words: list[Word] = []
        self.free = list(range(REGISTERS - 1, -1, -1))
        self.held: dict[Key, _Held] = {}
        self.extra = 0
        self.times = 1

    def nodes(self, nodes: Nodes, around: list[Loop]) -> None:
        """Write operations and loops that lie in the loops `around`."""
        for node in nodes:
            if isinstance(node, Loop):
                self._loop(node, around)
            else:
                self._op(node, around)

    def _moved(self, number: int, around: list[Loop]) -> Iterator[tuple[str, Key, list[int]]]:
        """The fields of an operation that move: name, key, step in each loop."""
        op = self.ops[number]
        rows = [loop.step[number - loop.lo].tolist() for loop in around]
        for column, name in enumerate(moving(op.name)):
            steps = [row[column] for row in rows]
            if any(steps):
                path = tuple((loop, s) for loop, s in zip(around, steps, strict=True) if s)
                buffer = op.buffer if name == op.address else None
                yield name, (buffer, int(self.values[number, column]), path), steps

    def _op(self, number: int, around: list[Loop]) -> None:
        word = plain(self.ops[number])
        for name, key, _ in self._moved(number, around) if around else ():
            word.fields[name] = self.held[key].register
            word.regs = (*word.regs, name)
            if name == word.address:
                word.address, word.buffer, word.offset = "", None, 0
        self.extra += len(word.regs) * self.times
        self.words.append(word)

    def _take(self) -> int:
        if not self.free:
            raise _NoRegister
        return self.free.pop()

    def _scalar(self, kernel: int, name: str, **fields: int) -> Word:
        self.words.append(Word(name, fields, kernel))
        self.extra += SCALAR_CYCLES * self.times
        return self.words[-1]

    def _valued(self, word: Word, buffer: Buffer | None, value: int) -> None:
        """Let the instruction's operand `b` be a value, or an address in a buffer."""
        word.fields["b"] = _signed(value)
        if buffer is not None:
            word.address, word.buffer, word.offset = "b", buffer, value

    def _hold(self, nodes: Nodes, inside: list[Loop], depth: int) -> Iterator[Key]:
        """Take a register for each address which no loop outside of number `depth` moves."""
        for node in nodes:
            if isinstance(node, Loop):
                yield from self._hold(node.body, [*inside, node], depth)
                continue
            for _, key, steps in self._moved(node, inside):
                if steps[depth] and not any(steps[:depth]) and key not in self.held:
                    chain = list(zip(inside, steps, strict=True))
                    self.held[key] = _Held(self._take(), chain)
                    yield key

    def _loop(self, loop: Loop, around: list[Loop]) -> None:
        """Set registers; body; move registers; back."""
        kernel, inside = self.ops[loop.lo].kernel, [*around, loop]
        mine = list(self._hold(loop.body, inside, len(around)))
        for key in mine:
            word = self._scalar(kernel, "li", rd=self.held[key].register)
            self._valued(word, *key[:2])
        if mine:  # the first register's last value ends the loop
            counter, (buffer, value, path) = self.held[mine[0]].register, mine[0]
            last = value + loop.count * path[0][1]
        else:
            counter, buffer, last = self._take(), None, 0
            self._scalar(kernel, "li", rd=counter, b=loop.count)
        top = len(self.words)
        self.times *= loop.count
        self.nodes(loop.body, inside)
        self._move(loop, len(around), kernel)
        if not mine:
            self._scalar(kernel, "sub", rd=counter, ra=counter, b=1)
        self._valued(self._scalar(kernel, "bne", ra=counter, target=top), buffer, last)
        if (len(self.words) - 1) // LINE_INSTRS - top // LINE_INSTRS >= LINES:
            self.extra += REFETCH * self.times
        self.times //= loop.count
        self.free += [self.held.pop(key).register for key in mine] if mine else [counter]

    def _move(self, loop: Loop, depth: int, kernel: int) -> None:
        """Move every register to its place for the loop's next iteration."""
        for held in self.held.values():
            if depth < len(held.chain) and held.chain[depth][0] is loop:
                step = held.chain[depth][1]
                if depth + 1 < len(held.chain):
                    inner, back = held.chain[depth + 1]
                    step -= inner.count * back
                if step:
                    self._scalar(kernel, "add", rd=held.register, ra=held.register, b=_signed(step))


def _signed(value: int) -> int:
    """32 bits as the signed field that holds them."""
    value &= MASK
    return value - (1 << 32) if value >> 31 else value
