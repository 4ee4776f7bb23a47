"""Short control flow as plain equations, which fuse with their neighbours.

A `scan` of at most SHORT steps becomes its steps, a function with its own derivative its equations.
Longer loops, `while` and `cond` stay, with programs inside that are treated alike: the sequencer
runs them (`fuse_control`). Rows at computed places become what the chip is good at (`narrow_rows`).
"""

from tilewright.compiler import primitives as p
from tilewright.compiler.control import cond_p, custom_p, jit_p, scan_p, while_p
from tilewright.compiler.core import Literal
from tilewright.compiler.narrow_rows import EXPANDED
from tilewright.compiler.primitives_join import concatenate_p
from tilewright.compiler.source import attributed
from tilewright.compiler.trace import aval_of, bind, new_trace

CONTROL = (cond_p, custom_p, jit_p, scan_p, while_p)
SHORT = 4  # steps


def unroll(jaxpr):
    """Return an equivalent jaxpr without short loops, within loops and branches as well."""
    if not any(e.primitive in CONTROL or e.primitive in EXPANDED for e in jaxpr.eqns):
        return jaxpr
    with new_trace() as trace:
        args = list(map(trace.new_arg, jaxpr.in_avals))
        return trace.jaxpr(_run(jaxpr, [*jaxpr.consts, *args]))


def _inner(params):
    """Parameters with the programs in them unrolled; these have no constants, before and after."""
    return {
        k: unroll(v) if k in ("jaxpr", "cond_jaxpr", "body_jaxpr")
        else tuple(map(unroll, v)) if k == "branches" else v
        for k, v in params.items()
    }  # fmt: skip


def _run(jaxpr, args):
    """Record a program's equations on values of its constants and inputs."""
    values = dict(zip(map(id, (*jaxpr.constvars, *jaxpr.invars)), args, strict=True))

    def read(atom):
        return atom if isinstance(atom, Literal) else values[id(atom)]

    for eqn in jaxpr.eqns:
        operands = list(map(read, eqn.inputs))
        with attributed(eqn.source):
            if eqn.primitive in (custom_p, jit_p):
                results = _run(eqn.params["jaxpr"], operands)
            elif eqn.primitive is cond_p and isinstance(operands[0], Literal):
                branches = eqn.params["branches"]
                known = min(max(int(operands[0].value), 0), len(branches) - 1)
                results = _run(branches[known], operands[1:])
            elif eqn.primitive is scan_p and eqn.params["length"] <= SHORT:
                results = _scan(operands, eqn)
            elif (found := expanded(eqn, operands)) is not None:
                results = [found]
            else:
                params = _inner(eqn.params) if eqn.primitive in CONTROL else eqn.params
                results = bind(eqn.primitive, *operands, **params)
                results = results if eqn.primitive.multiple_results else [results]
        values |= dict(zip(map(id, eqn.outputs), results, strict=True))
    return list(map(read, jaxpr.outvars))


def expanded(eqn, operands):
    """What one equation is in others, or None (`narrow_rows`)."""
    function = EXPANDED.get(eqn.primitive)
    return function(*operands, **eqn.params) if function else None


def _row(x, i):
    shape = aval_of(x).shape
    starts, limits = (i, *(0 for _ in shape[1:])), (i + 1, *shape[1:])
    row = bind(p.slice_p, x, start_indices=starts, limit_indices=limits)
    return bind(p.reshape_p, row, new_sizes=shape[1:])


def _scan(operands, eqn):
    params = eqn.params
    consts, carry, length = params["consts"], params["carry"], params["length"]
    fixed, state = operands[:consts], operands[consts : consts + carry]
    xs, rows = operands[consts + carry :], [None] * length
    for i in reversed(range(length)) if params["reverse"] else range(length):
        outs = _run(params["jaxpr"], [*fixed, *state, *(_row(x, i) for x in xs)])
        state, rows[i] = outs[:carry], outs[carry:]
    stacked = [_stack([row[k] for row in rows], v.aval) for k, v in enumerate(eqn.outputs[carry:])]
    return [*state, *stacked]


def _stack(rows, aval):
    if not rows:
        zero = Literal(0, aval.update(shape=()))
        return bind(p.broadcast_in_dim_p, zero, shape=aval.shape, broadcast_dimensions=())
    tall = [bind(p.broadcast_in_dim_p, r, shape=(1, *aval.shape[1:]),
                 broadcast_dimensions=tuple(range(1, len(aval.shape)))) for r in rows]  # fmt: skip
    return bind(concatenate_p, *tall, dimension=0) if len(tall) > 1 else tall[0]
