"""What issue 6 names, jitted: the same bytes on all engines, the same cycles, JAX's values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax

from tests.compiler.transform_case import normal
from tests.sdk.test_control import lstm

X, W, H = normal(1, (5, 3)), normal(2, (3, 3)), normal(3, (3,))
ENGINES = ("functional", "cycle", "rtl")


def third_derivative(api, np_, L):
    return api.grad(api.grad(api.grad(np_.sin)))(1.0)


def partial_derivatives(api, np_, L):
    return api.grad(lambda x, y, z: x + 2 * y + z**2, (0, 1, 2))(2.0, 3.0, 4.0)


def per_example_gradients(api, np_, L, w, x, y):
    def loss(w, x, y):
        return np_.sum((np_.tanh(x @ w) - y) ** 2)

    return api.vmap(api.grad(loss), (None, 0, 0))(w, x, y)


def hessian_vector_product(api, np_, L, w, x, v):
    def loss(w):
        return np_.sum(np_.sin(x @ w) ** 2)

    return api.jvp(api.grad(loss), (w,), (v,))[1]


def gradient_of_an_lstm(api, np_, L, w, h, xs):
    return api.grad(lambda w, h: np_.sum(lstm(np_, L, w, h, xs)[1]), (0, 1))(w, h)


def decoding(api, np_, L, cache, h, w):
    """Attention over the rows so far, in a cache that grows by a row in each step."""

    def step(i, state):
        keys, h = state
        keys = L.dynamic_update_slice(keys, h[None] @ w, (i, 0))
        scores = np_.where(np_.arange(keys.shape[0]) <= i, keys @ h, -np_.inf)
        e = np_.exp(scores - np_.max(scores))
        return keys, np_.tanh((e / np_.sum(e)) @ keys + h)

    return L.fori_loop(0, 4, step, (cache, h))


PROGRAMS = {
    third_derivative: (), partial_derivatives: (), per_example_gradients: (W, X, X + 1),
    hessian_vector_product: (W, X, W + 1), gradient_of_an_lstm: (W, H, X),
    decoding: (np.zeros((6, 3), np.float32), H, W),
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_engines_agree_and_values_are_jaxs(program):
    args, found, counters = PROGRAMS[program], {}, {}
    for engine in ENGINES:
        with tw.default_device(tw.Device("tw4", engine)), tw.profile() as p:
            values = tw.jit(lambda *a: program(tw, tnp, lax, *a))(*args)
            found[engine] = [np.asarray(v) for v in tw.tree.leaves(values)]
        counters[engine] = [(r.cycles, r.counters) for r in p.runs]
    assert counters["cycle"] == counters["rtl"]
    wanted = tw.tree.leaves(jax.jit(lambda *a: program(jax, jnp, jax.lax, *a))(*args))
    for a, b, c, want in zip(*(found[e] for e in ENGINES), wanted, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()
        np.testing.assert_allclose(a, want, rtol=0.05, atol=0.03 * np.abs(want).max())
