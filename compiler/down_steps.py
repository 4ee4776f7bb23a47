"""Steps of a `Down` kernel: rows one below the other are folded in chunks, chunks in chunks.

A lane is a column. The order of additions is that of `primitives_reduce` for elements in rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tilewright.compiler.kernels import Down, View
from tilewright.compiler.primitives_reduce import CHUNK
from tilewright.compiler.schedule import ceil_div
from tilewright.compiler.terms import Term
from tilewright.compiler.vector_code import MicroKernel, micro_kernel
from tilewright.compiler.vector_lower import BODY, HEAD, Kind
from tilewright.compiler.vector_reduce import How, accumulator


@dataclass(frozen=True, eq=False)
class Source:
    """An array of a tile: a view's part, or (`view` None) what a step leaves.

    Parameters
    ----------
    level : 0: as the views; above: one row for CHUNK of the level below.
    down, across : whether rows, and columns, differ.
    """

    dtype: np.dtype
    level: int = 0
    down: bool = True
    across: bool = True
    view: View | None = None

    def rows(self, rows: int) -> int:
        """Rows of a tile."""
        return ceil_div(rows, CHUNK**self.level) if self.down else 1

    def units(self, heights: int, rows: int, blocks: int) -> int:
        """Units of a tile of so many P, R, and blocks of columns."""
        return heights * self.rows(rows) * (blocks if self.across else 1)

    @property
    def kind(self) -> Kind:
        """How a micro-kernel loads it: for each unit, or before; one element, or all lanes'."""
        return (BODY if self.down else HEAD, not self.across)


@dataclass(frozen=True)
class Fold:
    """One micro-kernel: from sources of a level to the next one, or to the result."""

    micro: MicroKernel
    inputs: tuple[Source, ...]
    output: Source
    chunked: bool
    indexed: bool


def source_of(view: View) -> Source:
    """A view (P, R, C) as a tile has it."""
    (_, rows, cols), (_, down, across) = view.shape, view.strides
    return Source(view.dtype, 0, rows == 1 or down != 0, cols == 1 or across != 0, view)


def folds_of(source: Down, dim: int) -> list[Fold] | None:
    """All steps, the last one's output is the result; None if there is no micro-kernel."""
    inputs = tuple(map(source_of, source.views))
    rows = source.split or source.shape[1]
    total = source.term
    wanted = accumulator(total.args[0].dtype)
    raw = Term(total.name, wanted, total.args)
    combine = Term(total.name, wanted, (Term("input", wanted, value=0),))
    how = How(dim, False, False)
    indexed = any(t.name == "index" for t in total.nodes())
    level, found = 0, []
    while True:
        chunked = ceil_div(rows, CHUNK**level) > CHUNK
        first = raw if level == 0 else combine
        term = first if chunked or source.split else Term(total.name, total.dtype, first.args)
        micro = micro_kernel((term,), [x.kind for x in inputs], how)
        if micro is None:
            return None
        output = Source(term.dtype, level + 1) if chunked else Source(term.dtype, 99)
        found.append(Fold(micro, inputs, output, chunked, indexed and level == 0))
        if not chunked:
            return found
        level, inputs = level + 1, (output,)
