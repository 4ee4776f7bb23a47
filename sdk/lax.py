"""The primitives themselves, with JAX's `lax` names: no promotion, no broadcasting of shapes.

Array operands must have one dtype; a Python number takes the dtype of the other operand.
"""

from enum import StrEnum
from importlib import import_module as _import_module
from inspect import unwrap as _unwrap

from numpy import iinfo as _iinfo
from tilewright.compiler import ops as _ops
from tilewright.compiler import primitives as _p
from tilewright.compiler import trace as _trace
from tilewright.compiler.core import FLOATS as _FLOATS
from tilewright.compiler.errors import MissingError as _MissingError
from tilewright.compiler.errors import OperandError as _OperandError
from tilewright.compiler.errors import UnsupportedError as _UnsupportedError
from tilewright.compiler.gathering import (
    GatherDimensionNumbers,
    GatherScatterMode,
    ScatterDimensionNumbers,
    gather,
    scatter,
    scatter_add,
    scatter_apply,
    scatter_max,
    scatter_min,
    scatter_mul,
    scatter_sub,
)
from tilewright.compiler.primitives_math import round_nearest_afz_p as _round_nearest_afz_p
from tilewright.compiler.primitives_pad import rev_p as _rev_p
from tilewright.compiler.shaping import pad_by as _pad_by
from tilewright.compiler.source import user_source as _user_source
from tilewright.compiler.windows import is_number as _is_number
from tilewright.compiler.windows import reduce_window_max as _reduce_window_max
from tilewright.compiler.windows import window_totals as _window_totals
from tilewright.hooks import install as _install
from tilewright.lax_contract import (
    ConvDimensionNumbers,
    Precision,
    batch_matmul,
    conv,
    conv_dimension_numbers,
    conv_general_dilated,
    conv_transpose,
    conv_with_general_padding,
    dot,
    dot_general,
)
from tilewright.lax_dynamic import (
    dynamic_index_in_dim,
    dynamic_slice,
    dynamic_slice_in_dim,
    dynamic_update_index_in_dim,
    dynamic_update_slice,
    dynamic_update_slice_in_dim,
)
from tilewright.lax_elementwise import (
    abs,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    ceil,
    cos,
    div,
    eq,
    erf,
    exp,
    exp2,
    expm1,
    floor,
    ge,
    gt,
    integer_pow,
    le,
    log,
    log1p,
    logistic,
    lt,
    ne,
    neg,
    rsqrt,
    select,
    select_n,
    shift_left,
    shift_right_arithmetic,
    shift_right_logical,
    sign,
    sin,
    sqrt,
    tanh,
)
from tilewright.lax_elementwise import elementwise as _elementwise
from tilewright.lax_math import (
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    bitcast_convert_type,
    cbrt,
    clz,
    cosh,
    erf_inv,
    erfc,
    is_finite,
    population_count,
    pow,
    reciprocal,
    rem,
    sinh,
    square,
    tan,
)
from tilewright.lax_reduce import (
    argmax,
    argmin,
    cummax,
    cummin,
    cumprod,
    cumsum,
    reduce_and,
    reduce_max,
    reduce_min,
    reduce_or,
    reduce_prod,
    reduce_sum,
)
from tilewright.lax_shapes import (
    broadcast,
    broadcasted_iota,
    collapse,
    concatenate,
    expand_dims,
    iota,
    slice_in_dim,
    sort,
    split,
    squeeze,
    top_k,
)

_install()


class RoundingMethod(StrEnum):
    """Where `round` takes a number halfway between two integers."""

    AWAY_FROM_ZERO = "away_from_zero"
    TO_NEAREST_EVEN = "to_nearest_even"


def add(x, y):
    """Element-wise sum."""
    return _elementwise("add", _p.add_p, x, y)


def sub(x, y):
    """Element-wise difference."""
    return _elementwise("sub", _p.sub_p, x, y)


def mul(x, y):
    """Element-wise product."""
    return _elementwise("mul", _p.mul_p, x, y)


def max(x, y):
    """Element-wise maximum; a NaN wins, -0 is below +0."""
    return _elementwise("max", _p.max_p, x, y)


def min(x, y):
    """Element-wise minimum; a NaN wins, -0 is below +0."""
    return _elementwise("min", _p.min_p, x, y)


def clamp(min, x, max):
    """Element-wise ``minimum(maximum(x, min), max)``; the bounds are scalars or of x's shape."""
    return _elementwise("clamp", _p.clamp_p, min, x, max)


def round(x, rounding_method=RoundingMethod.AWAY_FROM_ZERO):
    """Round to integers, halves as `rounding_method` says."""
    if rounding_method == RoundingMethod.TO_NEAREST_EVEN:
        return _elementwise("round", _p.round_nearest_even_p, x)
    return _elementwise("round", _round_nearest_afz_p, x)


def convert_element_type(operand, new_dtype):
    """Convert: float to int truncates and saturates (NaN gives 0), int to int wraps."""
    return _trace.lift(_ops.convert(operand, _ops.dtype_named("convert_element_type", new_dtype)))


def broadcast_in_dim(operand, shape, broadcast_dimensions):
    """Broadcast; dimension i of the operand becomes ``broadcast_dimensions[i]`` of the result."""
    return _trace.bind(
        _p.broadcast_in_dim_p,
        operand,
        shape=tuple(shape),
        broadcast_dimensions=tuple(broadcast_dimensions),
    )


def reshape(operand, new_sizes):
    """Reshape in C order."""
    return _trace.bind(_p.reshape_p, operand, new_sizes=tuple(new_sizes))


def transpose(operand, permutation):
    """Permute dimensions: dimension i of the result is ``permutation[i]`` of the operand."""
    return _trace.bind(_p.transpose_p, operand, permutation=tuple(permutation))


def slice(operand, start_indices, limit_indices, strides=None):
    """Return the elements from start (inclusive) to limit (exclusive) in each dimension."""
    params = {} if strides is None else {"strides": tuple(strides)}
    return _trace.bind(
        _p.slice_p,
        operand,
        start_indices=tuple(start_indices),
        limit_indices=tuple(limit_indices),
        **params,
    )


def pad(operand, padding_value, padding_config):
    """Pad each dimension by (low, high, interior) copies of a scalar; negative ends crop."""
    aval, value = _ops.operand_avals("pad", (operand, padding_value))
    if type(padding_value) not in (bool, int, float) and value.dtype != aval.dtype:
        raise _OperandError(
            f"pad({aval}, {value}): operands must have one dtype (at {_user_source()})"
        )
    config = tuple((int(low), int(high), int(interior)) for low, high, interior in padding_config)
    return _pad_by(operand, padding_value, config)


def rev(operand, dimensions):
    """Reverse the order of the elements along dimensions."""
    return _trace.bind(_rev_p, operand, dimensions=tuple(dimensions))


def _highest(dtype):
    return float("inf") if dtype in _FLOATS else int(_iinfo(dtype).max)


def reduce_window(
    operand,
    init_value,
    computation,
    window_dimensions,
    window_strides=None,
    padding="VALID",
    base_dilation=None,
    window_dilation=None,
):
    """Reduce each window by `max`, `min` or `add`, from the computation's identity."""
    kind = _unwrap(computation)
    if kind in (_unwrap(add), _ops.add, min, _ops.minimum):
        adds = kind in (_unwrap(add), _ops.add)
        (aval,) = _ops.operand_avals("reduce_window", (operand,))
        identity = 0 if adds else _highest(aval.dtype)
        known = _is_number(init_value, identity)
        if base_dilation not in (None, (1,) * aval.ndim) or not known:
            raise _UnsupportedError(
                f"reduce_window: init_value must be {identity} for lax.{computation.__name__}, "
                f"not {init_value!r}, and base_dilation None (at {_user_source()})"
            )
        strides = window_strides or (1,) * aval.ndim
        combine = _ops.add if adds else _ops.minimum
        return _window_totals("reduce_window", operand, identity, combine, window_dimensions,
                              strides, padding, window_dilation)  # fmt: skip
    if computation is not max and kind is not _ops.maximum:
        name = getattr(computation, "__name__", repr(computation))
        raise _UnsupportedError(
            f"reduce_window: computation must be lax.max, lax.min or lax.add, not {name} "
            f"(at {_user_source()})"
        )
    return _reduce_window_max(
        operand,
        init_value,
        window_dimensions,
        window_strides,
        padding,
        base_dilation,
        window_dilation,
    )


__all__ = [
    "ConvDimensionNumbers",
    "GatherDimensionNumbers",
    "GatherScatterMode",
    "Precision",
    "RoundingMethod",
    "ScatterDimensionNumbers",
    "abs",
    "acos",
    "acosh",
    "add",
    "argmax",
    "argmin",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "batch_matmul",
    "bitcast_convert_type",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "broadcast",
    "broadcast_in_dim",
    "broadcasted_iota",
    "cbrt",
    "ceil",
    "clamp",
    "clz",
    "collapse",
    "concatenate",
    "conv",
    "conv_dimension_numbers",
    "conv_general_dilated",
    "conv_transpose",
    "conv_with_general_padding",
    "convert_element_type",
    "cos",
    "cosh",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "div",
    "dot",
    "dot_general",
    "dynamic_index_in_dim",
    "dynamic_slice",
    "dynamic_slice_in_dim",
    "dynamic_update_index_in_dim",
    "dynamic_update_slice",
    "dynamic_update_slice_in_dim",
    "eq",
    "erf",
    "erf_inv",
    "erfc",
    "exp",
    "exp2",
    "expand_dims",
    "expm1",
    "floor",
    "gather",
    "ge",
    "gt",
    "integer_pow",
    "iota",
    "is_finite",
    "le",
    "log",
    "log1p",
    "logistic",
    "lt",
    "max",
    "min",
    "mul",
    "ne",
    "neg",
    "pad",
    "population_count",
    "pow",
    "reciprocal",
    "reduce_and",
    "reduce_max",
    "reduce_min",
    "reduce_or",
    "reduce_prod",
    "reduce_sum",
    "reduce_window",
    "rem",
    "reshape",
    "rev",
    "round",
    "rsqrt",
    "scatter",
    "scatter_add",
    "scatter_apply",
    "scatter_max",
    "scatter_min",
    "scatter_mul",
    "scatter_sub",
    "select",
    "select_n",
    "shift_left",
    "shift_right_arithmetic",
    "shift_right_logical",
    "sign",
    "sin",
    "sinh",
    "slice",
    "slice_in_dim",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "sub",
    "tan",
    "tanh",
    "top_k",
    "transpose",
]


#: What is imported when it is used, by name: the module that has it.
_LATER = {
    "cond": "lax_control",
    "fori_loop": "lax_control",
    "map": "lax_control",
    "optimization_barrier": "custom",
    "scan": "lax_control",
    "stop_gradient": "custom",
    "switch": "lax_control",
    "while_loop": "lax_control",
}
__all__ += sorted(_LATER)


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    if name in _LATER:
        return getattr(_import_module(f"tilewright.{_LATER[name]}"), name)
    raise _MissingError(
        f"tilewright.lax has no {name!r} (at {_user_source()}); it has: {', '.join(__all__)}"
    )
