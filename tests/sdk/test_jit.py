"""`tw.jit`: results against NumPy, the cache, static arguments, texts, errors."""

import dataclasses
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright.compiler.core import eval_jaxpr
from tilewright.compiler.errors import DtypeError, LeakedTracerError, OperandError

RNG = np.random.default_rng(7)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*shape):
    return RNG.integers(-128, 128, shape).astype(np.int8)


@pytest.fixture(autouse=True)
def device():
    with tw.default_device(tw.Device("tw4", "functional")) as chosen:
        yield chosen


def dense(x, w, b):
    return tnp.maximum(x @ w + b, 0)


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (7, 9, 11), (16, 4, 3), (5, 33, 2)])
def test_dense_layer_is_close_to_float64(m, k, n):
    x, w, b = floats(m, k), floats(k, n), floats(n)
    ours = np.asarray(tw.jit(dense)(x, w, b))
    exact = np.maximum(x.astype(float) @ w.astype(float) + b, 0)
    bound = 2**-7 * (np.abs(x).astype(float) @ np.abs(w).astype(float)) + 1e-5
    assert ours.dtype == np.float32
    assert (np.abs(ours - exact) <= bound).all()


def test_int8_product_is_exact():
    x, w = ints(9, 30), ints(30, 6)
    ours = tw.jit(lambda x, w: tnp.matmul(x, w, preferred_element_type=np.int32))(x, w)
    assert np.asarray(ours).tolist() == (x.astype(int) @ w.astype(int)).tolist()


@pytest.mark.parametrize("engine", ["functional", "cycle"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int8])
def test_engines_give_the_oracles_bits(engine, dtype):
    x, w, b = ints(6, 10).astype(dtype), ints(10, 5).astype(dtype), ints(5).astype(dtype)
    f = tw.jit(lambda x, w, b: tnp.maximum(x @ w, 0) if dtype == np.int8 else dense(x, w, b))
    if dtype == np.int8:
        f = tw.jit(lambda x, w, b: tnp.matmul(x, w, preferred_element_type=np.int32))
    with tw.default_device(tw.Device("tw4", engine)):
        ours = np.asarray(f(x, w, b))
    (oracle,) = eval_jaxpr(f.lower(x, w, b).jaxpr, [x, w, b], dim=4)
    assert ours.tobytes() == np.ascontiguousarray(oracle).tobytes()


class Layer(NamedTuple):
    w: object
    b: object


def test_pytrees_in_and_out():
    layers = {"a": Layer(floats(4, 5), floats(5)), "b": [None, (floats(5, 2),)]}

    @tw.jit
    def f(layers, *, x):
        h = x @ layers["a"].w + layers["a"].b
        return {"h": h, "y": (h @ layers["b"][1][0], None), "same": layers["a"]}

    x = floats(3, 4)
    out = f(layers, x=x)
    assert out["y"][1] is None
    assert isinstance(out["same"], Layer)
    assert np.asarray(out["same"].w).tolist() == layers["a"].w.tolist()
    assert np.allclose(out["h"], x @ layers["a"].w + layers["a"].b, atol=0.1)
    assert out["y"][0].shape == (3, 2)


def test_compiles_once_per_kind_of_arguments():
    traced = []

    @tw.jit
    def f(x, s):
        traced.append((x.shape, x.dtype, s.weak_type))
        return x * s

    x = floats(3, 4)
    assert np.allclose(f(x, 2.0), 2 * x)
    f(floats(3, 4), 5.0)
    f(tw.device_put(x), -1.0)
    assert len(traced) == 1
    f(x, np.float32(2))  # not weakly typed
    f(floats(2, 4), 2.0)
    with tw.default_device(tw.Device("tw8", "functional")):
        f(x, 2.0)
    assert (len(traced), f.cache_size()) == (4, 4)


def test_weak_types_flow_through():
    f = tw.jit(lambda x: x * 2)
    assert f(3.0).weak_type
    assert f(3.0).item() == 6.0
    assert not f(np.float32(3)).weak_type


def test_static_arguments_by_place_and_name():
    traced = []

    @tw.jit(static_argnames="n")
    def f(x, n, scale=1.0):
        traced.append(n)
        return x[:n] * scale

    x = floats(6, 3)
    assert f(x, 2).shape == (2, 3)
    assert f(x, n=3, scale=2.0).shape == (3, 3)
    assert f(x, 2).shape == (2, 3)
    assert traced == [2, 3]

    g = tw.jit(lambda k, x: x * k, static_argnums=0)
    assert np.asarray(g(-0.0, np.float32([1]))).tobytes() == np.float32([-0.0]).tobytes()
    assert np.asarray(g(0.0, np.float32([1]))).tobytes() == np.float32([0.0]).tobytes()
    assert g.cache_size() == 2


def test_nested_jit_is_inlined():
    inner = tw.jit(lambda x, w: x @ w)
    outer = tw.jit(lambda x, w, b: inner(x, w) + b)
    x, w, b = floats(3, 4), floats(4, 5), floats(5)
    lowered = outer.lower(x, w, b)
    assert lowered.as_text().count("dot_general") == 1
    assert inner.cache_size() == 0
    assert lowered.as_text("kernels").count("contract") == 1


def test_captured_arrays_become_constants():
    w = floats(4, 5)
    kept = tw.device_put(floats(5))
    f = tw.jit(lambda x: x @ w + kept)
    x = floats(3, 4)
    compiled = f.lower(x).compile()
    assert compiled.memory_analysis().constant_size_in_bytes == 4 * (20 + 5)
    assert np.allclose(f(x), x @ w + np.asarray(kept), atol=0.1)


def test_a_captured_bias_gives_the_bits_of_an_argument():
    x, w, b = floats(7, 5), floats(5, 6), floats(6)
    closed = tw.jit(lambda x: dense(x, w, b))
    assert np.asarray(closed(x)).tobytes() == np.asarray(tw.jit(dense)(x, w, b)).tobytes()


def test_results_that_nothing_computes(device):
    x = tw.device_put(floats(2, 3))
    same, twice, number = tw.jit(lambda x: (x, (x, x), tnp.full((2,), 7)))(x)
    host = np.asarray(x).tolist()
    x.delete()
    assert [a.tolist() for a in (same, *twice)] == [host] * 3
    assert number.tolist() == [7, 7]


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_empty_arrays(shape):
    y = tw.jit(lambda x: x @ tnp.ones((shape[1], 2)))(np.zeros(shape, np.float32))
    assert np.asarray(y).tolist() == np.zeros((shape[0], 2)).tolist()


def test_every_level_prints():
    lowered = tw.jit(dense).lower(floats(5, 6), floats(6, 7), floats(7))
    compiled = lowered.compile()
    assert lowered.as_text().startswith("{ lambda")
    assert "dot_general" in compiled.as_text("jaxpr")
    assert "contract(" in compiled.as_text("kernels")
    assert "matmul" in compiled.as_text("tiles")
    asm = compiled.as_text("asm")
    assert "halt" in asm
    assert "test_jit.py" in asm
    with pytest.raises(ValueError, match="stage must be one of jaxpr, kernels, tiles, asm, not"):
        compiled.as_text("hlo")


def test_lower_takes_shapes():
    spec = tw.ShapeDtypeStruct((5, 6), np.float32)
    out = tw.jit(lambda x: x @ x.T).lower(spec).compile()(floats(5, 6))
    assert out.shape == (5, 5)


def test_cost_and_memory_analysis():
    x, w, b = ints(8, 12), ints(12, 4), np.zeros(4, np.int32)
    f = tw.jit(lambda x, w, b: tnp.matmul(x, w, preferred_element_type=np.int32) + b)
    compiled = f.lower(x, w, b).compile()
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    assert cost["macs"] == 8 * 12 * 4
    assert cost["bytes read"] >= x.nbytes + w.nbytes + b.nbytes
    assert cost["bytes written"] >= 8 * 4 * 4
    assert memory.argument_size_in_bytes == x.nbytes + w.nbytes + b.nbytes
    assert memory.output_size_in_bytes == 8 * 4 * 4
    assert memory.temp_size_in_bytes == 0
    assert memory.generated_code_size_in_bytes % 64 == 0
    with tw.default_device(tw.Device("tw4", "cycle")), tw.profile() as p:
        f(x, w, b)
    assert p.cycles == cost["cycles"]


def test_donated_arguments_are_deleted(device):
    f = tw.jit(lambda x, y: x + y, donate_argnums=0)
    x, y = tw.device_put(floats(64)), tw.device_put(floats(64))
    f(x, y).block_until_ready()
    assert x.is_deleted()
    assert not y.is_deleted()


def test_jit_of_a_method():
    class Model:
        scale = 3.0

        @tw.jit(static_argnums=0)
        def apply(self, x):
            return x * self.scale

    x = floats(4)
    assert np.allclose(Model().apply(x), 3 * x)


def test_program_file_runs_without_recompiling(tmp_path):
    x, w, b = floats(5, 6), floats(6, 7), floats(7)
    compiled = tw.jit(dense).lower(x, w, b).compile()
    compiled.save(tmp_path / "dense.tw")
    loaded = tw.load(tmp_path / "dense.tw")
    out = loaded(x, w, b, engine="functional")
    assert out.tobytes() == np.asarray(compiled(x, w, b)).tobytes()
    assert (loaded.name, loaded.inputs[1].shape) == ("dense", (6, 7))
    with pytest.raises(TypeError, match=r"in1 must be float32\[6, 7\], not float32\[7, 6\]"):
        loaded(x, w.T, b)
    with pytest.raises(TypeError, match="takes 3 arrays, not 1"):
        loaded(x)


def test_checker_refuses_a_broken_compiler(monkeypatch):
    from tilewright.compiler import tile_program
    from tilewright.sim.checker import CheckError

    def forgetful(ops, *rest):
        synchronise(ops, *rest)
        next(o for o in ops if o.name == "matmul").sync["wait0_n"] = 0

    synchronise = tile_program.synchronise
    monkeypatch.setattr(tile_program, "synchronise", forgetful)
    lowered = tw.jit(lambda x, w: x @ w).lower(floats(5, 6), floats(6, 7))
    with pytest.raises(CheckError, match="race"):
        lowered.compile()
    again = tw.jit(lambda x, w: x @ w).lower(floats(5, 6), floats(6, 7))
    monkeypatch.setattr(tw.settings, "check_programs", False)
    assert len(again.compile().program)


A = np.ones((3, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tw.jit(3), TypeError, "jit needs a function, not 3"),
        (lambda: tw.jit(dense)(A, A, A), OperandError, r"matmul.*test_jit.py"),
        (lambda: tw.jit(dense)(A, A), TypeError, r"dense\(x, w, b\): missing.*'b'.*test_jit.py"),
        (lambda: tw.jit(dense)(A, A, A, A), TypeError, "too many positional arguments"),
        (lambda: tw.jit(dense)(A, A, {"w": "a"}), DtypeError, r"dense: args\[2\]\['w'\]: .* str"),
        (lambda: tw.jit(dense)(A, A, b=1j), DtypeError, r"kwargs\['b'\]: .*complex"),
        (lambda: tw.jit(dense)(A, A, A.astype(np.float16)), DtypeError, "float16"),
        (lambda: tw.jit(lambda x: "no")(A), DtypeError, "result of <lambda> is not an array"),
        (
            lambda: tw.jit(dense, static_argnums=1)(A, [1], A),
            ValueError,
            "static argument 1 of dense must be hashable, not list",
        ),
        (lambda: tw.jit(dense, static_argnums=3), ValueError, r"must be in \[-3, 3\) for dense"),
        (lambda: tw.jit(dense, static_argnames="q"), ValueError, "of dense, not 'q'"),
        (
            lambda: tw.jit(dense).lower(A, A.T, A[:, 0]).compile()(A, A.T),
            OperandError,
            "compiled for arguments",
        ),
        (
            lambda: tw.jit(dense).lower(A, A.T, A[:, 0]).compile()(A, A.T, A[0]),
            OperandError,
            r"compiled for f32\[3\] as leaf 2 .*not f32\[4\]",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_arguments_on_two_devices():
    a = tw.device_put(A, tw.Device("tw4", "functional"))
    b = tw.device_put(A, tw.Device("tw4", "functional"))
    with pytest.raises(ValueError, match=r"must be on one device, not on Device.* and Device"):
        tw.jit(lambda a, b: a + b)(a, b)


def test_compiled_for_another_chip():
    compiled = tw.jit(lambda x: x * 2).lower(A).compile()
    with (
        tw.default_device(tw.Device("tw8", "functional")),
        pytest.raises(ValueError, match="compiled for tw4, not for Device"),
    ):
        compiled(A)


def test_leaked_tracer():
    leaked = []
    tw.jit(lambda x: leaked.append(x) or x * 2)(A)
    with pytest.raises(LeakedTracerError, match=r"test_jit.py"):
        tw.jit(lambda x: x * 2)(leaked[0])


def test_registered_dataclass():
    @tw.tree.register_dataclass
    @dataclasses.dataclass
    class Params:
        w: object

    out = tw.jit(lambda p: Params(p.w * 2))(Params(A))
    assert np.asarray(out.w).tolist() == (2 * A).tolist()


INT8_CHIP = "dim=4,spad_kib=8,acc_kib=4,array=int8"


def requantised(x, w, b, scale):
    y = tnp.matmul(x, w, preferred_element_type=np.int32) + b
    return tnp.clip(tnp.round(y.astype(np.float32) * scale), -128, 127).astype(np.int8)


@pytest.mark.parametrize("engine", ["functional", "cycle", "rtl"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_an_int8_layer_has_the_same_bits_and_cycles_on_both_arrays(engine, dtype):
    info = np.iinfo(dtype)
    x, w = (RNG.integers(info.min, info.max + 1, s).astype(dtype) for s in ((9, 30), (30, 6)))
    b, scale = RNG.integers(-5000, 5000, 6).astype(np.int32), np.full(6, 2**-12, np.float32)
    f, found = tw.jit(requantised), []
    for chip in ("tw4", INT8_CHIP):
        with tw.default_device(tw.Device(chip, engine)), tw.profile() as profile:
            found.append(np.asarray(f(x, w, b, scale)))
        found.append([run.cycles for run in profile.runs])
    total = (x.astype(int) @ w.astype(int) + b) / 4096
    assert found[0].tolist() == np.clip(np.rint(total), -128, 127).tolist()
    assert found[0].tobytes() == found[2].tobytes() and found[1] == found[3]


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_an_int8_array_refuses_a_float_product(dtype):
    x = floats(3, 4).astype(dtype)
    name = {np.float32: "f32"}.get(dtype, "bf16")
    message = rf"dot_general {name}\[3,4\] {name}\[4,3\] at .*test_jit\.py.*array=bf16.*array=int8"
    with (
        tw.default_device(tw.Device(INT8_CHIP, "functional")),
        pytest.raises(tw.UnsupportedError, match=message),
    ):
        tw.jit(lambda a, b: a @ b)(x, x.T)
