"""Train the demo's 64-128-64-10 network with NumPy: ``python -m tilewright.demo_train``.

The first 1,437 images train it (Adam, cross-entropy); the last 360 are never looked at. The script
is deterministic, quantises the network, and writes `data/digits_mlp.npz`.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"
SIZES = (64, 128, 64, 10)
TRAIN = 1437
EPOCHS, BATCH, RATE = 40, 64, 2e-3


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 64) uint8 in 0 to 16, labels (1797,) uint8."""
    with np.load(DATA / "digits.npz") as file:
        return file["images"].reshape(-1, 64), file["labels"]


def forward(params: list[np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """The input and each layer's output; `params` alternates weights and biases."""
    values = [x]
    for i in range(0, len(params), 2):
        y = values[-1] @ params[i] + params[i + 1]
        values.append(y if i == len(params) - 2 else np.maximum(y, 0))
    return values


def gradients(params: list[np.ndarray], x: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Gradients of the mean cross-entropy."""
    values = forward(params, x)
    p = np.exp(values[-1] - values[-1].max(1, keepdims=True))
    delta = p / p.sum(1, keepdims=True)
    delta[np.arange(len(x)), labels] -= 1
    delta /= len(x)
    grads: list[np.ndarray] = []
    for i in reversed(range(0, len(params), 2)):
        grads[:0] = [values[i // 2].T @ delta, delta.sum(0)]
        delta = (delta @ params[i].T) * (values[i // 2] > 0)
    return grads


def train(seed: int = 1) -> list[np.ndarray]:
    """The six float32 parameters of the network for inputs in 0 to 1."""
    rng = np.random.default_rng(seed)
    images, labels = load_digits()
    images, labels = images[:TRAIN], labels[:TRAIN]
    params: list[np.ndarray] = []
    for m, n in pairwise(SIZES):
        params += [rng.standard_normal((m, n)) * np.sqrt(2 / m), np.zeros(n)]
    mean = [np.zeros_like(p) for p in params]
    square = [np.zeros_like(p) for p in params]
    steps = EPOCHS * (TRAIN // BATCH)
    for step in range(steps):
        pick = rng.integers(0, TRAIN, BATCH)
        x = images[pick] / 16
        rate = RATE * (1 - step / steps)
        grads = gradients(params, x, labels[pick])
        for p, g, first, second in zip(params, grads, mean, square, strict=True):
            first += 0.1 * (g - first)
            second += 0.001 * (g * g - second)
            bias = np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
            p -= rate * bias * first / (np.sqrt(second) + 1e-8)
    return [p.astype(np.float32) for p in params]


def quantise(params: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Per-channel int8 weights, int32 biases, and the float32 scales of each layer's epilogue.

    Layer i computes ``round((x @ w + b) * s)`` clipped to int8; pixels 0 to 16 enter as uint8. Each
    layer's activation range is the largest value over the training images; the last layer's scale
    gives float32 logits.
    """
    images, _ = load_digits()
    values = forward(params, images[:TRAIN] / 16)
    step = 1 / 16
    out: dict[str, np.ndarray] = {}
    for i in range(len(params) // 2):
        w, b = params[2 * i], params[2 * i + 1]
        w_step = np.abs(w).max(0) / 127
        last = i == len(params) // 2 - 1
        y_step = 1.0 if last else values[i + 1].max() / 127
        out[f"w{i}"] = np.rint(w / w_step).astype(np.int8)
        out[f"b{i}"] = np.rint(b / (w_step * step)).astype(np.int32)
        out[f"s{i}"] = (w_step * step / y_step).astype(np.float32)
        step = y_step
    return out


def main() -> None:
    """Train, quantise, write the file, print the accuracy."""
    params = train()
    images, labels = load_digits()
    for name, part in (("first 1437", slice(TRAIN)), ("last 360", slice(TRAIN, None))):
        guess = forward(params, images[part] / 16)[-1].argmax(1)
        print(f"{name}: {100 * (guess == labels[part]).mean():.2f} % in float")
    floats = {f"{'wb'[i % 2]}{i // 2}_f32": p for i, p in enumerate(params)}
    np.savez(DATA / "digits_mlp.npz", **floats, **quantise(params))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
