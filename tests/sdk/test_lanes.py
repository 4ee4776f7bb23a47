"""Element-wise functions against NumPy, eager and in jit, with their stated errors in ulp."""

import math

import numpy as np
import pytest
import tilewright as tw
import tilewright.lax as lax
import tilewright.numpy as tnp

RNG = np.random.default_rng(11)
X = np.concatenate([RNG.normal(0, 3, 500), RNG.uniform(-80, 80, 500)]).astype(np.float32)
Y = RNG.permutation(X)
POSITIVE = np.abs(X) + np.float32(1e-3)
#: name -> (function, reference of float64, arguments, largest error in ulp)
FUNCTIONS = {
    "exp": (tnp.exp, np.exp, X, 2),
    "exp2": (tnp.exp2, np.exp2, X, 2),
    "log": (tnp.log, np.log, POSITIVE, 3),
    "tanh": (tnp.tanh, np.tanh, X, 3),
    "sin": (tnp.sin, np.sin, X, 3),
    "cos": (tnp.cos, np.cos, X, 3),
    "logistic": (lax.logistic, lambda x: 1 / (1 + np.exp(-x)), X, 4),
    "erf": (lax.erf, np.vectorize(math.erf), X, 2),
    "log1p": (tnp.log1p, np.log1p, np.concatenate([POSITIVE, -np.exp(-POSITIVE)]), 4),
    "expm1": (tnp.expm1, np.expm1, np.concatenate([X, X * np.float32(1e-4)]), 4),
    "rsqrt": (lax.rsqrt, lambda x: 1 / np.sqrt(x), POSITIVE, 1),
    "sqrt": (tnp.sqrt, np.sqrt, POSITIVE, 0.5),
    "reciprocal": (tnp.reciprocal, np.reciprocal, X, 0.5),
}


@pytest.fixture(autouse=True)
def chip():
    with tw.default_device(tw.Device("tw4", "functional")):
        yield


def ulps(got, want):
    """Largest error in units of float32's last place, where the result is a normal number."""
    normal = (np.abs(want) >= 2.0**-126) & (np.abs(want) < 2.0**127)
    error = np.abs(got[normal].astype(np.float64) - want[normal])
    return float((error / np.ldexp(1.0, np.frexp(want[normal])[1] - 24)).max())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lanes_function_is_as_accurate_as_it_says(name):
    function, reference, x, most = FUNCTIONS[name]
    got = np.asarray(tw.jit(function)(x))
    assert got.dtype == np.float32
    assert ulps(got, reference(x.astype(np.float64))) <= most
    assert np.array_equal(np.asarray(function(tw.device_put(x))), got)


def test_lanes_exact_functions_are_numpys():
    x, y = tw.device_put(X), tw.device_put(Y)
    for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
        assert np.array_equal(np.asarray(getattr(tnp, name)(x, y)), getattr(np, name)(X, Y)), name
    for name in ("less", "less_equal", "equal", "not_equal", "greater", "greater_equal"):
        assert np.array_equal(np.asarray(getattr(tnp, name)(x, y)), getattr(np, name)(X, Y)), name
    for name in ("abs", "sign", "floor", "ceil", "negative", "rint", "square"):
        assert np.array_equal(np.asarray(getattr(tnp, name)(x)), getattr(np, name)(X)), name
    assert np.array_equal(np.asarray(tnp.where(x > y, x, 0)), np.where(X > Y, X, 0))
    assert np.array_equal(np.asarray(x**2), X**2)


def test_lanes_integer_and_bool_functions_are_numpys():
    a = RNG.integers(-(2**31), 2**31, 300).astype(np.int32)
    b = RNG.integers(0, 31, 300).astype(np.int32)
    x, y = tw.device_put(a), tw.device_put(b)
    pairs = [(x & y, a & b), (x | y, a | b), (x ^ y, a ^ b), (x << y, a << b), (x >> y, a >> b)]
    pairs += [(~x, ~a), (abs(x), np.abs(a)), (x * y, a * b), ((x > y) & (y > 3), (a > b) & (b > 3))]
    pairs += [
        (tnp.logical_not(y), np.logical_not(b)),
        (tnp.logical_or(x, y), a.astype(bool) | (b != 0)),
    ]
    for got, want in pairs:
        assert np.asarray(got).dtype == want.dtype
        assert np.array_equal(np.asarray(got), want)


def test_lanes_promote_and_broadcast_as_numpy():
    a = RNG.integers(-9, 9, (5, 1)).astype(np.int8)
    b = RNG.normal(size=(7,)).astype(np.float32)
    got = tw.jit(lambda a, b: tnp.where(a > 0, a, b) * 2 + 1)(a, b)
    want = np.where(a > 0, a, b) * np.float32(2) + 1
    assert got.dtype == np.float32
    assert np.array_equal(np.asarray(got), want)
    half = tw.jit(lambda b: tnp.exp(b.astype(tnp.bfloat16)) * 2)(b)
    assert half.dtype == tnp.bfloat16


def test_lanes_expression_is_one_kernel_that_prints():
    f = tw.jit(lambda a, x, b: tnp.maximum(a * x + b, 0))
    a = RNG.normal(size=(30, 20)).astype(np.float32)
    text = f.lower(a, a + 1, a * 2).as_text("kernels")
    assert text.count("= vector(max(") == 1
    assert np.array_equal(np.asarray(f(a, a + 1, a * 2)), np.maximum(a * (a + 1) + a * 2, 0))


def test_lanes_refuse_by_name():
    a = np.ones((3,), np.int32)
    with pytest.raises(tw.UnsupportedError, match="x and y"):
        tnp.where(tw.device_put(a))
    with pytest.raises(TypeError, match="exp takes"):
        tnp.exp("x")
