"""The networks of `tilewright train`, step for step as in JAX, and the command itself."""

import json
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import tilewright as tw
from click.testing import CliRunner
from tilewright import training, training_models
from tilewright.cli import main

IMPORTS = {
    "import tilewright as tw": "import jax as tw",
    "import tilewright.numpy as tnp": "import jax.numpy as tnp",
    "from tilewright import lax, nn": "from jax import lax, nn",
}


@pytest.fixture(scope="module")
def theirs():
    """The module of the models, its imports changed, in JAX."""
    text = Path(training_models.__file__).read_text()
    for ours, other in IMPORTS.items():
        assert text.count(ours) == 1
        text = text.replace(ours, other)
    module = types.ModuleType("jax_models")
    exec(compile(text, "jax_models", "exec"), module.__dict__)
    return module


def images(module, rng):
    params = module.cnn_params(rng, (4, 4))
    return module.cnn, params, rng.random((4, 8, 8, 1), np.float32), (4,)


def texts(module, rng):
    letters, length = 7, 6
    params = module.transformer_params(rng, letters, length, 8)
    return module.transformer, params, rng.integers(letters, size=(3, length)), (3, length)


def losses(api, module, make, steps=5):
    rng = np.random.default_rng(3)
    network, params, x, shape = make(module, rng)
    x = x.astype(np.int32) if x.dtype.kind == "i" else x
    labels = rng.integers(7, size=shape).astype(np.int32)

    @api.jit
    def step(params):
        def loss(p):
            return module.cross_entropy(network(p, x), labels)

        value, grads = api.value_and_grad(loss)(params)
        return api.tree.map(lambda p, g: p - 0.3 * g, params, grads), value

    found = []
    for _ in range(steps):
        params, value = step(params)
        found.append(float(value))
    return found


@pytest.mark.parametrize("make", (images, texts))
def test_losses_step_by_step(make, theirs):
    with tw.default_device(tw.Device("tw8", "functional")):
        found = losses(tw, training_models, make)
    np.testing.assert_allclose(found, losses(jax, theirs, make), rtol=0.03)
    assert found[-1] < 0.9 * found[0]


@pytest.mark.parametrize("name", training.TASKS)
def test_batches_and_unseen_data_do_not_meet(name):
    task = training.TASKS[name]()
    batches = list(task.batches(np.random.default_rng(0), 30))
    assert len(batches) == 30 and all(len(x) == len(y) for x, y in batches)
    seen = {row.tobytes() for x, _ in batches for row in x}
    assert not seen & {row.tobytes() for row in task.test[0]} or name == "digits"


def test_labels_of_characters_are_the_next_characters():
    task = training.chars()
    for x, y in [task.test, *task.batches(np.random.default_rng(0), 3)]:
        np.testing.assert_array_equal(x[:, 1:], y[:, :-1])


@pytest.mark.full
@pytest.mark.parametrize("name, accuracy", [("cnn", 0.85), ("chars", 0.33)])
def test_the_command_trains_and_draws_the_loss(name, accuracy, tmp_path):
    picture = tmp_path / "loss.png"
    result = CliRunner().invoke(main, ["train", name, "--json", "--out", str(picture)])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["network"] == name and found["accuracy"] >= accuracy
    assert found["losses"][-1] < 0.7 * found["losses"][0] and found["cycles_per_step"] > 0
    assert (found["sample"] is not None) == (name == "chars")
    assert picture.read_bytes().startswith(b"\x89PNG")
