"""`dot_product_attention`, with the signature and the numerics of `jax.nn`."""

from math import sqrt as _sqrt

import numpy as _np
from tilewright import numpy as _tnp
from tilewright.compiler import ops as _ops
from tilewright.compiler.errors import OperandError as _OperandError
from tilewright.compiler.errors import UnsupportedError as _UnsupportedError
from tilewright.compiler.source import user_source as _user_source
from tilewright.nn_normal import logsumexp as _logsumexp
from tilewright.nn_normal import softmax as _softmax


def _four(x):
    """An array of rank 4, new dimensions first."""
    x = _tnp.asarray(x)
    return _tnp.reshape(x, (1,) * (4 - x.ndim) + x.shape) if x.ndim < 4 else x


def _check(name, x, shape, dtype):
    """None in a shape fits any size."""
    fits = x.ndim == len(shape) and all(
        want is None or n == want for n, want in zip(x.shape, shape, strict=True)
    )
    if not fits or (dtype is not None and x.dtype != dtype):
        wanted = "any dtype" if dtype is None else dtype
        raise _OperandError(
            f"dot_product_attention: {name} must have shape {shape} and {wanted}, not {x.shape} "
            f"and {x.dtype} (at {_user_source()})"
        )


def _masks(mask, is_causal, query_lengths, key_lengths, window, sizes):
    """All conditions on (batch, head, query, key), which broadcast against each other."""
    rows, columns = sizes
    found = [] if mask is None else [mask]
    q = _ops.counts(_np.dtype(_np.int32), (1, 1, rows, 1), 2)
    k = _ops.counts(_np.dtype(_np.int32), (1, 1, 1, columns), 3)
    if is_causal:
        found.append(q >= k)
    if window is not None:
        left, right = window
        found += [q <= k + left, q >= k - right]
    if query_lengths is not None:
        found.append(q < _tnp.reshape(query_lengths, (-1, 1, 1, 1)))
    if key_lengths is not None:
        found.append(k < _tnp.reshape(key_lengths, (-1, 1, 1, 1)))
    return found


def dot_product_attention(
    query,
    key,
    value,
    bias=None,
    mask=None,
    *,
    scale=None,
    is_causal=False,
    query_seq_lengths=None,
    key_value_seq_lengths=None,
    local_window_size=None,
    implementation=None,
    return_residual=False,
):
    """softmax(query key^T scale + bias) value, as `jax.nn.dot_product_attention`.

    Parameters
    ----------
    query : (B, T, N, H) or (T, N, H), float32 or bfloat16.
    key, value : (B, S, K, H) or (S, K, H), N a multiple of K; N / K query heads share one.
    bias : (B, N, T, S) or what broadcasts to it, added to the scaled products.
    mask : bool, as `bias`; products count where it holds.
    scale : of the products, 1 / sqrt(H) by default.
    is_causal : a query sees keys up to its own place.
    query_seq_lengths, key_value_seq_lengths : (B,) int32, rows that count.
    local_window_size : how far a query sees, or (to the left, to the right).
    return_residual : also the logsumexp of the products, (B, T, N).

    Returns
    -------
    Array
        In the shape of `query`, of its dtype. Sums and softmax are float32.
    """
    if implementation not in (None, "xla"):
        raise _UnsupportedError(
            f"dot_product_attention: implementation must be None or 'xla', not {implementation!r} "
            f"(at {_user_source()})"
        )
    shape = _tnp.asarray(query).shape
    query, key, value = _four(query), _four(key), _four(value)
    batch, columns, heads, depth = key.shape
    _check("value", value, (batch, columns, heads, depth), key.dtype)
    _check("query", query, (batch, None, None, depth), key.dtype)
    rows, count = query.shape[1:3]
    if count % heads:
        raise _OperandError(
            f"dot_product_attention: query must have a multiple of {heads} heads, not {count} "
            f"(at {_user_source()})"
        )
    grouped = _tnp.reshape(query, (batch, rows, heads, count // heads, depth))
    grouped = _tnp.transpose(grouped, (0, 2, 3, 1, 4))
    logits = _tnp.einsum("BKGTH,BSKH->BKGTS", grouped, key, preferred_element_type=_np.float32)
    logits = _tnp.reshape(logits, (batch, count, rows, columns))
    logits = logits * (1.0 / _sqrt(depth) if scale is None else scale)
    if bias is not None:
        logits = (logits + _four(bias)).astype(_np.float32)
    if mask is not None:
        mask = _four(mask)
        _check("mask", mask, (None,) * 4, _np.dtype(bool))
    window = local_window_size
    window = (window, window) if isinstance(window, int) else window
    lengths = (query_seq_lengths, key_value_seq_lengths)
    for condition in _masks(mask, is_causal, *lengths, window, (rows, columns)):
        logits = _tnp.where(condition, logits, -0.7 * float(_np.finfo(_np.float32).max))
    chances = _softmax(logits).astype(key.dtype)
    chances = _tnp.reshape(chances, (batch, heads, count // heads, rows, columns))
    out = _tnp.einsum("BKGTS,BSKH->BTKGH", chances, value)
    out = _tnp.reshape(out, (batch, rows, count, depth))
    if query_seq_lengths is not None:
        place = _ops.counts(_np.dtype(_np.int32), (1, rows, 1, 1), 1)
        counts = place < _tnp.reshape(query_seq_lengths, (-1, 1, 1, 1))
        out = out * counts.astype(out.dtype)
    out = _tnp.reshape(out, shape)
    if not return_residual:
        return out
    residual = _tnp.transpose(_logsumexp(logits, -1).astype(key.dtype), (0, 2, 1))
    return out, _tnp.reshape(residual, shape[:-1])
