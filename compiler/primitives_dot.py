"""The contraction primitive, `dot_general`: type rule and NumPy implementation in the chip's order.

``dimension_numbers = ((lhs_contracting, rhs_contracting), (lhs_batch, rhs_batch))``. The result's
dimensions are batch, then lhs free, then rhs free. The contracted dimensions are flattened in the
order in which they are listed; K ascends in blocks of `dim`. float32 operands are rounded to
bfloat16 at precision 'default', else split into parts (`PASSES`); float products are added in
float32, integer ones in int32 that wraps, and the sum is then converted to the result's dtype.
"""

from math import prod

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.core import FLOATS, INTS, Primitive, ShapedArray
from tilewright.compiler.errors import OperandError
from tilewright.compiler.primitives import convert
from tilewright.sim import numerics

#: Of float32 operands: the products of bfloat16 parts (0: high, 1: middle, 2: low; their sum is the
#: operand, see `sim.numerics.f32_parts`) that make a product, the smallest first; K ascends in each
#: before the next begins. As XLA's BF16_BF16_F32_X3 and X6, so an infinite operand may give NaN.
PASSES = {
    "default": ((0, 0),),
    "high": ((1, 0), (0, 1), (0, 0)),
    "highest": ((2, 0), (1, 1), (0, 2), (1, 0), (0, 1), (0, 0)),
}
PRECISIONS = tuple(PASSES)
_BYTES = (core.int8, core.uint8)

dot_general_p = Primitive("dot_general", uses_dim=True)


def free_dims(ndim, contracting, batch):
    """Return the dimensions that are neither contracted nor batch, ascending."""
    return tuple(d for d in range(ndim) if d not in contracting and d not in batch)


def result_dtype(lhs, rhs, preferred_element_type):
    """Return the dtype of a contraction's result; raise OperandError for a pair without one."""
    mixed_bytes = lhs in _BYTES and rhs in _BYTES
    if core.bool_ in (lhs, rhs):
        raise OperandError("bool operands cannot be contracted; convert them with .astype(...)")
    if preferred_element_type is None:
        if lhs != rhs:
            raise OperandError(f"operands must have one dtype, not {lhs} and {rhs}")
        return lhs
    if lhs != rhs and not mixed_bytes:
        raise OperandError(
            f"operands must have one dtype (or be int8 and uint8), not {lhs} and {rhs}"
        )
    kind = FLOATS if lhs in FLOATS else INTS
    if preferred_element_type not in kind:
        raise OperandError(
            f"preferred_element_type must be {'a float' if kind is FLOATS else 'an integer'} dtype "
            f"for {lhs} operands, not {preferred_element_type}"
        )
    if preferred_element_type.itemsize < lhs.itemsize:
        raise OperandError(
            f"preferred_element_type must not be narrower than {lhs}, not {preferred_element_type}"
        )
    return preferred_element_type


def check_precision(precision):
    """Check that a contraction's precision is one of PRECISIONS."""
    if precision not in PRECISIONS:
        raise OperandError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")


@dot_general_p.rule("abstract")
def _dot_aval(lhs, rhs, *, dimension_numbers, precision="default", preferred_element_type=None):
    (lc, rc), (lb, rb) = dimension_numbers
    check_precision(precision)
    for side, aval, contracting, batch in (("lhs", lhs, lc, lb), ("rhs", rhs, rc, rb)):
        dims = (*contracting, *batch)
        if len(set(dims)) != len(dims) or any(not 0 <= d < aval.ndim for d in dims):
            raise OperandError(
                f"{side} dimension numbers must be distinct and below {aval.ndim}, "
                f"not contracting {contracting}, batch {batch}"
            )
    for kind, left, right in (("contracting", lc, rc), ("batch", lb, rb)):
        lsizes = tuple(lhs.shape[d] for d in left)
        rsizes = tuple(rhs.shape[d] for d in right)
        if lsizes != rsizes:
            raise OperandError(
                f"{kind} dimensions must have equal sizes, not {lsizes} of lhs {lhs.shape} and "
                f"{rsizes} of rhs {rhs.shape}"
            )
    dtype = result_dtype(lhs.dtype, rhs.dtype, preferred_element_type)
    shape = [lhs.shape[d] for d in (*lb, *free_dims(lhs.ndim, lc, lb))]
    shape += [rhs.shape[d] for d in free_dims(rhs.ndim, rc, rb)]
    weak = lhs.weak_type and rhs.weak_type and preferred_element_type is None
    return ShapedArray(tuple(shape), dtype, weak)


def passes(dtype, precision):
    """Return the passes of a contraction of this operand dtype; only float32 has more than one."""
    return PASSES[precision or "default"] if dtype == core.float32 else PASSES["default"]


def matmul(a, w, precision, dim):
    """Multiply (M, K) by (K, N) in the accumulator's type, float32 or int32."""
    if a.dtype == core.float32:
        total = None
        parts = [numerics.f32_parts(x) for x in (a, w)]
        for i, j in passes(a.dtype, precision):
            total = numerics.matmul_bf16(parts[0][i], parts[1][j], total, dim, total is not None)
        return total
    if a.dtype in FLOATS:
        return numerics.matmul_bf16(a, w, None, dim, False)
    if a.dtype in _BYTES:
        return numerics.matmul_int8(a, w, None, False)
    return a @ w


@dot_general_p.rule("impl")
def _dot_impl(
    lhs, rhs, *, dimension_numbers, precision="default", preferred_element_type=None, dim
):
    (lc, rc), (lb, rb) = dimension_numbers
    lf, rf = free_dims(lhs.ndim, lc, lb), free_dims(rhs.ndim, rc, rb)
    batch = tuple(lhs.shape[d] for d in lb)
    rows, cols = [lhs.shape[d] for d in lf], [rhs.shape[d] for d in rf]
    depth = prod(lhs.shape[d] for d in lc)
    a = lhs.transpose((*lb, *lf, *lc)).reshape(prod(batch), prod(rows), depth)
    w = rhs.transpose((*rb, *rc, *rf)).reshape(prod(batch), depth, prod(cols))
    dtype = result_dtype(lhs.dtype, rhs.dtype, preferred_element_type)
    out = np.empty((prod(batch), prod(rows), prod(cols)), dtype)
    for i in range(len(out)):
        out[i] = convert(matmul(a[i], w[i], precision, dim), new_dtype=dtype)
    return out.reshape((*batch, *rows, *cols))
