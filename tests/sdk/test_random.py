"""`tilewright.random` has JAX's bits: keys, integers, floats; and the chip's engines agree."""

import jax
import jax.numpy as jnp
import jax.random as jr
import ml_dtypes
import numpy as np
import pytest
import tilewright as tw
import tilewright.random as tr
from tilewright import sim
from tilewright.compiler.errors import DtypeError, MissingError, OperandError

from tests.compiler.backend_case import assert_same_bits, compiled

BF16 = np.dtype(ml_dtypes.bfloat16)
SHAPES = [(), (9, 30)]
KEY, JAX_KEY = np.array([0, 7], np.uint32), jr.PRNGKey(7)


@pytest.fixture(autouse=True)
def chip():
    with tw.default_device(tw.Device("tw8", "functional")):
        yield


def assert_equal(got, want):
    got, want = np.asarray(got), np.asarray(want)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert np.array_equal(got, want)


def assert_near(got, want, floor=1.0):
    """Within 4 ulp of JAX's, of numbers below `floor` of `floor`."""
    got, want = np.asarray(got), np.asarray(want)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    unit = 2.0**-7 if want.dtype == BF16 else 2.0**-23
    wide = want.astype(np.float64)
    error = np.abs(got.astype(np.float64) - wide)
    assert (error <= 4 * unit * np.maximum(np.abs(wide), floor)).all()


def test_jax_counts_as_here():
    assert jax.config.jax_threefry_partitionable


@pytest.mark.parametrize("seed", [0, 42, -1, 2**31 + 5, 2**40 + 5])
def test_keys_are_jaxs(seed):
    assert_equal(tr.PRNGKey(seed), jr.PRNGKey(seed))
    assert_equal(tr.key_data(tr.key(seed)), jr.key_data(jr.key(seed)))


def test_keys_split_and_fold_as_jaxs():
    for num in (2, 5, (2, 3)):
        assert_equal(tr.split(KEY, num), jr.split(JAX_KEY, num))
    for data in (0, 9, 2**32 - 1):
        assert_equal(tr.fold_in(KEY, data), jr.fold_in(JAX_KEY, data))
    _, b = tr.split(KEY)
    assert_equal(tr.bits(b, (3,)), jr.bits(jr.split(JAX_KEY)[1], (3,)))
    assert_equal(tw.jit(tr.PRNGKey)(np.int32(-3)), jr.PRNGKey(-3))


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_and_uniform_floats_are_jaxs(shape):
    for dtype in (np.uint32, np.uint8):
        assert_equal(tr.bits(KEY, shape, dtype), jr.bits(JAX_KEY, shape, dtype))
    for dtype in (np.float32, BF16):
        assert_equal(tr.uniform(KEY, shape, dtype), jr.uniform(JAX_KEY, shape, dtype))
    assert_equal(tr.bernoulli(KEY, 0.3, shape), jr.bernoulli(JAX_KEY, 0.3, shape))
    assert_equal(tr.rademacher(KEY, shape), jr.rademacher(JAX_KEY, shape))
    # XLA multiplies and adds with one rounding here
    wanted = jr.uniform(JAX_KEY, shape, minval=-3, maxval=5.5)
    assert_near(tr.uniform(KEY, shape, minval=-3, maxval=5.5), wanted)


def test_counters_beyond_one_constant():
    assert_equal(tr.bits(KEY, (5000,)), jr.bits(JAX_KEY, (5000,)))


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 10, np.int32), (-5, 1000, np.int32), (0, 256, np.uint8), (-128, 128, np.int8),
        (3, 3, np.int32), (5, 2, np.int8), (0, 1 << 30, np.uint32),
    ],
)  # fmt: skip
def test_integers_are_jaxs(low, high, dtype):
    got = tr.randint(KEY, (8, 9), low, high, dtype)
    assert_equal(got, jr.randint(JAX_KEY, (8, 9), low, high, dtype))
    low, high = np.int32([low]), np.int32([high])
    got = tr.randint(KEY, (8, 9), low, high, dtype)
    assert_equal(got, jr.randint(JAX_KEY, (8, 9), low, high, dtype))


@pytest.mark.parametrize("name", ["normal", "exponential", "gumbel", "laplace", "logistic"])
def test_distributions_are_jaxs_but_for_rounding(name):
    got = getattr(tr, name)(KEY, (12, 50))
    assert_near(got, getattr(jr, name)(JAX_KEY, (12, 50)), 0.0 if name == "normal" else 1.0)
    assert_near(tr.normal(KEY, (30,), BF16), jr.normal(JAX_KEY, (30,), jnp.bfloat16))


@pytest.mark.parametrize("config", ["tw4", "tw8"])
def test_random_has_the_chips_bits(config):
    assert_same_bits(lambda k: tr.split(k, 3), KEY, config=config)
    assert_same_bits(lambda k: tr.normal(k, (5, 9)), KEY, config=config)
    assert_same_bits(lambda k: tr.randint(k, (11,), 0, 6), KEY, config=config)


def test_bits_are_those_of_the_rtl():
    back = compiled(lambda k: tr.uniform(k, (5, 3)), KEY, config="tw4")
    found = {}
    for engine in ("functional", "cycle", "rtl"):
        memory = sim.load_memory(back.program)
        memory.write(back.program.inputs[0].addr, KEY.tobytes())
        result = sim.run(back.program, memory, engine=engine)
        assert result.fault is None, result.fault
        found[engine] = bytes(memory.read(back.program.outputs[0].addr, 60)), result.cycles
    assert found["functional"][0] == found["cycle"][0] == found["rtl"][0]
    assert found["cycle"][1] == found["rtl"][1]
    want = np.asarray(jr.uniform(JAX_KEY, (5, 3)))
    assert found["rtl"][0] == want.tobytes()


def test_a_sample_of_known_size_is_one_kernel():
    text = tw.jit(lambda k: tr.uniform(k, (64, 64))).lower(KEY).as_text("kernels")
    assert text.count("= vector(") <= 2


def test_errors_name_function_and_line():
    for function, kind, message in (
        (lambda: tr.uniform(np.uint32([1]), (2,)), OperandError, "key must be two uint32 words"),
        (lambda: tr.uniform(KEY, (2,), np.int32), DtypeError, "uniform: dtype must be one of"),
        (lambda: tr.uniform(KEY, (2,), minval=np.zeros(3)), OperandError, "do not broadcast"),
        (lambda: tr.bernoulli(KEY, 1), DtypeError, "p must be a float"),
        (lambda: tr.PRNGKey(1.5), OperandError, "seed must be an int, not 1.5"),
        (lambda: tr.permutation, MissingError, "tilewright.random has no 'permutation'"),
    ):
        with pytest.raises(kind, match=message) as error:
            function()
        assert "test_random.py" in str(error.value)
