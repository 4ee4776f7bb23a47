"""Copies that nobody needs: what is copied, to be overwritten by a loop, but is not read again.

A loop's state begins as a copy of its operand. If all that touches the operand comes before the
copy, and all that touches the copy behind it, they can be one buffer: the operand is made where the
loop wants it, or it is a donated argument, and the loop overwrites that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from tilewright.compiler.kernels import (
    Buffer,
    Control,
    Kernel,
    KernelProgram,
    Loop,
    Move,
    View,
    While,
    numbered,
    operands_of,
    renamed,
)


def without_copies(program: KernelProgram, donated: Collection[int] = ()) -> KernelProgram:
    """The program without them.

    Parameters
    ----------
    donated : numbers of the inputs that may be overwritten.
    """
    inputs = {b for i, b in enumerate(program.inputs) if i in donated} - set(program.outputs)
    places: dict[Buffer, Buffer] = {}
    kernels = _cleaned(program.kernels, _touches(program.kernels), inputs, places)
    if len(_moves(kernels)) == len(_moves(program.kernels)):
        return program
    outputs = tuple(places.get(b, b) for b in program.outputs)
    return replace(program, kernels=numbered(kernels), outputs=outputs)


def _moves(kernels: Sequence[Kernel]) -> list[Kernel]:
    inner = [m for k in kernels for part in _parts(k) for m in _moves(part)]
    return inner + [k for k in kernels if isinstance(k.source, Move)]


def _parts(kernel: Kernel) -> tuple[tuple[Kernel, ...], ...]:
    return kernel.source.parts if isinstance(kernel.source, Control) else ()


def _touches(kernels: Sequence[Kernel]) -> Counter[Buffer]:
    """How often kernels, with those inside of them, name each buffer."""
    found: Counter[Buffer] = Counter()
    for kernel in kernels:
        found.update(kernel.outs)
        if isinstance(kernel.source, Control):
            found.update(v.buffer for v in vars(kernel.source).values() if isinstance(v, View))
            for part in kernel.source.parts:
                found += _touches(part)
        else:
            found.update(v.buffer for v in operands_of(kernel))
    return found


def _cleaned(
    kernels: Sequence[Kernel], total: Counter[Buffer], inputs: Collection[Buffer],
    places: dict[Buffer, Buffer],
) -> tuple[Kernel, ...]:  # fmt: skip
    """Kernels that run one after the other, without copies between them and inside of them.

    Parameters
    ----------
    total : how often the whole program names each buffer; kept up to date.
    inputs : those that may be overwritten.
    places : in which of them an output lies now is added.
    """
    out = [replace(k, source=_inside(k.source, total)) if isinstance(k.source, Control) else k
           for k in kernels]  # fmt: skip
    while (at := _needless(out, total, inputs)) is not None:
        old, new = operands_of(out[at])[0].buffer, out[at].out
        kept, gone = (old, new) if old in inputs else (new, old)
        places |= {gone: kept} if gone.kind == "output" else {}
        del out[at]
        out = [renamed(k, {gone: kept}) for k in out]
        total[kept] += total.pop(gone) - 2
    return tuple(out)


def _inside(source: Control, total: Counter[Buffer]) -> Control:
    """The same, each list of kernels in it cleaned."""

    def clean(part: Sequence[Kernel]) -> tuple[Kernel, ...]:
        return _cleaned(part, total, (), {})

    if isinstance(source, Loop):
        return replace(source, body=clean(source.body))
    if isinstance(source, While):
        return replace(source, test=clean(source.test), body=clean(source.body))
    return replace(source, branches=tuple(map(clean, source.branches)))


def _needless(
    kernels: Sequence[Kernel], total: Counter[Buffer], inputs: Collection[Buffer]
) -> int | None:
    """The number of a copy whose two buffers can be one."""
    touches = [_touches([k]) for k in kernels]
    for at, kernel in enumerate(kernels):
        if not isinstance(kernel.source, Move):
            continue
        view, new = kernel.source.x, kernel.out
        old = view.buffer
        if not (old.kind == "temp" or old in inputs) or new.kind not in ("temp", "output"):
            continue
        if not view.is_dense or old.dtype != new.dtype or old.nbytes != new.nbytes:
            continue
        before, behind = sum(t[old] for t in touches[: at + 1]), sum(t[new] for t in touches[at:])
        if before == total[old] and behind == total[new]:
            return at
    return None
