"""Every floating-point stage function against `sim.numerics`, in bulk through Verilator."""

import importlib.util
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw import float as fp
from tilewright.isa import timing
from tilewright.sim import numerics as nm

_spec = importlib.util.spec_from_file_location("vsim", Path(__file__).parent / "vsim.py")
vsim = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(vsim)

LATENCY = {"add": timing.HOP, "mul": 3, "itof": 2, "ftoi": 2, "bf16": 1, "clamp": 1, "product": 1,
           "first": 1}  # fmt: skip
CORNERS = np.array([
    0, 1, 0x7FFFFF, 0x800000, 0x800001, 0xFFFFFF, 0x1000000, 0x0C000000, 0x0B800000, 0x0C7FFFFF,
    0x3F800000, 0x3F800001, 0x3F7FFFFF, 0x3F000000, 0x3FC00000, 0x4B000000, 0x4B7FFFFF, 0x4EFFFFFF,
    0x4F000000, 0x33800000, 0x33800001, 0x337FFFFF, 0x34000000, 0x7F000000, 0x7F7FFFFF, 0x7F7F8000,
    0x7F800000, 0x7FC00000, 0x7F800001, 0x7FFFFFFF,
], np.uint32)  # fmt: skip


class Units(wiring.Component):
    """All functions side by side; operands flushed, as their users do."""

    x: In(32)
    y: In(32)
    z: In(32)
    add: Out(32)
    mul: Out(32)
    itof: Out(32)
    ftoi: Out(32)
    bf16: Out(16)
    clamp: Out(32)
    product: Out(32)
    first: Out(32)

    def elaborate(self, platform):
        m = Module()
        x, y, z = fp.flush(self.x), fp.flush(self.y), fp.flush(self.z)
        a, w = fp.bf16_decode(self.x[16:]), fp.bf16_decode(self.y[16:])
        bounded = fp.clamp(m, x, y, z)
        m.d.comb += [
            self.add.eq(fp.fp32_add(m, "sync", x, y)),
            self.mul.eq(fp.fp32_mul(m, "sync", x, y)),
            self.itof.eq(fp.i32_to_fp32(m, "sync", self.x)),
            self.ftoi.eq(fp.fp32_to_i32(m, "sync", x)),
            self.bf16.eq(fp.stage(m, "sync", fp.fp32_to_bf16(bounded), "bf16")),
            self.clamp.eq(fp.stage(m, "sync", bounded, "bounded")),
            self.product.eq(fp.bf16_product(m, "sync", a, w)),
            self.first.eq(fp.bf16_product(m, "sync", a, w, "f", first=True)),
        ]
        return m


@pytest.fixture(scope="module")
def unit():
    return vsim.build(Units())


def vectors(count, seed):
    """Corner pairs with all signs, raw random bits, near exponents, near cancellation."""
    rng = np.random.default_rng(seed)
    corners = np.concatenate([CORNERS, CORNERS | 0x80000000])
    cx, cy = (g.ravel() for g in np.meshgrid(corners, corners))
    rx, ry = rng.integers(0, 2**32, (2, count), dtype=np.uint32)
    exp = rng.integers(0, 255, count)
    nx = (rx & 0x807FFFFF) | (exp << 23).astype(np.uint32)

    def with_exp(e):
        return (ry & 0x807FFFFF) | (np.clip(e, 0, 254) << 23).astype(np.uint32)

    near = with_exp(exp + rng.integers(-28, 29, count))
    inverse = with_exp(254 - exp + rng.integers(-3, 4, count))
    tiny = with_exp(127 - exp + rng.integers(-3, 4, count))
    cancel = nx ^ 0x80000000 ^ (1 << rng.integers(0, 24, count)).astype(np.uint32)
    small = (rx & 0x807FFFFF) | (rng.integers(120, 160, count) << 23).astype(np.uint32)
    x = np.concatenate([cx, rx, nx, nx, nx, nx, small])
    y = np.concatenate([cy, ry, near, inverse, tiny, cancel, near])
    return x, y, np.roll(y, 1)


@pytest.fixture(scope="module")
def results(unit):
    x, y, z = vectors(50_000, 11)
    padded = {
        k: np.concatenate([v, np.zeros(4, np.uint32)])
        for k, v in zip("xyz", (x, y, z), strict=True)
    }
    out = unit.run(padded, list(LATENCY))
    return x, y, z, {k: v[LATENCY[k] : LATENCY[k] + len(x)] for k, v in out.items()}


def bf(x):
    return (x >> 16).astype(np.uint16).view(ml_dtypes.bfloat16)


EXPECTED = {
    "add": lambda x, y, z: nm.f32_add(x.view("f4"), y.view("f4")).view("u4"),
    "mul": lambda x, y, z: nm.f32_mul(x.view("f4"), y.view("f4")).view("u4"),
    "itof": lambda x, y, z: nm.i32_to_f32(x.view("i4")).view("u4"),
    "ftoi": lambda x, y, z: nm.f32_to_i32(x.view("f4")).view("u4"),
    "clamp": lambda x, y, z: nm.f32_min(nm.f32_max(x.view("f4"), y.view("f4")), z.view("f4")).view(
        "u4"
    ),
    "bf16": lambda x, y, z: nm.f32_to_bf16(EXPECTED["clamp"](x, y, z).view("f4")).view("u2"),
    "product": lambda x, y, z: nm.f32_mul(nm.bf16_to_f32(bf(x)), nm.bf16_to_f32(bf(y))).view("u4"),
    "first": lambda x, y, z: nm.f32_add(0, EXPECTED["product"](x, y, z).view("f4")).view("u4"),
}


@pytest.mark.parametrize("op", EXPECTED)
def test_unit_equals_numerics(results, op):
    x, y, z, out = results
    want = EXPECTED[op](x, y, z)
    bad = np.flatnonzero(out[op] != want)
    assert not bad.size, (
        len(bad),
        [tuple(hex(v[i]) for v in (x, y, z, out[op], want)) for i in bad[:4]],
    )
