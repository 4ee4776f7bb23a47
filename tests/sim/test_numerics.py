"""`sim.numerics` against exact rational arithmetic, float64 NumPy and ml_dtypes."""

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from tilewright.sim import numerics as nm

SPECIAL_BITS = [
    0x00000000, 0x80000000, 0x00000001, 0x807FFFFF, 0x00800000, 0x80800000, 0x00800001, 0x00FFFFFF,
    0x01000000, 0x3F800000, 0xBF800000, 0x3F800001, 0x3F7FFFFF, 0x3F000000, 0x3FC00000, 0x40200000,
    0x4B000000, 0x4B7FFFFF, 0x4EFFFFFF, 0x4F000000, 0xCF000000, 0xCF000001, 0x4F800000, 0x7F7FFFFF,
    0xFF7FFFFF, 0x7F7F8000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC12345, 0x7F800001, 0x1FFFFFFF,
    0x20000000, 0xA0000001, 0x2F800000, 0x3E4CCCCD,
]  # fmt: skip
NAN = 0x7FC00000


def value(bits):
    """Decode fp32 bits as ``(kind, sign, Fraction)``; a subnormal is zero."""
    sign, exp, man = bits >> 31, (bits >> 23) & 255, bits & 0x7FFFFF
    if exp == 255:
        return ("nan" if man else "inf"), sign, None
    if exp == 0:
        return "num", sign, Fraction(0)
    v = Fraction((1 << 23) | man) * Fraction(2) ** (exp - 150)
    return "num", sign, -v if sign else v


def encode(exact, zero_sign):
    """Round an exact rational to fp32 bits: flush below 2^-126, else nearest even."""
    sign = zero_sign if exact == 0 else int(exact < 0)
    mag = abs(exact)
    if mag < Fraction(1, 2**126):
        return sign << 31
    e = mag.numerator.bit_length() - mag.denominator.bit_length()
    e -= mag < Fraction(2) ** e
    man = round(mag / Fraction(2) ** (e - 23))  # Fraction rounds half to even
    if man == 1 << 24:
        man, e = 1 << 23, e + 1
    if e > 127:
        return sign << 31 | 0x7F800000
    return sign << 31 | (e + 127) << 23 | man - (1 << 23)


def ref_add(a, b):
    (ka, sa, va), (kb, sb, vb) = value(a), value(b)
    if "nan" in (ka, kb) or (ka == kb == "inf" and sa != sb):
        return NAN
    if "inf" in (ka, kb):
        return (sa if ka == "inf" else sb) << 31 | 0x7F800000
    return encode(va + vb, sa & sb if va == vb == 0 else 0)


def ref_mul(a, b):
    (ka, sa, va), (kb, sb, vb) = value(a), value(b)
    if "nan" in (ka, kb) or ("inf" in (ka, kb) and 0 in (va, vb)):
        return NAN
    if "inf" in (ka, kb):
        return (sa ^ sb) << 31 | 0x7F800000
    return encode(va * vb, sa ^ sb)


def pairs(count, seed):
    """All pairs of special values, random bits, and random values of near exponents."""
    rng = np.random.default_rng(seed)
    s = np.array(SPECIAL_BITS, np.uint32)
    a, b = (g.ravel() for g in np.meshgrid(s, s))
    ra = rng.integers(0, 2**32, count, dtype=np.uint32)
    rb = rng.integers(0, 2**32, count, dtype=np.uint32)
    exp = rng.integers(0, 255, count)
    near = np.clip(exp + rng.integers(-26, 27, count), 0, 254).astype(np.uint32)
    na = (ra & 0x807FFFFF) | (exp.astype(np.uint32) << 23)
    nb = (rb & 0x807FFFFF) | (near << 23)
    mb = (rb & 0x807FFFFF) | (np.clip(127 - exp + rng.integers(-4, 4, count), 0, 254) << 23)
    mb = mb.astype(np.uint32)
    return np.concatenate([a, ra, na, na]), np.concatenate([b, rb, nb, mb])


def bits(x):
    return np.asarray(x, np.float32).view(np.uint32)


@pytest.mark.parametrize("op, ref", [(nm.f32_add, ref_add), (nm.f32_mul, ref_mul)])
def test_add_and_mul_equal_rational_arithmetic(op, ref):
    a, b = pairs(4000, 1)
    got = bits(op(a.view(np.float32), b.view(np.float32)))
    want = np.array([ref(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)], np.uint32)
    bad = np.flatnonzero(got != want)
    assert not bad.size, [(hex(a[i]), hex(b[i]), hex(got[i]), hex(want[i])) for i in bad[:4]]


def test_products_just_below_the_smallest_normal_flush_before_rounding():
    a = np.uint32([0x3F7FFFFF]).view(np.float32)  # 1 - 2^-24
    assert bits(nm.f32_mul(a, np.float32(2.0**-126)))[0] == 0
    assert bits(nm.f32_mul(-a, np.float32(2.0**-126)))[0] == 0x80000000


def test_bf16_rounding_equals_ml_dtypes():
    a, _ = pairs(20000, 2)
    x = a.view(np.float32)
    got = nm.f32_to_bf16(x).view(np.uint16)
    flushed = np.where(np.abs(x) < 2.0**-126, np.copysign(np.float32(0), x), x)
    with np.errstate(invalid="ignore"):
        want = flushed.astype(ml_dtypes.bfloat16).view(np.uint16)
    assert (got == np.where(np.isnan(x), 0x7FC0, want)).all()


def test_int_conversions_round_to_even_and_saturate():
    x = np.float32([
        0.5, 1.5, 2.5, -0.5, -1.5, 2147483520.0, 2.0**31, -(2.0**31), -3e9, 1e-39,
        np.inf, -np.inf, np.nan, -2.500001,
    ])  # fmt: skip
    top = 2**31 - 1
    want = [0, 2, 2, 0, -2, 2147483520, top, -top - 1, -top - 1, 0, top, -top - 1, 0, -3]
    assert nm.f32_to_i32(x).tolist() == want
    ints = np.random.default_rng(3).integers(-(2**31), 2**31, 2000).astype(np.int32)
    want = [encode(Fraction(i), 0) for i in ints.tolist()]
    assert bits(nm.i32_to_f32(ints)).tolist() == want


def test_min_max_clamp_order_zeros_and_propagate_nan():
    a, b = pairs(3000, 4)
    lo, hi = (
        nm.f32_min(*(v.view(np.float32) for v in (a, b))),
        nm.f32_max(*(v.view(np.float32) for v in (a, b))),
    )

    def key(x):
        kind, sign, v = value(x)
        return (-math.inf if sign else math.inf, 0) if kind == "inf" else (v, -sign)

    for x, y, got_lo, got_hi in zip(a.tolist(), b.tolist(), bits(lo), bits(hi), strict=True):
        flush = [v & 0x80000000 if (v >> 23) & 255 == 0 else v for v in (x, y)]
        if "nan" in (value(x)[0], value(y)[0]):
            assert got_lo == got_hi == NAN
        else:
            assert got_lo == min(flush, key=key) and got_hi == max(flush, key=key)
    assert nm.f32_clamp(np.float32([-3, 0.5, 9]), 0, 6).tolist() == [0, 0.5, 6]
    assert bits(nm.f32_clamp(np.float32(np.nan), 0, 6)) == NAN


def ref_matmul(a, w, acc, dim, accumulate):
    """The architectural order, one bit-exact scalar operation at a time."""
    ab = bits(a.astype(np.float32)).tolist()
    wb = bits(w.astype(np.float32)).tolist()
    out = np.zeros((len(ab), len(wb[0])), np.uint32)
    for r, c in np.ndindex(out.shape):
        total = int(bits(acc)[r, c]) if accumulate else None
        for k in range(0, len(wb), dim):
            s = 0
            for i in range(k, k + dim):
                s = ref_add(s, ref_mul(ab[r][i], wb[i][c]) if i < len(wb) else 0)
            total = s if total is None else ref_add(total, s)
        out[r, c] = total
    return out


SOURCES = {
    "plain": lambda rng, shape: rng.normal(size=shape),
    "wide": lambda rng, shape: rng.normal(size=shape) * 2.0 ** rng.integers(-70, 70, shape),
    "tiny": lambda rng, shape: rng.normal(size=shape) * 2.0 ** rng.integers(-66, -60, shape),
    "zeros": lambda rng, shape: -0.0 * np.ones(shape),
    "special": lambda rng, shape: rng.choice(
        [1, -0.0, np.inf, -np.inf, np.nan, 3e38, 1e-39], shape
    ),
    "huge": lambda rng, shape: rng.normal(size=shape) * 2.0**64,
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("rows, depth, cols", [(3, 8, 5), (5, 11, 2), (1, 3, 4)])
@pytest.mark.parametrize("accumulate", [False, True])
def test_matmul_bf16_follows_the_architectural_order(source, rows, depth, cols, accumulate):
    rng = np.random.default_rng(5)
    a = SOURCES[source](rng, (rows, depth)).astype(ml_dtypes.bfloat16)
    w = SOURCES[source](rng, (depth, cols)).astype(ml_dtypes.bfloat16)
    acc = SOURCES[source](rng, (rows, cols)).astype(np.float32)
    got = bits(nm.matmul_bf16(a, w, acc, 4, accumulate))
    assert (got == ref_matmul(a, w, acc, 4, accumulate)).all()


def test_fast_and_exact_matmul_agree():
    rng = np.random.default_rng(6)
    a = rng.normal(size=(40, 50)).astype(ml_dtypes.bfloat16)
    w = rng.normal(size=(50, 70)).astype(ml_dtypes.bfloat16)
    fast = nm.matmul_bf16(a, w, None, 16, False)
    poisoned = np.vstack([a, np.full((1, 50), np.inf, ml_dtypes.bfloat16)])
    assert (bits(nm.matmul_bf16(poisoned, w, None, 16, False)[:40]) == bits(fast)).all()
    assert (bits(nm.matmul_bf16(a, w[:, :3], None, 16, False)) == bits(fast[:, :3])).all()


def test_column_sum_refuses_more_than_dim_rows():
    with pytest.raises(ValueError, match="K of one tile must be at most 4, not 5"):
        nm.column_sum(np.zeros((1, 5), np.float32), np.zeros((5, 1), np.float32), 4)


@pytest.mark.parametrize("types", [("i1", "i1"), ("u1", "i1"), ("i1", "u1"), ("u1", "u1")])
def test_matmul_int8_is_exact_and_wraps(types):
    rng = np.random.default_rng(7)
    a, w = (
        np.full(s, np.iinfo(t).max, t) for s, t in zip([(3, 1300), (1300, 4)], types, strict=True)
    )
    a[1], w[:, 1] = np.iinfo(types[0]).min, np.iinfo(types[1]).min
    a[2], w[:, 2] = (rng.integers(-100, 100, 1300).astype(t) for t in types)
    acc = rng.integers(-(2**31), 2**31, (3, 4)).astype(np.int32)
    acc[0] = 2**31 - 1
    want = a.astype(np.int64) @ w.astype(np.int64)
    assert (nm.matmul_int8(a, w, None, False) == want).all()
    wrapped = ((want + acc + 2**31) % 2**32 - 2**31).astype(np.int64)
    assert (nm.matmul_int8(a, w, acc, True) == wrapped).all()


def ref_epilogue(x, spec):
    """One element, in Python numbers; `x` int, or fp32 bits wrapped in a tuple."""
    if isinstance(x, int):
        x = (x + (spec.ibias or 0) + 2**31) % 2**32 - 2**31
        if spec.int_path:
            return saturate(min(max(x, spec.lo), spec.hi) + spec.zero_point, spec.out)
        x = (encode(Fraction(x), 0),)
    b = ref_add(ref_mul(x[0], int(bits(spec.scale))), int(bits(spec.bias)))
    kind, sign, v = value(b)
    if kind == "inf":
        v = Fraction(2) ** 200 * (-1 if sign else 1)
    if kind == "nan":
        return NAN if spec.out == "fp32" else saturate(spec.zero_point, spec.out)
    v = min(max(v, Fraction(float(spec.lo))), Fraction(float(spec.hi)))
    if spec.out == "fp32":
        return encode(v, sign)
    whole = min(max(round(v), -(2**31)), 2**31 - 1)
    return saturate(whole + spec.zero_point, spec.out)


def saturate(v, out):
    lo, hi = {"int8": (-128, 127), "uint8": (0, 255), "int32": (-(2**31), 2**31 - 1)}[out]
    return min(max(v, lo), hi)


@pytest.mark.parametrize("out", ["int8", "uint8", "int32", "fp32"])
@pytest.mark.parametrize("source", ["int32", "int32 int path", "fp32"])
def test_epilogue_equals_scalar_reference(out, source):
    rng = np.random.default_rng(8)
    if source == "int32 int path":
        if out == "fp32":
            with pytest.raises(ValueError, match="out must be an integer type"):
                nm.Epilogue(int_path=True, out=out)
            return
        spec = nm.Epilogue(True, 77, None, None, -70, 100, 5, out)
    else:
        ibias = 2**30 if source == "int32" else None
        scale, bias = np.float32(3.3e-7), np.float32(1.25)
        spec = nm.Epilogue(False, ibias, scale, bias, np.float32(-99.5), np.float32(300), -9, out)
    if source == "fp32":
        x = pairs(300, 9)[0]
        got = nm.epilogue(x.view(np.float32), spec)
        want = [ref_epilogue((v,), spec) for v in x.tolist()]
    else:
        x = np.r_[-(2**31), 2**31 - 1, rng.integers(-(2**31), 2**31, 500), -300:300]
        x = x.astype(np.int32)
        got = nm.epilogue(x, spec)
        want = [ref_epilogue(v, spec) for v in x.tolist()]
    assert (bits(got) if out == "fp32" else got).tolist() == want


def test_epilogue_takes_one_vector_per_column():
    x = np.arange(6, dtype=np.int32).reshape(2, 3)
    vector = np.float32([1, 10, 100])
    spec = nm.Epilogue(ibias=np.int32([0, 1, 2]), scale=vector, bias=-vector, out="bf16")
    want = [[-1, 10, 300], [2, 40, 600]]
    got = nm.epilogue(x, spec)
    assert got.dtype == ml_dtypes.bfloat16 and got.astype(int).tolist() == want


def test_epilogue_refuses_floats_on_the_int_path():
    with pytest.raises(TypeError, match="x must be int32 for the int path"):
        nm.epilogue(np.zeros((1, 1), np.float32), nm.Epilogue(int_path=True, out="int8"))
