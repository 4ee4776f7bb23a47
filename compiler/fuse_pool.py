"""A windowed maximum as a `Pool` kernel: which dimensions have windows, and what pads them."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from tilewright.compiler import core
from tilewright.compiler.chain import Chain
from tilewright.compiler.core import Eqn
from tilewright.compiler.kernel_builder import KernelBuilder, Node, Number
from tilewright.compiler.kernels import Axis, Convolve, Epilogue, Pool, View
from tilewright.compiler.primitives_pad import max_identity

MOST = 15  # STORE's fields for a window's size and step have four bits


def max_pool(builder: KernelBuilder, eqn: Eqn) -> Node:
    """The value of a reduce_window_max equation.

    Raises
    ------
    UnsupportedError
        More than two dimensions have windows, or a window that STORE does not have.
    """
    (operand,), p = eqn.inputs, eqn.params
    shape, dtype = eqn.outputs[0].aval.shape, operand.aval.dtype

    def refuse(why: str):
        return builder.unsupported("reduce_window_max", why, operand)

    if dtype == core.uint32:
        raise refuse("STORE compares 32-bit integers as int32; convert to float32 or int32")
    if not prod(shape):
        return Number(max_identity(dtype)[()], shape)
    node, sizes = builder.node(operand), operand.aval.shape
    axes = {
        d: Axis(sizes[d], p["window_dimensions"][d], shape[d], p["window_strides"][d],
                p["window_dilation"][d], p["base_dilation"][d], p["padding"][d][0])
        for d in range(len(shape))
    }  # fmt: skip
    active = [d for d, a in axes.items() if a != Axis(a.size, 1, a.size)]
    if not active and not isinstance(node, Number):
        active = [0] if shape else []
    if len(active) > 2:
        raise refuse(f"at most two dimensions may have windows, not {len(active)}")
    for d in active:
        a = axes[d]
        if a.dilation != 1 and a.taps > 1:
            raise refuse(f"window_dilation must be 1, not {a.dilation} in dimension {d}")
        if a.taps > MOST or a.stride > MOST:
            raise refuse(
                f"windows and strides must be at most {MOST}, not {a.taps} and {a.stride} in "
                f"dimension {d}"
            )
    copied = any(_needs_copy(axes[d]) for d in active)
    if isinstance(node, Chain) and builder.uses[id(operand)] == 1 and not copied:
        pooled = _on_the_way_out(node, axes, active)
        if pooled is not None:
            eqns = (*node.eqns, *(() if builder.number is None else (builder.number,)))
            return builder.end(replace(pooled, shape=shape, eqns=eqns))
    view = builder.view(operand)
    if copied:
        config = [(0, 0, 0)] * len(shape)
        for d in active:
            a = axes[d]
            reach = (a.out - 1) * a.stride + a.taps
            width = (a.size - 1) * a.gap + 1
            config[d] = (a.pad, reach - a.pad - width, a.gap - 1)
            axes[d] = Axis(reach, a.taps, a.out, a.stride)
        view = builder.pad(view, max_identity(dtype)[()], config)
    rest = [d for d in range(len(shape)) if d not in active]
    lanes = [d for d in rest if view.strides[d] == 1 and view.shape[d] > 1][-1:] or rest[-1:]
    outer = [d for d in rest if d not in lanes]
    order = (*outer, *active, *lanes)
    x = view.transpose(order)
    batch = prod(x.shape[: len(outer)])
    h, w = [Axis(1, 1, 1)] * (2 - len(active)) + [axes[d] for d in active]
    x = builder.reshape(x, (batch, h.size, w.size, x.shape[-1] if lanes else 1))
    out = builder.temp(tuple(shape[d] for d in order), dtype)
    builder.add(Pool(x, (h, w)), Epilogue(dtype, int_path=dtype not in core.FLOATS), out)
    return View.whole(out).transpose(tuple(order.index(d) for d in range(len(order))))


def _on_the_way_out(chain: Chain, axes: dict[int, Axis], active: list[int]) -> Chain | None:
    """The chain with these windows in its epilogue, if it is a convolution's, along its space."""
    last = len(chain.shape) - 1
    if not isinstance(chain.source, Convolve) or not chain.can_end or last not in (2, 3):
        return None
    if chain.shape[last] != chain.cols or any(d in (0, last) for d in active):
        return None
    h, w = [Axis(1, 1, 1)] * (3 - last) + [axes[d] for d in range(1, last)]
    return replace(chain, epilogue=replace(chain.epilogue, pool=(h, w)))


def _needs_copy(axis: Axis) -> bool:
    """Whether there are gaps, or a window without an element, or elements that are cropped."""
    last = (axis.out - 1) * axis.stride - axis.pad
    return axis.gap > 1 or axis.pad >= axis.taps or last >= axis.size
