"""Temporaries share DRAM: bytes are used again when nobody reads any more what lies there.

A temporary lives from the first operation that touches it to the last one, in the order of the
program, which the units keep for all that depends on each other. What is touched within a loop and
outside of it lives through all of the loop. The largest temporaries are placed first, each into the
smallest gap between those that live at the same time.

Units run ahead, so the first STORE to a temporary waits for the last LOAD of those whose bytes it
takes (`before`); STOREs are in order by themselves. So does each stretch between fences.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from tilewright.compiler.kernels import Buffer
from tilewright.compiler.tiles import Dram, Op

ALIGN = 64  # bytes
Span = tuple[int, int]  # numbers of the first and of the last operation


@dataclass(frozen=True, eq=False)
class Temps:
    """Where temporaries lie.

    Parameters
    ----------
    whole : the buffer that holds all of them.
    offsets : byte at which each begins in it.
    before : for each those that were in its bytes right before it.
    least : bytes of those that live at the same time, at the worst moment; `whole` has no less.
    """

    whole: Buffer
    offsets: Mapping[Buffer, int] = field(default_factory=dict)
    before: Mapping[Buffer, tuple[Buffer, ...]] = field(default_factory=dict)
    least: int = 0

    def place(self, buffer: Buffer, offset: int) -> tuple[Buffer, int]:
        """The buffer with an address of its own, and the byte there, for a byte of a buffer."""
        at = self.offsets.get(buffer)
        return (buffer, offset) if at is None else (self.whole, at + offset)


def shared(ops: Sequence[Op], outputs: Collection[Buffer] = ()) -> Temps:
    """Places for all temporaries that operations touch, but for results of the program."""
    spans = lifetimes(ops, set(outputs))
    buffers = list(spans)
    sizes = [-(-b.nbytes // ALIGN) * ALIGN for b in buffers]
    found = packed(list(spans.values()), sizes)
    size = max((a + n for a, n in zip(found, sizes, strict=True)), default=0)
    whole = Buffer("temps", (size,), np.dtype(np.uint8), "temp")
    offsets = dict(zip(buffers, found, strict=True))
    return Temps(whole, offsets, _before(spans, offsets), _least(spans))


def lifetimes(ops: Sequence[Op], others: Collection[Buffer] = ()) -> dict[Buffer, Span]:
    """The spans of all temporaries but some, in the order of their first operations."""
    spans: dict[Buffer, Span] = {}
    unset: set[Buffer] = set()
    for number, op in enumerate(ops):
        written = {p.buffer for p in op.writes if isinstance(p, Dram)}
        for buffer in _touched(op):
            if buffer.kind == "temp" and buffer.nbytes and buffer not in others:
                if buffer not in spans and buffer not in written:
                    unset.add(buffer)
                spans[buffer] = spans.get(buffer, (number, 0))[0], number
    for lo, hi in sorted(_loops(ops), key=lambda s: s[1] - s[0]):  # inner ones first
        for buffer, (first, last) in spans.items():
            within = lo <= first and last <= hi and buffer not in unset
            if not within and first <= hi and lo <= last:
                spans[buffer] = min(first, lo), max(last, hi)
    return dict(sorted(spans.items(), key=lambda item: item[1]))


def _touched(op: Op) -> Iterator[Buffer]:
    for place in chain(op.reads, op.writes):
        if isinstance(place, Dram):
            yield place.buffer
    if op.buffer is not None:  # of the sequencer's reads nothing else tells
        yield op.buffer


def _loops(ops: Sequence[Op]) -> list[Span]:
    """From a label to the last jump back to it."""
    labels = {op.fields["id"]: n for n, op in enumerate(ops) if op.name == "label"}
    jumps = [(labels[op.fields["target"]], n) for n, op in enumerate(ops) if "target" in op.fields]
    return [(lo, hi) for lo, hi in jumps if lo < hi]


def packed(spans: Sequence[Span], sizes: Sequence[int]) -> list[int]:
    """An offset for each size, so that no two of them overlap whose spans do."""
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], spans[i]))
    first, last = np.array([spans[i] for i in order], np.int64).reshape(-1, 2).T
    low, high = np.zeros((2, len(order)), np.int64)
    out = [0] * len(order)
    for n, i in enumerate(order):
        meets = np.flatnonzero((first[:n] <= last[n]) & (first[n] <= last[:n]))
        meets = meets[np.argsort(low[meets])]
        taken = list(zip(low[meets].tolist(), high[meets].tolist(), strict=True))
        out[i] = low[n] = _gap(taken, sizes[i])
        high[n] = low[n] + sizes[i]
    return [int(at) for at in out]


def _gap(taken: Sequence[Span], size: int) -> int:
    """The start of the smallest gap that is large enough, else the end of all."""
    best: tuple[int, int] | None = None
    at = 0
    for low, high in taken:
        if low - at >= size and (best is None or low - at < best[0]):
            best = low - at, at
        at = max(at, high)
    return best[1] if best else at


def _before(
    spans: Mapping[Buffer, Span], offsets: Mapping[Buffer, int]
) -> dict[Buffer, tuple[Buffer, ...]]:
    """Who was last in the bytes of each."""
    out: dict[Buffer, tuple[Buffer, ...]] = {}
    held: list[tuple[int, int, Buffer]] = []  # bytes, and whose they were last
    for buffer in spans:
        low, high = offsets[buffer], offsets[buffer] + buffer.nbytes
        kept, found = [(low, high, buffer)], []
        for a, b, old in held:
            if a < high and low < b:
                found.append(old)
            kept += [(c, d, old) for c, d in ((a, min(b, low)), (max(a, high), b)) if c < d]
        held = kept
        if found:
            out[buffer] = tuple(dict.fromkeys(found))
    return out


def _least(spans: Mapping[Buffer, Span]) -> int:
    """The most bytes that live at once."""
    change: dict[int, int] = {}
    for buffer, (first, last) in spans.items():
        change[first] = change.get(first, 0) + buffer.nbytes
        change[last + 1] = change.get(last + 1, 0) - buffer.nbytes
    now = most = 0
    for at in sorted(change):
        now += change[at]
        most = max(most, now)
    return most
