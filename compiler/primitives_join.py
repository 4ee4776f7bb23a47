"""`concatenate` and `iota`: type rules and NumPy implementations, as JAX's `lax`."""

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.core import FLOATS, INTS, Primitive, ShapedArray
from tilewright.compiler.errors import OperandError
from tilewright.compiler.primitives import convert

concatenate_p = Primitive("concatenate")


@concatenate_p.rule("abstract")
def _concatenate_aval(*avals, dimension):
    first = avals[0]
    if not 0 <= dimension < first.ndim:
        raise OperandError(f"dimension must be in [0, {first.ndim}), not {dimension}")
    if len({a.dtype for a in avals}) > 1:
        raise OperandError(f"operands must have one dtype, not {[str(a.dtype) for a in avals]}")
    rest = {(*a.shape[:dimension], *a.shape[dimension + 1 :]) for a in avals}
    if len(rest) > 1 or len({a.ndim for a in avals}) > 1:
        shapes = ", ".join(str(a.shape) for a in avals)
        raise OperandError(f"shapes must be equal but for dimension {dimension}, not {shapes}")
    size = sum(a.shape[dimension] for a in avals)
    shape = (*first.shape[:dimension], size, *first.shape[dimension + 1 :])
    return ShapedArray(shape, first.dtype, all(a.weak_type for a in avals))


@concatenate_p.rule("impl")
def _concatenate(*arrays, dimension):
    return np.concatenate(arrays, dimension)


iota_p = Primitive("iota")


@iota_p.rule("abstract")
def _iota_aval(*, dtype, shape, dimension):
    if np.dtype(dtype) not in FLOATS + INTS:
        raise OperandError(f"dtype must be a number's, not {np.dtype(dtype)}")
    if not 0 <= dimension < len(shape):
        raise OperandError(f"dimension must be in [0, {len(shape)}), not {dimension}")
    return ShapedArray(shape, dtype)


@iota_p.rule("impl")
def _iota(*, dtype, shape, dimension):
    sizes = [1] * len(shape)
    sizes[dimension] = -1
    return np.broadcast_to(counted(shape[dimension], dtype).reshape(sizes), shape)


def counted(size, dtype):
    """Return 0, 1, ... below `size`, converted to a dtype: integers wrap."""
    return convert(np.arange(size, dtype=core.int32), new_dtype=np.dtype(dtype))
