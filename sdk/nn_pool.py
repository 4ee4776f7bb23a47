"""Pooling over windows of (batch, space..., features); `tilewright.nn` has it."""

from math import prod as _prod

from tilewright import lax as _lax
from tilewright import numpy as _tnp
from tilewright.compiler import ops as _ops
from tilewright.compiler.windows import window_sums as _window_sums


def _windows(x, window_shape, strides):
    """Windows and strides of all dimensions: batch and features have 1."""
    extra = x.ndim - len(window_shape) - 1
    strides = tuple(strides) if strides is not None else (1,) * len(window_shape)
    return (1,) * extra + (*window_shape, 1), (1,) * extra + (*strides, 1)


def _lowest(dtype):
    if dtype in (_tnp.float32, _tnp.bfloat16):
        return -float("inf")
    return int(_tnp.iinfo(dtype).min)


def max_pool(x, window_shape, strides=None, padding="VALID"):
    """The largest element of each window; `padding` is 'SAME', 'VALID' or pairs per dimension."""
    x = _tnp.asarray(x)
    windows, steps = _windows(x, tuple(window_shape), strides)
    return _lax.reduce_window(x, _lowest(x.dtype), _lax.max, windows, steps, _pairs(x, padding))


def _pairs(x, padding):
    """Padding of all dimensions: batch and features have none."""
    if isinstance(padding, str):
        return padding
    extra = x.ndim - len(padding) - 1
    return ((0, 0),) * extra + (*(tuple(p) for p in padding), (0, 0))


def avg_pool(x, window_shape, strides=None, padding="VALID", count_include_pad=True):
    """The mean of each window; zeros of the padding count, unless `count_include_pad` is False."""
    x = _ops.inexact(_tnp.asarray(x))
    windows, steps = _windows(x, tuple(window_shape), strides)
    total = _window_sums("avg_pool", x, windows, steps, _pairs(x, padding))
    if count_include_pad:
        return total / float(_prod(windows))
    ones = _tnp.ones(x.shape, x.dtype)
    return total / _window_sums("avg_pool", ones, windows, steps, _pairs(x, padding))
