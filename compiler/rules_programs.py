"""What rules of equations with programs inside share: programs split, transposed, batched."""

from tilewright.compiler.batching import batched_at, vmap_flat
from tilewright.compiler.control import BodyTrace, closed, hoisted
from tilewright.compiler.core import Jaxpr
from tilewright.compiler.forward import Zero, instantiate
from tilewright.compiler.linear import linearize_flat, transpose_flat
from tilewright.compiler.trace import inline, running


def program(fun, avals):
    """Record a function of flat lists that closes over nothing."""
    jaxpr, consts = closed(fun, avals)
    assert not consts, "a program made of a program closes over nothing"
    return jaxpr


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
            places = {id(ins[i].variable): i for i in direct}
            self.sources, further = [], []
            for const in self.linear.jaxpr.consts:
                place = places.get(id(const.variable)) if trace.owns(const) else None
                self.sources.append((False, len(further)) if place is None else (True, place))
                if place is None:
                    further.append(const)
            self.primal, self.consts = hoisted(trace.jaxpr([*outs, *further]))

    @property
    def residual_avals(self):
        """The avals of the further residuals."""
        return self.primal.out_avals[len(self.linear.out_avals) :]


def backward_program(jaxpr, linear, used):
    """Return the program of a linear one run backward.

    It takes the inputs that are not `linear` and the cotangents of the results `used` (the others
    are zero), and returns the cotangents of the other inputs.
    """
    places = [i for i, is_linear in enumerate(linear) if is_linear]
    known = [i for i, is_linear in enumerate(linear) if not is_linear]

    def backward(*values):
        found = transposed(jaxpr, places, known, values[: len(known)], used, values[len(known) :])
        return list(map(instantiate, found))

    avals = [jaxpr.in_avals[i] for i in known] + [jaxpr.out_avals[i] for i in used]
    return program(backward, avals)


def transposed(jaxpr, places, known, values, used, cts):
    """Return the cotangents of the inputs `places`, for values of those `known` and some `cts`."""
    variables = jaxpr.invars
    inner = Jaxpr(
        [variables[i] for i in places], [variables[i] for i in known], values, jaxpr.eqns,
        jaxpr.outvars,
    )  # fmt: skip
    full = list(map(Zero, jaxpr.out_avals))
    for i, ct in zip(used, cts, strict=True):
        full[i] = ct
    return transpose_flat(inner, full)


def batched_program(jaxpr, size, batched, wanted):
    """Record a program of all examples, dimension 0; return it, its consts, and what is batched.

    Parameters
    ----------
    batched : which inputs are.
    wanted : which results must be.
    """
    avals = [a.update(shape=(size, *a.shape)) if b else a
             for a, b in zip(jaxpr.in_avals, batched, strict=True)]  # fmt: skip
    found = []

    def body(*values):
        places = [0 if b else None for b in batched]
        outs, dims = vmap_flat(lambda *xs: inline(jaxpr, xs), size, values, places)
        found[:] = [d is not None for d in dims]
        return [batched_at(v, d, size) if d is not None or w else v
                for v, d, w in zip(outs, dims, wanted, strict=True)]  # fmt: skip

    return program(body, avals), found
