"""What the rules of the transformations take and return, and the tools of which they are made.

``jvp(primals, tangents, **params)`` returns the result and its tangent. A tangent is an array of
the shape and dtype of its value, or a `Zero`.

``transpose(ct, *args, **params)``: the primitive is linear in those of its operands that are
`Undefined`; return the list of their cotangents (None: there is none) for the result's, `ct`.

``batch(size, args, dims, **params)``: ``dims[i]`` counts the examples of operand i, None if all
share it; return the result for all examples, and its dimension that counts them.

A primitive of several results takes and returns lists in place of one result, tangent, cotangent
or dimension. Rules compute with `bind`, so that they can be transformed in turn.
"""

from tilewright.compiler import primitives as p
from tilewright.compiler import primitives_lanes as lanes
from tilewright.compiler.batching import batched_at
from tilewright.compiler.core import Literal
from tilewright.compiler.forward import Zero
from tilewright.compiler.linear import Undefined
from tilewright.compiler.primitives_reduce import reduce_sum_p
from tilewright.compiler.trace import aval_of, bind


def number(value, like):
    """Return a scalar of the dtype of an array."""
    return Literal(value, aval_of(like).update(shape=()))


def add(x, y):
    return bind(p.add_p, x, y)


def sub(x, y):
    return bind(p.sub_p, x, y)


def mul(x, y):
    return bind(p.mul_p, x, y)


def div(x, y):
    return bind(p.div_p, x, y)


def neg(x):
    return bind(p.neg_p, x)


def select(which, on_true, on_false):
    return bind(lanes.select_n_p, which, on_false, on_true)


def reshape(x, shape):
    shape = tuple(shape)
    return x if aval_of(x).shape == shape else bind(p.reshape_p, x, new_sizes=shape)


def transpose(x, order):
    order = tuple(order)
    if order == tuple(range(len(order))):
        return x
    return bind(p.transpose_p, x, permutation=order)


def broadcast(x, shape, dims=()):
    """Return `x` as an array of a shape, its dimension i being ``dims[i]`` there."""
    shape, dims = tuple(shape), tuple(dims)
    if aval_of(x).shape == shape:
        return x
    return bind(p.broadcast_in_dim_p, x, shape=shape, broadcast_dimensions=dims)


def convert(x, aval):
    """Return `x` in the dtype of an aval."""
    if aval_of(x).dtype == aval.dtype:
        return x
    params = {"weak_type": True} if aval.weak_type else {}
    return bind(p.convert_element_type_p, x, new_dtype=aval.dtype, **params)


def sum_over(x, axes):
    axes = tuple(axes)
    return bind(reduce_sum_p, x, axes=axes) if axes else x


def sum_to(ct, aval):
    """Return a cotangent of an element-wise operand: of a scalar one, the sum."""
    if isinstance(ct, Zero) or aval.shape == aval_of(ct).shape:
        return ct
    return sum_over(ct, range(aval_of(ct).ndim))


def define_jvp(primitive, *partials):
    """Define the jvp rule by one function for each operand (None: the derivative is zero).

    ``partial(t, out, *primals, **params)`` is what the tangent t of its operand gives the result's.
    """

    @primitive.rule("jvp")
    def rule(primals, tangents, **params):
        out = bind(primitive, *primals, **params)
        total = Zero(aval_of(out))
        for partial, t in zip(partials, tangents, strict=True):
            if partial is not None and not isinstance(t, Zero):
                part = partial(t, out, *primals, **params)
                total = part if isinstance(total, Zero) else add(total, part)
        if not isinstance(total, Zero):
            total = broadcast(total, aval_of(out).shape)
        return out, total


def define_factor(primitive, factor):
    """Define the jvp rule of a function of one operand by its derivative there.

    ``factor(x, out)`` may use the result.
    """
    define_jvp(primitive, lambda t, out, x: mul(t, factor(x, out)))


def no_derivative(primitive):
    """Define the jvp rule of a primitive whose derivative is zero wherever it has one."""

    @primitive.rule("jvp")
    def rule(primals, tangents, **params):
        out = bind(primitive, *primals, **params)
        return out, Zero(aval_of(out))


def define_linear(primitive, transposed):
    """Define jvp and transpose rules of a primitive that is linear in its only operand.

    ``transposed(ct, aval, **params)`` is the operand's cotangent.
    """

    @primitive.rule("jvp")
    def jvp(primals, tangents, **params):
        return bind(primitive, *primals, **params), bind(primitive, *tangents, **params)

    @primitive.rule("transpose")
    def transpose(ct, x, **params):
        return [transposed(ct, x.aval, **params)]


def define_bilinear(primitive, first, second):
    """Define jvp and transpose rules of a primitive that is linear in each of two operands.

    ``first(ct, x, y, **params)`` is the cotangent of x, ``second(ct, x, y, **params)`` that of y;
    the wanted operand is an aval.
    """
    define_jvp(
        primitive,
        lambda t, out, x, y, **params: bind(primitive, t, y, **params),
        lambda t, out, x, y, **params: bind(primitive, x, t, **params),
    )

    @primitive.rule("transpose")
    def transpose(ct, x, y, **params):
        if isinstance(x, Undefined):
            return [first(ct, x.aval, y, **params), None]
        return [None, second(ct, x, y.aval, **params)]


def batch_elementwise(primitive):
    """Define the batch rule of an element-wise primitive: one shape, or scalars."""

    @primitive.rule("batch")
    def batch(size, args, dims, **params):
        ranks = [aval_of(x).ndim - (d is not None) for x, d in zip(args, dims, strict=True)]
        rank = max(ranks)
        like = {d for x, d, n in zip(args, dims, ranks, strict=True) if n == rank}
        scalars = any(n < rank and d is not None for d, n in zip(dims, ranks, strict=True))
        if rank == 0:
            return bind(primitive, *args, **params), 0
        if len(like) == 1 and not scalars:
            (dim,) = like  # an operand of full rank decides, unless only scalars are batched
            return bind(primitive, *args, **params), dim
        shape = None
        operands = []
        for x, d, n in zip(args, dims, ranks, strict=True):
            if n == rank:
                x = batched_at(x, d, size)
                shape = aval_of(x).shape
            operands.append(x)
        for i, (d, n) in enumerate(zip(dims, ranks, strict=True)):
            if n < rank and d is not None:
                operands[i] = broadcast(operands[i], shape, (0,))
        return bind(primitive, *operands, **params), 0


def at_front(size, args, dims):
    """Return the operands, dimension 0 of each counting the examples."""
    return [batched_at(x, d, size) for x, d in zip(args, dims, strict=True)]


def load():
    """Register the rules of all primitives; a second call costs nothing."""
    from tilewright.compiler import (  # noqa: F401 (importing them registers)
        rules_call,
        rules_contract,
        rules_control,
        rules_dynamic,
        rules_elementwise,
        rules_math,
        rules_moving,
        rules_reduce,
        rules_rows,
        rules_scan,
    )
