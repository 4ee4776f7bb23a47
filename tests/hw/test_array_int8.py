"""The int8 array against NumPy's integers, with the plans of `test_array`: same ports' timing."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import ClockDomain, Module
from amaranth.sim import Simulator
from tilewright.hw.array import Array, array_verilog_sources
from tilewright.hw.column_int8 import Int8Column
from tilewright.isa.timing import array_latency

_spec = importlib.util.spec_from_file_location(
    "array_plans", Path(__file__).parent / "test_array.py"
)
plans = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plans)
vsim, TAG = plans.vsim, plans.TAG


def packed(rows, width):
    """(cycles, dim) integers as the raw storage of a port of `dim` lanes of `width` bits."""
    bits = rows[:, :, None].astype(np.int64) >> np.arange(width) & 1
    raw = np.packbits(bits.astype(np.uint8).reshape(len(rows), -1), axis=1, bitorder="little")
    size = vsim.storage(rows.shape[1] * width)
    return np.pad(raw, ((0, 0), (0, size - raw.shape[1])))


def unpacked(raw, dim, width):
    """The signed lanes of a port's raw storage."""
    rows = np.ascontiguousarray(raw).view(np.uint8)
    rows = rows.reshape(-1, vsim.storage(dim * width))
    bits = np.unpackbits(rows, axis=1, bitorder="little")[:, : dim * width]
    weights = 1 << np.arange(width, dtype=np.int64)
    weights[-1] *= -1
    return bits.reshape(len(rows), dim, width).astype(np.int64) @ weights


def plan(dim, tiles, weights, gap, kind, seed):
    """`test_array.plan` with integers instead of bf16, and other junk while nothing is valid."""
    ports, expected = plans.plan(dim, tiles, weights, gap, kind, seed)
    rng = np.random.default_rng(seed)
    for name, valid in (("i_a", "i_valid"), ("i_w", "i_w_valid")):
        floats = np.where(ports[valid][:, None], ports[name], 0).astype(np.uint16)
        whole = (floats.astype(np.uint32) << 16).view(np.float32).astype(np.int64)
        junk = rng.integers(-256, 256, whole.shape)
        ports[name] = packed(np.where(ports[valid][:, None], whole, junk), Int8Column.LANE)
    return ports, [(t, sums.astype(np.int64)) for t, sums in expected]


def check(dim, ports, expected, got):
    latency = array_latency(dim)
    sums = unpacked(got["o_sum"], dim, Int8Column.sum_width(dim))
    assert np.flatnonzero(got["o_valid"]).tolist() == [t + latency for t, _ in expected]
    for t, want in expected:
        assert got["o_tag"][t + latency] == ports["i_tag"][t]
        assert (sums[t + latency] == want).all(), (t, sums[t + latency], want)


def sources(dim, fast=True):
    top = vsim.convert(Array(dim, TAG, kind="int8"))
    return {"top.v": top, **array_verilog_sources(dim, fast, kind="int8")}


@pytest.fixture(scope="module", params=[2, 4, 8])
def compiled(request):
    dim = request.param
    text = sources(dim)
    return dim, lambda: vsim.build(None, sources=text, opt="-O1")


def test_the_plan_s_sums_are_numpy_s():
    """What the array is compared with is an integer product."""
    ports, expected = plan(4, 1, "early", 0.0, "int8", seed=7)
    lanes = {n: unpacked(ports[n], 4, Int8Column.LANE) for n in ("i_a", "i_w")}
    w = lanes["i_w"][np.flatnonzero(ports["i_w_valid"])]
    for t, sums in expected:
        assert (lanes["i_a"][t] @ w == sums).all()


@pytest.mark.parametrize("gap", [0.0, 0.4])
@pytest.mark.parametrize("weights", ["early", "late"])
@pytest.mark.parametrize("kind", ["signed", "unsigned", "int8", "corners"])
def test_array_equals_numpy(compiled, kind, weights, gap):
    dim, build = compiled
    ports, expected = plan(dim, 40, weights, gap, kind, seed=dim)
    check(dim, ports, expected, build().run(ports, ["o_valid", "o_tag", "o_sum"]))


@pytest.mark.parametrize("a, w", [(255, 255), (255, -128), (-128, -128)])
def test_the_largest_sums_fit_at_every_dim(a, w):
    for dim in (2, 4, 8, 16, 32):
        assert abs(dim * a * w) < 1 << (Int8Column.sum_width(dim) - 1)


def test_a_stopped_clock_freezes_the_array(compiled):
    dim, build = compiled
    ports, expected = plan(dim, 10, "early", 0.2, "int8", seed=3)
    model = build()
    stop = len(ports["i_valid"]) // 2
    first = model.run({k: v[:stop] for k, v in ports.items()}, ["o_valid", "o_tag", "o_sum"])
    for _ in range(5):
        model.eval()
    rest = model.run({k: v[stop:] for k, v in ports.items()}, ["o_valid", "o_tag", "o_sum"])
    check(dim, ports, expected, {k: np.concatenate([first[k], rest[k]]) for k in first})


def test_plain_verilog_column_behaves_like_one_step():
    dim = 2
    ports, expected = plan(dim, 20, "late", 0.3, "int8", seed=4)
    model = vsim.build(None, sources=sources(dim, fast=False), opt="-O1")
    check(dim, ports, expected, model.run(ports, ["o_valid", "o_tag", "o_sum"]))


def test_submodule_columns_behave_like_black_boxes():
    dim = 2
    ports, expected = plan(dim, 6, "late", 0.3, "int8", seed=1)
    dut = Array(dim, TAG, blackbox=False, kind="int8")
    m = Module()
    m.domains.array = ClockDomain()
    m.submodules.dut = dut
    sampled = {"o_valid": [], "o_tag": [], "o_sum": []}

    async def bench(ctx):
        for t in range(len(ports["i_valid"])):
            for name, rows in ports.items():
                ctx.set(getattr(dut, name), int.from_bytes(rows[t].tobytes(), "little"))
            for name, rows in sampled.items():
                rows.append(ctx.get(getattr(dut, name)))
            await ctx.tick("array")

    sim = Simulator(m)
    sim.add_clock(1e-6, domain="array")
    sim.add_testbench(bench)
    sim.run()
    size = vsim.storage(dim * Int8Column.sum_width(dim))
    raw = b"".join(x.to_bytes(size, "little") for x in sampled.pop("o_sum"))
    got = {k: np.array(v) for k, v in sampled.items()}
    check(dim, ports, expected, got | {"o_sum": np.frombuffer(raw, np.uint8)})
