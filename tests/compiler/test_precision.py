"""Contractions in several passes: the bits of eval_jaxpr, and errors as small as promised."""

import numpy as np
import pytest
from tilewright import lax
from tilewright.compiler.primitives_dot import PASSES

from tests.compiler.backend_case import BF16, F32, I8, SMALL, array, assert_same_bits, execute

ERRORS = {"default": 2**-7, "high": 2**-15, "highest": 1e-6}  # of |A| |B|


@pytest.mark.parametrize("precision", PASSES)
@pytest.mark.parametrize("config", ["tw4", SMALL, "tw16"])
def test_products_in_passes(precision, config):
    rng = np.random.default_rng(1)
    for m, k, n in ((9, 21, 7), (1, 300, 5), (33, 4, 40)):
        x, w = array(rng, (m, k), F32), array(rng, (k, n), F32)
        back = assert_same_bits(
            lambda x, w: lax.dot(x, w, precision=precision), x, w, config=config
        )
        (got,) = execute(back, x, w)
        a, b = x.astype(np.float64), w.astype(np.float64)
        assert np.max(np.abs(got - a @ b) / (np.abs(a) @ np.abs(b))) < ERRORS[precision]


def test_special_values_and_two_layers():
    """An intermediate that is split later stays float32 in DRAM."""
    rng = np.random.default_rng(2)
    x, v, w = (array(rng, s, F32, special=True) for s in ((9, 13), (13, 7), (7, 5)))
    assert_same_bits(
        lambda x, v, w: lax.dot(lax.dot(x, v, precision="high"), w, precision="highest"), x, v, w
    )
    assert_same_bits(lambda x, w: lax.dot(x.T, w, precision="highest"), x, v[:9])


@pytest.mark.parametrize("dtype", [BF16, I8])
def test_only_float32_has_parts(dtype):
    rng = np.random.default_rng(3)
    x, w = array(rng, (5, 9), dtype), array(rng, (9, 6), dtype)
    back = assert_same_bits(lambda x, w: lax.dot(x, w, precision="highest"), x, w)
    assert back.kernels.kernels[0].source.passes == ((0, 0),)
