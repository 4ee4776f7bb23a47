"""Rewriting rules of `compiler.simplify` for the primitives that the vector unit computes.

Each keeps every bit: NaNs are canonical and subnormals zeros after arithmetic, so what skips an
equation asks whether its operand is clean (`rewrites.same`).
"""

import numpy as np
from tilewright.compiler import core
from tilewright.compiler import primitives as p
from tilewright.compiler import primitives_lanes as lanes
from tilewright.compiler import primitives_math as m
from tilewright.compiler.core import FLOATS, INTS, Literal
from tilewright.compiler.primitives_join import concatenate_p
from tilewright.compiler.primitives_pad import pad_p, rev_p
from tilewright.compiler.rewrites import MOVES, Expr, literal_right, op, same, scalar_operand

_BITWISE = (lanes.and_p, lanes.or_p, lanes.xor_p)
_SHIFTS = (lanes.shift_left_p, lanes.shift_right_logical_p, lanes.shift_right_arithmetic_p)
_WHOLE = (lanes.floor_p, lanes.ceil_p, p.round_nearest_even_p, m.round_nearest_afz_p)
_OTHERS = (
    *(lanes.abs_p, lanes.sign_p, lanes.floor_p, lanes.ceil_p, lanes.sqrt_p, lanes.rsqrt_p),
    *(lanes.exp_p, lanes.exp2_p, lanes.log_p, lanes.log1p_p, lanes.expm1_p, lanes.logistic_p),
    *(lanes.tanh_p, lanes.erf_p, lanes.sin_p, lanes.cos_p, lanes.integer_pow_p, lanes.not_p),
    *(m.pow_p, m.rem_p, m.atan2_p, m.is_finite_p, m.log2_p, m.cbrt_p, m.tan_p, m.erfc_p),
    lanes.select_n_p,
    *_BITWISE, *_SHIFTS,
)  # fmt: skip
_OPPOSITE = {p.eq_p: p.ne_p, p.ne_p: p.eq_p}
_OPPOSITE_INTS = {p.lt_p: p.ge_p, p.ge_p: p.lt_p, p.le_p: p.gt_p, p.gt_p: p.le_p} | _OPPOSITE


def _aval(expr):
    return expr.primitive.abstract(*(a.aval for a in expr.inputs), **expr.params)


def _if_typed(expr, *inputs):
    """The same operation of other operands, unless its weak type would change."""
    other = Expr(expr.primitive, inputs, expr.params)
    return other if _aval(other) == _aval(expr) else None


def _filled(value, aval):
    """One number in every place of an aval."""
    number = Literal(np.asarray(value).astype(aval.dtype), aval.update(shape=()))
    if not aval.shape:
        return number
    return Expr(p.broadcast_in_dim_p, (number,), {"shape": aval.shape, "broadcast_dimensions": ()})


def _literal(atom):
    """The value of a literal, or None."""
    return atom.value[()] if isinstance(atom, Literal) else None


def _ones(dtype):
    """All bits set."""
    return True if dtype == core.bool_ else np.array(-1).astype(dtype)[()]


def bits_with_literal(builder, expr):
    """x & 0, x & ~0, x | 0, x | ~0, x ^ 0."""
    x, value = expr.inputs[0], _literal(expr.inputs[1])
    if value is None:
        return None
    aval, zero, full = _aval(expr), value == 0, value == _ones(x.aval.dtype)
    if expr.primitive is lanes.and_p and zero:
        return _filled(0, aval)
    if expr.primitive is lanes.or_p and full:
        return _filled(value, aval)
    keeps = full if expr.primitive is lanes.and_p else zero
    return x if keeps and aval == x.aval else None


def bits_with_itself(builder, expr):
    """x & x, x | x, x ^ x."""
    x, y = expr.inputs
    if x is not y:
        return None
    return _filled(0, _aval(expr)) if expr.primitive is lanes.xor_p else x


def not_of_not(builder, expr, inner):
    """not(not(x))."""
    return inner.inputs[0]


def not_of_comparison(builder, expr, inner):
    """not(x == y) is x != y; of integers (no NaN) also not(x < y) is x >= y."""
    ordered = inner.inputs[0].aval.dtype not in FLOATS
    opposite = (_OPPOSITE_INTS if ordered else _OPPOSITE).get(inner.primitive)
    return Expr(opposite, inner.inputs) if opposite else None


def compare_with_itself(builder, expr):
    """x < x is false; of integers also x == x is true."""
    x, y = expr.inputs
    if x is not y:
        return None
    if expr.primitive in (p.lt_p, p.gt_p):
        return _filled(False, _aval(expr))
    if x.aval.dtype in FLOATS:
        return None
    return _filled(expr.primitive is not p.ne_p, _aval(expr))


def select_known(builder, expr):
    """A condition that is known, or two equal cases."""
    which, *cases = expr.inputs
    known = _literal(which)
    if known is None and cases[0] is not cases[1]:
        return None
    case = cases[int(known)] if known is not None else cases[0]
    clean = case.aval.dtype != core.bfloat16  # a select makes these canonical
    if _aval(expr) == case.aval:
        return case if clean else same(builder, expr, case)
    return None


def select_of_not(builder, expr, inner):
    """A select by not(x) is one by x with its cases exchanged."""
    _, on_false, on_true = expr.inputs
    return Expr(expr.primitive, (inner.inputs[0], on_true, on_false))


def negated_operand(builder, expr):
    """x + -y is x - y, x - -y is x + y, -x * -y is x * y."""
    first, second = map(builder.definition, expr.inputs)
    x, y = expr.inputs
    minus = [d is not None and d.primitive is p.neg_p for d in (first, second)]
    if expr.primitive is p.mul_p:
        if not all(minus):
            return None
        return Expr(p.mul_p, (first.inputs[0], second.inputs[0]))
    if minus[1]:
        return Expr(p.sub_p if expr.primitive is p.add_p else p.add_p, (x, second.inputs[0]))
    if minus[0] and expr.primitive is p.add_p:
        return Expr(p.sub_p, (y, first.inputs[0]))
    return None


def times_minus_one(builder, expr):
    """x * -1 is -x."""
    x, value = expr.inputs[0], _literal(expr.inputs[1])
    if value is None or x.aval.dtype == core.bool_ or x.aval.dtype not in (*FLOATS, core.int32):
        return None
    return Expr(p.neg_p, (x,)) if value == -1 and _aval(expr) == x.aval else None


def integer_identities(builder, expr):
    """Of integers x - x and x * 0 are 0; constants of sums, of products come together."""
    x, y = expr.inputs
    if x.aval.dtype not in INTS:
        return None
    if expr.primitive is p.sub_p:
        return _filled(0, _aval(expr)) if x is y else None
    value, inner = _literal(y), builder.definition(x)
    if value is None:
        return None
    if expr.primitive is p.mul_p and value == 0:
        return _filled(0, _aval(expr))
    if inner is None or inner.primitive is not expr.primitive:
        return None
    other = _literal(inner.inputs[1])
    if other is None:
        return None
    with np.errstate(over="ignore"):
        both = expr.primitive.impl(np.asarray(other), np.asarray(value))
    return _if_typed(expr, inner.inputs[0], Literal(both, y.aval))


def bounds_together(builder, expr, inner):
    """max(max(x, a), b) is max(x, max(a, b)); the same for min."""
    if inner.primitive is not expr.primitive:
        return None
    a, b = inner.inputs[1], expr.inputs[1]
    if not (isinstance(a, Literal) and isinstance(b, Literal)):
        return None
    both = expr.primitive.impl(np.asarray(a.value), np.asarray(b.value))
    return _if_typed(expr, inner.inputs[0], Literal(both, b.aval))


def open_bound(builder, expr):
    """max(x, lowest) and min(x, highest)."""
    x, value = expr.inputs[0], _literal(expr.inputs[1])
    if value is None or x.aval.dtype == core.bool_:
        return None
    largest = expr.primitive is p.min_p
    if x.aval.dtype in FLOATS:
        bound = np.inf if largest else -np.inf
    else:
        info = np.iinfo(x.aval.dtype)
        bound = info.max if largest else info.min
    return same(builder, expr, x) if float(value) == float(bound) else None


def abs_of_sign(builder, expr, inner):
    """|-x| and ||x||; of signed integers too: the lowest one is itself."""
    (x,) = inner.inputs
    unsigned = x.aval.dtype in (core.uint8, core.uint32)
    return None if unsigned and inner.primitive is p.neg_p else Expr(lanes.abs_p, (x,))


def whole_of_whole(builder, expr, inner):
    """floor(round(x)) and the like: a whole number stays one."""
    return expr.inputs[0]


def small_power(builder, expr):
    """x^2 is x * x, x^1 is x * 1."""
    (x,), y = expr.inputs, expr.params["y"]
    if y == 2:
        return Expr(p.mul_p, (x, x))
    if y != 1:
        return None
    one = Literal(np.ones((), x.aval.dtype), x.aval.update(shape=()))
    return Expr(p.mul_p, (x, one))


def shift_by_nothing(builder, expr):
    """x << 0."""
    x, value = expr.inputs[0], _literal(expr.inputs[1])
    return x if value is not None and value == 0 and _aval(expr) == x.aval else None


# ---- data movement


def move_of_scalar(builder, expr, inner):
    """A moved broadcast scalar is that scalar in another shape."""
    if inner.inputs[0].aval.shape:
        return None
    shape = _aval(expr).shape
    return Expr(inner.primitive, inner.inputs, {"shape": shape, "broadcast_dimensions": ()})


def reverse_of_reverse(builder, expr, inner):
    """The dimensions that only one of them reverses."""
    dims = set(expr.params["dimensions"]) ^ set(inner.params["dimensions"])
    (x,) = inner.inputs
    return Expr(rev_p, (x,), {"dimensions": tuple(sorted(dims))}) if dims else x


def reverse_nothing(builder, expr):
    """A reversal of dimensions of one element."""
    (x,) = expr.inputs
    return x if all(x.aval.shape[d] == 1 for d in expr.params["dimensions"]) else None


def pad_nothing(builder, expr):
    """A padding that adds nothing."""
    same_shape = all(c == (0, 0, 0) for c in expr.params["padding_config"])
    return expr.inputs[0] if same_shape else None


def concatenate_flat(builder, expr):
    """A join of one array; of joins along the same dimension."""
    if len(expr.inputs) == 1:
        return expr.inputs[0]
    parts = []
    for x in expr.inputs:
        inner = builder.definition(x)
        joins = inner is not None and inner.primitive is concatenate_p
        parts += inner.inputs if joins and inner.params == expr.params else (x,)
    return Expr(concatenate_p, tuple(parts), expr.params) if len(parts) > len(expr.inputs) else None


def slice_of_concatenate(builder, expr, inner):
    """A slice that lies in one of the parts."""
    dim = inner.params["dimension"]
    start, limit = expr.params["start_indices"][dim], expr.params["limit_indices"][dim]
    at = 0
    for x in inner.inputs:
        end = at + x.aval.shape[dim]
        if at <= start and limit <= end and start < limit:
            starts, limits = list(expr.params["start_indices"]), list(expr.params["limit_indices"])
            starts[dim], limits[dim] = start - at, limit - at
            moved = {"start_indices": tuple(starts), "limit_indices": tuple(limits)}
            return Expr(expr.primitive, (x,), {**expr.params, **moved})
        at = end
    return None


_COMPARISONS = (p.eq_p, p.ne_p, p.lt_p, p.le_p, p.gt_p, p.ge_p)
LANE_RULES = [
    (op(*_BITWISE, p.eq_p, p.ne_p), literal_right),
    (op(*_OTHERS), scalar_operand),
    (op(*_BITWISE), bits_with_literal),
    (op(*_BITWISE), bits_with_itself),
    (op(lanes.not_p, of=op(lanes.not_p)), not_of_not),
    (op(lanes.not_p, of=op(*_COMPARISONS)), not_of_comparison),
    (op(*_COMPARISONS), compare_with_itself),
    (op(lanes.select_n_p), select_known),
    (op(lanes.select_n_p, of=op(lanes.not_p)), select_of_not),
    (op(p.add_p, p.sub_p, p.mul_p), negated_operand),
    (op(p.mul_p), times_minus_one),
    (op(p.add_p, p.sub_p, p.mul_p), integer_identities),
    (op(p.max_p, p.min_p, of=op(p.max_p, p.min_p)), bounds_together),
    (op(p.max_p, p.min_p), open_bound),
    (op(lanes.abs_p, of=op(p.neg_p, lanes.abs_p)), abs_of_sign),
    (op(*_WHOLE, of=op(*_WHOLE)), whole_of_whole),
    (op(lanes.integer_pow_p), small_power),
    (op(*_SHIFTS), shift_by_nothing),
    (op(*MOVES, rev_p, of=op(p.broadcast_in_dim_p)), move_of_scalar),
    (op(rev_p, of=op(rev_p)), reverse_of_reverse),
    (op(rev_p), reverse_nothing),
    (op(pad_p), pad_nothing),
    (op(concatenate_p), concatenate_flat),
    (op(p.slice_p, of=op(concatenate_p)), slice_of_concatenate),
]
