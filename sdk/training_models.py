"""The networks that `tilewright train` trains: digits (dense), digits (convolution), characters.

Each is written as for JAX: with `jax` for `tilewright` in its imports, this file computes the same
there.
"""

from itertools import pairwise

import numpy as np
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax, nn

__tilewright_user_code__ = True  # lines of reports are of this file

LENGTH, HEADS = 16, 2  # of the characters that the transformer sees; of its attention


def random(rng, *shape, gain=2.0):
    """Weights (in..., out) float32; with gain 2 they keep the mean square of a ReLU's inputs."""
    return (rng.normal(size=shape) * np.sqrt(gain / np.prod(shape[:-1]))).astype(np.float32)


def dense_params(rng, sizes):
    """Weights (m, n) and biases (n,) float32 for each m, n that follow each other in sizes."""
    return [(random(rng, m, n), np.zeros(n, np.float32)) for m, n in pairwise(sizes)]


def dense(params, x):
    """Logits (B, classes) of x (B, features): layers with ReLU between them."""
    for w, b in params[:-1]:
        x = nn.relu(x @ w + b)
    w, b = params[-1]
    return x @ w + b


def cnn_params(rng, filters=(8, 16), classes=10):
    """Of two 3x3 convolutions and a dense layer behind two poolings of 8x8 images."""
    a, b = filters
    return {
        "first": (random(rng, 3, 3, 1, a), np.zeros(a, np.float32)),
        "second": (random(rng, 3, 3, a, b), np.zeros(b, np.float32)),
        "dense": (random(rng, 4 * b, classes, gain=0.5), np.zeros(classes, np.float32)),
    }


def cnn(params, images):
    """Logits (B, classes) of images (B, 8, 8, 1): convolution, ReLU and max-pool, twice; dense."""
    x = images
    for name in ("first", "second"):
        kernel, bias = params[name]
        x = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = nn.relu(x + bias)
        x = lax.reduce_window(x, -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    w, b = params["dense"]
    return x.reshape(x.shape[0], -1) @ w + b


def transformer_params(rng, letters, length=LENGTH, width=32):
    """Of one layer between an embedding of letters and places, and the logits of letters."""
    shapes = {"query": (width, width), "key": (width, width), "value": (width, width),
              "out": (width, width), "up": (width, 4 * width), "down": (4 * width, width),
              "logits": (width, letters)}  # fmt: skip
    params = {name: random(rng, *shape, gain=1.0) for name, shape in shapes.items()}
    params |= {"embed": random(rng, letters, width, gain=letters / 4)}
    params |= {"place": random(rng, length, width, gain=length / 10)}
    return params | {"gains": [np.ones(width, np.float32) for _ in range(2)]}



def norm(x, gain):
    """Mean square 1 in each row, times a gain for each column."""
    return x * lax.rsqrt(tnp.mean(x * x, -1, keepdims=True) + 1e-6) * gain


def attention(params, x):
    """Causal self-attention of x (T, width), with HEADS heads."""
    length, width = x.shape

    def heads(name):
        return tnp.transpose((x @ params[name]).reshape(length, HEADS, -1), (1, 0, 2))

    scores = tnp.einsum("htd,hsd->hts", heads("query"), heads("key")) * (width / HEADS) ** -0.5
    earlier = np.tril(np.ones((length, length), bool))
    shares = nn.softmax(tnp.where(earlier, scores, -1e9))
    mixed = tnp.einsum("hts,hsd->htd", shares, heads("value"))
    return tnp.transpose(mixed, (1, 0, 2)).reshape(length, width) @ params["out"]


def transformer(params, texts):
    """Logits (B, T, letters) of the letter behind each place of texts (B, T) int32."""

    def one(text):
        first, second = params["gains"]
        x = nn.one_hot(text, len(params["embed"])) @ params["embed"] + params["place"]
        x = x + attention(params, norm(x, first))
        x = x + nn.relu(norm(x, second) @ params["up"]) @ params["down"]
        return x @ params["logits"]

    return tw.vmap(one)(texts)


def cross_entropy(logits, labels):
    """Mean of -log p of labels (...) int32 in logits (..., classes)."""
    right = nn.one_hot(labels, logits.shape[-1])
    return -tnp.mean(tnp.sum(right * nn.log_softmax(logits), -1))
