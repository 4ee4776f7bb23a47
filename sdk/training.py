"""Train the demo's network on the chip: forward, backward and Adam are one program for each step.

The first 1,437 digits train it, in shuffled batches; the last 360 are only looked at in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from typing import Any

import numpy as np
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import optim
from tilewright.demo_train import SIZES, TRAIN, load_digits

BATCH, RATE = 64, 1e-2


@dataclass(frozen=True)
class Training:
    """What a training gave.

    Parameters
    ----------
    losses : mean cross-entropy of each step's batch, before the step.
    accuracy : share of the unseen images that are classified right.
    cycles : of one step; None on an engine without a clock.
    """

    losses: tuple[float, ...]
    accuracy: float
    cycles: int | None


def network(params: Any, x: Any) -> Any:
    """Logits (B, 10) float32 of images (B, 64)."""
    for w, b in params[:-1]:
        x = tnp.maximum(x @ w + b, 0)
    w, b = params[-1]
    return x @ w + b


def loss(params: Any, x: Any, labels: Any) -> Any:
    """Mean cross-entropy."""
    each = optim.softmax_cross_entropy_with_integer_labels(network(params, x), labels)
    return tnp.mean(each)


def _batches(rng: np.random.Generator, steps: int) -> Iterator[np.ndarray]:
    """Numbers of the images of each step: epoch after epoch, shuffled."""
    per_epoch = TRAIN // BATCH
    for step in range(steps):
        if step % per_epoch == 0:
            order = rng.permutation(TRAIN)
        yield order[step % per_epoch * BATCH :][:BATCH]


def train_digits(
    device: tw.Device,
    steps: int = 110,
    seed: int = 0,
    progress: Callable[[float], None] = lambda loss: None,
) -> Training:
    """Train from random weights with Adam and a cosine schedule.

    Parameters
    ----------
    progress : called with the loss of each step.
    """
    images, labels = load_digits()
    x, labels = (images / 16).astype(np.float32), labels.astype(np.int32)
    rng = np.random.default_rng(seed)
    optimiser = optim.adam(optim.cosine_decay_schedule(RATE, steps))

    def step(params: Any, state: Any, x: Any, labels: Any) -> Any:
        value, grads = tw.value_and_grad(loss)(params, x, labels)
        updates, state = optimiser.update(grads, state, params)
        return optim.apply_updates(params, updates), state, value

    jitted, losses = tw.jit(step, donate_argnums=(0, 1)), []
    with tw.default_device(device), tw.profile() as p:
        params = tw.device_put([
            ((rng.normal(size=(m, n)) * np.sqrt(2 / m)).astype(np.float32), np.zeros(n, np.float32))
            for m, n in pairwise(SIZES)
        ])  # fmt: skip
        state = optimiser.init(params)
        for k in _batches(rng, steps):
            params, state, value = jitted(params, state, x[k], labels[k])
            losses.append(float(value))
            progress(losses[-1])
        right = np.asarray(tw.jit(network)(params, x[TRAIN:])).argmax(1) == labels[TRAIN:]
    cycles = [r.cycles for r in p.runs if r.name == "step"]
    return Training(tuple(losses), float(right.mean()), cycles[0] if cycles else None)


def draw(training: Training, path: str | PathLike[str]) -> None:
    """Write the loss curve as a picture; the file's ending names its format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.semilogy(range(1, len(training.losses) + 1), training.losses, color="#3b6fb6")
    axes.set_xlabel("step")
    axes.set_ylabel("cross-entropy of the batch (nats)")
    axes.set_title(f"Digits, trained on the chip: {100 * training.accuracy:.1f} % of unseen images")
    axes.grid(which="both", alpha=0.3)
    figure.savefig(path)
