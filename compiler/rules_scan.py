"""Derivative, transpose and batch of `scan`.

The derivative is two scans. The first one also keeps, step by step, what the derivative of the body
needs (its residuals); the second one is linear in the tangents, so that it can run backward.
"""

from tilewright.compiler.batching import batched_at, move_dim, vmap_flat
from tilewright.compiler.control import BodyTrace, closed, hoisted, scan_p
from tilewright.compiler.core import FLOATS, Jaxpr
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.forward import Zero, instantiate
from tilewright.compiler.linear import Undefined, linearize_flat, transpose_flat
from tilewright.compiler.rules import add
from tilewright.compiler.source import user_source
from tilewright.compiler.trace import aval_of, bind, inline, running


class Split:
    """The derivative of a program, split into what is known and what is linear.

    Parameters
    ----------
    jaxpr : from inputs to results.
    nonzero : which inputs have tangents.
    wanted : results that have tangents also if they are zero.
    direct : inputs that may be residuals themselves.

    Attributes
    ----------
    primal, consts : the program from consts and inputs to results and further residuals.
    sources : for each residual ``(True, input)`` or ``(False, number of the further residual)``.
    linear : what has tangents, as `Linear`; its jaxpr's constants are the residuals.
    """

    def __init__(self, jaxpr, nonzero, wanted, direct):
        with running(BodyTrace()) as trace:
            ins = list(map(trace.new_arg, jaxpr.in_avals))
            outs, self.linear = linearize_flat(lambda *xs: inline(jaxpr, xs), ins, nonzero, wanted)
            places = {id(ins[i].var): i for i in direct}
            self.sources, further = [], []
            for const in self.linear.jaxpr.consts:
                place = places.get(id(const.var)) if trace.owns(const) else None
                self.sources.append((False, len(further)) if place is None else (True, place))
                if place is None:
                    further.append(const)
            self.primal, self.consts = hoisted(trace.jaxpr([*outs, *further]))

    @property
    def residual_avals(self):
        """The avals of the further residuals."""
        return self.primal.out_avals[len(self.linear.out_avals) :]


def _converged(jaxpr, nonzero, consts, carry):
    """The split of a scan's body; a carry that gets a tangent in a step has one in all."""
    nonzero = list(nonzero)
    direct = [*range(consts), *range(consts + carry, len(nonzero))]
    while True:
        wanted = [i for i in range(carry) if nonzero[consts + i]]
        split = Split(jaxpr, nonzero, wanted, direct)
        grown = [i for i in split.linear.outputs if i < carry and not nonzero[consts + i]]
        if not grown:
            return split
        for i in grown:
            nonzero[consts + i] = True


@scan_p.rule("jvp")
def _scan_jvp(primals, tangents, *, jaxpr, length, reverse, consts, carry, linear=()):
    nonzero = [not isinstance(t, Zero) for t in tangents]
    split = _converged(jaxpr, nonzero, consts, carry)
    outs = bind(
        scan_p, *split.consts, *primals, jaxpr=split.primal, length=length, reverse=reverse,
        consts=len(split.consts) + consts, carry=carry,
    )  # fmt: skip
    count = len(jaxpr.outvars)
    outs, residuals = outs[:count], outs[count:]
    found = _tangent_scan(split, primals, tangents, residuals, length, reverse, consts, carry)
    full = [Zero(aval_of(x)) for x in outs]
    for i, t in zip(split.linear.outputs, found, strict=True):
        full[i] = t
    return outs, full


def _tangent_scan(split, primals, tangents, residuals, length, reverse, consts, carry):
    """The scan that is linear in the tangents."""
    if not split.linear.outputs:
        return []
    program, state = split.linear.jaxpr, consts + carry
    fixed, rows, steps = [], [], []  # (variable, operand, whether it is linear)
    for var, (direct, i) in zip(program.constvars, split.sources, strict=True):
        if direct and i < consts:
            fixed.append((var, primals[i], False))
        else:
            rows.append((var, primals[i] if direct else residuals[i], False))
    for var, i in zip(program.invars, split.linear.inputs, strict=True):
        group = fixed if i < consts else steps if i < state else rows
        group.append((var, instantiate(tangents[i]), True))
    operands = [*fixed, *steps, *rows]
    body = Jaxpr([var for var, _, _ in operands], (), (), program.eqns, program.outvars)
    return bind(
        scan_p, *(x for _, x, _ in operands), jaxpr=body, length=length, reverse=reverse,
        consts=len(fixed), carry=len(steps), linear=tuple(wanted for _, _, wanted in operands),
    )  # fmt: skip


@scan_p.rule("transpose")
def _scan_transpose(cts, *args, jaxpr, length, reverse, consts, carry, linear=()):
    linear = linear or [isinstance(a, Undefined) or consts <= i < consts + carry
                        for i, a in enumerate(args)]  # fmt: skip
    state = range(consts, consts + carry)
    if any(not linear[i] or jaxpr.in_avals[i].dtype not in FLOATS for i in state):
        raise UnsupportedError(
            f"a scan can be transposed only if it is linear in its whole carry (at {user_source()})"
        )
    known = [i for i in range(len(args)) if not linear[i]]
    fixed, rows = [i for i in known if i < consts], [i for i in known if i >= consts]
    sums = [i for i in range(consts) if linear[i]]
    slices = [i for i in range(consts + carry, len(args)) if linear[i]]
    used = [i for i, ct in enumerate(cts) if i >= carry and not isinstance(ct, Zero)]
    variables = jaxpr.invars
    sizes = [len(fixed), len(sums), carry, len(used), len(rows)]

    def body(*values):
        parts, start = [], 0
        for n in sizes:
            parts.append(values[start : start + n])
            start += n
        const_values, totals, ct_state, ct_rows, row_values = parts
        inner = Jaxpr(
            [variables[i] for i in (*sums, *state, *slices)], [variables[i] for i in known],
            [*const_values, *row_values], jaxpr.eqns, jaxpr.outvars,
        )  # fmt: skip
        full = [*ct_state, *(Zero(a) for a in jaxpr.out_avals[carry:])]
        for i, ct in zip(used, ct_rows, strict=True):
            full[i] = ct
        found = transpose_flat(inner, full)
        new = [t if isinstance(ct, Zero) else add(t, ct)
               for t, ct in zip(totals, found, strict=False)]  # fmt: skip
        return [*new, *map(instantiate, found[len(sums) :])]

    ct_rows = [cts[i] for i in used]
    operands = [
        *(args[i] for i in fixed),
        *(instantiate(Zero(variables[i].aval)) for i in sums),
        *map(instantiate, cts[:carry]),
        *ct_rows,
        *(args[i] for i in rows),
    ]
    first_row = len(fixed) + len(sums) + carry
    avals = [aval_of(x) if i < first_row else aval_of(x).update(shape=aval_of(x).shape[1:])
             for i, x in enumerate(operands)]  # fmt: skip
    program, extra = closed(body, avals)
    outs = bind(
        scan_p, *extra, *operands, jaxpr=program, length=length, reverse=not reverse,
        consts=len(extra) + len(fixed), carry=len(sums) + carry,
    )  # fmt: skip
    result = [None] * len(args)
    for i, ct in zip((*sums, *state, *slices), outs, strict=True):
        result[i] = ct
    return result


@scan_p.rule("batch")
def _scan_batch(size, args, dims, *, jaxpr, length, reverse, consts, carry, linear=()):
    batched = [d is not None for d in dims]
    while True:
        avals = [a.update(shape=(size, *a.shape)) if b else a
                 for a, b in zip(jaxpr.in_avals, batched, strict=True)]  # fmt: skip
        out_dims = []

        def body(*values, batched=batched, out_dims=out_dims):
            places = [0 if b else None for b in batched]
            outs, found = vmap_flat(lambda *xs: inline(jaxpr, xs), size, values, places)
            out_dims[:] = found
            return [batched_at(v, d, size) if d is not None or (i < carry and batched[consts + i])
                    else v for i, (v, d) in enumerate(zip(outs, found, strict=True))]  # fmt: skip

        program, extra = closed(body, avals)
        grown = [i for i in range(carry) if out_dims[i] is not None and not batched[consts + i]]
        if not grown:
            break
        for i in grown:
            batched[consts + i] = True
    operands = []
    for i, (x, d) in enumerate(zip(args, dims, strict=True)):
        if i >= consts + carry:
            operands.append(x if d is None else move_dim(x, d, 1))
        else:
            operands.append(batched_at(x, d, size) if batched[i] else x)
    outs = bind(
        scan_p, *extra, *operands, jaxpr=program, length=length, reverse=reverse,
        consts=len(extra) + consts, carry=carry,
        linear=(*(False for _ in extra), *linear) if linear else (),
    )  # fmt: skip
    places = [0 if batched[consts + i] else None for i in range(carry)]
    return outs, places + [None if d is None else 1 for d in out_dims[carry:]]
