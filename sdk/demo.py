"""The demo: a network that reads handwritten digits, as bf16 and as int8, on the simulated chip.

The two networks are what a user would write. The rest runs them on the 360 images that the training
has never seen, counts right answers, and compares engines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import tilewright as tw
import tilewright.numpy as tnp
from tilewright.demo_train import DATA, TRAIN, forward, load_digits

__tilewright_user_code__ = True  # source lines in listings point here
LAYERS = 3


@tw.jit
def bf16_network(layers, x):
    """bf16 activations and weights, sums and biases in float32."""
    for w, b in layers[:-1]:
        y = tnp.matmul(x, w, preferred_element_type=tnp.float32) + b
        x = tnp.maximum(y, 0).astype(tnp.bfloat16)
    w, b = layers[-1]
    return tnp.matmul(x, w, preferred_element_type=tnp.float32) + b


@tw.jit
def int8_network(layers, x):
    """int8 activations and weights; each output channel has its own scale; float32 logits."""
    for w, b, scale in layers[:-1]:
        y = tnp.matmul(x, w, preferred_element_type=tnp.int32) + b
        y = tnp.round(y.astype(tnp.float32) * scale)
        x = tnp.clip(y, 0, 127).astype(tnp.int8)  # from 0: the ReLU
    w, b, scale = layers[-1]
    y = tnp.matmul(x, w, preferred_element_type=tnp.int32) + b
    return y.astype(tnp.float32) * scale


@dataclass(frozen=True)
class Network:
    """One network with its arguments in host memory."""

    name: str
    function: Callable[..., Any]
    layers: list[tuple[np.ndarray, ...]]
    images: np.ndarray


@dataclass(frozen=True)
class Demo:
    """Results on one engine: logits (360, 10) float32 by network, and the profile of the runs."""

    device: tw.Device
    logits: dict[str, np.ndarray]
    profile: tw.Profile


def networks() -> tuple[list[Network], np.ndarray, np.ndarray]:
    """Return the two networks, the labels (360,), and NumPy's float32 logits (360, 10)."""
    images, labels = load_digits()
    images, labels = images[TRAIN:], labels[TRAIN:]
    with np.load(DATA / "digits_mlp.npz") as file:
        arrays = dict(file)
    floats = [(arrays[f"w{i}_f32"], arrays[f"b{i}_f32"]) for i in range(LAYERS)]
    x = (images / 16).astype(np.float32)
    reference = forward([p for layer in floats for p in layer], x)[-1]
    bf16 = ml_dtypes.bfloat16
    halves: list[tuple[np.ndarray, ...]] = [(w.astype(bf16), b) for w, b in floats]
    bytes_ = [tuple(arrays[f"{c}{i}"] for c in "wbs") for i in range(LAYERS)]
    found = [
        Network("bf16", bf16_network, halves, x.astype(bf16)),
        Network("int8", int8_network, bytes_, images),
    ]
    return found, labels, reference


def run_networks(nets: list[Network], config: Any = None, engine: str | None = None) -> Demo:
    """Run all networks on a fresh chip, their arguments already in its DRAM."""
    device = tw.Device(config=config, engine=engine)
    arguments = [tw.device_put((n.layers, n.images), device) for n in nets]
    with tw.profile() as profile:
        results = [n.function(*a) for n, a in zip(nets, arguments, strict=True)]
    logits = {n.name: np.asarray(y) for n, y in zip(nets, results, strict=True)}
    return Demo(device, logits, profile)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of right answers."""
    return float((logits.argmax(1) == labels).mean())


def demo_differences(a: Demo, b: Demo) -> list[str]:
    """What two engines with clocks disagree about: outputs, counters, every start and end."""
    found = []
    for name in a.logits:
        if a.logits[name].tobytes() != b.logits[name].tobytes():
            found.append(f"{name}: the outputs differ")
    for x, y in zip(a.profile.runs, b.profile.runs, strict=True):
        if x.cycles != y.cycles:
            found.append(f"{x.name}: {x.engine} {x.cycles} cycles, {y.engine} {y.cycles}")
        for key in sorted(x.counters.keys() | y.counters.keys()):
            values = x.counters.get(key), y.counters.get(key)
            if values[0] != values[1]:
                found.append(f"{x.name}: {key}: {x.engine} {values[0]}, {y.engine} {values[1]}")
        for key in ("pc", "unit", "start", "end"):
            if not np.array_equal(x.trace[key], y.trace[key]):
                found.append(f"{x.name}: the instructions' {key} differ")
    return found


def write_files(demo: Demo, folder: Path) -> dict[str, Path]:
    """Write listing, and with a clock report and picture; return what is where."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"listing": folder / "digits.lst"}
    files["listing"].write_text(demo.profile.listing(), encoding="utf-8")
    if demo.device.engine != "functional":
        files |= {"report": folder / "digits.html", "picture": folder / "digits.png"}
        demo.profile.save(files["report"])
        demo.profile.timeline(files["picture"])
    return files
