"""Parts at computed places: JAX's values, the bits of eval_jaxpr, updates in place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax
from tilewright.compiler.errors import OperandError

RNG = np.random.default_rng(8)
X = RNG.standard_normal((6, 5, 7)).astype(np.float32)
U = RNG.standard_normal((2, 5, 3)).astype(np.float32)
PLACES = [(0, 0, 0), (3, 0, 2), (-2, 1, -3), (99, -99, 4)]


def slices(np_, L, x, u, at):
    return L.dynamic_slice(x, at, (2, 5, 3)) * 2


def updates(np_, L, x, u, at):
    return L.dynamic_update_slice(x + 1, u, [at[0], 0, at[2]])


def along(np_, L, x, u, at):
    one = L.dynamic_index_in_dim(x, at[0], 1, keepdims=False)
    return one, L.dynamic_update_index_in_dim(x, one, at[2], 1)


def decode(np_, L, x, u, at):
    """A cache that grows by a row in each step."""

    def step(i, c):
        cache, h = c
        cache = L.dynamic_update_slice(cache, h[None], (i, 0))
        return cache, np_.tanh(h + L.dynamic_slice(cache, (i // 2, 0), (1, 7))[0])

    return L.fori_loop(0, 6, step, (np_.zeros((6, 7), np_.float32), x[0, 0]))


@pytest.fixture(autouse=True, params=["functional", "cycle"])
def device(request):
    with tw.default_device(tw.Device("tw4", request.param)) as chosen:
        yield chosen


@pytest.mark.parametrize("at", PLACES, ids=str)
@pytest.mark.parametrize("function", [slices, updates, along], ids=lambda f: f.__name__)
def test_places_are_jaxs(function, at):
    at = np.array(at, np.int32)
    found = tw.jit(lambda x, u, at: function(tnp, lax, x, u, at))(X, U, at)
    wanted = function(jnp, jax.lax, X, U, at)
    known = function(tnp, lax, tw.device_put(X), U, [int(i) for i in at])
    for a, b, c in zip(*map(tw.tree.leaves, (found, wanted, known)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(c, b)


def test_a_cache_is_updated_in_place(device):
    compiled = tw.jit(lambda x: decode(tnp, lax, x, None, None)).lower(X).compile()
    for a, b in zip(compiled(X), decode(jnp, jax.lax, X, None, None), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

    def beats(rows):
        def step(i, c):
            cache, h = c
            return lax.dynamic_update_slice(cache, h[None] + i, (i, 0)), h * 0.5

        run = tw.jit(lambda c, h: lax.fori_loop(0, 8, step, (c, h)), donate_argnums=0)
        with tw.profile() as p:
            run(np.zeros((rows, 7), np.float32), X[0, 0])
        return p.runs[0].counters["beats_written"]  # the cache itself is never copied

    assert beats(8) == beats(800)


def test_dynamic_derivatives_are_jaxs():
    at = np.array([1, 0, 3], np.int32)

    def loss(np_, L, x, u):
        return np_.sum(updates(np_, L, x, u, at) ** 2) + np_.sum(slices(np_, L, x, u, at) ** 3)

    found = tw.jit(tw.grad(lambda x, u: loss(tnp, lax, x, u), (0, 1)))(X, U)
    wanted = jax.grad(lambda x, u: loss(jnp, jax.lax, x, u), (0, 1))(X, U)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    starts = np.array([0, 4, -1], np.int32)
    found = tw.vmap(lambda i: lax.dynamic_slice_in_dim(X[0], i, 2, 1))(starts)
    wanted = jax.vmap(lambda i: jax.lax.dynamic_slice_in_dim(X[0], i, 2, 1))(starts)
    np.testing.assert_array_equal(found, wanted)
    found = tw.vmap(lambda x, u: lax.dynamic_update_slice(x, u, at[1:]))(X[:2], U)
    np.testing.assert_array_equal(
        found, jax.vmap(lambda x, u: jax.lax.dynamic_update_slice(x, u, at[1:]))(X[:2], U)
    )


def test_unsigned_places_do_not_count_from_the_end():
    """2**32 - 3 was taken for -3."""
    for at in (2, 2**31, 2**32 - 3):
        at = np.uint32(at)
        found = tw.jit(lambda at: lax.dynamic_slice(X[0, 0], (at,), (2,)))(at)
        np.testing.assert_array_equal(found, jax.lax.dynamic_slice(X[0, 0], (at,), (2,)))


def test_dynamic_errors_name_what_must_be():
    with pytest.raises(OperandError, match=r"start_indices must be 3 integers, not 2"):
        lax.dynamic_slice(X, (0, 0), (1, 1, 1))
    with pytest.raises(OperandError, match=r"the part must fit into .*6,5,7.*\(7, 1, 1\)"):
        lax.dynamic_slice(X, (0, 0, 0), (7, 1, 1))
    with pytest.raises(OperandError, match=r"a start must be an integer, not .*f32"):
        lax.dynamic_slice(X, (0.5, 0, 0), (1, 1, 1))
    with pytest.raises(OperandError, match=r"dtype float32, not int8"):
        lax.dynamic_update_slice(X, U.astype(np.int8), (0, 0, 0))
