"""Kernels that read or write a part of an array at a place that is known only while they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tilewright.compiler.views import View


@dataclass(frozen=True)
class Start:
    """Where a part begins in a dimension of `size` elements, `step` elements from each other.

    An int32 in DRAM says it: below 0 from the end, then clamped so that `part` elements are inside.
    """

    index: View
    size: int
    part: int
    step: int

    def __str__(self) -> str:
        return f"{self.step}*[{self.index}, {self.part} of {self.size}]"


@dataclass(frozen=True)
class Slide:
    """A copy of a box of x, moved by the starts."""

    x: View
    starts: tuple[Start, ...]

    @property
    def views(self) -> list[View]:
        """What it reads."""
        return [self.x, *(s.index for s in self.starts)]

    def with_views(self, change: Callable[[View], View]) -> Slide:
        """The same, each view changed."""
        starts = tuple(replace(s, index=change(s.index)) for s in self.starts)
        return Slide(change(self.x), starts)

    def __str__(self) -> str:
        return f"slide({', '.join(map(str, (self.x, *self.starts)))})"


@dataclass(frozen=True)
class Update:
    """x with a box, `offset` elements behind the first one and moved by the starts, replaced.

    If x's buffer is the result's, nothing else is copied.
    """

    x: View
    box: View
    offset: int
    starts: tuple[Start, ...]

    @property
    def views(self) -> list[View]:
        """What it reads."""
        return [self.x, self.box, *(s.index for s in self.starts)]

    def with_views(self, change: Callable[[View], View]) -> Update:
        """The same, each view changed."""
        starts = tuple(replace(s, index=change(s.index)) for s in self.starts)
        return replace(self, x=change(self.x), box=change(self.box), starts=starts)

    def __str__(self) -> str:
        parts = (self.x, self.box, f"+{self.offset}", *self.starts)
        return f"update({', '.join(map(str, parts))})"
