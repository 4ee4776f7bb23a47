"""Why a function was compiled, and what became of it: `tw.explain`, `tw.log_compiles`.

A program is made for each kind of call: structure of the arguments, their types, static values, the
chip, the precision. A new kind is explained by what differs from the nearest one that is known.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tilewright.compiler import tree

#: Whether each compilation is logged.
logging_compiles: ContextVar[bool] = ContextVar("logging_compiles", default=False)
_logger = logging.getLogger("tilewright")


@contextmanager
def log_compiles(value: bool = True) -> Iterator[None]:
    """Log each compilation within the ``with`` block, with its reason, as a warning of logger
    "tilewright"."""
    token = logging_compiles.set(value)
    try:
        yield
    finally:
        logging_compiles.reset(token)


def compiling(jitted: Any, key: Any, source: Any) -> None:
    """Log that a call compiles, if that is wanted."""
    if logging_compiles.get():
        reasons = "; ".join(reasons_for(key, list(jitted._cache)))
        _logger.warning("compiling %s for the call at %s: %s", jitted.name, source, reasons)


def reasons_for(key: Any, known: list[Any]) -> list[str]:
    """What is new in the key of a call (structure, avals, static values, chip, precision)."""
    if not known:
        return ["its first call"]
    return min((_differences(key, old) for old in known), key=len)


def _differences(key: Any, old: Any) -> list[str]:
    """In words, at least one for different keys."""
    (in_tree, avals, statics, config, precision), (tree2, avals2, statics2, config2, precision2) = (
        key, old,
    )  # fmt: skip
    out = []
    if in_tree != tree2:
        out.append(f"arguments of another structure: {in_tree}, before {tree2}")
    else:
        args, kwargs = tree.unflatten(in_tree, range(in_tree.num_leaves))
        names = {n: f"argument {i}" for i, a in enumerate(args) for n in tree.leaves(a)}
        names |= {n: f"argument {k!r}" for k, a in kwargs.items() for n in tree.leaves(a)}
        pairs = enumerate(zip(avals, avals2, strict=True))
        out += [f"{names[n]} is {a}, before {b}" for n, (a, b) in pairs if a != b]
    if statics != statics2:
        shown = [{w: v for w, _, v in s} for s in (statics, statics2)]
        out.append(f"static values {shown[0]}, before {shown[1]}")
    if config != config2:
        out.append(f"another chip: {config.name}, before {config2.name}")
    if precision != precision2:
        out.append(f"default precision {precision!r}, before {precision2!r}")
    return out


def explain(fun: Callable[..., Any]) -> Callable[..., str]:
    """Return a function of example arguments that tells, as text, what a call of `fun` would do.

    Whether it would be compiled, and why again; the kernels; why something is not fused or does not
    fit the local memories; how much DRAM a call needs. Nothing runs.
    """
    from tilewright.jitted import Jitted

    jitted = fun if isinstance(fun, Jitted) else Jitted(fun)

    def explained(*args: Any, **kwargs: Any) -> str:
        call = jitted.call_of(args, kwargs)
        compiled = jitted._cache.get(call.key)
        lines = [f"{jitted.name} is compiled already for these arguments"]
        if compiled is None:
            lines = [f"{jitted.name} would be compiled:"]
            lines += [f"  {reason}" for reason in reasons_for(call.key, list(jitted._cache))]
            compiled = jitted.lower(*args, **kwargs).compile()
        kernels = compiled.back.kernels
        lines += [f"{len(kernels.all)} kernels, {len(compiled.program)} instructions:"]
        lines += [f"  {line}" for k in kernels.kernels for line in str(k).splitlines()]
        lines += [f"not fused: {note}" for note in kernels.notes] or ["nothing was kept apart"]
        memory = compiled.memory_analysis()
        lines.append(
            f"DRAM: {memory.argument_size_in_bytes:,} bytes of arguments, "
            f"{memory.output_size_in_bytes:,} of results, {memory.temp_size_in_bytes:,} of "
            f"temporaries, {memory.alias_size_in_bytes:,} of arguments overwritten"
        )
        return "\n".join(lines)

    return explained
