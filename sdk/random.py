"""Random numbers with JAX's bits: ``import tilewright.random as random``.

A key is an array of two uint32 words, as of `jax.random.PRNGKey`; `key` makes the same. Element i
of a sample is a Threefry-2x32 hash of the key and the counter i (JAX's default,
``jax_threefry_partitionable``), so bits, integers and uniform floats in [0, 1) equal JAX's, and
normal ones do within a few ulp. On the chip hash and conversion are one kernel.

**Source** : `jax.random` 0.10.2; J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3".
"""

import operator as _operator
from math import prod as _prod
from math import sqrt as _sqrt

import ml_dtypes as _ml_dtypes
import numpy as _np
from tilewright import lax as _lax
from tilewright import numpy as _tnp
from tilewright.compiler import core as _core
from tilewright.compiler import ops as _ops
from tilewright.compiler import trace as _trace
from tilewright.compiler.errors import DtypeError as _DtypeError
from tilewright.compiler.errors import MissingError as _MissingError
from tilewright.compiler.errors import OperandError as _OperandError
from tilewright.compiler.primitives_math import threefry2x32_p as _threefry2x32_p
from tilewright.compiler.source import user_source as _user_source

_programs: dict = {}
_WORD = (1 << 32) - 1


def _at_once(function, *args):
    """The function's value; outside of a trace as one program, compiled once per kind."""
    if _trace.current_trace() is not None:
        return function(*args)
    from tilewright.jitted import Jitted

    dynamic = (_np.ndarray, _np.generic, _trace.Tracer)
    static = tuple(
        i for i, a in enumerate(args)
        if isinstance(a, _np.dtype) or not (isinstance(a, dynamic) or _trace.is_device_array(a))
    )  # fmt: skip
    if (function, static) not in _programs:
        _programs[function, static] = Jitted(function, static_argnums=static)
    return _programs[function, static](*args)


def _words(name, key):
    """Both words of a key."""
    (aval,) = _ops.operand_avals(name, (key,))
    if aval.shape != (2,) or aval.dtype != _core.uint32:
        raise _OperandError(
            f"{name}: key must be two uint32 words, as of random.key, not {aval} "
            f"(at {_user_source()})"
        )
    return key[0], key[1]


def _dtype(name, dtype, allowed):
    found = _ops.dtype_named(name, dtype)
    if found not in allowed:
        names = ", ".join(map(str, allowed))
        raise _DtypeError(f"{name}: dtype must be one of {names}, not {found} "
                          f"(at {_user_source()})")  # fmt: skip
    return found


def _shape(name, shape):
    shape = _ops.shape_tuple(shape)
    if _prod(shape) > 1 << 32:
        raise _OperandError(f"{name}: a sample must have up to 2^32 elements, not shape {shape}")
    return shape


# ---- keys


def PRNGKey(seed):
    """Return the key of a 32-bit integer seed."""
    if isinstance(seed, _trace.Tracer) or _trace.is_device_array(seed):
        return _at_once(_seeded, seed)
    try:
        value = _operator.index(seed)
    except TypeError:
        raise _OperandError(f"seed must be an int, not {seed!r} (at {_user_source()})") from None
    return _tnp.asarray(_np.array([0, value & _WORD], _np.uint32))


key = PRNGKey


def _seeded(seed):
    return _tnp.stack([_np.uint32(0), _tnp.astype(seed, _np.uint32)])


def key_data(keys):
    """Return the words of keys: the keys themselves."""
    return keys


def wrap_key_data(key_bits_array, *, impl=None):
    """Return words as keys: the words themselves."""
    return key_bits_array


def split(key, num=2):
    """Return new keys, `num` (an int or a shape) of them, from one."""
    return _at_once(_split, key, _shape("split", num))


def _split(key, shape):
    k1, k2 = _words("split", key)
    low = _counters(shape)
    words = [_hash(k1, k2, low, word) for word in (0, 1)]
    return _tnp.stack(words, -1)


def fold_in(key, data):
    """Return the key that a key and an integer make."""
    if isinstance(data, int):
        data = _np.uint32(data & _WORD)
    return _at_once(_fold_in, key, data)


def _fold_in(key, data):
    k1, k2 = _words("fold_in", key)
    (aval,) = _ops.operand_avals("fold_in", (data,))
    if aval.shape or aval.dtype not in _core.INTS:
        raise _OperandError(f"fold_in: data must be an integer, not {aval} (at {_user_source()})")
    data = _ops.convert(data, _core.uint32)
    return _tnp.stack([_hash(k1, k2, data, word) for word in (0, 1)])


# ---- bits


def _counters(shape):
    """The indices of all elements in row-major order, as uint32."""
    return _ops.reshape(_ops.counts(_core.uint32, (_prod(shape),), 0), shape)


def _hash(k1, k2, low, word):
    return _trace.bind(_threefry2x32_p, k1, k2, low, word=word)


def bits(key, shape=(), dtype=_np.uint32):
    """Return uniform random bits, as uint32 or uint8."""
    dtype = _dtype("bits", dtype, (_core.uint32, _core.uint8))
    return _at_once(_bits, key, _shape("bits", shape), dtype)


def _bits(key, shape, dtype):
    words = _hash(*_words("bits", key), _counters(shape), 2)
    return _ops.convert(words, dtype)


def _unit(key, shape, dtype):
    """Floats in [0, 1): random bits as the fraction of a number in [1, 2)."""
    words = _bits(key, shape, _core.uint32)
    if dtype == _core.float32:
        fraction = _lax.shift_right_logical(words, 9)
    else:  # bfloat16 takes 8 bits, of which 7 count
        fraction = _lax.shift_left(_lax.bitwise_and(words, 0xFE), 15)
    number = _lax.bitcast_convert_type(_lax.bitwise_or(fraction, 0x3F800000), _np.float32)
    return _ops.convert(_lax.sub(number, 1.0), dtype)


def _check_fits(name, shape, *values):
    for v in values:
        have = _trace.aval_of(v).shape
        ends = zip(reversed(have), reversed(shape), strict=False)
        if len(have) > len(shape) or any(n not in (1, m) for n, m in ends):
            raise _OperandError(
                f"{name}: parameters of shape {have} do not broadcast to {shape} "
                f"(at {_user_source()})"
            )


# ---- samples


_FLOATS = _core.FLOATS


def uniform(key, shape=(), dtype=_np.float32, minval=0.0, maxval=1.0):
    """Return floats that are uniform in [minval, maxval)."""
    dtype = _dtype("uniform", dtype, _FLOATS)
    return _at_once(_uniform, key, minval, maxval, _shape("uniform", shape), dtype)


def _uniform(key, minval, maxval, shape, dtype):
    _check_fits("uniform", shape, minval, maxval)
    low, high = (_ops.convert(v, dtype) for v in (minval, maxval))
    unit = _unit(key, shape, dtype)
    return _ops.maximum(low, _ops.add(_ops.multiply(unit, _ops.subtract(high, low)), low))


def normal(key, shape=(), dtype=_np.float32):
    """Return floats of the normal distribution: sqrt(2) times the inverse error function."""
    dtype = _dtype("normal", dtype, _FLOATS)
    return _at_once(_normal, key, _shape("normal", shape), dtype)


def _normal(key, shape, dtype):
    least = -1 + 2.0 ** (-24 if dtype == _core.float32 else -8)  # the float above -1
    u = _uniform(key, least, 1.0, shape, dtype)
    return _ops.multiply(_lax.erf_inv(u), _ops.convert(_sqrt(2), dtype))


def truncated_normal(key, lower, upper, shape=None, dtype=_np.float32):
    """Return floats of the normal distribution between two bounds."""
    dtype = _dtype("truncated_normal", dtype, _FLOATS)
    if shape is None:
        shapes = (_trace.aval_of(v).shape for v in (lower, upper))
        shape = _np.broadcast_shapes(*shapes)
    shape = _shape("truncated_normal", shape)
    return _at_once(_truncated_normal, key, lower, upper, shape, dtype)


def _truncated_normal(key, lower, upper, shape, dtype):
    _check_fits("truncated_normal", shape, lower, upper)
    root = _ops.convert(_sqrt(2), dtype)
    low, high = (_ops.convert(v, dtype) for v in (lower, upper))
    least, most = (_lax.erf(_ops.divide(v, root)) for v in (low, high))
    out = _ops.multiply(_lax.erf_inv(_uniform(key, least, most, shape, dtype)), root)
    return _ops.clip(out, low, high)


def bernoulli(key, p=0.5, shape=None):
    """Return bools that are true with probability p (of p's shape by default)."""
    shape = _trace.aval_of(p).shape if shape is None else shape
    return _at_once(_bernoulli, key, p, _shape("bernoulli", shape))


def _bernoulli(key, p, shape):
    (aval,) = _ops.operand_avals("bernoulli", (p,))
    _check_fits("bernoulli", shape, p)
    if aval.dtype not in _FLOATS:
        raise _DtypeError(f"bernoulli: p must be a float, not {aval} (at {_user_source()})")
    return _ops.less(_uniform(key, 0.0, 1.0, shape, aval.dtype), p)


def randint(key, shape, minval, maxval, dtype=_np.int32):
    """Return integers that are uniform in [minval, maxval)."""
    dtype = _dtype("randint", dtype, _core.INTS)
    return _at_once(_randint, key, minval, maxval, _shape("randint", shape), dtype)


def _randint(key, minval, maxval, shape, dtype):
    _check_fits("randint", shape, minval, maxval)
    unsigned = _core.uint32 if dtype.itemsize == 4 else _core.uint8
    low, span = _range(minval, maxval, dtype, unsigned)
    keys = _split(key, (2,))
    higher, lower = (_bits(keys[i], shape, unsigned) for i in (0, 1))
    root = _ops.convert(1 << 4 * dtype.itemsize, unsigned)
    root = _lax.rem(_full(root, span), span)
    scale = _lax.rem(_lax.mul(root, root), span)
    span, scale = (_ops.broadcast_to(v, shape) for v in (span, scale))
    offset = _lax.add(_lax.mul(_lax.rem(higher, span), scale), _lax.rem(lower, span))
    return _ops.add(low, _ops.convert(_lax.rem(offset, span), dtype))


def _full(value, like):
    return _ops.broadcast_to(value, _trace.aval_of(like).shape)


def _range(minval, maxval, dtype, unsigned):
    """The lowest value and how many there are, as JAX counts them."""
    info = _np.iinfo(dtype)
    if isinstance(minval, int) and isinstance(maxval, int):
        low, high = (min(max(v, info.min), info.max) for v in (minval, maxval))
        span = high - low + (maxval > info.max) if high > low else 1
        return _ops.convert(low, dtype), _ops.convert(span % (1 << 8 * dtype.itemsize), unsigned)
    low, high = (_integer(v) for v in (minval, maxval))
    over = _ops.greater(high, info.max) if _fits_beyond(high, info) else False
    low, high = (_clipped(v, info, dtype) for v in (low, high))
    more = _ops.greater(high, low)
    span = _ops.convert(_ops.subtract(high, low), unsigned)
    one = _ops.convert(1, unsigned)
    span = _ops.where(more, span, one)
    if over is not False:
        span = _ops.where(_ops.logical_and(over, more), _ops.add(span, one), span)
    return low, span


def _integer(v):
    """Floats as int32."""
    return v if _trace.aval_of(v).dtype in _core.INTS else _ops.convert(v, _core.int32)


def _fits_beyond(v, info):
    return _np.iinfo(_trace.aval_of(v).dtype).max > info.max


def _clipped(v, info, dtype):
    own = _np.iinfo(_trace.aval_of(v).dtype)
    v = _ops.clip(v, int(max(info.min, own.min)), int(min(info.max, own.max)))
    return _ops.convert(v, dtype)


def gumbel(key, shape=(), dtype=_np.float32):
    """Return floats of Gumbel's distribution, -log(-log(u))."""
    dtype = _dtype("gumbel", dtype, _FLOATS)
    return _at_once(_gumbel, key, _shape("gumbel", shape), dtype)


def _gumbel(key, shape, dtype):
    u = _uniform(key, float(_ml_dtypes.finfo(dtype).tiny), 1.0, shape, dtype)
    return _ops.negative(_ops.log(_ops.negative(_ops.log(u))))


def exponential(key, shape=(), dtype=_np.float32):
    """Return floats of the exponential distribution, -log(1 - u)."""
    dtype = _dtype("exponential", dtype, _FLOATS)
    return _at_once(_exponential, key, _shape("exponential", shape), dtype)


def _exponential(key, shape, dtype):
    u = _uniform(key, 0.0, 1.0, shape, dtype)
    return _ops.negative(_ops.log1p(_ops.negative(u)))


def laplace(key, shape=(), dtype=_np.float32):
    """Return floats of Laplace's distribution."""
    dtype = _dtype("laplace", dtype, _FLOATS)
    return _at_once(_laplace, key, _shape("laplace", shape), dtype)


def _laplace(key, shape, dtype):
    u = _uniform(key, -1.0 + float(_ml_dtypes.finfo(dtype).epsneg), 1.0, shape, dtype)
    return _ops.multiply(_ops.sign(u), _ops.log1p(_ops.negative(_ops.abs(u))))


def logistic(key, shape=(), dtype=_np.float32):
    """Return floats of the logistic distribution."""
    dtype = _dtype("logistic", dtype, _FLOATS)
    return _at_once(_logistic, key, _shape("logistic", shape), dtype)


def _logistic(key, shape, dtype):
    u = _uniform(key, float(_ml_dtypes.finfo(dtype).tiny), 1.0, shape, dtype)
    return _ops.subtract(_ops.log(u), _ops.log1p(_ops.negative(u)))


def rademacher(key, shape=(), dtype=_np.int32):
    """Return -1 and 1, equally often."""
    dtype = _dtype("rademacher", dtype, (*_core.INTS, *_FLOATS))
    return _at_once(_rademacher, key, _shape("rademacher", shape), dtype)


def _rademacher(key, shape, dtype):
    heads = _ops.convert(_bernoulli(key, 0.5, shape), dtype)
    return _ops.convert(_ops.subtract(_ops.multiply(heads, 2), 1), dtype)


def categorical(key, logits, axis=-1, shape=None):
    """Return indices along an axis, with probabilities softmax(logits)."""
    return _at_once(_categorical, key, logits, axis, shape if shape is None else _shape("", shape))


def _categorical(key, logits, axis, shape):
    (aval,) = _ops.operand_avals("categorical", (logits,))
    logits = _ops.inexact(logits)
    axis = axis - aval.ndim if axis >= 0 else axis
    batch = tuple(n for d, n in enumerate(aval.shape) if d != axis % aval.ndim)
    shape = batch if shape is None else shape
    prefix = shape[: len(shape) - len(batch)]
    if shape[len(prefix) :] != batch:
        raise _OperandError(
            f"categorical: shape must end with {batch}, not {shape} (at {_user_source()})"
        )
    noise = _gumbel(key, (*prefix, *aval.shape), _trace.aval_of(logits).dtype)
    return _tnp.argmax(_ops.add(noise, logits), axis)


__all__ = [
    "PRNGKey",
    "bernoulli",
    "bits",
    "categorical",
    "exponential",
    "fold_in",
    "gumbel",
    "key",
    "key_data",
    "laplace",
    "logistic",
    "normal",
    "rademacher",
    "randint",
    "split",
    "truncated_normal",
    "uniform",
    "wrap_key_data",
]


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise _MissingError(
        f"tilewright.random has no {name!r} (at {_user_source()}); it has: {', '.join(__all__)}"
    )
