"""Values of a program that runs, with JAX's names: ``tw.debug.print``, ``tw.debug.callback``.

What is shown becomes a result of the program; the call waits for it and shows it then, in the
order of the program: also within `jit`, `vmap` (once for each example), derivatives (the values),
`scan`, `fori_loop` with Python ints as bounds, `cond` and `switch`.
"""

from __future__ import annotations

import builtins
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.compiler import trace, tree
from tilewright.compiler.errors import DtypeError
from tilewright.compiler.primitives_debug import debug_callback_p
from tilewright.compiler.source import user_source


def callback(
    callback: Callable[..., Any], *args: Any, ordered: bool = False, **kwargs: Any
) -> None:
    """Call ``callback(*args, **kwargs)`` with NumPy arrays when the program has run.

    Parameters
    ----------
    args, kwargs : pytrees; leaves that are no arrays are given as they are.
    ordered : all calls are in order, whatever it says.

    **Raises** UnsupportedError, when the program is compiled: it is within a `while_loop`.
    """
    if not callable(callback):
        raise TypeError(f"debug.callback: callback must be callable, not {callback!r}")
    leaves, in_tree = tree.flatten((args, kwargs))
    arrays, static = [], []
    for place, leaf in enumerate(leaves):
        try:
            trace.aval_of(leaf)
            arrays.append(leaf)
        except DtypeError:
            static.append((place, leaf))
    trace.bind(
        debug_callback_p, *arrays, callback=callback, in_tree=in_tree, static=tuple(static),
        batches=(),
    )  # fmt: skip


def print(fmt: str, *args: Any, ordered: bool = False, **kwargs: Any) -> None:
    """Print ``fmt.format(*args, **kwargs)`` when the program has run.

    Parameters
    ----------
    fmt : as for `str.format`, such as "loss {}" or "x = {x:.3f}"; printed as it is if there are no
        arguments. An f-string would show tracers.
    ordered : all calls are in order, whatever it says.

    Raises
    ------
    ValueError
        An argument that `fmt` does not use, or one that it lacks.
    UnsupportedError
        When the program is compiled: it is within a `while_loop`.
    """
    if not isinstance(fmt, str):
        raise TypeError(f"debug.print: fmt must be a string, not {type(fmt).__name__}")
    wrong = _wrong_arguments(fmt, args, kwargs)
    if wrong:
        raise ValueError(f"debug.print: the format {fmt!r} {wrong} (at {user_source()})")
    callback(_Print(fmt), *args, **kwargs)


@dataclass(frozen=True)
class _Print:
    """Prints by a format; equal for equal formats, so that equal programs are one."""

    fmt: str

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        builtins.print(self.fmt.format(*args, **kwargs) if args or kwargs else self.fmt)


class _Checker(string.Formatter):
    """Formats nothing; keeps which arguments a format leaves out."""

    unused: Sequence[Any] = ()

    def format_field(self, value: Any, format_spec: str) -> str:
        return ""

    def convert_field(self, value: Any, conversion: Any) -> Any:
        return value

    def check_unused_args(
        self, used_args: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self.unused = [i for i in (*range(len(args)), *kwargs) if i not in used_args]


def _wrong_arguments(fmt: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """What is wrong with the arguments of a format; empty if nothing is."""
    checker = _Checker()
    try:
        checker.vformat(fmt, args, kwargs)
    except (IndexError, KeyError) as error:
        return f"lacks an argument: {error}"
    if checker.unused:
        return f"must use all arguments, not leave out {checker.unused}"
    return ""


def effects_barrier() -> None:
    """Return at once: a call whose program prints has waited for it."""
