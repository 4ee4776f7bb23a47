"""The matrix of a convolution's patches, which is never made.

Row (b, oh, ow) is what a result sees, column (i, j, c) a tap of the kernel and a channel: both are
numbers of several digits, whose levels have steps of their own. Contractions take it where they
take a view; `patch_loads` reads parts of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from tilewright.compiler.views import Buffer

Level = tuple[int, int]  # count, step
Span = tuple[int, int]
Box = tuple[int, tuple[int, ...]]  # number of its first element; how many of each level


@dataclass(frozen=True)
class Run:
    """Pixels of one phase: the number and the element of the first one, and levels of them.

    A level has (count, step in elements, step in pixels).
    """

    pixel: int
    element: int
    levels: list[tuple[int, int, int]]


@dataclass(frozen=True)
class Lanes:
    """Pixels that follow each other, as LOAD's transposer takes them: a box without its ends.

    Parameters
    ----------
    count : pixels.
    element : of the box's first pixel.
    levels : of the box, innermost first.
    skip, drop : of each level but the last, what the box has before and after the pixels.
    """

    count: int
    element: int
    levels: list[Level]
    skip: list[int]
    drop: list[int]

    def read(self) -> Span:
        """The elements of the first and the last pixel."""
        first = self.element + sum(n * s for n, (_, s) in zip(self.skip, self.levels, strict=False))
        last = self.element + sum((n - 1) * s for n, s in self.levels)
        return first, last - sum(n * s for n, (_, s) in zip(self.drop, self.levels, strict=False))


@dataclass(frozen=True)
class Patches:
    """The (B, M, K) matrices of patches, or the (B, K, M) ones if `turned`.

    Parameters
    ----------
    batch : matrices, and elements from one to the next.
    pixels : levels of a row's number, innermost first: of results along W, along H, and images.
    taps : levels of a column's number; elements of the first one are neighbours.
    phases, period : parts of an image row, and elements from one to the next; see `Convolve`.
    stride : columns of the image from one result to the next.
    lanes : whether pixels are to be columns of the array.
    """

    buffer: Buffer
    offset: int
    batch: Level
    pixels: tuple[Level, ...]
    taps: tuple[Level, ...]
    phases: int = 1
    period: int = 0
    stride: int = 1
    lanes: bool = False
    turned: bool = False

    @property
    def dtype(self) -> np.dtype:
        return self.buffer.dtype

    @property
    def shape(self) -> tuple[int, int, int]:
        m, k = (prod(n for n, _ in levels) for levels in (self.pixels, self.taps))
        return (self.batch[0], k, m) if self.turned else (self.batch[0], m, k)

    def transpose(self, permutation: tuple[int, ...]) -> Patches:
        """The other orientation of each matrix."""
        assert permutation == (0, 2, 1), permutation
        return replace(self, turned=not self.turned)

    def lanes_of(self, batch: int, span: Span) -> Lanes:
        """The pixels of a span; they have one phase."""
        assert self.phases == 1, self.phases
        counts, steps = zip(*self.pixels, strict=True)
        inside, low, high = lane_box(counts, span)
        top = len(inside) - 1
        element = self.offset + batch * self.batch[1]
        element += sum(a * s for a, s in zip(low[top:], steps[top:], strict=True))
        levels = list(zip(inside, steps, strict=False))
        drop = [n - 1 - at for at, n in zip(high[:top], counts, strict=False)]
        return Lanes(span[1] - span[0], element, levels, low[:top], drop)

    def runs(self, box: Box) -> Iterator[Run]:
        """The pixels of a box, phase by phase."""
        number, counts = box
        digits, pitch = _digits(tuple(n for n, _ in self.pixels), number), 1
        levels = []
        for (n, s), count in zip(self.pixels, counts, strict=True):
            levels.append((count, s, pitch))
            pitch *= n
        element = self.offset + sum(d * s for d, (_, s) in zip(digits, self.pixels, strict=True))
        if self.phases == 1:
            yield Run(number, element, levels)
            return
        (count, inner, _), outer = levels[0], levels[1:]
        element -= digits[0] * inner
        for i in range(min(self.phases, count)):
            column, phase = divmod((digits[0] + i) * self.stride, self.phases)
            at = element + phase * self.period + column * (inner // self.stride)
            many = -(-(count - i) // self.phases)
            yield Run(number + i, at, [(many, inner, self.phases), *outer])


def lane_box(counts: tuple[int, ...], span: Span) -> tuple[list[int], list[int], list[int]]:
    """Levels of the smallest box that holds a span; digits of the first and the last number."""
    low, high = (_digits(counts, at) for at in (span[0], span[1] - 1))
    top = max((i for i, (a, b) in enumerate(zip(low, high, strict=True)) if a != b), default=0)
    return [*counts[:top], high[top] - low[top] + 1], low, high


def _digits(counts: tuple[int, ...], number: int) -> list[int]:
    """Of a number, innermost first."""
    out = []
    for n in counts:
        out.append(number % n)
        number //= n
    return out


def boxes(counts: tuple[int, ...], span: Span) -> list[Box]:
    """The numbers of a span, whose digits have these counts, as boxes in ascending order."""
    lo, hi = span
    if lo == hi:
        return []
    if len(counts) == 1:
        return [(lo, (hi - lo,))]
    inner = prod(counts[:-1])
    first, last = -(-lo // inner), hi // inner
    if first > last:  # within one step of the last level
        base = last * inner
        return [(base + a, (*n, 1)) for a, n in boxes(counts[:-1], (lo - base, hi - base))]
    base = (first - 1) * inner
    out = [(base + a, (*n, 1)) for a, n in boxes(counts[:-1], (lo - base, inner))]
    out += [(first * inner, (*counts[:-1], last - first))] * (last > first)
    rest = boxes(counts[:-1], (0, hi - last * inner))
    return out + [(last * inner + a, (*n, 1)) for a, n in rest]
