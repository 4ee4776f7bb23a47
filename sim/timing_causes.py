"""Where each unit's cycles went, by arithmetic on intervals.

A unit leaves behind four sets of intervals (inclusive cycles): its slots and grants, its head
waiting for semaphores, its ready head waiting for ports, its items in flight. The first set that
holds a cycle names that cycle's cause; what no set holds is empty.
"""

from __future__ import annotations

import numpy as np

CAUSES = ("issuing", "semaphore", "port", "memory", "empty")


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
    starts = [np.minimum(np.array(s.starts, np.int64), cycles) for s in sets]
    stops = [np.minimum(np.array(s.ends, np.int64) + 1, cycles) for s in sets]
    points = np.unique(np.concatenate([*starts, *stops, [0, cycles]]))
    length = np.diff(points, append=cycles)
    free = np.ones(len(points), bool)
    out = []
    for begin, stop in zip(starts, stops, strict=True):
        depth = np.zeros(len(points), np.int64)
        np.add.at(depth, np.searchsorted(points, begin), 1)
        np.add.at(depth, np.searchsorted(points, stop), -1)
        here = (np.cumsum(depth) > 0) & free
        free &= ~here
        out.append(int(length[here].sum()))
    return [*out, cycles - sum(out)]
