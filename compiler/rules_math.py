"""Derivatives and batches of `primitives_math`: powers, angles, remainders, words of bits."""

from math import log, pi, sqrt

from tilewright.compiler import primitives as p
from tilewright.compiler import primitives_lanes as lanes
from tilewright.compiler import primitives_math as m
from tilewright.compiler.rules import (
    add,
    batch_elementwise,
    bind,
    define_factor,
    define_jvp,
    div,
    mul,
    neg,
    no_derivative,
    number,
    select,
    sub,
)


def _one(x):
    return number(1, x)


def _rsqrt(x):
    return bind(lanes.rsqrt_p, x)


def _from_one(x):
    """1 - x^2, without cancellation."""
    return mul(sub(_one(x), x), add(_one(x), x))


define_factor(m.log2_p, lambda x, out: div(number(1 / log(2), x), x))
define_factor(m.cbrt_p, lambda x, out: div(number(1 / 3, x), mul(out, out)))
define_factor(m.tan_p, lambda x, out: add(_one(x), mul(out, out)))
define_factor(m.atan_p, lambda x, out: div(_one(x), add(_one(x), mul(x, x))))
define_factor(m.asin_p, lambda x, out: _rsqrt(_from_one(x)))
define_factor(m.acos_p, lambda x, out: neg(_rsqrt(_from_one(x))))
define_factor(m.cosh_p, lambda x, out: bind(m.sinh_p, x))
define_factor(m.sinh_p, lambda x, out: bind(m.cosh_p, x))
define_factor(m.asinh_p, lambda x, out: _rsqrt(add(mul(x, x), _one(x))))
define_factor(m.acosh_p, lambda x, out: _rsqrt(mul(sub(x, _one(x)), add(x, _one(x)))))
define_factor(m.atanh_p, lambda x, out: div(_one(x), _from_one(x)))
define_factor(
    m.erf_inv_p,
    lambda x, out: mul(number(sqrt(pi) / 2, x), bind(lanes.exp_p, mul(out, out))),
)
define_factor(
    m.erfc_p,
    lambda x, out: mul(number(-2 / sqrt(pi), x), bind(lanes.exp_p, neg(mul(x, x)))),
)


def _one_for_zero(x):
    return select(bind(p.eq_p, x, number(0, x)), _one(x), x)


define_jvp(
    m.pow_p,
    lambda t, out, x, y: mul(t, mul(y, bind(m.pow_p, x, sub(y, _one(y))))),
    lambda t, out, x, y: mul(t, mul(bind(lanes.log_p, _one_for_zero(x)), out)),
)


def _squares(x, y):
    return add(mul(x, x), mul(y, y))


define_jvp(
    m.atan2_p,
    lambda t, out, y, x: mul(t, div(x, _squares(x, y))),
    lambda t, out, y, x: mul(t, neg(div(y, _squares(x, y)))),
)


def _whole_quotient(x, y):
    """x / y, rounded towards zero."""
    quotient = div(x, y)
    whole = bind(lanes.floor_p, bind(lanes.abs_p, quotient))
    return mul(bind(lanes.sign_p, quotient), whole)


define_jvp(
    m.rem_p,
    lambda t, out, x, y: t,
    lambda t, out, x, y: mul(t, neg(_whole_quotient(x, y))),
)

#: Steps, predicates and functions of bits: their derivative is zero wherever there is one.
STEPS = (
    m.round_nearest_afz_p, m.is_finite_p, m.bitcast_convert_type_p, m.clz_p, m.population_count_p,
    m.threefry2x32_p,
)  # fmt: skip
for _primitive in STEPS:
    no_derivative(_primitive)

SMOOTH = (
    m.log2_p, m.cbrt_p, m.tan_p, m.atan_p, m.asin_p, m.acos_p, m.cosh_p, m.sinh_p, m.asinh_p,
    m.acosh_p, m.atanh_p, m.erf_inv_p, m.erfc_p, m.pow_p, m.atan2_p, m.rem_p,
)  # fmt: skip
for _primitive in (*STEPS, *SMOOTH):
    batch_elementwise(_primitive)
