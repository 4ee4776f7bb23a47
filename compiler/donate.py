"""Donation: results take the place of arguments that nobody needs afterwards.

A result and a donated argument of its shape and dtype become one buffer, if every kernel that reads
the argument comes before the one that writes the result, or is it, and computes element by element:
a tile is loaded before it is stored, and no other tile has its elements. What lies between a read
and a write of the same bytes is synchronised like everything else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from tilewright.compiler.kernels import (
    Accumulate,
    Buffer,
    Kernel,
    KernelProgram,
    Lanes,
    Map,
    Scatter,
    Update,
    View,
    operands_of,
    renamed,
)


def donate(program: KernelProgram, donated: Collection[int]) -> KernelProgram:
    """The program with results in the places of donated inputs, as many as can be.

    Parameters
    ----------
    donated : numbers of the inputs that may be overwritten.
    """
    free = [b for i, b in enumerate(program.inputs) if i in donated and b not in program.outputs]
    places: dict[Buffer, Buffer] = {}
    for out in dict.fromkeys(program.outputs):
        for old in free:
            if may_replace(program, old, out):
                places[out] = old
                free.remove(old)
                break
    return _renamed(program, places) if places else program


def may_replace(program: KernelProgram, old: Buffer, out: Buffer) -> bool:
    """Whether a result may be written where an input lies."""
    if (old.shape, old.dtype) != (out.shape, out.dtype) or out.kind != "output" or not old.nbytes:
        return False
    writers = [at for at, k in enumerate(program.kernels) if out in k.outs]
    readers = [at for at, k in enumerate(program.kernels) if any(_views(k, old))]
    last = max(readers, default=-1)
    if len(writers) != 1 or last > writers[0]:
        return False
    writer = program.kernels[writers[0]]
    if last < writers[0]:
        return True
    if isinstance(writer.source, Update | Scatter | Accumulate):
        return list(_views(writer, old)) == [writer.source.x]
    return isinstance(writer.source, Lanes | Map) and all(v.is_dense for v in _views(writer, old))


def _views(kernel: Kernel, buffer: Buffer) -> Iterator[View]:
    return (v for v in operands_of(kernel) if v.buffer is buffer)


def _renamed(program: KernelProgram, places: dict[Buffer, Buffer]) -> KernelProgram:
    kernels = tuple(renamed(k, places) for k in program.kernels)
    outputs = tuple(places.get(b, b) for b in program.outputs)
    return replace(program, kernels=kernels, outputs=outputs)
