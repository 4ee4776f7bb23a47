"""Sorting by ranks: JAX's order, numbers and derivatives; the same bits on every engine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax
from tilewright.compiler import sorting
from tilewright.compiler.core import eval_jaxpr
from tilewright.compiler.errors import OperandError, UnsupportedError

RNG = np.random.default_rng(12)
ODD = np.float32([3, np.nan, -0.0, 0.0, np.inf, -np.inf, -2, 3, 0.0, -0.0, 1e30, -2])
ARRAYS = {
    "float32": RNG.standard_normal((3, 21)).astype(np.float32),
    "odd": np.stack([ODD, ODD[::-1]]),
    "bfloat16": jnp.asarray(RNG.standard_normal((2, 17)), jnp.bfloat16),
    "int8": RNG.integers(-128, 128, (3, 30), dtype=np.int8),
    "uint8": RNG.integers(0, 256, (2, 19), dtype=np.uint8),
    "int32": np.int32([[7, -(1 << 31), (1 << 31) - 1, 7, 0, (1 << 31) - 1]]),
    "uint32": np.uint32([[7, 1 << 31, (1 << 32) - 1, 7, 0]]),
    "bool": RNG.random((2, 9)) < 0.5,
}


@pytest.fixture(autouse=True)
def device():
    with tw.default_device(tw.Device("tw4", "functional")) as chosen:
        yield chosen


@pytest.fixture(params=["ranks", "network"])
def way(request, monkeypatch):
    """The network takes what is longer than RANKED."""
    if request.param == "network":
        monkeypatch.setattr(sorting, "RANKED", 1)


CASES = [*((name, "ranks") for name in ARRAYS), ("odd", "network"), ("int32", "network")]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("name, way", CASES, indirect=["way"])
def test_order_is_jaxs(name, way, descending):
    x = np.asarray(ARRAYS[name])
    found = tw.jit(lambda x: (tnp.sort(x, descending=descending), tnp.sort(x, 0),
                              tnp.argsort(x, descending=descending)))(x)  # fmt: skip
    wanted = (jnp.sort(x, descending=descending), jnp.sort(x, 0),
              jnp.argsort(x, descending=descending))  # fmt: skip
    for a, b in zip(found, wanted, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.usefixtures("way")
def test_the_largest_are_jaxs():
    x = ARRAYS["float32"]
    for a, b in zip(lax.top_k(tw.device_put(x), 5), jax.lax.top_k(x, 5), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(tw.jit(lambda x: tnp.sort(x, None))(x), np.sort(x, None))
    np.testing.assert_array_equal(lax.sort(tw.device_put(x), 0), np.sort(x, 0))


@pytest.mark.usefixtures("way")
def test_arrays_sort_together():
    a, b = np.int8(RNG.integers(0, 3, (4, 7))), ODD[:9][RNG.integers(0, 9, (4, 7))]
    c = RNG.standard_normal((4, 7)).astype(np.float32)
    for keys, axis in ((1, -1), (2, -1), (2, 0), (3, 1)):
        found = tw.jit(lambda *x, k=keys, d=axis: lax.sort(x, d, num_keys=k))(a, b, c)
        wanted = jax.lax.sort((a, b, c), axis, num_keys=keys)
        assert isinstance(found, tuple)
        for x, y in zip(found, wanted, strict=True):
            assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), (keys, axis)
    found = tw.jit(tw.grad(lambda a, c: (lax.sort((a, c))[1] * c).sum(), 1))(b, c)
    wanted = jax.grad(lambda a, c: (jax.lax.sort((a, c))[1] * c).sum(), 1)(b, c)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    with pytest.raises(OperandError, match=r"num_keys be in 1 to their number.*num_keys=3"):
        lax.sort((a, b), num_keys=3)


@pytest.mark.usefixtures("way")
def test_derivatives_follow_the_elements():
    x = ARRAYS["float32"]
    w = RNG.standard_normal(x.shape).astype(np.float32)
    found = tw.jit(tw.grad(lambda x: (tnp.sort(x) * w).sum()))(x)
    np.testing.assert_allclose(found, jax.grad(lambda x: (jnp.sort(x) * w).sum())(x), rtol=1e-6)
    found = tw.jit(tw.grad(lambda x: lax.top_k(x, 3)[0].sum()))(x[0])
    np.testing.assert_allclose(found, jax.grad(lambda x: jax.lax.top_k(x, 3)[0].sum())(x[0]))
    np.testing.assert_array_equal(tw.vmap(lambda x: tnp.sort(x))(x), np.sort(x))


@pytest.mark.usefixtures("way")
def test_engines_sort_alike():
    x = ARRAYS["float32"][:2, :7]
    found = []
    for engine in ("functional", "cycle", "rtl"):
        with tw.default_device(tw.Device("tw4", engine)), tw.profile() as p:
            compiled = tw.jit(lambda x: (tnp.sort(x), tnp.argsort(x))).lower(x).compile()
            found.append(([np.asarray(a).tobytes() for a in compiled(x)], p.runs[0].counters))
    want = [np.asarray(a).tobytes() for a in eval_jaxpr(compiled.jaxpr, [x], dim=4)]
    assert found[0][0] == found[1][0] == found[2][0] == want
    assert found[1][1] == found[2][1]


def test_what_cannot_be_sorted_is_refused():
    with pytest.raises(UnsupportedError, match=r"at most 65,536 elements.*test_sorting\.py"):
        tw.make_jaxpr(tnp.sort)(tw.ShapeDtypeStruct(((1 << 16) + 1,), np.float32))
    with pytest.raises(OperandError, match=r"k must be in 1 to 4, not 9"):
        lax.top_k(np.zeros(4, np.float32), 9)
    with pytest.raises(OperandError, match="rank 0 has no axis"):
        tnp.sort(np.float32(1))


@pytest.mark.full
def test_many_elements_take_the_network():
    x = RNG.integers(0, 2000, 5000).astype(np.float32)
    with tw.default_device(tw.Device("tw16", "cycle")), tw.profile() as p:
        found = tw.jit(tnp.argsort)(x)
        np.testing.assert_array_equal(found, np.argsort(x, stable=True))
    assert p.runs[0].cycles < 16_000_000
