"""`vmap`: a function of examples becomes a function of batches, without a loop.

A :class:`BatchTracer` is one example to the function, and carries all of them: an array and the
dimension that counts the examples. The ``batch`` rule of each primitive computes all results with
operations of the enclosing trace.
"""

from tilewright.compiler import primitives as p
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.source import user_source
from tilewright.compiler.trace import (
    Interpreter,
    Tracer,
    activate,
    apply_custom,
    aval_of,
    bind,
    running,
)


class BatchTracer(Tracer):
    """One example of a batch; dimension `dim` of `value` counts the examples."""

    __slots__ = ("dim", "value")
    why = "differs between the examples of vmap"

    def __init__(self, trace, value, dim):
        super().__init__(trace, user_source())
        self.value, self.dim = value, dim

    @property
    def aval(self):
        aval = aval_of(self.value)
        return aval.update(shape=aval.shape[: self.dim] + aval.shape[self.dim + 1 :])


class BatchTrace(Interpreter):
    """Applies the ``batch`` rules to batches of `size` examples."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def split(self, value):
        """Return a value of all examples and its dimension, None if they share it."""
        return (value.value, value.dim) if self.owns(value) else (value, None)

    def join(self, value, dim):
        """Return the value of one example."""
        return value if dim is None else BatchTracer(self, value, dim)

    def process(self, primitive, args, params):
        if not any(map(self.owns, args)):
            return self.forward(primitive, args, params)
        rule = primitive.rules.get("batch")
        if rule is None:
            raise UnsupportedError(f"{primitive.name} has no vmap rule (at {user_source()})")
        values, dims = zip(*map(self.split, args), strict=True)
        with activate(self.parent):
            outs, dims = rule(self.size, values, dims, **params)
        if primitive.multiple_results:
            return list(map(self.join, outs, dims))
        return self.join(outs, dims)

    def process_custom(self, call, args):
        """Apply a function that brings its own derivative (`compiler.custom`)."""
        if not any(map(self.owns, args)):
            with activate(self.parent):
                return apply_custom(call, args)
        values, dims = zip(*map(self.split, args), strict=True)
        batched, out_dims = call.batch(self.size, dims)
        with activate(self.parent):
            outs = apply_custom(batched, values)
        return list(map(self.join, outs, out_dims or [0] * len(outs)))


def move_dim(x, source, to):
    """Return `x` with one dimension moved."""
    if source == to:
        return x
    order = [d for d in range(aval_of(x).ndim) if d != source]
    order.insert(to, source)
    return bind(p.transpose_p, x, permutation=tuple(order))


def spread(x, size, dim):
    """Return `size` copies of `x` along a new dimension."""
    shape = aval_of(x).shape
    return bind(
        p.broadcast_in_dim_p,
        x,
        shape=(*shape[:dim], size, *shape[dim:]),
        broadcast_dimensions=tuple(d + (d >= dim) for d in range(len(shape))),
    )


def batched_at(x, dim, size, to=0):
    """Return a value of all examples with their dimension at `to`; a shared one is repeated."""
    return spread(x, size, to) if dim is None else move_dim(x, dim, to)


def vmap_flat(fun, size, args, dims):
    """Return ``(values, dims)`` of the results of a function of flat lists.

    Parameters
    ----------
    size : how many examples there are.
    dims : for each argument the dimension that counts them, or None if they share it.
    """
    with running(BatchTrace(size)) as trace:
        outs = fun(*map(trace.join, args, dims))
        pairs = [trace.split(out) for out in outs]
    return [value for value, _ in pairs], [dim for _, dim in pairs]
