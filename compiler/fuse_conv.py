"""A convolution equation as a `Convolve` source: order of dimensions, padding, groups."""

from __future__ import annotations

import numpy as np
from tilewright.compiler.core import Eqn
from tilewright.compiler.kernel_builder import KernelBuilder
from tilewright.compiler.kernels import Axis, Convolve, View
from tilewright.compiler.primitives_conv import packing


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
             p["rhs_dilation"][at], p["lhs_dilation"][at], p["padding"][at][0])
        for at in range(len(space))
    ]  # fmt: skip
    if len(axes) == 1:  # one row
        axes.insert(0, Axis(1, 1, 1))
        x, w = _with_row(x, 1), _with_row(w, 0)
    h, v = axes
    kind = packing(h.taps, v.taps, w.shape[2], dim)
    inside = {"tap": (), "row": (1,), "window": (0, 1)}[kind]
    strided = kind != "tap" and x.shape[3] > 1 and x.strides[3] != 1
    wanted = [
        at for at in inside if axes[at].gap > 1 or axes[at].pad or _reach(axes[at]) > axes[at].size
    ]
    if wanted or strided:
        config = [(0, 0, 0)] * 4
        for at in wanted:
            a = axes[at]
            width = (a.size - 1) * a.gap + 1
            config[1 + at] = (a.pad, _reach(a) - a.pad - width, a.gap - 1)
            axes[at] = Axis(_reach(a), a.taps, a.out, a.stride, a.dilation)
        x = builder.pad(x, np.zeros((), x.dtype)[()], config)
    features, batches = p["feature_group_count"], p["batch_group_count"]
    x = x.grouped(0, batches) if batches > 1 else x.grouped(3, features)
    w = w.grouped(3, max(features, batches))
    return Convolve(x, w, (axes[0], axes[1]), kind)


def _reach(axis: Axis) -> int:
    """Elements of the padded image that windows cover."""
    return (axis.out - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1


def _with_row(view: View, at: int) -> View:
    shape, strides = list(view.shape), list(view.strides)
    shape.insert(at, 1)
    strides.insert(at, 0)
    return View(view.buffer, tuple(shape), tuple(strides), view.offset)
