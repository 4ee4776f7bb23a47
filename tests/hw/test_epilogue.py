"""The epilogue lanes against `sim.numerics.epilogue`, with controls that change every row."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from tilewright.hw.epilogue import NEUTRAL, Epilogue, Out32
from tilewright.isa.timing import EPILOGUE_LATENCY, EPILOGUE_SHORT
from tilewright.sim import numerics as nm

_spec = importlib.util.spec_from_file_location("vsim", Path(__file__).parent / "vsim.py")
vsim = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(vsim)

SPECIAL = np.array([
    0, 0x80000000, 1, 0x807FFFFF, 0x3F800000, 0xBF000000, 0x7F800000, 0xFF800000, 0x7FFFFFFF,
    0x4F000000, 0xCF000000, 0x43000000, 0x42FF0000, 0x7F7FFFFF, 0x00800000, 0x3FC00000,
], np.uint32)  # fmt: skip


def floats(rng, shape, scale):
    x = (rng.normal(size=shape) * scale).astype(np.float32).view(np.uint32)
    return np.where(rng.random(shape) < 0.1, rng.choice(SPECIAL, shape), x).astype(np.uint32)


def stimulus(count, dim, rng):
    """One random setting per row; returns the ports' arrays."""
    is_float = rng.integers(0, 2, count).astype(np.uint8)
    int_path = ((rng.random(count) < 0.4) & (is_float == 0)).astype(np.uint8)
    small = rng.integers(-400, 400, (count, dim)).astype(np.int32)
    wide = rng.integers(-(2**31), 2**31, (count, dim)).astype(np.int32)
    ints = np.where(rng.random((count, 1)) < 0.5, small, wide).view(np.uint32)
    row = np.where(is_float[:, None], floats(rng, (count, dim), 300), ints)
    lo, hi = floats(rng, count, 100), floats(rng, count, 300)
    bounds = rng.integers(-1000, 1000, (2, count)).astype(np.int32).view(np.uint32)
    lo, hi = (np.where(int_path, b, f) for b, f in zip(bounds, (lo, hi), strict=True))
    open_lo = np.where(int_path, NEUTRAL["int_lo"], NEUTRAL["lo"])
    open_hi = np.where(int_path, NEUTRAL["int_hi"], NEUTRAL["hi"])
    lo = np.where(rng.random(count) < 0.5, open_lo, lo).astype(np.uint32)
    hi = np.where(rng.random(count) < 0.5, open_hi, hi).astype(np.uint32)
    zero = np.where(rng.random(count) < 0.5, rng.integers(-128, 256, count),
                    rng.integers(-(2**31), 2**31, count)).astype(np.int32)  # fmt: skip
    out = rng.integers(0, np.where(int_path, 3, 5), count).astype(np.uint8)
    valid = rng.integers(0, 2, count).astype(np.uint8)
    fits = (int_path == 1) | ((is_float == 1) & (out >= Out32.BF16.value))
    return {
        "i_valid": valid,
        "i_short": short_ways(valid, fits & (rng.random(count) < 0.8)),
        "i_tag": (np.arange(count) & 0xFF).astype(np.uint8),
        "i_row": row.astype(np.uint32),
        "i_float": is_float,
        "i_int_path": int_path,
        "i_ibias": np.where(rng.random((count, 1)) < 0.3, 0, wide[::-1].view(np.uint32)),
        "i_scale": np.where(rng.random((count, 1)) < 0.3, np.uint32(NEUTRAL["scale"]),
                            floats(rng, (count, dim), 1)),
        "i_bias": np.where(rng.random((count, 1)) < 0.3, np.uint32(NEUTRAL["bias"]),
                           floats(rng, (count, dim), 50)),
        "i_lo": lo,
        "i_hi": hi,
        "i_zero_point": zero.view(np.uint32),
        "i_out": out,
    }  # fmt: skip


def short_ways(valid, wanted):
    """Those of the wanted rows that may go the short way: no long one's result comes then."""
    short = np.zeros_like(valid)
    for i in range(len(valid)):
        other = i - (EPILOGUE_LATENCY - EPILOGUE_SHORT)
        short[i] = wanted[i] and (other < 0 or not valid[other] or short[other])
    return short


def expected(s, i):
    """Row `i` through `sim.numerics.epilogue`; neutral operands are given as None."""
    short = bool(s["i_short"][i])

    def operand(name, dtype):
        x = s[f"i_{name}"][i]
        return None if short or (x == NEUTRAL[name]).all() else x.view(dtype)

    integer = bool(s["i_int_path"][i])
    kind = np.int32 if integer else np.float32
    bounds = [None if short else s[n][i : i + 1].view(kind)[0] for n in ("i_lo", "i_hi")]
    name = Out32(s["i_out"][i]).name.lower()
    spec = nm.Epilogue(
        int_path=integer,
        ibias=None if s["i_float"][i] else operand("ibias", np.int32),
        scale=None if integer else operand("scale", np.float32),
        bias=None if integer else operand("bias", np.float32),
        lo=bounds[0],
        hi=bounds[1],
        zero_point=int(s["i_zero_point"][i : i + 1].view(np.int32)[0]),
        out=name,
    )
    got = nm.epilogue(s["i_row"][i].view(np.float32 if s["i_float"][i] else np.int32), spec)
    if name in ("bf16", "fp32"):
        return got.view(np.uint16 if name == "bf16" else np.uint32).astype(np.uint32)
    return got.astype(np.int32).view(np.uint32)


@pytest.mark.parametrize("dim", [2, 4])
def test_epilogue_equals_numerics_row_by_row(dim):
    rng = np.random.default_rng(dim)
    s = stimulus(6000, dim, rng)
    model = vsim.build(Epilogue(dim, tag_width=8))
    got = model.run(s, ["o_row", "o_valid", "o_tag"])
    n = len(s["i_valid"]) - EPILOGUE_LATENCY
    rows = got["o_row"].reshape(-1, dim)
    valid = np.zeros_like(got["o_valid"])
    assert s["i_short"][s["i_valid"] == 1].sum() > 500
    for i in np.flatnonzero(s["i_valid"][:n]):
        at = i + (EPILOGUE_SHORT if s["i_short"][i] else EPILOGUE_LATENCY)
        valid[at] = 1
        assert got["o_tag"][at] == s["i_tag"][i]
        want = expected(s, i)
        assert (rows[at] == want).all(), (i, {k: v[i] for k, v in s.items()}, rows[at], want)
    assert (got["o_valid"][EPILOGUE_LATENCY:n] == valid[EPILOGUE_LATENCY:n]).all()
