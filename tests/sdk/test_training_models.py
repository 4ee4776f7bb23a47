"""A CNN and a character-level transformer train on the chip, step for step as in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax
from tilewright.demo_train import load_digits

from tests.compiler.transform_case import normal

TEXT = "the chip learns the text that it reads, and the text is this one."
LETTERS = sorted(set(TEXT))
LENGTH, WIDTH, HEADS, BATCH = 6, 8, 2, 4
MASK = np.where(np.tril(np.ones((LENGTH, LENGTH))) > 0, 0, -1e9).astype(np.float32)


def weights(seed, *shape):
    return normal(seed, shape) * np.float32(np.sqrt(1 / np.prod(shape[:-1])))


def cross_entropy(api, np_, stop, logits, labels):
    shifted = logits - stop(np_.max(logits, -1, keepdims=True))
    log_p = shifted - np_.log(np_.sum(np_.exp(shifted), -1, keepdims=True))
    chosen = np_.expand_dims(labels, -1) == np_.arange(logits.shape[-1], dtype=np_.int32)
    return -np_.mean(np_.sum(np_.where(chosen, log_p, 0.0), -1))


def cnn(api, np_, L, p, images):
    x = L.conv_general_dilated(images, p["kernel"], (1, 1), "SAME",
                               dimension_numbers=("NHWC", "HWIO", "NHWC"))  # fmt: skip
    x = np_.maximum(x + p["bias"], 0)
    x = L.reduce_window(x, -np.inf, L.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return np_.reshape(x, (x.shape[0], -1)) @ p["dense"]


def norm(np_, x, gain):
    centred = x - np_.mean(x, -1, keepdims=True)
    return centred / np_.sqrt(np_.mean(centred * centred, -1, keepdims=True) + 1e-5) * gain


def transformer(api, np_, L, p, tokens):
    """One layer, for one text of LENGTH characters; vmap makes it a batch."""

    def heads(x):
        return np_.transpose(np_.reshape(x, (LENGTH, HEADS, WIDTH // HEADS)), (1, 0, 2))

    chosen = np_.expand_dims(tokens, -1) == np_.arange(len(LETTERS), dtype=np_.int32)
    x = chosen.astype(np_.float32) @ p["embed"] + p["place"]
    h = norm(np_, x, p["gain"])
    q, k, v = (heads(h @ p[name]) for name in ("query", "key", "value"))
    scores = np_.einsum("htd,hsd->hts", q, k) * (WIDTH / HEADS) ** -0.5 + MASK
    e = np_.exp(scores - L.stop_gradient(np_.max(scores, -1, keepdims=True)))
    mixed = np_.einsum("hts,hsd->htd", e / np_.sum(e, -1, keepdims=True), v)
    x = x + np_.reshape(np_.transpose(mixed, (1, 0, 2)), (LENGTH, WIDTH)) @ p["out"]
    return (x + np_.tanh(x @ p["up"]) @ p["down"]) @ p["logits"]


def digits():
    images, labels = load_digits()
    params = {"kernel": weights(1, 3, 3, 1, 4), "bias": weights(2, 4), "dense": weights(3, 64, 10)}
    return params, (images[:8].reshape(8, 8, 8, 1) / 16).astype(np.float32), labels[:8].astype("i4")


def characters():
    names = {"query": (WIDTH, WIDTH), "key": (WIDTH, WIDTH), "value": (WIDTH, WIDTH),
             "out": (WIDTH, WIDTH), "up": (WIDTH, 16), "down": (16, WIDTH),
             "embed": (len(LETTERS), WIDTH), "place": (LENGTH, WIDTH),
             "logits": (WIDTH, len(LETTERS))}  # fmt: skip
    params = {name: weights(i, *shape) for i, (name, shape) in enumerate(names.items())}
    params["gain"] = np.ones(WIDTH, np.float32)
    codes = np.array([LETTERS.index(c) for c in TEXT], np.int32)
    x = np.stack([codes[i : i + LENGTH] for i in range(0, 5 * BATCH, 5)])
    y = np.stack([codes[i + 1 : i + 1 + LENGTH] for i in range(0, 5 * BATCH, 5)])
    return params, x, y


MODELS = {
    "cnn": (digits, lambda api, np_, L, p, x: cnn(api, np_, L, p, x)),
    "transformer": (characters, lambda api, np_, L, p, x: api.vmap(
        lambda t: transformer(api, np_, L, p, t))(x)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_losses_step_by_step(name):
    make, model = MODELS[name]
    params, x, y = make()

    def step(api, np_, L, params):
        def loss(p):
            return cross_entropy(api, np_, L.stop_gradient, model(api, np_, L, p, x), y)

        value, grads = api.value_and_grad(loss)(params)
        return api.tree.map(lambda p, g: p - 0.3 * g, params, grads), value

    theirs = jax.jit(lambda p: step(jax, jnp, jax.lax, p))
    ours = tw.jit(lambda p: step(tw, tnp, lax, p))
    found, wanted, a, b = [], [], params, params
    with tw.default_device(tw.Device("tw8", "functional")):
        for _ in range(6):
            a, value = ours(a)
            found.append(float(value))
            b, value = theirs(b)
            wanted.append(float(value))
    np.testing.assert_allclose(found, wanted, rtol=0.03)
    assert found[-1] < 0.8 * found[0]
