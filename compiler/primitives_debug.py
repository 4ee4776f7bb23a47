"""``debug_callback[callback, in_tree, static, batches](*arrays)``: call the user back with values.

It has no results. `in_tree` is the structure of ``(args, kwargs)``, `static` the leaves that are no
arrays, as (place, leaf). For each `vmap` around it, the innermost first, `batches` holds
``(size, flags)``: the flags say which arrays have a dimension of examples, each in front of those
of the earlier ones.

On the chip its operands are results of the program, and the host calls back (`compiler.effects`).
"""

import numpy as np
from tilewright.compiler import tree
from tilewright.compiler.core import Primitive

debug_callback_p = Primitive("debug_callback", multiple_results=True)


@debug_callback_p.rule("abstract")
def _avals(*avals, callback, in_tree, static, batches):
    return []


@debug_callback_p.rule("impl")
def _call(*args, callback, in_tree, static, batches):
    if batches:
        (size, flags), *rest = batches
        axes = [sum(others[k] for _, others in rest) for k in range(len(args))]
        for i in range(size):
            one = [np.take(x, i, axis) if batched else x
                   for x, batched, axis in zip(args, flags, axes, strict=True)]  # fmt: skip
            _call(*one, callback=callback, in_tree=in_tree, static=static, batches=tuple(rest))
        return []
    leaves = list(args)
    for place, leaf in static:
        leaves.insert(place, leaf)
    positional, named = tree.unflatten(in_tree, leaves)
    callback(*positional, **named)
    return []


@debug_callback_p.rule("jvp")
def _jvp(primals, tangents, **params):
    from tilewright.compiler.trace import bind

    bind(debug_callback_p, *primals, **params)
    return [], []


@debug_callback_p.rule("batch")
def _batch(size, args, dims, *, batches, **params):
    from tilewright.compiler.batching import move_dim
    from tilewright.compiler.trace import bind

    flags = tuple(d is not None for d in dims)
    moved = [x if d is None else move_dim(x, d, 0) for x, d in zip(args, dims, strict=True)]
    bind(debug_callback_p, *moved, batches=(*batches, (size, flags)), **params)
    return [], []


def has_effects(jaxpr):
    """Tell whether a program, or one within its equations, calls back."""
    if "effects" not in jaxpr.memo:
        jaxpr.memo["effects"] = any(map(calls_back, jaxpr.eqns))
    return jaxpr.memo["effects"]


def calls_back(eqn):
    """Tell whether an equation does."""
    return eqn.primitive is debug_callback_p or any(map(has_effects, programs(eqn)))


def programs(eqn):
    """Return the programs within an equation."""
    named = [eqn.params[k] for k in ("jaxpr", "cond_jaxpr", "body_jaxpr") if k in eqn.params]
    return [*named, *eqn.params.get("branches", ())]
