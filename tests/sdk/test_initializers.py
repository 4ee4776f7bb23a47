"""`nn.initializers` give JAX's numbers, but for rounding."""

import jax
import jax.nn.initializers as jaxs
import numpy as np
import pytest
import tilewright as tw
import tilewright.nn as nn
import tilewright.random as tr
from tilewright.compiler.errors import OperandError

KEY, SHAPE = np.uint32([0, 3]), (3, 8, 16)
SCALED = ("glorot_uniform", "glorot_normal", "lecun_uniform", "lecun_normal", "he_uniform",
          "he_normal")  # fmt: skip


@pytest.fixture(autouse=True)
def chip():
    with tw.default_device(tw.Device("tw8", "functional")):
        yield


def assert_near(got, want):
    got, want = np.asarray(got), np.asarray(want)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", SCALED)
def test_scaled_initializers_are_jaxs(name):
    key = jax.random.PRNGKey(3)
    assert_near(getattr(nn.initializers, name)()(KEY, SHAPE), getattr(jaxs, name)()(key, SHAPE))


def test_others_are_jaxs():
    key = jax.random.PRNGKey(3)
    ours = nn.initializers
    for name in ("zeros", "ones"):
        assert_near(getattr(ours, name)(KEY, SHAPE), getattr(jaxs, name)(key, SHAPE))
    for name, options in (("normal", (0.5,)), ("uniform", (2.0,)), ("constant", (1.5,)),
                          ("truncated_normal", (0.1,))):  # fmt: skip
        got = getattr(ours, name)(*options)(KEY, SHAPE)
        assert_near(got, getattr(jaxs, name)(*options)(key, SHAPE))
    assert_near(tr.truncated_normal(KEY, -1.0, 3.0, (50,)),
                jax.random.truncated_normal(key, -1.0, 3.0, (50,)))  # fmt: skip


def test_errors_say_what_must_be():
    with pytest.raises(OperandError, match="mode must be 'fan_in', 'fan_out' or 'fan_avg'"):
        nn.initializers.variance_scaling(1.0, "fan", "normal")
    with pytest.raises(OperandError, match="shape must have two dimensions"):
        nn.initializers.he_normal()(KEY, (3,))
