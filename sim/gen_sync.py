"""Waits and signals for random programs, derived from who touches what.

A `Node` is one executed instruction with its needs: events of earlier nodes that must come before
it starts. `Sync` finds needs from tables of last writers and readers, and inserts edges that are
missing. `unordered` is the oracle: the set of all earlier events of each event, as the bits of one
integer, from the nodes alone. None of this is shared with the checker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tilewright.isa.config import SEMAPHORES
from tilewright.isa.table import Unit
from tilewright.sim.gen_ops import Cells, Op

READ, DONE = "rd", "done"
QUEUED = (Unit.LOAD, Unit.MATMUL, Unit.VECTOR, Unit.STORE)
#: Who may wait for which signal of whom; each has its own semaphore, if it has one.
EDGES = (
    *((u, kind, w) for u in QUEUED for kind in (READ, DONE) for w in (*QUEUED, Unit.SEQ) if u != w),
    *((u, DONE, u) for u in QUEUED),
    *((Unit.SEQ, "post", w) for w in QUEUED),
)
SPARE = 4  # semaphores for loops
#: Signals that an instruction with this wish never gives.
_BARRED = {"free": ("rd", "done"), "read_done": ("done",), "done": ("rd",)}


@dataclass
class Node:
    """One executed instruction; `slot` is its index in the program, shared by iterations."""

    slot: int
    unit: Unit
    name: str
    waits: dict[int, int] = field(default_factory=dict)  # semaphore -> n
    signals: dict[str, int] = field(default_factory=dict)  # READ or DONE -> semaphore
    posts: dict[int, int] = field(default_factory=dict)
    needs: list[tuple[int, str]] = field(default_factory=list)  # (node, READ or DONE)
    locked: bool = False  # in a loop: takes no further waits or signals
    barred: tuple[str, ...] = ()  # signals that it must not give


def unordered(nodes: list[Node]) -> tuple[list[tuple[int, int, str]], bool]:
    """((node, needed node, event) that nothing orders, whether a wait lacks its tokens)."""
    bit = {(i, e): 1 << (3 * i + j) for i in range(len(nodes)) for j, e in enumerate("srd")}
    past: dict[tuple[int, str], int] = {}  # event -> all events before it, itself included
    last: dict[Unit, int] = {}
    tokens: dict[int, list[int]] = {}
    taken: dict[int, int] = {}
    sequencer, missing, blocked = 0, [], False
    for i, n in enumerate(nodes):
        now = sequencer
        if n.unit in last:
            now |= past[last[n.unit], "s"]
        for sem, count in n.waits.items():
            first = taken.get(sem, 0)
            taken[sem] = first + count
            got = tokens.get(sem, [])[first : first + count]
            blocked |= len(got) < count
            for token in got:
                now |= token
        quiet = {"ldw": [Unit.LOAD], "stw": [Unit.STORE], "fence": QUEUED, "halt": QUEUED}
        for u in quiet.get(n.name, ()):
            now |= past[last[u], "d"] if u in last else 0
        for other, event in n.needs:
            if not now & bit[other, "r" if event == READ else "d"]:
                missing.append((i, other, event))
        if n.unit is Unit.SEQ:
            sequencer = now
            for sem, count in n.posts.items():
                tokens.setdefault(sem, []).extend([now] * count)
            continue
        before = last.get(n.unit)
        past[i, "s"] = now | bit[i, "s"]
        past[i, "r"] = past[i, "s"] | bit[i, "r"] | (past[before, "r"] if before is not None else 0)
        past[i, "d"] = past[i, "r"] | bit[i, "d"] | (past[before, "d"] if before is not None else 0)
        last[n.unit] = i
        for event, sem in n.signals.items():
            tokens.setdefault(sem, []).append(past[i, "r" if event == READ else "d"])
    return missing, blocked


class Sync:
    """The nodes so far, and the tables that tell what the next one needs.

    Parameters
    ----------
    insert : puts a new sequencer `Node` with its instruction's fields into the program.
    """

    def __init__(self, rng: Random, insert: Callable[[Node, dict[str, int]], None]):
        self.rng = rng
        self.nodes: list[Node] = []
        numbers = list(range(SEMAPHORES))
        rng.shuffle(numbers)
        edges = rng.sample(EDGES, min(len(EDGES), SEMAPHORES - SPARE))
        self.sem = dict(zip(edges, numbers, strict=False))
        self.spare = numbers[-SPARE:]
        self._insert = insert
        self._tokens: dict[int, list[int]] = {s: [] for s in numbers}  # nodes that signal
        self._taken = dict.fromkeys(numbers, 0)
        self._writer: dict[tuple[str, int], int] = {}
        self._readers: dict[tuple[str, int], dict[Unit, int]] = {}
        self._passes: list[tuple[int, list[range]]] = []

    def needs(self, unit: Unit, reads: Iterable[Cells], writes: Iterable[Cells], op: Op | None):
        """Earlier events that an instruction of `unit` must come after."""
        out: dict[tuple[int, str], None] = {}
        for number, (space, cells) in enumerate(reads):
            # VECTOR's first read is its micro-kernel; its streams see what VECTORs before it wrote
            sees = unit is Unit.MATMUL or (unit is Unit.VECTOR and number > 0)
            for cell in cells:
                i = self._writer.get((space, cell))
                if i is not None and not (sees and self.nodes[i].unit is unit):
                    out[i, DONE] = None
        for space, cells in writes:
            for cell in cells:
                i = self._writer.get((space, cell))
                if i is not None and self.nodes[i].unit is not unit:
                    out[i, DONE] = None
                for other, j in self._readers.get((space, cell), {}).items():
                    if other is not unit:
                        out[j, READ] = None
        if op is not None and op.passes and op.fields["acc"]:
            for i, passes in self._passes:  # accumulates on rows that come elsewhere in its passes
                if any(
                    p.start != q.start and p.start < q.stop and q.start < p.stop
                    for p in passes for q in op.passes
                ):  # fmt: skip
                    out[i, DONE] = None
        return list(out)

    def _enter(self, node: Node, reads: Iterable[Cells], writes: Iterable[Cells], op: Op | None):
        number = len(self.nodes)
        self.nodes.append(node)
        for space, cells in reads:
            for cell in cells:
                self._readers.setdefault((space, cell), {})[node.unit] = number
        for space, cells in writes:
            for cell in cells:
                self._writer[space, cell] = number
                self._readers.pop((space, cell), None)
        if op is not None and op.passes:
            self._passes.append((number, op.passes))

    def add(
        self, node: Node, reads: list[Cells], writes: list[Cells], op: Op | None = None
    ) -> None:
        """Append an instruction, with the waits that it needs; the caller sets `node.slot`."""
        node.needs = self.needs(node.unit, reads, writes, op)
        while True:
            missing = [
                (i, e) for at, i, e in unordered([*self.nodes, node])[0] if at == len(self.nodes)
            ]
            if not missing:
                break
            i, event = self.rng.choice(missing)
            if not self._order(node, i, event):
                self.fence()
        if node.unit is not Unit.SEQ:
            wish = "needs" if op is None else op.wish
            node.barred = _BARRED.get(wish, ())
            if wish in ("two_waits", "take_many"):
                self._more_waits(node, wish == "two_waits")
            self._enter(node, reads, writes, op)
            if wish in ("read_done", "both_signals"):
                self._offer(len(self.nodes) - 1, READ)
            if wish in ("done", "both_signals"):
                self._offer(len(self.nodes) - 1, DONE)
            return
        self.nodes.append(node)  # whatever comes later comes after a word of the sequencer
        for space, cells in writes:
            for cell in cells:
                self._writer.pop((space, cell), None)
                self._readers.pop((space, cell), None)

    def enter_loop(self, node: Node, op: Op) -> None:
        """Append one iteration's instruction, whose synchronisation the loop brings along."""
        node.needs = self.needs(node.unit, op.reads, op.writes, op)
        node.locked = True
        self._enter(node, op.reads, op.writes, op)

    def fence(self) -> None:
        """Everything so far comes before everything later."""
        self._put("fence", {})

    def listen(self) -> None:
        """The sequencer waits for an event of some unit, needed or not."""
        heard = [e for e in self.sem if e[2] is Unit.SEQ]
        if not heard:
            return
        unit, event, _ = self.rng.choice(heard)
        mine = [i for i, n in enumerate(self.nodes) if n.unit is unit and not n.locked]
        node = Node(-1, Unit.SEQ, "wait")
        if mine and self._wait(node, unit, event, self.rng.choice(mine)):
            ((sem, n),) = node.waits.items()
            self._insert(node, {"sem": sem, "n": n})
            self.nodes.append(node)

    def _put(self, name: str, fields: dict[str, int], **kw: Any) -> None:
        node = Node(-1, Unit.SEQ, name, **kw)
        self._insert(node, fields)
        self.nodes.append(node)

    def _order(self, node: Node, i: int, event: str) -> bool:
        """Bring node `i`'s event before `node`, by a wait of its own or of the sequencer."""
        unit, roll = self.nodes[i].unit, self.rng.random()
        if event == READ and (roll < 0.3 or unit is node.unit):
            event = DONE
        if node.unit is not Unit.SEQ and roll < 0.85 and self._wait(node, unit, event, i):
            return True
        if roll > 0.97:
            return False
        relay = Node(-1, Unit.SEQ, "wait")
        if not self._wait(relay, unit, event, i):
            return False
        ((sem, n),) = relay.waits.items()
        self._insert(relay, {"sem": sem, "n": n})
        self.nodes.append(relay)
        post = self.sem.get((Unit.SEQ, "post", node.unit))
        if post is not None and self.rng.random() < 0.5 and len(node.waits) < 2:
            n = self.rng.choice((1, 1, 2))
            self._put("post", {"sem": post, "n": n}, posts={post: n})
            node.waits[post] = node.waits.get(post, 0) + n
        return True

    def _wait(self, node: Node, unit: Unit, event: str, i: int) -> bool:
        """Make `node` wait for a token that node `i` or a later one of its unit gives."""
        sem = self.sem.get((unit, event, node.unit))
        if sem is None or (sem not in node.waits and len(node.waits) == 2):
            return False
        tokens = self._tokens[sem]
        at = next((t for t in range(self._taken[sem], len(tokens)) if tokens[t] >= i), None)
        if at is None:
            oldest = max(i, tokens[-1] + 1 if tokens else 0)
            free = self._free(unit, event, oldest)
            if not free:
                return False
            if len(free) > 1 and self.rng.random() < 0.4:  # several signals, one wait for all
                for early in free[: self.rng.randint(1, 2)]:
                    self.give(early, event, sem)
                free = self._free(unit, event, tokens[-1] + 1) or [tokens[-1]]
            if self.rng.random() < 0.7:
                free = free[:1]
            chosen = self.rng.choice(free)
            if not tokens or tokens[-1] < chosen:
                self.give(chosen, event, sem)
            at = len(tokens) - 1
        n = at + 1 - self._taken[sem]
        if node.waits.get(sem, 0) + n > 255:
            return False
        node.waits[sem] = node.waits.get(sem, 0) + n
        self._taken[sem] = at + 1
        return True

    def _free(self, unit: Unit, event: str, oldest: int) -> list[int]:
        return [
            j for j in range(oldest, len(self.nodes))
            if self.nodes[j].unit is unit and not self.nodes[j].locked
            and event not in self.nodes[j].signals and event not in self.nodes[j].barred
        ]  # fmt: skip

    def give(self, i: int, event: str, sem: int) -> None:
        """Node `i` signals `sem`."""
        self.nodes[i].signals[event] = sem
        self._tokens[sem].append(i)

    def _more_waits(self, node: Node, two: bool) -> None:
        """Waits that are not needed but legal: a second one, or one for several tokens."""
        edges = [e for e in self.sem if e[2] is node.unit and e[0] is not Unit.SEQ]
        self.rng.shuffle(edges)
        for unit, event, _ in edges:
            mine = [i for i, n in enumerate(self.nodes) if n.unit is unit and not n.locked]
            for i in mine[-1:] if two else mine[-6:]:
                if len(node.waits) == 2 if two else max(node.waits.values(), default=0) > 1:
                    return
                self._wait(node, unit, event, i)

    def _offer(self, i: int, event: str) -> None:
        """Give node `i` a signal that a later wait may take."""
        node = self.nodes[i]
        waiters = [w for u, e, w in self.sem if u is node.unit and e == event]
        if not waiters:
            return
        sem = self.sem[node.unit, event, self.rng.choice(waiters)]
        if event not in node.signals and len(self._tokens[sem]) - self._taken[sem] < 20:
            self.give(i, event, sem)
