"""Writing loops: operations and loops of them as instructions with registers.

In a loop a moving address lives in a register: set before the loop, moved to where its next use
needs it, moved on at the loop's end, and put back into its region if it wraps. That holds for
nested loops alike, so an address has one register however many loops move it, and addresses that
move alike may share one. Where a straight address is there, its last value ends the loop.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from tilewright.compiler.kernels import Buffer
from tilewright.compiler.periods import Motion, columns
from tilewright.compiler.tiles import Op
from tilewright.isa.config import LINE_INSTRS, LINES, REGISTERS

SCALAR_CYCLES = 3  # of the sequencer for a scalar instruction, about
REFETCH = 100  # cycles of a jump out of the instruction buffer, about
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


@dataclass(frozen=True, eq=False)
class Loop:
    """`count` times `body`, which starts at operation `lo` and moves like `motion`.

    The body holds operation numbers and inner loops.
    """

    lo: int
    count: int
    motion: Motion
    body: list[int | Loop]


Nodes = list["int | Loop"]


def plain(op: Op) -> Word:
    """The instruction of an operation outside of the loops that are found here."""
    if op.register is not None:
        fields = op.fields | op.sync | {op.address: op.register}
        return Word(op.name, fields, op.kernel, (op.address,))
    return Word(op.name, op.fields | op.sync, op.kernel, (), op.address, op.buffer, op.offset)


class NoRegister(Exception):
    """A loop needs more registers than there are."""


@dataclass(slots=True, eq=False)
class _Held:
    """A register for addresses that move alike.

    `at` is its value now, if the loops around were in their first iteration; `steps` is how it
    moves in each loop; where `size` is not 0, it wraps in low <= address < low + size.
    """

    register: int
    buffer: Buffer | None
    at: int
    path: tuple[tuple[Loop, int], ...]
    steps: dict[Loop, int]
    size: int
    low: int


class Writer:
    """Writes nodes as instructions; `extra` counts the sequencer's cycles for loops.

    Parameters
    ----------
    frugal : loops in which addresses of different value share a register that walks between them.
    registers : how many there are to use, from 0 on.
    """

    def __init__(self, ops: Sequence[Op], values: np.ndarray, frugal: Collection[Loop],
                 registers: int = REGISTERS):  # fmt: skip
        self.ops, self.values, self.frugal = ops, values, frugal
        self.words: list[Word] = []
        self.free = list(range(registers - 1, -1, -1))
        self.held: list[_Held] = []
        self.where: dict[tuple[int, str], _Held] = {}
        self.extra = 0
        self.times = 1

    def nodes(self, nodes: Nodes, around: list[Loop]) -> None:
        """Write operations and loops that lie in the loops `around`."""
        for node in nodes:
            if isinstance(node, Loop):
                self._loop(node, around)
            else:
                self._op(node)

    def _op(self, number: int) -> None:
        op = self.ops[number]
        word, regs = plain(op), []
        for name in columns(op.name) if self.held else ():
            held = self.where.get((number, name))
            if held is not None:
                value = op.offset if name == op.address else op.fields[name]
                self._move(held, value, op.kernel)
                word.fields[name] = held.register
                regs.append(name)
        if word.address in regs:
            word.address, word.buffer, word.offset = "", None, 0
        word.regs = tuple(regs)
        self.extra += len(regs) * self.times
        self.words.append(word)

    def _take(self) -> int:
        if not self.free:
            raise NoRegister
        return self.free.pop()

    def _scalar(self, kernel: int, name: str, **fields: int) -> Word:
        self.words.append(Word(name, fields, kernel))
        self.extra += SCALAR_CYCLES * self.times
        return self.words[-1]

    @staticmethod
    def _valued(word: Word, buffer: Buffer | None, value: int) -> None:
        """Let the instruction's operand `b` be a value, or an address in a buffer."""
        word.fields["b"] = _signed(value)
        if buffer is not None:
            word.address, word.buffer, word.offset = "b", buffer, value

    def _hold(self, nodes: Nodes, inside: list[Loop], depth: int, mine: list[_Held]) -> None:
        """Take registers for the addresses which loop number `depth` is the first to move."""
        for node in nodes:
            if isinstance(node, Loop):
                self._hold(node.body, [*inside, node], depth, mine)
                continue
            op, last = self.ops[node], inside[-1]
            rows = [loop.motion.step[node - loop.lo].tolist() for loop in inside]
            used: dict[_Held, int] = {}  # an operation's registers have one value each
            for column, name in enumerate(columns(op.name)):
                steps = [row[column] for row in rows]
                if not steps[depth] or any(steps[:depth]):
                    continue
                motions = last.motion.size, last.motion.low
                size, low = (int(m[node - last.lo, column]) for m in motions)
                buffer = op.buffer if name == op.address else None
                value = int(self.values[node, column])
                chain = dict(zip(inside, steps, strict=True))
                path = tuple(item for item in chain.items() if item[1])
                for held in mine:
                    if used.get(held, value) != value:
                        continue
                    if (held.buffer, held.size, held.low) == (buffer, size, low) and (
                        all(held.steps.get(k, s) == s for k, s in chain.items())
                        if inside[0] in self.frugal
                        else (held.at, held.path) == (value, path)
                    ):
                        break
                else:
                    held = _Held(self._take(), buffer, value, path, {}, size, low)
                    mine.append(held)
                held.steps |= chain
                used[held] = value
                self.where[node, name] = held

    def _first(self, nodes: Nodes, found: dict[_Held, int]) -> dict[_Held, int]:
        """The value with which each register is used first."""
        for node in nodes:
            if isinstance(node, Loop):
                self._first(node.body, found)
                continue
            for column, name in enumerate(columns(self.ops[node].name)):
                held = self.where.get((node, name))
                if held is not None and held not in found:
                    found[held] = int(self.values[node, column])
        return found

    def _loop(self, loop: Loop, around: list[Loop]) -> None:
        """Set registers; body; move registers; back."""
        kernel, inside = self.ops[loop.lo].kernel, [*around, loop]
        mine: list[_Held] = []
        self._hold(loop.body, inside, len(around), mine)
        for held in mine:
            self._valued(self._scalar(kernel, "li", rd=held.register), held.buffer, held.at)
        self.held += mine
        straight = next((held for held in mine if not held.size), None)
        if straight is not None:  # its last value ends the loop
            counter, buffer = straight.register, straight.buffer
            last = straight.at + loop.count * straight.steps[loop]
        else:
            counter, buffer, last = self._take(), None, 0
            self._scalar(kernel, "li", rd=counter, b=loop.count)
        for held, value in self._first(loop.body, {}).items():
            self._move(held, value, kernel)
        top, first = len(self.words), [held.at for held in self.held]
        self.times *= loop.count
        self.nodes(loop.body, inside)
        for held, at in zip(self.held, first, strict=True):
            self._move(held, at + held.steps.get(loop, 0), kernel)
            held.at = at + loop.count * held.steps.get(loop, 0)
        if straight is None:
            self._scalar(kernel, "sub", rd=counter, ra=counter, b=1)
        self._valued(self._scalar(kernel, "bne", ra=counter, target=top), buffer, last)
        if (len(self.words) - 1) // LINE_INSTRS - top // LINE_INSTRS >= LINES:
            self.extra += REFETCH * self.times
        self.times //= loop.count
        del self.held[len(self.held) - len(mine) :]
        self.free += [held.register for held in mine] + [counter] * (straight is None)

    def _move(self, held: _Held, value: int, kernel: int) -> None:
        """Bring a register to a value, which like `at` is that of the loops' first iteration."""
        r, size = held.register, held.size
        step = (value - held.at) % size if size else value - held.at
        held.at = value
        if not step:
            return
        self._scalar(kernel, "add", rd=r, ra=r, b=_signed(step))
        if size and held.low == 0 and size & (size - 1) == 0:
            self._scalar(kernel, "and", rd=r, ra=r, b=size - 1)
        elif size:
            end = len(self.words) + 2
            self._scalar(kernel, "blt", ra=r, b=held.low + size, target=end)
            self._scalar(kernel, "sub", rd=r, ra=r, b=size)


def _signed(value: int) -> int:
    """32 bits as the signed field that holds them."""
    value &= MASK
    return value - (1 << 32) if value >> 31 else value
