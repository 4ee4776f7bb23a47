"""`tilewright.nn` against `jax.nn`, and normalisations and pooling against their formulas."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import tilewright.lax as lax
import tilewright.nn as nn
import tilewright.numpy as tnp
from tilewright.compiler.core import ShapedArray, eval_jaxpr
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.trace import trace_to_jaxpr

from tests.compiler.backend_case import assert_same_bits

RNG = np.random.default_rng(8)
BF16 = np.dtype(ml_dtypes.bfloat16)
F32 = np.dtype("f4")
X = RNG.normal(0, 3, (5, 12)).astype(np.float32)
ACTIVATIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "sigmoid", "silu", "softplus", "gelu", "hard_tanh"),
    *("hard_sigmoid", "hard_silu", "celu", "selu", "log_sigmoid", "soft_sign", "mish", "glu"),
    *("squareplus", "sparse_plus", "sparse_sigmoid", "tanh", "identity"),
    *("softmax", "log_softmax", "logsumexp", "standardize", "logmeanexp"),
)


def run(function, *args):
    """What NumPy, with the chip's bits, makes of a function; and its avals."""
    avals = [ShapedArray(np.shape(a), a.dtype) for a in args]
    jaxpr, _ = trace_to_jaxpr(lambda *args: function(*args), avals)
    return eval_jaxpr(jaxpr, args), [v.aval for v in jaxpr.outvars]


def compare(ours, jaxs, *args, rtol=3e-6, atol=1e-6):
    got, avals = run(ours, *args)
    want = jax.tree.leaves(jaxs(*map(jnp.asarray, args)))
    for g, aval, w in zip(got, avals, want, strict=True):
        assert (g.dtype, g.shape, aval.weak_type) == (w.dtype, w.shape, w.aval.weak_type)
        near = dict(rtol=0.02, atol=0.02) if w.dtype == BF16 else dict(rtol=rtol, atol=atol)
        np.testing.assert_allclose(g.astype(np.float32), np.asarray(w, np.float32), **near)


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_jaxs(name, dtype):
    compare(getattr(nn, name), getattr(jax.nn, name), X.astype(dtype))


def test_softmax_family_takes_axes_and_masks():
    where = RNG.random(X.shape) < 0.7
    where[:, 0] = True
    for name in ("softmax", "log_softmax"):
        for axis in (0, (0, 1)):
            f = lambda m: lambda x: getattr(m, name)(x, axis)  # noqa: B023, E731
            compare(f(nn), f(jax.nn), X)
        compare(
            lambda x, w: getattr(nn, name)(x, where=w),  # noqa: B023
            lambda x, w: getattr(jax.nn, name)(x, where=w),  # noqa: B023
            X, where,
        )  # fmt: skip
    for options in ({"axis": 1}, {"axis": 0, "keepdims": True}):
        compare(lambda x: nn.logsumexp(x, **options), lambda x: jax.nn.logsumexp(x, **options), X)  # noqa: B023
    b = RNG.normal(size=X.shape).astype(np.float32)
    compare(
        lambda x, b: nn.logsumexp(x, 1, b, return_sign=True),
        lambda x, b: jax.nn.logsumexp(x, 1, b, return_sign=True), X, b, rtol=1e-4,
    )  # fmt: skip
    compare(lambda x: nn.standardize(x, 0, algorithm="stable"),
            lambda x: jax.nn.standardize(x, 0, algorithm="stable"), X)  # fmt: skip


def test_one_hot_is_jaxs():
    k = RNG.integers(-1, 6, (3, 4)).astype(np.int32)
    compare(lambda k: nn.one_hot(k, 5), lambda k: jax.nn.one_hot(k, 5), k)
    compare(lambda k: nn.one_hot(k, 5, dtype=np.int32, axis=0),
            lambda k: jax.nn.one_hot(k, 5, dtype=np.int32, axis=0), k)  # fmt: skip
    assert_same_bits(lambda k: nn.one_hot(k, 5), k)


def test_normalisations_are_their_formulas():
    x = RNG.normal(1, 2, (4, 3, 8)).astype(np.float32)
    w, b = RNG.normal(size=(2, 8)).astype(np.float32)
    wide = x.astype(np.float64)
    mean, variance = wide.mean(-1, keepdims=True), wide.var(-1, keepdims=True)
    (got,), _ = run(nn.layer_norm, x, w, b)
    np.testing.assert_allclose(
        got, (wide - mean) / np.sqrt(variance + 1e-5) * w + b, rtol=1e-4, atol=2e-6
    )
    (got,), _ = run(nn.rms_norm, x, w)
    want = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6) * w
    np.testing.assert_allclose(got, want, rtol=1e-5)
    (got,), _ = run(lambda x, w, b: nn.batch_norm(x, weight=w, bias=b), x, w, b)
    mean, variance = wide.mean((0, 1)), wide.var((0, 1))
    want = (wide - mean) / np.sqrt(variance + 1e-5) * w + b
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-6)
    (got,), _ = run(lambda x, m, v: nn.batch_norm(x, m, abs(v), axis=-1), x, w, b)
    np.testing.assert_allclose(got, (wide - w) / np.sqrt(abs(b) + 1e-5), rtol=1e-5)


ATTENTION = [
    {}, {"is_causal": True}, {"scale": 0.3}, {"local_window_size": 2},
    {"local_window_size": (1, 0), "is_causal": True}, {"return_residual": True},
]  # fmt: skip


def qkv(dtype, heads=4, shared=2, batch=2, rows=5, columns=7, depth=8):
    def make(n, h):
        return (RNG.normal(size=(batch, n, h, depth))).astype(dtype)

    return make(rows, heads), make(columns, shared), make(columns, shared)


@pytest.mark.parametrize("options", ATTENTION, ids=str)
def test_attention_is_jaxs(options):
    q, k, v = (x.astype(BF16).astype(np.float32) for x in qkv(np.float32))
    f = lambda m: lambda *x: m.dot_product_attention(*x, **options)  # noqa: E731
    compare(f(nn), f(jax.nn), q, k, v, rtol=0.01, atol=0.01)


def test_attention_with_bias_mask_and_lengths_is_jaxs():
    q, k, v = qkv(BF16)
    bias = RNG.normal(size=(1, 4, 5, 7)).astype(np.float32)
    mask = RNG.random((2, 1, 5, 7)) < 0.8
    mask[..., 0] = True
    for m in (nn, jax.nn):
        assert m.dot_product_attention
    f = lambda m: lambda q, k, v, b, w: m.dot_product_attention(q, k, v, b, w)  # noqa: E731
    compare(f(nn), f(jax.nn), q, k, v, bias, mask)
    n = np.int32([3, 5])
    f = lambda m: lambda q, k, v, n: m.dot_product_attention(  # noqa: E731
        q, k, v, query_seq_lengths=n, key_value_seq_lengths=n
    )
    compare(f(nn), f(jax.nn), q, k, v, n)
    f = lambda m: lambda q, k, v: m.dot_product_attention(q[0], k[0], v[0])  # noqa: E731
    compare(f(nn), f(jax.nn), q, k, v)
    with pytest.raises(OperandError, match="must have a multiple of 2 heads, not 3"):
        run(nn.dot_product_attention, q[:, :, :3], k, v)
    with pytest.raises(OperandError, match=r"value must have shape .* and bfloat16, not"):
        run(nn.dot_product_attention, q, k, v[:, 1:])


IMAGE = RNG.integers(-9, 9, (2, 7, 6, 3)).astype(np.float32)


@pytest.mark.parametrize("padding", ["VALID", "SAME", ((1, 0), (0, 1))], ids=str)
@pytest.mark.parametrize("strides", [None, (2, 1)])
def test_pooling_is_jaxs_reduce_window(padding, strides):
    ends = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
    steps = (1, *(strides or (1, 1)), 1)

    def jaxs(init, computation):
        return lambda x: jax.lax.reduce_window(x, init, computation, (1, 3, 2, 1), steps, ends)

    compare(lambda x: nn.max_pool(x, (3, 2), strides, padding), jaxs(-np.inf, jax.lax.max), IMAGE)
    sums = jaxs(0.0, jax.lax.add)
    compare(lambda x: nn.avg_pool(x, (3, 2), strides, padding), lambda x: sums(x) / 6, IMAGE)
    compare(
        lambda x: nn.avg_pool(x, (3, 2), strides, padding, count_include_pad=False),
        lambda x: sums(x) / sums(jnp.ones_like(x)), IMAGE,
    )  # fmt: skip
    f = lambda m, c: lambda x: m.reduce_window(x, c[0], c[1], (1, 3, 2, 1), steps, ends)  # noqa: E731
    compare(f(lax, (0.0, lax.add)), f(jax.lax, (0.0, jax.lax.add)), IMAGE)
    compare(f(lax, (np.inf, lax.min)), f(jax.lax, (np.inf, jax.lax.min)), IMAGE)


def test_pooling_has_the_chips_bits():
    assert_same_bits(lambda x: nn.avg_pool(x, (2, 2), (2, 2)), IMAGE)
    assert_same_bits(lambda x: nn.max_pool(x, (2, 2), (2, 2), "SAME"), IMAGE)


def test_errors_name_function_and_line():
    for function, kind, text in (
        (lambda x: nn.glu(x[:, :3]), OperandError, "glu: axis -1 must have an even size, not 3"),
        (lambda x: nn.standardize(x, algorithm="slow"), OperandError, "must be 'fast' or 'stable'"),
        (lambda x: lax.reduce_window(x, 1.0, lax.add, (1, 2)), UnsupportedError, "must be 0"),
        (lambda x: lax.reduce_window(x, 1.0, lax.mul, (1, 2)), UnsupportedError, "not mul"),
    ):
        with pytest.raises(kind, match=text) as error:
            run(function, X)
        assert "test_nn_functions.py" in str(error.value)
    assert tnp.finfo(tnp.bfloat16).bits == 16 and tnp.iinfo(tnp.int8).max == 127
