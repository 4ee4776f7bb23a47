"""Padding, reversal and windowed maxima: type rules and NumPy implementations, as JAX's `lax`.

A dimension of size n is first dilated (d - 1 values between neighbours), then padded at both ends;
negative padding crops. `pad` and `rev` move bits; `reduce_window_max` is arithmetic: a NaN wins,
-0 is below +0, and subnormals are flushed, also in a window of one element.
"""

from itertools import product

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.core import FLOATS, Primitive
from tilewright.compiler.errors import OperandError
from tilewright.compiler.primitives import max_p


def dilated_size(size, dilation):
    """Return the size of a dimension with ``dilation - 1`` values between neighbours."""
    return max(0, 1 + dilation * (size - 1)) if dilation != 1 else size


def window_count(size, window, stride):
    """Return how many windows, dilated already, fit a padded dimension."""
    return max(0, (size - window) // stride + 1)


def padded(x, value, config):
    """Return `x` padded by (low, high, interior) per dimension, as `lax.pad`."""
    shape = tuple(dilated_size(n, i + 1) for n, (_, _, i) in zip(x.shape, config, strict=True))
    grown = tuple(
        n + max(low, 0) + max(high, 0) for n, (low, high, _) in zip(shape, config, strict=True)
    )
    out = np.full(grown, value, x.dtype)
    if x.size:
        out[tuple(slice(max(low, 0), max(low, 0) + n, i + 1)
                  for n, (low, _, i) in zip(shape, config, strict=True))] = x  # fmt: skip
    crops = zip(grown, config, strict=True)
    return out[tuple(slice(max(-low, 0), n - max(-high, 0)) for n, (low, high, _) in crops)]


def max_identity(dtype):
    """Return the value below every other of a dtype, as a rank-0 array."""
    if dtype in FLOATS:
        return np.array(-np.inf, dtype)
    return np.array(False if dtype == core.bool_ else np.iinfo(dtype).min, dtype)


def check_positive(name, values, count):
    """Check that a parameter has one positive entry for each of `count` dimensions."""
    if len(values) != count or any(v < 1 for v in values):
        raise OperandError(
            f"{name} must have {count} entries, each at least 1, not {tuple(values)}"
        )


pad_p = Primitive("pad")


@pad_p.rule("abstract")
def _pad_aval(operand, padding_value, *, padding_config):
    if padding_value.shape:
        raise OperandError(f"padding_value must be a scalar, not {padding_value}")
    if padding_value.dtype != operand.dtype:
        raise OperandError(
            f"padding_value must have the operand's dtype {operand.dtype}, "
            f"not {padding_value.dtype}"
        )
    if len(padding_config) != operand.ndim:
        raise OperandError(f"padding_config must have {operand.ndim} entries, not {padding_config}")
    if any(interior < 0 for _, _, interior in padding_config):
        raise OperandError(f"interior padding must be at least 0, not {padding_config}")
    shape = tuple(
        low + high + dilated_size(n, interior + 1)
        for n, (low, high, interior) in zip(operand.shape, padding_config, strict=True)
    )
    if any(n < 0 for n in shape):
        raise OperandError(
            f"padding must leave sizes of at least 0, not {shape}: padding_config "
            f"{padding_config} of shape {operand.shape}"
        )
    return operand.update(shape=shape, weak_type=operand.weak_type and padding_value.weak_type)


@pad_p.rule("impl")
def _pad_impl(operand, padding_value, *, padding_config):
    return padded(operand, padding_value, padding_config)


rev_p = Primitive("rev")


@rev_p.rule("abstract")
def _rev_aval(operand, *, dimensions):
    if len(set(dimensions)) != len(dimensions) or any(
        not 0 <= d < operand.ndim for d in dimensions
    ):
        raise OperandError(
            f"dimensions must be distinct and below {operand.ndim}, not {dimensions}"
        )
    return operand


@rev_p.rule("impl")
def _rev_impl(operand, *, dimensions):
    return np.flip(operand, dimensions)


reduce_window_max_p = Primitive("reduce_window_max")


@reduce_window_max_p.rule("abstract")
def _window_aval(
    operand, *, window_dimensions, window_strides, padding, base_dilation, window_dilation
):
    check_positive("window_dimensions", window_dimensions, operand.ndim)
    check_positive("window_strides", window_strides, operand.ndim)
    check_positive("base_dilation", base_dilation, operand.ndim)
    check_positive("window_dilation", window_dilation, operand.ndim)
    if len(padding) != operand.ndim:
        raise OperandError(
            f"padding must have {operand.ndim} (low, high) pairs, not {tuple(padding)}"
        )
    sizes = [
        dilated_size(n, d) + low + high
        for n, d, (low, high) in zip(operand.shape, base_dilation, padding, strict=True)
    ]
    if any(n < 0 for n in sizes):
        raise OperandError(
            f"padding must leave sizes of at least 0, not {sizes}: padding {padding} of shape "
            f"{operand.shape}"
        )
    windows = map(dilated_size, window_dimensions, window_dilation)
    return operand.update(shape=tuple(map(window_count, sizes, windows, window_strides)))


@reduce_window_max_p.rule("impl")
def _window_impl(
    operand, *, window_dimensions, window_strides, padding, base_dilation, window_dilation
):
    low = max_identity(operand.dtype)
    config = [(lo, hi, d - 1) for (lo, hi), d in zip(padding, base_dilation, strict=True)]
    x = padded(operand, low, config)
    windows = map(dilated_size, window_dimensions, window_dilation)
    shape = tuple(map(window_count, x.shape, windows, window_strides))
    out = np.full(shape, low, operand.dtype)
    for tap in product(*map(range, window_dimensions)) if out.size else ():
        starts = [t * d for t, d in zip(tap, window_dilation, strict=True)]
        index = zip(starts, shape, window_strides, strict=True)
        out = max_p.impl(out, x[tuple(slice(b, b + (n - 1) * s + 1, s) for b, n, s in index)])
    return out
