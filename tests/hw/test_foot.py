"""The accumulator foot against `sim.numerics`, every mode, modes changing from row to row."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from tilewright.hw.foot import Foot
from tilewright.isa.timing import FOOT_LATENCY
from tilewright.sim import numerics as nm

_spec = importlib.util.spec_from_file_location("vsim", Path(__file__).parent / "vsim.py")
vsim = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(vsim)


def rows(count, dim, rng):
    """Sums that are integers up to 2^21 or any canonical float, and accumulators of any bits."""
    is_int = rng.integers(0, 2, count).astype(np.uint8)
    whole = rng.integers(-(2**21), 2**21 + 1, (count, dim))
    whole[::7] = rng.integers(-3, 4, whole[::7].shape)
    raw = rng.integers(0, 2**32, (count, dim), dtype=np.uint32)
    raw[1::3] = nm.canonical(rng.normal(size=raw[1::3].shape)).view(np.uint32)
    sums = np.where(is_int[:, None], whole.astype(np.float32), nm.canonical(raw.view(np.float32)))
    acc = rng.integers(0, 2**32, (count, dim), dtype=np.uint32)
    acc[::3] = (raw[::3] & 0x3FFFFFF) ^ sums[::3].view(np.uint32)
    acc[5::9] = rng.choice(np.uint32([0, 1, 0x80000000, 0x7F800000, 0x7FFFFFFF]), acc[5::9].shape)
    return is_int, sums.astype(np.float32), acc


@pytest.mark.parametrize("dim", [2, 4])
def test_foot_adds_like_numerics(dim):
    rng = np.random.default_rng(dim)
    is_int, sums, acc = rows(20_000, dim, rng)
    over = rng.integers(0, 2, len(sums)).astype(np.uint8)
    flat = {"i_sum": sums.view(np.uint32), "i_acc": acc, "i_int": is_int, "i_overwrite": over}
    got = vsim.build(Foot(dim)).run(flat, ["o_row"])["o_row"][FOOT_LATENCY:]
    ints = sums * is_int[:, None]
    whole = np.where(is_int[:, None], ints, 0).astype(np.int64)
    added = (whole + acc.view(np.int32)).astype(np.uint64).astype(np.uint32)
    floats = nm.f32_add(acc.view(np.float32), sums).view(np.uint32)
    want = np.where(
        is_int[:, None],
        np.where(over[:, None], whole.astype(np.int32).view(np.uint32), added),
        np.where(over[:, None], sums.view(np.uint32), floats),
    )
    bad = np.argwhere(got.reshape(-1, dim) != want[:-FOOT_LATENCY])
    assert not bad.size, bad[:4]


@pytest.mark.parametrize("dim", [2, 4])
def test_the_foot_of_an_int8_array_adds_int32(dim):
    rng = np.random.default_rng(dim)
    foot = Foot(dim, "int8")
    top = 1 << (foot.width - 1)
    sums = rng.integers(-top, top, (5000, dim))
    sums[::7] = rng.choice([-top, -1, 0, top - 1], sums[::7].shape)
    acc = rng.integers(-(2**31), 2**31, sums.shape)
    acc[::5] = rng.choice([-(2**31), 2**31 - 1, 0], acc[::5].shape)
    over = rng.integers(0, 2, len(sums)).astype(np.uint8)
    size = vsim.storage(dim * foot.width)
    words = [
        sum((int(x) & (2 * top - 1)) << (foot.width * c) for c, x in enumerate(row)) for row in sums
    ]
    raw = np.frombuffer(b"".join(w.to_bytes(size, "little") for w in words), np.uint8)
    flat = {
        "i_sum": raw.reshape(len(sums), size),
        "i_acc": acc.astype(np.int32).view(np.uint32),
        "i_int": rng.integers(0, 2, len(sums)).astype(np.uint8),
        "i_overwrite": over,
    }
    got = vsim.build(foot).run(flat, ["o_row"])["o_row"][FOOT_LATENCY:].view(np.int32)
    want = (sums + np.where(over[:, None], 0, acc)).astype(np.int32)
    assert (got.reshape(-1, dim) == want[:-FOOT_LATENCY]).all()
