"""The primitives themselves, with JAX's `lax` names: no promotion, no broadcasting of shapes.

Array operands must have one dtype; a Python number takes the dtype of the other operand.
"""

from enum import StrEnum

from tilewright.compiler import ops as _ops
from tilewright.compiler import primitives as _p
from tilewright.compiler import promote as _promote
from tilewright.compiler import trace as _trace
from tilewright.compiler.errors import MissingError as _MissingError
from tilewright.compiler.errors import UnsupportedError as _UnsupportedError
from tilewright.compiler.ops import dot_general as _dot_general
from tilewright.compiler.source import user_source as _user_source
from tilewright.hooks import install as _install

_install()


class Precision(StrEnum):
    """How many bfloat16 passes a float32 contraction takes."""

    DEFAULT = "default"
    HIGH = "high"
    HIGHEST = "highest"


class RoundingMethod(StrEnum):
    """Where `round` takes a number halfway between two integers."""

    AWAY_FROM_ZERO = "away_from_zero"
    TO_NEAREST_EVEN = "to_nearest_even"


def _elementwise(name, primitive, *operands):
    _ops.operand_avals(name, operands)
    is_number = [type(x) in (bool, int, float) for x in operands]
    if any(is_number) and not all(is_number):
        dtype, weak = _promote.promote_types(*map(_trace.aval_of, operands))
        operands = [
            _ops.convert(x, dtype, weak) if number else x
            for x, number in zip(operands, is_number, strict=True)
        ]
    return _trace.bind(primitive, *operands)


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
    """Round to integers; only ``RoundingMethod.TO_NEAREST_EVEN`` runs on the chip."""
    if rounding_method != RoundingMethod.TO_NEAREST_EVEN:
        raise _UnsupportedError(
            f"round: rounding_method must be RoundingMethod.TO_NEAREST_EVEN, not "
            f"{rounding_method!s} (at {_user_source()})"
        )
    return _elementwise("round", _p.round_nearest_even_p, x)


def convert_element_type(operand, new_dtype):
    """Convert: float to int truncates and saturates (NaN gives 0), int to int wraps."""
    return _ops.convert(operand, _ops.dtype_named("convert_element_type", new_dtype))


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


def dot_general(lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None):
    """Contract ``((lhs_contracting, rhs_contracting), (lhs_batch, rhs_batch))`` dimensions.

    The result's dimensions are batch, then lhs free, then rhs free.
    """
    return _dot_general(lhs, rhs, dimension_numbers, precision, preferred_element_type)


__all__ = [
    "Precision",
    "RoundingMethod",
    "add",
    "broadcast_in_dim",
    "clamp",
    "convert_element_type",
    "dot_general",
    "max",
    "min",
    "mul",
    "reshape",
    "round",
    "slice",
    "sub",
    "transpose",
]


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise _MissingError(
        f"tilewright.lax has no {name!r} (at {_user_source()}); it has: {', '.join(__all__)}"
    )
