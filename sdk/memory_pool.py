"""The chip's DRAM as a pool: first fit, free neighbours merge.

A `Block` goes back to the pool when nobody refers to it. The garbage collector may say so in any
thread at any moment, so it only queues the block; the next allocation takes it back. That is safe,
because the device runs its work in order: what reuses the bytes was submitted later.
"""

from __future__ import annotations

import threading
from bisect import insort
from collections import Counter, deque

ALIGN = 64  # bytes; programs expect it of every array
HOLDERS = 5  # named in an error


class OutOfMemoryError(MemoryError):
    """The chip's DRAM has no free piece that is large enough; the message says who holds it."""


class Block:
    """`nbytes` bytes of DRAM at `address`, until nobody refers to it.

    `shared` says that several arrays may lie in it, so that it must not be overwritten.
    """

    __slots__ = ("_pool", "address", "label", "nbytes", "shared")

    def __init__(self, pool: MemoryPool, address: int, nbytes: int, label: str):
        self._pool, self.address, self.nbytes, self.label = pool, address, nbytes, label
        self.shared = False

    def __del__(self) -> None:
        self._pool._returned.append(self.address)

    def __repr__(self) -> str:
        return f"Block({self.address:#x}, {self.nbytes} bytes, {self.label})"


class MemoryPool:
    """Allocator of the bytes 0 <= address < size."""

    def __init__(self, size: int):
        if size < ALIGN or size > 1 << 32:
            raise ValueError(f"dram_bytes must be in {ALIGN} to {1 << 32}, not {size!r}")
        self.size = size
        self._free: list[tuple[int, int]] = [(0, size)]  # (address, bytes), ascending
        self._held: dict[int, tuple[int, str]] = {}
        self._returned: deque[int] = deque()
        self._lock = threading.Lock()
        self.peak = 0  # the highest address that was ever in use
        self._count = self._used = self._most = self._largest = 0

    def alloc(self, nbytes: int, label: str = "") -> Block:
        """Return a block; `label` names its user's line.

        **Raises** OutOfMemoryError.
        """
        size = -(-max(nbytes, 1) // ALIGN) * ALIGN
        with self._lock:
            self._collect()
            for i, (address, free) in enumerate(self._free):
                if free >= size:
                    left = [(address + size, free - size)] if free > size else []
                    self._free[i : i + 1] = left
                    self._held[address] = (size, label)
                    self.peak = max(self.peak, address + size)
                    self._count += 1
                    self._used += size
                    self._most = max(self._most, self._used)
                    self._largest = max(self._largest, size)
                    return Block(self, address, nbytes, label)
            message = self._explain(nbytes, label)
        raise OutOfMemoryError(message)

    def _collect(self) -> None:
        while self._returned:
            address = self._returned.popleft()
            size, _ = self._held.pop(address)
            self._used -= size
            insort(self._free, (address, size))
            at = self._free.index((address, size))
            for i in (at, at - 1):  # with the next one, then with the one before
                if 0 <= i < len(self._free) - 1:
                    (a, n), (b, m) = self._free[i : i + 2]
                    if a + n == b:
                        self._free[i : i + 2] = [(a, n + m)]

    def _explain(self, nbytes: int, label: str) -> str:
        free = sum(n for _, n in self._free)
        largest = max((n for _, n in self._free), default=0)
        held: Counter[str] = Counter()
        for size, who in self._held.values():
            held[who or "unknown"] += size
        holders = "; ".join(f"{n} bytes by {who}" for who, n in held.most_common(HOLDERS))
        place = f" for {label}" if label else ""
        return (
            f"the chip's DRAM must have {nbytes} contiguous bytes{place}, but only {free} of "
            f"{self.size} are free (the largest piece: {largest}); held: {holders or 'nothing'}"
        )

    def stats(self) -> dict[str, int]:
        """Figures under the names of PJRT's allocators, sizes in bytes (multiples of ALIGN)."""
        with self._lock:
            self._collect()
            return {
                "num_allocs": self._count,
                "bytes_in_use": self._used,
                "peak_bytes_in_use": self._most,
                "largest_alloc_size": self._largest,
                "bytes_limit": self.size,
                "bytes_reserved": 0,
                "peak_bytes_reserved": 0,
                "bytes_reservable_limit": self.size,
                "largest_free_block_bytes": max((n for _, n in self._free), default=0),
                "pool_bytes": self.size,
                "peak_pool_bytes": self.size,
            }

    @property
    def free_bytes(self) -> int:
        """Bytes that are not allocated."""
        with self._lock:
            self._collect()
            return sum(n for _, n in self._free)

    @property
    def used_bytes(self) -> int:
        """Bytes that are allocated."""
        return self.size - self.free_bytes
