"""Derivatives and batches of the element-wise primitives.

An operand of rank 0 stands for all elements, so its cotangent is a sum.
"""

from math import log, pi, sqrt

from tilewright.compiler import primitives as p
from tilewright.compiler import primitives_lanes as lanes
from tilewright.compiler.forward import Zero
from tilewright.compiler.rules import (
    Undefined,
    add,
    batch_elementwise,
    bind,
    broadcast,
    convert,
    define_bilinear,
    define_factor,
    define_jvp,
    define_linear,
    div,
    mul,
    neg,
    no_derivative,
    number,
    select,
    sub,
    sum_to,
)
from tilewright.compiler.trace import aval_of

define_jvp(p.add_p, lambda t, out, x, y: t, lambda t, out, x, y: t)
define_jvp(p.sub_p, lambda t, out, x, y: t, lambda t, out, x, y: neg(t))


@p.add_p.rule("transpose")
def _add(ct, x, y):
    return [sum_to(ct, v.aval) if isinstance(v, Undefined) else None for v in (x, y)]


@p.sub_p.rule("transpose")
def _sub(ct, x, y):
    return [
        sum_to(ct, x.aval) if isinstance(x, Undefined) else None,
        sum_to(neg(ct), y.aval) if isinstance(y, Undefined) else None,
    ]


define_linear(p.neg_p, lambda ct, aval: neg(ct))
define_bilinear(
    p.mul_p,
    lambda ct, x, y: sum_to(mul(ct, y), x),
    lambda ct, x, y: sum_to(mul(ct, x), y),
)
define_jvp(
    p.div_p,
    lambda t, out, x, y: div(t, y),
    lambda t, out, x, y: mul(t, neg(div(out, y))),
)


@p.div_p.rule("transpose")
def _div(ct, x, y):
    return [sum_to(div(ct, y), x.aval), None]


def _chosen(t, out, x, y):
    """The tangent of the greater (or smaller) operand; where they are equal, half of each."""
    one, half, zero = (number(v, t) for v in (1, 0.5, 0))
    tie = select(bind(p.eq_p, y, out), half, one)
    return mul(t, select(bind(p.eq_p, x, out), tie, zero))


for _primitive in (p.max_p, p.min_p):
    define_jvp(_primitive, _chosen, lambda t, out, x, y: _chosen(t, out, y, x))


def _where(t, which):
    return select(which, t, number(0, t))


define_jvp(
    p.clamp_p,
    lambda t, out, lo, x, hi: _where(t, bind(p.gt_p, lo, x)),
    lambda t, out, lo, x, hi: _where(
        t, bind(lanes.and_p, bind(p.gt_p, x, lo), bind(p.lt_p, x, hi))
    ),
    lambda t, out, lo, x, hi: _where(t, bind(p.lt_p, hi, x)),
)


@lanes.select_n_p.rule("jvp")
def _select_jvp(primals, tangents):
    which, *cases = primals
    out = bind(lanes.select_n_p, *primals)
    if all(isinstance(t, Zero) for t in tangents[1:]):
        return out, Zero(aval_of(out))
    on_false, on_true = (
        number(0, x) if isinstance(t, Zero) else t for t, x in zip(tangents[1:], cases, strict=True)
    )
    return out, broadcast(select(which, on_true, on_false), aval_of(out).shape)


@lanes.select_n_p.rule("transpose")
def _select_transpose(ct, which, on_false, on_true):
    zero = number(0, ct)
    return [
        None,
        sum_to(select(which, zero, ct), on_false.aval) if isinstance(on_false, Undefined) else None,
        sum_to(select(which, ct, zero), on_true.aval) if isinstance(on_true, Undefined) else None,
    ]


@p.convert_element_type_p.rule("jvp")
def _convert_jvp(primals, tangents, **params):
    out = bind(p.convert_element_type_p, *primals, **params)
    if aval_of(out).dtype not in p.FLOATS:
        return out, Zero(aval_of(out))
    return out, bind(p.convert_element_type_p, *tangents, **params)


@p.convert_element_type_p.rule("transpose")
def _convert_transpose(ct, x, **params):
    return [convert(ct, x.aval)]


def _one(x):
    return number(1, x)


define_factor(lanes.abs_p, lambda x, out: bind(lanes.sign_p, x))
define_factor(lanes.sqrt_p, lambda x, out: div(number(0.5, x), out))
define_factor(lanes.rsqrt_p, lambda x, out: mul(number(-0.5, x), div(out, x)))
define_factor(lanes.exp_p, lambda x, out: out)
define_factor(lanes.exp2_p, lambda x, out: mul(out, number(log(2), x)))
define_jvp(lanes.log_p, lambda t, out, x: div(t, x))
define_jvp(lanes.log1p_p, lambda t, out, x: div(t, add(x, _one(x))))
define_factor(lanes.expm1_p, lambda x, out: add(out, _one(x)))
define_factor(lanes.logistic_p, lambda x, out: mul(out, sub(_one(x), out)))
define_factor(lanes.tanh_p, lambda x, out: mul(add(_one(x), out), sub(_one(x), out)))
define_factor(
    lanes.erf_p,
    lambda x, out: mul(number(2 / sqrt(pi), x), bind(lanes.exp_p, neg(mul(x, x)))),
)
define_factor(lanes.sin_p, lambda x, out: bind(lanes.cos_p, x))
define_factor(lanes.cos_p, lambda x, out: neg(bind(lanes.sin_p, x)))


@lanes.integer_pow_p.rule("jvp")
def _integer_pow(primals, tangents, *, y):
    (x,), (t,) = primals, tangents
    out = bind(lanes.integer_pow_p, x, y=y)
    if y == 0:
        return out, Zero(aval_of(out))
    factor = _one(x) if y == 1 else bind(lanes.integer_pow_p, x, y=y - 1)
    return out, mul(t, mul(number(y, x), factor))


#: Steps, predicates and integer functions: their derivative is zero wherever there is one.
STEPS = (
    p.round_nearest_even_p, lanes.floor_p, lanes.ceil_p, lanes.sign_p,
    p.eq_p, p.ne_p, p.lt_p, p.le_p, p.gt_p, p.ge_p,
    lanes.and_p, lanes.or_p, lanes.xor_p, lanes.not_p,
    lanes.shift_left_p, lanes.shift_right_logical_p, lanes.shift_right_arithmetic_p,
)  # fmt: skip
for _primitive in STEPS:
    no_derivative(_primitive)

SMOOTH = (
    p.add_p, p.sub_p, p.mul_p, p.div_p, p.neg_p, p.max_p, p.min_p, p.clamp_p,
    p.convert_element_type_p, lanes.select_n_p, lanes.integer_pow_p, lanes.abs_p,
    lanes.sqrt_p, lanes.rsqrt_p, lanes.exp_p, lanes.exp2_p, lanes.log_p, lanes.log1p_p,
    lanes.expm1_p, lanes.logistic_p, lanes.tanh_p, lanes.erf_p, lanes.sin_p, lanes.cos_p,
)  # fmt: skip
for _primitive in (*STEPS, *SMOOTH):
    batch_elementwise(_primitive)
