"""NumPy's pad: with a number, or with the array's own elements, runs of which are joined."""

import numpy as np
from tilewright.compiler import shaping, trace
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.joining import cut, flip, joined
from tilewright.compiler.operands import operand_avals
from tilewright.compiler.source import user_source

_MODES = ("edge", "reflect", "symmetric", "wrap")


def pad(array, pad_width, mode="constant", constant_values=0):
    """NumPy's pad; `pad_width` is a number, (before, after), or a pair per axis.

    `mode` is 'constant', 'edge', 'reflect', 'symmetric' or 'wrap'.
    """
    if mode == "constant":
        return shaping.pad(array, pad_width, mode, constant_values)
    (aval,) = operand_avals("pad", (array,))
    if mode not in _MODES:
        names = ", ".join(("constant", *_MODES))
        raise UnsupportedError(f"pad: mode must be one of {names}, not {mode!r} "
                               f"(at {user_source()})")  # fmt: skip
    widths = shaping.pad_pairs("pad_width", pad_width, aval.ndim, "iu") if aval.ndim else []
    for axis, (before, after) in enumerate(widths):
        size = aval.shape[axis]
        if before < 0 or after < 0 or ((before or after) and not size):
            raise OperandError(
                f"pad({aval}): axis {axis} cannot be padded by {(before, after)} "
                f"(at {user_source()})"
            )
        if before or after:
            places = np.pad(np.arange(size), (before, after), mode)
            array = joined([_run(array, run, axis) for run in _runs(places)], axis)
    return array


def _runs(places):
    """The places in order, cut into runs that ascend or descend by 1 or stay."""
    runs = [[int(places[0])]]
    for place in map(int, places[1:]):
        last = runs[-1]
        step = place - last[-1]
        if abs(step) <= 1 and (len(last) == 1 or step == last[1] - last[0]):
            last.append(place)
        else:
            runs.append([place])
    return runs


def _run(x, places, axis):
    """The slices of x at a run of places."""
    low, high = min(places), max(places) + 1
    part = cut(x, low, high, axis)
    if high - low == 1 and len(places) > 1:
        shape = trace.aval_of(part).shape
        return shaping.broadcast_to(part, (*shape[:axis], len(places), *shape[axis + 1 :]))
    return flip(part, axis) if places[0] > places[-1] else part
