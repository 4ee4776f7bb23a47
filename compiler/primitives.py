"""The primitives: each one's NumPy implementation and type rule, side by side.

They correspond one to one to StableHLO's operations. Element-wise primitives take operands of one
shape; an operand of rank 0 stands for all elements. Data movement never changes bits. Arithmetic
follows DESIGN's "Numbers, exactly" through `sim.numerics`: bfloat16 computes in float32 and rounds
once per equation; integers wrap.
"""

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.core import FLOATS, INTS, Primitive, ShapedArray
from tilewright.compiler.errors import OperandError
from tilewright.sim import numerics

_EVERY = core.DTYPES
_NUMBERS = FLOATS + INTS


def _names(dtypes):
    return ", ".join(map(str, dtypes))


def elementwise_shape(avals):
    """Return the common shape of element-wise operands; those of rank 0 fit any."""
    shapes = {a.shape for a in avals if a.shape}
    if len(shapes) > 1:
        listed = ", ".join(str(a.shape) for a in avals)
        raise OperandError(f"operands must have one shape or be scalars, not shapes {listed}")
    return shapes.pop() if shapes else ()


def elementwise_aval(avals, allowed):
    """Return the aval of element-wise operands of one dtype, which must be allowed."""
    dtypes = {a.dtype for a in avals}
    if len(dtypes) > 1:
        raise OperandError(f"operands must have one dtype, not {_names(a.dtype for a in avals)}")
    (dtype,) = dtypes
    if dtype not in allowed:
        raise OperandError(f"dtype must be one of {_names(allowed)}, not {dtype}")
    return ShapedArray(elementwise_shape(avals), dtype, all(a.weak_type for a in avals))


def _elementwise(name, allowed, on_float, on_int):
    """Make an element-wise primitive from its float32 and its integer function."""
    primitive = Primitive(name)

    @primitive.rule("abstract")
    def abstract(*avals):
        return elementwise_aval(avals, allowed)

    @primitive.rule("impl")
    def impl(*args):
        dtype = args[0].dtype
        if dtype in FLOATS:
            result = on_float(*map(numerics.bf16_to_f32, args))
            result = result.reshape(np.broadcast_shapes(*(a.shape for a in args)))
            return result if dtype == core.float32 else numerics.f32_to_bf16(result)
        with np.errstate(over="ignore", divide="ignore"):
            return np.asarray(on_int(*args)).astype(dtype, copy=False)

    return primitive


def _f32_neg(x):
    return numerics.canonical(-x)


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def _f32_div(a, b):
    """Correctly rounded: a float64 quotient of float32 values never rounds twice wrongly."""
    exact = a.astype(np.float64) / b.astype(np.float64)
    tiny = np.abs(exact) < float(numerics.MIN_NORMAL)
    return numerics.canonical(np.where(tiny, np.copysign(0.0, exact), exact).astype(np.float32))


def _int_div(a, b):
    """Toward zero, as XLA; by zero gives -1 (all bits set), and the lowest int by -1 wraps."""
    a64, b64 = a.astype(np.int64), b.astype(np.int64)
    quotient = np.abs(a64) // np.maximum(np.abs(b64), 1)
    signed = np.where((a64 < 0) != (b64 < 0), -quotient, quotient)
    return np.where(b64 == 0, -1, signed).astype(a.dtype)


def _f32_clamp(lo, x, hi):
    return numerics.f32_min(numerics.f32_max(x, lo), hi)


def _int_clamp(lo, x, hi):
    return np.minimum(np.maximum(x, lo), hi)


add_p = _elementwise("add", _NUMBERS, numerics.f32_add, np.add)
sub_p = _elementwise("sub", _NUMBERS, lambda a, b: numerics.f32_add(a, -b), np.subtract)
mul_p = _elementwise("mul", _NUMBERS, numerics.f32_mul, np.multiply)
div_p = _elementwise("div", _NUMBERS, _f32_div, _int_div)
neg_p = _elementwise("neg", _NUMBERS, _f32_neg, np.negative)
max_p = _elementwise("max", _EVERY, numerics.f32_max, np.maximum)
min_p = _elementwise("min", _EVERY, numerics.f32_min, np.minimum)
round_nearest_even_p = _elementwise("round_nearest_even", FLOATS, np.rint, None)


clamp_p = _elementwise("clamp", _NUMBERS, _f32_clamp, _int_clamp)


def _comparison(name, compare):
    primitive = Primitive(name)

    @primitive.rule("abstract")
    def abstract(x, y):
        return ShapedArray(elementwise_aval((x, y), _EVERY).shape, core.bool_)

    @primitive.rule("impl")
    def impl(x, y):
        if x.dtype in FLOATS:
            x, y = numerics.bf16_to_f32(x), numerics.bf16_to_f32(y)
        return compare(x, y)

    return primitive


eq_p = _comparison("eq", np.equal)
ne_p = _comparison("ne", np.not_equal)
lt_p = _comparison("lt", np.less)
le_p = _comparison("le", np.less_equal)
gt_p = _comparison("gt", np.greater)
ge_p = _comparison("ge", np.greater_equal)


convert_element_type_p = Primitive("convert_element_type")


@convert_element_type_p.rule("abstract")
def _convert_aval(x, *, new_dtype, weak_type=False):
    return x.update(dtype=new_dtype, weak_type=weak_type)


@convert_element_type_p.rule("impl")
def convert(x, *, new_dtype, weak_type=False):
    """Convert as XLA: float to int truncates and saturates (NaN gives 0), int to int wraps."""
    if x.dtype == new_dtype:
        return x
    if x.dtype in FLOATS:
        x = numerics.bf16_to_f32(x)
        if new_dtype == core.bool_:
            return x != 0
        if new_dtype in INTS:
            info = np.iinfo(new_dtype)
            whole = np.trunc(np.where(np.isnan(x), 0.0, x.astype(np.float64)))
            return np.clip(whole, info.min, info.max).astype(new_dtype)
        return x if new_dtype == core.float32 else numerics.f32_to_bf16(x)
    if new_dtype == core.bfloat16:
        return numerics.f32_to_bf16(x.astype(np.float32))
    return x.astype(new_dtype)


broadcast_in_dim_p = Primitive("broadcast_in_dim")


@broadcast_in_dim_p.rule("abstract")
def _broadcast_aval(x, *, shape, broadcast_dimensions):
    dims = broadcast_dimensions
    if (
        len(dims) != x.ndim
        or sorted(set(dims)) != list(dims)
        or any(not 0 <= d < len(shape) for d in dims)
    ):
        raise OperandError(
            f"broadcast_dimensions must name one ascending dimension of {shape} for each of "
            f"{x.shape}, not {dims}"
        )
    if any(n not in (1, shape[d]) for n, d in zip(x.shape, dims, strict=True)):
        raise OperandError(f"shape {x.shape} does not broadcast to {shape} along {dims}")
    return x.update(shape=shape)


@broadcast_in_dim_p.rule("impl")
def _broadcast_impl(x, *, shape, broadcast_dimensions):
    aligned = [1] * len(shape)
    for n, d in zip(x.shape, broadcast_dimensions, strict=True):
        aligned[d] = n
    return np.broadcast_to(x.reshape(aligned), shape)


reshape_p = Primitive("reshape")


@reshape_p.rule("abstract")
def _reshape_aval(x, *, new_sizes):
    out = x.update(shape=new_sizes)
    if out.size != x.size:
        raise OperandError(f"new_sizes must hold {x.size} elements, not {new_sizes}")
    return out


@reshape_p.rule("impl")
def _reshape_impl(x, *, new_sizes):
    return x.reshape(new_sizes)


transpose_p = Primitive("transpose")


@transpose_p.rule("abstract")
def _transpose_aval(x, *, permutation):
    if sorted(permutation) != list(range(x.ndim)):
        raise OperandError(f"permutation must permute {x.ndim} dimensions, not {permutation}")
    return x.update(shape=tuple(x.shape[d] for d in permutation))


@transpose_p.rule("impl")
def _transpose_impl(x, *, permutation):
    return x.transpose(permutation)


slice_p = Primitive("slice")


@slice_p.rule("abstract")
def _slice_aval(x, *, start_indices, limit_indices, strides=None):
    steps = strides or (1,) * x.ndim
    if not len(start_indices) == len(limit_indices) == len(steps) == x.ndim:
        raise OperandError(
            f"start_indices, limit_indices and strides must have {x.ndim} entries, "
            f"not {start_indices}, {limit_indices} and {strides}"
        )
    for n, start, limit, step in zip(x.shape, start_indices, limit_indices, steps, strict=True):
        if not 0 <= start <= limit <= n or step < 1:
            raise OperandError(
                f"a slice must satisfy 0 <= start <= limit <= {n} and stride >= 1, "
                f"not start {start}, limit {limit}, stride {step}"
            )
    sizes = zip(start_indices, limit_indices, steps, strict=True)
    return x.update(shape=tuple(-(-(limit - start) // step) for start, limit, step in sizes))


@slice_p.rule("impl")
def _slice_impl(x, *, start_indices, limit_indices, strides=None):
    steps = strides or (1,) * x.ndim
    return x[tuple(map(slice, start_indices, limit_indices, steps))]
