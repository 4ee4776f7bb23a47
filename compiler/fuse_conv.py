"""A convolution equation as a `Convolve` source: order of dimensions, padding, groups."""

from __future__ import annotations

from dataclasses import replace
from math import gcd

import numpy as np
from tilewright.compiler.core import FLOATS, Eqn
from tilewright.compiler.kernel_builder import KernelBuilder
from tilewright.compiler.kernels import Axis, Contract, Convolve, Pad, View
from tilewright.compiler.primitives_conv import FLOAT_IMAGES, Extent, packing, products
from tilewright.compiler.primitives_dot import passes
from tilewright.compiler.schedule import ceil_div


def convolution(builder: KernelBuilder, eqn: Eqn, dim: int) -> Convolve:
    """The source of a conv_general_dilated whose result has elements.

    A packing that puts several taps into one local row needs an image without padding along them;
    it is padded in DRAM by a kernel of its own.
    """
    p = eqn.params
    numbers = p["dimension_numbers"]
    (n, c, *space), (o, i, *taps), (_, _, *out) = numbers
    x = builder.view(eqn.inputs[0]).transpose((n, *space, c))
    w = builder.view(eqn.inputs[1]).transpose((*taps, i, o))
    shape = eqn.outputs[0].aval.shape
    axes = [
        Axis(x.shape[1 + at], w.shape[at], shape[out[at]], p["window_strides"][at],
             p["rhs_dilation"][at] if w.shape[at] > 1 else 1, p["lhs_dilation"][at],
             p["padding"][at][0])
        for at in range(len(space))
    ]  # fmt: skip
    if len(axes) == 1:  # one row
        axes.insert(0, Axis(1, 1, 1))
        x, w = _with_row(x, 1), _with_row(w, 0)
    steps = [(a.stride, a.dilation) for a in axes]
    for at in range(2):
        x, axes[at] = _every(x, 1 + at, axes[at])
    if x.dtype not in FLOATS:
        for at in range(2):
            w, axes[at] = _seen(w, at, axes[at])
    features, batches = p["feature_group_count"], p["batch_group_count"]
    if features > 1 and w.dtype not in FLOATS:
        features, w = _merge_groups(builder, w, features, dim)
    h, v = axes
    tall, wide = (Extent(a.taps, a.out, *s) for a, s in zip(axes, steps, strict=True))
    groups = max(features, batches)
    floats = x.dtype in FLOATS
    sizes = tall, wide, w.shape[2], w.shape[3] // groups, dim, 2 if floats else 1
    images = FLOAT_IMAGES if floats else x.shape[0]
    kind = packing(*sizes, groups, images)
    phases = 1
    if kind:
        inside = (1,) if kind == 1 else (0, 1)
        reach = [_reach(axes[0], kind * ceil_div(h.taps, kind)), _reach(axes[1])]
        strided = x.shape[3] > 1 and x.strides[3] != 1
        wanted = [at for at in inside
                  if axes[at].gap > 1 or axes[at].pad or reach[at] > axes[at].size]  # fmt: skip
        if wanted or strided or v.dilation > 1:
            phases = v.dilation if v.gap == 1 else 1
            if kind == h.taps and groups == 1:
                direct, turned = products(*sizes, images)
                phases = 1 if turned < direct else phases
            x = _copied(builder, x, axes, wanted, reach, phases)
    x = x.grouped(0, batches) if batches > 1 else x.grouped(3, features)
    w = w.grouped(3, groups)
    return Convolve(x, w, (axes[0], axes[1]), kind, passes(x.dtype, p["precision"]), phases)


def _copied(builder: KernelBuilder, x: View, axes: list[Axis], wanted: list[int],
            reach: list[int], phases: int) -> View:  # fmt: skip
    """The image padded along the `wanted` axes, which become plain, its columns in phases."""
    config = [(0, 0, 0)] * 4
    for at in wanted:
        a = axes[at]
        width = (a.size - 1) * a.gap + 1
        config[1 + at] = (a.pad, reach[at] - a.pad - width, a.gap - 1)
        axes[at] = Axis(reach[at], a.taps, a.out, a.stride, a.dilation)
    low, high, gap = config[2]
    config[2] = (low, high + -axes[1].size % phases, gap)
    x = builder.pad(x, np.zeros((), x.dtype)[()], config)
    kernel = builder.kernels[-1]
    assert isinstance(kernel.source, Pad)
    builder.kernels[-1] = replace(kernel, source=replace(kernel.source, phases=phases))
    return x


def as_contraction(source: Convolve) -> Contract | None:
    """A convolution with one tap, every pixel once and one group, as what it is."""
    if source.w.shape[0] > 1 or any(a != Axis(a.size, 1, a.size) for a in source.axes):
        return None
    _, b, h, w, c = source.x.shape
    pixels = source.x.reshape((1, b * h * w, c))
    weights = source.w.reshape((1, c, source.w.shape[4]))
    if pixels is None or weights is None:
        return None
    return Contract(pixels, weights, source.passes)


def _merge_groups(builder: KernelBuilder, w: View, groups: int, dim: int) -> tuple[int, View]:
    """Fewer groups, and weights (I, J, C, O) that are zero where channels do not belong together.

    Depthwise layers would use one row and column of the array; integers times 0 add nothing. (An
    infinity would, so floats stay as they are.)
    """
    i, j, c, outputs = w.shape
    o = outputs // groups
    most = max(1, dim // max(c, o))
    merged = max(n for n in range(1, most + 1) if groups % n == 0)
    if merged == 1:
        return groups, w
    zero, left = np.zeros((), w.dtype)[()], groups // merged
    parts = w.grouped(3, groups).transpose((1, 2, 0, 3, 4))  # I, J, group, c, o
    parts = builder.reshape(parts, (i, j, left, merged, c, o))
    width = merged * o  # channels that a merged group makes; each row holds `o` of them
    none = (0, 0, 0)
    rows = builder.pad(parts, zero, [none] * 5 + [(0, width - o, 0)])
    flat = builder.reshape(rows, (i, j, left, merged, c * width))
    flat = builder.pad(flat, zero, [none] * 4 + [(0, o, 0)])  # group g begins g * o to the right
    flat = builder.reshape(flat, (i, j, left, merged * (c * width + o)))
    flat = flat.slice((0,) * 4, (i, j, left, merged * c * width), (1,) * 4)
    flat = builder.reshape(flat, (i, j, left, merged * c, width)).transpose((0, 1, 3, 2, 4))
    return left, builder.reshape(flat, (i, j, merged * c, left * width))


def _every(x: View, dimension: int, axis: Axis) -> tuple[View, Axis]:
    """The image without what a common step of results and taps leaves out."""
    by = gcd(axis.stride, axis.dilation)
    first = -axis.pad % by
    if axis.taps == 1 or by == 1 or axis.gap > 1 or first >= axis.size:
        return x, axis
    begin, steps = [0] * len(x.shape), [1] * len(x.shape)
    begin[dimension], steps[dimension] = first, by
    x = x.slice(tuple(begin), x.shape, tuple(steps))
    pad = (axis.pad + first) // by
    return x, Axis(x.shape[dimension], axis.taps, axis.out, axis.stride // by,
                   axis.dilation // by, 1, pad)  # fmt: skip


def _seen(w: View, dimension: int, axis: Axis) -> tuple[View, Axis]:
    """The weights without the first and last taps that see nothing but padding.

    Integers times 0 add nothing; a float may be infinite, so floats stay as they are.
    """
    begins = [t * axis.dilation - axis.pad for t in range(axis.taps)]
    spots = range(0, axis.size * axis.gap, axis.gap)
    seen = [t for t, b in enumerate(begins)
            if any(o * axis.stride + b in spots for o in range(axis.out))] or [0]  # fmt: skip
    first, taps = seen[0], seen[-1] - seen[0] + 1
    if taps == axis.taps:
        return w, axis
    begin, limit = [0] * len(w.shape), list(w.shape)
    begin[dimension], limit[dimension] = first, first + taps
    w = w.slice(tuple(begin), tuple(limit), (1,) * len(begin))
    pad = axis.pad - first * axis.dilation
    dilation = axis.dilation if taps > 1 else 1
    return w, replace(axis, taps=taps, dilation=dilation, pad=pad)


def _reach(axis: Axis, taps: int = 0) -> int:
    """Elements of the padded image that windows cover, with as many taps or with its own."""
    return (axis.out - 1) * axis.stride + ((taps or axis.taps) - 1) * axis.dilation + 1


def _with_row(view: View, at: int) -> View:
    shape, strides = list(view.shape), list(view.strides)
    shape.insert(at, 1)
    strides.insert(at, 0)
    return View(view.buffer, tuple(shape), tuple(strides), view.offset)
