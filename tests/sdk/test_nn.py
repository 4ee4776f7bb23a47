"""Activations against float64 formulas, each as one kernel on the vector unit."""

import math

import numpy as np
import pytest
import tilewright as tw
from tilewright import nn

X = np.random.default_rng(2).normal(0, 3, (31, 17)).astype(np.float32)
ERF = np.vectorize(math.erf)
CASES = {
    "relu": (nn.relu, lambda x: np.maximum(x, 0)),
    "relu6": (nn.relu6, lambda x: np.clip(x, 0, 6)),
    "leaky_relu": (nn.leaky_relu, lambda x: np.where(x >= 0, x, 0.01 * x)),
    "elu": (nn.elu, lambda x: np.where(x > 0, x, np.expm1(x))),
    "sigmoid": (nn.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "silu": (nn.silu, lambda x: x / (1 + np.exp(-x))),
    "softplus": (nn.softplus, lambda x: np.log1p(np.exp(x))),
    "gelu": (
        nn.gelu,
        lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "gelu of erf": (
        lambda x: nn.gelu(x, approximate=False),
        lambda x: 0.5 * x * (1 + ERF(x / math.sqrt(2))),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_nn_activation_is_one_kernel_near_its_formula(name):
    function, formula = CASES[name]
    f = tw.jit(function)
    with tw.default_device(tw.Device("tw8", "functional")):
        got = np.asarray(f(X))
        kernels = f.lower(X).as_text("kernels")
    want = formula(X.astype(np.float64))
    assert got.dtype == np.float32
    assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()
    assert kernels.count("\nk") == 1, kernels


def test_nn_names_what_is_missing():
    with pytest.raises(AttributeError, match=r"no 'moe' \(at .*test_nn.py.*gelu"):
        nn.moe  # noqa: B018
