"""The order of kernels: as the equations stand, where that takes less memory.

Fusion makes a kernel when somebody asks for its value, so what nobody asks for but the caller (the
gradients of weights) would come last, and all that it reads would live until then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush

from tilewright.compiler.kernels import Buffer, Kernel, KernelProgram, numbered, operands_of

WORTH = 0.7  # of the bytes: parting neighbours that run beside each other costs cycles


def ordered(program: KernelProgram) -> KernelProgram:
    """The program with its kernels in the order of their equations, if that saves memory."""
    kernels = by_equation(program.kernels)
    if peak(kernels) >= WORTH * peak(program.kernels):
        return program
    return replace(program, kernels=numbered(kernels))


def by_equation(kernels: Sequence[Kernel]) -> list[Kernel]:
    """Kernels by the last equation of each; those that depend on each other keep their order."""
    behind: list[list[int]] = [[] for _ in kernels]
    missing = [0] * len(kernels)
    for early, late in _edges(kernels):
        behind[early].append(late)
        missing[late] += 1
    keys, last = [], -1
    for number, kernel in enumerate(kernels):
        last = max(kernel.eqns, default=last)
        keys.append((last, number))
    ready = [key for key, count in zip(keys, missing, strict=True) if not count]
    heapify(ready)
    out: list[Kernel] = []
    while ready:
        _, number = heappop(ready)
        out.append(kernels[number])
        for late in behind[number]:
            missing[late] -= 1
            if not missing[late]:
                heappush(ready, keys[late])
    return out


def _edges(kernels: Sequence[Kernel]) -> Iterator[tuple[int, int]]:
    """Which kernel must come before which: writers before readers, readers before writers."""
    writer: dict[Buffer, int] = {}
    readers: dict[Buffer, list[int]] = {}
    for number, kernel in enumerate(kernels):
        for buffer in {v.buffer for v in operands_of(kernel)}:
            if buffer in writer:
                yield writer[buffer], number
            readers.setdefault(buffer, []).append(number)
        for buffer in kernel.outs:
            before = readers.pop(buffer, [])
            before += [writer[buffer]] if buffer in writer else []
            yield from ((n, number) for n in before if n != number)
            writer[buffer] = number


def peak(kernels: Sequence[Kernel]) -> int:
    """The most bytes of temporaries that live at once between the kernels."""
    last: dict[Buffer, int] = {}
    for number, kernel in enumerate(kernels):
        for buffer in (*kernel.outs, *(v.buffer for v in operands_of(kernel))):
            if buffer.kind == "temp":
                last[buffer] = number
    ends: dict[int, int] = {}
    for buffer, number in last.items():
        ends[number] = ends.get(number, 0) + buffer.nbytes
    now = most = 0
    seen: set[Buffer] = set()
    for number, kernel in enumerate(kernels):
        fresh = {b for b in kernel.outs if b in last} - seen
        seen |= fresh
        now += sum(b.nbytes for b in fresh)
        most = max(most, now)
        now -= ends.get(number, 0)
    return most
