"""JAX's convolutions: arguments made canonical, then one equation.

Operands must have one dtype, as for all of `lax`; `padding` becomes pairs of ints and
`dimension_numbers` a `ConvDimensionNumbers`.
"""

import operator
from collections.abc import Sequence
from typing import Any

from tilewright.compiler import trace
from tilewright.compiler.contraction import precision_name
from tilewright.compiler.errors import OperandError
from tilewright.compiler.operands import dtype_named, operand_avals
from tilewright.compiler.primitives_conv import ConvDimensionNumbers, conv_general_dilated_p
from tilewright.compiler.primitives_pad import dilated_size, rev_p
from tilewright.compiler.shaping import swapaxes
from tilewright.compiler.source import user_source
from tilewright.compiler.windows import ints, named_padding, pairs_of

_CHARACTERS = {"lhs_spec": "NC", "rhs_spec": "OI", "out_spec": "NC"}
_TRANSPOSE_SPECS = {
    3: ("NHC", "HIO", "NHC"),
    4: ("NHWC", "HWIO", "NHWC"),
}


def conv_dimension_numbers(lhs_shape, rhs_shape, dimension_numbers) -> ConvDimensionNumbers:
    """Return JAX's three strings (or None: NCHW, OIHW, NCHW) as a ConvDimensionNumbers."""
    if isinstance(dimension_numbers, ConvDimensionNumbers):
        return dimension_numbers
    ndim, where = len(lhs_shape), f"(at {user_source()})"
    if ndim != len(rhs_shape):
        raise OperandError(
            f"a convolution's lhs and rhs must have one rank, not shapes {tuple(lhs_shape)} and "
            f"{tuple(rhs_shape)} {where}"
        )
    if dimension_numbers is None:
        return ConvDimensionNumbers(*[tuple(range(ndim))] * 3)
    is_strings = isinstance(dimension_numbers, list | tuple) and len(dimension_numbers) == 3
    if not is_strings or not all(isinstance(s, str) for s in dimension_numbers):
        raise OperandError(
            f"dimension_numbers must be three strings, a ConvDimensionNumbers or None, "
            f"not {dimension_numbers!r} {where}"
        )
    named = dict(zip(_CHARACTERS, dimension_numbers, strict=True))
    spatial = [c for c in named["rhs_spec"] if c not in "OI"]  # their order is the window's
    specs = []
    for name, text in named.items():
        letters = [*_CHARACTERS[name], *spatial]
        if len(text) != ndim or sorted(text) != sorted(letters):
            raise OperandError(
                f"dimension_numbers: {name} must hold each of {''.join(letters)} once for rank "
                f"{ndim}, not {text!r} {where}"
            )
        specs.append(tuple(text.index(c) for c in letters))
    return ConvDimensionNumbers(*specs)


def _canonical_numbers(name, lhs, rhs, dimension_numbers):
    numbers = conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    for field, spec, aval in zip(numbers._fields, numbers, (lhs, rhs, lhs), strict=True):
        if sorted(spec) != list(range(aval.ndim)):
            raise OperandError(
                f"{name}: {field} must permute {aval.ndim} dimensions, not {spec} "
                f"(at {user_source()})"
            )
    return ConvDimensionNumbers(*(tuple(int(d) for d in spec) for spec in numbers))


def conv_general_dilated(
    lhs: Any,
    rhs: Any,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    name: str = "conv_general_dilated",
) -> Any:
    """JAX's conv_general_dilated with one or two spatial dimensions."""
    left, right = operand_avals(name, (lhs, rhs))
    numbers = _canonical_numbers(name, left, right, dimension_numbers)
    ones = (1,) * (left.ndim - 2)
    strides = ints(name, "window_strides", window_strides)
    base = ones if lhs_dilation is None else ints(name, "lhs_dilation", lhs_dilation)
    dilation = ones if rhs_dilation is None else ints(name, "rhs_dilation", rhs_dilation)
    if isinstance(padding, str):
        if base != ones:
            raise OperandError(
                f"{name}: padding must be pairs of ints when lhs_dilation is {base}, not "
                f"{padding!r}; or use conv_transpose (at {user_source()})"
            )
        sizes = [left.shape[d] for d in numbers.lhs_spec[2:]]
        kernel = [right.shape[d] for d in numbers.rhs_spec[2:]]
        windows = [dilated_size(k, d) for k, d in zip(kernel, dilation, strict=False)]
        pairs = named_padding(name, padding, sizes, windows, strides)
    else:
        pairs = pairs_of(name, padding)
    if preferred_element_type is not None:
        preferred_element_type = dtype_named(name, preferred_element_type)
    return trace.bind(
        conv_general_dilated_p,
        lhs,
        rhs,
        window_strides=strides,
        padding=pairs,
        lhs_dilation=base,
        rhs_dilation=dilation,
        dimension_numbers=numbers,
        feature_group_count=operator.index(feature_group_count),
        batch_group_count=operator.index(batch_group_count),
        precision=precision_name(precision),
        preferred_element_type=preferred_element_type,
    )


def conv(lhs, rhs, window_strides, padding, precision=None, preferred_element_type=None):
    """Convolve (N, C, *spatial) with (O, I, *spatial)."""
    return conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        precision=precision,
        preferred_element_type=preferred_element_type,
        name="conv",
    )


def conv_with_general_padding(
    lhs,
    rhs,
    window_strides,
    padding,
    lhs_dilation,
    rhs_dilation,
    precision=None,
    preferred_element_type=None,
):
    """Convolve (N, C, *spatial) with (O, I, *spatial), dilated and padded at will."""
    return conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        precision=precision,
        preferred_element_type=preferred_element_type,
        name="conv_with_general_padding",
    )


def _transposed_padding(name, window, stride, padding):
    """Return the padding of the transposed convolution, given the forward one's in a dimension."""
    if padding == "SAME":
        total = window + stride - 2
        low = window - 1 if stride > window - 1 else -(-total // 2)
        return low, total - low
    if padding == "VALID":
        total = window + stride - 2 + max(window - stride, 0)
        return window - 1, total - (window - 1)
    ((low, high),) = pairs_of(name, [padding])
    return window - low - 1, window - high - 1


def conv_transpose(
    lhs: Any,
    rhs: Any,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    precision: Any = None,
    preferred_element_type: Any = None,
    use_consistent_padding: bool = False,
) -> Any:
    """JAX's conv_transpose: a convolution of lhs dilated by `strides`.

    Names of paddings are the forward convolution's; pairs are the transposed one's, or also the
    forward one's with ``use_consistent_padding``. ``transpose_kernel`` reverses rhs's spatial
    dimensions and swaps its features.
    """
    name = "conv_transpose"
    left, right = operand_avals(name, (lhs, rhs))
    if dimension_numbers is None:
        dimension_numbers = _TRANSPOSE_SPECS.get(left.ndim)
    numbers = _canonical_numbers(name, left, right, dimension_numbers)
    steps = ints(name, "strides", strides)
    ones = (1,) * (right.ndim - 2)
    dilation = ones if rhs_dilation is None else ints(name, "rhs_dilation", rhs_dilation)
    pads = padding
    if use_consistent_padding or padding in ("SAME", "VALID"):
        windows = [
            dilated_size(right.shape[d], n)
            for d, n in zip(numbers.rhs_spec[2:], dilation, strict=False)
        ]
        each = [padding] * len(steps) if isinstance(padding, str) else list(padding)
        if not len(windows) == len(steps) == len(each):
            raise OperandError(
                f"{name}: strides, padding and rhs_dilation must have {right.ndim - 2} entries, "
                f"not {strides!r}, {padding!r} and {rhs_dilation!r} (at {user_source()})"
            )
        triples = zip(windows, steps, each, strict=True)
        pads = [_transposed_padding(name, *triple) for triple in triples]
    if transpose_kernel:
        rhs = trace.bind(rev_p, rhs, dimensions=numbers.rhs_spec[2:])
        rhs = swapaxes(rhs, *numbers.rhs_spec[:2])
    return conv_general_dilated(
        lhs,
        rhs,
        ones,
        pads,
        steps,
        dilation,
        numbers,
        precision=precision,
        preferred_element_type=preferred_element_type,
        name=name,
    )
