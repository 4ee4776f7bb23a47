"""Element-wise equations that STORE's epilogue cannot take: terms that grow into VECTOR's kernels.

A `Lane` is a value of one shape whose term is not computed yet. An equation joins the terms of its
operands while VECTOR has words, registers and load streams for them, else operands are written to
DRAM first. Contractions are not in the same kernel: their results are read from DRAM.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.core import Eqn
from tilewright.compiler.kernels import View
from tilewright.compiler.terms import Term
from tilewright.compiler.vector_code import micro_kernel
from tilewright.compiler.vector_lower import BODY
from tilewright.isa.config import ChipConfig

SHARED = 24  # operations of a term that is computed again where it is used, rather than stored


@dataclass(frozen=True)
class Lane:
    """A term whose inputs are views of one shape (or of one element), not computed yet."""

    shape: tuple[int, ...]
    term: Term
    eqns: tuple[int, ...]

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


def joined(eqn: Eqn, number: int, args: list[Term], eqns: set[int]) -> Lane:
    """An equation of terms."""
    out = eqn.outputs[0].aval
    term = Term(eqn.primitive.name, out.dtype, tuple(args), eqn.params)
    return Lane(out.shape, term, (*sorted(eqns - {number}), number))


def converted(lane: Lane, dtype: np.dtype) -> Lane:
    """A float32 lane rounded to bfloat16, as a contraction loads it."""
    term = Term("convert_element_type", dtype, (lane.term,), core.Params(new_dtype=dtype))
    return Lane(lane.shape, term, lane.eqns)


def operations(term: Term) -> int:
    """Equations of a term."""
    return sum(1 for t in term.nodes() if t.args)


def fits(lane: Lane, config: ChipConfig) -> bool:
    """Whether one micro-kernel can compute it, however its inputs turn out to be broadcast."""
    views = lane.term.inputs()
    if len(views) > 3:
        return False
    term = lane.term.replaced(views.index)
    kernel = micro_kernel(term, [BODY] * len(views))
    return kernel is not None and rows_of(config, len(kernel.words)) <= config.acc_rows // 4


def rows_of(config: ChipConfig, words: int) -> int:
    """Accumulator rows that a micro-kernel takes."""
    return -(-2 * words // config.dim)


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
