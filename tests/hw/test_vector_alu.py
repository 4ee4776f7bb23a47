"""VECTOR's lanes and the movement between them against `sim.vector_alu`, through Verilator."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from amaranth.sim import Simulator
from tilewright.hw.vector_control import DECODED, LANE_STEP
from tilewright.hw.vector_lanes import VectorLanes
from tilewright.isa import timing
from tilewright.isa.micro import OPERATIONS
from tilewright.sim.vector_alu import LANE_OPERATIONS, across, alu

_spec = importlib.util.spec_from_file_location("vsim", Path(__file__).parent / "vsim.py")
vsim = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(vsim)

DIM = 2
LATENCY = 1 + timing.VECTOR_ALU_LATENCY  # operands come a cycle after the operation
CORNERS = np.array([
    0, 1, 2, 31, 32, 33, 0x7FFFFF, 0x800000, 0x800001, 0xFFFFFF, 0x1000000, 0x33800000, 0x33800001,
    0x3EFFFFFF, 0x3F000000, 0x3F000001, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x3FC00000, 0x40200000,
    0x4AFFFFFF, 0x4B000000, 0x4B7FFFFF, 0x4EFFFFFF, 0x4F000000, 0x4F7FFFFF, 0x4F800000, 0x7E800000,
    0x7E800001, 0x7F000000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF,
], np.uint32)  # fmt: skip


def operands(count, rng):
    """(3, n): corners, any bits, near exponents, fused sums that cancel, small integers."""
    corners = np.concatenate([CORNERS, CORNERS | np.uint32(1 << 31)])
    a, b = (v.ravel() for v in np.meshgrid(corners, corners))
    bits = rng.integers(0, 2**32, (3, count), dtype=np.uint32)
    near = bits & 0x807FFFFF | rng.integers(100, 160, (3, count)).astype(np.uint32) << 23
    product = -(near[0].view(np.float32) * near[1].view(np.float32))
    cancel = np.stack([near[0], near[1], product.view(np.uint32) ^ rng.integers(0, 4, count)])
    small = rng.integers(-40, 40, (3, count)).astype(np.int32).view(np.uint32)
    parts = [np.stack([a, b, rng.choice(corners, a.size)]), bits, near, cancel, small]
    return np.concatenate(parts, axis=1).astype(np.uint32)


@pytest.fixture(scope="module")
def stream():
    """Every operation behind every other, with gaps; (operation or None, n, operands, result)."""
    rng = np.random.default_rng(21)
    table, count = operands(2500, rng), 150_000
    names = rng.choice(LANE_OPERATIONS, count)
    at, n, valid = (
        rng.integers(0, table.shape[1], (count, DIM)),
        rng.integers(0, 32, count),
        rng.random(count) < 0.9,
    )
    words = {f"i_{x}": table[k][at] for k, x in enumerate("abc")}
    inputs = {
        "i_valid": valid.astype(np.uint8),
        "i_op": np.array([OPERATIONS[x][0] for x in names], np.uint8),
        "i_n": n.astype(np.uint8),
        "rst": np.zeros(count, np.uint8),
    }
    late = {k: np.concatenate([v[:1], v, v[: LATENCY - 1]]) for k, v in words.items()}
    tail = {k: np.concatenate([v, np.zeros_like(v[:LATENCY])]) for k, v in inputs.items()}
    out = vsim.build(VectorLanes(DIM)).run(tail | late, ["o_result", "o_valid"])
    return names, n, valid, words, out


def test_valid_comes_after_the_latency(stream):
    _, _, valid, _, out = stream
    assert (out["o_valid"][LATENCY:] == valid).all() and not out["o_valid"][:LATENCY].any()


@pytest.mark.parametrize("name", LANE_OPERATIONS)
def test_operation_equals_numpy(stream, name):
    names, n, valid, words, out = stream
    at = np.flatnonzero((names == name) & valid)
    a, b, c = (words[f"i_{x}"][at] for x in "abc")
    got = out["o_result"].reshape(-1, DIM)[LATENCY + at]
    want = alu(name, a, b, c, n[at, None])
    wrong = np.argwhere(got != want)
    first = [[hex(v[tuple(i)]) for v in (a, b, c, got, want)] for i in wrong[:3]]
    assert not len(wrong), (len(wrong), first, n[at][wrong[:3, 0]])


def test_every_operation_is_decoded():
    decoded = {*DECODED, *LANE_STEP, "nop"}
    assert decoded == set(OPERATIONS)


def pack(row):
    return sum(int(v) << 32 * i for i, v in enumerate(row))


def unpack(word, dim):
    return np.array([word >> 32 * i & 0xFFFFFFFF for i in range(dim)], np.uint32)


def moved(dim, cases):
    """Results of cases (operation, n, a), a case per cycle."""
    dut, results = VectorLanes(dim), []

    async def bench(ctx):
        for t in range(len(cases) + LATENCY):
            ctx.set(dut.i_valid, t < len(cases))
            if t < len(cases):
                ctx.set(dut.i_op, OPERATIONS[cases[t][0]][0])
                ctx.set(dut.i_n, cases[t][1])
            if 1 <= t <= len(cases):
                ctx.set(dut.i_a, pack(cases[t - 1][2]))
            await ctx.tick()
            if ctx.get(dut.o_valid):
                results.append(unpack(ctx.get(dut.o_result), dim))

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return results


@pytest.mark.parametrize("dim", [2, 4, 8])
def test_rotate_broadcast_and_what_moves_nothing(dim):
    row = np.random.default_rng(dim).integers(0, 2**32, dim, dtype=np.uint32)
    names = ("rotate", "broadcast", "mov", "const")
    cases = [(name, n, row) for n in range(dim) for name in names]
    for (name, n, _), got in zip(cases, moved(dim, cases), strict=True):
        want = across(name, row, n) if name in names[:2] else row
        assert (got == want).all(), (name, n)
