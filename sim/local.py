"""The two local memories as strided NumPy views, and the writing of rows in units.

A local row is `units` units, each `dim` elements (scratchpad: one granule, or an aligned pair;
accumulator: one row of words); the last unit of a row is filled with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tilewright.sim.memory import disjoint


def view(
    buffer: np.ndarray,
    dtype: type,
    base: int,
    counts: Sequence[int],
    strides: Sequence[int],
    row: int,
    width: int,
) -> np.ndarray:
    """(*counts, width) elements of `dtype`; base and strides in rows of `row` bytes."""
    steps = [s * row if n > 1 else 0 for n, s in zip(counts, strides, strict=True)]
    size = np.dtype(dtype).itemsize
    return np.ndarray((*counts, width), dtype, buffer, base * row, (*steps, size))


def write_rows(
    buffer: np.ndarray,
    base: int,
    counts: Sequence[int],
    strides: Sequence[int],
    unit_stride: int,
    row: int,
    unit_bytes: int,
    data: np.ndarray,
) -> None:
    """Write rows of bytes in units, outermost dimension first; a later unit wins.

    Parameters
    ----------
    buffer : the local memory, uint8.
    base, strides, unit_stride : in rows of `row` bytes; `unit_stride` between units of one row.
    data : (*counts, row bytes) uint8.
    """
    length = data.shape[-1]
    units = -(-length // unit_bytes)
    shape, steps = (*counts, units), (*strides, unit_stride)
    full, tail = divmod(length, unit_bytes)
    if disjoint(shape, [s * row for s in steps], unit_bytes):
        out = view(buffer, np.uint8, base, shape, steps, row, unit_bytes)
        if not tail:
            out[...] = data.reshape(out.shape)
            return
        out[..., :full, :] = data[..., : full * unit_bytes].reshape(*counts, full, unit_bytes)
        out[..., full, :tail] = data[..., full * unit_bytes :]
        out[..., full, tail:] = 0
        return
    padded = np.zeros((*counts, units * unit_bytes), np.uint8)
    padded[..., :length] = data
    at = np.array([base], np.int64)
    for n, s in zip(shape, steps, strict=True):
        at = (at[:, None] + np.arange(n, dtype=np.int64) * s).reshape(-1)
    for start, unit in zip((at * row).tolist(), padded.reshape(-1, unit_bytes), strict=True):
        buffer[start : start + unit_bytes] = unit
