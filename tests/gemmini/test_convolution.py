"""Gemmini's tests of convolutions, as shifted-window products in assembly; full-range operands."""

import dataclasses

import numpy as np
import pytest

from tests.gemmini.bench import Bench, activations, blocks, every_chip, requantise, wrap
from tests.gemmini.convolution import Layer, convolve, permuted, reference


def check(chip, layer, least=0.0):
    """Run a layer; its result is the reference's."""
    b = Bench(chip, seed=layer.kh + layer.stride)
    x = b.random(layer.batch, layer.height, layer.width, layer.cin)
    w = b.random(layer.kh, layer.kw, layer.cin, layer.cout)
    bias = b.rng.integers(-9_000, 9_000, (1, layer.cout), np.int32)
    scales = b.rng.uniform(0.0002, 0.003, (1, layer.cout)).astype(np.float32)
    want = permuted(reference(layer, x, w, bias, scales), layer.output_order)
    assert len(np.unique(want)) > 6, "the example must be lively"
    places = [b.put(permuted(x, layer.input_order)), b.put(permuted(w, layer.weight_order))]
    out = b.room(*want.shape)
    convolve(b, layer, *places, b.put(bias), b.put(scales), out)
    result = b.run()
    np.testing.assert_array_equal(result.read(out), want)
    useful = layer.batch * np.prod(layer.sums) * layer.kh * layer.kw * layer.cin * layer.cout
    assert result.run.counters["macs_useful"] == useful
    assert useful / (b.dim**2 * result.run.cycles) >= least, result.run.cycles


def square(chip, **options):
    """Two images of 7 x 7; channels that fill no unit."""
    d = Bench(chip).dim
    return Layer(**{"batch": 2, "height": 7, "width": 7, "cin": d + 1, "cout": d + 1} | options)


@every_chip
@activations
def test_conv(chip, activation):
    check(chip, square(chip, activation=activation))


@every_chip
@pytest.mark.parametrize("stride, padding", [(2, 1), (2, 0), (3, 2)])
def test_conv_stride(chip, stride, padding):
    check(chip, square(chip, stride=stride, padding=padding))


@every_chip
def test_conv_rect(chip):
    """An input that is no square."""
    check(chip, square(chip, height=5, width=9, stride=2))


@every_chip
@pytest.mark.parametrize("kh, kw", [(1, 3), (4, 2), (1, 1)])
def test_conv_rect_kernel(chip, kh, kw):
    check(chip, square(chip, kh=kh, kw=kw))


@every_chip
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("size, stride", [(2, 2), (3, 2), (3, 1)])
def test_conv_with_pool(chip, size, stride, padding):
    """Maxima on the way out; the border of a padded one is in the accumulator."""
    check(chip, square(chip, pool=size, pool_stride=stride, pool_padding=padding))


@every_chip
def test_conv_rect_pool(chip):
    layer = square(chip, height=5, width=8, pool=3, pool_stride=2, pool_padding=1)
    check(chip, dataclasses.replace(layer, activation="relu"))


@every_chip
def test_conv_with_rot180(chip):
    """The kernel turned by 180 degrees: LOAD reads its elements from the last to the first."""
    check(chip, square(chip, rotated=True))


@every_chip
def test_conv_with_kernel_dilation(chip):
    check(chip, square(chip, dilation=2, padding=2))


@every_chip
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_with_input_dilation(chip, stride):
    """Zeros between the pixels, as in a transposed convolution."""
    check(chip, square(chip, height=4, width=5, input_dilation=2, stride=stride))


@every_chip
def test_conv_with_input_dilation_and_rot180(chip):
    check(chip, square(chip, height=4, width=5, input_dilation=2, rotated=True))


@every_chip
def test_conv_with_input_dilation_and_neg_padding(chip):
    """A padding of -1 cuts the border off the dilated input."""
    check(chip, square(chip, height=6, width=5, input_dilation=2, padding=-1))


@every_chip
def test_conv_trans_output_1203(chip):
    check(chip, square(chip, output_order="1203"))


@every_chip
def test_conv_trans_weight_1203(chip):
    check(chip, square(chip, weight_order="1203"))


@every_chip
def test_conv_trans_weight_0132(chip):
    """The kernel's channels swapped: LOAD transposes."""
    check(chip, square(chip, weight_order="0132"))


@every_chip
def test_conv_trans_input_3120(chip):
    """Batch and channels swapped: LOAD transposes each pixel."""
    check(chip, square(chip, input_order="3120"))


@every_chip
def test_conv_trans_input_3120_with_kernel_dilation(chip):
    check(chip, square(chip, input_order="3120", dilation=2, padding=2))


@pytest.mark.parametrize("chip", ["tw4", "tw8"])
def test_conv_perf(chip):
    """Most cycles multiply, though loads, products and stores of one layer hardly overlap."""
    d = Bench(chip).dim
    check(chip, Layer(1, 10, 10, 2 * d, d, kh=5, kw=5, padding=2), least=0.75)


@every_chip
def test_conv_first_layer(chip):
    """Three channels: LOAD packs each patch of 3 x 3 x 3 bytes into one row, K = 27."""
    b = Bench(chip)
    d, layer = b.dim, Layer(2, 9, 9, 3, b.dim + 3, stride=2)
    x, w = b.random(2, 9, 9, 3), b.random(3, 3, 3, layer.cout)
    bias = b.rng.integers(-20_000, 20_000, (1, layer.cout), np.int32)
    scales = b.rng.uniform(0.0005, 0.01, (1, layer.cout)).astype(np.float32)
    source, grown = b.put(x), b.put(np.zeros((2, 11, 11, 3), np.int8))
    weights, bias_at, scales_at = b.put(w.reshape(27, -1)), b.put(bias), b.put(scales)
    rows, columns = layer.sums
    area, units, wide = rows * columns, blocks(27, d), blocks(layer.cout, d)
    out = b.room(2, rows, columns, layer.cout)
    bank, vec = b.config.spad_bank, 7 * b.config.acc_bank
    for n in range(2):  # a copy with a border of zeros, in DRAM
        b += f"load spad[{n * bank}], dram[{source.address + n * 243}], copy8, c0=27 c1=9 s1=27 \
l0=1 l1={units} ; done s0"
        b += f"store dram[{grown.address + n * 363 + 36}], spad[{n * bank}], i8->i8, c0=27 c1=9 \
l0=1 l1={units} s1=33 ; wait s0>=1"
    b += "fence"
    b += f"load spad[{6 * bank}], dram[{weights.address}], copy8, c0={layer.cout} c1=27 \
s1={layer.cout} l0={units * d} l1=1 ; done s1"
    b += f"load acc[{vec}], dram[{bias_at.address}], copy32, c0={layer.cout} l0=1 ; done s2"
    b += f"load acc[{vec + wide}], dram[{scales_at.address}], copy32, c0={layer.cout} l0=1 \
; done s2"
    for n in range(2):
        b += f"load spad[{2 * n * bank}], dram[{grown.address + n * 363}], copy8, pack=2 c0=9 c1=3 \
c2={columns} c3={rows} s1=33 s2=6 s3=66 l0=1 l2={units} l3={columns * units} ; done s1"
        b += f"matmul acc[{n * wide * area}], spad[{2 * n * bank}], spad[{6 * bank}], i8*i8, \
r0={area} as0={units} ak=1 ws=1 wk={d} wn={units * d} k=27 n={layer.cout} cn={area} \
; wait s1>={1 if n else 2} ; done s3"
        b += f"store dram[{out.address + n * area * layer.cout}], acc[{n * wide * area}], i32->i8, \
ibias scale c0={layer.cout} c1={area} l0={area} l1=1 s1={layer.cout} vec={vec} vs={wide} \
; wait s3>=1 {'' if n else '; wait s2>=2'}"
    want = reference(layer, x, w, bias, scales)
    np.testing.assert_array_equal(b.run().read(out), want)


@every_chip
@pytest.mark.parametrize("kh, kw, stride", [(3, 3, 1), (4, 2, 2)])
def test_conv_dw(chip, kh, kw, stride):
    """Each channel has its own kernel: products with diagonal matrices, which the chip makes.

    A column of weights, stored row by row with a pitch of dim + 1 bytes, is a diagonal.
    """
    b = Bench(chip, seed=kh)
    d = b.dim
    c = d + 1
    layer = Layer(2, 7, 7, c, c, kh, kw, stride)
    x, w = b.random(2, 7, 7, c), b.random(c, kh, kw)
    bias = b.rng.integers(-2000, 2000, (1, c), np.int32)
    source, kernel, start = b.put(x), b.put(w.reshape(c, -1)), b.put(bias)
    (height, columns), (rows, across), units = layer.padded, layer.sums, blocks(c, d)
    size, area, taps, bank = height * columns * units, rows * across, kh * kw, b.config.spad_bank
    matrix = d * d + d
    diagonal = b.put(np.zeros((units, taps, matrix), np.int8))
    out = b.room(2, rows, across, c)
    for u in range(units):
        count = min(d, c - u * d)
        at = 4 * bank + u * taps * d
        b += f"load spad[{at}], dram[{kernel.address + u * d * taps}], copy8, c0=1 c1={count} \
c2={taps} s1={taps} s2=1 l1=1 l2={d} ; done s0"
        b += f"store dram[{diagonal.address + u * taps * matrix}], spad[{at}], i8->i8, c0={d} \
c1={count} c2={taps} l1=1 l2={d} s1={d + 1} s2={matrix} ; wait s0>=1"
    b += "fence"
    b += f"load spad[0], copy8, fill c0={d} c1={2 * size} l1=1"
    b += f"load spad[{(columns + 1) * units}], dram[{source.address}], copy8, c0={c} c1=7 c2=7 \
c3=2 s1={c} s2={7 * c} s3={49 * c} l0=1 l1={units} l2={columns * units} l3={size} ; done s1"
    b += f"load spad[{4 * bank}], dram[{diagonal.address}], copy8, c0={d} c1={d} \
c2={units * taps} s1={d} s2={matrix} l1=1 l2={d} ; done s1"
    for n in range(2):
        b += f"load acc[0], dram[{start.address}], copy32, c0={c} c1={area} s1=0 l0={area} l1=1 \
{'; wait s3>=1' if n else ''} ; done s1"
        for u in range(units):
            for i in range(taps):
                a = n * size + (i // kw * columns + i % kw) * units + u
                step, first = stride * units, f"; wait s1>={1 if n else 3}"
                b += f"matmul acc[{u * area}], spad[{a}], spad[{4 * bank + (u * taps + i) * d}], \
i8*i8, acc r0={across} r1={rows} as0={step} as1={step * columns} ws=1 k={min(d, c - u * d)} \
n={min(d, c - u * d)} {'' if u + i else first} {'; done s2' if i == taps - 1 else ''}"
        b += f"store dram[{out.address + n * area * c}], acc[0], i32->i8, int_path c0={c} \
c1={area} l0={area} l1=1 s1={c} ; wait s2>={units} ; read s3"
    result = b.run().read(out)
    for j in range(c):
        one = Layer(2, 7, 7, 1, 1, kh, kw, stride)
        kernel = w[j].reshape(kh, kw, 1, 1)
        want = reference(one, x[..., j : j + 1], kernel, bias[0, j], np.float32(1))
        np.testing.assert_array_equal(result[..., j : j + 1], want)


@every_chip
@pytest.mark.parametrize("pixels", [49, 64])
def test_global_average(chip, pixels):
    """The mean over all pixels of each channel: a row of ones times the image."""
    b = Bench(chip)
    d = b.dim
    c, depth = 2 * d + 1, blocks(pixels, d) * d
    x = b.random(pixels, c)
    source, out = b.put(x), b.room(1, c)
    bank, scale = b.config.spad_bank, np.float32(1) / np.float32(pixels)
    b += f"load spad[0], copy8, fill c0={pixels} l0=1 value=1 ; done s0"
    b += f"load spad[{bank}], dram[{source.address}], copy8, c0={c} c1={pixels} s1={c} l0={depth} \
l1=1 ; done s0"
    b += f"load acc[8], copy32, fill c0={c} l0=1 value={int(scale.view(np.uint32))} ; done s2"
    b += f"matmul acc[0], spad[0], spad[{bank}], i8*i8, r0=1 as0=1 ak=1 ws=1 wk={d} wn={depth} \
k={pixels} n={c} cn=1 ; wait s0>=2 ; done s1"
    b += f"store dram[{out.address}], acc[0], i32->i8, scale c0={c} l0=1 vec=8 ; wait s1>=1 \
; wait s2>=1"
    want = requantise(wrap(x.astype(np.int64).sum(axis=0, keepdims=True)), scale)
    np.testing.assert_array_equal(b.run().read(out), want)
