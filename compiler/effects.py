"""Programs that call back: the values become further results, and the host calls when it has them.

`extract` takes the callbacks out of a program, also out of those within its equations. In a scan
the values of all steps become stacked results. A branch gives zeros for what other branches show,
and the index tells which one ran. The number of steps of a `while` is not known, so it is refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from tilewright.compiler import primitives as p
from tilewright.compiler.control import cond_p, custom_p, jit_p, scan_p
from tilewright.compiler.core import Eqn, Jaxpr, Literal, Params, Var
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.primitives_debug import (
    calls_back,
    debug_callback_p,
    has_effects,
    programs,
)


class Extracted(NamedTuple):
    """A program without callbacks.

    Parameters
    ----------
    jaxpr : its results are the program's, and then what callbacks are given.
    shown : the avals of the latter.
    run : calls back with the values of the latter, NumPy arrays, in the program's order.
    """

    jaxpr: Jaxpr
    shown: list[Any]
    run: Callable[[Sequence[np.ndarray]], None]


def extract(jaxpr: Jaxpr) -> Extracted:
    """Take the callbacks out of a program.

    **Raises** UnsupportedError: there is one within a `while`.
    """
    eqns: list[Eqn] = []
    shown: list[Any] = []
    runs: list[tuple[slice, Callable[[Sequence[np.ndarray]], None]]] = []
    for eqn in jaxpr.eqns:
        start = len(shown)
        if eqn.primitive is debug_callback_p:
            shown += [a for a in eqn.inputs if isinstance(a, Var)]
            run = _callback(eqn)
        elif calls_back(eqn):
            new, more, run = _within(eqn)
            eqns.append(new)
            shown += more
        else:
            eqns.append(eqn)
            continue
        runs.append((slice(start, len(shown)), run))

    def run_all(values: Sequence[np.ndarray]) -> None:
        for span, run in runs:
            run(values[span])

    outvars = (*jaxpr.outvars, *shown)
    found = Jaxpr(jaxpr.invars, jaxpr.constvars, jaxpr.consts, tuple(eqns), outvars)
    return Extracted(found, [a.aval for a in shown], run_all)


def _callback(eqn: Eqn) -> Callable[[Sequence[np.ndarray]], None]:
    def run(values: Sequence[np.ndarray]) -> None:
        rest = iter(values)
        args = [a.value if isinstance(a, Literal) else next(rest) for a in eqn.inputs]
        debug_callback_p.impl(*args, **eqn.params)

    return run


def _within(eqn: Eqn) -> tuple[Eqn, list[Any], Callable[[Sequence[np.ndarray]], None]]:
    """(the equation without callbacks, the values that they are given, what runs them)."""
    if eqn.primitive in (jit_p, custom_p):
        return _of_call(eqn)
    if eqn.primitive is scan_p:
        return _of_scan(eqn)
    if eqn.primitive is cond_p:
        return _of_cond(eqn)
    raise UnsupportedError(
        f"debug.print and debug.callback within a {eqn.primitive.name}_loop, whose number of steps "
        "only the chip knows, are not supported: use fori_loop with Python ints as bounds, or "
        f"carry the value out of the loop (at {_first(eqn).source})"
    )


def _first(eqn: Eqn) -> Eqn:
    """The first callback within an equation."""
    if eqn.primitive is debug_callback_p:
        return eqn
    return next(_first(e) for j in programs(eqn) for e in j.eqns if calls_back(e))


def _of_call(eqn: Eqn) -> Any:
    inner = extract(eqn.params["jaxpr"])
    more = list(map(Var, inner.shown))
    params = Params(jaxpr=inner.jaxpr, name=eqn.params.get("name", eqn.primitive.name))
    new = Eqn(jit_p, eqn.inputs, (*eqn.outputs, *more), params, eqn.source)
    return new, more, inner.run


def _of_scan(eqn: Eqn) -> Any:
    inner, length = extract(eqn.params["jaxpr"]), eqn.params["length"]
    more = [Var(a.update(shape=(length, *a.shape), weak_type=False)) for a in inner.shown]
    params = Params(eqn.params | {"jaxpr": inner.jaxpr})
    order = range(length)[::-1] if eqn.params["reverse"] else range(length)

    def run(values: Sequence[np.ndarray]) -> None:
        for i in order:
            inner.run([v[i] for v in values])

    return replace(eqn, outputs=(*eqn.outputs, *more), params=params), more, run


def _of_cond(eqn: Eqn) -> Any:
    found = [extract(b) for b in eqn.params["branches"]]
    avals = [a.update(weak_type=False) for f in found for a in f.shown]
    branches, spans, start = [], [], 0
    for inner in found:
        stop = start + len(inner.shown)
        branches.append(_padded(inner, avals[:start], avals[stop:]))
        spans.append(slice(start, stop))
        start = stop
    more, index = list(map(Var, avals)), eqn.inputs[0]
    params = Params(eqn.params | {"branches": tuple(branches)})

    def run(values: Sequence[np.ndarray]) -> None:
        place = int(index.value if isinstance(index, Literal) else values[-1])
        which = min(max(place, 0), len(found) - 1)
        found[which].run(values[spans[which]])

    shown = more if isinstance(index, Literal) else [*more, index]
    return replace(eqn, outputs=(*eqn.outputs, *more), params=params), shown, run


def _padded(inner: Extracted, before: Sequence[Any], after: Sequence[Any]) -> Jaxpr:
    """A branch that gives zeros for what the others show."""
    jaxpr, eqns = inner.jaxpr, []

    def zeros(aval: Any) -> Var:
        out, zero = Var(aval), Literal(np.zeros((), aval.dtype), aval.update(shape=()))
        params = Params(shape=aval.shape, broadcast_dimensions=())
        eqns.append(Eqn(p.broadcast_in_dim_p, (zero,), (out,), params))
        return out

    count = len(jaxpr.outvars) - len(inner.shown)
    own, shown = jaxpr.outvars[:count], jaxpr.outvars[count:]
    outvars = (*own, *map(zeros, before), *shown, *map(zeros, after))
    return replace(jaxpr, eqns=(*jaxpr.eqns, *eqns), outvars=outvars)


__all__ = ["Extracted", "extract", "has_effects"]
