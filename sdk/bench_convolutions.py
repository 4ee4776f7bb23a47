"""Convolutions for `bench_roofline`: DESIGN's table, depthwise, and random ones.

A convolution's bound is that of the matrix product (B * OH * OW, O, KH * KW * C), whose operands'
bytes are those of the image and the weights. A depthwise layer of integers uses a diagonal of the
array's weights: its bound is B * OH * OW * KH * KW * ceil(C / dim) cycles.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax
from tilewright.bench_roofline import DTYPE, SIZE, SLACK, Case
from tilewright.isa.config import ChipConfig

__tilewright_user_code__ = True
COUNT = 40  # random convolutions
#: 3 x 3 kernels, batch 4: side of the image, channels in and out, utilisation to reach.
LAYERS = ((56, 64, 0.99), (28, 128, 0.99), (14, 256, 0.99))
DEPTHWISE = ((56, 64), (28, 128), (14, 250))  # 3 x 3, batch 4: side, channels
NUMBERS = ("NHWC", "HWIO", "NHWC")


@cache
def _layer(stride: int, dilation: int, groups: int, out: str):
    """A jitted convolution with padding "SAME"; `out`: "int8" (requantised), "int32", "float32"."""
    wide = tnp.float32 if out == "float32" else tnp.int32

    def convolve(x, w):
        return lax.conv_general_dilated(
            x, w, (stride, stride), "SAME", rhs_dilation=(dilation, dilation),
            dimension_numbers=NUMBERS, feature_group_count=groups, preferred_element_type=wide,
        )  # fmt: skip

    def requantised(x, w, scale):
        y = convolve(x, w).astype(tnp.float32) * scale
        return tnp.clip(tnp.round(y), -128, 127).astype(tnp.int8)

    return tw.jit(requantised if out == "int8" else convolve)


def _up(a: int, b: int) -> int:
    return -(-a // b)


def table_cases(config: ChipConfig) -> Iterator[Case]:
    """DESIGN section 10, convolutions; then depthwise ones against their own bound."""
    for side, c, reach in LAYERS:
        arguments = (np.zeros((4, side, side, c), np.int8), np.zeros((3, 3, c, c), np.int8),
                     np.ones(c, np.float32))  # fmt: skip
        bound = 4 * side * side * c * c * 9 // config.dim**2
        name = f"int8 conv 3x3 4x{side}x{side} {c}->{c}"
        yield Case(name, _layer(1, 1, 1, "int8"), arguments, bound, 0, reach)


def depthwise_cases(config: ChipConfig) -> Iterator[Case]:
    """Depthwise layers of int8; nothing is asked of them but to be shown."""
    for side, c in DEPTHWISE:
        arguments = np.zeros((4, side, side, c), np.int8), np.zeros((3, 3, 1, c), np.int8)
        pixels = 4 * side * side
        bound = max(pixels * 9 * _up(c, config.dim), _up(pixels * c * 4, config.bus_bytes))
        yield Case(f"int8 depthwise 3x3 4x{side}x{side}x{c}", _layer(1, 1, c, "int32"), arguments,
                   bound, 0, 0.0)  # fmt: skip


def random_cases(config: ChipConfig, seed: int, count: int = COUNT) -> Iterator[Case]:
    """Image sides 4 to 64 and channels 3 to 256, log-uniform; int8 -> int32, bf16 -> float32."""
    rng = np.random.default_rng((seed, 1))
    kinds = ("int8", "bf16") if config.array == "bf16" else ("int8",)

    def between(low: int, high: int) -> int:
        return int(np.exp(rng.uniform(np.log(low), np.log(high))).round())

    d, bus = config.dim, config.bus_bytes
    for i in range(count):
        side, c, o = between(4, 64), between(3, 256), between(3, 256)
        limits = ((1, 7), (1, 2), (1, 2), (1, 4))
        kernel, stride, dilation, batch = (int(rng.integers(a, b + 1)) for a, b in limits)
        kind = kinds[i % len(kinds)]
        m, k = batch * _up(side, stride) ** 2, kernel**2 * c
        one, other = _up(k, d) * _up(o, d) * max(m, d), _up(k, d) * _up(m, d) * max(o, d)
        pixels = min(batch * side**2, m * kernel**2)  # a stride may leave some out
        read = (pixels * c + k * o) * SIZE[kind]
        bound = max(min(one, other), _up(read, bus), _up(m * o * 4, bus))
        out = "int32" if kind == "int8" else "float32"
        x = np.zeros((batch, side, side, c), DTYPE[kind])
        w = np.zeros((kernel, kernel, c, o), DTYPE[kind])
        name = f"{kind} conv {kernel}x{kernel}/{stride}" + f" dil {dilation}" * (dilation > 1)
        yield Case(f"{name} {batch}x{side}x{side} {c}->{o}", _layer(stride, dilation, 1, out),
                   (x, w), bound, SLACK, group="random convolutions")  # fmt: skip
