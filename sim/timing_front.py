"""A unit's queue and head, as events: when the head is valid, looks at its waits, requests.

The cycles follow from those of the push and of the previous head's leaving (contract §2); nothing
here depends on what other units do.
"""

from __future__ import annotations

from typing import Any

from tilewright.isa.config import QUEUE_DEPTH
from tilewright.sim.timing_causes import Intervals
from tilewright.sim.timing_ops import Op
from tilewright.sim.timing_units import NEVER, Held

NOBODY = Op(-1, -1, -1, -1, 0)  # the head of an empty queue


class Front:
    """Queue and head of one unit.

    Members: `pushed` (op, cycle), `left` the cycle in which each head left; `head`, or NOBODY;
    `valid` from when on it is one, `request` from when on it requests; `event` when it looks at its
    waits or, once it requests, when that can be granted at the earliest. `others` are the ports
    that other units hold.
    """

    __slots__ = (
        "event",
        "head",
        "left",
        "others",
        "port",
        "pushed",
        "request",
        "semaphore",
        "unit",
        "valid",
    )

    def __init__(self, unit: Any):
        self.unit = unit
        self.pushed: list[tuple[Op, int]] = []
        self.left: list[int] = []
        self.head = NOBODY
        self.valid = 0
        self.event = self.request = NEVER
        self.others: list[Held] = []
        self.semaphore = Intervals()
        self.port = Intervals()

    def load_head(self) -> None:
        """Take the next instruction of the queue as head, if there is one."""
        index = len(self.left)
        if index == len(self.pushed):
            self.head = NOBODY
            self.event = self.request = NEVER
            return
        self.head, pushed = self.pushed[index]
        valid = pushed + 2
        if index and valid <= self.left[-1]:
            valid = self.left[-1] + 1
        self.valid = valid
        if self.head.waits:
            self.event, self.request = valid, NEVER
        else:
            self.ok(valid + 1)

    def ok(self, t: int) -> None:
        """The head's ok register is 1 from `t` on."""
        self.semaphore.add(self.valid, t - 1)
        ready = self.unit.ready
        self.request = self.event = t if t > ready else ready

    def free(self, mask: int, t: int) -> int:
        """First cycle from `t` on in which no other unit holds any of `mask`."""
        for held in self.others:
            if held.ever & mask and held.last[-1] >= t:
                t = held.free(mask, t)
        return t

    def room(self, t: int) -> int | None:
        """First cycle from `t` on with room in the queue; None if that is not known yet."""
        j = len(self.pushed) - QUEUE_DEPTH
        if j < 0:
            return t
        if j > len(self.left):
            return None
        popped = max(self.pushed[j][1] + 1, self.left[j - 1] if j else 0)
        return max(t, popped + 1)
