"""Arrays as indices: JAX's elements, derivatives and batches; on the chip a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright.compiler.errors import OperandError

RNG = np.random.default_rng(9)
X = RNG.standard_normal((6, 5, 7)).astype(np.float32)
N = RNG.integers(-128, 128, (9, 3), dtype=np.int8)
I = np.array([3, 0, -1, 5, 9, -99, 3], np.int32)  # noqa: E741
TABLE = np.array([[0, 4], [2, -5], [1, 1]], np.int32)

TAKES = {
    "rows": lambda np_, x, i, t: x[i],
    "scalar": lambda np_, x, i, t: (x[i[0]], x[1, i[2]], x[:, i[1], 1:3]),
    "table": lambda np_, x, i, t: x[:, t],
    "between": lambda np_, x, i, t: x[1:3, t, None, ::2],
    "clip": lambda np_, x, i, t: np_.take(x, i, axis=2, mode="clip"),
    "wrap": lambda np_, x, i, t: np_.take(x, i, axis=1, mode="wrap"),
    "fill": lambda np_, x, i, t: np_.take(x, i, axis=0, mode="fill"),
    "flat": lambda np_, x, i, t: np_.take(x, t),
    "along": lambda np_, x, i, t: (
        np_.take_along_axis(x, i[:6, None, None] % 7 - 3, axis=1),
        np_.take_along_axis(x[0], t[:1] * 9, 1),
        np_.take_along_axis(x[:3, :, :2], t[:, None] + 3, 1, mode="clip"),
        np_.take_along_axis(x, np_.argsort(x, 2), 2),
    ),
    "set": lambda np_, x, i, t: x.at[i].set(x[:1] * 2),
    "add": lambda np_, x, i, t: x.at[i].add(x[i] * 0.5),
    "max": lambda np_, x, i, t: x.at[t].max(x[0]),
    "get": lambda np_, x, i, t: x.at[t].get(),
}


@pytest.fixture(autouse=True)
def device():
    with tw.default_device(tw.Device("tw4", "functional")) as chosen:
        yield chosen


@pytest.mark.parametrize("name", TAKES)
def test_elements_are_jaxs(name):
    function = TAKES[name]
    found = tw.jit(lambda x, i, t: function(tnp, x, i, t))(X, I, TABLE)
    wanted = function(jnp, jnp.asarray(X), jnp.asarray(I), jnp.asarray(TABLE))
    for a, b in zip(*map(tw.tree.leaves, (found, wanted)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_bytes_are_taken_as_they_are():
    found = tw.jit(lambda n, i: (n[i], n.at[i].set(n[0]), tnp.take(n, i, axis=0)))(N, I)
    jax_n, jax_i = jnp.asarray(N), jnp.asarray(I)
    wanted = jax_n[jax_i], jax_n.at[jax_i].set(jax_n[0]), jnp.take(jax_n, jax_i, axis=0)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_elements_outside_of_jit():
    x = tw.device_put(X)
    np.testing.assert_array_equal(x[tw.device_put(I[:3])], X[I[:3]])
    np.testing.assert_array_equal(x[[1, 0]], X[[1, 0]])


def test_the_table_of_an_embedding_learns():
    def loss(np_, table, i):
        return np_.sum(np_.sin(table[i]) * 0.5)

    table, i = X[:, 0], I[:4]
    found = tw.jit(tw.grad(lambda t: loss(tnp, t, i)))(table)
    np.testing.assert_allclose(found, jax.grad(lambda t: loss(jnp, t, i))(table), rtol=1e-5)
    found = tw.vmap(lambda t, j: t[j], (0, None))(X, tw.device_put(TABLE[:, 0]))
    np.testing.assert_array_equal(found, X[:, TABLE[:, 0]])


def test_engines_take_alike():
    found = []
    for engine in ("functional", "cycle", "rtl"):
        with tw.default_device(tw.Device("tw4", engine)), tw.profile() as p:
            results = tw.jit(
                lambda x, i: (x[i], x.at[i].add(1.0), x.at[i].set(x[:1] * 2), x[i, i], x[:, i])
            )(X[:, 0], I)
            found.append(([np.asarray(a).tobytes() for a in results], p.runs[0].counters))
    assert found[0][0] == found[1][0] == found[2][0]
    assert found[1][1] == found[2][1]


def test_what_is_no_index_is_refused():
    with pytest.raises(OperandError, match=r"mode must be 'fill', 'clip' or 'wrap', not 'near'"):
        tnp.take(X, I, mode="near")
