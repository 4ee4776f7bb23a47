"""The chip's DRAM as a pool: large blocks from below, small ones from above, free neighbours merge.

A large block takes the smallest piece that fits, so that large pieces stay; small ones, which often
live long, are kept out of its way. The pool begins small and doubles while it has no piece that
fits, up to its limit, so that the addresses in use stay low.

A `Block` goes back to the pool when nobody refers to it. The garbage collector may say so in any
thread at any moment, so it only queues the block; the next allocation takes it back. That is safe,
because the device runs its work in order: what reuses the bytes was submitted later.
"""

from __future__ import annotations

import gc
import threading
from bisect import insort
from collections import Counter, deque

ALIGN = 64  # bytes; programs expect it of every array
HOLDERS = 5  # named in an error
SMALL = 1 << 18  # bytes; in a small pool its 256th part
FIRST = 1 << 22  # bytes of the pool at first


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
    """Allocator of the bytes 0 <= address < limit.

    Parameters
    ----------
    size : bytes of DRAM.
    fraction : of it that may be used.
    preallocate : whether the pool has all of that from the start.
    """

    def __init__(self, size: int, fraction: float = 1.0, preallocate: bool = False):
        if size < ALIGN or size > 1 << 32:
            raise ValueError(f"dram_bytes must be in {ALIGN} to {1 << 32}, not {size!r}")
        self.size = size
        self.limit = max(ALIGN, int(size * fraction) // ALIGN * ALIGN)
        self.end = self.limit if preallocate else min(FIRST, self.limit)
        self.small = min(SMALL, self.limit // 256)
        self._free: list[tuple[int, int]] = [(0, self.end)]  # (address, bytes), ascending
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
        for forgotten in (False, True):
            if forgotten:  # what only cycles of Python objects refer to
                gc.collect()
            with self._lock:
                self._collect()
                address = self._place(size)
                if address is not None:
                    self._held[address] = (size, label)
                    self.peak = max(self.peak, address + size)
                    self._count += 1
                    self._used += size
                    self._most = max(self._most, self._used)
                    self._largest = max(self._largest, size)
                    return Block(self, address, nbytes, label)
                message = self._explain(nbytes, label)
        raise OutOfMemoryError(message)

    def _place(self, size: int) -> int | None:
        """Where so many bytes are free, which are taken; the pool grows if it must and can."""
        while True:
            fits = [i for i, (_, free) in enumerate(self._free) if free >= size]
            if fits:
                break
            if self._largest_free() < size:
                return None
            end = min(self.limit, 2 * self.end)
            self._give(self.end, end - self.end)
            self.end = end
        if size <= self.small:
            at = fits[-1]
            address, free = self._free[at]
            left, found = (address, free - size), address + free - size
        else:
            at = min(fits, key=lambda i: self._free[i][1])
            address, free = self._free[at]
            left, found = (address + size, free - size), address
        self._free[at : at + 1] = [left] if free > size else []
        return found

    def _collect(self) -> None:
        while self._returned:
            address = self._returned.popleft()
            size, _ = self._held.pop(address)
            self._used -= size
            self._give(address, size)

    def _give(self, address: int, size: int) -> None:
        """Free bytes, joined with the next piece, then with the one before."""
        insort(self._free, (address, size))
        at = self._free.index((address, size))
        for i in (at, at - 1):
            if 0 <= i < len(self._free) - 1:
                (a, n), (b, m) = self._free[i : i + 2]
                if a + n == b:
                    self._free[i : i + 2] = [(a, n + m)]

    def _largest_free(self) -> int:
        """Bytes of the largest block that there is room for, if the pool grows as far as it can."""
        address, last = self._free[-1] if self._free else (0, 0)
        rest = self.limit - self.end + (last if address + last == self.end else 0)
        return max(rest, max((n for _, n in self._free), default=0))

    def _explain(self, nbytes: int, label: str) -> str:
        held: Counter[str] = Counter()
        for size, who in self._held.values():
            held[who or "unknown"] += size
        holders = "; ".join(f"{n} bytes by {who}" for who, n in held.most_common(HOLDERS))
        place = f" for {label}" if label else ""
        return (
            f"the chip's DRAM must have {nbytes} contiguous bytes{place}, but only "
            f"{self.limit - self._used} of {self.limit} are free (the largest piece: "
            f"{self._largest_free()}); held: {holders or 'nothing'}"
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
                "bytes_limit": self.limit,
                "bytes_reserved": 0,
                "peak_bytes_reserved": 0,
                "bytes_reservable_limit": self.limit,
                "largest_free_block_bytes": self._largest_free(),
                "pool_bytes": self.end,
                "peak_pool_bytes": self.end,
            }

    @property
    def free_bytes(self) -> int:
        """Bytes that are not allocated."""
        return self.limit - self.used_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes that are allocated."""
        with self._lock:
            self._collect()
            return self._used
