"""Derivatives and batches of reductions, scans and windowed maxima.

The derivative of a maximum belongs to where it is found, in equal parts if there are several places
(of a window: to the first of them, as in JAX). Products and scans are differentiated as the
combinations at doubling distances that they are.
"""

from itertools import product

from tilewright.compiler import primitives as p
from tilewright.compiler import primitives_lanes as lanes
from tilewright.compiler import primitives_reduce as r
from tilewright.compiler.forward import Zero, jvp_flat
from tilewright.compiler.primitives_pad import max_identity, pad_p, reduce_window_max_p
from tilewright.compiler.rules import (
    add,
    bind,
    broadcast,
    convert,
    define_jvp,
    define_linear,
    div,
    mul,
    no_derivative,
    number,
    reshape,
    select,
    sum_over,
)
from tilewright.compiler.trace import aval_of


def _kept(ndim, axes):
    return [d for d in range(ndim) if d not in axes]


def _spread_back(x, shape, axes):
    """Return a reduction's result as an array of its operand's shape."""
    return broadcast(x, shape, _kept(len(shape), axes))


define_linear(r.reduce_sum_p, lambda ct, aval, *, axes: _spread_back(ct, aval.shape, axes))


def _extreme(t, out, x, *, axes):
    here = bind(p.eq_p, x, _spread_back(out, aval_of(x).shape, axes))
    found = convert(here, aval_of(x).update(weak_type=False))
    return div(sum_over(mul(t, found), axes), sum_over(found, axes))


define_jvp(r.reduce_max_p, _extreme)
define_jvp(r.reduce_min_p, _extreme)


def _piece(x, axis, start, limit, step=1):
    shape = aval_of(x).shape
    starts, limits, steps = [0] * len(shape), list(shape), [1] * len(shape)
    starts[axis], limits[axis], steps[axis] = start, limit, step
    params = {"strides": tuple(steps)} if step > 1 else {}
    return bind(p.slice_p, x, start_indices=tuple(starts), limit_indices=tuple(limits), **params)


def _padded(x, axis, low, high, value):
    config = [(0, 0, 0)] * aval_of(x).ndim
    config[axis] = (low, high, 0)
    return bind(pad_p, x, number(value, x), padding_config=tuple(config))


def _product(x, axes):
    """A product as a tree of products of halves."""
    for axis in axes:
        while (n := aval_of(x).shape[axis]) > 1:
            half = (n + 1) // 2
            rest = _padded(_piece(x, axis, half, n), axis, 0, n % 2, 1)
            x = mul(_piece(x, axis, 0, half), rest)
    shape = aval_of(x).shape
    return reshape(x, [shape[d] for d in _kept(len(shape), axes)])


@r.reduce_prod_p.rule("jvp")
def _prod_jvp(primals, tangents, *, axes):
    out = bind(r.reduce_prod_p, *primals, axes=axes)
    if 0 in aval_of(primals[0]).shape:
        return out, Zero(aval_of(out))
    _, (tangent,) = jvp_flat(lambda x: [_product(x, axes)], primals, tangents)
    return out, tangent


define_linear(
    r.cumsum_p,
    lambda ct, aval, *, axis, reverse: bind(r.cumsum_p, ct, axis=axis, reverse=not reverse),
)


def _scan_jvp(primitive, combine, reduction):
    def scanned(x, axis, reverse):
        n, distance = aval_of(x).shape[axis], 1
        start = r.identity(reduction, aval_of(x).dtype)
        while distance < n:
            low, high = (-distance, distance) if reverse else (distance, -distance)
            x = bind(combine, x, _padded(x, axis, low, high, start))
            distance *= 2
        return [x]

    @primitive.rule("jvp")
    def jvp(primals, tangents, *, axis, reverse):
        out = bind(primitive, *primals, axis=axis, reverse=reverse)
        _, (tangent,) = jvp_flat(lambda x: scanned(x, axis, reverse), primals, tangents)
        return out, tangent


_scan_jvp(r.cumprod_p, p.mul_p, "prod")
_scan_jvp(r.cummax_p, p.max_p, "max")
_scan_jvp(r.cummin_p, p.min_p, "min")

#: Predicates and indices: no derivative.
STEPS = (r.reduce_and_p, r.reduce_or_p, r.argmax_p, r.argmin_p)
for _primitive in STEPS:
    no_derivative(_primitive)


def _batch_reduction(primitive):
    @primitive.rule("batch")
    def batch(size, args, dims, *, axes, **params):
        (x,), (dim,) = args, dims
        moved = tuple(a + (a >= dim) for a in axes)
        return bind(primitive, x, axes=moved, **params), dim - sum(a < dim for a in moved)


def _batch_scan(primitive):
    @primitive.rule("batch")
    def batch(size, args, dims, *, axis, **params):
        (x,), (dim,) = args, dims
        return bind(primitive, x, axis=axis + (axis >= dim), **params), dim


for _primitive in (
    r.reduce_sum_p, r.reduce_prod_p, r.reduce_max_p, r.reduce_min_p,
    r.reduce_and_p, r.reduce_or_p, r.argmax_p, r.argmin_p,
):  # fmt: skip
    _batch_reduction(_primitive)
for _primitive in (r.cumsum_p, r.cumprod_p, r.cummax_p, r.cummin_p):
    _batch_scan(_primitive)


def _taps(x, value, out_shape, params):
    """Yield, for each element of the window, what each result's window has there."""
    base, pads = params["base_dilation"], params["padding"]
    config = tuple((low, high, d - 1) for (low, high), d in zip(pads, base, strict=True))
    x = bind(pad_p, x, number(value, x), padding_config=config)
    steps = params["window_strides"]
    for tap in product(*map(range, params["window_dimensions"])):
        starts = tuple(t * d for t, d in zip(tap, params["window_dilation"], strict=True))
        sizes = zip(starts, out_shape, steps, strict=True)
        limits = tuple(start + (n - 1) * step + 1 for start, n, step in sizes)
        kwargs = {"strides": steps} if set(steps) - {1} else {}
        yield bind(p.slice_p, x, start_indices=starts, limit_indices=limits, **kwargs)


@reduce_window_max_p.rule("jvp")
def _window_jvp(primals, tangents, **params):
    (x,), (t,) = primals, tangents
    out = bind(reduce_window_max_p, x, **params)
    shape = aval_of(out).shape
    if 0 in shape or 0 in aval_of(x).shape:
        return out, Zero(aval_of(out))
    total = free = None
    values = _taps(x, max_identity(aval_of(x).dtype), shape, params)
    for value, tangent in zip(values, _taps(t, 0, shape, params), strict=True):
        here = bind(p.eq_p, value, out)
        if free is None:
            total, free = select(here, tangent, number(0, t)), bind(lanes.not_p, here)
        else:
            part = select(bind(lanes.and_p, here, free), tangent, number(0, t))
            total, free = add(total, part), bind(lanes.and_p, free, bind(lanes.not_p, here))
    return out, total


@reduce_window_max_p.rule("batch")
def _window_batch(size, args, dims, **params):
    (x,), (dim,) = args, dims
    ones = {"padding": (0, 0)}
    grown = {
        name: (*values[:dim], ones.get(name, 1), *values[dim:]) for name, values in params.items()
    }
    return bind(reduce_window_max_p, x, **grown), dim
