"""Kernels with kernels inside: loops and branches that the sequencer runs on the chip.

`Loop` runs its body a number of times that the program knows, `While` as long as a flag in DRAM is
not 0, `Switch` the branch that an int32 in DRAM names. What goes from step to step lies in buffers
that the body overwrites. `Row` copies row i of an array, i being the innermost loop's step, or
writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tilewright.compiler.views import View

if TYPE_CHECKING:
    from tilewright.compiler.kernels import Kernel

Body = tuple["Kernel", ...]


@dataclass(frozen=True)
class Row:
    """Copy x, the first row of an array, or to the first row of `out`; at step i row i.

    Parameters
    ----------
    count : rows of the array.
    into : whether `out` is the array, else `x`'s buffer is.
    reverse : the last row first.
    """

    x: View
    count: int
    into: bool
    reverse: bool

    def __str__(self) -> str:
        order = "from the last" if self.reverse else "i"
        return f"row({self.x}, {'into' if self.into else 'of'} {self.count}, {order})"


@dataclass(frozen=True)
class Loop:
    """`count` times the body."""

    count: int
    body: Body

    @property
    def parts(self) -> tuple[Body, ...]:
        """All lists of kernels."""
        return (self.body,)

    def mapped(self, change: Callable[[Kernel], Kernel], _view: Callable[[View], View]) -> Loop:
        """The same with each kernel changed."""
        return replace(self, body=tuple(map(change, self.body)))

    def __str__(self) -> str:
        return f"loop({self.count} times{_shown(self.body)})"


@dataclass(frozen=True)
class While:
    """The test, then the body if the test left the int32 `flag` other than 0, and again."""

    test: Body
    flag: View
    body: Body

    @property
    def parts(self) -> tuple[Body, ...]:
        """All lists of kernels."""
        return self.test, self.body

    def mapped(self, change: Callable[[Kernel], Kernel], view: Callable[[View], View]) -> While:
        """The same with each kernel and view changed."""
        return While(tuple(map(change, self.test)), view(self.flag), tuple(map(change, self.body)))

    def __str__(self) -> str:
        return f"while({self.flag} after{_shown(self.test)} do{_shown(self.body)})"


@dataclass(frozen=True)
class Switch:
    """The branch that the int32 `index` names; the first or last one if it is out of range."""

    index: View
    branches: tuple[Body, ...]

    @property
    def parts(self) -> tuple[Body, ...]:
        """All lists of kernels."""
        return self.branches

    def mapped(self, change: Callable[[Kernel], Kernel], view: Callable[[View], View]) -> Switch:
        """The same with each kernel and view changed."""
        return Switch(view(self.index), tuple(tuple(map(change, b)) for b in self.branches))

    def __str__(self) -> str:
        return f"switch({self.index}{' or'.join(map(_shown, self.branches))})"


Control = Loop | While | Switch


def inside(source: Control) -> Iterator[Kernel]:
    """All kernels inside, in the order of the program; those of inner loops behind their loop."""
    for part in source.parts:
        for kernel in part:
            yield kernel
            if isinstance(kernel.source, Control):
                yield from inside(kernel.source)


def _shown(body: Body) -> str:
    """Kernels on lines of their own, indented."""
    return "".join("\n" + "\n".join(f"  {line}" for line in str(k).splitlines()) for k in body)
