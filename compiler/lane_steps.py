"""What VECTOR does for a tile of a `Lanes` kernel: steps, each one micro-kernel over rows of units.

A stage without a long reduction is one step. A reduction of more than CHUNK units is a step that
leaves a unit for each chunk of a row, then the same over these until CHUNK are left, then one that
combines them, and the lanes. So additions come in the order of `primitives_reduce`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from tilewright.compiler.kernels import Lanes, Stage, View
from tilewright.compiler.primitives_reduce import CHUNK
from tilewright.compiler.schedule import ceil_div
from tilewright.compiler.terms import Term
from tilewright.compiler.vector_code import MicroKernel, micro_kernel
from tilewright.compiler.vector_lower import BODY, HEAD, Kind
from tilewright.compiler.vector_reduce import REDUCTIONS, How, accumulator
from tilewright.isa.units import LOAD_STREAMS

ROW, FULL = -1, 0  # levels: a unit for each row, all units; above: a unit for CHUNK of those below


@dataclass(frozen=True, eq=False)
class Operand:
    """An array of a tile: a view's part, or what a step leaves.

    Parameters
    ----------
    level : how many units each row has.
    down : whether rows differ.
    """

    dtype: np.dtype
    level: int
    down: bool = True
    view: View | None = None

    @property
    def across(self) -> bool:
        """Whether a row's units differ."""
        return self.level >= FULL

    def size(self, rows: int, blocks: int) -> int:
        """Units of a tile."""
        return (rows if self.down else 1) * units_of(self.level, blocks)


@dataclass(frozen=True)
class Step:
    """One micro-kernel over the rows of a tile.

    Parameters
    ----------
    level : of its rows.
    chunked : whether it runs over chunks of rows; its last output has a unit for each.
    reduces : whether its last output has one unit for each row, or chunk.
    """

    micro: MicroKernel
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    level: int
    chunked: bool
    reduces: bool
    indexed: bool = False


@dataclass(frozen=True)
class Steps:
    """All of a kernel: `operands` by number, as terms name them."""

    steps: tuple[Step, ...]
    operands: tuple[Operand, ...]


def reduction(term: Term) -> Term | None:
    """The reduction in a term."""
    return next((t for t in term.nodes() if t.name in REDUCTIONS), None)


def units_of(level: int, blocks: int) -> int:
    """Units of a row of a level, in a tile of so many blocks of `dim` columns."""
    return 1 if level == ROW else ceil_div(blocks, CHUNK**level)


def is_flat(lanes: Lanes) -> bool:
    """Whether it is one long row, which may be cut anywhere."""
    names = {n.name for s in lanes.stages for t in s.terms for n in t.nodes()}
    return lanes.shape[0] == 1 and names.isdisjoint((*REDUCTIONS, "index"))


def operand_of(view: View, shape: tuple[int, int], flat: bool) -> Operand:
    """A view as a tile has it."""
    rows, cols = shape
    across = view.strides[1] != 0 or cols == 1
    down = across if flat else rows == 1 or view.strides[0] != 0
    return Operand(view.dtype, FULL if across else ROW, down, view)


def steps_of(lanes: Lanes, dim: int) -> Steps | None:
    """All steps, or None if a stage has no micro-kernel."""
    flat = is_flat(lanes)
    operands = [operand_of(v, lanes.shape, flat) for v in lanes.views]
    steps: list[Step] = []
    for stage in lanes.stages:
        found = stage_steps(lanes, stage, operands, dim)
        if found is None:
            return None
        steps += found
        operands += found[0].outputs[: len(stage.terms) - found[-1].reduces]
        operands += found[-1].outputs[-1:] if found[-1].reduces else ()
    return Steps(tuple(steps), tuple(operands))


def _kind(x: Operand, level: int) -> Kind:
    return (HEAD, True) if x.level == ROW and level != ROW else (BODY, False)


def stage_steps(lanes: Lanes, stage: Stage, operands: list[Operand],
                dim: int) -> list[Step] | None:  # fmt: skip
    """The steps of a stage, or None if VECTOR cannot do it at once; the operands are all so far."""
    terms = stage.terms
    numbers = list(dict.fromkeys(n for t in terms for n in t.inputs()))
    used = tuple(operands[n] for n in numbers)  # type: ignore[call-overload]
    if len(used) > len(LOAD_STREAMS):
        return None
    terms = tuple(t.replaced(numbers.index) for t in terms)
    total = reduction(terms[-1])
    level = FULL if stage.wide else ROW
    cols = lanes.shape[1]
    units = lanes.split or ceil_div(cols, dim)
    filled = tuple(i for i, x in enumerate(used) if x.view is not None)
    how = How(dim, not lanes.split, True, cols % dim != 0, filled)
    kinds = [_kind(x, level) for x in used]
    outputs = [Operand(t.dtype, level) for t in terms]
    indexed = any(n.name == "index" for t in terms for n in t.nodes())
    if total is None:
        micro = micro_kernel(terms, kinds, how)
        return micro and [Step(micro, used, tuple(outputs), level, False, False, indexed)]  # type: ignore[return-value]
    wanted = accumulator(total.args[0].dtype)
    outputs[-1] = Operand(wanted if lanes.split else terms[-1].dtype, ROW)
    raw = Term(total.name, wanted, total.args)
    if units <= CHUNK:
        term = raw if lanes.split else terms[-1]
        micro = micro_kernel((*terms[:-1], term), kinds, how)
        return micro and [Step(micro, used, tuple(outputs), level, False, True, indexed)]  # type: ignore[return-value]
    micro = micro_kernel((*terms[:-1], raw), kinds, replace(how, lanes=False))
    if micro is None:
        return None
    part = Operand(wanted, 1)
    first = Step(micro, used, (*outputs[:-1], part), FULL, True, True, indexed)
    if lanes.split and units < CHUNK * CHUNK:
        return [first]
    combine = Term(total.name, wanted, (Term("input", wanted, value=0),))
    last = combine if lanes.split else combined(terms[-1], total, wanted)
    rest = _folds(combine, last, part, units, outputs[-1], How(dim, not lanes.split))
    return rest and [first, *rest]


def _folds(combine: Term, last: Term, part: Operand, units: int, out: Operand,
           how: How) -> list[Step] | None:  # fmt: skip
    """Steps that combine what chunks left, until one unit of each row is left."""
    unit, made = [(BODY, False)], list[Step]()
    while units_of(part.level, units) > CHUNK:
        above = Operand(part.dtype, part.level + 1)
        micro = micro_kernel((combine,), unit, replace(how, lanes=False))
        assert micro is not None, f"{combine} is one operation"
        made.append(Step(micro, (part,), (above,), part.level, True, True))
        part = above
    micro = micro_kernel((last,), unit, how)
    return micro and [*made, Step(micro, (part,), (out,), part.level, False, True)]  # type: ignore[return-value]


def combined(term: Term, total: Term, wanted: np.dtype) -> Term:
    """The term with its reduction taken over what chunks left."""
    made: dict[int, Term] = {}
    for t in term.nodes():
        if t is total:
            made[id(t)] = Term(t.name, t.dtype, (Term("input", wanted, value=0),), t.params)
        elif all(id(a) in made for a in t.args) and t.name != "input":
            args = tuple(made[id(a)] for a in t.args)
            made[id(t)] = Term(t.name, t.dtype, args, t.params, t.value)
    return made[id(term)]
