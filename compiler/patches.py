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

    def runs(self, box: Box) -> Iterator[Run]:
        """The pixels of a box, phase by phase."""
        number, counts = box
        digits, rest, pitch = [], number, 1
        levels = []
        for (n, s), count in zip(self.pixels, counts, strict=True):
            digits.append(rest % n)
            levels.append((count, s, pitch))
            rest, pitch = rest // n, pitch * n
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
