"""A convolution as a program: one MATMUL of the whole image for each element of the kernel.

Images lie in the scratchpad with their border of zeros, one pixel after the other; a MATMUL's rows
are the pixels of a shifted window (two-level stride), and it adds to what is there. Semaphores:
0 operands loaded, 1 sums complete, 2 vectors loaded, 3 sums read, their place is free.
"""

from dataclasses import dataclass

import numpy as np

from tests.gemmini.bench import ACTIVATIONS, blocks, requantise, wrap

LOWEST = -(1 << 30)  # of a pooling border: below every sum, a bias does not make it wrap


@dataclass(frozen=True)
class Layer:
    """Sizes and options; a `padding` below 0 crops, `input_dilation` puts zeros between pixels."""

    batch: int
    height: int
    width: int
    cin: int
    cout: int
    kh: int = 3
    kw: int = 3
    stride: int = 1
    padding: int = 1
    dilation: int = 1
    input_dilation: int = 1
    activation: str = "none"
    pool: int = 0
    pool_stride: int = 2
    pool_padding: int = 0
    weight_order: str = "0123"
    rotated: bool = False
    input_order: str = "0123"
    output_order: str = "0123"

    @property
    def padded(self):
        """Rows and columns of an image with its border, after dilation and cropping."""
        grow = lambda n: (n - 1) * self.input_dilation + 1 + 2 * self.padding  # noqa: E731
        return grow(self.height), grow(self.width)

    @property
    def sums(self):
        """Rows and columns before pooling."""
        (h, w), d = self.padded, self.dilation
        size = lambda n, k: (n - (k - 1) * d - 1) // self.stride + 1  # noqa: E731
        return size(h, self.kh), size(w, self.kw)

    @property
    def result(self):
        """Rows and columns of the result."""
        if not self.pool:
            return self.sums
        size = lambda n: (n + 2 * self.pool_padding - self.pool) // self.pool_stride + 1  # noqa: E731
        return size(self.sums[0]), size(self.sums[1])


def permuted(x, order):
    """An array with its axes in the order that a text such as "1203" names."""
    return np.ascontiguousarray(x.transpose([int(c) for c in order]))


def reference(layer, x, w, bias, scales):
    """(N, H, W, C) int8 by plain sums; x as (N, H, W, C), w as (KH, KW, CIN, COUT)."""
    w = w[::-1, ::-1] if layer.rotated else w
    step, p, d = layer.input_dilation, layer.padding, layer.dilation
    h, v = (layer.height - 1) * step + 1, (layer.width - 1) * step + 1
    grown = np.zeros((layer.batch, h, v, layer.cin), np.int64)
    grown[:, ::step, ::step] = x
    border = ((0, 0), (p, p), (p, p), (0, 0))
    grown = np.pad(grown, border) if p >= 0 else grown[:, -p:p, -p:p]
    rows, columns = layer.sums
    total = np.zeros((layer.batch, rows, columns, layer.cout), np.int64) + bias
    for y in range(rows):
        for z in range(columns):
            top, left = y * layer.stride, z * layer.stride
            patch = grown[:, top : top + layer.kh * d : d, left : left + layer.kw * d : d]
            total[:, y, z] += np.tensordot(patch, w.astype(np.int64), 3)
    _, low, high = ACTIVATIONS[layer.activation]
    y = requantise(wrap(total), scales, low, high)
    if not layer.pool:
        return y
    q = layer.pool_padding
    y = np.pad(y, ((0, 0), (q, q), (q, q), (0, 0)), constant_values=-128)
    rows, columns = layer.result
    out = np.empty((layer.batch, rows, columns, layer.cout), np.int8)
    for i in range(rows):
        for j in range(columns):
            top, left = i * layer.pool_stride, j * layer.pool_stride
            out[:, i, j] = y[:, top : top + layer.pool, left : left + layer.pool].max(axis=(1, 2))
    return out


def _load_images(b, layer, x, size, base=0):
    """Zeros, then the pixels inside of the border; gives the number of LOADs that signal."""
    (_, columns), units, step = layer.padded, blocks(layer.cin, b.dim), layer.input_dilation
    crop = max(0, -layer.padding)
    skip = -(-crop // step)  # rows and columns of the input that are cut off
    inset = layer.padding + skip * step
    h, w = layer.height, layer.width
    if crop:
        h = (layer.padded[0] - 1 - inset) // step + 1
        w = (columns - 1 - inset) // step + 1
    b += f"load spad[{base}], copy8, fill c0={b.dim} c1={layer.batch * size} l1=1"
    loc = base + (inset * columns + inset) * units
    l1, l2 = step * units, step * columns * units
    height, width, c, n = layer.height, layer.width, layer.cin, layer.batch
    if layer.input_order == "3120":  # (C, H, W, N) in DRAM
        b += f"load spad[{loc}], dram[{x.address}], copy8, xpose c0={n} c1={c} c2={w} c3={h} \
s1={height * width * n} s2={n} s3={width * n} l0={size} l1=1 l2={l1} l3={l2} ; done s0"
        return 1
    b += f"load spad[{loc}], dram[{x.address + (skip * width + skip) * c}], copy8, c0={c} c1={w} \
c2={h} c3={n} s1={c} s2={width * c} s3={height * width * c} l0=1 l1={l1} l2={l2} l3={size} \
; done s0"
    return 1


def _load_weights(b, layer, w, loc):
    """Rows of input channels for each element of the kernel; gives LOADs, steps of wn and taps."""
    deep, taps = blocks(layer.cin, b.dim) * b.dim, layer.kh * layer.kw
    wn, cin, cout = taps * deep, layer.cin, layer.cout
    if layer.weight_order == "0132":  # (KH, KW, COUT, CIN)
        for first in range(0, cin, b.dim):
            b += f"load spad[{loc + first}], dram[{w.address + first}], copy8, xpose \
c0={min(b.dim, cin - first)} c1={cout} c2={taps} s1={cin} s2={cin * cout} l0=1 l1={wn} l2={deep} \
; done s0"
        return blocks(cin, b.dim), wn, deep
    if layer.weight_order == "1203":  # (KW, CIN, KH, COUT)
        b += f"load spad[{loc}], dram[{w.address}], copy8, c0={cout} c1={cin} c2={layer.kh} \
c3={layer.kw} s1={layer.kh * cout} s2={cout} s3={cin * layer.kh * cout} l0={wn} l1=1 \
l2={layer.kw * deep} l3={deep} ; done s0"
        return 1, wn, deep
    at, s2 = w.address, cin * cout
    if layer.rotated:
        at, s2 = at + (taps - 1) * s2, -s2
    b += f"load spad[{loc}], dram[{at}], copy8, c0={cout} c1={cin} c2={taps} s1={cout} s2={s2} \
l0={wn} l1=1 l2={deep} ; done s0"
    return 1, wn, deep


def convolve(b, layer, x, w, bias, scales, out):
    """Add the program; x, w, bias, scales, out are rooms."""
    d, bank, vec = b.dim, b.config.spad_bank, 7 * b.config.acc_bank
    height, columns = layer.padded
    units, wide = blocks(layer.cin, d), blocks(layer.cout, d)
    size = height * columns * units
    assert layer.batch * size <= 4 * bank, "the images must fit into four banks"
    ready = _load_images(b, layer, x, size)
    loads, wn, deep = _load_weights(b, layer, w, 4 * bank)
    ready += loads
    b += f"load acc[{vec}], dram[{bias.address}], copy32, c0={layer.cout} l0=1 ; done s2"
    b += f"load acc[{vec + wide}], dram[{scales.address}], copy32, c0={layer.cout} l0=1 ; done s2"
    rows, across = layer.sums
    q = layer.pool_padding
    pitch, area = across + 2 * q, (rows + 2 * q) * (across + 2 * q)
    assert wide * area <= vec, "the sums must fit below the vectors"
    taps = [(y, z) for y in range(layer.kh) for z in range(layer.kw)]
    step = layer.stride * units
    for n in range(layer.batch):
        free = "; wait s3>=1" if n else ""
        if q:  # a border that never wins
            b += f"load acc[0], copy32, fill c0={d} c1={wide * area} l1=1 \
value={LOWEST & 0xFFFFFFFF} {free} ; done s0"
            ready, free = ready + 1, ""
        lines = range(rows) if q else (0,)  # a row at a time leaves the border between rows
        for i, (y, z) in enumerate(taps):
            for line in lines:
                a = n * size + (y * layer.dilation * columns + z * layer.dilation) * units
                a += line * step * columns
                first = f"{f'; wait s0>={ready}' if ready else ''} {free}" if i == line == 0 else ""
                last = "; done s1" if i == len(taps) - 1 and line == lines[-1] else ""
                c, kernel = (line + q) * pitch + q, 4 * bank + i * deep
                b += f"matmul acc[{c}], spad[{a}], spad[{kernel}], i8*i8, {'acc' if i else ''} \
r0={across} r1={1 if q else rows} as0={step} as1={step * columns} \
ak=1 ws=1 wk={d} wn={wn} k={layer.cin} n={layer.cout} cn={area} {first} {last}"
        ready = 0
        _store(b, layer, n, out, vec, pitch, area)


def _store(b, layer, n, out, vec, pitch, area):
    rows, columns = layer.result
    c = layer.cout
    at, s1, s2 = out.address + n * rows * columns * c, c, columns * c
    if layer.output_order == "1203":  # (H, W, N, C)
        at, s1, s2 = out.address + n * c, layer.batch * c, columns * layer.batch * c
    pool = ""
    if layer.pool:
        k, s = layer.pool, layer.pool_stride
        pool = f"pool pool_h={k} pool_w={k} pool_sh={s} pool_sw={s}"
    clamp = ACTIVATIONS[layer.activation][0]
    b += f"store dram[{at}], acc[0], i32->i8, ibias scale {clamp} {pool} \
c0={c} c1={columns} c2={rows} l0={area} l1=1 l2={pitch} s1={s1} s2={s2} vec={vec} \
vs={blocks(c, b.dim)} ; wait s1>=1 {'' if n else '; wait s2>=2'} ; read s3"
