"""First values of weights, with the names and numbers of `jax.nn.initializers`.

An initializer is a function of (key, shape, dtype). The last two dimensions of a shape are inputs
and outputs, those before them a receptive field.
"""

from math import prod as _prod
from math import sqrt as _sqrt

import numpy as _np
from tilewright import numpy as _tnp
from tilewright import random as _random
from tilewright.compiler.errors import OperandError as _OperandError
from tilewright.compiler.source import user_source as _user_source

_TRUNCATED = 0.87962566103423978  # standard deviation of a normal distribution cut at -2 and 2


def zeros(key, shape, dtype=_np.float32):
    """Zeros."""
    return _tnp.zeros(shape, dtype)


def ones(key, shape, dtype=_np.float32):
    """Ones."""
    return _tnp.ones(shape, dtype)


def constant(value, dtype=_np.float32):
    """One value everywhere."""
    return lambda key, shape, dtype=dtype: _tnp.full(shape, value, dtype)


def uniform(scale=1e-2, dtype=_np.float32):
    """Uniform in [0, scale)."""
    return lambda key, shape, dtype=dtype: _random.uniform(key, shape, dtype) * scale


def normal(stddev=1e-2, dtype=_np.float32):
    """Normal with a standard deviation."""
    return lambda key, shape, dtype=dtype: _random.normal(key, shape, dtype) * stddev


def truncated_normal(stddev=1e-2, dtype=_np.float32, lower=-2.0, upper=2.0):
    """Normal, cut at `lower` and `upper` standard deviations."""

    def init(key, shape, dtype=dtype):
        return _random.truncated_normal(key, lower, upper, shape, dtype) * stddev

    return init


def variance_scaling(scale, mode, distribution, in_axis=-2, out_axis=-1, dtype=_np.float32):
    """A distribution of variance scale / fan, by the number of inputs, outputs or their mean.

    `mode` is 'fan_in', 'fan_out' or 'fan_avg'; `distribution` is 'normal', 'truncated_normal' or
    'uniform'.
    """
    if mode not in ("fan_in", "fan_out", "fan_avg"):
        raise _OperandError(
            f"mode must be 'fan_in', 'fan_out' or 'fan_avg', not {mode!r} (at {_user_source()})"
        )
    if distribution not in ("normal", "truncated_normal", "uniform"):
        raise _OperandError(
            f"distribution must be 'normal', 'truncated_normal' or 'uniform', not "
            f"{distribution!r} (at {_user_source()})"
        )

    def init(key, shape, dtype=dtype):
        if len(shape) < 2:
            raise _OperandError(
                f"variance_scaling: shape must have two dimensions, not {shape} "
                f"(at {_user_source()})"
            )
        field = _prod(shape) / (shape[in_axis] * shape[out_axis])
        fans = {"fan_in": shape[in_axis] * field, "fan_out": shape[out_axis] * field}
        fan = fans.get(mode, sum(fans.values()) / 2)
        deviation = _sqrt(scale / fan)
        if distribution == "normal":
            return _random.normal(key, shape, dtype) * deviation
        if distribution == "uniform":
            return _random.uniform(key, shape, dtype, -1.0) * (_sqrt(3) * deviation)
        return _random.truncated_normal(key, -2.0, 2.0, shape, dtype) * (deviation / _TRUNCATED)

    return init


def _scaling(name, scale, mode, distribution, doc):
    def function(in_axis=-2, out_axis=-1, dtype=_np.float32):
        return variance_scaling(scale, mode, distribution, in_axis, out_axis, dtype)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


glorot_uniform = _scaling("glorot_uniform", 1.0, "fan_avg", "uniform", "Glorot's, uniform.")
glorot_normal = _scaling("glorot_normal", 1.0, "fan_avg", "truncated_normal", "Glorot's, normal.")
lecun_uniform = _scaling("lecun_uniform", 1.0, "fan_in", "uniform", "LeCun's, uniform.")
lecun_normal = _scaling("lecun_normal", 1.0, "fan_in", "truncated_normal", "LeCun's, normal.")
he_uniform = _scaling("he_uniform", 2.0, "fan_in", "uniform", "He's, uniform.")
he_normal = _scaling("he_normal", 2.0, "fan_in", "truncated_normal", "He's, normal.")
xavier_uniform, xavier_normal = glorot_uniform, glorot_normal
kaiming_uniform, kaiming_normal = he_uniform, he_normal
