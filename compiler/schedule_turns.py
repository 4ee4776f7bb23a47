"""Operands in runs: columns that are contiguous are cut into some for LOAD's transposer.

Long runs fetch few beats twice where the columns are not aligned, but the last block of a LOAD has
as many units to write as its runs have elements, and while they are written no beat comes but those
of another transposing LOAD. So many columns are best cut into long runs, few into short ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from tilewright.compiler.bus_slots import beats, row_beats
from tilewright.compiler.schedule import Operand
from tilewright.isa.config import XPOSE_BLOCKS, ChipConfig
from tilewright.isa.timing import load_drain

Cut = tuple[tuple[int, int], ...]  # for each LOAD: elements of a run, runs of a column
HIDDEN = 0.75  # of a drain, about: unknown is which LOAD comes next


def _cuts(dim: int, rows: int) -> Iterator[Cut]:
    """What may be best for columns of `rows` elements; the longest runs first."""
    for blocks in range(XPOSE_BLOCKS, 0, -1):
        if rows > (blocks - 1) * dim:
            run = min(blocks * dim, rows)
            whole = ((run, rows // run),)
            yield (*whole, (rows % run, 1)) if rows % run else whole


def _slots(config: ChipConfig, o: Operand, cut: Cut, cols: Any) -> Any:
    """LOAD's slots for so many columns (an integer or an array), and waits between its LOADs."""
    total, drain = 0.0, 0
    for run, count in cut:
        beats = cols * row_beats(config, run * o.size, o.pitch, o.first)
        zeros = -cols % config.dim * -(-run // config.dim)
        total = total + max(0, drain - hidden(config, run)) + count * (beats + zeros)
        drain = load_drain(run)
    return total


def hidden(config: ChipConfig, run: int) -> int:
    """Cycles of a drain that a LOAD of such runs, which comes next, needs not wait for."""
    return -(-run // config.dim) * config.dim


def _price(config: ChipConfig, o: Operand, cut: Cut, cols: Any) -> Any:
    """Slots, and about so much of the last drain as is waited for."""
    return _slots(config, o, cut, cols) + (1 - HIDDEN) * load_drain(cut[-1][0])


@dataclass(frozen=True)
class Turn:
    """The LOADs of an operand.

    Parameters
    ----------
    cut : elements of a run and runs of a column, for each.
    slots : with waits between them.
    drain : cycles after the last one in which its last units are written.
    hidden : cycles of the drain of what comes before that the first one needs not wait for.
    """

    cut: Cut
    slots: float
    drain: int = 0
    hidden: int = 0


def _whole_runs(o: Operand, rows: Any) -> tuple[Any, Any]:
    """(How many runs of patches' taps rows are, about; how many are left)."""
    return rows // o.taps[0], rows % o.taps[0]


@cache
def turn(config: ChipConfig, o: Operand, rows: int, cols: int) -> Turn:
    """The best LOADs of a rows x cols operand whose columns are contiguous, or are runs."""
    if o.taps and rows > o.taps[0]:
        count, rest = _whole_runs(o, rows)
        each = turn(config, o, o.taps[0], cols)
        if not rest:
            return replace(each, cut=(), slots=count * each.slots)
        last = turn(config, o, rest, cols)
        return Turn((), count * each.slots + last.slots, last.drain, each.hidden)
    cut = min(_cuts(config.dim, rows), key=lambda c: _price(config, o, c, cols))
    slots = _slots(config, o, cut, cols)
    return Turn(cut, slots, load_drain(cut[-1][0]), hidden(config, cut[0][0]))


def turned_slots(config: ChipConfig, o: Operand, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """The price of `turn`, for arrays of rows and columns."""
    if o.taps and rows.max() > o.taps[0]:
        count, rest = _whole_runs(o, rows)
        each = turned_slots(config, o, np.full_like(rows, o.taps[0]), cols)
        last = turned_slots(config, o, np.maximum(rest, 1), cols)
        return count * each + np.where(rest, last, 0)
    out = np.empty(rows.shape)
    for n in np.unique(rows).tolist():
        at = rows == n
        out[at] = np.min([_price(config, o, cut, cols[at]) for cut in _cuts(config.dim, n)], axis=0)
    return out


def packed_slots(config: ChipConfig, o: Operand, cols: np.ndarray) -> np.ndarray:
    """Slots of LOAD for a row of `cols` elements of patches, which are packed out of runs."""
    run = np.minimum(cols, o.taps[0])
    each = beats(config, run * o.size, o.pitch, o.first)
    return np.maximum(each * cols / run, -(-cols // config.dim))
