"""Derivative, transpose and batch of `scan`.

The derivative is two scans. The first one also keeps, step by step, what the derivative of the body
needs (its residuals); the second one is linear in the tangents, so that it can run backward.
"""

from tilewright.compiler.batching import batched_at, move_dim
from tilewright.compiler.control import scan_p
from tilewright.compiler.core import FLOATS, Jaxpr
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.forward import Zero, instantiate
from tilewright.compiler.linear import Undefined
from tilewright.compiler.rules import add
from tilewright.compiler.rules_programs import Split, batched_program, program, transposed
from tilewright.compiler.source import user_source
from tilewright.compiler.trace import aval_of, bind


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


class _Operands:
    """Which operands of a scan are what, as positions: known or linear; fixed, carry or rows."""

    def __init__(self, args, linear, consts, carry):
        self.state = range(consts, consts + carry)
        count = range(len(args))
        linear = linear or [isinstance(args[i], Undefined) or i in self.state for i in count]
        self.is_linear = linear
        self.known = [i for i in count if not linear[i]]
        self.fixed = [i for i in self.known if i < consts]
        self.rows = [i for i in self.known if i >= consts]
        self.sums = [i for i in count if linear[i] and i < consts]
        self.slices = [i for i in count if linear[i] and i >= consts + carry]


def _backward_step(jaxpr, places, carry, used):
    """The body run backward: (fixed, sums so far, cotangents of carry and of rows, known rows)."""
    sizes = [len(places.fixed), len(places.sums), carry, len(used), len(places.rows)]

    def step(*values):
        parts, start = [], 0
        for n in sizes:
            parts.append(values[start : start + n])
            start += n
        fixed, sums, state, ct_rows, rows = parts
        found = transposed(
            jaxpr, [*places.sums, *places.state, *places.slices], places.known, [*fixed, *rows],
            [*range(carry), *used], [*state, *ct_rows],
        )  # fmt: skip
        new = [t if isinstance(ct, Zero) else add(t, ct)
               for t, ct in zip(sums, found, strict=False)]  # fmt: skip
        return [*new, *map(instantiate, found[len(sums) :])]

    return step


@scan_p.rule("transpose")
def _scan_transpose(cts, *args, jaxpr, length, reverse, consts, carry, linear=()):
    """A scan the other way round, whose carry also sums the cotangents of what is fixed."""
    places, avals = _Operands(args, linear, consts, carry), jaxpr.in_avals
    if any(not places.is_linear[i] or avals[i].dtype not in FLOATS for i in places.state):
        raise UnsupportedError(
            f"a scan can be transposed only if it is linear in its whole carry (at {user_source()})"
        )
    used = [i for i, ct in enumerate(cts) if i >= carry and not isinstance(ct, Zero)]
    operands = [
        *(args[i] for i in places.fixed),
        *(instantiate(Zero(avals[i])) for i in places.sums),
        *map(instantiate, cts[:carry]),
        *(cts[i] for i in used),
        *(args[i] for i in places.rows),
    ]
    step_avals = [
        *(avals[i] for i in (*places.fixed, *places.sums, *places.state)),
        *(jaxpr.out_avals[i] for i in used),
        *(avals[i] for i in places.rows),
    ]
    outs = bind(
        scan_p, *operands, jaxpr=program(_backward_step(jaxpr, places, carry, used), step_avals),
        length=length, reverse=not reverse, consts=len(places.fixed),
        carry=len(places.sums) + carry,
    )  # fmt: skip
    result = [None] * len(args)
    for i, ct in zip((*places.sums, *places.state, *places.slices), outs, strict=True):
        result[i] = ct
    return result


@scan_p.rule("batch")
def _scan_batch(size, args, dims, *, jaxpr, length, reverse, consts, carry, linear=()):
    batched = [d is not None for d in dims]
    while True:  # a carry that is batched in a step is in all
        wanted = [*batched[consts : consts + carry], *(False for _ in jaxpr.outvars[carry:])]
        body, found = batched_program(jaxpr, size, batched, wanted)
        grown = [i for i in range(carry) if found[i] and not batched[consts + i]]
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
        scan_p, *operands, jaxpr=body, length=length, reverse=reverse, consts=consts, carry=carry,
        linear=linear,
    )  # fmt: skip
    places = [0 if b else None for b in batched[consts : consts + carry]]
    return outs, places + [1 if f else None for f in found[carry:]]
