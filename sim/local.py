"""The two local memories as strided NumPy views, and the writing of rows in units; both planned.

A local row is `units` units, each `dim` elements (scratchpad: one granule, or an aligned pair;
accumulator: one row of words); the last unit of a row is filled with zeros. A plan holds whatever
follows from an instruction's fields, so that running it again costs little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tilewright.sim.memory import disjoint


class View:
    """(*counts, width) elements of `dtype`; base and strides in rows of `row` bytes."""

    __slots__ = ("dtype", "offset", "shape", "steps")

    def __init__(
        self,
        dtype: Any,
        base: int,
        counts: Sequence[int],
        strides: Sequence[int],
        row: int,
        width: int,
    ):
        self.dtype = np.dtype(dtype)
        self.shape, self.offset = (*counts, width), base * row
        pairs = zip(counts, strides, strict=True)
        self.steps = (*(s * row if n > 1 else 0 for n, s in pairs), self.dtype.itemsize)

    def of(self, buffer: np.ndarray) -> np.ndarray:
        """The view into `buffer`, the local memory's bytes."""
        return np.ndarray(self.shape, self.dtype, buffer, self.offset, self.steps)


class RowWriter:
    """Writes rows of bytes in units, outermost dimension first; a later unit wins.

    Parameters
    ----------
    base, strides, unit_stride : in rows of `row` bytes; `unit_stride` between units of one row.
    length : bytes of each row's data.
    """

    def __init__(
        self,
        base: int,
        counts: Sequence[int],
        strides: Sequence[int],
        unit_stride: int,
        row: int,
        unit_bytes: int,
        length: int,
    ):
        units = -(-length // unit_bytes)
        self.base, self.row, self.unit_bytes, self.length = base, row, unit_bytes, length
        self.counts, self.shape = tuple(counts), (*counts, units)
        self.strides = (*strides, unit_stride)
        self.apart = disjoint(self.shape, [s * row for s in self.strides], unit_bytes)
        self.view = View(np.uint8, base, self.shape, self.strides, row, unit_bytes)

    def write(self, buffer: np.ndarray, data: np.ndarray) -> None:
        """Write (*counts, length) uint8 to `buffer`, the local memory's bytes."""
        full, tail = divmod(self.length, self.unit_bytes)
        if not self.apart:
            self._write_in_order(buffer, data)
            return
        out = self.view.of(buffer)
        if not tail:
            out[...] = data.reshape(out.shape)
            return
        whole = data[..., : full * self.unit_bytes]
        out[..., :full, :] = whole.reshape(*self.counts, full, self.unit_bytes)
        out[..., full, :tail] = data[..., full * self.unit_bytes :]
        out[..., full, tail:] = 0

    def _write_in_order(self, buffer: np.ndarray, data: np.ndarray) -> None:
        size = self.unit_bytes
        padded = np.zeros((*self.counts, self.shape[-1] * size), np.uint8)
        padded[..., : self.length] = data
        at = np.array([self.base], np.int64)
        for n, s in zip(self.shape, self.strides, strict=True):
            at = (at[:, None] + np.arange(n, dtype=np.int64) * s).reshape(-1)
        for start, unit in zip((at * self.row).tolist(), padded.reshape(-1, size), strict=True):
            buffer[start : start + size] = unit
