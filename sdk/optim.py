"""Optimisers as pure functions over pytrees, with optax's names: ``import tilewright.optim``.

An optimiser is a pair of functions, ``init(params) -> state`` and ``update(grads, state, params)``,
which returns (updates, state); `apply_updates` adds the updates to the parameters. States are
pytrees of arrays, so a whole training step, gradients, update and all, is one jitted function. A
learning rate is a number or a schedule (`tilewright.optim_schedules`), a function of the number of
steps so far.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tilewright.numpy as tnp
from tilewright.compiler import tree
from tilewright.optim_losses import (
    huber_loss,
    l2_loss,
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
    squared_error,
)
from tilewright.optim_schedules import (
    constant_schedule,
    cosine_decay_schedule,
    exponential_decay,
    linear_schedule,
    piecewise_constant_schedule,
    warmup_cosine_decay_schedule,
)

Schedule = Callable[[Any], Any]


class GradientTransformation(NamedTuple):
    """What makes updates of gradients: ``init(params)`` and ``update(updates, state, params)``."""

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]


class EmptyState(NamedTuple):
    """The state of what needs none."""


class CountState(NamedTuple):
    """How many updates there were, int32."""

    count: Any


class TraceState(NamedTuple):
    """The decayed sum of the updates so far."""

    trace: Any


class AdamState(NamedTuple):
    """How many updates there were, and the decayed means of gradients and of their squares."""

    count: Any
    mu: Any
    nu: Any


def _stateless(change: Callable[[Any, Any], Any]) -> GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return change(updates, params), state

    return GradientTransformation(lambda params: EmptyState(), update)


def _zeros(params: Any) -> Any:
    return tree.map(tnp.zeros_like, params)


def _no_steps() -> Any:
    return tnp.zeros((), tnp.int32)


def chain(*transformations: GradientTransformation) -> GradientTransformation:
    """Apply one transformation after the other; the state is the tuple of theirs."""

    def init(params: Any) -> Any:
        return tuple(t.init(params) for t in transformations)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        states = []
        for transformation, old in zip(transformations, state, strict=True):
            updates, new = transformation.update(updates, old, params)
            states.append(new)
        return updates, tuple(states)

    return GradientTransformation(init, update)


def identity() -> GradientTransformation:
    """Leave the updates as they are."""
    return _stateless(lambda updates, params: updates)


def scale(factor: float) -> GradientTransformation:
    """Multiply the updates by a number."""
    return _stateless(lambda updates, params: tree.map(lambda u: u * factor, updates))


def scale_by_learning_rate(learning_rate: float | Schedule) -> GradientTransformation:
    """Multiply by minus the learning rate, a number or a schedule."""
    if not callable(learning_rate):
        return scale(-learning_rate)
    schedule = learning_rate

    def update(updates: Any, state: CountState, params: Any = None) -> tuple[Any, Any]:
        rate = -schedule(state.count)
        scaled = tree.map(lambda u: u * tnp.asarray(rate).astype(u.dtype), updates)
        return scaled, CountState(state.count + 1)

    return GradientTransformation(lambda params: CountState(_no_steps()), update)


def trace(decay: float, nesterov: bool = False) -> GradientTransformation:
    """Momentum: add `decay` times the sum so far; with `nesterov`, look one step ahead."""

    def update(updates: Any, state: TraceState, params: Any = None) -> tuple[Any, Any]:
        total = tree.map(lambda u, t: u + decay * t, updates, state.trace)
        ahead = tree.map(lambda u, t: u + decay * t, updates, total) if nesterov else total
        return ahead, TraceState(total)

    return GradientTransformation(lambda params: TraceState(_zeros(params)), update)


def scale_by_adam(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0
) -> GradientTransformation:
    """Adam's direction: the mean of gradients over the root of the mean of their squares.

    **Source** Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1.
    """

    def update(updates: Any, state: AdamState, params: Any = None) -> tuple[Any, Any]:
        count = state.count + 1
        mu = tree.map(lambda u, m: b1 * m + (1 - b1) * u, updates, state.mu)
        nu = tree.map(lambda u, v: b2 * v + (1 - b2) * (u * u), updates, state.nu)
        steps = count.astype(tnp.float32)
        first, second = (1 - tnp.power(b, steps) for b in (b1, b2))

        def direction(m: Any, v: Any) -> Any:
            unbiased = v / second.astype(v.dtype)
            root = tnp.sqrt(unbiased + eps_root if eps_root else unbiased)
            return (m / first.astype(m.dtype)) / (root + eps)

        return tree.map(direction, mu, nu), AdamState(count, mu, nu)

    return GradientTransformation(
        lambda params: AdamState(_no_steps(), _zeros(params), _zeros(params)), update
    )


def add_decayed_weights(
    weight_decay: float, mask: Callable[[Any], Any] | Any = None
) -> GradientTransformation:
    """Add `weight_decay` times the parameters (those where the pytree of bools `mask` is true)."""

    def change(updates: Any, params: Any) -> Any:
        if params is None:
            raise ValueError("add_decayed_weights needs params: update(grads, state, params)")
        if mask is None:
            return tree.map(lambda u, p: u + weight_decay * p, updates, params)
        wanted = mask(params) if callable(mask) else mask
        return tree.map(lambda u, p, m: u + weight_decay * p if m else u, updates, params, wanted)

    return _stateless(change)


def global_norm(updates: Any) -> Any:
    """Return the Euclidean norm of all elements of a pytree, a float32 scalar."""
    total: Any = 0.0
    for leaf in tree.leaves(updates):
        wide = leaf.astype(tnp.float32)
        total = tnp.sum(wide * wide) + total
    return tnp.sqrt(total)


def clip_by_global_norm(max_norm: float) -> GradientTransformation:
    """Scale all updates down together so that their norm is at most `max_norm`."""

    def change(updates: Any, params: Any) -> Any:
        factor = max_norm / tnp.maximum(global_norm(updates), max_norm)
        return tree.map(lambda u: u * factor.astype(u.dtype), updates)

    return _stateless(change)


def clip(max_delta: float) -> GradientTransformation:
    """Limit every element of the updates to [-max_delta, max_delta]."""
    return _stateless(lambda updates, params: tree.map(
        lambda u: tnp.clip(u, -max_delta, max_delta), updates))  # fmt: skip


def sgd(
    learning_rate: float | Schedule, momentum: float | None = None, nesterov: bool = False
) -> GradientTransformation:
    """Stochastic gradient descent, with momentum if it is given."""
    first = identity() if momentum is None else trace(momentum, nesterov)
    return chain(first, scale_by_learning_rate(learning_rate))


def adam(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
) -> GradientTransformation:
    """Adam; see `scale_by_adam`."""
    return chain(scale_by_adam(b1, b2, eps, eps_root), scale_by_learning_rate(learning_rate))


def adamw(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: float = 1e-4,
    mask: Any = None,
) -> GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""
    return chain(
        scale_by_adam(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def apply_updates(params: Any, updates: Any) -> Any:
    """Return parameters plus updates, in the parameters' dtypes."""
    return tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)


__all__ = [
    "AdamState",
    "CountState",
    "EmptyState",
    "GradientTransformation",
    "TraceState",
    "adam",
    "adamw",
    "add_decayed_weights",
    "apply_updates",
    "chain",
    "clip",
    "clip_by_global_norm",
    "constant_schedule",
    "cosine_decay_schedule",
    "exponential_decay",
    "global_norm",
    "huber_loss",
    "identity",
    "l2_loss",
    "linear_schedule",
    "piecewise_constant_schedule",
    "scale",
    "scale_by_adam",
    "scale_by_learning_rate",
    "sgd",
    "sigmoid_binary_cross_entropy",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "squared_error",
    "trace",
    "warmup_cosine_decay_schedule",
]
