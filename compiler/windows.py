"""Arguments of operations over windows (strides; padding, named or in pairs); `reduce_window`."""

import operator
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from tilewright.compiler import core, trace
from tilewright.compiler import elementwise as ew
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.operands import convert, operand_avals
from tilewright.compiler.primitives_pad import (
    dilated_size,
    max_identity,
    reduce_window_max_p,
    window_count,
)
from tilewright.compiler.shaping import pad_by
from tilewright.compiler.source import user_source


def ints(name: str, what: str, values: Any) -> tuple[int, ...]:
    """Return a parameter of the function `name` as a tuple of ints."""
    try:
        return tuple(operator.index(v) for v in values)
    except TypeError:
        raise OperandError(
            f"{name}: {what} must be a sequence of ints, not {values!r} (at {user_source()})"
        ) from None


def pairs_of(name: str, padding: Any) -> tuple[tuple[int, int], ...]:
    """Return a padding given as (low, high) pairs as a tuple of pairs of ints."""
    try:
        return tuple((operator.index(low), operator.index(high)) for low, high in padding)
    except (TypeError, ValueError):
        raise OperandError(
            f"{name}: padding must be 'SAME', 'SAME_LOWER', 'VALID' or a sequence of (low, high) "
            f"pairs of ints, not {padding!r} (at {user_source()})"
        ) from None


def named_padding(name, padding, sizes, windows, strides):
    """Return the pairs that a padding's name means for these sizes and dilated windows."""
    kind = padding.upper()
    if kind not in ("SAME", "SAME_LOWER", "VALID"):
        raise OperandError(
            f"{name}: padding must be 'SAME', 'SAME_LOWER' or 'VALID' (or pairs of ints), "
            f"not {padding!r} (at {user_source()})"
        )
    if not len(sizes) == len(windows) == len(strides) or any(s < 1 for s in strides):
        raise OperandError(
            f"{name}: strides must be {len(sizes)} positive ints, not {strides} "
            f"(at {user_source()})"
        )
    pairs = []
    for size, window, stride in zip(sizes, windows, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + window - size, 0)
        total = 0 if kind == "VALID" else total
        low = total // 2 if kind == "SAME" else total - total // 2
        pairs.append((low, total - low))
    return tuple(pairs)


def is_number(value, number):
    """Tell whether an initial value is known now and this number."""
    if isinstance(value, trace.Tracer):
        value = getattr(value, "variable", None)
        if not isinstance(value, core.Literal):
            return False
    found = value.value if isinstance(value, core.Literal) else np.asarray(value)
    return found.shape == () and found.astype(object) == np.asarray(number).astype(object)


def reduce_window_max(
    operand: Any,
    init_value: Any,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
    base_dilation: Sequence[int] | None = None,
    window_dilation: Sequence[int] | None = None,
) -> Any:
    """Return the maximum of each window; `init_value` must be the dtype's lowest."""
    name = "reduce_window"
    (aval,) = operand_avals(name, (operand,))
    operand_avals(name, (init_value,))
    if not is_number(init_value, max_identity(aval.dtype)):
        raise UnsupportedError(
            f"{name}: init_value must be the lowest {aval.dtype}, "
            f"{max_identity(aval.dtype).item()!r}, for a maximum, not {init_value!r} "
            f"(at {user_source()})"
        )
    windows = ints(name, "window_dimensions", window_dimensions)
    ones = (1,) * len(windows)
    strides = ones if window_strides is None else ints(name, "window_strides", window_strides)
    base = ones if base_dilation is None else ints(name, "base_dilation", base_dilation)
    dilation = ones if window_dilation is None else ints(name, "window_dilation", window_dilation)
    if isinstance(padding, str):
        wide = [dilated_size(n, d) for n, d in zip(windows, dilation, strict=False)]
        pairs = named_padding(name, padding, aval.shape, wide, strides)
    else:
        pairs = pairs_of(name, padding)
    return trace.bind(
        reduce_window_max_p,
        operand,
        window_dimensions=windows,
        window_strides=strides,
        padding=pairs,
        base_dilation=base,
        window_dilation=dilation,
    )


def window_totals(
    name: str,
    operand: Any,
    fill: float,
    combine: Callable[[Any, Any], Any],
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    window_dilation: Sequence[int] | None = None,
) -> Any:
    """Combine the elements of each window, in row-major order, as strided slices of the operand.

    bfloat16 is combined as float32 and rounded once; padding is `fill`.
    """
    (aval,) = operand_avals(name, (operand,))
    windows = ints(name, "window_dimensions", window_dimensions)
    strides = ints(name, "window_strides", window_strides)
    dilation = (1,) * len(windows) if window_dilation is None else tuple(window_dilation)
    wide = [dilated_size(n, d) for n, d in zip(windows, dilation, strict=True)]
    pairs = (
        named_padding(name, padding, aval.shape, wide, strides)
        if isinstance(padding, str)
        else pairs_of(name, padding)
    )
    x = convert(operand, core.float32) if aval.dtype == core.bfloat16 else trace.lift(operand)
    if any(low or high for low, high in pairs):
        x = pad_by(x, fill, tuple((low, high, 0) for low, high in pairs))
    shape = trace.aval_of(x).shape
    counts = [window_count(n, w, s) for n, w, s in zip(shape, wide, strides, strict=True)]
    total = None
    for tap in product(*map(range, windows)):
        starts = [i * d for i, d in zip(tap, dilation, strict=True)]
        ends = zip(starts, counts, strides, strict=True)
        part = x[tuple(slice(a, a + (n - 1) * s + 1, s) for a, n, s in ends)]
        total = part if total is None else combine(total, part)
    return convert(total, aval.dtype)


def window_sums(name: str, operand: Any, windows: Any, strides: Any, padding: Any) -> Any:
    """The sum of each window."""
    return window_totals(name, operand, 0, ew.add, windows, strides, padding)
