"""The chip's DRAM: 4 GiB of bytes, of which only what is touched costs anything.

The low part, which programs use, is one dense array that grows; everything above is a dictionary of
pages. Strided gathers and scatters on the dense part are one NumPy assignment without a Python loop
over rows; untouched memory reads as zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

ADDRESS_SPACE = 1 << 32
DENSE_LIMIT = 1 << 28  # bytes; above it memory is paged
PAGE = 1 << 16  # bytes


class AddressError(ValueError):
    """An access that leaves the 32-bit address space; the message names its first and last byte."""


def bounds(
    address: int, counts: Sequence[int], strides: Sequence[int], run: int
) -> tuple[int, int]:
    """First byte and one beyond the last byte of a strided access."""
    reach = [(n - 1) * s for n, s in zip(counts, strides, strict=True)]
    low = address + sum(r for r in reach if r < 0)
    return low, address + sum(r for r in reach if r > 0) + run


def disjoint(counts: Sequence[int], strides: Sequence[int], run: int) -> bool:
    """Whether no byte is named twice; False if that is not obvious from nested strides."""
    span = run
    for stride, count in sorted((abs(s), n) for n, s in zip(counts, strides, strict=True) if n > 1):
        if stride < span:
            return False
        span += (count - 1) * stride
    return True


def check_space(low: int, end: int) -> None:
    """Check that bytes `low` up to, but not including, `end` are in the address space.

    Raises
    ------
    AddressError
    """
    if low < 0 or end > ADDRESS_SPACE:
        raise AddressError(
            f"DRAM access must stay in 0x0 to {ADDRESS_SPACE - 1:#x}, not {low:#x} to {end - 1:#x}"
        )


class Runs:
    """A strided access, planned and checked once: runs of bytes, outermost dimension first.

    Parameters
    ----------
    address : of the first run's first byte.
    counts, strides : runs and bytes between them in each dimension.
    run : bytes of one run.

    Raises
    ------
    AddressError
        The access leaves the address space.
    """

    __slots__ = ("address", "apart", "counts", "end", "low", "run", "shape", "steps", "strides")

    def __init__(self, address: int, counts: Sequence[int], strides: Sequence[int], run: int):
        self.address, self.run = address, run
        self.counts, self.strides = tuple(counts), tuple(strides)
        self.shape, self.steps = (*self.counts, run), (*self.strides, 1)
        self.low, self.end = bounds(address, counts, strides, run)
        self.apart = disjoint(counts, strides, run)  # no byte is named twice
        check_space(self.low, self.end)

    def starts(self) -> list[int]:
        """First byte of each run, in order."""
        at = np.array([self.address], np.int64)
        for n, s in zip(self.counts, self.strides, strict=True):
            at = (at[:, None] + np.arange(n, dtype=np.int64) * s).reshape(-1)
        return at.tolist()


class Memory:
    """Byte-addressed memory.

    Parameters
    ----------
    size : bytes that are expected to be used, from address 0; a hint, not a limit.
    """

    def __init__(self, size: int = 0):
        self._dense = np.zeros(self._capacity(min(size, DENSE_LIMIT)), np.uint8)
        self._pages: dict[int, np.ndarray] = {}

    @staticmethod
    def _capacity(size: int) -> int:
        return max(PAGE, 1 << max(size - 1, 0).bit_length())

    def _reach(self, end: int) -> None:
        if end > self._dense.size:
            grown = np.zeros(self._capacity(end), np.uint8)
            grown[: self._dense.size] = self._dense
            self._dense = grown

    def _pieces(self, address: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(page base, offset in page, bytes) of a range, page by page."""
        while count:
            offset = address % PAGE
            step = min(count, PAGE - offset)
            yield address - offset, offset, step
            address, count = address + step, count - step

    def read(self, address: int, count: int) -> np.ndarray:
        """(count,) uint8, a copy."""
        end = address + count
        check_space(address, end)
        if end <= DENSE_LIMIT:
            self._reach(end)
            return self._dense[address:end].copy()
        out = np.zeros(count, np.uint8)
        at = 0
        for base, offset, step in self._pieces(address, count):
            if base < DENSE_LIMIT:
                out[at : at + step] = self.read(base + offset, step)
            elif base in self._pages:
                out[at : at + step] = self._pages[base][offset : offset + step]
            at += step
        return out

    def write(self, address: int, data: bytes | np.ndarray) -> None:
        """Put bytes (or any contiguous array's bytes) at `address`."""
        raw = np.frombuffer(data, np.uint8) if isinstance(data, bytes | bytearray) else data
        if not isinstance(raw, np.ndarray) or raw.dtype != np.uint8 or raw.ndim != 1:
            raw = np.ascontiguousarray(raw).reshape(-1).view(np.uint8)
        end = address + raw.size
        check_space(address, end)
        if end <= DENSE_LIMIT:
            self._reach(end)
            self._dense[address:end] = raw
            return
        at = 0
        for base, offset, step in self._pieces(address, raw.size):
            if base < DENSE_LIMIT:
                self.write(base + offset, raw[at : at + step])
            else:
                page = self._pages.setdefault(base, np.zeros(PAGE, np.uint8))
                page[offset : offset + step] = raw[at : at + step]
            at += step

    def gather(
        self, address: int, counts: Sequence[int], strides: Sequence[int], run: int
    ) -> np.ndarray:
        """(*counts, run) uint8: runs of `run` bytes, `strides` bytes apart, outermost first.

        A read-only view where that is possible: use it before the next write.
        """
        return self.read_runs(Runs(address, counts, strides, run))

    def read_runs(self, runs: Runs) -> np.ndarray:
        """`gather` of a planned access."""
        if runs.end <= DENSE_LIMIT:
            self._reach(runs.end)
            view = np.ndarray(runs.shape, np.uint8, self._dense, runs.address, runs.steps)
            view.flags.writeable = False
            return view
        rows = [self.read(a, runs.run) for a in runs.starts()]
        return np.stack(rows).reshape(runs.shape)

    def scatter(
        self, address: int, counts: Sequence[int], strides: Sequence[int], data: np.ndarray
    ) -> None:
        """Write (*counts, run) uint8 in order: where runs overlap, the later one wins."""
        self.write_runs(Runs(address, counts, strides, data.shape[-1]), data)

    def write_runs(self, runs: Runs, data: np.ndarray) -> None:
        """`scatter` to a planned access."""
        if runs.apart and runs.end <= DENSE_LIMIT:
            self._reach(runs.end)
            np.ndarray(runs.shape, np.uint8, self._dense, runs.address, runs.steps)[...] = data
            return
        for at, row in zip(runs.starts(), data.reshape(-1, runs.run), strict=True):
            self.write(at, row)

    def chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(address, bytes) of all that may be non-zero, ascending; views, to be copied out."""
        used = np.flatnonzero(self._dense.reshape(-1, PAGE).any(axis=1)) * PAGE
        for base in used.tolist():
            yield base, self._dense[base : base + PAGE]
        for base in sorted(self._pages):
            yield base, self._pages[base]

    def snapshot(self) -> Memory:
        """An independent copy."""
        other = Memory()
        other._dense = self._dense.copy()
        other._pages = {base: page.copy() for base, page in self._pages.items()}
        return other

    def compare(self, other: Memory) -> int | None:
        """The first address whose bytes differ, or None."""
        mine, theirs = dict(self.chunks()), dict(other.chunks())
        for base in sorted(mine.keys() | theirs.keys()):
            a, b = (side.get(base, np.uint8(0)) for side in (mine, theirs))
            differ = np.flatnonzero(a != b)
            if differ.size:
                return base + int(differ[0])
        return None
