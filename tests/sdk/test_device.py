"""Devices, their choice and settings, the DRAM allocator, and what `import tilewright` costs."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import tilewright as tw
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright.config import default_config, default_engine
from tilewright.device import current_device
from tilewright.isa.config import ConfigError
from tilewright.memory_pool import ALIGN, MemoryPool, OutOfMemoryError


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_import_is_light():
    code = (
        "import sys, tilewright;"
        "heavy = {'amaranth', 'matplotlib', 'numpy', 'rich', 'tilewright.compiler'};"
        "print(heavy & set(sys.modules))"
    )
    assert run(code).strip() == "set()"


def test_jit_does_not_need_the_heavy_packages():
    code = (
        "import sys, tilewright as tw; tw.jit; tw.numpy; tw.profile;"
        "print({'amaranth', 'matplotlib', 'rich', 'tilewright.hw'} & set(sys.modules))"
    )
    assert run(code).strip() == "set()"


def test_program_files_need_no_compiler(tmp_path):
    x = np.float32([[1, 2], [3, 4]])
    with tw.default_device(tw.Device("tw4", "cycle")):
        tw.jit(lambda x: x @ x).lower(x).compile().save(tmp_path / "p.tw")
    code = (
        "import sys; sys.modules['tilewright.compiler'] = None;"
        "import numpy as np, tilewright as tw\n"
        "with tw.profile() as p:\n"
        f"    y = tw.load({str(tmp_path / 'p.tw')!r})(np.float32([[1, 2], [3, 4]]))\n"
        "p.report(); p.listing()\n"
        "print(y.tolist())"
    )
    assert run(code).strip() == "[[7.0, 10.0], [15.0, 22.0]]"


def test_exported_names_exist():
    assert all(hasattr(tw, name) for name in tw.__all__)
    assert set(tw.__all__) <= set(dir(tw))
    with pytest.raises(AttributeError, match=r"tilewright has no 'pmap'; it has: .*jit"):
        tw.pmap  # noqa: B018


def test_default_device_nests():
    a, b = tw.Device("tw4", "functional"), tw.Device("tw8", "functional")
    with tw.default_device(a):
        assert current_device() is a
        with tw.default_device(b):
            assert tw.device_put(1).device is b
        assert tw.devices()[0] is a
        assert b in tw.devices()
    with pytest.raises(TypeError, match=r"needs a tw.Device, not 'tw4'"), tw.default_device("tw4"):
        pass


def test_environment_chooses(monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_ENGINE", "functional")
    monkeypatch.setenv("TILEWRIGHT_CONFIG", "dim=8,spad_kib=32,acc_kib=8")
    device = tw.Device()
    assert (device.engine, device.config.dim) == ("functional", 8)
    monkeypatch.setenv("TILEWRIGHT_ENGINE", "fast")
    with pytest.raises(ValueError, match="TILEWRIGHT_ENGINE must be one of functional, cycle, rtl"):
        default_engine()
    monkeypatch.setenv("TILEWRIGHT_CONFIG", "tw5")
    with pytest.raises(ConfigError, match=r"TILEWRIGHT_CONFIG: .*tw4, tw8, tw16"):
        default_config()


def test_defaults(monkeypatch):
    monkeypatch.delenv("TILEWRIGHT_ENGINE", raising=False)
    monkeypatch.delenv("TILEWRIGHT_CONFIG", raising=False)
    device = tw.Device()
    assert (device.engine, device.config.name, device.dram_bytes) == ("cycle", "tw16", 1 << 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "verilog"}, "engine must be one of functional, cycle, rtl, not 'verilog'"),
        ({"config": "tw3"}, "configuration must be one of tw4, tw8, tw16"),
        ({"dram_bytes": 1 << 33}, "dram_bytes must be in"),
    ],
)
def test_device_errors(options, message):
    with pytest.raises(ValueError, match=message):
        tw.Device(**options)


def test_arrays_move_between_devices():
    a, b = tw.Device("tw4", "functional"), tw.Device("tw8", "functional")
    x = tw.device_put(np.float32([1, 2]), a)
    assert tw.device_put(x, a) is x
    y = tw.device_put(x, b)
    assert y.device is b
    assert y.tolist() == [1, 2]
    assert tw.jit(lambda y: y * 2)(y).device is b
    with pytest.raises(TypeError, match=r"device must be a tw.Device, not 'tw4'"):
        tw.device_put(x, "tw4")


def test_default_matmul_precision():
    """Three and six passes are as exact as their parts; the compiled function is not reused."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((9, 21), (21, 7)))
    exact = x.astype(np.float64) @ w.astype(np.float64)
    scale = np.abs(x).astype(np.float64) @ np.abs(w)
    f = tw.jit(lambda x, w: x @ w)
    errors = {}
    for name in ("bfloat16", "tensorfloat32", "float32"):
        with tw.default_matmul_precision(name):
            errors[name] = np.max(np.abs(np.asarray(f(x, w)) - exact) / scale)
            assert np.array_equal(np.asarray(tw.device_put(x) @ w), np.asarray(f(x, w)))
    assert 1e-4 < errors["bfloat16"] < 2**-7
    assert 1e-7 < errors["tensorfloat32"] < 2**-15
    assert errors["float32"] < 3e-7
    with (
        pytest.raises(ValueError, match=r"precision must be one of 'default', .* not 'best'"),
        tw.default_matmul_precision("best"),
    ):
        pass


def test_memory_stats_count_what_is_held():
    device = tw.Device("tw4", "functional", dram_bytes=100 * ALIGN)
    x = tw.device_put(np.zeros(ALIGN // 4, np.float32), device)
    y = tw.device_put(np.zeros(ALIGN, np.float32), device)
    found = device.memory_stats()
    assert (found["num_allocs"], found["largest_alloc_size"]) == (2, 4 * ALIGN)
    assert (found["bytes_in_use"], found["bytes_limit"]) == (5 * ALIGN, 100 * ALIGN)
    assert found["largest_free_block_bytes"] == 95 * ALIGN
    assert tw.live_arrays(device) == [x, y] and any(a is x for a in tw.live_arrays())
    y.delete()
    found = device.memory_stats()
    assert (found["bytes_in_use"], found["peak_bytes_in_use"]) == (ALIGN, 5 * ALIGN)
    assert found["num_allocs"] == 2 and tw.live_arrays(device) == [x]
    del x
    assert device.memory_stats()["bytes_in_use"] == 0 and tw.live_arrays(device) == []


def test_pool_takes_the_best_fit_and_merges():
    pool = MemoryPool(10 * ALIGN)
    a, b, c = pool.alloc(1), pool.alloc(2 * ALIGN), pool.alloc(ALIGN + 1)
    assert [x.address for x in (a, b, c)] == [0, ALIGN, 3 * ALIGN]
    del b
    d = pool.alloc(ALIGN)
    assert d.address == ALIGN
    del a, d
    e = pool.alloc(3 * ALIGN)
    assert e.address == 0  # the piece behind c has five
    del c, e
    assert (pool.free_bytes, pool.alloc(10 * ALIGN).address) == (10 * ALIGN, 0)


def test_pool_keeps_small_blocks_above_large_ones():
    pool = MemoryPool(1 << 22)
    large, small = pool.alloc(1 << 20), [pool.alloc(1 << 12) for _ in range(3)]
    assert [b.address for b in small] == [(1 << 22) - (i << 12) for i in (1, 2, 3)]
    more = pool.alloc(1 << 20)
    del large, small[1], more
    assert pool.stats()["largest_free_block_bytes"] == (1 << 22) - (3 << 12)


def test_pool_grows_to_its_limit_when_it_must():
    pool = MemoryPool(1 << 25, 0.75)
    first = pool.alloc(1)
    assert (pool.limit, pool.end) == (3 << 23, 1 << 22)
    block = pool.alloc(9 << 20)
    found = pool.stats()
    assert (found["pool_bytes"], found["bytes_limit"]) == (1 << 24, 3 << 23)
    assert found["largest_free_block_bytes"] >= (24 << 20) - (4 << 20) - (9 << 20)
    with pytest.raises(OutOfMemoryError, match=rf"of {3 << 23} are free"):
        pool.alloc(16 << 20)
    assert first.address < pool.limit and block.address + block.nbytes <= pool.end
    assert MemoryPool(1 << 25, preallocate=True).stats()["pool_bytes"] == 1 << 25


def largest_free(first_fit, steps=4000, size=1 << 24):
    """Mean share of the largest piece in what is free, over arrays of 64 bytes to 2 MiB."""
    rng = np.random.default_rng(3)
    pool = MemoryPool(size, preallocate=True)
    if first_fit:
        pool.small = 0
        pool._place = lambda n: _first_fit(pool, n)
    held, shares = [], []
    for step in range(steps):
        held = [(until, b) for until, b in held if until > step]
        nbytes = int(64 * 2 ** rng.uniform(0, 15))
        until = step + rng.exponential(600 if rng.random() < 0.3 else 40)
        largest = pool.stats()["largest_free_block_bytes"]
        if nbytes < largest and nbytes < 0.75 * size - pool.used_bytes:
            held.append((until, pool.alloc(nbytes)))
        shares.append(pool.stats()["largest_free_block_bytes"] / pool.free_bytes)
    return np.mean(shares[500:])


def _first_fit(pool, size):
    at = next(i for i, (_, n) in enumerate(pool._free) if n >= size)
    address, free = pool._free[at]
    pool._free[at : at + 1] = [(address + size, free - size)] if free > size else []
    return address


def test_pool_resists_fragmentation():
    assert largest_free(first_fit=False) > 1.1 * largest_free(first_fit=True)


def test_environment_limits_memory(monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_MEM_FRACTION", ".25")
    device = tw.Device("tw4", "functional", dram_bytes=1 << 25)
    assert device.memory_stats()["bytes_limit"] == 1 << 23
    assert device.memory_stats()["pool_bytes"] == 1 << 22
    monkeypatch.setenv("TILEWRIGHT_PREALLOCATE", "true")
    device = tw.Device("tw4", "functional", dram_bytes=1 << 25)
    assert device.memory_stats()["pool_bytes"] == 1 << 23
    for name, value, message in (
        ("TILEWRIGHT_MEM_FRACTION", "2", "MEM_FRACTION must be above 0 and at most 1, not '2'"),
        ("TILEWRIGHT_PREALLOCATE", "some", "PREALLOCATE must be true or false, not 'some'"),
    ):
        with monkeypatch.context() as patch, pytest.raises(ValueError, match=message):
            patch.setenv(name, value)
            tw.Device("tw4", "functional")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5 * ALIGN)), max_size=60))
def test_pool_blocks_never_overlap_and_nothing_is_lost(steps):
    pool, held = MemoryPool(32 * ALIGN), []
    for free, n in steps:
        if free and held:
            held.pop(n % len(held))
            continue
        try:
            held.append(pool.alloc(n, "test"))
        except OutOfMemoryError:
            cells = {c for b in held for c in range(b.address, b.address + max(b.nbytes, 1))}
            need = -(-max(n, 1) // ALIGN) * ALIGN
            starts = range(0, 32 * ALIGN - need + 1, ALIGN)
            assert all(cells & set(range(s, s + need)) for s in starts)
    spans = sorted((b.address, b.address + max(b.nbytes, 1)) for b in held)
    assert all(first[1] <= second[0] for first, second in pairwise(spans))
    held.clear()
    assert pool.free_bytes == pool.size
