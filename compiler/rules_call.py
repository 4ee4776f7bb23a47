"""Derivative, transpose and batch of `jit`: programs again, made once for each program and kind.

So a jitted function that is differentiated at concrete values is compiled once forward and once
backward, however often it is called.
"""

from tilewright.compiler.control import jit_p
from tilewright.compiler.core import Jaxpr
from tilewright.compiler.forward import Zero
from tilewright.compiler.linear import Undefined
from tilewright.compiler.rules import batched_at
from tilewright.compiler.rules_programs import Split, backward_program, batched_program
from tilewright.compiler.trace import aval_of, bind


def once(jaxpr, key, make):
    """Return ``make()``, remembered for this jaxpr and key."""
    if key not in jaxpr.memo:
        jaxpr.memo[key] = make()
    return jaxpr.memo[key]


def _split(jaxpr, nonzero):
    """The split of a program, and its linear part as a program of (residuals, tangents)."""
    split = Split(jaxpr, nonzero, (), range(len(nonzero)))
    linear = split.linear.jaxpr
    invars = (*linear.constvars, *linear.invars)
    return split, Jaxpr(invars, (), (), linear.eqns, linear.outvars)


@jit_p.rule("jvp")
def _jit_jvp(primals, tangents, *, jaxpr, name, linear=()):
    nonzero = tuple(not isinstance(t, Zero) for t in tangents)
    split, program = once(jaxpr, ("jvp", nonzero), lambda: _split(jaxpr, nonzero))
    outs = bind(jit_p, *split.consts, *primals, jaxpr=split.primal, name=name)
    count = len(jaxpr.outvars)
    outs, residuals = outs[:count], outs[count:]
    full = [Zero(aval_of(x)) for x in outs]
    if split.linear.outputs:
        known = [primals[i] if direct else residuals[i] for direct, i in split.sources]
        given = [tangents[i] for i in split.linear.inputs]
        is_linear = (*(False for _ in known), *(True for _ in given))
        found = bind(jit_p, *known, *given, jaxpr=program, name=name, linear=is_linear)
        for i, t in zip(split.linear.outputs, found, strict=True):
            full[i] = t
    return outs, full


@jit_p.rule("transpose")
def _jit_transpose(cts, *args, jaxpr, name, linear=()):
    linear = linear or tuple(isinstance(a, Undefined) for a in args)
    used = tuple(i for i, ct in enumerate(cts) if not isinstance(ct, Zero))
    key = ("transpose", linear, used)
    program = once(jaxpr, key, lambda: backward_program(jaxpr, linear, used))
    known = [a for a, is_linear in zip(args, linear, strict=True) if not is_linear]
    found = iter(bind(jit_p, *known, *(cts[i] for i in used), jaxpr=program, name=name))
    return [next(found) if is_linear else None for is_linear in linear]


@jit_p.rule("batch")
def _jit_batch(size, args, dims, *, jaxpr, name, linear=()):
    batched = tuple(d is not None for d in dims)
    program, found = once(
        jaxpr, ("batch", size, batched),
        lambda: batched_program(jaxpr, size, batched, [False] * len(jaxpr.outvars)),
    )  # fmt: skip
    operands = [x if d is None else batched_at(x, d, size) for x, d in zip(args, dims, strict=True)]
    outs = bind(jit_p, *operands, jaxpr=program, name=name, linear=linear)
    return outs, [0 if f else None for f in found]
