"""Which operation waits for which: a token for each edge, at most two waits, one signal of a kind.

What an event of one operation says about all others is a clock, as in the checker (`sim.races`): of
each unit the last operation whose reads, and the last one whose writes, are through. An edge that a
clock already holds is left out; one that an operation has no field for goes by a detour.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from tilewright.compiler.tiles import Op
from tilewright.isa.table import Unit

UNITS = 4  # a clock holds for each unit the last operation that has read, then that is done
WAITS = 2  # of an instruction
Clock = tuple[int, ...]
Channels = Mapping[tuple[Unit, Unit], tuple[int, str]]
Need = tuple[Unit, str]  # a unit, and whether it must have read ("rd") or be through ("done")
_NOTHING: Clock = (-1,) * (2 * UNITS)


class Stuck(Exception):
    """Operation `number` needs more waits or signals than there are."""

    def __init__(self, number: int):
        super().__init__(f"operation {number} needs a fence before it")
        self.number = number


def _join(a: Clock, b: Clock) -> Clock:
    return a if a is b else tuple(map(max, a, b))


def _place(unit: Unit, kind: str) -> int:
    return int(unit) + UNITS * (kind == "done")


class Edges:
    """The edges of operations, which are added in program order.

    `found` is, for each pair of units, its (producer, consumer)s, both strictly ascending.
    """

    def __init__(self, ops: Sequence[Op], channels: Channels):
        self.ops, self.channels = ops, channels
        self.found: dict[tuple[Unit, Unit], list[tuple[int, int]]] = {}
        self.of: dict[Unit, list[int]] = {u: [] for u in list(Unit)[:UNITS]}
        self.start: dict[Unit, Clock] = dict.fromkeys(self.of, _NOTHING)
        self.events: dict[str, list[Clock]] = {"rd": [], "done": []}  # by operation
        self.last: dict[str, dict[Unit, Clock]] = {k: dict(self.start) for k in ("rd", "done")}
        self.signals: dict[tuple[int, str], int] = {}  # (operation, kind) -> semaphore
        self.waits: dict[int, int] = {}

    def add(self, number: int, needs: Mapping[Need, int]) -> None:
        """The next operation, and the latest ones that it must follow.

        Raises
        ------
        Stuck
            There is no way to let it wait.
        """
        unit = self.ops[number].unit
        if unit is Unit.SEQ:  # touches nothing
            for events in self.events.values():
                events.append(_NOTHING)
            return
        clock = self.start[unit]
        todo = {n: at for n, at in needs.items() if clock[_place(*n)] < at}
        tokens: dict[Unit, int] = {}
        if todo:
            tokens = self._tokens(number, unit, self._least(todo, unit))
            for other, producer in tokens.items():
                clock = _join(clock, self._commit(other, producer, unit, number))
        self.start[unit] = clock
        self.of[unit].append(number)
        for kind in ("rd", "done"):
            clock = _join(clock, self.last[kind][unit])
            at = _place(unit, kind)
            clock = (*clock[:at], number, *clock[at + 1 :])
            self.last[kind][unit] = clock
            self.events[kind].append(clock)

    def _least(self, todo: dict[Need, int], unit: Unit) -> dict[Need, int]:
        """Without the needs that another one implies."""
        kept = dict(todo)
        for need, at in sorted(todo.items(), key=lambda item: item[1]):
            others = (
                self.events[self.channels[u, unit][1]][n] for (u, k), n in kept.items()
                if (u, k) != need and (self.channels[u, unit][1] == "done" or k == "rd")
            )  # fmt: skip
            if any(clock[_place(*need)] >= at for clock in others):
                del kept[need]
        return kept

    def _tokens(self, number: int, unit: Unit, needs: dict[Need, int]) -> dict[Unit, int]:
        """By unit, whose signal the operation waits for."""
        tokens: dict[Unit, int] = {}
        for need, at in needs.items():
            best = self._through(need[0], unit, need, at, 0)
            if best is None:  # by way of another unit
                found = [(p, u) for u in self.of if u not in (unit, need[0])
                         if (p := self._through(u, unit, need, at, 0)) is not None]  # fmt: skip
                if not found:
                    raise Stuck(number)
                best, other = min(found)
                tokens[other] = max(best, tokens.get(other, -1))
            else:
                tokens[need[0]] = max(best, tokens.get(need[0], -1))
        while len(tokens) > WAITS - self.waits.get(number, 0):
            if not self._merged(tokens, needs, unit) and not self._hoisted(tokens, unit):
                raise Stuck(number)
        return tokens

    def _through(self, by: Unit, unit: Unit, need: Need, at: int, least: int) -> int | None:
        """The first operation of unit `by` whose signal says that the need is met."""
        _, kind = self.channels[by, unit]
        before = self.found.get((by, unit))
        if before:
            least = max(least, before[-1][0] + 1)
        place, events, numbers = _place(*need), self.events[kind], self.of[by]
        first = bisect_left(numbers, at, key=lambda n: events[n][place])
        for i in range(max(first, bisect_left(numbers, least)), len(numbers)):
            if (numbers[i], kind) not in self.signals:
                return numbers[i]
        return None

    def _merged(self, tokens: dict[Unit, int], needs: dict[Need, int], unit: Unit) -> bool:
        """Replace two waits by a later one that implies both."""
        best: tuple[int, Unit, Unit] | None = None
        for other in tokens:
            for keep, least in tokens.items():
                places = [(n, at) for n, at in needs.items() if n[0] == other]
                found = [self._through(keep, unit, n, at, least) for n, at in places]
                if keep == other or not places or None in found:
                    continue
                late = max(n for n in found if n is not None)
                if best is None or late < best[0]:
                    best = late, keep, other
        if best is None:
            return False
        tokens[best[1]] = best[0]
        del tokens[best[2]]
        return True

    def _hoisted(self, tokens: dict[Unit, int], unit: Unit) -> bool:
        """Let an earlier operation of the unit wait."""
        for other, producer in sorted(tokens.items(), key=lambda item: item[1]):
            before = self.found.get((other, unit))
            least = max(producer, before[-1][1] if before else -1)
            for number in reversed(self.of[unit]):
                if number <= least:
                    break
                if self.waits.get(number, 0) < WAITS:
                    clock = self._commit(other, producer, unit, number)
                    self.start[unit] = _join(self.start[unit], clock)
                    del tokens[other]
                    return True
        return False

    def _commit(self, by: Unit, producer: int, unit: Unit, number: int) -> Clock:
        """One edge; what its token says."""
        semaphore, kind = self.channels[by, unit]
        self.signals[producer, kind] = semaphore
        self.found.setdefault((by, unit), []).append((producer, number))
        self.waits[number] = self.waits.get(number, 0) + 1
        return self.events[kind][producer]
