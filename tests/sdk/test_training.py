"""Networks trained on the chip: forward, backward and Adam are one jitted program per step."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
from click.testing import CliRunner
from tilewright import optim, training, training_models
from tilewright.cli import main
from tilewright.demo_train import TRAIN, load_digits


def digits():
    """Images (1797, 64) float32 in 0 to 1, labels (1797,) int32."""
    images, labels = load_digits()
    return (images / 16).astype(np.float32), labels.astype(np.int32)


def start(sizes, seed=0):
    return training_models.dense_params(np.random.default_rng(seed), sizes)


def train_step(optimiser):
    return tw.jit(training.training_step(training_models.dense, optimiser))


def jax_step(params, mean, square, n, x, labels, rate):
    """The same step in JAX, products of bfloat16 operands in float32."""

    def value(params):
        y = x
        for i, (w, b) in enumerate(params):
            y = jnp.dot(y.astype("bfloat16"), w.astype("bfloat16"),
                        preferred_element_type=jnp.float32) + b  # fmt: skip
            y = jnp.maximum(y, 0) if i < len(params) - 1 else y
        return -jnp.mean(jnp.sum(jax.nn.one_hot(labels, y.shape[1]) * jax.nn.log_softmax(y), -1))

    found, grads = jax.value_and_grad(value)(params)
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, grads)
    square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, square, grads)
    params = jax.tree.map(
        lambda p, m, v: p - rate * (m / (1 - 0.9**n)) / (jnp.sqrt(v / (1 - 0.999**n)) + 1e-8),
        params, mean, square,
    )  # fmt: skip
    return params, mean, square, found


def test_the_loss_after_20_steps_is_jaxs():
    x, labels = digits()
    sizes, rate = (64, 32, 10), 1e-2
    theirs = start(sizes)
    mean = square = jax.tree.map(np.zeros_like, theirs)
    optimiser = optim.adam(rate)
    step, other = train_step(optimiser), jax.jit(jax_step)
    rng = np.random.default_rng(1)
    with tw.default_device(tw.Device("tw16", "functional")):
        params = tw.device_put(start(sizes))
        state = optimiser.init(params)
        for n in range(1, 21):
            k = rng.permutation(TRAIN)[:32]
            params, state, found = step(params, state, x[k], labels[k])
            theirs, mean, square, wanted = other(
                theirs, mean, square, np.float32(n), x[k], labels[k], np.float32(rate))
        assert float(found) == pytest.approx(float(wanted), rel=0.01)
        assert step.cache_size() == 1


def test_a_step_has_the_same_bits_on_the_engines():
    """Also on the RTL, on a small chip."""
    x, labels = digits()
    sizes, k = (64, 6, 10), np.arange(4)
    optimiser = optim.adam(1e-2)
    results = []
    for engine in ("functional", "cycle", "rtl"):
        with tw.default_device(tw.Device("tw4", engine)):
            params = tw.device_put(start(sizes))
            found = train_step(optimiser)(params, optimiser.init(params), x[k], labels[k])
            results.append(list(map(np.asarray, tw.tree.leaves(found))))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.full
def test_digits_from_random_weights_to_97_percent():
    """All on the cycle engine; about a third of a second per step."""
    found = training.train(training.digits(), tw.Device("tw16", "cycle"))
    assert found.accuracy >= 0.97 and len(found.losses) == 110


def test_the_command_trains_and_draws_the_loss(tmp_path):
    picture = tmp_path / "loss.png"
    arguments = ["train", "--engine", "cycle", "--steps", "4", "--out", str(picture)]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert len(found["losses"]) == 4 and found["losses"][0] > found["losses"][-1] > 0
    assert 0 < found["accuracy"] < 1 and found["cycles_per_step"] > 64 * 64 * 128 * 3 / 16**2
    assert picture.read_bytes().startswith(b"\x89PNG")
