"""The chip's arithmetic in NumPy, bit for bit: the reference of every engine and of the RTL.

bf16 and fp32 round to nearest even. A subnormal input counts as zero with its sign; a non-zero
exact result below 2^-126 becomes zero with its sign before rounding; every NaN is 0x7fc00000.
int32 wraps. The order of additions is architecture (DESIGN §4): see `matmul_bf16`.
Arrays are float32, int32, or `ml_dtypes.bfloat16`; nothing here knows a clock or a memory.
"""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

bfloat16 = ml_dtypes.bfloat16

CANONICAL_NAN = np.uint32(0x7FC00000)
MIN_NORMAL = np.float32(2.0**-126)
INT_RANGE = {"int8": (-128, 127), "uint8": (0, 255), "int32": (-(2**31), 2**31 - 1)}
OUTPUTS = ("int8", "uint8", "int32", "bf16", "fp32")

_SIGN = np.uint32(0x80000000)
_EXPONENT = np.uint32(0x7F800000)
_BLOCK = 1 << 14  # elements of a rank-1 update's tile: 64 KiB, so that tile and product stay in L2
_quiet = np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore")


def canonical(x):
    """Return float32 `x` with subnormals made zero (sign kept) and every NaN made 0x7fc00000."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    exponent = bits & _EXPONENT
    bits = np.where(exponent == 0, bits & _SIGN, bits)
    special = (exponent == _EXPONENT) & ((bits & np.uint32(0x7FFFFF)) != 0)
    return np.where(special, CANONICAL_NAN, bits).view(np.float32).reshape(np.shape(x))


@_quiet
def f32_add(a, b):
    """fp32 sum. Sums below 2^-126 are exact in fp32, so flushing afterwards is flushing before."""
    return canonical(canonical(a) + canonical(b))


@_quiet
def f32_mul(a, b):
    """fp32 product: the exact float64 product decides about underflow, then is rounded once."""
    exact = canonical(a).astype(np.float64) * canonical(b).astype(np.float64)
    tiny = np.abs(exact) < float(MIN_NORMAL)
    return canonical(np.where(tiny, np.copysign(0.0, exact), exact).astype(np.float32))


def f32_to_bf16(x):
    """Round float32 to `bfloat16`, to nearest even."""
    bits = canonical(x).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = np.where(bits == CANONICAL_NAN, bits, rounded)  # the only NaN left; must not carry
    return (rounded >> np.uint32(16)).astype(np.uint16).view(bfloat16)


def f32_parts(x):
    """Three `bfloat16` whose sum is float32 `x`, unless a part flushes: high, middle, low.

    Each is the rounded rest of those before; middle and low are +0 where high is not finite.
    """
    high = f32_to_bf16(x)
    rest = np.where(np.isfinite(bf16_to_f32(high)), f32_add(x, -bf16_to_f32(high)), np.float32(0))
    middle = f32_to_bf16(rest)
    return high, middle, f32_to_bf16(f32_add(rest, -bf16_to_f32(middle)))


def bf16_to_f32(x):
    """Widen `bfloat16` (or take float32 as it is), subnormals made zero and NaNs canonical."""
    x = np.asarray(x)
    if x.dtype == bfloat16:
        bits = np.ascontiguousarray(x).view(np.uint16).astype(np.uint32)
        x = (bits << np.uint32(16)).view(np.float32).reshape(x.shape)
    return canonical(x)


def i32_to_f32(x):
    """Convert int32 to float32, to nearest even."""
    return np.asarray(x, dtype=np.int32).astype(np.float32)


def f32_to_i32(x):
    """Convert float32 to int32: to nearest even, saturating, NaN gives 0."""
    wide = np.rint(canonical(x).astype(np.float64))
    wide = np.where(np.isnan(wide), 0.0, wide)
    return np.clip(wide, *INT_RANGE["int32"]).astype(np.int32)


def _order(bits):
    """Map float bits (uint32, no NaN) to int32 that orders like the numbers, -0 below +0."""
    signed = bits.view(np.int32)
    return np.where(signed < 0, signed ^ np.int32(0x7FFFFFFF), signed)


def _pick(a, b, smaller):
    a, b = np.broadcast_arrays(canonical(a), canonical(b))
    a, b = (np.ascontiguousarray(v).view(np.uint32) for v in (a, b))
    take_a = _order(a) <= _order(b) if smaller else _order(a) >= _order(b)
    nan = (a == CANONICAL_NAN) | (b == CANONICAL_NAN)
    return np.where(nan, CANONICAL_NAN, np.where(take_a, a, b)).view(np.float32)


def f32_min(a, b):
    """Smaller of two fp32 values; a NaN wins, -0 is below +0."""
    return _pick(a, b, smaller=True)


def f32_max(a, b):
    """Larger of two fp32 values; a NaN wins, -0 is below +0."""
    return _pick(a, b, smaller=False)


def f32_clamp(x, lo=None, hi=None):
    """``min(max(x, lo), hi)``; None leaves that side open."""
    x = canonical(x)
    if lo is not None:
        x = f32_max(x, np.float32(lo))
    if hi is not None:
        x = f32_min(x, np.float32(hi))
    return x


def wrap_add(a, b):
    """int32 sum modulo 2^32."""
    with np.errstate(over="ignore"):
        return np.asarray(a, dtype=np.int32) + np.asarray(b, dtype=np.int32)


def _exponents(x):
    """Exponents (lowest, highest) of the non-zero `x`, None if all are zero; NaN and Inf: 128."""
    biased = (x.view(np.uint32) & _EXPONENT) >> np.uint32(23)
    high = int(biased.max(initial=0))
    if high == 0:
        return None
    low = int(np.where(biased == 0, np.uint32(255), biased).min())
    return low - 127, high - 127


def _plain(a, w):
    """Prove that no product and no partial sum of ``a @ w`` can flush, overflow or be NaN.

    Every product is a multiple of 2^(ea + ew - 14) (eight-bit significands), so every rounded
    partial sum is one too: at 2^-126 or above nothing is ever subnormal.
    """
    ea, ew = _exponents(a), _exponents(w)
    if ea is None or ew is None:
        return max(e[1] for e in (ea, ew, (0, 0)) if e is not None) < 128
    if max(ea[1], ew[1]) == 128:
        return False
    return ea[0] + ew[0] - 14 >= -126 and ea[1] + ew[1] + 3 + a.shape[1].bit_length() <= 126


@_quiet
def _sum_into(out, product, a, w, exact):
    """Add the products of all K rows in order to `out` (R, N); `exact` steps flush each result."""
    for k in range(w.shape[0]):
        np.multiply(a[k, :, None], w[k], out=product)
        if exact:
            product[...] = canonical(product)
        np.add(out, product, out=out)
        if exact:
            out[...] = canonical(out)


def column_sum(a, w, dim):
    """What the array's foot receives: ``(R, K) @ (K, N)`` for one tile of at most `dim` rows of W.

    Starts from +0 and adds the products from row 0 down, each sum rounded to fp32; rows K..dim of
    the array hold zeros.
    """
    if np.shape(a)[1] > dim:
        raise ValueError(f"K of one tile must be at most {dim}, not {np.shape(a)[1]}")
    return matmul_bf16(a, w, None, dim, False)


def matmul_bf16(a, w, acc, dim, accumulate):
    """Multiply bf16 matrices in the array's order of additions.

    K ascends in blocks of `dim`, the last one zero-padded; each block's column sum (from +0, row 0
    down) is then added to the accumulator. With `accumulate` false the first block overwrites it.

    Parameters
    ----------
    a, w : (R, K) and (K, N) arrays of bfloat16, or float32 that hold bf16 values
    acc : (R, N) float32, or None if `accumulate` is false
    dim : int

    Returns
    -------
    (R, N) float32
    """
    a, w = bf16_to_f32(a), bf16_to_f32(w)
    (rows, depth), cols = a.shape, w.shape[1]
    if w.shape[0] != depth:
        raise ValueError(f"rows of w must be {depth}, the columns of a, not {w.shape[0]}")
    exact = not _plain(a, w)
    add = f32_add
    if accumulate:
        acc = canonical(acc)
        span = _exponents(acc) or (0, 0)
        if not exact and span[0] - 23 >= -126 and span[1] <= 125:
            add = np.add
    elif not exact:
        add = np.add
    if cols < rows and cols < 64:  # keep the long side innermost
        return np.ascontiguousarray(
            _matmul(w.T, a.T, acc.T if accumulate else None, dim, exact, add).T
        )
    return _matmul(a, w, acc if accumulate else None, dim, exact, add)


def _matmul(a, w, acc, dim, exact, add):
    rows, depth, cols = a.shape[0], a.shape[1], w.shape[1]
    at = np.ascontiguousarray(a.T)
    w = np.ascontiguousarray(w)
    out = np.zeros((rows, cols), np.float32) if acc is None else np.array(acc, np.float32)
    step = max(1, _BLOCK // max(cols, 1))
    for r in range(0, rows, step):
        tile = out[r : r + step]
        partial, product = np.empty_like(tile), np.empty_like(tile)
        for k in range(0, depth, dim):
            partial[...] = 0
            _sum_into(partial, product, at[k : k + dim, r : r + step], w[k : k + dim], exact)
            if k + dim > depth:
                partial += np.float32(0)  # the padding's products: a flushed -0 becomes +0
            tile[...] = partial if k == 0 and acc is None else add(tile, partial)
    return out


def matmul_int8(a, w, acc, accumulate):
    """Multiply int8 or uint8 matrices exactly; the int32 accumulator wraps.

    Runs on float32 BLAS in K chunks so short that every partial sum stays within 2^24.

    Parameters
    ----------
    a, w : (R, K) and (K, N) arrays, each int8 or uint8
    acc : (R, N) int32, or None if `accumulate` is false
    """
    a, w = np.asarray(a), np.asarray(w)
    for name, v in (("a", a), ("w", w)):
        if v.dtype not in (np.int8, np.uint8):
            raise TypeError(f"{name} must be int8 or uint8, not {v.dtype}")
    peak = 1
    for v in (a, w):
        peak *= 128 if v.dtype == np.int8 else 255
    chunk = 2**24 // peak
    af, wf = a.astype(np.float32), w.astype(np.float32)
    out = np.asarray(acc, dtype=np.int32) if accumulate else None
    for k in range(0, max(a.shape[1], 1), chunk):
        part = (af[:, k : k + chunk] @ wf[k : k + chunk]).astype(np.int32)
        out = part if out is None else wrap_add(out, part)
    return out


@dataclass(frozen=True)
class Epilogue:
    """What STORE does to a row on its way out; None leaves a step out.

    Parameters
    ----------
    int_path : stay in int32 (no scale, no bias; out must be int8, uint8 or int32)
    ibias : (cols,) int32, added wrapping to an int32 source
    scale, bias : (cols,) float32
    lo, hi : clamp bounds, int32 on the int path, else float32
    zero_point : int32, added in wider arithmetic before saturation; unused for bf16 and fp32
    out : one of `OUTPUTS`
    """

    int_path: bool = False
    ibias: Any = None
    scale: Any = None
    bias: Any = None
    lo: Any = None
    hi: Any = None
    zero_point: int = 0
    out: str = "fp32"

    def __post_init__(self):
        if self.out not in OUTPUTS:
            raise ValueError(f"out must be one of {', '.join(OUTPUTS)}, not {self.out!r}")
        if self.int_path and self.out not in INT_RANGE:
            raise ValueError(f"out must be an integer type on the int path, not {self.out!r}")
        if self.int_path and (self.scale is not None or self.bias is not None):
            raise ValueError("scale and bias must be None on the int path")


def _saturate(x, spec):
    wide = x.astype(np.int64) + int(spec.zero_point)
    return np.clip(wide, *INT_RANGE[spec.out]).astype(spec.out)


def epilogue(x, spec):
    """Apply `spec` to rows ``x`` (rows, cols), int32 or float32.

    int32 → [+ ibias] → (int path: clamp) or (fp32 → [* scale] → [+ bias] → [clamp] → round);
    integers then [+ zero point] → saturate.

    Raises
    ------
    TypeError
        If `x` is neither int32 nor float32, or is float32 with `int_path` or `ibias`.
    """
    x = np.asarray(x)
    if x.dtype == np.int32:
        if spec.ibias is not None:
            x = wrap_add(x, spec.ibias)
        if spec.int_path:
            x = x if spec.lo is None else np.maximum(x, np.int32(spec.lo))
            x = x if spec.hi is None else np.minimum(x, np.int32(spec.hi))
            return _saturate(x, spec)
        x = i32_to_f32(x)
    elif x.dtype != np.float32:
        raise TypeError(f"x must be int32 or float32, not {x.dtype}")
    elif spec.int_path or spec.ibias is not None:
        raise TypeError("x must be int32 for the int path and for ibias, not float32")
    else:
        x = canonical(x)
    if spec.scale is not None:
        x = f32_mul(x, spec.scale)
    if spec.bias is not None:
        x = f32_add(x, spec.bias)
    x = f32_clamp(x, spec.lo, spec.hi)
    if spec.out == "fp32":
        return x
    return f32_to_bf16(x) if spec.out == "bf16" else _saturate(f32_to_i32(x), spec)
