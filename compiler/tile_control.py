"""Tile control flow: scalar instructions around the operations of the kernels inside.

Around every label and jump there is a fence, so each stretch in between is synchronised on its own,
and all that a step wrote is there for the next one. The step of a loop is counted in a register of
its own, from which the addresses of rows are computed right before they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count

from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.kernels import Control, Kernel, Loop, Move, Row, Switch, View, While
from tilewright.compiler.tile_map import tile_move
from tilewright.compiler.tiles import Op, Plan
from tilewright.isa.config import REGISTERS
from tilewright.isa.table import Unit

DEPTH = 4  # loops around each other whose steps are counted
FIRST = REGISTERS - DEPTH  # register of the outermost loop's step
VALUE, ADDRESS, SIGN = FIRST - 1, FIRST - 2, FIRST - 3  # used within a few instructions
FREE = FIRST - 3  # registers that a stretch without jumps may use as it likes

#: Operations of kernels whose numbers begin at the second argument, that many loops deep.
Inside = Callable[[tuple[Kernel, ...], int, int], list[Op]]


class Controller:
    """Labels of one program, and the operations of its control flow."""

    def __init__(self, plan: Plan, inside: Inside):
        self.plan, self.inside = plan, inside
        self.labels = count()

    def ops(self, kernel: Kernel, number: int, depth: int) -> list[Op]:
        """All operations of one kernel that holds others, whose numbers follow its own."""
        assert isinstance(kernel.source, Control)
        make = {Loop: self._loop, While: self._while, Switch: self._switch}[type(kernel.source)]
        return list(make(kernel, number, depth))

    def _parts(self, kernel: Kernel, number: int, depth: int) -> Iterator[list[Op]]:
        at = number + 1
        for part in kernel.source.parts:  # type: ignore[union-attr]
            yield self.inside(part, at, depth)
            at += count_of(part)

    def _loop(self, kernel: Kernel, number: int, depth: int) -> Iterator[Op]:
        if depth == DEPTH:
            raise UnsupportedError(
                f"at most {DEPTH} loops can be around each other on this chip (at {kernel.user}); "
                "join two of them, or unroll one"
            )
        step, top = FIRST + depth, next(self.labels)
        (body,) = self._parts(kernel, number, depth + 1)
        yield scalar("fence", number)
        yield scalar("li", number, rd=step, b=0)
        yield scalar("label", number, id=top)
        yield from body
        yield scalar("fence", number)
        yield scalar("add", number, rd=step, ra=step, b=1)
        yield scalar("bne", number, ra=step, b=kernel.source.count, target=top)  # type: ignore[union-attr]

    def _while(self, kernel: Kernel, number: int, depth: int) -> Iterator[Op]:
        top, end = next(self.labels), next(self.labels)
        test, body = self._parts(kernel, number, depth)
        yield scalar("fence", number)
        yield scalar("label", number, id=top)
        yield from test
        yield scalar("fence", number)
        yield from _read(kernel.source.flag, number)  # type: ignore[union-attr]
        yield scalar("beq", number, ra=VALUE, b=0, target=end)
        yield from body
        yield scalar("fence", number)
        yield scalar("jmp", number, target=top)
        yield scalar("label", number, id=end)

    def _switch(self, kernel: Kernel, number: int, depth: int) -> Iterator[Op]:
        parts = list(self._parts(kernel, number, depth))
        starts, end = [next(self.labels) for _ in parts], next(self.labels)
        yield scalar("fence", number)
        yield from _read(kernel.source.index, number)  # type: ignore[union-attr]
        for i, start in enumerate(starts[:-1]):
            yield scalar("blt", number, ra=VALUE, b=i + 1, target=start)
        order = [len(parts) - 1, *range(len(parts) - 1)]  # the last one needs no jump
        for i in order:
            yield scalar("label", number, id=starts[i])
            yield from parts[i]
            yield scalar("fence", number)
            if i != order[-1]:
                yield scalar("jmp", number, target=end)
        yield scalar("label", number, id=end)


def count_of(kernels: tuple[Kernel, ...]) -> int:
    """How many kernels these are with those inside of them."""
    parts = (p for k in kernels if isinstance(k.source, Control) for p in k.source.parts)
    return len(kernels) + sum(map(count_of, parts))


def tile_row(plan: Plan, kernel: Kernel, number: int, depth: int) -> list[Op]:
    """A copy of the row that the innermost loop's step names: a move by addresses in registers."""
    row = kernel.source
    assert isinstance(row, Row)
    size = row.x.dtype.itemsize
    for n in row.x.shape:
        size *= n
    last = (row.count - 1) * size if row.reverse else 0
    pitch = -size if row.reverse else size
    out = [scalar("mul", number, rd=VALUE, ra=FIRST + depth - 1, b=pitch)]
    for op in tile_move(plan, replace(kernel, source=Move(row.x)), number):
        if op.name == ("store" if row.into else "load"):
            out.append(added(op, last))
        out.append(op)
    return out


def added(op: Op, more: int = 0) -> Op:
    """What gives an operation its address: VALUE, `more` bytes, and the address that it has."""
    op.register = ADDRESS
    fields = {"rd": ADDRESS, "ra": VALUE}
    return Op("add", fields, (), (), op.kernel, "b", op.buffer, op.offset + more)


def straight(ops: Sequence[Op]) -> list[Op]:
    """The same operations without jumps: each body once, each branch, the first row of arrays.

    What is legal and without races there is so in every run: a step begins with all units quiet and
    ends so, its semaphores are as before, and rows other than the first lie elsewhere in the array.
    """
    keep = [op for op in ops if op.unit is not Unit.SEQ or op.name == "fence"]
    return [op if op.register is None else replace(op, register=None) for op in keep]


def scalar(name: str, number: int, **fields: int) -> Op:
    """An instruction of the sequencer, or a label."""
    return Op(name, fields, (), (), number)


def _read(view: View, number: int) -> Iterator[Op]:
    """An int32 of DRAM into VALUE."""
    at = view.offset * view.dtype.itemsize
    yield Op("li", {"rd": VALUE}, (), (), number, "b", view.buffer, at)
    yield scalar("ldw", number, rd=VALUE, ra=VALUE, b=0)
