"""Activations, with the names of `jax.nn`: each is element-wise work, fused into its neighbours."""

from math import pi as _pi
from math import sqrt as _sqrt

from tilewright import lax as _lax
from tilewright import numpy as _tnp
from tilewright.compiler.errors import MissingError as _MissingError
from tilewright.compiler.source import user_source as _user_source


def relu(x):
    """The larger of x and 0."""
    return _tnp.maximum(x, 0)


def relu6(x):
    """x between 0 and 6."""
    return _tnp.minimum(_tnp.maximum(x, 0), 6)


def leaky_relu(x, negative_slope=1e-2):
    """x where it is at least 0, else `negative_slope` times x."""
    return _tnp.where(x >= 0, x, negative_slope * x)


def elu(x, alpha=1.0):
    """x where it is above 0, else alpha (exp(x) - 1)."""
    return _tnp.where(x > 0, x, alpha * _tnp.expm1(_tnp.where(x > 0, 0.0, x)))


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return _lax.logistic(x)


def silu(x):
    """x sigmoid(x)."""
    return x * sigmoid(x)


swish = silu


def softplus(x):
    """log(1 + exp(x)), without overflow."""
    return _tnp.maximum(x, 0) + _tnp.log1p(_tnp.exp(-_tnp.abs(x)))


def gelu(x, approximate=True):
    """x times the normal distribution's integral; approximately with tanh, else with erf."""
    if approximate:
        inner = _sqrt(2 / _pi) * (x + 0.044715 * x * x * x)
        return x * (0.5 * (1.0 + _tnp.tanh(inner)))
    return 0.5 * x * (1.0 + _lax.erf(x * _sqrt(0.5)))


__all__ = ["elu", "gelu", "leaky_relu", "relu", "relu6", "sigmoid", "silu", "softplus", "swish"]


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise _MissingError(
        f"tilewright.nn has no {name!r} (at {_user_source()}); it has: {', '.join(__all__)}"
    )
