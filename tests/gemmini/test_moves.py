"""Gemmini's tests of moves: what LOAD brings in, STORE takes out, in every shape and alignment."""

import numpy as np
import pytest

from tests.gemmini.bench import (
    ACTIVATIONS,
    JUNK,
    Bench,
    activations,
    blocks,
    every_chip,
    requantise,
    wrap,
)

TILES = 3


@every_chip
@pytest.mark.parametrize("how", ["copy8 i8->i8", "copy16 bf16->bf16"])
def test_mvin_mvout(chip, how):
    """Tiles of dim x dim come out as they went in (16 bits: all that are no NaN or subnormal)."""
    b = Bench(chip)
    conv, kind = how.split()
    dtype, wide = (np.int8, 1) if conv == "copy8" else (np.uint16, 2)
    d = b.dim
    x = b.random(TILES, d, d, dtype=dtype)
    if wide == 2:
        exponent = (x >> 7) & 0xFF
        x = np.where((exponent > 0) & (exponent < 255), x, 0x3F80).astype(np.uint16)
    source, out = b.put(x), b.room(TILES, d, d, dtype=dtype)
    for n in range(TILES):
        tile = f"c0={d} c1={d} s1={d * wide} l1={wide}"
        at, offset = n * d * wide, n * d * d * wide
        b += f"load spad[{at}], dram[{source.address + offset}], {conv}, {tile} ; done s0"
        b += f"store dram[{out.address + offset}], spad[{at}], {kind}, {tile} ; wait s0>=1"
    np.testing.assert_array_equal(b.run().read(out), x)


@every_chip
@pytest.mark.parametrize("value", [0, -1, 127, -128])
def test_mvin_mvout_zeros(chip, value):
    """A fill reads nothing, and leaves nothing of what was there."""
    b = Bench(chip)
    d = b.dim
    width = 2 * d + 1
    source, out = b.put(b.random(d, 3 * d)), b.room(d, 3 * d)
    b += f"load spad[0], dram[{source.address}], copy8, c0={3 * d} c1={d} s1={3 * d} l0=1 l1=3"
    b += f"load spad[0], copy8, fill c0={width} c1={d} l0=1 l1=3 value={value & 0xFF} ; done s0"
    b += f"store dram[{out.address}], spad[0], i8->i8, c0={3 * d} c1={d} l0=1 l1=3 s1={3 * d} \
; wait s0>=1"
    result = b.run()
    want = np.zeros((d, 3 * d), np.int8)
    want[:, :width] = value
    np.testing.assert_array_equal(result.read(out), want)
    assert result.run.counters["beats_read"] == d * 3 * d // b.config.bus_bytes


@every_chip
def test_mvin_mvout_stride(chip):
    """Columns of a wide matrix, read and written with a pitch."""
    b = Bench(chip)
    d = b.dim
    x = b.random(d, TILES * d)
    source = b.put(x, pitch=TILES * d + 5)
    out = b.room(d, TILES * d, pitch=TILES * d + 3)
    for n in range(TILES):
        tile = f"c0={d} c1={d} l1={TILES}"
        b += f"load spad[{n}], dram[{source.address + n * d}], copy8, {tile} s1={source.pitch} \
; done s0"
        b += f"store dram[{out.address + n * d}], spad[{n}], i8->i8, {tile} s1={out.pitch} \
; wait s0>=1"
    np.testing.assert_array_equal(b.run().read(out), x)


@every_chip
@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_mvin_mvout_block_stride(chip, columns):
    """One LOAD of rows wider than dim puts each block of columns where the block stride says."""
    b = Bench(chip)
    d = b.dim
    gap = d + 3
    x = b.random(d, columns * d)
    source, out, back = b.put(x), b.room(d, columns * d), b.room(columns, d, d)
    b += f"load spad[0], dram[{source.address}], copy8, c0={columns * d} c1={d} s1={columns * d} \
l0={gap} l1=1 ; done s0"
    b += f"store dram[{out.address}], spad[0], i8->i8, c0={columns * d} c1={d} l0={gap} l1=1 \
s1={columns * d} ; wait s0>=1"
    b += f"store dram[{back.address}], spad[0], i8->i8, c0={d} c1={d} c2={columns} l1=1 l2={gap} \
s1={d} s2={d * d}"
    result = b.run()
    np.testing.assert_array_equal(result.read(out), x)
    split = x.reshape(d, columns, d).transpose(1, 0, 2)
    np.testing.assert_array_equal(result.read(back), split)


def _scales(b, values):
    """Rows of the accumulator that hold one scale for every column, from row 0 on; their count."""
    for i, value in enumerate(values):
        bits = int(np.float32(value).view(np.uint32))
        b += f"load acc[{i}], copy32, fill c0={b.dim} value={bits} ; done s7"
    return len(values)


@every_chip
@activations
def test_mvin_mvout_acc(chip, activation):
    """int32 in, int8 out: scale, activation, rounding, saturation."""
    b = Bench(chip)
    d = b.dim
    flags, low, high = ACTIVATIONS[activation]
    scales = [1, 0.5, 2.0**-8, 0.0078, -1.5, 2.0**-24]
    first = _scales(b, scales)
    x = b.words(len(scales), d, d)
    source, out = b.put(x), b.room(*x.shape)
    for n in range(len(scales)):
        at = first + n * d
        b += f"load acc[{at}], dram[{source.address + 4 * n * d * d}], copy32, c0={d} c1={d} \
s1={4 * d} l1=1 ; done s7"
        b += f"store dram[{out.address + n * d * d}], acc[{at}], i32->i8, scale {flags} c0={d} \
c1={d} l1=1 s1={d} vec={n} ; wait s7>={1 if n else len(scales) + 1}"
    got = b.run().read(out)
    for n, scale in enumerate(scales):
        np.testing.assert_array_equal(got[n], requantise(x[n], scale, low, high))


@every_chip
@pytest.mark.parametrize("repeat", ["inner", "outer"])
def test_mvin_mvout_acc_zero_stride(chip, repeat):
    """A stride of 0 gives one row of DRAM to many rows of the accumulator."""
    b = Bench(chip)
    d = b.dim
    x = b.words(TILES, 1, d + 1)
    source, out = b.put(x), b.room(TILES, d, d + 1, dtype=np.int32)
    rows = (
        f"c1={d} c2={TILES} s1=0 s2={4 * d + 4} l1=2 l2={2 * d}"
        if repeat == "inner"
        else f"c1={TILES} c2={d} s1={4 * d + 4} s2=0 l1={2 * d} l2=2"
    )
    b += f"load acc[0], dram[{source.address}], copy32, c0={d + 1} l0=1 {rows} ; done s0"
    b += f"store dram[{out.address}], acc[0], i32->i32, int_path c0={d + 1} c1={TILES * d} l0=1 \
l1=2 s1={4 * d + 4} ; wait s0>=1"
    np.testing.assert_array_equal(b.run().read(out), np.broadcast_to(x, out.shape))


@every_chip
@activations
def test_mvin_mvout_acc_stride(chip, activation):
    """int32 columns of a wide matrix to int8 columns of another."""
    b = Bench(chip)
    d = b.dim
    flags, low, high = ACTIVATIONS[activation]
    x = b.words(d, TILES * d)
    source = b.put(x, pitch=4 * (TILES * d + 3))
    out = b.room(d, TILES * d, pitch=TILES * d + 7, skew=3)
    for n in range(TILES):
        b += f"load acc[{n * d}], dram[{source.address + 4 * n * d}], copy32, c0={d} c1={d} \
s1={source.pitch} l1=1 ; done s0"
        b += f"store dram[{out.address + n * d}], acc[{n * d}], i32->i8, {flags} c0={d} c1={d} \
l1=1 s1={out.pitch} ; wait s0>=1"
    np.testing.assert_array_equal(b.run().read(out), requantise(x, 1, low, high))


@every_chip
@pytest.mark.parametrize("kind", ["i32", "f32"])
def test_mvin_mvout_acc_full(chip, kind):
    """All 32 bits come out: integers, and floats (no NaN, no subnormal, which the chip flushes)."""
    b = Bench(chip)
    d = b.dim
    x = b.random(TILES, d, d, dtype=np.int32)
    if kind == "f32":
        exponent = (x >> 23) & 0xFF
        x = np.where((exponent > 0) & (exponent < 255), x, 0x3F800000).astype(np.int32)
    source, out = b.put(x), b.room(TILES, d, d, dtype=np.int32)
    path = "int_path" if kind == "i32" else ""
    for n in range(TILES):
        tile, offset = f"c0={d} c1={d} s1={4 * d} l1=1", 4 * n * d * d
        b += f"load acc[{n * d}], dram[{source.address + offset}], copy32, {tile} ; done s0"
        b += f"store dram[{out.address + offset}], acc[{n * d}], {kind}->{kind}, {path} {tile} \
; wait s0>=1"
    np.testing.assert_array_equal(b.run().read(out), x)


@every_chip
def test_mvin_mvout_acc_full_stride(chip):
    """All 32 bits of ragged rows, with a pitch on both sides, one LOAD and one STORE."""
    b = Bench(chip)
    d = b.dim
    x = b.random(d + 1, TILES * d - 1, dtype=np.int32)
    source = b.put(x, pitch=4 * TILES * d + 4, skew=4)
    out = b.room(*x.shape, dtype=np.int32, pitch=4 * TILES * d + 12, skew=8)
    rows = f"c0={TILES * d - 1} c1={d + 1} l0={d + 1} l1=1"
    b += f"load acc[0], dram[{source.address}], copy32, {rows} s1={source.pitch} ; done s0"
    b += f"store dram[{out.address}], acc[0], i32->i32, int_path {rows} s1={out.pitch} \
; wait s0>=1"
    np.testing.assert_array_equal(b.run().read(out), x)


@every_chip
@pytest.mark.parametrize("source", ["spad", "acc"])
def test_mvin_scale(chip, source):
    """n times what was moved in: here the scale is applied on the way out, and saturates."""
    b = Bench(chip)
    d = b.dim
    scales = np.array([0, 1, 2, 3, -1, 0.5, -0.25, 7], np.float32)
    first = _scales(b, scales)
    x = b.random(len(scales), d, d) if source == "spad" else b.words(len(scales), d, d)
    place, out = b.put(x), b.room(*x.shape)
    wide = x.itemsize
    for n in range(len(scales)):
        at = first + n * d
        conv, kind = ("copy8", "i8->i8") if source == "spad" else ("copy32", "i32->i8")
        b += f"load {source}[{at}], dram[{place.address + wide * n * d * d}], {conv}, c0={d} \
c1={d} s1={wide * d} l1=1 ; done s7"
        b += f"store dram[{out.address + n * d * d}], {source}[{at}], {kind}, scale c0={d} \
c1={d} l1=1 s1={d} vec={n} ; wait s7>={1 if n else len(scales) + 1}"
    np.testing.assert_array_equal(b.run().read(out), requantise(x, scales[:, None, None]))


@every_chip
def test_aligned(chip):
    """Every byte offset of source and destination within two beats, ragged widths."""
    b = Bench(chip)
    d, bus = b.dim, b.config.bus_bytes
    want, rooms = [], []
    for n, skew in enumerate(range(2 * bus)):
        width = d + n % (2 * d)
        x = b.random(3, width)
        source = b.put(x, pitch=width + 1, skew=skew)
        out = b.room(3, width, pitch=width + 3, skew=(7 * skew + 3) % 64)
        rows, at = f"c0={width} c1=3 l0=1 l1=3", 9 * (n % 16)
        b += f"load spad[{at}], dram[{source.address}], copy8, {rows} s1={source.pitch} ; done s0"
        b += f"store dram[{out.address}], spad[{at}], i8->i8, {rows} s1={out.pitch} ; wait s0>=1"
        b += "fence" if n % 16 == 15 else ""
        want.append(x)
        rooms.append(out)
    result = b.run()
    for x, out in zip(want, rooms, strict=True):
        np.testing.assert_array_equal(result.read(out), x)


@every_chip
@pytest.mark.parametrize("case", range(4))
def test_padded(chip, case):
    """Rows and columns fewer than dim: moves give zeros in the tail, products ignore it."""
    b = Bench(chip, seed=case)
    d = b.dim
    m, k, n = (int(b.rng.integers(1, d)) if d > 2 else 1 for _ in range(3))
    a, w, bias = b.random(m, k), b.random(k, n), b.words(1, n)
    a_at, w_at, d_at = b.put(a), b.put(w), b.put(bias)
    whole, same, sums = b.room(d, d), b.room(m, k), b.room(m, n)
    w_row, bank = b.config.spad_bank, b.config.acc_bank
    b += f"load spad[0], copy8, fill c0={d} c1={d} l1=1 value={JUNK}"
    b += f"load spad[{w_row}], copy8, fill c0={d} c1={d} l1=1 value={JUNK}"
    b += f"load spad[0], dram[{a_at.address}], copy8, c0={k} c1={m} s1={k} l1=1 ; done s0"
    b += f"store dram[{whole.address}], spad[0], i8->i8, c0={d} c1={d} l1=1 s1={d} ; wait s0>=1"
    b += f"store dram[{same.address}], spad[0], i8->i8, c0={k} c1={m} l1=1 s1={k}"
    b += f"load spad[{w_row}], dram[{w_at.address}], copy8, c0={n} c1={k} s1={n} l1=1 ; done s1"
    b += f"load acc[{bank}], dram[{d_at.address}], copy32, c0={n} c1={m} s1=0 l1=1 ; done s1"
    b += f"matmul acc[{bank}], spad[0], spad[{w_row}], i8*i8, acc r0={m} as0=1 ws=1 k={k} n={n} \
; wait s1>=2 ; done s2"
    b += f"store dram[{sums.address}], acc[{bank}], i32->i8, int_path c0={n} c1={m} l1=1 s1={n} \
; wait s2>=1"
    result = b.run()
    want = np.full((d, d), np.uint8(JUNK).view(np.int8))
    want[:m] = 0
    want[:m, :k] = a
    np.testing.assert_array_equal(result.read(whole), want)
    np.testing.assert_array_equal(result.read(same), a)
    total = wrap(a.astype(np.int64) @ w.astype(np.int64) + bias)
    np.testing.assert_array_equal(result.read(sums), np.clip(total, -128, 127).astype(np.int8))


@every_chip
@pytest.mark.parametrize("dtype", [np.int8, np.uint16])
def test_transpose(chip, dtype):
    """LOAD transposes ragged matrices of 8 and 16 bits, block by block."""
    b = Bench(chip)
    d, wide = b.dim, np.dtype(dtype).itemsize
    rows, columns = 2 * d + 1, d + 1
    x = b.random(rows, columns, dtype=np.int8).astype(dtype)
    if wide == 2:
        x = (x | 0x0080) & 0x7EFF  # bf16 bits that the epilogue keeps
    source, out = b.put(x, skew=wide), b.room(columns, rows, dtype=dtype)
    units = blocks(rows, d)
    conv, kind = ("copy8", "i8->i8") if wide == 1 else ("copy16", "bf16->bf16")
    for first in range(0, columns, d):
        b += f"load spad[{first * units * wide}], dram[{source.address + first * wide}], {conv}, \
xpose c0={min(d, columns - first)} c1={rows} s1={source.pitch} l0={units * wide} l1={wide} \
; done s0"
    b += f"store dram[{out.address}], spad[0], {kind}, c0={rows} c1={columns} l0={wide} \
l1={units * wide} s1={out.pitch} ; wait s0>={blocks(columns, d)}"
    np.testing.assert_array_equal(b.run().read(out), x.T)


def _weighted_sum(b, parts, weights, out, relu=False, scale=0.25, pitch=None):
    """out = scale * sum of part * weight: each part times a diagonal matrix, added in place.

    A diagonal of one value is a fill of the matrix's first row and a strided view: LOAD reads rows
    of a line of zeros with one value, each one element further left.
    """
    d, (rows, columns) = b.dim, out.shape
    units, bank = blocks(columns, d), b.config.spad_bank
    line = np.zeros((len(weights), 2 * d - 1), np.int8)
    line[:, d - 1] = weights
    diagonal = b.put(line)
    for i, part in enumerate(parts):
        a, w = i * 2 * bank, (i * 2 + 1) * bank
        place = b.put(part, pitch=pitch)
        b += f"load spad[{a}], dram[{place.address}], copy8, c0={columns} c1={rows} \
s1={place.pitch} l0={rows} l1=1 ; done s0"
        b += f"load spad[{w}], dram[{diagonal.address + i * (2 * d - 1) + d - 1}], copy8, c0={d} \
c1={d} s1=-1 l1=1 ; done s0"
        for j in range(units):
            width = min(d, columns - j * d)
            b += f"matmul acc[{j * rows}], spad[{a + j * rows}], spad[{w}], i8*i8, \
{'acc' if i else ''} r0={rows} as0=1 ws=1 k={width} n={width} \
{'' if j else '; wait s0>=2'} ; done s1"
    bits = int(np.float32(scale).view(np.uint32))
    vec, clamp = units * rows, ACTIVATIONS["relu"][0] if relu else ""
    b += f"load acc[{vec}], copy32, fill c0={columns} l0=1 value={bits} ; done s2"
    b += f"store dram[{out.address}], acc[0], i32->i8, scale {clamp} \
c0={columns} c1={rows} l0={rows} l1=1 s1={out.pitch} vec={vec} ; wait s1>={len(parts) * units} \
; wait s2>=1"


@every_chip
@pytest.mark.parametrize("weights", [(4, 4), (8, 1), (1, -2), (-128, 127)])
def test_matrix_add(chip, weights):
    """A sum of two matrices with scales, rounded once."""
    b = Bench(chip)
    x, y = b.random(b.dim, b.dim), b.random(b.dim, b.dim)
    out = b.room(b.dim, b.dim)
    _weighted_sum(b, (x, y), weights, out)
    total = x.astype(np.int64) * weights[0] + y.astype(np.int64) * weights[1]
    np.testing.assert_array_equal(b.run().read(out), requantise(total, 0.25))


@every_chip
@pytest.mark.parametrize("relu", [False, True])
def test_resadd(chip, relu):
    """A residual addition of ragged matrices, with scales and an activation."""
    b = Bench(chip)
    rows, columns = 2 * b.dim + 3, 3 * b.dim + 1
    x, y = b.random(rows, columns), b.random(rows, columns)
    out = b.room(rows, columns)
    _weighted_sum(b, (x, y), (3, -5), out, relu)
    total = 3 * x.astype(np.int64) - 5 * y.astype(np.int64)
    bounds = (0, np.inf) if relu else (None, None)
    np.testing.assert_array_equal(b.run().read(out), requantise(total, 0.25, *bounds))


@every_chip
def test_resadd_stride(chip):
    """The same with a pitch in DRAM."""
    b = Bench(chip)
    rows, columns = b.dim + 1, 2 * b.dim + 1
    x, y = b.random(rows, columns), b.random(rows, columns)
    out = b.room(rows, columns, pitch=columns + 6, skew=5)
    _weighted_sum(b, (x, y), (1, 1), out, pitch=columns + 9, scale=1.0)
    np.testing.assert_array_equal(b.run().read(out), requantise(x.astype(np.int64) + y))


@every_chip
def test_template(chip):
    """In times the identity is In."""
    b = Bench(chip)
    x = b.random(b.dim, b.dim)
    out = b.room(b.dim, b.dim)
    _weighted_sum(b, (x,), (1,), out, scale=1.0)
    np.testing.assert_array_equal(b.run().read(out), x)
