"""Softmax and normalisations, with the formulas of `jax.nn`; `tilewright.nn` has them all.

The largest element, which is subtracted against overflow, has no derivative, as in JAX: it cancels.
"""

from tilewright import lax as _lax
from tilewright import numpy as _tnp
from tilewright.compiler import ops as _ops
from tilewright.compiler.errors import OperandError as _OperandError
from tilewright.compiler.source import user_source as _user_source
from tilewright.custom import stop_gradient as _constant

_INF = float("inf")


def _float(x):
    return _ops.inexact(_tnp.asarray(x))


def _safe(x, where, other):
    """x, with another number in the places that do not count."""
    return x if where is None else _tnp.where(where, x, other)


def softmax(x, axis=-1, where=None):
    """exp(x - max) / sum(exp(x - max)); where `where` does not hold, 0."""
    x = _safe(_float(x), where, -_INF)
    grown = _tnp.exp(x - _constant(_tnp.max(x, axis, keepdims=True)))
    result = grown / _tnp.sum(grown, axis, keepdims=True)
    return result if where is None else _tnp.where(where, result, 0)


def log_softmax(x, axis=-1, where=None):
    """x - max - log(sum(exp(x - max))); where `where` does not hold, -inf."""
    x = _safe(_float(x), where, -_INF)
    shifted = x - _constant(_tnp.max(x, axis, keepdims=True))
    result = shifted - _tnp.log(_tnp.sum(_tnp.exp(shifted), axis, keepdims=True))
    return result if where is None else _tnp.where(where, result, -_INF)


def logsumexp(a, axis=None, b=None, keepdims=False, return_sign=False, where=None):
    """log(sum(b exp(a))), without overflow; with its sign where that is asked for."""
    a = _float(a)
    if b is not None:
        b = _ops.convert(_tnp.asarray(b), a.dtype)
        a = _tnp.where(b != 0, a, -_INF)
    a = _safe(a, where, -_INF)
    largest = _constant(_tnp.max(a, axis, keepdims=True))
    largest = _tnp.where(_tnp.isfinite(largest), largest, 0.0)
    grown = _tnp.exp(a - largest)
    total = _tnp.sum(grown if b is None else b * grown, axis, keepdims=keepdims)
    if not keepdims:
        largest = largest.reshape(total.shape)
    sign = _tnp.sign(total)
    if return_sign or b is not None:
        total = _tnp.abs(total)
    out = _tnp.log(total) + largest
    if return_sign:
        return out, sign
    return out if b is None else _tnp.where(sign < 0, float("nan"), out)


def logmeanexp(x, axis=None, keepdims=False):
    """log(mean(exp(x))), without overflow."""
    x = _float(x)
    total = logsumexp(x, axis, keepdims=keepdims)
    return total - _tnp.log(_tnp.asarray(x.size / max(1, total.size), x.dtype))


def standardize(x, axis=-1, mean=None, variance=None, epsilon=1e-5, *, algorithm="fast"):
    """(x - mean) / sqrt(variance + epsilon), with the statistics of x along an axis.

    `algorithm` says how the variance is computed: "fast", as mean(x^2) - mean(x)^2, or "stable".
    """
    if algorithm not in ("fast", "stable"):
        raise _OperandError(
            f"standardize: algorithm must be 'fast' or 'stable', not {algorithm!r} "
            f"(at {_user_source()})"
        )
    x = _float(x)
    if mean is None:
        mean = _tnp.mean(x, axis, keepdims=True)
    if variance is None and algorithm == "stable":
        variance = _tnp.mean(_tnp.square(x - mean), axis, keepdims=True)
    elif variance is None:
        variance = _tnp.mean(_tnp.square(x), axis, keepdims=True) - _tnp.square(mean)
        variance = _tnp.maximum(variance, 0)
    return (x - mean) * _lax.rsqrt(variance + epsilon)


def _scaled(x, weight, bias):
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def layer_norm(x, weight=None, bias=None, *, axis=-1, epsilon=1e-5):
    """Normalised along an axis (mean 0, variance 1), times a weight, plus a bias.

    The variance is the mean of the squared differences from the mean.
    """
    return _scaled(standardize(x, axis, epsilon=epsilon, algorithm="stable"), weight, bias)


def rms_norm(x, weight=None, *, axis=-1, epsilon=1e-6):
    """x / sqrt(mean(x^2) + epsilon) along an axis, times a weight."""
    x = _float(x)
    square = _tnp.mean(_tnp.square(x), axis, keepdims=True)
    return _scaled(x * _lax.rsqrt(square + epsilon), weight, None)


def batch_norm(x, mean=None, variance=None, weight=None, bias=None, *, axis=-1, epsilon=1e-5):
    """Normalised per feature: `axis` holds the features, statistics are of all the other axes.

    With `mean` and `variance` (vectors of the features, such as running averages) those count.
    """
    x = _float(x)
    others = tuple(d for d in range(x.ndim) if d != axis % x.ndim)
    line = [1] * x.ndim
    line[axis] = x.shape[axis]

    def shaped(v):
        return None if v is None else _tnp.reshape(_tnp.asarray(v), tuple(line))

    y = standardize(x, others, shaped(mean), shaped(variance), epsilon, algorithm="stable")
    return _scaled(y, shaped(weight), shaped(bias))
