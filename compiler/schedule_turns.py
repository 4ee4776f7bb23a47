"""Operands whose columns are contiguous: the runs into which they are cut for LOAD's transposer.

Long runs fetch few beats twice where the columns are not aligned, but the last block of a LOAD has
as many units to write as its runs have elements, and while they are written no beat comes. So many
columns are best cut into long runs, few columns into short ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from tilewright.compiler.bus_slots import row_beats
from tilewright.compiler.schedule import Operand
from tilewright.isa.config import XPOSE_BLOCKS, ChipConfig
from tilewright.isa.timing import load_drain

Cut = tuple[tuple[int, int], ...]  # for each LOAD: elements of a run, runs of a column


def _cuts(dim: int, rows: int) -> Iterator[Cut]:
    """What may be best for columns of `rows` elements; the longest runs first."""
    for blocks in range(XPOSE_BLOCKS, 0, -1):
        if rows > (blocks - 1) * dim:
            run = min(blocks * dim, rows)
            whole = ((run, rows // run),)
            yield (*whole, (rows % run, 1)) if rows % run else whole


def _slots(config: ChipConfig, o: Operand, cut: Cut, cols: Any) -> Any:
    """LOAD's slots for so many columns (an integer or an array)."""
    total = 0
    for run, count in cut:
        beats = cols * row_beats(config, run * o.size, o.pitch, o.first)
        zeros = -cols % config.dim * -(-run // config.dim)
        total = total + count * (beats + zeros) + load_drain(run)
    return total


@cache
def turn(config: ChipConfig, o: Operand, rows: int, cols: int) -> tuple[float, Cut]:
    """LOAD's slots for a rows x cols operand whose columns are contiguous, and its best cut."""
    found = [(_slots(config, o, cut, cols), cut) for cut in _cuts(config.dim, rows)]
    return min(found, key=lambda x: x[0])


def turned_slots(config: ChipConfig, o: Operand, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """The slots of `turn`, for arrays of rows and columns."""
    out = np.empty(rows.shape)
    for n in np.unique(rows).tolist():
        at = rows == n
        out[at] = np.min([_slots(config, o, cut, cols[at]) for cut in _cuts(config.dim, n)], axis=0)
    return out
