"""VECTOR's micro-operations in NumPy, bit for bit: what one lane, and what all lanes, compute.

`alu(name, a, b, c, n)` is one lane's operation on arrays of uint32 bits. `across` is what moves
between lanes.
docs/vector.md has the definitions in words.
"""

from collections.abc import Callable

import numpy as np
from tilewright.sim import numerics, special
from tilewright.sim.special import NAN, SIGN, canonical

Lanes = np.ndarray

_ONE = np.float32(1).view(np.uint32)


def _f(x: Lanes) -> Lanes:
    return x.view(np.float32)


def _i(x: Lanes) -> Lanes:
    return x.view(np.int32)


def _bits(x: Lanes) -> Lanes:
    return np.ascontiguousarray(x).view(np.uint32)


def _flag(x: Lanes) -> Lanes:
    return x.astype(np.uint32)


def _is_nan(x: Lanes) -> Lanes:
    return canonical(x) == NAN


def _float(f: Callable[..., Lanes]) -> Callable[..., Lanes]:
    """An operation on float32 whose result is made canonical."""

    def run(a, b, c, n):
        with np.errstate(all="ignore"):
            return canonical(_bits(f(_f(canonical(a)), _f(canonical(b)))))

    return run


def _test(f: Callable[..., Lanes]) -> Callable[..., Lanes]:
    """A comparison of float32: 0 or 1."""
    return lambda a, b, c, n: _flag(f(_f(canonical(a)), _f(canonical(b))))


def _word(f: Callable[..., Lanes]) -> Callable[..., Lanes]:
    """An operation on uint32."""
    return lambda a, b, c, n: f(a, b).astype(np.uint32)


def _signed(f: Callable[..., Lanes]) -> Callable[..., Lanes]:
    """An operation on int32, computed in int64; the low word counts."""
    return lambda a, b, c, n: f(_i(a).astype(np.int64), _i(b).astype(np.int64)).astype(np.uint32)


def _unsigned(f: Callable[..., Lanes]) -> Callable[..., Lanes]:
    """An operation on uint32, computed in uint64; the low word counts."""
    return lambda a, b, c, n: f(a.astype(np.uint64), b.astype(np.uint64)).astype(np.uint32)


def _sign(x: Lanes, _y: Lanes) -> Lanes:
    return np.where(x == 0, x, np.copysign(np.float32(1), x))


def _select(a: Lanes, b: Lanes, c: Lanes, n: int) -> Lanes:
    return np.where(a != 0, b, c)


def _sign_f32(a, b, c, n):
    return np.where(_is_nan(a), NAN, _bits(_sign(_f(canonical(a)), b)))


def _negated(a, b, c, n):
    return np.where(_is_nan(a), NAN, canonical(a) ^ SIGN)


def _to_int(a: Lanes, low: int, high: int) -> Lanes:
    """Truncate, saturate, NaN to 0."""
    wide = np.trunc(_f(canonical(a)).astype(np.float64))
    return np.clip(np.where(np.isnan(wide), 0, wide), low, high).astype(np.int64).astype(np.uint32)


def _shift(f: Callable[..., Lanes], most: int) -> Callable[..., Lanes]:
    """A shift of int64 by at most `most`, enough to move all 32 bits out."""
    return lambda a, b, c, n: f(a, np.minimum(b, most).astype(np.int64)).astype(np.uint32)


def _clz(a: Lanes, _b: Lanes) -> Lanes:
    return 32 - np.frexp(a.astype(np.float64))[1]


_FUNCTIONS: dict[str, Callable[..., Lanes]] = {
    "mov": lambda a, b, c, n: a,
    "select": _select,
    "add_f32": lambda a, b, c, n: _bits(numerics.f32_add(_f(a), _f(b))),
    "sub_f32": lambda a, b, c, n: _bits(numerics.f32_add(_f(a), _f(b ^ SIGN))),
    "mul_f32": lambda a, b, c, n: _bits(numerics.f32_mul(_f(a), _f(b))),
    "min_f32": lambda a, b, c, n: _bits(numerics.f32_min(_f(a), _f(b))),
    "max_f32": lambda a, b, c, n: _bits(numerics.f32_max(_f(a), _f(b))),
    "eq_f32": _test(np.equal),
    "lt_f32": _test(np.less),
    "le_f32": _test(np.less_equal),
    "neg_f32": _negated,
    "abs_f32": _float(lambda a, b: np.abs(a)),
    "floor_f32": _float(lambda a, b: np.floor(a)),
    "round_f32": _float(lambda a, b: np.rint(a)),
    "recip_f32": lambda a, b, c, n: special.recip(a),
    "rsqrt_f32": lambda a, b, c, n: special.rsqrt(a),
    "exp2_fx": lambda a, b, c, n: special.exp2_fx(a),
    "log2_slope_f32": lambda a, b, c, n: special.log2_slope(a),
    "fnma_f32": lambda a, b, c, n: special.fma(a, b, c, negate=True),
    "div_fix_f32": lambda a, b, c, n: special.div_fix(a, b, c),
    "sqrt_fix_f32": lambda a, b, c, n: special.sqrt_fix(a, b),
    "sign_f32": _sign_f32,
    "fma_f32": lambda a, b, c, n: special.fma(a, b, c),
    "log2_f32": lambda a, b, c, n: special.log2_fma(a, b),
    "div_recip_f32": lambda a, b, c, n: special.div_recip(a),
    "div_mul_f32": lambda a, b, c, n: special.div_mul(a, b),
    "add_i32": _signed(np.add),
    "sub_i32": _signed(np.subtract),
    "mul_i32": _signed(np.multiply),
    "mulh_i32": _signed(lambda a, b: a * b >> 32),
    "mulh_u32": _unsigned(lambda a, b: a * b >> np.uint64(32)),
    "min_i32": _signed(np.minimum),
    "max_i32": _signed(np.maximum),
    "min_u32": _word(np.minimum),
    "max_u32": _word(np.maximum),
    "eq_i32": _word(np.equal),
    "lt_i32": _signed(np.less),
    "le_i32": _signed(np.less_equal),
    "lt_u32": _word(np.less),
    "le_u32": _word(np.less_equal),
    "mul_fx": lambda a, b, c, n: special.mul_fx(a, b, n),
    "and": _word(np.bitwise_and),
    "or": _word(np.bitwise_or),
    "xor": _word(np.bitwise_xor),
    "shl": _shift(lambda a, b: a.astype(np.int64) << b, 32),
    "shr": _shift(lambda a, b: a.astype(np.int64) >> b, 32),
    "sar": _shift(lambda a, b: _i(a).astype(np.int64) >> b, 31),
    "clz": _word(_clz),
    "popcount": _word(lambda a, b: np.bitwise_count(a)),
    "i32_f32": lambda a, b, c, n: _bits(_i(a).astype(np.float32)),
    "u32_f32": lambda a, b, c, n: _bits(a.astype(np.float32)),
    "f32_i32": lambda a, b, c, n: _to_int(a, -(2**31), 2**31 - 1),
    "f32_u32": lambda a, b, c, n: _to_int(a, 0, 2**32 - 1),
    "f32_bf16": lambda a, b, c, n: _bits(numerics.bf16_to_f32(numerics.f32_to_bf16(_f(a)))),
}

#: Operations of one lane.
LANE_OPERATIONS = tuple(_FUNCTIONS)


def alu(name: str, a, b=0, c=0, n: int = 0) -> Lanes:
    """One lane's operation on uint32 bits.

    Raises
    ------
    ValueError
        If `name` is no operation of one lane.
    """
    if name not in _FUNCTIONS:
        raise ValueError(f"operation must be one of {', '.join(LANE_OPERATIONS)}, not {name!r}")
    a, b, c = (np.ascontiguousarray(v) for v in np.broadcast_arrays(*map(np.uint32, (a, b, c))))
    return _FUNCTIONS[name](a, b, c, n)


def across(name: str, x: Lanes, n: int) -> Lanes:
    """``rotate`` or ``broadcast`` of lanes, the last axis of `x`."""
    dim = x.shape[-1]
    if name == "rotate":
        return np.roll(x, -(n % dim), axis=-1)
    if name == "broadcast":
        return np.broadcast_to(x[..., n % dim, None], x.shape).copy()
    raise ValueError(f"operation must be rotate or broadcast, not {name!r}")
