"""NumPy's functions that move data and compute nothing: shapes, axes, indices."""

import numpy as np
from tilewright.compiler import primitives as p
from tilewright.compiler import trace
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.operands import (
    axis_index,
    axis_indices,
    convert,
    operand_avals,
    shape_tuple,
)
from tilewright.compiler.primitives_pad import pad_p
from tilewright.compiler.source import user_source


def broadcast_to(x, shape):
    """NumPy's broadcast_to."""
    operand_avals("broadcast_to", (x,))
    shape = shape_tuple(shape)
    old = trace.aval_of(x).shape
    if old == shape:
        return x
    first = len(shape) - len(old)
    if first < 0 or any(n not in (1, m) for n, m in zip(old, shape[first:], strict=True)):
        raise OperandError(f"shape {old} does not broadcast to {shape} (at {user_source()})")
    dims = tuple(range(first, len(shape)))
    return trace.bind(p.broadcast_in_dim_p, x, shape=shape, broadcast_dimensions=dims)


def _reshaped(x, shape):
    return x if trace.aval_of(x).shape == shape else trace.bind(p.reshape_p, x, new_sizes=shape)


def reshape(x, shape, order="C"):
    """NumPy's reshape, in C order; one dimension may be -1."""
    operand_avals("reshape", (x,))
    if order != "C":
        raise UnsupportedError(f"reshape: order must be 'C', not {order!r} (at {user_source()})")
    old, shape = trace.aval_of(x), shape_tuple(shape)
    if shape.count(-1) == 1:
        rest = int(np.prod([n for n in shape if n != -1], dtype=np.int64))
        if rest == 0 or old.size % rest:
            raise OperandError(f"reshape({old}): no size fits -1 in {shape} (at {user_source()})")
        shape = tuple(old.size // rest if n == -1 else n for n in shape)
    return _reshaped(x, shape)


def ravel(x, order="C"):
    """NumPy's ravel."""
    (aval,) = operand_avals("ravel", (x,))
    return reshape(x, (aval.size,), order)


def transpose(x, axes=None):
    """NumPy's transpose."""
    operand_avals("transpose", (x,))
    ndim = trace.aval_of(x).ndim
    axes = tuple(reversed(range(ndim))) if axes is None else tuple(axis_indices(tuple(axes), ndim))
    if len(axes) != ndim:
        raise OperandError(f"axes must permute {ndim} dimensions, not {axes} (at {user_source()})")
    return x if axes == tuple(range(ndim)) else trace.bind(p.transpose_p, x, permutation=axes)


def matrix_transpose(x):
    """Swap the last two axes."""
    return swapaxes(x, -1, -2)


def swapaxes(x, axis1, axis2):
    """NumPy's swapaxes."""
    axes = list(range(trace.aval_of(x).ndim))
    a, b = axis_index(axis1, len(axes)), axis_index(axis2, len(axes))
    axes[a], axes[b] = axes[b], axes[a]
    return transpose(x, axes)


def moveaxis(x, source, destination):
    """NumPy's moveaxis."""
    ndim = trace.aval_of(x).ndim
    sources, places = axis_indices(source, ndim), axis_indices(destination, ndim)
    if len(sources) != len(places):
        raise OperandError(
            f"source and destination must have as many axes, not {source!r} and {destination!r} "
            f"(at {user_source()})"
        )
    order = [d for d in range(ndim) if d not in sources]
    for place, axis in sorted(zip(places, sources, strict=True)):
        order.insert(place, axis)
    return transpose(x, order)


def expand_dims(x, axis):
    """NumPy's expand_dims."""
    operand_avals("expand_dims", (x,))
    shape = list(trace.aval_of(x).shape)
    given = axis if isinstance(axis, tuple | list) else (axis,)
    for place in sorted(axis_indices(axis, len(shape) + len(given))):
        shape.insert(place, 1)
    return _reshaped(x, tuple(shape))


def squeeze(x, axis=None):
    """NumPy's squeeze."""
    operand_avals("squeeze", (x,))
    shape = trace.aval_of(x).shape
    ones = [d for d, n in enumerate(shape) if n == 1]
    axes = ones if axis is None else axis_indices(axis, len(shape))
    if not set(axes) <= set(ones):
        raise OperandError(
            f"squeeze: axis {axis!r} of shape {shape} must have size 1 (at {user_source()})"
        )
    return _reshaped(x, tuple(n for d, n in enumerate(shape) if d not in axes))


def pad_by(x, value, config):
    """Pad by (low, high, interior) per dimension with a scalar, which takes the dtype of x."""
    aval = trace.aval_of(x)
    return trace.bind(pad_p, x, convert(value, aval.dtype, aval.weak_type), padding_config=config)


def pad_pairs(name, value, ndim, kinds):
    """Return NumPy's pad_width or constant_values as one (before, after) per dimension."""
    try:
        pairs = np.broadcast_to(np.asarray(value), (ndim, 2))
    except ValueError:
        raise OperandError(
            f"pad: {name} must broadcast to {(ndim, 2)}, not {value!r} (at {user_source()})"
        ) from None
    if pairs.dtype.kind not in kinds:
        raise OperandError(
            f"pad: {name} must hold {'ints' if kinds == 'iu' else 'numbers'}, not {value!r} "
            f"(at {user_source()})"
        )
    return pairs.tolist()


def pad(array, pad_width, mode="constant", constant_values=0):
    """NumPy's pad with constants; `pad_width` is a number, (before, after), or a pair per axis."""
    (aval,) = operand_avals("pad", (array,))
    if mode != "constant":
        raise UnsupportedError(f"pad: mode must be 'constant', not {mode!r} (at {user_source()})")
    widths = pad_pairs("pad_width", pad_width, aval.ndim, "iu") if aval.ndim else []
    if any(n < 0 for pair in widths for n in pair):
        raise OperandError(
            f"pad: pad_width must be at least 0, not {pad_width!r} (at {user_source()})"
        )
    if np.ndim(constant_values) == 0:  # also a traced scalar
        if not any(n for pair in widths for n in pair):
            return array
        return pad_by(array, constant_values, tuple((low, high, 0) for low, high in widths))
    values = pad_pairs("constant_values", constant_values, aval.ndim, "biuf")
    for axis, (pair, fills) in enumerate(zip(widths, values, strict=True)):
        for side, (width, fill) in enumerate(zip(pair, fills, strict=True)):
            if width:
                entry = (0, width, 0) if side else (width, 0, 0)
                config = [(0, 0, 0)] * aval.ndim
                config[axis] = entry
                array = pad_by(array, fill, tuple(config))
    return array
