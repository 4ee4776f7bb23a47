"""Reduction primitives and NumPy's reductions against JAX on the CPU and NumPy's float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright.lax as lax
import tilewright.numpy as tnp
from tilewright.compiler import primitives_reduce as r
from tilewright.compiler.core import eval_jaxpr
from tilewright.compiler.errors import OperandError
from tilewright.compiler.trace import make_jaxpr

from tests.compiler.backend_case import BF16, BOOL, F32, I8, I32, U8, U32, array

RNG = np.random.default_rng(0)
SHAPES = [((5,), None), ((3, 40), 1), ((40, 3), 0), ((3, 5, 7), (0, 2)), ((3, 5, 7), 1), ((), None),
          ((4, 1, 300), (1, 2)), ((2, 6, 5, 4), (1, 2))]  # fmt: skip


def ours(function, *args, dim=4):
    """The results of a traced function by `eval_jaxpr`."""
    jaxpr = make_jaxpr(function)(*args)
    return eval_jaxpr(jaxpr, args, dim=dim)[0]


def flushed(x):
    """Subnormals are zeros, there is one NaN."""
    return r.reduce_max_p.impl(x[..., None], axes=(x.ndim,))


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("dtype", [F32, BF16, I8, U8, I32, U32, BOOL])
def test_exact_reductions_are_jax(dtype, shape, axis):
    x = flushed(array(RNG, shape, dtype, True))
    names = ["max", "min", "any", "all"] + (["sum", "prod"] if dtype.kind != "f" and dtype != BF16
                                            else [])  # fmt: skip
    for name in names:
        want = np.asarray(getattr(jnp, name)(x, axis=axis, keepdims=True))
        got = ours(lambda x, name=name: getattr(tnp, name)(x, axis=axis, keepdims=True), x)
        assert (got.shape, got.dtype) == (want.shape, want.dtype), name
        assert np.array_equal(got, want, equal_nan=dtype in (F32, BF16)), name


@pytest.mark.parametrize("dtype", [F32, BF16, I8, U8, I32, U32, BOOL])
def test_arg_reductions_are_jax(dtype):
    x = flushed(array(RNG, (6, 50), dtype, True))
    x[:, 1::2] = x[:, ::2]
    for axis in (0, 1, None):
        for name in ("argmax", "argmin"):
            want = np.asarray(getattr(jnp, name)(x, axis=axis))
            got = ours(lambda x, n=name, a=axis: getattr(tnp, n)(x, axis=a), x)
            assert np.array_equal(got, want)


@pytest.mark.parametrize("dim", [4, 16])
@pytest.mark.parametrize("shape", [(1 << 18,), (100, 37), (513, 4)])
def test_float_sums_are_accurate(shape, dim):
    for x in (RNG.standard_normal(shape), np.full(shape, 1.1), np.full(shape, 1.9999)):
        x = x.astype(np.float32)
        for axis in (None, 0):
            got = ours(lambda x, axis=axis: tnp.sum(x, axis), x, dim=dim)
            wide = x.astype(np.float64)
            assert np.all(abs(got - wide.sum(axis)) <= 1e-6 * abs(wide).sum(axis))


def test_order_of_a_sum_in_lanes():
    """Lane l adds units l, l + 4 ...; then lanes 0 + 2, 1 + 3, and the two."""
    x = RNG.standard_normal(23).astype(np.float32)
    lanes = [np.float32(0)] * 4
    for i, value in enumerate(x):
        lanes[i % 4] = np.float32(lanes[i % 4] + value)
    pair = [np.float32(lanes[0] + lanes[2]), np.float32(lanes[1] + lanes[3])]
    assert r.reduce_sum_p.impl(x, axes=(0,), dim=4) == np.float32(pair[0] + pair[1])


def test_statistics_are_numpys():
    x = (RNG.standard_normal((7, 33)) * 4 + 2).astype(np.float32)
    for name, extra in (("mean", {}), ("var", {}), ("std", {"ddof": 1})):
        for axis in (None, 0, (0, 1), -1):
            got = ours(lambda x, n=name, a=axis, e=extra: getattr(tnp, n)(x, axis=a, **e), x)
            np.testing.assert_allclose(
                got, getattr(np, name)(x.astype(np.float64), axis, **extra), 2e-6
            )
    q = RNG.integers(-9, 9, (5, 6), np.int32)
    assert ours(lambda q: q.mean(1), q).dtype == np.float32
    y = x.astype(BF16)
    assert ours(lambda y: tnp.mean(y, 1), y).dtype == BF16


@pytest.mark.parametrize("reverse", [False, True])
def test_scans_are_jax(reverse):
    x, q = RNG.standard_normal((5, 37)).astype(np.float32), RNG.integers(-9, 9, (6, 11), np.int32)
    for name in ("cumsum", "cumprod", "cummax", "cummin"):
        for axis in (0, 1):
            f, g = getattr(lax, name), getattr(jax.lax, name)
            got = ours(lambda x, f=f, a=axis: f(x, a, reverse), x)
            np.testing.assert_allclose(got, np.asarray(g(x, a := axis, reverse)), 1e-5, 1e-6)
            got = ours(lambda x, f=f, a=a: f(x, a, reverse), q)
            assert np.array_equal(got, np.asarray(g(q, axis, reverse)))
    assert ours(lambda q: tnp.cumsum(q.astype(np.int8)), q).dtype == np.int32


def test_reductions_of_nothing():
    x = np.zeros((3, 0), np.float32)
    assert np.array_equal(ours(lambda x: x.sum(1), x), np.zeros(3, np.float32))
    assert np.array_equal(ours(lambda x: x.prod(1), x), np.ones(3, np.float32))
    assert ours(lambda x: x.sum(0), x).shape == (0,)
    with pytest.raises(OperandError, match="an axis of size 0 has no maximum"):
        make_jaxpr(lambda x: x.max(1))(x)
    with pytest.raises(OperandError, match="the axis is empty"):
        make_jaxpr(lambda x: x.argmax(1))(x)


def test_axes_are_checked():
    x = np.zeros((3, 4), np.float32)
    with pytest.raises(OperandError, match="axes must be distinct"):
        make_jaxpr(lambda x: x.sum((0, -2)))(x)
    with pytest.raises(OperandError, match="axis must be in"):
        make_jaxpr(lambda x: lax.reduce_sum(x, (2,)))(x)
