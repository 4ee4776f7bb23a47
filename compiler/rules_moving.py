"""Derivatives and batches of what moves data: all of it is linear in the data."""

from tilewright.compiler import primitives as p
from tilewright.compiler.batching import batched_at, move_dim
from tilewright.compiler.forward import Zero, filled
from tilewright.compiler.primitives_barrier import optimization_barrier_p
from tilewright.compiler.primitives_join import concatenate_p
from tilewright.compiler.primitives_pad import pad_p, rev_p
from tilewright.compiler.rules import (
    Undefined,
    batch_elementwise,
    bind,
    broadcast,
    define_linear,
    number,
    reshape,
    select,
    sub,
    sum_over,
)
from tilewright.compiler.trace import aval_of


def inverse(order):
    """Return the permutation that undoes one."""
    return tuple(order.index(d) for d in range(len(order)))


def _unbroadcast(ct, aval, *, shape, broadcast_dimensions):
    dims = broadcast_dimensions
    grown = [d for n, d in zip(aval.shape, dims, strict=True) if n != shape[d]]
    new = [d for d in range(len(shape)) if d not in dims]
    return reshape(sum_over(ct, sorted(grown + new)), aval.shape)


define_linear(p.broadcast_in_dim_p, _unbroadcast)
define_linear(optimization_barrier_p, lambda ct, aval: bind(optimization_barrier_p, ct))
batch_elementwise(optimization_barrier_p)
define_linear(p.reshape_p, lambda ct, aval, *, new_sizes: reshape(ct, aval.shape))
define_linear(
    p.transpose_p,
    lambda ct, aval, *, permutation: bind(p.transpose_p, ct, permutation=inverse(permutation)),
)
define_linear(rev_p, lambda ct, aval, *, dimensions: bind(rev_p, ct, dimensions=dimensions))


def _unslice(ct, aval, *, start_indices, limit_indices, strides=None):
    shape = aval_of(ct).shape
    config = []
    for n, start, m, step in zip(
        aval.shape, start_indices, shape, strides or (1,) * len(shape), strict=True
    ):
        used = (m - 1) * step + 1 if m else 0
        config.append((start, n - start - used, step - 1))
    return bind(pad_p, ct, number(0, ct), padding_config=tuple(config))


define_linear(p.slice_p, _unslice)


@p.broadcast_in_dim_p.rule("batch")
def _broadcast_batch(size, args, dims, *, shape, broadcast_dimensions):
    x = move_dim(args[0], dims[0], 0)
    dims = (0, *(d + 1 for d in broadcast_dimensions))
    return broadcast(x, (size, *shape), dims), 0


@p.reshape_p.rule("batch")
def _reshape_batch(size, args, dims, *, new_sizes):
    return reshape(move_dim(args[0], dims[0], 0), (size, *new_sizes)), 0


@p.transpose_p.rule("batch")
def _transpose_batch(size, args, dims, *, permutation):
    (x,), (dim,) = args, dims
    order = (dim, *(d + (d >= dim) for d in permutation))
    return bind(p.transpose_p, x, permutation=order), 0


@rev_p.rule("batch")
def _rev_batch(size, args, dims, *, dimensions):
    (x,), (dim,) = args, dims
    return bind(rev_p, x, dimensions=tuple(d + (d >= dim) for d in dimensions)), dim


@p.slice_p.rule("batch")
def _slice_batch(size, args, dims, *, start_indices, limit_indices, strides=None):
    (x,), (dim,) = args, dims

    def grown(values, value):
        return (*values[:dim], value, *values[dim:])

    params = {} if strides is None else {"strides": grown(strides, 1)}
    starts, limits = grown(start_indices, 0), grown(limit_indices, size)
    return bind(p.slice_p, x, start_indices=starts, limit_indices=limits, **params), dim


@pad_p.rule("jvp")
def _pad_jvp(primals, tangents, *, padding_config):
    out = bind(pad_p, *primals, padding_config=padding_config)
    return out, bind(pad_p, *_arrays(tangents), padding_config=padding_config)


@pad_p.rule("transpose")
def _pad_transpose(ct, x, value, *, padding_config):
    """The operand's part is cropped from the cotangent; all the rest is the padding value's."""
    shape = x.aval.shape if isinstance(x, Undefined) else aval_of(x).shape
    crop = tuple((-low, -high, 0) for low, high, _ in padding_config)
    part = bind(pad_p, ct, number(0, ct), padding_config=crop)
    steps = tuple(interior + 1 for _, _, interior in padding_config)
    if set(steps) - {1}:
        limits = aval_of(part).shape
        starts = (0,) * len(shape)
        part = bind(p.slice_p, part, start_indices=starts, limit_indices=limits, strides=steps)
    found = [part if isinstance(x, Undefined) else None, None]
    if isinstance(value, Undefined):
        rank = range(len(shape))
        found[1] = sub(sum_over(ct, rank), sum_over(part, rank))
    return found


@pad_p.rule("batch")
def _pad_batch(size, args, dims, *, padding_config):
    """Values that differ fill by choice: where padding of a mask shows that there is padding."""
    (x, value), (dim, value_dim) = args, dims
    if value_dim is None:
        config = (*padding_config[:dim], (0, 0, 0), *padding_config[dim:])
        return bind(pad_p, x, value, padding_config=config), dim
    x = batched_at(x, dim, size)
    config = ((0, 0, 0), *padding_config)
    out = bind(pad_p, x, number(0, x), padding_config=config)
    ones = filled(aval_of(x).update(shape=aval_of(x).shape[1:]), 1)
    mask = bind(pad_p, ones, number(0, x), padding_config=padding_config)
    shape = aval_of(out).shape
    mask = broadcast(mask, shape, range(1, len(shape)))
    inside = bind(p.ne_p, mask, number(0, mask))
    return select(inside, out, broadcast(value, shape, (0,))), 0


def _arrays(tangents):
    return [filled(t.aval, 0) if isinstance(t, Zero) else t for t in tangents]


@concatenate_p.rule("jvp")
def _concatenate_jvp(primals, tangents, *, dimension):
    out = bind(concatenate_p, *primals, dimension=dimension)
    return out, bind(concatenate_p, *_arrays(tangents), dimension=dimension)


@concatenate_p.rule("transpose")
def _concatenate_transpose(ct, *args, dimension):
    found, start = [], 0
    for x in args:
        shape = (x.aval if isinstance(x, Undefined) else aval_of(x)).shape
        stop = start + shape[dimension]
        part = None
        if isinstance(x, Undefined):
            starts = tuple(start if d == dimension else 0 for d in range(len(shape)))
            limits = tuple(stop if d == dimension else n for d, n in enumerate(shape))
            part = bind(p.slice_p, ct, start_indices=starts, limit_indices=limits)
        found.append(part)
        start = stop
    return found


@concatenate_p.rule("batch")
def _concatenate_batch(size, args, dims, *, dimension):
    parts = [batched_at(x, d, size) for x, d in zip(args, dims, strict=True)]
    return bind(concatenate_p, *parts, dimension=dimension + 1), 0
