"""Schedules: functions from the number of steps so far (an int32 scalar) to a learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import pi
from typing import Any

import tilewright.numpy as tnp

Schedule = Callable[[Any], Any]


def _steps(count: Any) -> Any:
    return tnp.asarray(count).astype(tnp.float32)


def constant_schedule(value: float) -> Schedule:
    """Return `value` at every step."""
    return lambda count: value


def linear_schedule(
    init_value: float, end_value: float, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    """Go from one value to another in `transition_steps` steps, and stay there."""

    def schedule(count: Any) -> Any:
        done = tnp.clip(_steps(count) - transition_begin, 0, transition_steps) / transition_steps
        return init_value + (end_value - init_value) * done

    return schedule


def exponential_decay(
    init_value: float,
    transition_steps: int,
    decay_rate: float,
    transition_begin: int = 0,
    staircase: bool = False,
) -> Schedule:
    """Multiply by `decay_rate` every `transition_steps` steps, smoothly or at once."""

    def schedule(count: Any) -> Any:
        done = tnp.maximum(_steps(count) - transition_begin, 0) / transition_steps
        return init_value * tnp.power(decay_rate, tnp.floor(done) if staircase else done)

    return schedule


def cosine_decay_schedule(init_value: float, decay_steps: int, alpha: float = 0.0) -> Schedule:
    """Fall to ``alpha * init_value`` along half a cosine."""

    def schedule(count: Any) -> Any:
        done = tnp.minimum(_steps(count), decay_steps) / decay_steps
        cosine = 0.5 * (1 + tnp.cos(pi * done))
        return init_value * ((1 - alpha) * cosine + alpha)

    return schedule


def warmup_cosine_decay_schedule(
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    decay_steps: int,
    end_value: float = 0.0,
) -> Schedule:
    """Rise to a peak in `warmup_steps`, then fall along a cosine until step `decay_steps`."""
    rise = linear_schedule(init_value, peak_value, warmup_steps)
    fall = cosine_decay_schedule(peak_value, decay_steps - warmup_steps, end_value / peak_value)

    def schedule(count: Any) -> Any:
        later = tnp.maximum(_steps(count) - warmup_steps, 0)
        return tnp.where(_steps(count) < warmup_steps, rise(count), fall(later))

    return schedule


def piecewise_constant_schedule(
    init_value: float, boundaries_and_scales: Mapping[int, float]
) -> Schedule:
    """Multiply by each scale once its step has come."""

    def schedule(count: Any) -> Any:
        value = tnp.asarray(init_value).astype(tnp.float32)
        for step, factor in sorted(boundaries_and_scales.items()):
            value = tnp.where(_steps(count) >= step, value * factor, value)
        return value

    return schedule
