"""A unit's queue and head, as events: when the head is valid, looks at its waits, requests.

The cycles follow from those of the push and of the previous head's leaving (contract §2); nothing
here depends on what other units do.
"""

from __future__ import annotations

from typing import Any

from tilewright.isa.config import QUEUE_DEPTH
from tilewright.sim.timing_causes import Intervals
from tilewright.sim.timing_ops import Op
from tilewright.sim.timing_units import NEVER


class Front:
    """Queue and head of one unit.

    Members: `pushed` (op, cycle), `index` of the head, `left` the cycle in which each head left;
    `check` when the head looks at its waits, `request` from when on it requests, `attempt` when the
    request can be granted at the earliest.
    """

    __slots__ = (
        "attempt",
        "check",
        "head",
        "left",
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
        self.head: Op | None = None
        self.valid = 0
        self.check = self.request = self.attempt = NEVER
        self.semaphore = Intervals()
        self.port = Intervals()

    def load_head(self) -> None:
        """Take the next instruction of the queue as head, if there is one."""
        index = len(self.left)
        self.check = self.request = self.attempt = NEVER
        if index == len(self.pushed):
            self.head = None
            return
        op, pushed = self.pushed[index]
        self.head = op
        self.valid = max(pushed + 2, self.left[-1] + 1 if index else 0)
        if op.waits:
            self.check = self.valid
        else:
            self.ok(self.valid + 1)

    def ok(self, t: int) -> None:
        """The head's ok register is 1 from `t` on."""
        self.check = NEVER
        self.semaphore.add(self.valid, t - 1)
        self.request = self.attempt = max(t, self.unit.ready)

    def room(self, t: int) -> int | None:
        """First cycle from `t` on with room in the queue; None if that is not known yet."""
        j = len(self.pushed) - QUEUE_DEPTH
        if j < 0:
            return t
        if j > len(self.left):
            return None
        popped = max(self.pushed[j][1] + 1, self.left[j - 1] if j else 0)
        return max(t, popped + 1)
