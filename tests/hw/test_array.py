"""The systolic array against `sim.numerics.column_sum`: gaps, earliest and latest weights."""

import importlib.util
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from amaranth.hdl import ClockDomain, Module
from amaranth.sim import Simulator
from tilewright.hw.array import Array, array_verilog_sources
from tilewright.hw.onestep import one_step
from tilewright.isa.timing import array_latency
from tilewright.sim import numerics as nm

_spec = importlib.util.spec_from_file_location("vsim", Path(__file__).parent / "vsim.py")
vsim = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(vsim)

TAG = 8
RANGES = {"int8": (-128, 256), "signed": (-128, 128), "unsigned": (0, 256)}


def values(rng, shape, kind):
    x = rng.normal(size=shape)
    if kind == "wide":
        x = x * 2.0 ** rng.integers(-66, 66, shape)
        pick = rng.random(shape)
        x = np.where(pick < 0.05, rng.choice([0.0, -0.0, 1e-39, np.inf, -np.inf, np.nan], shape), x)
    elif kind == "corners":
        x = rng.choice([-128, -1, 0, 127, 128, 255], shape)
    elif kind in RANGES:
        x = rng.integers(*RANGES[kind], shape)
    with np.errstate(invalid="ignore", over="ignore"):
        return x.astype(np.float32).astype(ml_dtypes.bfloat16)


def plan(dim, tiles, weights, gap, kind, seed):
    """Place weight rows and data rows in cycles.

    `weights` is "early" (right after the previous switch) or "late" (each row as late as its
    deadline allows); `gap` is the chance of an idle cycle.

    Returns
    -------
    dict of input arrays, and the expected list of (cycle, sums)
    """
    rng = np.random.default_rng(seed)
    events, w_events, expected = {}, {}, []
    switch, row_end, w_end = 0, 0, 0
    for _ in range(tiles):
        w = values(rng, (dim, dim), kind)
        count = int(rng.choice([1, 2, dim, dim + 3]))
        a = values(rng, (count, dim), kind)
        idle = (rng.random(dim) < gap) * rng.integers(1, 5, dim)
        lag = [max(k - 1, 0) for k in range(dim)]
        u, at = [], w_end
        for k in range(dim):
            at = max(at, switch + lag[k]) + int(idle[k])
            u.append(at)
            at += 1
        start = max([row_end, *(t - d + 1 for t, d in zip(u, lag, strict=True))])
        if weights == "late":  # push each row to its deadline, last one first
            latest = start - 1 + lag[-1]
            for k in reversed(range(dim)):
                latest = min(latest, start - 1 + lag[k])
                u[k] = max(u[k], latest)
                latest = u[k] - 1
        for k, t in enumerate(u):
            w_events[t] = w[k]
        sums = nm.column_sum(a, w, dim)
        t = start
        for r in range(count):
            events[t] = (a[r], r == 0)
            expected.append((t, sums[r]))
            t += 1 + int(rng.random() < gap) * int(rng.integers(1, 4))
        switch, row_end, w_end = start, t, u[-1] + 1
    cycles = row_end + array_latency(dim) + 2
    junk = rng.integers(0, 2**16, (2, cycles, dim)).astype(np.uint16)  # while not valid
    ports = {"i_a": junk[0], "i_w": junk[1]}
    for name in ("i_valid", "i_w_valid"):
        ports[name] = np.zeros(cycles, np.uint8)
    ports["i_switch"] = rng.integers(0, 2, cycles).astype(np.uint8)
    ports["i_tag"] = rng.integers(0, 2**TAG, cycles).astype(np.uint8)
    for t, (row, first) in events.items():
        ports["i_a"][t], ports["i_valid"][t], ports["i_switch"][t] = row.view("u2"), 1, first
    for t, row in w_events.items():
        ports["i_w"][t], ports["i_w_valid"][t] = row.view("u2"), 1
    return ports, expected


def check(dim, ports, expected, got):
    """Compare sampled outputs: `got` maps o_valid, o_tag, o_sum to one entry per cycle."""
    latency = array_latency(dim)
    sums = got["o_sum"].reshape(-1, dim)
    assert np.flatnonzero(got["o_valid"]).tolist() == [t + latency for t, _ in expected]
    for t, want in expected:
        assert got["o_tag"][t + latency] == ports["i_tag"][t]
        assert (sums[t + latency] == want.view(np.uint32)).all(), (t, sums[t + latency], want)


@pytest.fixture(scope="module", params=[2, 4, 8])
def compiled(request):
    dim = request.param
    sources = {"top.v": vsim.convert(Array(dim, TAG)), **array_verilog_sources(dim)}
    return dim, lambda: vsim.build(None, sources=sources, opt="-O1")


@pytest.mark.parametrize("gap", [0.0, 0.4])
@pytest.mark.parametrize("weights", ["early", "late"])
@pytest.mark.parametrize("kind", ["normal", "wide", "int8"])
def test_array_equals_column_sum(compiled, kind, weights, gap):
    dim, build = compiled
    ports, expected = plan(dim, 40, weights, gap, kind, seed=dim)
    check(dim, ports, expected, build().run(ports, ["o_valid", "o_tag", "o_sum"]))


def test_submodule_columns_behave_like_black_boxes():
    dim = 2
    ports, expected = plan(dim, 6, "late", 0.3, "wide", seed=1)
    dut = Array(dim, TAG, blackbox=False)
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
    words = [[(x >> 32 * c) & 0xFFFFFFFF for c in range(dim)] for x in sampled.pop("o_sum")]
    got = {k: np.array(v) for k, v in sampled.items()}
    check(dim, ports, expected, got | {"o_sum": np.array(words, np.uint32)})


def test_a_stopped_clock_freezes_the_array(compiled):
    dim, build = compiled
    ports, expected = plan(dim, 10, "early", 0.2, "normal", seed=3)
    model = build()
    stop = len(ports["i_valid"]) // 2
    first = model.run({k: v[:stop] for k, v in ports.items()}, ["o_valid", "o_tag", "o_sum"])
    for _ in range(5):
        model.eval()
    rest = model.run({k: v[stop:] for k, v in ports.items()}, ["o_valid", "o_tag", "o_sum"])
    check(dim, ports, expected, {k: np.concatenate([first[k], rest[k]]) for k in first})


def test_plain_verilog_column_behaves_like_one_step():
    dim = 2
    ports, expected = plan(dim, 20, "late", 0.3, "wide", seed=4)
    sources = {"top.v": vsim.convert(Array(dim, TAG)), **array_verilog_sources(dim, fast=False)}
    model = vsim.build(None, sources=sources, opt="-O1")
    check(dim, ports, expected, model.run(ports, ["o_valid", "o_tag", "o_sum"]))


LOOP = """\
module loop(clk, o);
  input clk;
  wire clk;
  output o;
  reg o;
  reg a;
  always @(posedge clk)
    o <= a;
  always @(posedge clk)
    a <= o;
endmodule
"""


@pytest.mark.parametrize(
    "text, message",
    [
        (LOOP, "registers must not form a loop, but a does"),
        (LOOP.replace("  reg a;", "  sub s(clk);"), "Verilog must be declarations"),
        (LOOP.replace("o <= a;", "if (a) o <= a;"), "register must be a plain assignment"),
    ],
)
def test_one_step_refuses_other_verilog(text, message):
    with pytest.raises(ValueError, match=message):
        one_step(text, "clk")
