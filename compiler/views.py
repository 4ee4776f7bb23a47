"""Buffers in DRAM, and views of them (shape, strides, offset): moving data costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from tilewright.compiler.core import SHORT_NAMES


@dataclass(frozen=True, eq=False)
class Buffer:
    """A dense row-major array in DRAM, equal only to itself.

    Parameters
    ----------
    kind : "input", "const", "temp" or "output".
    index : position among its kind.
    value : the array of a const, else None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    kind: str
    index: int = 0
    value: object = None

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.name}:{SHORT_NAMES[self.dtype]}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class View:
    """Elements of a buffer: ``offset + sum(i_d * strides[d])``, in elements."""

    buffer: Buffer
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @staticmethod
    def whole(buffer: Buffer) -> View:
        """The buffer itself."""
        return View(buffer, buffer.shape, dense_strides(buffer.shape))

    @property
    def dtype(self) -> np.dtype:
        return self.buffer.dtype

    @property
    def is_dense(self) -> bool:
        """Whether it is the whole buffer in row-major order."""
        return (
            self.offset == 0
            and prod(self.shape) == prod(self.buffer.shape)
            and all(
                n == 1 or s == d
                for n, s, d in zip(self.shape, self.strides, dense_strides(self.shape), strict=True)
            )
        )

    def transpose(self, permutation: tuple[int, ...]) -> View:
        """Permute dimensions."""
        shape = tuple(self.shape[p] for p in permutation)
        return View(self.buffer, shape, tuple(self.strides[p] for p in permutation), self.offset)

    def slice(self, start: tuple[int, ...], limit: tuple[int, ...], step: tuple[int, ...]) -> View:
        """Of each dimension, the elements start, start + step and so on below limit."""
        shape = tuple(-(-(b - a) // s) for a, b, s in zip(start, limit, step, strict=True))
        strides = tuple(x * s for x, s in zip(self.strides, step, strict=True))
        offset = self.offset + sum(a * x for a, x in zip(start, self.strides, strict=True))
        return View(self.buffer, shape, strides, offset)

    def part(self, number: int) -> View:
        """One element of the first dimension."""
        offset = self.offset + number * self.strides[0]
        return View(self.buffer, self.shape[1:], self.strides[1:], offset)

    def reverse(self, dims: tuple[int, ...]) -> View:
        """The last element of these dimensions first."""
        strides = tuple(-s if d in dims else s for d, s in enumerate(self.strides))
        offset = self.offset + sum((self.shape[d] - 1) * self.strides[d] for d in dims)
        return View(self.buffer, self.shape, strides, offset)

    def grouped(self, dim: int, count: int) -> View:
        """A new first dimension: the `count` equal parts of `dim`, one after another."""
        part = self.shape[dim] // count
        shape = (count, *self.shape[:dim], part, *self.shape[dim + 1 :])
        return View(self.buffer, shape, (part * self.strides[dim], *self.strides), self.offset)

    def broadcast(self, shape: tuple[int, ...], dims: tuple[int, ...]) -> View:
        """Repeat along new dimensions and dimensions of size 1; `dims` as in broadcast_in_dim."""
        strides = [0] * len(shape)
        for d, n, s in zip(dims, self.shape, self.strides, strict=True):
            strides[d] = s if n == shape[d] else 0
        return View(self.buffer, tuple(shape), tuple(strides), self.offset)

    def reshape(self, shape: tuple[int, ...]) -> View | None:
        """The same elements in row-major order in another shape, or None if that needs a copy."""
        if prod(shape) == 0:
            return View(self.buffer, tuple(shape), dense_strides(shape), self.offset)
        groups = collapse(self.shape, self.strides)
        strides: list[int] = []
        at = len(groups) - 1
        left, stride = groups[at] if groups else (1, 0)
        for n in reversed(shape):
            if n == 1:
                strides.append(0)
                continue
            while left == 1 and at > 0:
                at -= 1
                left, stride = groups[at]
            if left % n:
                return None
            strides.append(stride)
            stride *= n
            left //= n
        return View(self.buffer, tuple(shape), tuple(reversed(strides)), self.offset)

    def __str__(self) -> str:
        if self.is_dense and self.shape == self.buffer.shape:
            return self.buffer.name
        offset = f"+{self.offset}" if self.offset else ""
        pairs = ",".join(f"{n}:{s}" for n, s in zip(self.shape, self.strides, strict=True))
        return f"{self.buffer.name}{offset}[{pairs}]"


def dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def collapse(shape: tuple[int, ...], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """(size, stride) with dimensions merged where one step outside equals a run inside."""
    out: list[tuple[int, int]] = []
    for n, s in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if out and out[-1][1] == n * s:
            out[-1] = (out[-1][0] * n, s)
        else:
            out.append((n, s))
    return out
