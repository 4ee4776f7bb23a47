"""Parts of arrays at computed places: type rules and NumPy implementations, as JAX's `lax`.

``dynamic_slice[slice_sizes](x, *starts)``, ``dynamic_update_slice(x, update, *starts)``: one int32
scalar for each dimension; a negative start counts from the end, then it is clamped so that the part
lies inside.
"""

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.core import Primitive
from tilewright.compiler.errors import OperandError

dynamic_slice_p = Primitive("dynamic_slice")
dynamic_update_slice_p = Primitive("dynamic_update_slice")


def _check(x, sizes, starts):
    if len(sizes) != x.ndim or any(not 0 <= m <= n for m, n in zip(sizes, x.shape, strict=True)):
        raise OperandError(f"the part must fit into {x}, not have shape {tuple(sizes)}")
    if len(starts) != x.ndim or any(s.shape or s.dtype != core.int32 for s in starts):
        listed = ", ".join(map(str, starts))
        raise OperandError(f"starts must be {x.ndim} int32 scalars, not {listed or 'none'}")


def _box(x, sizes, starts):
    """The part's place, as a tuple of slices."""
    every = zip(starts, x.shape, sizes, strict=True)
    at = [clamped(int(s), n, m) for s, n, m in every]
    return tuple(slice(a, a + m) for a, m in zip(at, sizes, strict=True))


def clamped(start, size, part):
    """Return where a part of a dimension begins."""
    return min(max(start + size if start < 0 else start, 0), size - part)


@dynamic_slice_p.rule("abstract")
def _slice_aval(x, *starts, slice_sizes):
    _check(x, slice_sizes, starts)
    return x.update(shape=slice_sizes)


@dynamic_slice_p.rule("impl")
def _slice(x, *starts, slice_sizes):
    return x[_box(x, slice_sizes, starts)]


@dynamic_update_slice_p.rule("abstract")
def _update_aval(x, update, *starts):
    _check(x, update.shape, starts)
    if update.dtype != x.dtype:
        raise OperandError(f"the update must have the array's dtype {x.dtype}, not {update.dtype}")
    return x.update(weak_type=x.weak_type and update.weak_type)


@dynamic_update_slice_p.rule("impl")
def _update(x, update, *starts):
    out = np.array(x)
    out[_box(x, update.shape, starts)] = update
    return out
