"""Kernels that read or write a part of an array at a place that is known only while they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tilewright.compiler.kernels_lanes import Lanes
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


@dataclass(frozen=True)
class Gather:
    """Rows of x (N, ...) whose numbers `index` (M) has; what is out of range is clamped.

    A row is (..., run of neighbours); rows are a multiple of the bus from each other.
    """

    x: View
    index: View

    @property
    def views(self) -> list[View]:
        """What it reads."""
        return [self.x, self.index]

    def with_views(self, change: Callable[[View], View]) -> Gather:
        """The same, each view changed."""
        return Gather(change(self.x), change(self.index))

    def __str__(self) -> str:
        return f"gather({self.x}, {self.index})"


@dataclass(frozen=True)
class Scatter:
    """x (N, ...), dense, its rows `index` (M) replaced by those of y (M, ...), dense, in order.

    What is out of range is left out. If x's buffer is the result's, nothing else is copied.
    """

    x: View
    index: View
    y: View

    @property
    def views(self) -> list[View]:
        """What it reads."""
        return [self.x, self.index, self.y]

    def with_views(self, change: Callable[[View], View]) -> Scatter:
        """The same, each view changed."""
        return Scatter(change(self.x), change(self.index), change(self.y))

    def __str__(self) -> str:
        return f"scatter({self.x}, {self.index}, {self.y})"


@dataclass(frozen=True)
class Accumulate:
    """x (N, ...), dense, its rows `index` (M) combined with those of y (M, ...), one by one.

    `step` computes a row from two: its views are of buffers that stand for x's and y's row. What
    is out of range is left out. If x's buffer is the result's, nothing else is copied.
    """

    x: View
    index: View
    y: View
    step: Lanes

    @property
    def views(self) -> list[View]:
        """What it reads."""
        return [self.x, self.index, self.y, *self.step.codes]

    def with_views(self, change: Callable[[View], View]) -> Accumulate:
        """The same, each view changed."""
        step = replace(self.step, codes=tuple(map(change, self.step.codes)))
        return Accumulate(change(self.x), change(self.index), change(self.y), step)

    def __str__(self) -> str:
        return f"accumulate({self.x}, {self.index}, {self.y}, {self.step})"
