"""Train a network on the chip: forward, backward and Adam are one program for each step.

A :class:`Task` is a network with its data. Digits: the first 1,437 train it, the last 360 are only
looked at in the end. Characters: the network reads a text of this repository and says which letter
comes next; it does not see the last tenth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import tilewright as tw
from tilewright import optim, training_models
from tilewright.demo_train import DATA, SIZES, TRAIN, load_digits


@dataclass(frozen=True)
class Task:
    """What is to be trained.

    Parameters
    ----------
    title, unseen : of the picture; what the accuracy is a share of.
    params : makes first weights, a pytree, of a random generator.
    network : logits (B, ..., classes) of parameters and x (B, ...).
    batches : makes (x, labels) for each step, of a random generator and the number of steps.
    test : (x, labels) that it does not learn.
    steps, rate : so many by default; Adam's first learning rate, which falls as a cosine.
    sample : makes a text of trained parameters and a random generator; or None.
    """

    title: str
    unseen: str
    params: Callable[[np.random.Generator], Any]
    network: Callable[[Any, Any], Any]
    batches: Callable[[np.random.Generator, int], Iterator[tuple[np.ndarray, np.ndarray]]]
    test: tuple[np.ndarray, np.ndarray]
    steps: int
    rate: float
    sample: Callable[[Any, np.random.Generator], str] | None = None


@dataclass(frozen=True)
class Training:
    """What a training gave.

    Parameters
    ----------
    losses : mean cross-entropy of each step's batch, before the step.
    accuracy : share of the unseen labels that the network finds.
    cycles : of one step; None on an engine without a clock.
    sample : a text that the network wrote; of a network of characters.
    """

    losses: tuple[float, ...]
    accuracy: float
    cycles: int | None
    sample: str | None = None


def training_step(network: Callable[[Any, Any], Any], optimiser: Any) -> Callable[..., Any]:
    """Return ``step(params, state, x, labels) -> (params, state, loss)``."""

    def loss(params: Any, x: Any, labels: Any) -> Any:
        return training_models.cross_entropy(network(params, x), labels)

    def step(params: Any, state: Any, x: Any, labels: Any) -> Any:
        value, grads = tw.value_and_grad(loss)(params, x, labels)
        updates, state = optimiser.update(grads, state, params)
        return optim.apply_updates(params, updates), state, value

    return step


def train(
    task: Task,
    device: tw.Device,
    steps: int | None = None,
    seed: int = 0,
    progress: Callable[[float], None] = lambda loss: None,
) -> Training:
    """Train from random weights with Adam and a cosine schedule.

    Parameters
    ----------
    steps : the task's own number by default.
    progress : called with the loss of each step.
    """
    rng, steps = np.random.default_rng(seed), steps or task.steps
    optimiser = optim.adam(optim.cosine_decay_schedule(task.rate, steps))
    jitted = tw.jit(training_step(task.network, optimiser), donate_argnums=(0, 1))
    losses, (unseen, labels) = [], task.test
    with tw.default_device(device), tw.profile() as p:
        params = tw.device_put(task.params(rng))
        state = optimiser.init(params)
        for batch in task.batches(rng, steps):
            params, state, value = jitted(params, state, *batch)
            losses.append(float(value))
            progress(losses[-1])
        right = np.asarray(tw.jit(task.network)(params, unseen)).argmax(-1) == labels
        sample = task.sample(params, rng) if task.sample else None
    cycles = [r.cycles for r in p.runs if r.name == "step"]
    return Training(tuple(losses), float(right.mean()), cycles[0] if cycles else None, sample)


def _images(shape: tuple[int, ...], batch: int) -> Any:
    """(batches, test) of the digits; one image has a shape. Epoch after epoch, shuffled."""
    images, numbers = load_digits()
    x, labels = (images / 16).astype(np.float32).reshape(-1, *shape), numbers.astype(np.int32)

    def batches(rng: np.random.Generator, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        per_epoch = TRAIN // batch
        for step in range(steps):
            if step % per_epoch == 0:
                order = rng.permutation(TRAIN)
            chosen = order[step % per_epoch * batch :][:batch]
            yield x[chosen], labels[chosen]

    return batches, (x[TRAIN:], labels[TRAIN:])


def digits() -> Task:
    """The demo's dense network."""
    batches, test = _images((64,), 64)
    return Task("Digits", "images", lambda rng: training_models.dense_params(rng, SIZES),
                training_models.dense, batches, test, 110, 1e-2)  # fmt: skip


def cnn() -> Task:
    """Two convolutions, poolings and a dense layer."""
    batches, test = _images((8, 8, 1), 32)
    return Task("Digits (CNN)", "images", training_models.cnn_params, training_models.cnn,
                batches, test, 90, 1e-2)  # fmt: skip


def chars(batch: int = 8) -> Task:
    """A transformer that reads `data/how_the_chip_works.txt` letter by letter."""
    text = " ".join((DATA / "how_the_chip_works.txt").read_text().split())
    letters = sorted(set(text))
    codes = np.array([letters.index(c) for c in text], np.int32)
    length = training_models.LENGTH
    seen, rest = np.split(codes, [len(codes) * 9 // 10])

    def batches(rng: np.random.Generator, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for _ in range(steps):
            starts = rng.integers(len(seen) - length, size=batch)
            pieces = np.stack([seen[i : i + length + 1] for i in starts])
            yield pieces[:, :-1], pieces[:, 1:]

    def sample(params: Any, rng: np.random.Generator, count: int = 60) -> str:
        """The text's first letters, and `count` more, drawn with softmax(2 * logits)."""
        network, written = tw.jit(training_models.transformer), list(codes[:length])
        for _ in range(count):
            logits = np.asarray(network(params, np.array([written[-length:]], np.int32)))[0, -1]
            p = np.exp(2 * (logits - logits.max()).astype(float))
            written.append(rng.choice(len(letters), p=p / p.sum()))
        return "".join(letters[i] for i in written)

    count = len(rest) // length
    cut = lambda first: rest[first:][: (count - 1) * length].reshape(-1, length)  # noqa: E731
    params = lambda rng: training_models.transformer_params(rng, len(letters))  # noqa: E731
    return Task("Characters", "letters", params, training_models.transformer, batches,
                (cut(0), cut(1)), 80, 2e-2, sample)  # fmt: skip


TASKS = {"digits": digits, "cnn": cnn, "chars": chars}


def draw(task: Task, training: Training, path: str | PathLike[str]) -> None:
    """Write the loss curve as a picture; the file's ending names its format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(range(1, len(training.losses) + 1), training.losses, color="#3b6fb6")
    axes.set_yscale("log" if max(training.losses) > 10 * min(training.losses) else "linear")
    axes.set_xlabel("step")
    axes.set_ylabel("cross-entropy of the batch (nats)")
    found = f"{100 * training.accuracy:.1f} % of unseen {task.unseen}"
    axes.set_title(f"{task.title}, trained on the chip: {found}")
    axes.grid(which="both", alpha=0.3)
    figure.savefig(path)
