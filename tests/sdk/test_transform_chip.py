"""Transformed functions on the chip: compiled, checked, and run by the functional engine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax
from tilewright.compiler.core import eval_jaxpr

from tests.compiler.transform_case import normal

X, W, B = normal(1, (6, 10)), normal(2, (10, 7)), normal(3, (7,))
IMAGE, KERNEL = normal(4, (2, 6, 6, 3)), normal(5, (3, 3, 3, 4))
CONV = dict(padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.fixture(autouse=True)
def small_chip():
    with tw.default_device(tw.Device("tw4", "functional")):
        yield


def layer(np_, w, x):
    return np_.tanh(np_.matmul(x, w))


PROGRAMS = {
    "vjp": (lambda api, np_, L, w, x, ct: api.vjp(lambda *a: layer(np_, *a), w, x)[1](ct),
            (W, X, normal(6, (6, 7)))),
    "jvp": (lambda api, np_, L, w, x: api.jvp(lambda *a: layer(np_, *a), (w, x), (w, x)), (W, X)),
    "hessian": (lambda api, np_, L, x: api.hessian(lambda x: np_.vdot(np_.sin(x), x * x))(x),
                (X[0],)),
    "per example": (lambda api, np_, L, w, x: api.vmap(
        api.grad(lambda w, x: np_.vdot(layer(np_, w, x), layer(np_, w, x))), (None, 0))(w, x),
        (W, X)),
    "convolution": (lambda api, np_, L, x, k, ct: api.vjp(
        lambda x, k: L.conv_general_dilated(x, k, (2, 1), **CONV), x, k)[1](ct),
        (IMAGE, KERNEL, normal(7, (2, 3, 6, 4)))),
    "pooling": (lambda api, np_, L, x, ct: api.vjp(lambda x: L.reduce_window(
        x, -np.inf, L.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"), x)[1](ct),
        (IMAGE, IMAGE[:, :3, :3])),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_transformed_programs_on_the_chip(name):
    """The bits are `eval_jaxpr`'s; the values JAX's, within what bfloat16 products give."""
    program, args = PROGRAMS[name]

    def ours(*a):
        return program(tw, tnp, lax, *a)

    found = list(map(np.asarray, tw.tree.leaves(tw.jit(ours)(*args))))
    exact = eval_jaxpr(tw.make_jaxpr(ours)(*args), args, dim=4)
    theirs = tw.tree.leaves(jax.jit(lambda *a: program(jax, jnp, jax.lax, *a))(*args))
    for a, b, c in zip(found, exact, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=0.05, atol=0.02 * np.abs(c).max())


def test_unjitted_derivatives_on_the_chip():
    third = tw.grad(tw.grad(tw.grad(tnp.sin)))(1.0)
    assert isinstance(third, tw.Array) and third.weak_type
    assert float(third) == pytest.approx(-np.cos(1), rel=1e-6)

    def f(x):
        return x * x if x > 0 else -x

    assert (float(tw.grad(f)(3.0)), float(tw.grad(f)(-3.0))) == (6, -1)
    assert np.allclose(tw.vmap(tw.grad(tw.jit(tnp.sin)))(X[0]), np.cos(X[0]), atol=1e-6)


def test_a_training_step_changes_parameters_as_jax_does():
    def step(api, np_, w, x, y):
        def loss(w):
            error = layer(np_, w, x) - y
            return 0.5 * np_.vdot(error, error)

        return w - 0.1 * api.grad(loss)(w)

    y = normal(8, (6, 7))
    ours = tw.jit(lambda w: step(tw, tnp, w, X, y))
    theirs = jax.jit(lambda w: step(jax, jnp, w, X, y))
    a, b = W, W
    for _ in range(3):
        a, b = ours(a), theirs(b)
    assert ours.cache_size() == 1
    np.testing.assert_allclose(a, b, rtol=0.05, atol=0.03)


def test_a_jitted_function_within_transformations_is_compiled_once():
    seen = []

    def f(w, x):
        seen.append(x)
        return tnp.vdot(layer(tnp, w, x), B)

    jitted = tw.jit(f)
    gradient = tw.grad(jitted)
    first, again = gradient(W, X[0]), gradient(W, X[1])
    assert len(seen) == 1
    assert "Tracer" in repr(seen[0])
    for found, x in ((first, X[0]), (again, X[1])):
        wanted = jax.grad(lambda w, x=x: jnp.vdot(layer(jnp, w, x), B))(W)
        np.testing.assert_allclose(found, wanted, rtol=0.05, atol=0.02)
    each = tw.vmap(tw.grad(jitted), (None, 0))(W, X)
    np.testing.assert_allclose(each[1], again, rtol=0.05, atol=0.02)
    second = tw.jvp(gradient, (W, X[0]), (W, X[0]))[1]
    assert second.shape == W.shape
