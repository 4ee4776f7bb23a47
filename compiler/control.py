"""Control flow: `cond`, `while` and `scan`, primitives of several results with programs inside.

The programs (`branches`, `cond_jaxpr`, `body_jaxpr`, `jaxpr`) have no constants: what a Python
function closes over becomes operands.

``cond[branches](index, *operands)`` is the branch that index, an int32 scalar, names; an index out
of range is clamped.

``while[cond_jaxpr, cond_consts, body_jaxpr, body_consts](*consts, *carry)``: the first
`cond_consts` operands are the condition's, the next `body_consts` the body's.

``scan[jaxpr, length, reverse, consts, carry](*consts, *carry, *xs)`` runs ``(*consts, *carry,
*slices) -> (*carry, *slices of ys)`` for each index of the first dimension of all xs, which has
size `length`; the results are the last carry and the ys. `consts` and `carry` are counts.

``linear``, of cond, scan and jit, says for each operand whether they are linear in it, as
derivatives are in tangents.

``jit[jaxpr, name](*operands)``: a jitted function within a transformation of concrete values.

``custom[call, jaxpr, consts](*consts, *args)``: a function that brings its own derivative
(`compiler.custom`) within one of these programs.
"""

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.core import Jaxpr, Primitive, eval_jaxpr
from tilewright.compiler.errors import OperandError
from tilewright.compiler.trace import Trace, aval_of, bind, running

cond_p = Primitive("cond", uses_dim=True, multiple_results=True)
while_p = Primitive("while", uses_dim=True, multiple_results=True)
scan_p = Primitive("scan", uses_dim=True, multiple_results=True)
custom_p = Primitive("custom", uses_dim=True, multiple_results=True)
jit_p = Primitive("jit", uses_dim=True, multiple_results=True)


class BodyTrace(Trace):
    """The recording of a program inside of an equation, which may be differentiated later."""

    def process_custom(self, call, args):
        """Record a function that brings its own derivative as an equation."""
        jaxpr, consts = closed(call, [aval_of(x) for x in args])
        return bind(custom_p, *consts, *args, call=call, jaxpr=jaxpr, consts=len(consts))


def closed(fun, avals, called=None):
    """Record a function of flat lists.

    Parameters
    ----------
    called : (the user's function, structure of its ``(args, kwargs)``), for messages.

    Returns
    -------
    Jaxpr, list
        The program, without constants, and the values of its first inputs, which it closes over.
    """
    with running(BodyTrace()) as trace:
        trace.called = called
        return hoisted(trace.jaxpr(fun(*map(trace.new_arg, avals))))


def hoisted(jaxpr):
    """Return a jaxpr whose constants are its first inputs, and their values."""
    inner = Jaxpr((*jaxpr.constvars, *jaxpr.invars), (), (), jaxpr.eqns, jaxpr.outvars)
    return inner, list(jaxpr.consts)


def same_types(first, second):
    """Tell whether two lists of avals agree but for weak types."""
    return [(a.shape, a.dtype) for a in first] == [(a.shape, a.dtype) for a in second]


def _check(name, avals, jaxpr):
    if not same_types(avals, jaxpr.in_avals):
        listed = [", ".join(map(str, t)) for t in (jaxpr.in_avals, avals)]
        raise OperandError(f"{name} must be {listed[0]}, not {listed[1]}")


@cond_p.rule("abstract")
def _cond_avals(index, *avals, branches, linear=()):
    if index.shape or index.dtype != core.int32:
        raise OperandError(f"the index of cond must be an int32 scalar, not {index}")
    for branch in branches:
        _check("the operands of cond", avals, branch)
        if not same_types(branch.out_avals, branches[0].out_avals):
            raise OperandError("the branches of cond must have results of the same types")
    return [a.update(weak_type=False) for a in branches[0].out_avals]


@cond_p.rule("impl")
def _cond_impl(index, *args, branches, dim, linear=()):
    return eval_jaxpr(branches[int(np.clip(index, 0, len(branches) - 1))], args, dim=dim)


@while_p.rule("abstract")
def _while_avals(*avals, cond_jaxpr, cond_consts, body_jaxpr, body_consts):
    carry = avals[cond_consts + body_consts :]
    _check("the operands of the condition", (*avals[:cond_consts], *carry), cond_jaxpr)
    _check("the operands of the body", avals[cond_consts:], body_jaxpr)
    (found,) = cond_jaxpr.out_avals
    if found.shape or found.dtype != core.bool_:
        raise OperandError(f"the condition must be a bool scalar, not {found}")
    if not same_types(body_jaxpr.out_avals, carry):
        raise OperandError("the carry of while must keep its types")
    return [a.update(weak_type=False) for a in carry]


@while_p.rule("impl")
def _while_impl(*args, cond_jaxpr, cond_consts, body_jaxpr, body_consts, dim):
    first, second = args[:cond_consts], args[cond_consts : cond_consts + body_consts]
    carry = args[cond_consts + body_consts :]
    while eval_jaxpr(cond_jaxpr, [*first, *carry], dim=dim)[0]:
        carry = eval_jaxpr(body_jaxpr, [*second, *carry], dim=dim)
    return list(carry)


def _slices(avals):
    return [a.update(shape=a.shape[1:]) for a in avals]


@scan_p.rule("abstract")
def _scan_avals(*avals, jaxpr, length, reverse, consts, carry, linear=()):
    xs = avals[consts + carry :]
    if any(not a.shape or a.shape[0] != length for a in xs):
        listed = ", ".join(map(str, xs))
        raise OperandError(f"every scanned array must have {length} rows, not {listed}")
    _check("the operands of the body", (*avals[: consts + carry], *_slices(xs)), jaxpr)
    outs = jaxpr.out_avals
    if not same_types(outs[:carry], avals[consts : consts + carry]):
        raise OperandError("the carry of scan must keep its types")
    strong = [a.update(weak_type=False) for a in outs]
    return [*strong[:carry], *(a.update(shape=(length, *a.shape)) for a in strong[carry:])]


@scan_p.rule("impl")
def _scan_impl(*args, jaxpr, length, reverse, consts, carry, dim, linear=()):
    fixed, state = args[:consts], list(args[consts : consts + carry])
    xs, rows = args[consts + carry :], []
    for i in reversed(range(length)) if reverse else range(length):
        outs = eval_jaxpr(jaxpr, [*fixed, *state, *(x[i] for x in xs)], dim=dim)
        state = outs[:carry]
        rows.append(outs[carry:])
    rows = rows[::-1] if reverse else rows
    ys = []
    for i, aval in enumerate(jaxpr.out_avals[carry:]):
        none = np.zeros((0, *aval.shape), aval.dtype)
        ys.append(np.stack([r[i] for r in rows]) if rows else none)
    return [*state, *ys]


@custom_p.rule("abstract")
def _custom_avals(*avals, call, jaxpr, consts):
    _check("the operands", avals, jaxpr)
    return list(jaxpr.out_avals)


@custom_p.rule("impl")
def _custom_impl(*args, call, jaxpr, consts, dim):
    return eval_jaxpr(jaxpr, args, dim=dim)


@jit_p.rule("abstract")
def _jit_avals(*avals, jaxpr, name, linear=()):
    _check(f"the operands of {name}", avals, jaxpr)
    return list(jaxpr.out_avals)


@jit_p.rule("impl")
def _jit_impl(*args, jaxpr, name, dim, linear=()):
    return eval_jaxpr(jaxpr, args, dim=dim)
