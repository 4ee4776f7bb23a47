"""Reductions on the chip against JAX on the CPU: drawn shapes, axes, dtypes, special values."""

import jax.numpy as jnp
import numpy as np
import tilewright.numpy as tnp
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tilewright.compiler import primitives_reduce as r

from tests.compiler.backend_case import BF16, BOOL, F32, I8, I32, U8, U32, array, compiled, execute

FLOATS = (F32, BF16)
EXACT = ("max", "min", "any", "all", "argmax", "argmin")


@st.composite
def cases(draw):
    """An array, an axis (None, one or two), and a chip."""
    shape = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=3)))
    dtype = draw(st.sampled_from((F32, BF16, I8, U8, I32, U32, BOOL)))
    special = draw(st.booleans())
    x = array(np.random.default_rng(draw(st.integers(0, 99))), shape, dtype, special)
    axis = draw(st.one_of(st.none(), st.integers(-len(shape), len(shape) - 1)))
    return flushed(x), axis, draw(st.sampled_from(("tw4", "tw8")))


def flushed(x):
    """Subnormals are zeros, there is one NaN."""
    return r.reduce_max_p.impl(x[..., None], axes=(x.ndim,))


def on_chip(f, x, config):
    """The result of a compiled function."""
    back = compiled(f, x, config=config)
    return execute(back, x)[0]


@settings(max_examples=20, deadline=None, derandomize=True, phases=[Phase.generate])
@given(cases(), st.sampled_from(EXACT), st.booleans())
def test_exact_reductions(case, name, keepdims):
    x, axis, config = case
    f = lambda x: getattr(tnp, name)(x, axis=axis, keepdims=keepdims)  # noqa: E731
    want = np.asarray(getattr(jnp, name)(x, axis=axis, keepdims=keepdims))
    got = on_chip(f, x, config)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    assert np.array_equal(got, want, equal_nan=want.dtype in FLOATS)


@settings(max_examples=30, deadline=None, derandomize=True, phases=[Phase.generate])
@given(cases(), st.sampled_from(("sum", "mean")))
def test_sums(case, name):
    x, axis, config = case
    got = on_chip(lambda x: getattr(tnp, name)(x, axis=axis), x, config)
    want = np.asarray(getattr(jnp, name)(x, axis=axis))
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    if want.dtype not in FLOATS:
        assert np.array_equal(got, want)
        return
    with np.errstate(invalid="ignore"):
        wide = x.astype(np.float64)
        exact, sizes = getattr(np, name)(wide, axis), getattr(np, name)(abs(wide), axis)
        over = ~(sizes < 3e38)  # infinities, NaNs, and what overflows on the way
        limit = 1e-6 * sizes + (abs(exact) * 2**-8 if want.dtype == BF16 else 0)
        near = abs(got.astype(np.float64) - exact) <= limit
    assert np.all(near | over)
    assert np.all(np.isnan(got[np.isnan(exact)]))


@settings(max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate])
@given(cases())
def test_products_of_integers(case):
    x, axis, config = case
    if x.dtype in FLOATS:
        return
    got = on_chip(lambda x: tnp.prod(x, axis), x, config)
    want = np.asarray(jnp.prod(x, axis))
    assert got.dtype == want.dtype and np.array_equal(got, want)


def test_a_sum_of_a_million():
    rng = np.random.default_rng(0)
    for x in (rng.standard_normal(1 << 20), np.full(1 << 20, 1.9)):
        x = x.astype(np.float32)
        wide = x.astype(np.float64)
        got = on_chip(lambda x: x.sum(), x, "tw16")
        assert abs(got - wide.sum()) <= 1e-6 * abs(wide).sum()
