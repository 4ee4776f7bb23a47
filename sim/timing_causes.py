"""Where each unit's cycles went, by arithmetic on intervals.

A unit leaves behind four sets of intervals (inclusive cycles): its slots and grants, its head
waiting for semaphores, its ready head waiting for ports, its items in flight. The first set that
holds a cycle names that cycle's cause; what no set holds is empty.
"""

from __future__ import annotations

import numpy as np
from tilewright.isa.registers import CAUSES as CAUSES


class Intervals:
    """Inclusive intervals that come in order of their starts; touching ones are merged."""

    __slots__ = ("ends", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def add(self, first: int, last: int) -> None:
        """Add [first, last]; nothing if it is empty."""
        if first > last:
            return
        if self.ends and first <= self.ends[-1] + 1:
            if last > self.ends[-1]:
                self.ends[-1] = last
        else:
            self.starts.append(first)
            self.ends.append(last)


def classify(cycles: int, sets: tuple[Intervals, ...]) -> list[int]:
    """Cycles 0 ... `cycles` - 1 by the first of `sets` that holds each, then the rest."""
    edges = [(np.array(s.starts, np.int64), np.array(s.ends, np.int64) + 1) for s in sets]
    points = np.concatenate([np.array([0], np.int64), *(x for pair in edges for x in pair)])
    np.minimum(points, cycles, out=points)
    points.sort()
    length = np.append(points[1:], cycles) - points
    out = []
    for starts, stops in edges:
        here = starts.searchsorted(points, "right") > stops.searchsorted(points, "right")
        out.append(int(length[here].sum()))
        length[here] = 0
    return [*out, cycles - sum(out)]
