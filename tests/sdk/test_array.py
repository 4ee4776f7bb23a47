"""`tw.Array`: NumPy's protocol, eager operations, and lives and deaths in DRAM."""

import gc
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright.compiler.errors import DtypeError

A = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(autouse=True)
def device():
    with tw.default_device(tw.Device("tw4", "functional", dram_bytes=1 << 16)) as chosen:
        yield chosen


@pytest.mark.parametrize(
    "value",
    [
        A,
        A.T,
        np.int8([1, -2]),
        np.arange(4, dtype=np.uint32),
        np.array([True, False]),
        np.float32(2.5),
        np.array([1.5, -2], ml_dtypes.bfloat16),
        np.zeros((0, 3), np.float32),
    ],
)
def test_round_trip(value):
    x = tw.device_put(value)
    back = np.asarray(x)
    assert (back.dtype, back.shape) == (value.dtype, value.shape)
    assert back.tobytes() == np.ascontiguousarray(value).tobytes()
    assert not back.flags.writeable
    assert x.nbytes == value.nbytes


def test_64_bit_values_narrow():
    assert tw.device_put(np.arange(3)).dtype == np.int32
    assert tw.device_put(np.float64(2)).dtype == np.float32
    assert tw.device_put(2.0).weak_type
    with pytest.raises(DtypeError, match=r"device_put: x\['a'\]: .*complex.*test_array.py"):
        tw.device_put({"a": np.zeros(2, complex)})


def test_device_put_copies_at_once():
    source = A.copy()
    x = tw.device_put(source)
    source[:] = 0
    assert np.asarray(x).tolist() == A.tolist()


def test_python_protocols():
    x = tw.device_put(A)
    assert (len(x), x.ndim, x.size, x.shape) == (3, 2, 12, (3, 4))
    assert x.tolist() == A.tolist()
    assert x[1, 2].item() == 6.0
    assert float(tw.device_put(2.5)) == 2.5
    assert int(tw.device_put(7)) == [0, 1, 7][tw.device_put(2)]
    assert bool(tw.device_put(np.True_))
    assert [row.tolist() for row in x] == A.tolist()
    assert f"{tw.device_put(np.float32(0.5)):.2f}" == "0.50"
    assert np.array(x, np.int8).dtype == np.int8
    with pytest.raises(TypeError, match="len"):
        len(x[0, 0])
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x)
    with pytest.raises(TypeError):
        hash(x)


def test_repr_is_like_jax():
    assert repr(tw.device_put(np.int32([1, 2]))) == "Array([1, 2], dtype=int32)"
    assert repr(tw.device_put(1.5)) == "Array(1.5, dtype=float32, weak_type=True)"
    assert repr(tw.device_put(np.zeros((0, 2), np.int8))) == "Array([], shape=(0, 2), dtype=int8)"
    assert str(tw.device_put(np.int32([1, 2]))) == "[1 2]"


B = np.float32([1, -2, 3, -4])


@pytest.mark.parametrize(
    ("ours", "numpys"),
    [
        (lambda x: x + 1, A + 1),
        (lambda x: 2 - x, 2 - A),
        (lambda x: x * 2 - 1, A * 2 - 1),
        (lambda x: x / 4, A / 4),
        (lambda x: -x, -A),
        (lambda x: x + B, A + B),
        (lambda x: B * x, B * A),
        (lambda x: x @ A.T, A @ A.T),
        (lambda x: A.T @ x, A.T @ A),
        (lambda x: x.T, A.T),
        (lambda x: x[1:, ::2], A[1:, ::2]),
        (lambda x: x[None, 1], A[None, 1]),
        (lambda x: x.reshape(2, 6), A.reshape(2, 6)),
        (lambda x: x.astype(tnp.bfloat16), A),
        (lambda x: tnp.maximum(x, 5), np.maximum(A, 5)),
        (lambda x: tnp.clip(x, 2, 7), np.clip(A, 2, 7)),
        (lambda x: tnp.ones((2, 3)) @ x, np.ones((2, 3)) @ A),
    ],
)
def test_eager_operations_run_on_the_chip(ours, numpys):
    y = ours(tw.device_put(A))
    assert isinstance(y, tw.Array)
    assert np.asarray(y).tolist() == numpys.tolist()  # small integers: exact


def test_eager_operations_that_the_chip_cannot_do_are_errors():
    x = tw.device_put(A)
    with pytest.raises(tw.UnsupportedError, match=r"dot_general .*test_array.py.*the array takes"):
        x.astype(np.int32) @ x.astype(np.int32).T
    with pytest.raises(AttributeError, match=r"no \.sort"):
        x.sort()
    with pytest.raises(tw.UnsupportedError, match="immutable"):
        x[0] = 1


def test_created_arrays_are_on_the_device(device):
    assert tnp.zeros((2, 3)).device is device
    assert tnp.asarray([1, 2]).device is device


def test_reshape_shares_memory():
    x = tw.device_put(A)
    y = x.reshape(12)
    assert y.address == x.address
    del x
    assert np.asarray(y).tolist() == A.ravel().tolist()


def test_memory_is_freed_with_the_array(device):
    before = device.pool.used_bytes
    x = tw.device_put(A)
    y = tw.jit(lambda x: x @ x.T)(x)
    y.block_until_ready()
    assert device.pool.used_bytes > before
    del x, y
    gc.collect()
    assert device.pool.used_bytes == before
    for _ in range(100):  # 100 x 20 KiB pass through 64 KiB
        tw.device_put(np.zeros(5000, np.float32))


def test_reused_memory_never_mixes_arrays(device):
    """Work runs behind Python while arrays die and their bytes are given to others."""
    rng = np.random.default_rng(5)
    step = tw.jit(lambda x, w, b: x @ w + b)

    def chain(seed):
        rng = np.random.default_rng(seed)
        with tw.default_device(device):
            live = []
            for _ in range(40):
                m, k, n = rng.integers(1, 9, 3)
                host = [rng.integers(-8, 9, s).astype(np.float32) for s in [(m, k), (k, n), n]]
                y = step(*host)
                half = m // 2 + 1
                live.append((y[:half] * 2, 2 * (host[0] @ host[1] + host[2])[:half]))
                if rng.random() < 0.6:
                    live.pop(rng.integers(len(live)))
        return [(np.asarray(y).tolist(), exact.tolist()) for y, exact in live]

    with ThreadPoolExecutor(3) as pool:
        for results in pool.map(chain, rng.integers(1000, size=3)):
            assert results
            for found, exact in results:
                assert found == exact
    gc.collect()
    device.synchronize()
    constants = sum(len(held) for held in device.constants.values())
    assert device.pool.used_bytes == constants * 64


def test_delete():
    x = tw.device_put(A)
    x.delete()
    assert x.is_deleted()
    assert "deleted" in repr(x)
    with pytest.raises(RuntimeError, match=r"f32\[3,4\] must not be used after delete"):
        np.asarray(x)
    with pytest.raises(RuntimeError, match="must not be used"):
        tw.jit(lambda x: x * 2)(x)


def test_out_of_memory_names_the_holders(device):
    big = tw.device_put(np.zeros(10_000, np.float32))
    with pytest.raises(tw.OutOfMemoryError) as caught:
        tw.device_put(np.zeros(9_000, np.float32))
    message = str(caught.value)
    assert "36000 contiguous bytes" in message
    assert f"{(1 << 16) - 40_000} of {1 << 16} are free" in message
    assert "40000 bytes by " in message
    assert "test_array.py" in message
    big.delete()
    assert tw.device_put(np.zeros(9_000, np.float32)).nbytes == 36_000


def test_a_call_returns_before_the_chip_has_finished(monkeypatch):
    from tilewright import runs

    real, go, order = runs.sim.run, threading.Event(), []

    def slow(program, *args, **kwargs):
        assert go.wait(60)
        order.append(program)
        return real(program, *args, **kwargs)

    monkeypatch.setattr(runs.sim, "run", slow)
    x = tw.jit(lambda x: x * 2)(A)
    y = tw.jit(lambda x: x + 1)(x)  # queued behind it
    z = y @ A.T
    assert not (x.is_ready() or y.is_ready() or z.is_ready() or order)
    assert (z.shape, z.dtype) == ((3, 3), np.float32)  # known at once
    go.set()
    assert np.asarray(z).tolist() == ((A * 2 + 1) @ A.T).tolist()
    assert x.is_ready() and y.is_ready() and len(order) == 3


def test_an_error_reaches_what_depends_on_it_alone(monkeypatch):
    from tilewright import runs

    real, broken = runs.sim.run, [True]

    def sometimes(*args, **kwargs):
        if broken:
            broken.pop()
            raise RuntimeError("the engine broke")
        return real(*args, **kwargs)

    double = tw.jit(lambda x: x * 2)
    double.lower(A).compile()
    monkeypatch.setattr(runs.sim, "run", sometimes)
    bad, line = double(A), inspect.currentframe().f_lineno
    good = double(A)
    both = bad + good
    assert np.asarray(good).tolist() == (A * 2).tolist()
    for use in (lambda: np.asarray(both), lambda: bad.tolist(), bad.block_until_ready):
        with pytest.raises(RuntimeError, match="the engine broke") as caught:
            use()
        assert any(f"test_array.py:{line}" in note for note in caught.value.__notes__)


def test_out_of_memory_in_a_call_names_its_line_and_leaves_nothing(device):
    wide = tw.jit(lambda x: tnp.sin(tnp.sin(x @ x.T) @ x.T.T).sum())
    x = tw.device_put(np.ones((100, 100), np.float32))
    used = device.pool.used_bytes
    with pytest.raises(tw.OutOfMemoryError) as caught:
        wide(x)
    line = inspect.currentframe().f_lineno - 1
    assert f"temporaries of {__file__}:{line}" in str(caught.value)
    del caught
    assert device.pool.used_bytes - used < 4096  # the program's constants
    assert np.asarray(x[:1, :3] * 2).tolist() == [[2, 2, 2]]


def test_errors_of_a_call_surface_at_first_use(device, monkeypatch):
    from tilewright import runs

    def broken(*args, **kwargs):
        raise RuntimeError("the engine broke")

    monkeypatch.setattr(runs.sim, "run", broken)
    y = tw.jit(lambda x: x * 2)(A)
    z = y + 1  # depends on it
    for bad in (y, z):
        with pytest.raises(RuntimeError, match="the engine broke") as caught:
            bad.block_until_ready()
        assert any("test_array.py" in note for note in caught.value.__notes__)


def test_faults_name_instruction_and_line(device, monkeypatch):
    from tilewright import runs
    from tilewright.isa.table import Fault
    from tilewright.sim.result import FaultInfo

    real = runs.sim.run

    def faulty(*args, **kwargs):
        result = real(*args, **kwargs)
        result.fault = FaultInfo(Fault.RANGE, 0, text="out of range")
        return result

    monkeypatch.setattr(runs.sim, "run", faulty)
    y = tw.jit(lambda x: x * 2)(A)
    with pytest.raises(tw.ChipFaultError, match=r"(?s)RANGE at instruction 0.*load .*test_array"):
        np.asarray(y)


def test_tree_functions():
    tree = {"a": A, "b": [1.5, None]}
    placed = tw.block_until_ready(tw.device_put(tree))
    assert isinstance(placed["b"][0], tw.Array)
    back = tw.device_get(placed)
    assert back["a"].tolist() == A.tolist()
    assert isinstance(back["a"], np.ndarray)


def test_numpy_functions_broadcast_at_once():
    """A function's equations are one program, so that a row is part of the epilogue."""
    rng = np.random.default_rng(0)
    with tw.default_device(tw.Device("tw4", "functional")):
        x, row = rng.standard_normal((3, 5)).astype(np.float32), np.float32([1, -2, 3, 0.5, 4])
        a, r = tw.device_put(x), tw.device_put(row)
        for function in ("add", "subtract", "multiply"):
            expected = getattr(np, function)(x, row)
            for got in (getattr(tnp, function)(a, r), getattr(tnp, function)(x, r)):
                assert isinstance(got, tw.Array)
                assert np.array_equal(np.asarray(got), expected), function
        assert np.array_equal(np.asarray(tnp.clip(a, max=0.5)), np.minimum(x, np.float32(0.5)))
        assert np.array_equal(np.asarray(tnp.maximum(0.25, a)), np.maximum(x, np.float32(0.25)))
        assert np.array_equal(np.asarray(tnp.outer(r, r)), np.outer(row, row))
        got = tnp.einsum("ij,j->ij", a, r)
        assert np.array_equal(np.asarray(got), x * row)
        assert np.array_equal(np.asarray(tnp.divide(a, r)), x / row)
        assert np.array_equal(np.asarray(tnp.where(a > r, a, 1.0)), np.where(x > row, x, 1))
