"""Activations, with the names of `jax.nn`: each is element-wise work, fused into its neighbours.

Normalisations, attention and pooling are in `nn_normal`, `nn_attention` and `nn_pool`; this module
has them all.
"""

from math import pi as _pi
from math import sqrt as _sqrt

from tilewright import initializers
from tilewright import lax as _lax
from tilewright import numpy as _tnp
from tilewright.compiler import ops as _ops
from tilewright.compiler.errors import MissingError as _MissingError
from tilewright.compiler.errors import OperandError as _OperandError
from tilewright.compiler.source import user_source as _user_source
from tilewright.custom import custom_jvp as _custom_jvp
from tilewright.nn_attention import dot_product_attention
from tilewright.nn_normal import (
    batch_norm,
    layer_norm,
    log_softmax,
    logmeanexp,
    logsumexp,
    rms_norm,
    softmax,
    standardize,
)
from tilewright.nn_pool import avg_pool, max_pool


def _float(x):
    """x as an array of floats."""
    return _ops.inexact(_tnp.asarray(x))


@_custom_jvp
def relu(x):
    """The larger of x and 0; its derivative at 0 is 0."""
    return _tnp.maximum(x, 0)


relu.defjvps(lambda g, ans, x: _tnp.where(x > 0, g, 0))


@_custom_jvp
def relu6(x):
    """x between 0 and 6; its derivative at both is 0."""
    return _tnp.minimum(_tnp.maximum(x, 0), 6.0)


relu6.defjvps(lambda g, ans, x: _tnp.where((x > 0) & (x < 6), g, 0))


def leaky_relu(x, negative_slope=1e-2):
    """x where it is at least 0, else `negative_slope` times x."""
    x = _tnp.asarray(x)
    return _tnp.where(x >= 0, x, negative_slope * x)


def elu(x, alpha=1.0):
    """x where it is above 0, else alpha (exp(x) - 1)."""
    x = _tnp.asarray(x)
    return _tnp.where(x > 0, x, alpha * _tnp.expm1(_tnp.where(x > 0, 0.0, x)))


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return _lax.logistic(_float(x))


def silu(x):
    """x sigmoid(x)."""
    x = _tnp.asarray(x)
    return x * sigmoid(x)


swish = silu


def softplus(x):
    """log(1 + exp(x)), without overflow."""
    x = _float(x)
    return _tnp.maximum(x, 0) + _tnp.log1p(_tnp.exp(-_tnp.abs(x)))


def gelu(x, approximate=True):
    """x times the normal distribution's integral; approximately with tanh, else with erf."""
    x = _float(x)
    if approximate:
        inner = _sqrt(2 / _pi) * (x + 0.044715 * x * x * x)
        return x * (0.5 * (1.0 + _tnp.tanh(inner)))
    return 0.5 * x * _lax.erfc(-x * _sqrt(0.5))


def identity(x):
    """x itself."""
    return _tnp.asarray(x)


def tanh(x):
    """Hyperbolic tangent."""
    return _tnp.tanh(x)


def hard_tanh(x):
    """x between -1 and 1."""
    x = _tnp.asarray(x)
    return _tnp.where(x > 1, 1, _tnp.where(x < -1, -1, x))


def hard_sigmoid(x):
    """relu6(x + 3) / 6."""
    return relu6(_tnp.asarray(x) + 3.0) / 6.0


def hard_silu(x):
    """x hard_sigmoid(x)."""
    x = _tnp.asarray(x)
    return x * hard_sigmoid(x)


hard_swish = hard_silu


def celu(x, alpha=1.0):
    """x above 0, else alpha (exp(x / alpha) - 1)."""
    x = _tnp.asarray(x)
    return _tnp.maximum(x, 0.0) + alpha * _tnp.expm1(_tnp.minimum(x, 0.0) / alpha)


def selu(x):
    """Scaled elu: 1.0507 elu(x, 1.6733)."""
    return 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717)


def log_sigmoid(x):
    """log(sigmoid(x)), without underflow."""
    return -softplus(-_tnp.asarray(x))


def soft_sign(x):
    """x / (|x| + 1)."""
    x = _tnp.asarray(x)
    return x / (_tnp.abs(x) + 1)


def mish(x):
    """x tanh(softplus(x))."""
    x = _tnp.asarray(x)
    return x * _tnp.tanh(softplus(x))


def squareplus(x, b=4):
    """(x + sqrt(x^2 + b)) / 2."""
    x = _tnp.asarray(x)
    return (x + _tnp.sqrt(_tnp.square(x) + b)) / 2


def sparse_plus(x):
    """0 below -1, x above 1, between them (x + 1)^2 / 4."""
    x = _tnp.asarray(x)
    return _tnp.where(x <= -1.0, 0.0, _tnp.where(x >= 1.0, x, (x + 1.0) ** 2 / 4))


def sparse_sigmoid(x):
    """(x + 1) / 2 between 0 and 1."""
    return 0.5 * _tnp.clip(_tnp.asarray(x) + 1.0, 0.0, 2.0)


def glu(x, axis=-1):
    """The first half along an axis, times the sigmoid of the second half."""
    x = _tnp.asarray(x)
    if x.shape[axis] % 2:
        raise _OperandError(
            f"glu: axis {axis} must have an even size, not {x.shape[axis]} (at {_user_source()})"
        )
    first, second = _tnp.split(x, 2, axis)
    return first * sigmoid(second)


def one_hot(x, num_classes, *, dtype=_tnp.float32, axis=-1):
    """1 at the place that x has along a new axis, else 0; all zeros where there is none."""
    return _ops.one_hot(_tnp.asarray(x), num_classes, dtype, axis)


__all__ = [
    "avg_pool",
    "batch_norm",
    "celu",
    "dot_product_attention",
    "elu",
    "gelu",
    "glu",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "identity",
    "initializers",
    "layer_norm",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "logmeanexp",
    "logsumexp",
    "max_pool",
    "mish",
    "one_hot",
    "relu",
    "relu6",
    "rms_norm",
    "selu",
    "sigmoid",
    "silu",
    "soft_sign",
    "softmax",
    "softplus",
    "sparse_plus",
    "sparse_sigmoid",
    "squareplus",
    "standardize",
    "swish",
    "tanh",
]


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise _MissingError(
        f"tilewright.nn has no {name!r} (at {_user_source()}); it has: {', '.join(__all__)}"
    )
