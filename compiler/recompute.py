"""`checkpoint`: a function whose derivative keeps its operands, and computes all else again.

While it is linearized, its tangents are one `jit` equation of operands and tangents, which computes
the function's intermediate values behind an `optimization_barrier`. Run backward, they are computed
there, and no equation of the forward pass stands for them.
"""

from dataclasses import dataclass

from tilewright.compiler.batching import batched_at, vmap_flat
from tilewright.compiler.control import jit_p
from tilewright.compiler.core import Jaxpr
from tilewright.compiler.forward import Zero, instantiate, jvp_flat
from tilewright.compiler.linear import LinearTrace
from tilewright.compiler.primitives_barrier import optimization_barrier_p
from tilewright.compiler.rules_call import once
from tilewright.compiler.rules_programs import program
from tilewright.compiler.trace import aval_of, bind, current_trace, inline


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A function that closes over nothing, as the traces see it (as those of `compiler.custom`)."""

    jaxpr: Jaxpr

    def __call__(self, *args):
        return inline(self.jaxpr, args)

    def jvp(self, primals, tangents):
        """Return results and tangents; operands alone are kept for tangents that come later."""
        if not isinstance(current_trace(), LinearTrace):
            return jvp_flat(self, primals, tangents)
        outs = self(*primals)
        nonzero = tuple(not isinstance(t, Zero) for t in tangents)
        linear, places = once(self.jaxpr, ("checkpoint", nonzero), lambda: self._tangents(nonzero))
        given = [t for t in tangents if not isinstance(t, Zero)]
        is_linear = (*(False for _ in primals), *(True for _ in given))
        full = [Zero(aval_of(x)) for x in outs]
        if places:
            found = bind(jit_p, *primals, *given, jaxpr=linear, name="checkpoint", linear=is_linear)
            for i, t in zip(places, found, strict=True):
                full[i] = t
        return outs, full

    def _tangents(self, nonzero):
        """The program from operands and tangents to tangents; of which results these are."""
        avals, places = self.jaxpr.in_avals, []

        def again(*values):
            given = iter(values[len(avals) :])
            tangents = [next(given) if n else Zero(a) for n, a in zip(nonzero, avals, strict=True)]
            primals = [bind(optimization_barrier_p, x) for x in values[: len(avals)]]
            _, found = jvp_flat(self, primals, tangents)
            places[:] = [i for i, t in enumerate(found) if not isinstance(t, Zero)]
            return [instantiate(found[i]) for i in places]

        wanted = [a for n, a in zip(nonzero, avals, strict=True) if n]
        return program(again, [*avals, *wanted]), places

    def batch(self, size, dims):
        """Return the function of all examples, all of whose results are batched at dimension 0."""

        def every(*values):
            outs, found = vmap_flat(self, size, values, dims)
            return [batched_at(v, d, size) for v, d in zip(outs, found, strict=True)]

        avals = [
            a if d is None else a.update(shape=(*a.shape[:d], size, *a.shape[d:]))
            for a, d in zip(self.jaxpr.in_avals, dims, strict=True)
        ]
        return Checkpoint(program(every, avals)), None
