"""Gemmini's tests of matrix products, weight-stationary: full-range, ragged, every layout."""

import ml_dtypes
import numpy as np
import pytest

from tests.gemmini.bench import (
    ACTIVATIONS,
    Bench,
    activations,
    every_chip,
    product,
    requantise,
    wrap,
)
from tests.gemmini.tiling import move, tiled

TYPES = {"i8": np.int8, "u8": np.uint8, "bf16": ml_dtypes.bfloat16}


def bf16_product(a, w, dim):
    """fp32 in the chip's order: from +0, products from row 0 down, then blocks of `dim`."""
    a, w = a.astype(np.float32), w.astype(np.float32)
    total = None
    for low in range(0, a.shape[1], dim):
        column = np.zeros((a.shape[0], w.shape[1]), np.float32)
        for k in range(low, min(low + dim, a.shape[1])):
            column = column + a[:, k, None] * w[k]
        total = column if total is None else total + column
    return total


@every_chip
@pytest.mark.parametrize("types", ["i8*i8", "i8*u8", "u8*i8", "u8*u8", "bf16*bf16"])
def test_matmul(chip, types):
    """One macro tile of ragged sides, each pair of operand types, the sums whole."""
    b = Bench(chip)
    d = b.dim
    m, k, n = 2 * d + 1, 3 * d - 1, d + 1
    kinds = types.split("*")
    if kinds[0] == "bf16":
        a, w = (
            (b.rng.standard_normal(s) * 2.0 ** b.rng.integers(-12, 12, s)).astype(TYPES["bf16"])
            for s in ((m, k), (k, n))
        )
        out, conv, size, kind = b.room(m, n, dtype=np.float32), "copy16", 2, "f32->f32"
    else:
        a, w = b.random(m, k, dtype=TYPES[kinds[0]]), b.random(k, n, dtype=TYPES[kinds[1]])
        out, conv, size, kind = b.room(m, n, dtype=np.int32), "copy8", 1, "i32->i32, int_path"
    a_at, w_at, at = b.put(a), b.put(w), 4 * b.config.spad_bank
    b += f"load spad[0], dram[{a_at.address}], {conv}, c0={k} c1={m} s1={a_at.pitch} \
l0={m * size} l1={size} ; done s0"
    b += f"load spad[{at}], dram[{w_at.address}], {conv}, c0={n} c1={k} s1={w_at.pitch} \
l0={3 * d * size} l1={size} ; done s0"
    b += f"matmul acc[3], spad[0], spad[{at}], {types}, r0={m} as0={size} ak={m * size} ws={size} \
wk={d * size} wn={3 * d * size} k={k} n={n} cn={m} ; wait s0>=2 ; done s1"
    b += f"store dram[{out.address}], acc[3], {kind} c0={n} c1={m} l0={m} l1=1 s1={4 * n} \
; wait s1>=1"
    result = b.run()
    want = bf16_product(a, w, d) if kinds[0] == "bf16" else wrap(product(a, w))
    np.testing.assert_array_equal(result.read(out), want)
    assert result.run.counters["macs_useful"] == m * k * n


@every_chip
@activations
def test_matmul_ws(chip, activation):
    """Eight products in a chain: new weights or the same, with D or zeros, fresh or accumulated."""
    b = Bench(chip, seed=len(activation))
    d, rng = b.dim, b.rng
    flags, low, high = ACTIVATIONS[activation]
    a, w, extra = (b.random(2, d, d) for _ in range(3))
    scales = np.array([0, 0.5, 1, 1.5, 2.0**-6, -(2.0**-7)], np.float32)
    bank, acc = b.config.spad_bank, 64
    places = {"a": 0, "w": bank, "extra": 2 * bank, "one": 3 * bank}
    for name, x in (("a", a), ("w", w), ("extra", extra), ("one", np.eye(d, dtype=np.int8))):
        move(b, places[name], b.put(x).address, x.size // d, d, d, 1)
    for i, scale in enumerate(scales):
        bits = int(scale.view(np.uint32))
        b += f"load acc[{i}], copy32, fill c0={d} value={bits} ; done s2"
    totals, targets, count, weights = [], [acc], 0, 0
    shape = f"r0={d} as0=1 ws=1 k={d} n={d}"
    for g in range(8):
        fresh, add, accumulate = rng.integers(0, 2, 3) if g else (1, 1, 0)
        weights = g // 2 % 2 if fresh else weights
        if g and not accumulate:
            targets.append(acc + g * d)
        target = targets[-1]
        total = product(a[g // 4], w[weights])
        total = total + (totals.pop() if accumulate else 0)
        flag = "acc" if accumulate else ""
        if add:
            total = total + extra[g % 2]
            b += f"matmul acc[{target}], spad[{places['one']}], \
spad[{places['extra'] + g % 2 * d}], i8*i8, {flag} {shape} {'' if g else '; wait s0>=4'} ; done s1"
            flag, count = "acc", count + 1
        b += f"matmul acc[{target}], spad[{g // 4 * d}], spad[{bank + weights * d}], i8*i8, \
{flag} {shape} ; done s1"
        count += 1
        totals.append(total)
    out = b.room(len(totals), len(scales), d, d)
    for i, at in enumerate(targets):
        for j in range(len(scales)):
            first = f"; wait s1>={count} ; wait s2>={len(scales)}" if i == j == 0 else ""
            b += f"store dram[{out.address + (i * len(scales) + j) * d * d}], acc[{at}], i32->i8, \
scale {flags} c0={d} c1={d} l1=1 s1={d} vec={j} {first}"
    want = [[requantise(wrap(t), s, low, high) for s in scales] for t in totals]
    np.testing.assert_array_equal(b.run().read(out), want)


@every_chip
@pytest.mark.parametrize("operand", ["A", "B", "D"])
def test_raw_hazard(chip, operand):
    """Ten products, each of which needs the one before: as activations, weights, accumulator."""
    b = Bench(chip)
    d, bank = b.dim, b.config.spad_bank
    x, step = b.random(d, d), b.rng.integers(-30, 31, (d, d)).astype(np.int8)
    out = b.room(d, d)
    for place, value in enumerate((x, step, np.eye(d, dtype=np.int8))):
        move(b, place * bank, b.put(value).address, d, d, d, 1)
    shape = f"as0=1 ws=1 k={d} n={d}"
    want = x.astype(np.int64)
    if operand == "D":
        for row in range(d):  # one row at a time: the shortest distance there can be
            b += f"matmul acc[{row}], spad[{2 * bank + row}], spad[0], i8*i8, r0=1 {shape} \
{'' if row else '; wait s0>=3'}"
            for n in range(10):
                signal = "; done s1" if row == d - 1 and n == 9 else ""
                b += f"matmul acc[{row}], spad[{2 * bank + row}], spad[{bank}], i8*i8, acc r0=1 \
{shape} {signal}"
        want = np.clip(want + 10 * step.astype(np.int64), -128, 127)
    else:
        moving = (0, 2 * bank) if operand == "A" else (2 * bank, 0)
        for n in range(10):
            ready = "; wait s2>=1" if n else "; wait s0>=3"
            b += f"matmul acc[0], spad[{2 * bank}], spad[{bank}], i8*i8, r0={d} {shape} {ready}"
            b += f"matmul acc[0], spad[{moving[0]}], spad[{moving[1]}], i8*i8, acc r0={d} {shape} \
; done s1"
            b += f"store spad[0], acc[0], i32->i8, int_path c0={d} c1={d} l1=1 s1=1 ; wait s1>=1 \
; done s2"
            want = np.clip(want + step, -128, 127)
    if operand == "D":
        b += f"store dram[{out.address}], acc[0], i32->i8, int_path c0={d} c1={d} l1=1 s1={d} \
; wait s1>=1"
    else:
        b += "fence"
        b += f"store dram[{out.address}], spad[0], i8->i8, c0={d} c1={d} l1=1 s1={d}"
    np.testing.assert_array_equal(b.run().read(out), want)


def _sides(b):
    """M, K, N and a tile: two tiles or more each way, every one ragged at its end."""
    d = b.dim
    return (5 * d + 1, 6 * d - 1, 5 * d + 3), (2 * d + 1, 4 * d, 3 * d)


def _scales(b, n):
    scales = b.rng.uniform(0.0005, 0.02, (1, n)).astype(np.float32)
    return scales, b.put(scales)


@every_chip
@activations
def test_tiled_matmul_ws(chip, activation):
    """Tiles of a ragged product with a bias that repeats, scales, activation, int8 out."""
    b = Bench(chip)
    (m, k, n), tile = _sides(b)
    a, w, d = b.random(m, k), b.random(k, n), b.rng.integers(-9999, 9999, (1, n), np.int32)
    scales, at = _scales(b, n)
    flags, low, high = ACTIVATIONS[activation]
    out = b.room(m, n, pitch=n + 5, skew=3)
    tiled(b, b.put(a, pitch=k + 3), b.put(w, skew=1), out, tile, d=b.put(d), repeat=True,
          scales=at, flags=flags)  # fmt: skip
    got = b.run().read(out)
    np.testing.assert_array_equal(got, requantise(product(a, w) + d, scales, low, high))


@every_chip
def test_tiled_matmul_ws_At(chip):
    """The left operand lies transposed in DRAM."""
    b = Bench(chip)
    (m, k, n), tile = _sides(b)
    tile = (2 * b.dim, *tile[1:])
    a, w = b.random(m, k), b.random(k, n)
    scales, at = _scales(b, n)
    out = b.room(m, n)
    tiled(b, b.put(a.T), b.put(w), out, tile, a_transposed=True, scales=at)
    np.testing.assert_array_equal(b.run().read(out), requantise(product(a, w), scales))


@every_chip
def test_tiled_matmul_ws_Bt(chip):
    """The right operand lies transposed in DRAM."""
    b = Bench(chip)
    (m, k, n), tile = _sides(b)
    a, w = b.random(m, k), b.random(k, n)
    scales, at = _scales(b, n)
    out = b.room(m, n)
    tiled(b, b.put(a), b.put(w.T, pitch=k + 2), out, tile, w_transposed=True, scales=at)
    np.testing.assert_array_equal(b.run().read(out), requantise(product(a, w), scales))


@every_chip
def test_tiled_matmul_ws_full_C(chip):
    """All 32 bits of the sums, with a bias that makes them wrap."""
    b = Bench(chip)
    (m, k, n), tile = _sides(b)
    a, w, d = b.random(m, k), b.random(k, n), b.random(m, n, dtype=np.int32)
    d[0] = 2**31 - 1
    out = b.room(m, n, dtype=np.int32, pitch=4 * n + 8)
    tiled(b, b.put(a), b.put(w), out, tile, d=b.put(d), kind="i32", path="int_path")
    np.testing.assert_array_equal(b.run().read(out), wrap(product(a, w) + d))


@every_chip
def test_tiled_matmul_ws_low_D(chip):
    """A bias matrix of int8."""
    b = Bench(chip)
    (m, k, n), tile = _sides(b)
    a, w, d = b.random(m, k), b.random(k, n), b.random(m, n)
    out = b.room(m, n, dtype=np.int32)
    tiled(b, b.put(a), b.put(w), out, tile, d=b.put(d, pitch=n + 1), kind="i32", path="int_path")
    np.testing.assert_array_equal(b.run().read(out), wrap(product(a, w) + d))


@every_chip
@activations
def test_tiled_matmul_option(chip, activation):
    """Activation, bias, scale: what Gemmini's option sweeps, without OS and CPU."""
    flags, low, high = ACTIVATIONS[activation]
    for seed, (bias, scaled) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        b = Bench(chip, seed)
        m, k, n = b.dim + 1, 2 * b.dim, 2 * b.dim - 1
        a, w, d = b.random(m, k), b.random(k, n), b.words(m, n) * bias
        scales, at = _scales(b, n)
        out = b.room(m, n)
        tiled(b, b.put(a), b.put(w), out, (m, b.dim, b.dim), d=b.put(d) if bias else None,
              scales=at if scaled else None, flags=flags)  # fmt: skip
        want = requantise(wrap(product(a, w) + d), scales if scaled else 1, low, high)
        np.testing.assert_array_equal(b.run().read(out), want)


@pytest.mark.parametrize("chip, least", [("tw4", 0.80), ("tw8", 0.80)])
def test_tiled_matmul_ws_perf(chip, least):
    """Cycles: equal on both engines with a clock, and most of them multiply."""
    b = Bench(chip)
    m, k, n = (12 * b.dim, 16 * b.dim, 8 * b.dim)
    a, w = b.random(m, k), b.random(k, n)
    scales, at = _scales(b, n)
    out = b.room(m, n)
    tiled(b, b.put(a), b.put(w), out, (6 * b.dim, 8 * b.dim, 4 * b.dim), scales=at)
    result = b.run()
    np.testing.assert_array_equal(result.read(out), requantise(product(a, w), scales))
    useful = result.run.counters["macs_useful"]
    assert useful == m * k * n and result.run.counters["macs_padding"] == 0
    assert useful / (b.dim**2 * result.run.cycles) >= least, result.run.cycles
