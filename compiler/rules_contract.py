"""Derivatives and batches of contractions: `dot_general` and `conv_general_dilated`.

Both are linear in each operand; the cotangent of one is a contraction of the result's with the
other one. A batch becomes a batch dimension of a contraction, more rows of it, or, of a
convolution, more images or more groups.

Source: JAX, ``jax/_src/lax/lax.py`` and ``convolution.py``, whose rules these follow.
"""

from tilewright.compiler import core
from tilewright.compiler.batching import move_dim
from tilewright.compiler.forward import Zero, filled
from tilewright.compiler.primitives_conv import ConvDimensionNumbers, conv_general_dilated_p
from tilewright.compiler.primitives_dot import dot_general_p, free_dims
from tilewright.compiler.primitives_pad import dilated_size, rev_p
from tilewright.compiler.rules import bind, convert, define_bilinear, reshape, transpose
from tilewright.compiler.trace import aval_of


def _matched(ct, other, precision):
    """Return a cotangent and the other operand in one dtype.

    At precision 'default' the array rounds to bfloat16 anyhow, so that is the one that is small.
    """
    to, dtype = aval_of(ct), aval_of(other).dtype
    if to.dtype == dtype:
        return ct, other
    if precision == "default":
        return convert(ct, to.update(dtype=dtype)), other
    return ct, convert(other, aval_of(other).update(dtype=to.dtype))


def _dot_operand(ct, x, y, swapped, *, dimension_numbers, precision="default", **params):
    """The cotangent of the operand x; y is the other one, the first of the two if `swapped`."""
    (x_contract, y_contract), (x_batch, y_batch) = dimension_numbers
    y_ndim = aval_of(y).ndim
    x_kept = free_dims(x.ndim, x_contract, x_batch)
    y_kept = free_dims(y_ndim, y_contract, y_batch)
    first = len(x_batch) + (0 if swapped else len(x_kept))
    ct_y = tuple(range(first, first + len(y_kept)))
    ct, y = _matched(ct, y, precision)
    batch = tuple(range(len(x_batch)))
    contracted = [x_contract[i] for i in sorted(range(len(y_contract)), key=y_contract.__getitem__)]
    if swapped:  # in the order of the operands the result mostly has x's own order
        numbers, order = ((y_kept, ct_y), (y_batch, batch)), [*x_batch, *contracted, *x_kept]
        operands = y, ct
    else:
        numbers, order = ((ct_y, y_kept), (batch, y_batch)), [*x_batch, *x_kept, *contracted]
        operands = ct, y
    found = bind(dot_general_p, *operands, dimension_numbers=numbers, precision=precision, **params)
    return convert(transpose(found, (order.index(d) for d in range(x.ndim))), x)


def _dot_second(ct, x, y, *, dimension_numbers, **params):
    (lc, rc), (lb, rb) = dimension_numbers
    return _dot_operand(ct, y, x, True, dimension_numbers=((rc, lc), (rb, lb)), **params)


define_bilinear(
    dot_general_p, lambda ct, x, y, **params: _dot_operand(ct, x, y, False, **params), _dot_second
)


def _shifted(dims, at):
    return dims if at is None else tuple(d + (d >= at) for d in dims)


@dot_general_p.rule("batch")
def _dot_batch(size, args, dims, *, dimension_numbers, **params):
    (x, y), (left, right) = args, dims
    (lc, rc), (lb, rb) = dimension_numbers
    lc, lb = _shifted(lc, left), _shifted(lb, left)
    rc, rb = _shifted(rc, right), _shifted(rb, right)
    if left is not None and right is not None:
        lb, rb, out = (left, *lb), (right, *rb), 0
    elif left is not None:
        out = len(lb) + free_dims(aval_of(x).ndim, lc, lb).index(left)
    else:
        out = aval_of(x).ndim - len(lc) + free_dims(aval_of(y).ndim, rc, rb).index(right)
    numbers = ((lc, rc), (lb, rb))
    return bind(dot_general_p, x, y, dimension_numbers=numbers, **params), out


def _joined(x, source, to):
    """Merge a dimension into another, as its slower part; `to` counts without it."""
    x = move_dim(x, source, to)
    shape = aval_of(x).shape
    return reshape(x, (*shape[:to], shape[to] * shape[to + 1], *shape[to + 2 :]))


def _parted(x, dim, count):
    """Split a dimension in two, the slower one of size `count`."""
    shape = aval_of(x).shape
    return reshape(x, (*shape[:dim], count, shape[dim] // count, *shape[dim + 1 :]))


def _conv(lhs, rhs, params, **changes):
    return bind(conv_general_dilated_p, lhs, rhs, **{**params, **changes})


def _groups(params):
    return params.get("feature_group_count", 1), params.get("batch_group_count", 1)


def _sizes(shape, spec, dilation):
    return [dilated_size(shape[d], n) for d, n in zip(spec[2:], dilation, strict=True)]


def _turned(spec):
    return (spec[1], spec[0], *spec[2:])


def _conv_lhs(ct, lhs, rhs, **params):
    """A convolution of the dilated cotangent with the reversed kernel."""
    numbers, (features, batches) = params["dimension_numbers"], _groups(params)
    lhs_spec, rhs_spec, out_spec = numbers
    sizes = zip(
        params["padding"],
        _sizes(lhs.shape, lhs_spec, params["lhs_dilation"]),
        _sizes(aval_of(rhs).shape, rhs_spec, params["rhs_dilation"]),
        _sizes(aval_of(ct).shape, out_spec, params["window_strides"]),
        strict=True,
    )
    padding = tuple((k - 1 - low, n + low - out) for (low, _), n, k, out in sizes)
    ct, rhs = _matched(ct, rhs, params.get("precision", "default"))
    groups = max(features, batches)
    if groups > 1:
        rhs = _joined(_parted(rhs, rhs_spec[0], groups), rhs_spec[0], rhs_spec[1])
    found = _conv(
        ct, bind(rev_p, rhs, dimensions=rhs_spec[2:]), params,
        window_strides=params["lhs_dilation"], lhs_dilation=params["window_strides"],
        padding=padding, feature_group_count=groups, batch_group_count=1,
        dimension_numbers=ConvDimensionNumbers(out_spec, _turned(rhs_spec), lhs_spec),
    )  # fmt: skip
    if batches > 1:
        found = _joined(_parted(found, lhs_spec[1], batches), lhs_spec[1], lhs_spec[0])
    return convert(found, lhs)


def _conv_rhs(ct, lhs, rhs, **params):
    """A convolution of the operand with the cotangent, images and features changing places."""
    if not aval_of(ct).size:
        return Zero(rhs)
    numbers, (features, batches) = params["dimension_numbers"], _groups(params)
    sizes = zip(
        params["padding"],
        _sizes(aval_of(lhs).shape, numbers.lhs_spec, params["lhs_dilation"]),
        _sizes(rhs.shape, numbers.rhs_spec, params["rhs_dilation"]),
        _sizes(aval_of(ct).shape, numbers.out_spec, params["window_strides"]),
        strict=True,
    )
    padding = tuple((low, out - n + k - low - 1) for (low, _), n, k, out in sizes)
    ct, lhs = _matched(ct, lhs, params.get("precision", "default"))
    found = _conv(
        lhs, ct, params,
        window_strides=params["rhs_dilation"], rhs_dilation=params["window_strides"],
        padding=padding, feature_group_count=batches, batch_group_count=features,
        dimension_numbers=ConvDimensionNumbers(
            _turned(numbers.lhs_spec), _turned(numbers.out_spec), _turned(numbers.rhs_spec)
        ),
    )  # fmt: skip
    return convert(found, rhs)


define_bilinear(conv_general_dilated_p, _conv_lhs, _conv_rhs)


@conv_general_dilated_p.rule("batch")
def _conv_batch(size, args, dims, **params):
    (lhs, rhs), (left, right) = args, dims
    if not size:
        return _no_examples(args, dims, params), 0
    if right is None:
        return _batched_lhs(size, lhs, rhs, left, params)
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    features, batches = _groups(params)
    if left is not None:  # each example's kernel for its images: groups
        to, name, count = 1, "feature_group_count", features
        if batches > 1:
            to, name, count = 0, "batch_group_count", batches
        changes = {name: count * size}
        lhs, rhs = _joined(lhs, left, lhs_spec[to]), _joined(rhs, right, rhs_spec[0])
        return _parted(_conv(lhs, rhs, params, **changes), out_spec[1], size), out_spec[1]
    groups = max(features, batches)
    if groups == 1:
        out = _conv(lhs, _joined(rhs, right, rhs_spec[0]), params)
        return _parted(out, out_spec[1], size), out_spec[1]
    rhs = _inside_groups(rhs, right, rhs_spec[0], groups)
    out = _parted(_conv(lhs, rhs, params), out_spec[1], groups)
    out = _parted(out, out_spec[1] + 1, size)
    return _joined(out, out_spec[1], out_spec[1] + 1), out_spec[1]


def _inside_groups(x, source, to, groups):
    """Merge a batch into a dimension, the groups of which stay its slowest part."""
    x = _parted(x, to + (source <= to), groups)
    x = _joined(x, source + (to < source), to + 1)
    return _joined(x, to, to)


def _batched_lhs(size, lhs, rhs, left, params):
    """More images."""
    numbers, (_, batches) = params["dimension_numbers"], _groups(params)
    to, out_dim = numbers.lhs_spec[0], numbers.out_spec[0]
    lhs = _joined(lhs, left, to) if batches == 1 else _inside_groups(lhs, left, to, batches)
    return _parted(_conv(lhs, rhs, params), out_dim, size), out_dim


def _no_examples(args, dims, params):
    avals = []
    for x, dim in zip(args, dims, strict=True):
        aval = aval_of(x)
        kept = tuple(n for d, n in enumerate(aval.shape) if d != dim)
        avals.append(core.ShapedArray(kept, aval.dtype))
    out = conv_general_dilated_p.abstract(*avals, **params)
    return filled(out.update(shape=(0, *out.shape)), 0)
