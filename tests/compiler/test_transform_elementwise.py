"""Derivatives and batches of the element-wise primitives, compared with JAX's."""

import jax
import numpy as np
import pytest
from tilewright import autodiff, lax
from tilewright.compiler.primitives_math import log2_p
from tilewright.compiler.trace import bind

from tests.compiler.transform_case import check_everything, compare, normal, on_numpy  # noqa: F401

pytestmark = pytest.mark.usefixtures("on_numpy")

X = normal(1, (3, 2))
POSITIVE = normal(2, (3, 2), 0.5, 2)
SCALAR = np.float32(0.75).reshape(())

UNARY = {
    "neg": X, "abs": X, "sign": X, "floor": X, "ceil": X, "sqrt": POSITIVE, "rsqrt": POSITIVE,
    "exp": X, "exp2": X, "log": POSITIVE, "log1p": POSITIVE, "expm1": X, "logistic": X, "tanh": X,
    "erf": X, "sin": X, "cos": X, "cbrt": POSITIVE, "tan": X, "atan": X, "asin": X / 3,
    "acos": X / 3, "cosh": X, "sinh": X, "asinh": X, "acosh": POSITIVE + 1, "atanh": X / 3,
    "erf_inv": X / 3,
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    check_everything(getattr(lax, name), getattr(jax.lax, name), (UNARY[name],))


@pytest.mark.parametrize("y", [0, 1, 2, 3, -2])
def test_integer_pow(y):
    check_everything(
        lambda x: lax.integer_pow(x, y), lambda x: jax.lax.integer_pow(x, y), (POSITIVE,)
    )


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "max", "min", "pow", "atan2", "rem"])
def test_binary(name):
    check_everything(getattr(lax, name), getattr(jax.lax, name), (np.abs(X), POSITIVE))
    if name != "pow":
        check_everything(getattr(lax, name), getattr(jax.lax, name), (X, -POSITIVE))


@pytest.mark.parametrize(
    ("name", "side"),
    [("add", "first"), ("sub", "second"), ("mul", "first"), ("div", "second"), ("max", "first")],
)
def test_binary_with_a_scalar(name, side):
    """Here a scalar stands for all elements; JAX wants it broadcast."""
    ours, theirs = getattr(lax, name), getattr(jax.lax, name)
    if side == "first":
        check_everything(
            lambda x, s: ours(s, x), lambda x, s: theirs(jax.numpy.broadcast_to(s, x.shape), x),
            (POSITIVE, SCALAR),
        )  # fmt: skip
    else:
        check_everything(
            lambda s, x: ours(x, s), lambda s, x: theirs(x, jax.numpy.broadcast_to(s, x.shape)),
            (SCALAR, POSITIVE),
        )  # fmt: skip


def test_equal_operands_share_the_derivative_of_a_maximum():
    check_everything(lax.max, jax.lax.max, (X, X.copy()))
    check_everything(lambda x: lax.min(x, x), lambda x: jax.lax.min(x, x), (X,))


def test_pow_where_a_factor_is_zero():
    x = np.array([0, 0, 2, 3], np.float32)
    y = np.array([0, 2, 0, 1], np.float32)
    args, tangents, ct = (x, y), (np.ones_like(x), np.zeros_like(x)), np.ones_like(x)
    ours = autodiff.jvp(lax.pow, args, tangents), autodiff.vjp(lax.pow, *args)[1](ct)
    theirs = jax.jvp(jax.lax.pow, args, tangents), jax.vjp(jax.lax.pow, *args)[1](ct)
    compare(ours, theirs, 1e-5, 0)


def test_log2():
    check_everything(lambda x: bind(log2_p, x), jax.numpy.log2, (POSITIVE,))


def test_clamp():
    spread = jax.numpy.broadcast_to  # JAX cannot differentiate by bounds that are scalars
    check_everything(
        lambda x, lo, hi: lax.clamp(lo, x, hi),
        lambda x, lo, hi: jax.lax.clamp(spread(lo, x.shape), x, spread(hi, x.shape)),
        (X, np.float32(-0.5).reshape(()), np.float32(0.6).reshape(())),
    )
    check_everything(
        lambda x, lo, hi: lax.clamp(lo, x, hi), lambda x, lo, hi: jax.lax.clamp(lo, x, hi),
        (X, X - 0.1 * POSITIVE, X + POSITIVE - 1),
    )  # fmt: skip


@pytest.mark.parametrize("compare", ["eq", "lt", "ge"])
def test_select_by_a_comparison(compare):
    check_everything(
        lambda x, y: lax.select_n(getattr(lax, compare)(x, y), x * x, lax.sin(y)),
        lambda x, y: jax.lax.select_n(getattr(jax.lax, compare)(x, y), x * x, jax.lax.sin(y)),
        (X, np.where(X > 0, X, POSITIVE)),
    )


def test_select_of_scalars():
    jnp = jax.numpy
    check_everything(
        lambda x, s: lax.select(x > 0, s, x), lambda x, s: jnp.where(x > 0, s, x), (X, SCALAR)
    )
    check_everything(
        lambda x, s: lax.select(s > 0, s, x), lambda x, s: jnp.where(s > 0, s, x), (X, SCALAR)
    )


def test_conversions():
    check_everything(
        lambda x: lax.convert_element_type(lax.convert_element_type(x, "bfloat16") * 2, "float32"),
        lambda x: jax.lax.convert_element_type(
            jax.lax.convert_element_type(x, "bfloat16") * 2, "float32"
        ),
        (X,), rtol=1e-2,
    )  # fmt: skip
    check_everything(
        lambda x: x * lax.convert_element_type(lax.convert_element_type(x * 3, "int32"), "float32"),
        lambda x: x * (x * 3).astype("int32").astype("float32"),
        (X,),
    )  # fmt: skip


def test_round_to_nearest_even():
    nearest = lax.RoundingMethod.TO_NEAREST_EVEN
    check_everything(
        lambda x: x * lax.round(3 * x, nearest),
        lambda x: x * jax.lax.round(3 * x, jax.lax.RoundingMethod.TO_NEAREST_EVEN), (X,),
    )  # fmt: skip
