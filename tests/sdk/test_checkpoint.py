"""`checkpoint`: values and derivatives of all orders as JAX's, and less memory for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax
from tilewright.compiler.errors import UnsupportedError

from tests.compiler.transform_case import check_everything, normal, on_numpy  # noqa: F401

X, W = normal(1, (3, 4)), normal(2, (4, 4))
LAYERS = [(normal(3 + i, (16, 64)) / 4, normal(30 + i, (64, 16)) / 8) for i in range(6)]
STACKED = [np.stack(a) for a in zip(*LAYERS, strict=True)]
WIDE = normal(9, (64, 16))


def block(x, w, v):
    h = tnp.tanh(x @ w)
    return x + (h * tnp.sin(h)) @ v


def loss(block):
    def of(layers, x):
        for w, v in layers:
            x = block(x, w, v)
        return (x * x).mean()

    return of


def scanned(block):
    def of(layers, x):
        return (lax.scan(lambda x, wv: (block(x, *wv), None), x, layers)[0] ** 2).mean()

    return of


def temporaries(fun, *args):
    return tw.jit(fun).lower(*args).compile().memory_analysis().temp_size_in_bytes


def bits(values):
    return [np.asarray(a).tobytes() for a in tw.tree.leaves(values)]


@pytest.mark.usefixtures("on_numpy")
def test_every_order_and_batch_is_as_in_jax():
    def make(api, np_):
        return api.checkpoint(lambda x, w: np_.sin(np_.sin(x) * np_.cos(w[:3])))

    check_everything(make(tw, tnp), make(jax, jnp), (X, W))


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize("transform", ["grad", "hessian", "jacfwd"])
def test_what_it_closes_over_is_differentiated(transform):
    def make(api, np_, scan):
        def of(w):
            inner = api.checkpoint(lambda x: np_.sin(x * w))
            once = inner(np_.sin(w))
            return scan(lambda c, x: (inner(c) + x, None), once, X)[0].sum()

        return of

    found = getattr(tw, transform)(make(tw, tnp, lax.scan))(W[0])
    want = jax.jit(getattr(jax, transform)(make(jax, jnp, jax.lax.scan)))(W[0])
    np.testing.assert_allclose(np.asarray(found), np.asarray(want), 2e-4, 2e-5)


@pytest.mark.usefixtures("on_numpy")
def test_static_arguments_containers_and_names():
    def scaled(kind, pair, *, shift):
        assert kind == "twice"
        return {"y": 2 * pair[0] * pair[1] + shift}

    f = tw.checkpoint(scaled, static_argnums=0)
    found = tw.grad(lambda x: f("twice", (x, x), shift=x)["y"].sum())(X)
    np.testing.assert_allclose(np.asarray(found), 4 * X + 1, 1e-6)


def test_a_policy_is_refused_by_name():
    with pytest.raises(UnsupportedError, match="policy must be None, not 3"):
        tw.checkpoint(lambda x: x, policy=3)


@pytest.mark.parametrize("prevent, count", [(True, 2), (False, 1)])
def test_the_backward_pass_computes_again(prevent, count):
    f = tw.checkpoint(lambda x: tnp.sum(tnp.exp(tnp.tanh(x) * x)), prevent_cse=prevent)
    compiled = tw.jit(tw.value_and_grad(f)).lower(X).compile()
    assert compiled.as_text("jaxpr").count(" exp ") == count, compiled.as_text("jaxpr")


@pytest.mark.parametrize("form, layers", [(loss, LAYERS), (scanned, STACKED)])
def test_a_deep_network_takes_less_memory_and_has_the_same_bits(form, layers):
    with tw.default_device(tw.Device("tw8", "functional")):
        plain, saving = tw.grad(form(block)), tw.grad(form(tw.checkpoint(block)))
        assert temporaries(saving, layers, WIDE) <= 0.5 * temporaries(plain, layers, WIDE)
        found = tw.jit(saving)(layers, WIDE)
        assert bits(found) == bits(tw.jit(plain)(layers, WIDE))
        assert bits(saving(layers, WIDE)) == bits(found)  # operation by operation


def test_recomputed_values_are_the_same_on_every_engine():
    layers, x = [(w[:8, :8], v[:8, :8]) for w, v in LAYERS[:2]], WIDE[:5, :8]
    step = tw.grad(loss(tw.checkpoint(block)))
    found = []
    for engine in ("functional", "cycle", "rtl"):
        with tw.default_device(tw.Device("tw4", engine)):
            found.append(bits(tw.jit(step)(layers, x)))
    assert found[0] == found[1] == found[2]


def test_optimization_barrier_is_the_identity():
    with tw.default_device(tw.Device("tw4", "functional")):
        pair = lax.optimization_barrier((X, {"w": W}))
        assert bits(pair) == [X.tobytes(), W.tobytes()]
        found = tw.jit(lambda x: lax.optimization_barrier(x * 2) + lax.optimization_barrier(3))(X)
        np.testing.assert_array_equal(np.asarray(found), X * 2 + 3)
