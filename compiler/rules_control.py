"""Derivatives, transposes and batches of `cond` and `while`, and of custom calls within them."""

from tilewright.compiler import primitives as p
from tilewright.compiler.batching import batched_at, vmap_flat
from tilewright.compiler.control import cond_p, custom_p, while_p
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.forward import Zero, filled, instantiate, jvp_flat
from tilewright.compiler.linear import LinearTrace, Undefined
from tilewright.compiler.primitives_reduce import reduce_or_p
from tilewright.compiler.rules import broadcast, number, select
from tilewright.compiler.rules_programs import (
    Split,
    backward_program,
    batched_program,
    program,
)
from tilewright.compiler.source import user_source
from tilewright.compiler.trace import apply_custom, aval_of, bind, current_trace, inline


def _splits(branches, nonzero):
    """The split of each branch, all with the same results that have tangents."""
    everything = range(len(nonzero))
    first = [Split(b, nonzero, (), everything) for b in branches]
    wanted = sorted({i for split in first for i in split.linear.outputs})
    return [Split(b, nonzero, wanted, everything) for b in branches], wanted


@cond_p.rule("jvp")
def _cond_jvp(primals, tangents, *, branches, linear=()):
    index, *args = primals
    splits, wanted = _splits(branches, [not isinstance(t, Zero) for t in tangents[1:]])
    count, consts = len(branches[0].outvars), [c for s in splits for c in s.consts]
    programs = [_with_residuals(splits, i, [*map(aval_of, consts)]) for i in range(len(splits))]
    outs = bind(cond_p, index, *consts, *args, branches=tuple(programs))
    outs, residuals = outs[:count], outs[count:]
    full = [Zero(aval_of(x)) for x in outs]
    if not wanted:
        return outs, full
    inputs = splits[0].linear.inputs
    given = [tangents[1 + i] for i in inputs]
    operands = [*residuals, *args, *given]
    programs = [_linear_branch(splits, i, list(map(aval_of, operands))) for i in range(len(splits))]
    is_linear = (*(False for _ in range(1 + len(residuals) + len(args))), *(True for _ in given))
    found = bind(cond_p, index, *operands, branches=tuple(programs), linear=is_linear)
    for i, t in zip(wanted, found, strict=True):
        full[i] = t
    return outs, full


def _with_residuals(splits, chosen, const_avals):
    """A branch that also returns its residuals, and zeros in the place of the other branches'."""
    start = sum(len(s.consts) for s in splits[:chosen])
    split = splits[chosen]

    def branch(*values):
        own = values[start : start + len(split.consts)]
        found = inline(split.primal, [*own, *values[len(const_avals) :]])
        count = len(split.linear.out_avals)
        rest = []
        for other in splits:
            mine = other is split
            rest += found[count:] if mine else [filled(a, 0) for a in other.residual_avals]
        return [*found[:count], *rest]

    return program(branch, [*const_avals, *split.primal.in_avals[len(split.consts) :]])


def _linear_branch(splits, chosen, avals):
    """A branch's derivative, from all branches' residuals, all operands, and the tangents."""
    split = splits[chosen]
    start = sum(len(s.residual_avals) for s in splits[:chosen])
    args = sum(len(s.residual_avals) for s in splits)
    given = len(split.linear.inputs)

    def branch(*values):
        known = [values[args + i] if direct else values[start + i] for direct, i in split.sources]
        return inline(split.linear.jaxpr, values[len(values) - given :], known)

    return program(branch, avals)


@cond_p.rule("transpose")
def _cond_transpose(cts, index, *args, branches, linear=()):
    linear = linear[1:] or [isinstance(a, Undefined) for a in args]
    used = [i for i, ct in enumerate(cts) if not isinstance(ct, Zero)]
    known = [a for a, is_linear in zip(args, linear, strict=True) if not is_linear]
    programs = tuple(backward_program(branch, linear, used) for branch in branches)
    found = iter(bind(cond_p, index, *known, *(cts[i] for i in used), branches=programs))
    return [None, *(next(found) if is_linear else None for is_linear in linear)]


@cond_p.rule("batch")
def _cond_batch(size, args, dims, *, branches, linear=()):
    (index, *args), (index_dim, *dims) = args, dims
    batched = [d is not None for d in dims]
    args = [x if d is None else batched_at(x, d, size) for x, d in zip(args, dims, strict=True)]
    none = [False] * len(branches[0].outvars)
    if index_dim is not None:
        everything = [True] * len(none)
        every = [inline(batched_program(b, size, batched, everything)[0], args) for b in branches]
        return _choose(index, every), [0] * len(none)
    found = [batched_program(b, size, batched, none)[1] for b in branches]
    wanted = [any(column) for column in zip(*found, strict=True)]
    programs = tuple(batched_program(b, size, batched, wanted)[0] for b in branches)
    outs = bind(cond_p, index, *args, branches=programs, linear=linear)
    return outs, [0 if w else None for w in wanted]


def _choose(index, every):
    """Results by an index for each example (of all: clamped)."""
    chosen = every[-1]
    for i in reversed(range(len(every) - 1)):
        here = bind(p.le_p, index, number(i, index))
        chosen = [select(broadcast(here, aval_of(a).shape, (0,)), a, b)
                  for a, b in zip(every[i], chosen, strict=True)]  # fmt: skip
    return chosen


@while_p.rule("jvp")
def _while_jvp(primals, tangents, *, cond_jaxpr, cond_consts, body_jaxpr, body_consts):
    """One loop carries values and tangents; while linearizing, another one values alone."""
    params = {"cond_jaxpr": cond_jaxpr, "cond_consts": cond_consts,
              "body_jaxpr": body_jaxpr, "body_consts": body_consts}  # fmt: skip
    start = cond_consts + body_consts
    count = len(primals) - start
    nonzero = [not isinstance(t, Zero) for t in tangents[cond_consts:]]
    while True:
        joint, has_tangent = _joint_body(body_jaxpr, nonzero, body_consts)
        grown = [i for i in range(count) if has_tangent[i] and not nonzero[body_consts + i]]
        if not grown:
            break
        for i in grown:
            nonzero[body_consts + i] = True
    given = [instantiate(t) for t, n in zip(tangents[cond_consts:], nonzero, strict=True) if n]
    fixed = sum(nonzero[:body_consts])
    operands = [*primals[:start], *given[:fixed], *primals[start:], *given[fixed:]]
    avals = [aval_of(x) for x in (*primals[:cond_consts], *operands[start + fixed :])]
    keep = cond_consts + count
    condition = program(lambda *v: inline(cond_jaxpr, v[:keep]), avals)
    found = bind(
        while_p, *operands, cond_jaxpr=condition, cond_consts=cond_consts, body_jaxpr=joint,
        body_consts=body_consts + fixed,
    )  # fmt: skip
    outs, rest = found[:count], iter(found[count:])
    if isinstance(current_trace(), LinearTrace):
        outs = bind(while_p, *primals, **params)
    return outs, [next(rest) if n else Zero(aval_of(x))
                  for x, n in zip(outs, nonzero[body_consts:], strict=True)]  # fmt: skip


def _joint_body(jaxpr, nonzero, consts):
    """The body on (consts, their tangents, carry, its tangents); which results have tangents."""
    avals, has_tangent = jaxpr.in_avals, []
    groups = [range(consts), range(consts, len(avals))]
    order = [(i, kind) for group in groups for kind in (0, 1) for i in group
             if not kind or nonzero[i]]  # fmt: skip

    def body(*values):
        primals, tangents = [None] * len(avals), list(map(Zero, avals))
        for (i, kind), value in zip(order, values, strict=True):
            (tangents if kind else primals)[i] = value
        outs, found = jvp_flat(lambda *xs: inline(jaxpr, xs), primals, tangents)
        has_tangent[:] = [not isinstance(t, Zero) for t in found]
        wanted = nonzero[consts:]
        return [*outs, *(instantiate(t) for t, w in zip(found, wanted, strict=True) if w)]

    return program(body, [avals[i] for i, _ in order]), has_tangent


@while_p.rule("transpose")
def _while_transpose(*_args, **_params):
    raise UnsupportedError(
        "reverse-mode differentiation does not work through while_loop, or fori_loop with bounds "
        f"that are traced: use scan, or fori_loop with Python ints (at {user_source()})"
    )


@while_p.rule("batch")
def _while_batch(size, args, dims, *, cond_jaxpr, cond_consts, body_jaxpr, body_consts):
    start = cond_consts + body_consts
    batched = [d is not None for d in dims]
    count = len(args) - start
    while True:
        state = batched[start:]
        _, (differs,) = batched_program(cond_jaxpr, size, [*batched[:cond_consts], *state], [False])
        if differs:
            state = [True] * count
        body, found = batched_program(
            body_jaxpr, size, [*batched[cond_consts:start], *state], state)  # fmt: skip
        grown = [s or f for s, f in zip(state, found, strict=True)]
        if grown == batched[start:]:
            break
        batched[start:] = grown
    condition, _ = batched_program(
        cond_jaxpr, size, [*batched[:cond_consts], *batched[start:]], [False]
    )
    operands = [batched_at(x, d, size) if b else x
                for x, d, b in zip(args, dims, batched, strict=True)]  # fmt: skip
    consts = body_consts
    if differs:
        condition, body, consts = _until_all_are_done(condition, body, cond_consts, body_consts)
        operands = [*operands[:cond_consts], *operands[:start], *operands[start:]]
    outs = bind(
        while_p, *operands, cond_jaxpr=condition, cond_consts=cond_consts, body_jaxpr=body,
        body_consts=consts,
    )  # fmt: skip
    return outs, [0 if b else None for b in batched[start:]]


def _until_all_are_done(condition, body, cond_consts, body_consts):
    """A loop that goes on while any example does; the others keep their carry."""
    fixed = cond_consts + body_consts

    def going(*values):
        return [bind(reduce_or_p, inline(condition, values)[0], axes=(0,))]

    def step(*values):
        carry = values[fixed:]
        here = inline(condition, [*values[:cond_consts], *carry])[0]
        new = inline(body, values[cond_consts:])
        return [select(broadcast(here, aval_of(n).shape, (0,)), n, old)
                for n, old in zip(new, carry, strict=True)]  # fmt: skip

    avals = [*condition.in_avals[:cond_consts], *body.in_avals]
    return program(going, condition.in_avals), program(step, avals), fixed


@custom_p.rule("jvp")
def _custom_jvp(primals, tangents, *, call, jaxpr, consts):
    if any(not isinstance(t, Zero) for t in tangents[:consts]):
        raise UnsupportedError(
            "a function with a custom derivative within a loop or a branch must not close over "
            f"what is differentiated: make it an argument (at {user_source()})"
        )
    return call.jvp(primals[consts:], tangents[consts:])


@custom_p.rule("batch")
def _custom_batch(size, args, dims, *, call, jaxpr, consts):
    if any(d is not None for d in dims[:consts]):
        return vmap_flat(lambda *xs: inline(jaxpr, xs), size, args, dims)
    batched, out_dims = call.batch(size, dims[consts:])
    outs = apply_custom(batched, args[consts:])
    return outs, out_dims or [0] * len(outs)
