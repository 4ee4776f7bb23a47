"""Equations that STORE's epilogue cannot take: terms that grow into VECTOR's kernels.

A `Lane` is a value whose term is not computed yet. An equation joins the terms of its operands,
also behind reductions of the last dimensions and their broadcasts, until there are too many
operands or operations for a kernel; then operands are written to DRAM first. `fuse_group` cuts
terms into stages. Contractions are not in the same kernel: their results are read from DRAM.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import prod

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.fuse_group import has_room
from tilewright.compiler.kernels import View
from tilewright.compiler.terms import Term
from tilewright.compiler.vector_code import micro_kernel
from tilewright.compiler.vector_lower import BODY
from tilewright.compiler.vector_reduce import REDUCTIONS, How
from tilewright.isa.config import ChipConfig

MOST_VIEWS = 8  # of a kernel
MOST_OPERATIONS = 64
SHARED = 24  # operations of a term that is computed again where it is used, rather than stored


@dataclass(frozen=True)
class Lane:
    """A term whose inputs are views of one shape (or of one element), not computed yet.

    Parameters
    ----------
    shape : of the value.
    given : `space`, where it is not `shape`.
    cut : how many dimensions of `space` are rows; the others are those that are reduced. None: the
        term has no reduction.
    row : whether the value has one element for each row.
    """

    shape: tuple[int, ...]
    term: Term
    eqns: tuple[int, ...]
    given: tuple[int, ...] | None = None
    cut: int | None = None
    row: bool = False

    @property
    def space(self) -> tuple[int, ...]:
        """The shape of the term's views."""
        return self.shape if self.given is None else self.given

    @property
    def dtype(self) -> np.dtype:
        """Of its elements."""
        return self.term.dtype


def constant(value: np.generic, dtype: np.dtype) -> Term:
    """A number."""
    return Term("const", dtype, value=value)


def stored(view: View) -> Term:
    """A view that is in DRAM."""
    return Term("input", view.dtype, value=view)


def converted(lane: Lane, dtype: np.dtype) -> Lane:
    """A float32 lane rounded to bfloat16, as a contraction loads it."""
    term = Term("convert_element_type", dtype, (lane.term,), core.Params(new_dtype=dtype))
    return replace(lane, term=term)


def operations(term: Term) -> int:
    """Equations of a term; a reduction is many."""
    return sum(SHARED + 1 if t.name in REDUCTIONS else 1 for t in term.nodes() if t.args)


def fits(lane: Lane) -> bool:
    """Whether it may be one kernel; what it is made of has been found to be possible."""
    nodes = list(lane.term.nodes())
    views = {t.value for t in nodes if t.name == "input"}
    return len(views) <= MOST_VIEWS and sum(1 for t in nodes if t.args) <= MOST_OPERATIONS


@cache
def alone(config: ChipConfig, name: str, dtype: np.dtype, operands: tuple[np.dtype, ...],
          params: core.Params) -> bool:  # fmt: skip
    """Whether the chip has room for a micro-kernel of one equation."""
    args = tuple(Term("input", d, value=i) for i, d in enumerate(operands))
    term = Term(name, dtype, args, params)
    kernel = micro_kernel((term,), [(BODY, False)] * len(args), How(config.dim))
    return kernel is not None and has_room(config, len(kernel.words))


def as_rows(view: View, lane: Lane) -> View | None:
    """A view of one element for each row of a lane, as a view of its space; None: needs a copy."""
    assert lane.cut is not None
    if not view.shape:
        return view
    found = view.reshape(lane.space[: lane.cut])
    return None if found is None else found.broadcast(lane.space, tuple(range(lane.cut)))


def flat(view: View, shape: tuple[int, ...]) -> View | None:
    """The view in another shape, as (rows, columns), or None if that needs a copy."""
    if prod(view.shape) == 1 or not any(s for n, s in zip(view.shape, view.strides, strict=True)
                                        if n > 1):  # fmt: skip
        return View(view.buffer, shape, (0,) * len(shape), view.offset)
    found = view.reshape(shape)
    return None if found is None else View(found.buffer, shape, found.strides, found.offset)


def arranged(views: list[View], shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) as which an array of a shape is computed.

    One long row if all views are dense or one element; else the cut for which the fewest views must
    be copied, of those the one with the longest rows.
    """
    total = prod(shape)
    best: tuple[tuple[int, int], tuple[int, int]] | None = None
    for cut in range(len(shape) + 1):
        rows = prod(shape[:cut])
        pair = (rows, total // rows)
        found = [flat(v, pair) for v in views]
        copies = sum(v is None or v.strides[1] not in (0, 1) for v in found)
        if best is None or (copies, cut) < best[0]:
            best = (copies, cut), pair
    assert best is not None
    return best[1]
