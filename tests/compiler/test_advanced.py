"""Indices with arrays and masks: JAX's elements, updates, derivatives and batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright.compiler.errors import NonConcreteBooleanIndexError, OperandError
from tilewright.compiler.trace import make_jaxpr

from tests.compiler.transform_case import check_everything, on_numpy  # noqa: F401

RNG = np.random.default_rng(19)
X = RNG.standard_normal((4, 5, 3, 2)).astype(np.float32)
N = RNG.integers(-128, 128, (4, 5, 3), dtype=np.int8)
I = np.array([3, 0, -1, 3, 9, -7], np.int32)  # noqa: E741
J = np.array([[1], [-2], [-4], [2], [5], [2**31 - 1]], np.int32)[:, 0]
U = np.array([0, 2**31, 3, 2**32 - 1, 1, 3], np.uint32)
T = np.array([[0, -4], [2, 1], [1, 77]], np.int8)
MASK = X[..., 0, 0] > 0.2

READS = {
    "two": lambda x, i, j, t, u: x[i, j],
    "apart": lambda x, i, j, t, u: (x[:, i % 3, :, j], x[i, :, j], x[i, None, j]),
    "together": lambda x, i, j, t, u: (x[:, i, j], x[..., i, j], x[None, :, i, j, ::-1]),
    "numbers": lambda x, i, j, t, u: (x[1, :, i], x[i, 1], x[:, 1, i], x[:2, -1, None, i]),
    "nothing between": lambda x, i, j, t, u: (x[:, 0, ..., i, :], x[:, :, 0, ..., i]),
    "broadcast": lambda x, i, j, t, u: (x[t, t[:, :1]], x[t[:, :1], :, t[:1]], x[i[:, None], i]),
    "traced numbers": lambda x, i, j, t, u: (x[i[0], i[2]], x[i[4], :, i[5]], x[i[0], j, i[2]]),
    "unsigned": lambda x, i, j, t, u: (x.at[u].get(mode="fill"), x[u[3]], x[u % 7, 0]),
    "known": lambda x, i, j, t, u: (x[I, J], x[[1, 2], :, [[0], [1]]], x[I, j]),
    "masks": lambda x, i, j, t, u: (x[MASK], x[:, MASK[0]], x[MASK[:, 0], 1], x[0, MASK[1], :, 1]),
    "elements": lambda x, i, j, t, u: (x[i, j, 1, 0], x[i, j, i, j], x[i, j, ..., 1]),
    "get": lambda x, i, j, t, u: (
        x.at[i, j].get(mode="fill"), x.at[:, i].get(mode="fill", fill_value=7),
        x.at[i].get(mode="clip"), x.at[i[4]].get(mode="drop"), x.at[1:3].get(),
        x.at[j].get(wrap_negative_indices=False, mode="fill"), x.at[u].get(mode="fill"),
    ),
}  # fmt: skip

WRITES = {
    "two": lambda x, y, i, j, t, u: x.at[i, j].set(y[0, :1] * 2),
    "apart": lambda x, y, i, j, t, u: x.at[:, i, :, j].set(y[0, 0, :, 0]),
    "slices": lambda x, y, i, j, t, u: x.at[1:3, i].add(y[:2, :1]),
    "steps": lambda x, y, i, j, t, u: x.at[::-2, None, i, 1].add(3.5),
    "number": lambda x, y, i, j, t, u: (x.at[i[2]].set(y[0]), x.at[1, i[4]].add(1.0),
                                        x.at[:, i[0], :, j[1]].max(0.0), x.at[0, i].set(y[1, 0])),
    "rows": lambda x, y, i, j, t, u: x.at[i].add(y[i]),
    "table": lambda x, y, i, j, t, u: x.at[t, 1].subtract(y[0, 0]),
    "clip": lambda x, y, i, j, t, u: (x.at[i, j].set(y[0, 0], mode="clip"),
                                      x.at[i[4]].set(1.0, mode="clip")),
    "min": lambda x, y, i, j, t, u: (x.at[i, j].min(y[1, 1]), x.at[u].max(y[2])),
    "multiply": lambda x, y, i, j, t, u: (x.at[i].multiply(y[:1]), x.at[i, j].divide(y[0, 0]),
                                          x.at[i].power(2.0), x.at[1].power(3.0)),
    "apply": lambda x, y, i, j, t, u: (x.at[i].apply(lambda e: e * 2 + 1),
                                       x.at[1, i[3]].apply(lambda e: -e),
                                       x.at[i, j].apply(lambda e: e * 3)),
    "masks": lambda x, y, i, j, t, u: (x.at[MASK].set(y[0, 0]), x.at[MASK[:, 0]].add(2.0),
                                       x.at[MASK, 1].multiply(3.0), x.at[MASK].max(y[MASK])),
    "options": lambda x, y, i, j, t, u: x.at[i[:2]].set(
        y[:2], mode="promise_in_bounds", unique_indices=True, indices_are_sorted=True),
    "basic": lambda x, y, i, j, t, u: (x.at[1:, ..., ::2].set(4.0, mode="drop"),
                                       x.at[:].add(1.0, unique_indices=True)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def device():
    with tw.default_device(tw.Device("tw4", "functional")) as chosen:
        yield chosen


def compare(function, *args):
    found = tw.jit(function)(*args)
    wanted = function(*map(jnp.asarray, args))
    pairs = list(zip(*map(tw.tree.leaves, (found, wanted)), strict=True))
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=2e-6)
        assert a.dtype == b.dtype


@pytest.mark.parametrize("name", READS)
def test_elements_are_jaxs(name):
    compare(READS[name], X, I, J, T, U)


@pytest.mark.parametrize("name", WRITES)
def test_updates_are_jaxs(name):
    compare(WRITES[name], X, X[::-1] * 0.5, I, J, T, U)


def test_bytes_go_as_they_are():
    compare(lambda n, i, j: (n[i, j], n.at[i, :, j].set(n[0, 0, 0]), n.at[j].add(n[1])), N, I, J)
    compare(lambda m, i, j: (m[i, j], m.at[i].set(m[0])), MASK[..., None], I, J)


def test_a_large_unsigned_index_lies_behind():
    found = tw.jit(lambda x, u: (x[u], x.at[u, 1].set(5.0)))(X, U)
    np.testing.assert_array_equal(found[0], X[np.minimum(U, 3)])
    np.testing.assert_array_equal(found[1], jnp.asarray(X).at[U, 1].set(5.0))


def test_masks_outside_of_jit():
    x, mask = tw.device_put(X), tw.device_put(MASK)
    np.testing.assert_array_equal(x[mask], X[MASK])
    np.testing.assert_array_equal(x[x > 0.5], X[X > 0.5])
    np.testing.assert_array_equal(x.at[x > 0.5].set(0), np.where(X > 0.5, 0, X))


def test_a_traced_mask_chooses_by_where():
    found = tw.jit(lambda x, y: (x.at[x > 0.5].multiply(2.0), x.at[x[..., 0, 0] > 0].add(y)))(
        X, X[0, 0]
    )
    np.testing.assert_array_equal(found[0], np.where(X > 0.5, X * 2, X))
    np.testing.assert_allclose(found[1], np.where(X[..., :1, :1] > 0, X + X[0, 0], X), rtol=1e-6)
    with pytest.raises(NonConcreteBooleanIndexError, match=r"known when .*where.*test_advanced"):
        tw.jit(lambda x: x[x > 0])(X)
    with pytest.raises(NonConcreteBooleanIndexError, match=r"bool\[4\].*test_advanced"):
        tw.jit(lambda x: x.at[x[:, 0, 0, 0] > 0].set(X[:2]))(X)


DERIVED = {
    "read": lambda x, y, i, j: x[i % 4, j % 3] * y[0, :1],
    "elements": lambda x, y, i, j: x[i % 4, :, j % 2] ** 2,
    "set": lambda x, y, i, j: x.at[i, j].set(y[0, i % 3]) * 2,
    "clip": lambda x, y, i, j: x.at[i].set(y[j % 3], mode="clip"),
    "add": lambda x, y, i, j: x.at[:, i].add(y[:1, j % 3]) ** 2,
    "subtract": lambda x, y, i, j: x.at[i].subtract(y[0]),
    "max": lambda x, y, i, j: x.at[i].max(y[i]),
    "min": lambda x, y, i, j: x.at[i, 1].min(y[j % 4, 2]),
    "number": lambda x, y, i, j: x.at[i[2], 1].set(y[0, 0]) + x[i[0]],
    "fill": lambda x, y, i, j: x.at[i].get(mode="fill", fill_value=0) * y[0],
}


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize("name", DERIVED)
def test_derivatives_and_batches_are_jaxs(name):
    function = DERIVED[name]
    x, y = X[:, :3, :2, 0], X[::-1, :3, :2, 0] * 1.5
    i, j = I.copy(), J.copy()
    check_everything(
        lambda a, b: function(a, b, i, j),
        lambda a, b: function(a, b, jnp.asarray(i), jnp.asarray(j)), (x, y),
    )  # fmt: skip


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, 1)])
def test_batches_of_indices(axes):
    x = X[:, :3, :2, 0] if axes[0] != 1 else np.moveaxis(X[:, :3, :2, 0], 0, 1)
    i = np.stack([I, J, I[::-1], J[::-1]], 1 if axes[1] == 1 else 0) % 5 - 2

    def function(x, i):
        return x[i], x.at[i].set(2.0), x.at[i, 0].add(x[0, 0]), x.at[i].multiply(3.0), x[i[0]]

    found = tw.jit(tw.vmap(function, axes))(x, i)
    wanted = jax.vmap(function, axes)(jnp.asarray(x), jnp.asarray(i))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_product_of_repeated_rows_has_a_derivative():
    def loss(np_, x, y):
        return np_.sum(x.at[np.array([1, 1, 0])].multiply(y) ** 2)

    x, y = X[:2, 0, 0], X[:3, 1, 0]
    found = tw.jit(tw.grad(lambda x, y: loss(tnp, x, y), (0, 1)))(x, y)
    wanted = jax.grad(lambda x, y: jnp.sum(jnp.stack([x[0] * y[2], x[1] * y[0] * y[1]]) ** 2),
                      (0, 1))(x, y)  # fmt: skip
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_what_is_no_index_is_refused():
    with pytest.raises(IndexError, match=r"broadcast together, not .*\(6,\), \(3, 2\).*test_adv"):
        make_jaxpr(lambda x: x[I, T])(X)
    with pytest.raises(IndexError, match=r"mask's dimension must have the array's size 5 \(axis 1"):
        make_jaxpr(lambda x: x[:, MASK])(X)
    with pytest.raises(OperandError, match=r"mode must be 'promise_in_bounds', .*not 'near'"):
        make_jaxpr(lambda x: x.at[I].set(0, mode="near"))(X)
    with pytest.raises(OperandError, match=r"must be integers, not float32.*test_advanced"):
        make_jaxpr(lambda x: x[np.array([1.5], np.float32)])(X)


def _entry(rng, size, shape):
    """A random entry of an index for one dimension, which may be out of range."""
    ends = rng.integers(-size - 1, size + 2, 2).tolist()
    some = shape[rng.integers(0, len(shape)) :]
    return [
        int(rng.integers(-size, size)), slice(None), slice(*ends, int(rng.choice([1, 2, -1, -2]))),
        np.int32(ends[0]), rng.integers(-size - 1, size + 2, shape).astype(np.int32),
        rng.integers(-size - 1, size + 2, some).astype(np.int32),
    ][rng.integers(0, 6)]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_random_indices_are_jaxs(seed):
    rng = np.random.default_rng(seed)
    shape, places = tuple(rng.integers(1, 6, rng.integers(1, 5))), tuple(rng.integers(1, 4, 2))
    x = (rng.standard_normal(shape) * 9).astype(rng.choice([np.float32, np.int8, np.int32]))
    index = [_entry(rng, n, places) for n in shape[: rng.integers(1, len(shape) + 1)]]
    for extra in (None, Ellipsis):
        if rng.random() < 0.3:
            index.insert(int(rng.integers(0, len(index) + 1)), extra)
    traced = [k for k, e in enumerate(index) if isinstance(e, np.ndarray | np.int32)]
    kind, mode = rng.choice(["set", "add", "max", "multiply"]), rng.choice(["drop", "clip"])

    def function(x, y, *given):
        given = dict(zip(traced, given, strict=True))
        at = tuple(given.get(k, e) for k, e in enumerate(index))
        return x[at], getattr(x.at[at], kind)(y, mode=mode)

    given = [index[k] for k in traced]
    y = (rng.standard_normal(function(jnp.asarray(x), 0, *given)[0].shape) * 5).astype(x.dtype)
    compare(function, x, y, *given)
