"""Cut terms into the stages of a kernel: what VECTOR can do at once, in an order that works.

A stage reads at most three arrays, stores at most two, and ends with its reduction. What is behind
a reduction comes in a later stage, but for a few operations on the row's result. Where a term is
too large, the largest part of it that fits is a stage of its own; what both a reduction and a later
stage need is stored beside the reduction. All of that stays on the chip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.compiler.kernels import Lanes, Stage, View
from tilewright.compiler.lane_steps import FULL, ROW, Operand, is_flat, operand_of, stage_steps
from tilewright.compiler.schedule import ceil_div
from tilewright.compiler.terms import Term
from tilewright.compiler.vector_reduce import REDUCTIONS
from tilewright.isa.config import ChipConfig


@dataclass(frozen=True)
class Root:
    """A term whose value is wanted; `wide`: of every element, else of each row."""

    term: Term
    wide: bool


def rows_of(config: ChipConfig, words: int) -> int:
    """Accumulator rows that a micro-kernel takes."""
    return ceil_div(2 * words, config.dim)


def has_room(config: ChipConfig, words: int) -> bool:
    """Whether a micro-kernel leaves room for data: it takes at most a third of the accumulator."""
    return rows_of(config, words) <= config.acc_rows // 3


def group(config: ChipConfig, roots: Sequence[Root], views: Sequence[View],
          shape: tuple[int, int], split: int = 0) -> Lanes | None:  # fmt: skip
    """The kernel of terms whose inputs are numbers of views (R, C); None if VECTOR cannot."""
    planner = _Planner(config, roots, views, shape, split)
    return planner.result() if planner.run() else None


class _Planner:
    """What is stored so far, and what is left to do."""

    def __init__(self, config: ChipConfig, roots: Sequence[Root], views: Sequence[View],
                 shape: tuple[int, int], split: int):  # fmt: skip
        self.config, self.roots = config, roots
        plain = Lanes(shape, tuple(views), tuple(Stage((r.term,)) for r in roots), (), split)
        flat = is_flat(plain)
        self.lanes = plain
        self.operands = [operand_of(v, shape, flat) for v in views]
        self.known: dict[int, int] = {}  # term -> number of the operand that it is
        self.stages: list[Stage] = []
        self.order = list(dict.fromkeys(t for r in roots for t in r.term.nodes()))
        self.wide: dict[int, bool] = {}
        self.users: dict[int, list[Term]] = {}
        for t in self.order:
            self.wide[id(t)] = self._is_wide(t)
            for a in t.args:
                self.users.setdefault(id(a), []).append(t)
        self.wanted = {id(r.term) for r in roots}

    def _is_wide(self, t: Term) -> bool:
        if t.name == "input":
            return self.operands[t.value].level == FULL  # type: ignore[call-overload]
        if t.name in REDUCTIONS:
            return False
        return t.name == "index" or any(self.wide[id(a)] for a in t.args)

    def run(self) -> bool:
        """Make all stages; whether that worked."""
        place = {id(t): at for at, t in enumerate(self.order)}
        self.forced = {id(r.term) for r in self.roots if r.wide}
        for root in sorted(self.roots, key=lambda r: place[id(r.term)]):
            for t in self._cone(root.term):
                pending = t.name in REDUCTIONS and id(t) not in self.known
                if pending and not self._absorbed(t, root.term) and not self._emit(t):
                    return False
            if id(root.term) not in self.known and not self._emit(root.term):
                return False
        return True

    def result(self) -> Lanes:
        """The kernel."""
        outs = tuple(map(self._out, self.roots))
        return Lanes(self.lanes.shape, self.lanes.views, tuple(self.stages), outs, self.lanes.split)

    def _out(self, root: Root) -> int:
        """The number of a result; a row's value for every element is a stage of its own."""
        number = self.known[id(root.term)]
        if not root.wide or self.operands[number].level == FULL:
            return number
        self.stages.append(Stage((Term("input", root.term.dtype, value=number),)))
        self.operands.append(Operand(root.term.dtype, FULL))
        return len(self.operands) - 1

    def _cone(self, term: Term) -> list[Term]:
        """All that is left to compute for a term, arguments first, and what of that is known."""
        seen: dict[int, Term] = {}

        def visit(t: Term) -> None:
            if id(t) in seen:
                return
            if id(t) not in self.known:
                for a in t.args:
                    visit(a)
            seen[id(t)] = t

        visit(term)
        return list(seen.values())

    def _absorbed(self, total: Term, root: Term) -> bool:
        """Whether the root is the reduction, or made of it and of constants alone."""
        if root is total:
            return True
        if self.wide[id(root)] or id(root) in self.forced or id(total) in self.wanted:
            return False
        inside = {id(t) for t in self._cone(total)}
        rest = [t for t in self._cone(root) if id(t) not in inside]
        if len(self.users[id(total)]) != 1 or any(t.name in REDUCTIONS for t in rest):
            return False
        return all(t.args or t.name == "const" for t in rest) and all(
            a is total or id(a) not in inside or a.name == "const" for t in rest for a in t.args
        )

    def _emit(self, target: Term) -> bool:
        """Make stages until the target is known; whether that worked."""
        while True:
            cone = self._cone(target)
            total = any(t.name in REDUCTIONS and id(t) not in self.known for t in cone)
            wide = total or self.wide[id(target)] or id(target) in self.forced
            beside = self._beside(target) if total else None
            terms = (target,) if beside is None else (beside, target)
            stage = self._stage(terms, wide)
            if stage is not None:
                self._add(stage, terms, total)
                return True
            part = beside if beside is not None else self._part(target)
            if part is None or not self._emit(part):
                return False

    def _stage(self, terms: Sequence[Term], wide: bool) -> Stage | None:
        made: dict[int, Term] = {}
        for t in dict.fromkeys(t for term in terms for t in self._cone(term)):
            number = self.known.get(id(t))
            if number is not None:
                made[id(t)] = Term("input", t.dtype, value=number)
            else:
                args = tuple(made[id(a)] for a in t.args)
                made[id(t)] = Term(t.name, t.dtype, args, t.params, t.value)
        stage = Stage(tuple(made[id(t)] for t in terms), wide)
        steps = stage_steps(self.lanes, stage, self.operands, self.config.dim)
        if not steps or any(not has_room(self.config, len(s.micro.words)) for s in steps):
            return None
        return stage

    def _add(self, stage: Stage, terms: Sequence[Term], reduces: bool) -> None:
        self.stages.append(stage)
        for t in terms:
            row = (reduces and t is terms[-1]) or not stage.wide
            self.known[id(t)] = len(self.operands)
            self.operands.append(Operand(t.dtype, ROW if row else FULL))

    def _leaves(self, term: Term) -> set[int]:
        return {
            self.known.get(id(t), id(t))
            for t in self._cone(term)
            if id(t) in self.known or t.name == "input"
        }

    def _beside(self, target: Term) -> Term | None:
        """What a reduction computes on its way, not cheaply, and others need, too."""
        cone = self._cone(target)
        inside = {id(t) for t in cone}
        for t in reversed(cone[:-1]):
            done = id(t) in self.known or not t.args or t.name in REDUCTIONS
            if done or not self.wide[id(t)]:
                continue
            outside = any(id(u) not in inside for u in self.users[id(t)])
            operations = sum(1 for u in self._cone(t) if u.args and id(u) not in self.known)
            if (outside or id(t) in self.wanted) and (operations > 1 or len(self._leaves(t)) > 1):
                return t
        return None

    def _part(self, target: Term) -> Term | None:
        """The largest part of a term that fits, which makes the rest smaller.

        First of all a reduction whose row's operations are too many for the tail.
        """
        found: list[tuple[bool, int, Term]] = []
        for t in self._cone(target)[:-1]:
            if t.name in REDUCTIONS and id(t) not in self.known:
                return t
            if t.args and id(t) not in self.known:
                size = sum(1 for u in self._cone(t) if u.args and id(u) not in self.known)
                found.append((len(self._leaves(t)) > 1, size, t))
        found.sort(key=lambda part: part[:2])
        for several in (True, False):  # of several arrays, if there is any: that leaves fewer
            some = [t for many, _, t in found if many == several]
            low, high = 0, len(some)
            while low < high:
                middle = (low + high) // 2
                fits = self._stage((some[middle],), self.wide[id(some[middle])]) is not None
                low, high = (middle + 1, high) if fits else (low, middle)
            if low:
                return some[low - 1]
        return next((t for *_, t in found if self._stage((t,), self.wide[id(t)])), None)
