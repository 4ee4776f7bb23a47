"""Contractions and convolutions, with JAX's `lax` names."""

from enum import StrEnum

from tilewright.compiler import convolution as _convolution
from tilewright.compiler import ops as _ops
from tilewright.compiler.convolution import (
    conv,
    conv_dimension_numbers,
    conv_transpose,
    conv_with_general_padding,
)
from tilewright.compiler.errors import OperandError as _OperandError
from tilewright.compiler.ops import dot_general as _dot_general
from tilewright.compiler.primitives_conv import ConvDimensionNumbers
from tilewright.compiler.source import user_source as _user_source

__all__ = [
    "ConvDimensionNumbers",
    "Precision",
    "batch_matmul",
    "conv",
    "conv_dimension_numbers",
    "conv_general_dilated",
    "conv_transpose",
    "conv_with_general_padding",
    "dot",
    "dot_general",
]


class Precision(StrEnum):
    """How many bfloat16 passes a float32 contraction takes."""

    DEFAULT = "default"
    HIGH = "high"
    HIGHEST = "highest"


def dot_general(lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None):
    """Contract ``((lhs_contracting, rhs_contracting), (lhs_batch, rhs_batch))`` dimensions.

    The result's dimensions are batch, then lhs free, then rhs free.
    """
    return _dot_general(lhs, rhs, dimension_numbers, precision, preferred_element_type)


def dot(lhs, rhs, *, dimension_numbers=None, precision=None, preferred_element_type=None):
    """Multiply vectors and matrices; with `dimension_numbers`, the same as `dot_general`."""
    left, right = _ops.operand_avals("dot", (lhs, rhs))
    if dimension_numbers is None:
        ranks = (left.ndim, right.ndim)
        if not all(n in (1, 2) for n in ranks) or left.shape[-1] != right.shape[0]:
            raise _OperandError(
                f"dot({left}, {right}): without dimension_numbers, operands must be vectors or "
                f"matrices whose last and first dimensions are equal (at {_user_source()})"
            )
        dimension_numbers = (((left.ndim - 1,), (0,)), ((), ()))
    return _dot_general(lhs, rhs, dimension_numbers, precision, preferred_element_type, "dot")


def batch_matmul(lhs, rhs, precision=None):
    """Multiply the matrices in the last two dimensions; all others are batch dimensions."""
    left, right = _ops.operand_avals("batch_matmul", (lhs, rhs))
    if left.ndim != right.ndim or left.ndim < 2:
        raise _OperandError(
            f"batch_matmul({left}, {right}): operands must have one rank of at least 2 "
            f"(at {_user_source()})"
        )
    batch = tuple(range(left.ndim - 2))
    numbers = (((left.ndim - 1,), (left.ndim - 2,)), (batch, batch))
    return _dot_general(lhs, rhs, numbers, precision, None, "batch_matmul")


def conv_general_dilated(
    lhs,
    rhs,
    window_strides,
    padding,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    feature_group_count=1,
    batch_group_count=1,
    precision=None,
    preferred_element_type=None,
):
    """Convolve with one or two spatial dimensions, strides, padding, dilations and groups.

    `padding` is 'SAME', 'SAME_LOWER', 'VALID' or (low, high) pairs, negative ones crop;
    `dimension_numbers` are three strings such as ``('NHWC', 'HWIO', 'NHWC')`` (default: NCHW,
    OIHW, NCHW) or a ConvDimensionNumbers.
    """
    return _convolution.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        dimension_numbers,
        feature_group_count,
        batch_group_count,
        precision,
        preferred_element_type,
    )
