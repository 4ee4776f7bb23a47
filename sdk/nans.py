"""`tw.debug_nans`: which equation made a NaN that a call returned.

The program is evaluated once more, as it was traced, equation by equation, with NumPy, which gives
the chip's bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tilewright.compiler.core import FLOATS, Eqn, Jaxpr, eval_jaxpr, watching
from tilewright.compiler.effects import extract

if TYPE_CHECKING:
    from tilewright.compiled import Lowered


class _Made(Exception):
    """An equation made a NaN: (eqn, inputs, the output)."""


def _has_nan(value: Any) -> bool:
    return value.dtype in FLOATS and bool(np.isnan(value).any())


def check_nans(
    lowered: Lowered, given: Sequence[np.ndarray], results: Sequence[Any], call: str
) -> None:
    """Check the results of a call for NaN.

    Parameters
    ----------
    given : the leaves of its arguments as they were.
    call : the user's line.

    **Raises** FloatingPointError.
    """
    wrong = [i for i, r in enumerate(results) if r.dtype in FLOATS and _has_nan(np.asarray(r))]
    if not wrong:
        return
    made = first_nan(lowered.jaxpr, given, lowered.config.dim)
    where = ", ".join(f"{i} ({results[i].aval})" for i in wrong)
    raise FloatingPointError(
        f"invalid value (nan) in result {where} of {lowered.name}, called at {call}: "
        + (_text(*made) if made else _received(given))
    )


def first_nan(
    jaxpr: Jaxpr, args: Sequence[np.ndarray], dim: int
) -> tuple[Eqn, list[np.ndarray], np.ndarray] | None:
    """Return the first equation whose result holds NaN though no operand does, with both values.

    Also an equation of a program within an equation; None if there is none.
    """

    def see(eqn: Eqn, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> None:
        bad = next((o for o in outputs if _has_nan(o)), None)
        if bad is not None and not any(map(_has_nan, inputs)):
            raise _Made(eqn, inputs, bad)

    try:
        with watching(see):
            eval_jaxpr(extract(jaxpr).jaxpr, args, dim=dim)
    except _Made as made:
        return made.args  # type: ignore[return-value]
    return None


def _text(eqn: Eqn, inputs: list[np.ndarray], output: np.ndarray) -> str:
    """The equation, its line, the place of its first NaN, and the operands there."""
    operands = ", ".join(str(a.aval) for a in eqn.inputs)
    place = tuple(int(i) for i in np.argwhere(np.isnan(output))[0])
    at = f", first at {list(place)}" if place else ""
    if all(x.shape in ((), output.shape) for x in inputs):
        values = [x[place if x.shape else ()].item() for x in inputs]
        at += f", of {', '.join(map(str, values))}"
    return f"made by {eqn.primitive.name}({operands}) at {eqn.source}{at}"


def _received(given: Sequence[np.ndarray]) -> str:
    which = [str(i) for i, x in enumerate(given) if _has_nan(x)]
    if which:
        return f"it was in what the call was given, leaf {', '.join(which)} of its arguments"
    return "it was in an array that the function closes over"
