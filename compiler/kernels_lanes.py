"""What a kernel on VECTOR computes: terms in stages over rows, and reductions over rows."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.compiler.terms import Term
from tilewright.compiler.views import View


@dataclass(frozen=True)
class Stage:
    """What one pass of VECTOR over a tile computes: one or two terms.

    Inputs of terms are numbers of views, then of earlier stages' terms, in their order.
    `wide`: it runs over all columns, else over one value for each row.
    """

    terms: tuple[Term, ...]
    wide: bool = True


@dataclass(frozen=True)
class Lanes:
    """Terms of views (R, C); a stride of 0 repeats an element or a row.

    A term with a reduction has one value for each row. What stages leave for later ones stays on
    the chip. With `split` rows are reduced in pieces of so many units of `dim`, and a piece's
    result is one unit, or one for each chunk if they are fewer than CHUNK: lanes are not combined.

    Parameters
    ----------
    outs : numbers of the terms that are written to `Kernel.outs`.
    codes : the words of all micro-kernels (`lane_steps`).
    """

    shape: tuple[int, int]
    views: tuple[View, ...]
    stages: tuple[Stage, ...]
    outs: tuple[int, ...]
    split: int = 0
    codes: tuple[View, ...] = ()

    def __str__(self) -> str:
        names = [str(v) for v in self.views]
        shown = []
        for t in (t for stage in self.stages for t in stage.terms):
            shown.append(t.text(names))
            names.append(f"r{len(shown) - 1}")
        if len(shown) > 1:
            shown = [f"r{i} = {text}" for i, text in enumerate(shown)]
            shown.append(", ".join(names[n] for n in self.outs))
        pieces = f" in pieces of {self.split} units" if self.split else ""
        return f"vector({'; '.join(shown)}{pieces})"


@dataclass(frozen=True)
class Down:
    """A reduction of a term of views (P, R, C) over R, where lanes are elements of C.

    With `split` a result is (P, pieces of so many rows, C), else (P, C).
    """

    views: tuple[View, ...]
    term: Term  # a reduction; its inputs are numbers of views
    split: int = 0
    codes: tuple[View, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """(P, R, C)."""
        return self.views[0].shape

    def __str__(self) -> str:
        pieces = f" in pieces of {self.split} rows" if self.split else ""
        return f"down({self.term.text([str(v) for v in self.views])}{pieces})"
