"""The rewriting rules of `compiler.simplify`: a list of (pattern, function).

A function gets the builder, the matched expression and the equations that define its operands (as
far as the pattern asked), and returns an atom or an Expr of the same type and bits, or None.

What keeps float rules honest: arithmetic flushes subnormals and makes NaNs canonical, so ``x * 1``
is ``x`` only if x is *clean*, the result of arithmetic; ``x + 0`` is not ``x`` for x = -0, but
``x + -0`` and ``x - 0`` are.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tilewright.compiler import core
from tilewright.compiler import primitives as p
from tilewright.compiler.core import FLOATS, INTS, Literal, Params, Primitive
from tilewright.compiler.primitives_dot import dot_general_p, free_dims
from tilewright.compiler.primitives_join import concatenate_p
from tilewright.compiler.primitives_lanes import select_n_p
from tilewright.compiler.primitives_pad import pad_p, rev_p
from tilewright.compiler.vector_lower import LOWER
from tilewright.sim import numerics

MOVES = (p.broadcast_in_dim_p, p.reshape_p, p.transpose_p, p.slice_p)
ELEMENTWISE = (
    *(p.add_p, p.sub_p, p.mul_p, p.div_p, p.neg_p, p.max_p, p.min_p, p.clamp_p),
    *(p.eq_p, p.ne_p, p.lt_p, p.le_p, p.gt_p, p.ge_p),
    *(p.round_nearest_even_p, p.convert_element_type_p),
)
# Conversions that keep every value, and whose source has one bit pattern per value.
EXACT = {
    core.bool_: core.DTYPES,
    core.int8: (core.int8, core.int32, *FLOATS),
    core.uint8: (core.uint8, core.int32, core.uint32, *FLOATS),
    core.int32: (core.int32,),
    core.uint32: (core.uint32,),
}
# What computes, and so makes subnormals zeros and NaNs canonical; all else may copy bits.
_ARITHMETIC = {*LOWER, "dot_general", "conv_general_dilated", "reduce_window_max"} - {
    "select_n",
    "bitcast_convert_type",
}


@dataclass(frozen=True)
class Expr:
    """An equation without its output; an input may be another Expr."""

    primitive: Primitive
    inputs: tuple[Any, ...]
    params: Params = field(default_factory=Params)

    def __post_init__(self):
        object.__setattr__(self, "params", Params(self.params))


@dataclass(frozen=True)
class Pattern:
    """Primitives to match; `operands` are patterns for the first operands' definitions, or None."""

    primitives: tuple[Primitive, ...]
    operands: tuple["Pattern | None", ...] = ()

    def match(self, expr, builder):
        """Return the matched defining equations, or None."""
        if expr.primitive not in self.primitives:
            return None
        found = []
        for pattern, atom in zip(self.operands, expr.inputs, strict=False):
            if pattern is None:
                continue
            definition = builder.definition(atom)
            inner = pattern.match(definition, builder) if definition else None
            if inner is None:
                return None
            found += [definition, *inner]
        return found


def op(*primitives, of=None):
    """Return the pattern of one of the primitives, whose first operand matches `of`."""
    return Pattern(primitives, (of,) if of else ())


def is_clean(builder, atom):
    """Tell whether a float atom certainly has no subnormals and only canonical NaNs."""
    if isinstance(atom, Literal):
        as_f32 = numerics.bf16_to_f32(atom.value)
        return convert_bits(as_f32, atom.aval.dtype) == atom.value.tobytes()
    eqn = builder.definition(atom)
    if eqn is None:
        return False
    if eqn.primitive in (*MOVES, pad_p, rev_p, concatenate_p):
        return all(is_clean(builder, a) for a in eqn.inputs)
    if eqn.primitive is select_n_p:
        bf16 = atom.aval.dtype == core.bfloat16
        return bf16 or all(is_clean(builder, a) for a in eqn.inputs[1:])
    if eqn.primitive is p.convert_element_type_p and eqn.inputs[0].aval.dtype == atom.aval.dtype:
        return is_clean(builder, eqn.inputs[0])
    return eqn.primitive.name in _ARITHMETIC


def convert_bits(value, dtype):
    """Return the bytes of a float32 value converted to a float dtype."""
    return p.convert(np.asarray(value), new_dtype=dtype).tobytes()


def same(builder, expr, atom):
    """Return an atom that equals the expression once cleaned, if it is exactly the same already."""
    aval = expr.primitive.abstract(*(a.aval for a in expr.inputs), **expr.params)
    if aval != atom.aval:
        return None
    return atom if aval.dtype not in FLOATS or is_clean(builder, atom) else None


def _is_literal(atom, value):
    """Tell whether an atom is this literal, the sign of zero included."""
    if not isinstance(atom, Literal) or atom.aval.dtype == core.bool_:
        return False
    found = float(atom.value)
    return found == value and np.signbit(found) == np.signbit(value)


def literal_right(builder, expr):
    """Commutative: put a literal second."""
    x, y = expr.inputs
    if isinstance(x, Literal) and not isinstance(y, Literal):
        return Expr(expr.primitive, (y, x), expr.params)
    return None


def neutral(builder, expr):
    """x * 1, x / 1, x - 0, x + -0 (integers: x + 0)."""
    x, y = expr.inputs
    zero = 0.0 if expr.primitive is p.sub_p or x.aval.dtype in INTS else -0.0
    value = 1.0 if expr.primitive in (p.mul_p, p.div_p) else zero
    return same(builder, expr, x) if _is_literal(y, value) else None


def divide_by_power_of_two(builder, expr):
    """x / 2^k is x * 2^-k: one exact scaling, flushed and rounded alike."""
    x, y = expr.inputs
    if not isinstance(y, Literal) or y.aval.dtype not in FLOATS:
        return None
    mantissa, exponent = np.frexp(np.float32(y.value))
    if abs(mantissa) != 0.5 or not -125 <= exponent <= 127:
        return None
    inverse = np.float32(1) / np.float32(y.value)
    return Expr(p.mul_p, (x, Literal(inverse, y.aval)))


def idempotent(builder, expr):
    """max(x, x) and min(x, x)."""
    x, y = expr.inputs
    return same(builder, expr, x) if x is y else None


def double_negation(builder, expr, inner):
    """neg(neg(x))."""
    return same(builder, expr, inner.inputs[0])


def min_of_max(builder, expr, inner):
    """min(max(x, lo), hi) with literal bounds is a clamp."""
    (x, lo), hi = inner.inputs, expr.inputs[1]
    if expr.inputs[0].aval.dtype == core.bool_:
        return None
    if isinstance(lo, Literal) and isinstance(hi, Literal) and x.aval == expr.inputs[0].aval:
        return Expr(p.clamp_p, (lo, x, hi))
    return None


def max_of_min(builder, expr, inner):
    """max(min(x, hi), lo) is the same clamp if lo < hi."""
    (x, hi), lo = inner.inputs, expr.inputs[1]
    if expr.inputs[0].aval.dtype == core.bool_:
        return None
    ordered = isinstance(lo, Literal) and isinstance(hi, Literal) and lo.value < hi.value
    return Expr(p.clamp_p, (lo, x, hi)) if ordered and x.aval == expr.inputs[0].aval else None


def round_of_whole(builder, expr, inner):
    """round(round(x)), and round of an integer converted to float."""
    whole = inner.primitive is p.round_nearest_even_p or inner.inputs[0].aval.dtype not in FLOATS
    return expr.inputs[0] if whole else None


def convert_of_convert(builder, expr, inner):
    """Skip an exact conversion; a float in between must not bring its saturation into play."""
    (x,), (middle,) = inner.inputs, expr.inputs
    source, target = x.aval.dtype, np.dtype(expr.params["new_dtype"])
    if source == core.bfloat16 and middle.aval.dtype == core.float32:
        skip = target not in FLOATS or (target == source and is_clean(builder, x))
    else:
        exact = middle.aval.dtype in EXACT.get(source, ())
        skip = exact and (middle.aval.dtype in INTS or target in (*EXACT[source], core.bool_))
    return Expr(expr.primitive, (x,), expr.params) if skip else None


def convert_nothing(builder, expr):
    """A conversion to the type that the operand has."""
    aval = expr.primitive.abstract(expr.inputs[0].aval, **expr.params)
    return expr.inputs[0] if aval == expr.inputs[0].aval else None


def move_nothing(builder, expr):
    """A broadcast, reshape, transpose or slice that leaves everything in its place."""
    (x,) = expr.inputs
    if expr.primitive is p.transpose_p:
        same = expr.params["permutation"] == tuple(range(x.aval.ndim))
    else:
        same = expr.primitive.abstract(x.aval, **expr.params).shape == x.aval.shape
    return x if same else None


def transpose_of_transpose(builder, expr, inner):
    """One permutation."""
    first, second = inner.params["permutation"], expr.params["permutation"]
    return Expr(p.transpose_p, inner.inputs, {"permutation": tuple(first[d] for d in second)})


def reshape_of_reshape(builder, expr, inner):
    """The last shape."""
    return Expr(p.reshape_p, inner.inputs, expr.params)


def slice_of_slice(builder, expr, inner):
    """One slice: starts add, steps multiply."""
    (x,), ndim = inner.inputs, inner.inputs[0].aval.ndim
    ones = (1,) * ndim
    steps1 = inner.params.get("strides") or ones
    steps2 = expr.params.get("strides") or ones
    begins = inner.params["start_indices"]
    dims = zip(begins, steps1, expr.params["start_indices"], strict=True)
    starts = tuple(b + s * i for b, s, i in dims)
    dims = zip(begins, steps1, expr.params["limit_indices"], x.aval.shape, strict=True)
    limits = tuple(min(b + s * i, n) for b, s, i, n in dims)
    params = {
        "start_indices": tuple(map(min, starts, limits)),
        "limit_indices": limits,
    }
    steps = tuple(a * b for a, b in zip(steps1, steps2, strict=True))
    if steps != ones:
        params["strides"] = steps
    return Expr(p.slice_p, (x,), params)


def broadcast_of_broadcast(builder, expr, inner):
    """One broadcast."""
    outer = expr.params["broadcast_dimensions"]
    dims = tuple(outer[d] for d in inner.params["broadcast_dimensions"])
    return Expr(expr.primitive, inner.inputs, {**expr.params, "broadcast_dimensions": dims})


def broadcast_of_reshape(builder, expr, inner):
    """A reshape that only adds dimensions of size 1 is part of the broadcast."""
    (x,) = inner.inputs
    dims = expr.params["broadcast_dimensions"]
    wide = [d for d, n in zip(dims, inner.params["new_sizes"], strict=True) if n != 1]
    sizes = tuple(n for n in inner.params["new_sizes"] if n != 1)
    if sizes != x.aval.shape:
        return None
    return Expr(expr.primitive, (x,), {**expr.params, "broadcast_dimensions": tuple(wide)})


def scalar_operand(builder, expr):
    """A broadcast scalar is a scalar to an element-wise operation."""
    definitions = [builder.definition(a) for a in expr.inputs]
    inputs = [
        d.inputs[0]
        if d and d.primitive is p.broadcast_in_dim_p and not d.inputs[0].aval.shape
        else a
        for a, d in zip(expr.inputs, definitions, strict=True)
    ]
    if all(new is old for new, old in zip(inputs, expr.inputs, strict=True)):
        return None
    scalar = Expr(expr.primitive, tuple(inputs), expr.params)
    if any(a.aval.shape for a in inputs):
        return scalar
    shape = p.elementwise_shape([a.aval for a in expr.inputs])
    return Expr(p.broadcast_in_dim_p, (scalar,), {"shape": shape, "broadcast_dimensions": ()})


def dot_of_transpose(builder, expr):
    """A transposed operand is a contraction over other dimensions, if the free ones keep order."""
    sides = list(zip(*expr.params["dimension_numbers"], strict=True))  # [(lc, lb), (rc, rb)]
    inputs = list(expr.inputs)
    for i, (contracting, batch) in enumerate(sides):
        eqn = builder.definition(inputs[i])
        if eqn is None or eqn.primitive is not p.transpose_p:
            continue
        perm = eqn.params["permutation"]
        free = [perm[d] for d in free_dims(len(perm), contracting, batch)]
        if free == sorted(free):
            inputs[i] = eqn.inputs[0]
            sides[i] = tuple(tuple(perm[d] for d in dims) for dims in (contracting, batch))
    if all(new is old for new, old in zip(inputs, expr.inputs, strict=True)):
        return None
    numbers = tuple(zip(*sides, strict=True))
    return Expr(expr.primitive, tuple(inputs), {**expr.params, "dimension_numbers": numbers})


RULES = [
    (op(p.add_p, p.mul_p, p.max_p, p.min_p), literal_right),
    (op(*ELEMENTWISE), scalar_operand),
    (op(p.add_p, p.sub_p, p.mul_p, p.div_p), neutral),
    (op(p.div_p), divide_by_power_of_two),
    (op(p.max_p, p.min_p), idempotent),
    (op(p.neg_p, of=op(p.neg_p)), double_negation),
    (op(p.min_p, of=op(p.max_p)), min_of_max),
    (op(p.max_p, of=op(p.min_p)), max_of_min),
    (
        op(p.round_nearest_even_p, of=op(p.round_nearest_even_p, p.convert_element_type_p)),
        round_of_whole,
    ),
    (op(p.convert_element_type_p), convert_nothing),
    (op(p.convert_element_type_p, of=op(p.convert_element_type_p)), convert_of_convert),
    (op(*MOVES), move_nothing),
    (op(p.transpose_p, of=op(p.transpose_p)), transpose_of_transpose),
    (op(p.reshape_p, of=op(p.reshape_p)), reshape_of_reshape),
    (op(p.slice_p, of=op(p.slice_p)), slice_of_slice),
    (op(p.broadcast_in_dim_p, of=op(p.broadcast_in_dim_p)), broadcast_of_broadcast),
    (op(p.broadcast_in_dim_p, of=op(p.reshape_p)), broadcast_of_reshape),
    (op(dot_general_p), dot_of_transpose),
]
