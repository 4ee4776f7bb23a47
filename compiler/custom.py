"""Functions that bring their own derivative, as the traces see them: flat, from lists to lists.

A trace that differentiates (`forward.JVPTrace`) uses the derivative, one that batches gives a batch
of it on to its parent, any other one runs the function itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tilewright.compiler.batching import batched_at, vmap_flat
from tilewright.compiler.core import FLOATS, Primitive
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.forward import Zero, instantiate
from tilewright.compiler.linear import LinearTrace, Undefined
from tilewright.compiler.source import user_source
from tilewright.compiler.trace import apply_custom, aval_of, bind, current_trace

# ``call.batch(size, dims)`` is the call of all examples, and the dimensions of its results that
# count them; None: dimension 0 of every one.


def _array(tangent):
    """The tangent as an array, unless it is an integer's."""
    is_int = isinstance(tangent, Zero) and tangent.aval.dtype not in FLOATS
    return tangent if is_int else instantiate(tangent)


def _unbatched(aval, dim):
    return aval.update(shape=tuple(n for d, n in enumerate(aval.shape) if d != dim))


def _all_at_front(fun, size, dims):
    """The function of all examples; dimension 0 of every result counts them."""

    def batched(*values):
        outs, out_dims = vmap_flat(fun, size, values, dims)
        return [batched_at(v, d, size) for v, d in zip(outs, out_dims, strict=True)]

    return batched


@dataclass(frozen=True, eq=False)
class Stop:
    """The identity, whose derivative is zero."""

    def __call__(self, *args):
        return list(args)

    def jvp(self, primals, tangents):
        outs = apply_custom(self, primals)
        return outs, [Zero(aval_of(x)) for x in outs]

    def batch(self, size, dims):
        return self, dims


@dataclass(frozen=True, eq=False)
class CustomJVP:
    """A function and what gives its results and their tangents.

    Parameters
    ----------
    fun : ``(*args) -> outs``.
    rule : ``(primals, tangents) -> (outs, tangents)``; tangents of integers are Zero both ways, all
        other ones that it gets are arrays.
    """

    fun: Callable[..., Any]
    rule: Callable[..., Any]

    def __call__(self, *args):
        return self.fun(*args)

    def jvp(self, primals, tangents):
        full = [_array(t) for t in tangents]
        return self.rule(primals, full)

    def batch(self, size, dims):
        def rule(primals, tangents):
            return _batched_rule(self.rule, size, dims, primals, tangents)

        return CustomJVP(_all_at_front(self.fun, size, dims), rule), None


def _batched_rule(rule, size, dims, primals, tangents):
    """Results and tangents of all examples, by the rule for one of them."""
    count = len(primals)
    real = [i for i, t in enumerate(tangents) if not isinstance(t, Zero)]
    zero_outs = {}

    def one(*values):
        inner = [Zero(_unbatched(t.aval, d)) if isinstance(t, Zero) else None
                 for t, d in zip(tangents, dims, strict=True)]  # fmt: skip
        for i, t in zip(real, values[count:], strict=True):
            inner[i] = t
        outs, found = rule(values[:count], inner)
        zero_outs.update({i: t for i, t in enumerate(found) if isinstance(t, Zero)})
        return [*outs, *(t for t in found if not isinstance(t, Zero))]

    batched = _all_at_front(one, size, [*dims, *(dims[i] for i in real)])
    found = batched(*primals, *(tangents[i] for i in real))
    total = (len(found) + len(zero_outs)) // 2
    outs, rest = found[:total], iter(found[total:])
    return outs, [Zero(aval_of(x)) if i in zero_outs else next(rest) for i, x in enumerate(outs)]


@dataclass(frozen=True, eq=False)
class CustomVJP:
    """A function, what runs forward in its place when it is differentiated, and what runs backward.

    Parameters
    ----------
    fun : ``(*args) -> outs``.
    forward : ``(*args) -> (outs, residuals)``.
    backward : ``(residuals, cotangents of outs) -> cotangents of args``, lists (some Zero).
    """

    fun: Callable[..., Any]
    forward: Callable[..., Any]
    backward: Callable[..., Any]

    def __call__(self, *args):
        return self.fun(*args)

    def jvp(self, primals, tangents):
        trace = current_trace()
        if not isinstance(trace, LinearTrace):
            raise forward_refused()
        outs, residuals = self.forward(*primals)
        places = tuple(i for i, t in enumerate(tangents) if trace.owns(t))
        avals = tuple(aval_of(x) for x in outs)
        if not places:
            return outs, list(map(Zero, avals))
        found = bind(
            custom_backward_p, *residuals, *(tangents[i] for i in places),
            backward=self.backward, count=len(residuals), places=places, out_avals=avals,
        )  # fmt: skip
        return outs, [t if a.dtype in FLOATS else Zero(a)
                      for t, a in zip(found, avals, strict=True)]  # fmt: skip

    def batch(self, size, dims):
        out_count = residual_dims = None

        def forward(*values):
            nonlocal out_count, residual_dims

            def both(*args):
                nonlocal out_count
                outs, residuals = self.forward(*args)
                out_count = len(outs)
                return [*outs, *residuals]

            found, found_dims = vmap_flat(both, size, values, dims)
            outs = [batched_at(v, d, size) for v, d in
                    zip(found[:out_count], found_dims[:out_count], strict=True)]  # fmt: skip
            residual_dims = found_dims[out_count:]
            return outs, found[out_count:]

        def backward(residuals, cts):
            return _batched_backward(self.backward, size, dims, residuals, residual_dims, cts)

        return CustomVJP(_all_at_front(self.fun, size, dims), forward, backward), None


def _batched_backward(backward, size, dims, residuals, residual_dims, cts):
    """Cotangents of all examples; those of operands that the examples share are summed."""
    from tilewright.compiler.rules import sum_over

    zeros = {}

    def one(*values):
        found = backward(values[: len(residuals)], values[len(residuals) :])
        zeros.update({i: t for i, t in enumerate(found) if isinstance(t, Zero)})
        return [t for t in found if not isinstance(t, Zero)]

    all_dims = [*residual_dims, *(0 for _ in cts)]
    found, found_dims = vmap_flat(one, size, [*residuals, *cts], all_dims)
    rest = iter(zip(found, found_dims, strict=True))
    result = []
    for i, dim in enumerate(dims):
        if i in zeros:
            result.append(zeros[i])
            continue
        ct, ct_dim = next(rest)
        full = batched_at(ct, ct_dim, size, dim or 0)
        result.append(full if dim is not None else sum_over(full, (0,)))
    return result


def forward_refused():
    """Return the error of forward mode through a function that has a custom_vjp."""
    return UnsupportedError(
        "forward-mode differentiation (jvp, linearize, jacfwd) reached a function with a "
        f"custom_vjp, which can only run backward (at {user_source()})"
    )


#: Of residuals and tangents: a linear function that is known only backward.
custom_backward_p = Primitive("custom_backward", multiple_results=True)


@custom_backward_p.rule("abstract")
def _backward_avals(*_avals, out_avals, **_params):
    return list(out_avals)


@custom_backward_p.rule("impl")
def _backward_impl(*_args, **_params):
    raise forward_refused()


@custom_backward_p.rule("jvp")
def _backward_jvp(_primals, _tangents, **_params):
    raise forward_refused()


@custom_backward_p.rule("batch")
def _backward_batch(*_args, **_params):
    raise forward_refused()


@custom_backward_p.rule("transpose")
def _backward_transpose(cts, *args, backward, count, places, out_avals):
    found = backward(list(args[:count]), [_array(ct) for ct in cts])
    assert all(isinstance(a, Undefined) for a in args[count:])
    return [*(None for _ in range(count)), *(found[i] for i in places)]
