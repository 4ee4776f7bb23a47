"""Control flow as plain equations: what the chip's compiler can take today.

A `scan` becomes its steps, a `cond` all of its branches and a choice. A `while`, the number of
whose steps only the program knows, is refused.
"""

from tilewright.compiler import primitives as p
from tilewright.compiler import primitives_lanes as lanes
from tilewright.compiler.control import cond_p, custom_p, jit_p, scan_p, while_p
from tilewright.compiler.core import Literal
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.primitives_join import concatenate_p
from tilewright.compiler.source import attributed
from tilewright.compiler.trace import aval_of, bind, new_trace

CONTROL = (cond_p, custom_p, jit_p, scan_p, while_p)
MOST = 50_000  # equations of an unrolled program


def unroll(jaxpr):
    """Return an equivalent jaxpr without control flow.

    **Raises** UnsupportedError: a while loop, or more than MOST equations.
    """
    if not any(e.primitive in CONTROL for e in jaxpr.eqns):
        return jaxpr
    count = _size(jaxpr)
    if count > MOST:
        loops = ", ".join(f"{e.params['length']} steps at {e.source}" for e in jaxpr.eqns
                          if e.primitive is scan_p)  # fmt: skip
        raise UnsupportedError(
            f"loops are unrolled, and this program would have {count} equations; at most {MOST} "
            f"are compiled: {loops}"
        )
    with new_trace() as trace:
        args = list(map(trace.new_arg, jaxpr.in_avals))
        return trace.jaxpr(_run(jaxpr, [*jaxpr.consts, *args]))


def _size(jaxpr):
    """How many equations a program has when it is unrolled."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive is scan_p:
            total += eqn.params["length"] * (_size(eqn.params["jaxpr"]) + 2)
        elif eqn.primitive is cond_p:
            total += sum(map(_size, eqn.params["branches"]))
        elif eqn.primitive in (custom_p, jit_p):
            total += _size(eqn.params["jaxpr"])
        else:
            total += 1
    return total


def _run(jaxpr, args):
    """Record a program's equations on values of its constants and inputs."""
    values = dict(zip(map(id, (*jaxpr.constvars, *jaxpr.invars)), args, strict=True))

    def read(atom):
        return atom if isinstance(atom, Literal) else values[id(atom)]

    for eqn in jaxpr.eqns:
        operands = list(map(read, eqn.inputs))
        with attributed(eqn.source):
            if eqn.primitive in CONTROL:
                results = EXPAND[eqn.primitive](operands, eqn)
            else:
                results = bind(eqn.primitive, *operands, **eqn.params)
                results = results if eqn.primitive.multiple_results else [results]
        values |= dict(zip(map(id, eqn.outputs), results, strict=True))
    return list(map(read, jaxpr.outvars))


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


def _cond(operands, eqn):
    index, *args = operands
    branches = eqn.params["branches"]
    if isinstance(index, Literal):
        return _run(branches[min(max(int(index.value), 0), len(branches) - 1)], args)
    every = [_run(branch, args) for branch in branches]
    chosen = every[-1]
    for i in reversed(range(len(every) - 1)):
        here = bind(p.le_p, index, Literal(i, aval_of(index).update(weak_type=False)))
        chosen = [bind(lanes.select_n_p, here, b, a) for a, b in zip(every[i], chosen, strict=True)]
    return chosen


def _call(operands, eqn):
    return _run(eqn.params["jaxpr"], operands)


def _while(operands, eqn):
    raise UnsupportedError(
        f"a while loop cannot run on this chip's compiler yet: the number of its steps is known "
        f"only while it runs (at {eqn.source}); use scan, or fori_loop with Python ints"
    )


EXPAND = {cond_p: _cond, custom_p: _call, jit_p: _call, scan_p: _scan, while_p: _while}
