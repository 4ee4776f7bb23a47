"""Losses, each of one example (or element), with optax's names; take the mean of them."""

from __future__ import annotations

from typing import Any

import tilewright.numpy as tnp
from tilewright.custom import stop_gradient


def squared_error(predictions: Any, targets: Any = None) -> Any:
    """Return the squares of the errors, element by element."""
    errors = predictions if targets is None else predictions - targets
    return errors * errors


def l2_loss(predictions: Any, targets: Any = None) -> Any:
    """Return half the squares of the errors, element by element."""
    return 0.5 * squared_error(predictions, targets)


def huber_loss(predictions: Any, targets: Any = None, delta: float = 1.0) -> Any:
    """Return half the squares of errors up to `delta`, beyond it a straight line."""
    size = tnp.abs(predictions if targets is None else predictions - targets)
    inner = tnp.minimum(size, delta)
    return 0.5 * inner * inner + delta * (size - inner)


def _log_softmax(logits: Any) -> Any:
    shifted = logits - stop_gradient(tnp.max(logits, -1, keepdims=True))
    return shifted - tnp.log(tnp.sum(tnp.exp(shifted), -1, keepdims=True))


def softmax_cross_entropy(logits: Any, labels: Any) -> Any:
    """Return ``-sum(labels * log_softmax(logits), -1)``; labels are probabilities."""
    return -tnp.sum(labels * _log_softmax(logits), -1)


def softmax_cross_entropy_with_integer_labels(logits: Any, labels: Any) -> Any:
    """Return the same for labels (...) int32, the numbers of the right classes."""
    classes = tnp.arange(logits.shape[-1], dtype=tnp.int32)
    chosen = tnp.expand_dims(tnp.asarray(labels), -1) == classes
    return softmax_cross_entropy(logits, chosen.astype(logits.dtype))


def sigmoid_binary_cross_entropy(logits: Any, labels: Any) -> Any:
    """Return ``-labels log p - (1 - labels) log(1 - p)``, p = sigmoid(logits), without overflow."""
    small = tnp.log1p(tnp.exp(-tnp.abs(logits)))
    return tnp.maximum(logits, 0) - logits * labels + small
