"""Jaxprs as text, in JAX's notation; the text is deterministic, and tests compare it."""

from itertools import count

import numpy as np
from tilewright.compiler.core import SHORT_NAMES, Jaxpr, Literal

WIDTH = 80


def _names():
    """Yield a, b, ..., z, ba, bb, ...: JAX's names of variables."""
    for n in count():
        name = chr(ord("a") + n % 26)
        while n := n // 26:
            name = chr(ord("a") + n % 26) + name
        yield name


def _param_text(value):
    if isinstance(value, np.dtype):
        return SHORT_NAMES.get(value, str(value))
    if isinstance(value, Jaxpr):
        return jaxpr_text(value).replace("\n", "\n    ")
    if isinstance(value, tuple) and any(isinstance(v, Jaxpr) for v in value):
        return f"({', '.join(map(_param_text, value))})"
    return str(value).replace(" ", "") if isinstance(value, tuple) else str(value)


def jaxpr_text(jaxpr, *, source=False):
    """Return the text of a jaxpr; with `source`, each equation ends with its user's line."""
    names, fresh = {}, _names()

    def binder(var):
        names[id(var)] = next(fresh)
        return f"{names[id(var)]}:{var.aval}"

    def atom(a):
        return str(a) if isinstance(a, Literal) else names.get(id(a), "?")

    def equation(eqn):
        shown = sorted((k, v) for k, v in eqn.params.items() if v is not None)
        params = " ".join(f"{k}={_param_text(v)}" for k, v in shown)
        inputs = "".join(" " + atom(a) for a in eqn.inputs)
        outputs = " ".join(binder(v) for v in eqn.outputs)
        text = f"{outputs} = {eqn.primitive.name}{f'[{params}]' if params else ''}{inputs}"
        return f"{text}  # {eqn.source}" if source else text

    consts = " ".join(binder(v) for v in jaxpr.constvars)
    inputs = " ".join(binder(v) for v in jaxpr.invars)
    lines = [equation(eqn) for eqn in jaxpr.eqns]
    outs = ", ".join(atom(a) for a in jaxpr.outvars)
    result = f"({outs},)" if len(jaxpr.outvars) == 1 else f"({outs})"
    head = f"{{ lambda {consts}; {inputs}. let"
    one_line = f"{' '.join([head, *lines])} in {result} }}"
    if len(lines) <= 1 and len(one_line) <= WIDTH and not source:
        return one_line
    return "\n".join([head, *(f"    {line}" for line in lines), f"  in {result} }}"])
