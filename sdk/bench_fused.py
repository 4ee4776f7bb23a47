"""Contractions that VECTOR finishes, and a whole encoder layer, for `bench_roofline`.

The bound is the array's: MACs / dim². What VECTOR, LOAD and STORE do has to hide behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import nn
from tilewright.bench_roofline import DTYPE, Case
from tilewright.isa.config import ChipConfig

__tilewright_user_code__ = True


@tw.jit
def product(x, w, b, r):
    """The product alone, for comparison."""
    return x @ w


@tw.jit
def gelu(x, w, b, r):
    """gelu(x @ w + b)."""
    return nn.gelu(x @ w + b)


@tw.jit
def residual(x, w, b, r):
    """r + (x @ w + b)."""
    return r + (x @ w + b)


@tw.jit
def gate(x, w, b, r):
    """sigmoid(x @ w + b) * r."""
    return nn.sigmoid(x @ w + b) * r


@dataclass(frozen=True)
class Encoder:
    """Sizes of a transformer's encoder layer; the defaults are BERT-base's, batch 1."""

    sequence: int = 128
    hidden: int = 768
    heads: int = 12
    forward: int = 3072

    @property
    def macs(self) -> int:
        """Multiplications of its eight products."""
        s, h = self.sequence, self.hidden
        return 4 * s * h * h + 2 * s * h * self.forward + 2 * s * s * h

    def parameters(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Weights in bfloat16, biases and the normalisations' parameters in float32."""
        h, f = self.hidden, self.forward

        def dense(rows: int, cols: int) -> list[np.ndarray]:
            w = rng.standard_normal((rows, cols)) * rows**-0.5
            return [w.astype(tnp.bfloat16), small(cols)]

        def small(n: int) -> np.ndarray:
            return (rng.standard_normal(n) * 0.1).astype(np.float32)

        norms = [1 + small(h), small(h)], [1 + small(h), small(h)]
        attention = [a for _ in range(4) for a in dense(h, h)]
        return (*attention, *norms[0], *dense(h, f), *dense(f, h), *norms[1])

    def split(self, y):  # type: ignore[no-untyped-def]
        """(sequence, hidden) as (heads, sequence, hidden / heads)."""
        return y.reshape((self.sequence, self.heads, -1)).transpose((1, 0, 2))

    def __call__(self, x, wq, bq, wk, bk, wv, bv, wo, bo, g1, b1, wi, bi, wp, bp, g2, b2):  # type: ignore[no-untyped-def]
        """The layer of x (sequence, hidden) float32, normalised after each half as in BERT."""
        q, k, v = (self.split(x @ w + b) for w, b in ((wq, bq), (wk, bk), (wv, bv)))
        scores = (q @ k.transpose((0, 2, 1))) * (self.hidden // self.heads) ** -0.5
        mixed = (nn.softmax(scores) @ v).transpose((1, 0, 2)).reshape(x.shape)
        y = nn.layer_norm(x + (mixed @ wo + bo), g1, b1)
        return nn.layer_norm(y + (nn.gelu(y @ wi + bi) @ wp + bp), g2, b2)


#: name, function, (M, K, N) of the product.
_FUSED: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("x @ w", product), ("gelu(x @ w + b)", gelu), ("r + (x @ w + b)", residual),
    ("sigmoid(x @ w + b) * r", gate),
)  # fmt: skip
SHAPES = ((128, 768, 3072), (512, 768, 768))
REACH = 0.95  # of the array, products with what VECTOR does
LAYER = 1 / 1.08  # of the array, the encoder layer


def cases(config: ChipConfig) -> Iterator[Case]:
    """Each function of bfloat16 and float32, and the encoder layer."""
    for kind in ("bf16", "float32"):
        for m, k, n in SHAPES:
            shapes = ((m, k), (k, n), (n,), (m, n))
            arguments = tuple(np.zeros(s, DTYPE[kind]) for s in shapes)
            for name, function in _FUSED:
                text = f"{kind} {name}, {m}x{k}x{n}"
                yield Case(text, function, arguments, m * n * k // config.dim**2, 0, REACH)
    layer = Encoder()
    x = np.zeros((layer.sequence, layer.hidden), np.float32)
    arguments = (x, *layer.parameters(np.random.default_rng(0)))
    bound = layer.macs // config.dim**2
    yield Case("BERT-base encoder layer, bf16 weights", tw.jit(layer), arguments, bound, 0, LAYER)
