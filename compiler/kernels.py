"""The kernel IR: what one pass over the chip's memories computes.

A kernel reads *views* (shape, strides and offset over a buffer in DRAM: reshape, transpose, slice
and broadcast move no data), has at most one contraction, applies one STORE epilogue, and writes one
dense row-major buffer::

    kernel   ::= name: out = source [epilogue]
    source   ::= contract(a[B,M,K], w[B,K,N]) | convolve(x[G,B,H,W,C], w[G,I,J,C,O], ...)
               | pool(x[B,H,W,C], ...) | map(x[R,C]) | move(x[...]) | pad(x[...], value, ...)
               | join(views, along d) | vector(terms of views [R,C])
               | down(reduction over R of views [P,R,C])
               | loop(n times kernels) | while(flag after kernels do kernels)
               | switch(index, kernels or kernels) | row(x[...], of an array of n)
               | slide(x[...], starts) | update(x[...], box[...], starts)
               | gather(x[N,...], index[M]) | scatter(x[N,...], index[M], y[M,...])
               | accumulate(x[N,...], index[M], y[M,...], vector(terms of a row of each))
    epilogue ::= [+ ibias] [* scale] [+ bias] [clamp lo..hi] [+ zero_point] -> dtype [pool]
               | vector(term of sums and views [B,M,N]) -> dtype

`move`, `pad` and `join` copy bits; `map` applies the epilogue to an array; `vector` computes terms,
with reductions of rows, on VECTOR: several stages and results, and no epilogue. What holds kernels
runs them one after the other (`kernels_control`). Everything is immutable and prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from tilewright.compiler.core import FLOATS, SHORT_NAMES
from tilewright.compiler.kernels_control import (
    Control,
    Loop,
    Row,
    Switch,
    While,
    inside,
)
from tilewright.compiler.kernels_dynamic import (
    Accumulate,
    Gather,
    Scatter,
    Slide,
    Start,
    Update,
)
from tilewright.compiler.kernels_lanes import Down, Lanes, Stage
from tilewright.compiler.patches import Patches
from tilewright.compiler.source import UNKNOWN, Source
from tilewright.compiler.terms import Term
from tilewright.compiler.views import Buffer, View, collapse, dense_strides

__all__ = [
    "SINGLE", "Accumulate", "Axis", "Buffer", "Contract", "Control", "Convolve", "Down", "Epilogue",
    "Finish", "Gather", "Join", "Kernel", "KernelProgram", "KernelSource", "Lanes", "Loop", "Map",
    "Move", "Pad", "Passes", "Pool", "Row", "Scatter", "Slide", "Stage", "Start", "Switch",
    "Update", "Vector", "View", "While", "collapse", "dense_strides", "inside", "numbered",
    "operands_of", "renamed", "views_of", "with_views",
]  # fmt: skip

#: Which part of each float32 operand is multiplied, pass by pass (`primitives_dot.PASSES`).
Passes = tuple[tuple[int, int], ...]
SINGLE: Passes = ((0, 0),)


def _shown(passes: Passes) -> str:
    return f", {len(passes)} passes" if len(passes) > 1 else ""


@dataclass(frozen=True)
class Contract:
    """A (B, M, K) times w (B, K, N), B may be 1; the chip accumulates in fp32 or int32.

    Within a convolution's tiler `a` may be its patches, and K in pieces of `segment`, each padded.
    """

    a: View | Patches
    w: View
    passes: Passes = SINGLE
    segment: int = 0

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """(B, M, N, K)."""
        b, m, k = self.a.shape
        return b, m, self.w.shape[2], k

    @property
    def cols(self) -> int:
        """Columns of the result; vectors have one element for each."""
        return self.w.shape[2]

    @property
    def is_integer(self) -> bool:
        """Whether sums are int32."""
        return self.a.dtype not in FLOATS

    def __str__(self) -> str:
        return f"contract({self.a}, {self.w}{_shown(self.passes)})"


@dataclass(frozen=True)
class Axis:
    """A spatial axis of a convolution: index in the padded image = out * stride + tap * dilation.

    Parameters
    ----------
    size, taps, out : elements of the image, of the kernel, and of the result.
    stride, dilation : steps in the padded image from one result, one tap, to the next.
    gap : step of the image's own elements in it, zeros in between (JAX's lhs_dilation).
    pad : zeros before the image; negative: elements of it that are left out.
    """

    size: int
    taps: int
    out: int
    stride: int = 1
    dilation: int = 1
    gap: int = 1
    pad: int = 0

    def __str__(self) -> str:
        names = (("stride", 1), ("dilation", 1), ("gap", 1), ("pad", 0))
        extra = "".join(f" {n} {v}" for n, usual in names if (v := getattr(self, n)) != usual)
        return f"{self.out} of {self.size} by {self.taps}{extra}"


@dataclass(frozen=True)
class Convolve:
    """x (G, B, H, W, C) with w (G, I, J, C, O): a result (B, OH, OW, G * O).

    `packing` says how taps and channels make K (`primitives_conv.packing`): the kernel rows of a
    segment; from one on the image has no padding or gaps along W, from two on none at all.
    `phases` is into how many parts each image row is divided: column x is the (x // phases)-th one
    of part x % phases, so that the taps of a dilated kernel row are neighbours.
    """

    x: View
    w: View
    axes: tuple[Axis, Axis]
    packing: int
    passes: Passes = SINGLE
    phases: int = 1

    @property
    def cols(self) -> int:
        """Columns of the result, of all groups; vectors have one element for each."""
        return self.w.shape[0] * self.w.shape[4]

    @property
    def is_integer(self) -> bool:
        """Whether sums are int32."""
        return self.x.dtype not in FLOATS

    def __str__(self) -> str:
        extra = f"{self.packing} rows" if self.packing else "tap"
        extra += f" in {self.phases} phases" * (self.phases > 1) + _shown(self.passes)
        return f"convolve({self.x}, {self.w}, {self.axes[0]} x {self.axes[1]}, {extra})"


@dataclass(frozen=True)
class Pool:
    """The largest element of each window of x (B, H, W, C): a result (B, OH, OW, C).

    A window holds at least one element of the image; its axes have no dilation and no gap.
    """

    x: View
    axes: tuple[Axis, Axis]

    @property
    def is_integer(self) -> bool:
        """Whether elements are integers."""
        return self.x.dtype not in FLOATS

    def __str__(self) -> str:
        return f"pool({self.x}, {self.axes[0]} x {self.axes[1]})"


@dataclass(frozen=True)
class Map:
    """An array (R, C) to which the epilogue applies; vectors run along C."""

    x: View

    @property
    def cols(self) -> int:
        """Columns of the result; vectors have one element for each."""
        return self.x.shape[1]

    @property
    def is_integer(self) -> bool:
        """Whether elements are integers."""
        return self.x.dtype not in FLOATS

    def __str__(self) -> str:
        return f"map({self.x})"


@dataclass(frozen=True)
class Move:
    """An array of any rank, copied bit by bit into row-major order."""

    x: View

    def __str__(self) -> str:
        return f"move({self.x})"


@dataclass(frozen=True)
class Pad:
    """An array, copied bit by bit to start + i * step of each dimension of the result.

    The other elements of the result are `value`, one number or a view of one element. The result's
    buffer may have another shape than `shape`, with the same elements. With `phases` the result is
    (B, H, W, C), and columns are as `Convolve` has them.
    """

    x: View
    value: np.ndarray | View
    start: tuple[int, ...]
    step: tuple[int, ...]
    shape: tuple[int, ...]
    phases: int = 1

    def __str__(self) -> str:
        at = ", ".join(f"{a}+{s}i" for a, s in zip(self.start, self.step, strict=True))
        phases = f", {self.phases} phases" * (self.phases > 1)
        return f"pad({self.x}, {self.value}, at {at}{phases})"


@dataclass(frozen=True)
class Join:
    """Arrays that lie one behind the other in dimension `dim` of the result, copied bit by bit."""

    views: tuple[View, ...]
    dim: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result, whose buffer may have another one with the same elements."""
        first, d = self.views[0].shape, self.dim
        return (*first[:d], sum(v.shape[d] for v in self.views), *first[d + 1 :])

    def __str__(self) -> str:
        return f"join({', '.join(map(str, self.views))}, along {self.dim})"


Dynamic = Slide | Update | Gather | Scatter | Accumulate
KernelSource = (
    Contract | Convolve | Pool | Map | Move | Pad | Join | Lanes | Down | Row | Dynamic | Control
)


def operands_of(kernel: Kernel) -> list[View]:
    """The arrays that a kernel reads."""
    e = kernel.epilogue
    found = [v for v in e.vectors if isinstance(v, View)]
    found += [*e.finish.views, e.finish.code] if e.finish else []
    return [*views_of(kernel.source), *found]


def views_of(source: KernelSource) -> list[View]:
    """The arrays that a source reads."""
    if isinstance(source, Lanes | Down):
        return [*source.views, *source.codes]
    if isinstance(source, Join | Dynamic):
        return list(source.views)
    own = [v for v in vars(source).values() if isinstance(v, View)]
    within = inside(source) if isinstance(source, Control) else ()
    return [*own, *(v for k in within for v in operands_of(k))]


def renamed(kernel: Kernel, places: Mapping[Buffer, Buffer]) -> Kernel:
    """The same kernel on other buffers; those that are not named stay."""

    def view(v: Any) -> Any:
        known = isinstance(v, View) and v.buffer in places
        return replace(v, buffer=places[v.buffer]) if known else v

    out, *more = (places.get(b, b) for b in kernel.outs)
    if isinstance(kernel.source, Control):
        source: KernelSource = kernel.source.mapped(lambda k: renamed(k, places), view)
    else:
        source = with_views(kernel.source, view)
    epilogue = kernel.epilogue.with_views(view)
    return replace(kernel, source=source, epilogue=epilogue, out=out, more=tuple(more))


def numbered(kernels: Iterable[Kernel], name: str = "k") -> tuple[Kernel, ...]:
    """The kernels with names that tell their places: k0, k1, inside of that k1.0, k1.1 ..."""
    out = []
    for i, kernel in enumerate(kernels):
        source, mine = kernel.source, f"{name}{i}"
        if isinstance(source, Control):
            named = iter(numbered((k for part in source.parts for k in part), f"{mine}."))
            source = source.mapped(partial(_next, named), lambda v: v)
        out.append(replace(kernel, name=mine, source=source))
    return tuple(out)


def _next(kernels: Iterator[Kernel], _: Kernel) -> Kernel:
    return next(kernels)


def with_views(source: KernelSource, change: Callable[[View], View]) -> KernelSource:
    """The same source, each view changed."""
    if isinstance(source, Lanes | Down):
        views, codes = tuple(map(change, source.views)), tuple(map(change, source.codes))
        return replace(source, views=views, codes=codes)
    if isinstance(source, Dynamic):
        return source.with_views(change)
    if isinstance(source, Join):
        return replace(source, views=tuple(map(change, source.views)))
    changed: dict[str, Any] = {k: change(v) for k, v in vars(source).items() if isinstance(v, View)}
    return replace(source, **changed)


@dataclass(frozen=True)
class Finish:
    """A term of a contraction's sums, input 0, and of views (B, M, N), computed by VECTOR in place.

    A stride of 0 repeats an element, a row or a batch.
    """

    views: tuple[View, ...]
    term: Term
    code: View  # the micro-kernel's words

    def with_views(self, change: Callable[[View], View]) -> Finish:
        """The same term, each view changed."""
        return Finish(tuple(map(change, self.views)), self.term, change(self.code))

    def __str__(self) -> str:
        return f"vector({self.term.text(['sums', *map(str, self.views)])})"


#: A per-column operand: a view (C,) of float32 (ibias: int32), or one number for all columns.
Vector = View | float | int


@dataclass(frozen=True)
class Epilogue:
    """STORE's fixed-function epilogue, in the order in which it applies (DESIGN §4).

    `pool` is a maximum over windows of a convolution's results, whose axes it continues. `finish`
    comes first; then no other step but the conversion to `out`, which changes no value. `place` is
    elements from one batch of a contraction's result to the next, and from one row to the next,
    where it is not dense.
    """

    out: np.dtype
    int_path: bool = False
    ibias: Vector | None = None
    scale: Vector | None = None
    bias: Vector | None = None
    lo: float | int | None = None
    hi: float | int | None = None
    zero_point: int = 0
    pool: tuple[Axis, Axis] | None = None
    finish: Finish | None = None
    place: tuple[int, int] | None = None

    @property
    def vectors(self) -> tuple[Vector, ...]:
        """The enabled vectors, in the hardware's order."""
        return tuple(v for v in (self.ibias, self.scale, self.bias) if v is not None)

    def with_views(self, change: Callable[[Any], Any]) -> Epilogue:
        """The same steps, each operand changed."""
        return replace(self, ibias=change(self.ibias), scale=change(self.scale),
                       bias=change(self.bias),
                       finish=self.finish and self.finish.with_views(change))  # fmt: skip

    def __str__(self) -> str:
        steps = [str(self.finish)] if self.finish else []
        steps += [f"+ i32 {self.ibias}"] if self.ibias is not None else []
        steps += [f"* {self.scale}"] if self.scale is not None else []
        steps += [f"+ {self.bias}"] if self.bias is not None else []
        if self.lo is not None or self.hi is not None:
            low = "" if self.lo is None else self.lo
            steps.append(f"clamp {low}..{'' if self.hi is None else self.hi}")
        steps += [f"+ zp {self.zero_point}"] if self.zero_point else []
        pool = [f"pool {self.pool[0]} x {self.pool[1]}"] if self.pool else []
        place = [f"at {self.place[0]}b+{self.place[1]}i"] if self.place else []
        return " ".join([*steps, f"-> {SHORT_NAMES[self.out]}", *pool, *place])


@dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel; `out` is written dense, rows in the source's order, and so is each of `more`.

    `eqns` are the indices of the jaxpr's equations that it computes, `source` the user's line.
    """

    name: str
    source: KernelSource
    epilogue: Epilogue
    out: Buffer
    eqns: tuple[int, ...] = ()
    user: Source = UNKNOWN
    more: tuple[Buffer, ...] = ()

    @property
    def outs(self) -> tuple[Buffer, ...]:
        """All that it writes."""
        return (self.out, *self.more)

    def __str__(self) -> str:
        what = f"{self.name}: {', '.join(map(str, self.outs))} = {self.source}"
        return what if isinstance(self.source, Control) else f"{what} {self.epilogue}"


@dataclass(frozen=True, eq=False)
class KernelProgram:
    """All kernels in execution order, with the program's buffers.

    `outputs[i]` is the buffer of result i. It is an input or const buffer if the result is that
    array itself (nothing computes it), or an input's that was donated and is overwritten.
    """

    kernels: tuple[Kernel, ...]
    inputs: tuple[Buffer, ...]
    consts: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def all(self) -> tuple[Kernel, ...]:
        """The kernels, each with those inside of it behind it: their numbers in a tile program."""
        found = [(k, *inside(k.source)) if isinstance(k.source, Control) else (k,)
                 for k in self.kernels]  # fmt: skip
        return tuple(k for some in found for k in some)

    @property
    def written(self) -> set[Buffer]:
        """All that kernels write."""
        return {b for k in self.all for b in k.outs}

    def __str__(self) -> str:
        head = f"inputs {', '.join(map(str, self.inputs))}"
        consts = [f"consts {', '.join(map(str, self.consts))}"] if self.consts else []
        tail = f"outputs {', '.join(b.name for b in self.outputs)}"
        notes = [f"# {n}" for n in self.notes]
        return "\n".join([head, *consts, *map(str, self.kernels), tail, *notes])
