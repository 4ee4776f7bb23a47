"""Derivatives and batches of parts at computed places: linear in the arrays, not in the starts."""

import numpy as np
from tilewright.compiler import primitives as p
from tilewright.compiler.batching import move_dim
from tilewright.compiler.core import Literal, ShapedArray, int32
from tilewright.compiler.forward import Zero, filled, instantiate
from tilewright.compiler.primitives_dynamic import dynamic_slice_p, dynamic_update_slice_p
from tilewright.compiler.primitives_join import concatenate_p
from tilewright.compiler.rules import Undefined, bind, reshape
from tilewright.compiler.trace import aval_of

FIRST = Literal(np.zeros((), int32), ShapedArray((), int32))


@dynamic_slice_p.rule("jvp")
def _slice_jvp(primals, tangents, *, slice_sizes):
    out = bind(dynamic_slice_p, *primals, slice_sizes=slice_sizes)
    if isinstance(tangents[0], Zero):
        return out, Zero(aval_of(out))
    return out, bind(dynamic_slice_p, tangents[0], *primals[1:], slice_sizes=slice_sizes)


@dynamic_slice_p.rule("transpose")
def _slice_transpose(ct, x, *starts, slice_sizes):
    found = bind(dynamic_update_slice_p, filled(x.aval, 0), ct, *starts)
    return [found, *(None for _ in starts)]


@dynamic_update_slice_p.rule("jvp")
def _update_jvp(primals, tangents):
    out = bind(dynamic_update_slice_p, *primals)
    if isinstance(tangents[0], Zero) and isinstance(tangents[1], Zero):
        return out, Zero(aval_of(out))
    return out, bind(dynamic_update_slice_p, *map(instantiate, tangents[:2]), *primals[2:])


@dynamic_update_slice_p.rule("transpose")
def _update_transpose(ct, x, update, *starts):
    found = [None, None, *(None for _ in starts)]
    aval = update.aval if isinstance(update, Undefined) else aval_of(update)
    if isinstance(x, Undefined):
        found[0] = bind(dynamic_update_slice_p, ct, filled(aval, 0), *starts)
    if isinstance(update, Undefined):
        found[1] = bind(dynamic_slice_p, ct, *starts, slice_sizes=aval.shape)
    return found


def _row(x, dim, i):
    """Element i of a batched dimension, as an array of one."""
    if dim is None:
        return x
    x = move_dim(x, dim, 0)
    shape = aval_of(x).shape
    starts, limits = (i, *(0 for _ in shape[1:])), (i + 1, *shape[1:])
    row = bind(p.slice_p, x, start_indices=starts, limit_indices=limits)
    return reshape(row, shape[1:])


def _one_by_one(size, args, dims, function):
    """Where starts differ, each part is one of its own."""
    rows = []
    for i in range(size):
        out = function(*(_row(x, d, i) for x, d in zip(args, dims, strict=True)))
        rows.append(reshape(out, (1, *aval_of(out).shape)))
    return bind(concatenate_p, *rows, dimension=0), 0


@dynamic_slice_p.rule("batch")
def _slice_batch(size, args, dims, *, slice_sizes):
    if any(d is not None for d in dims[1:]):
        return _one_by_one(
            size, args, dims, lambda *a: bind(dynamic_slice_p, *a, slice_sizes=slice_sizes)
        )
    x = move_dim(args[0], dims[0], 0)
    sizes = (size, *slice_sizes)
    return bind(dynamic_slice_p, x, FIRST, *args[1:], slice_sizes=sizes), 0


@dynamic_update_slice_p.rule("batch")
def _update_batch(size, args, dims):
    if any(d is not None for d in dims[2:]) or None in dims[:2]:
        return _one_by_one(size, args, dims, lambda *a: bind(dynamic_update_slice_p, *a))
    x, update = (move_dim(a, d, 0) for a, d in zip(args[:2], dims[:2], strict=True))
    return bind(dynamic_update_slice_p, x, update, FIRST, *args[2:]), 0
