"""Linear functions: recorded while a function runs forward, replayed, or run backward.

`linearize` runs a function in forward mode over tangents that are being recorded. What depends on
no tangent is computed by the enclosing trace, at once if values are concrete; what does becomes an
equation of a jaxpr that is linear in its inputs, the values that it needs its constants.
`transpose_flat` runs such a jaxpr backward, one ``transpose`` rule for each equation: cotangents of
results become cotangents of inputs. Reverse mode is the one after the other.
"""

from dataclasses import dataclass

from tilewright.compiler import core
from tilewright.compiler import primitives as p
from tilewright.compiler.core import Jaxpr, Literal, ShapedArray, Var
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.forward import Zero, jvp_flat
from tilewright.compiler.primitives_debug import calls_back
from tilewright.compiler.simplify import eliminate_dead_code
from tilewright.compiler.source import attributed
from tilewright.compiler.trace import (
    Trace,
    activate,
    apply_custom,
    aval_of,
    bind,
    inline,
    lift,
    running,
)


@dataclass(frozen=True)
class Undefined:
    """The operand of an equation that is to be run backward in it."""

    aval: ShapedArray


class LinearTrace(Trace):
    """Records the operations on its tracers; the enclosing trace does all others."""

    records_all = False

    def process(self, primitive, args, params):
        if any(map(self.owns, args)):
            return self.record(primitive, args, params)
        return self.forward(primitive, args, params)

    def zeros(self, aval):
        """Return a tangent of zeros as an equation of this recording."""
        zero = Literal(0, aval.update(shape=()))
        params = {"shape": aval.shape, "broadcast_dimensions": ()}
        return self.record(p.broadcast_in_dim_p, (zero,), params)

    def process_custom(self, call, args):
        """Apply a function that brings its own derivative (`compiler.custom`)."""
        if any(map(self.owns, args)):
            return call(*args)
        with activate(self.parent):
            return apply_custom(call, args)

    def lift(self, value):
        with activate(self.parent):
            return lift(value)


@dataclass(frozen=True)
class Linear:
    """A linear function: its jaxpr, from the inputs that have tangents to the results that do.

    Parameters
    ----------
    in_avals, out_avals : of all inputs and results.
    inputs, outputs : positions of the jaxpr's; the tangents of the others are zero.
    """

    jaxpr: Jaxpr
    in_avals: list[ShapedArray]
    out_avals: list[ShapedArray]
    inputs: list[int]
    outputs: list[int]

    def apply(self, tangents):
        """Return the tangents of all results for those of all inputs."""
        found = inline(self.jaxpr, [tangents[i] for i in self.inputs])
        outs = [Zero(aval) for aval in self.out_avals]
        for i, value in zip(self.outputs, found, strict=True):
            outs[i] = value
        return outs

    def transpose(self, cotangents):
        """Return the cotangents of all inputs for those of all results."""
        found = transpose_flat(self.jaxpr, [cotangents[i] for i in self.outputs])
        ins = [Zero(aval) for aval in self.in_avals]
        for i, value in zip(self.inputs, found, strict=True):
            ins[i] = value
        return ins


def linearize_flat(fun, primals, differentiated=None, wanted=()):
    """Return the results of a function of flat lists, and its derivative there as a `Linear`.

    Parameters
    ----------
    differentiated : which inputs have tangents; by default all of a float dtype.
    wanted : positions of results that have tangents also if they are zero.
    """
    in_avals = [aval_of(x) for x in primals]
    if differentiated is None:
        differentiated = [True] * len(in_avals)
    inputs = [i for i, (aval, wanted) in enumerate(zip(in_avals, differentiated, strict=True))
              if wanted and aval.dtype in core.FLOATS]  # fmt: skip
    with running(LinearTrace()) as trace:
        tangents = [Zero(aval) for aval in in_avals]
        for i in inputs:
            tangents[i] = trace.new_arg(in_avals[i])
        outs, tangents = jvp_flat(fun, primals, tangents)
        for i in wanted:
            if isinstance(tangents[i], Zero):
                tangents[i] = trace.zeros(tangents[i].aval)
        return outs, _recorded(trace, in_avals, inputs, outs, tangents)


def _recorded(trace, in_avals, inputs, outs, tangents):
    outputs = [i for i, t in enumerate(tangents) if not isinstance(t, Zero)]
    jaxpr = eliminate_dead_code(trace.jaxpr([tangents[i] for i in outputs]))
    return Linear(jaxpr, in_avals, [aval_of(x) for x in outs], inputs, outputs)


def record_linear(fun, in_avals):
    """Return a function of flat lists, which must be linear, as a `Linear`."""
    with running(LinearTrace()) as trace:
        outs = fun(*map(trace.new_arg, in_avals))
        jaxpr = eliminate_dead_code(trace.jaxpr(outs))
        everything = list(range(len(in_avals)))
        avals = [aval_of(x) for x in outs]
    return Linear(jaxpr, list(in_avals), avals, everything, list(range(len(avals))))


def transpose_flat(jaxpr, cotangents):
    """Return the cotangents of the inputs of a linear jaxpr; some of them Zero.

    Equations that do not depend on inputs are computed first.

    **Raises** UnsupportedError: an equation is not linear.
    """
    known = dict(zip(map(id, jaxpr.constvars), jaxpr.consts, strict=True))
    eqns = _compute_known(jaxpr, known)
    total = {}  # id of a variable -> the sum of its cotangents so far

    def give(atom, ct):
        if not isinstance(atom, Var) or id(atom) in known or ct is None or isinstance(ct, Zero):
            return
        old = total.get(id(atom))
        total[id(atom)] = ct if old is None else bind(p.add_p, old, ct)

    def operand(atom):
        if isinstance(atom, Var):
            return known[id(atom)] if id(atom) in known else Undefined(atom.aval)
        return atom

    for atom, ct in zip(jaxpr.outvars, cotangents, strict=True):
        give(atom, ct)
    for eqn in reversed(eqns):
        if not any(id(out) in total for out in eqn.outputs) and not calls_back(eqn):
            continue
        cts = [total.pop(id(out), Zero(out.aval)) for out in eqn.outputs]
        with attributed(eqn.source):
            rule = _rule(eqn)
            args = map(operand, eqn.inputs)
            found = rule(cts if eqn.primitive.multiple_results else cts[0], *args, **eqn.params)
            for atom, ct in zip(eqn.inputs, found, strict=True):
                give(atom, ct)
    return [total.get(id(var), Zero(var.aval)) for var in jaxpr.invars]


def _compute_known(jaxpr, known):
    """Add to `known` what does not depend on inputs; return the other equations."""
    eqns = []
    for eqn in jaxpr.eqns:
        if any(isinstance(a, Var) and id(a) not in known for a in eqn.inputs):
            eqns.append(eqn)
            continue
        args = [known[id(a)] if isinstance(a, Var) else a for a in eqn.inputs]
        with attributed(eqn.source):
            results = bind(eqn.primitive, *args, **eqn.params)
        results = results if eqn.primitive.multiple_results else [results]
        known |= dict(zip(map(id, eqn.outputs), results, strict=True))
    return eqns


def _rule(eqn):
    rule = eqn.primitive.rules.get("transpose")
    if rule is None:
        raise UnsupportedError(
            f"{eqn.primitive.name} is not linear, so it cannot be transposed (at {eqn.source})"
        )
    return rule
