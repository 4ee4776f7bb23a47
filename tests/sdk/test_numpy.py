"""`tilewright.numpy` and `tilewright.lax` against NumPy, traced and eager."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import tilewright.lax as lax
import tilewright.numpy as tnp
from tilewright import tree
from tilewright.compiler import trace
from tilewright.compiler.core import eval_jaxpr
from tilewright.compiler.errors import DtypeError, OperandError, UnsupportedError
from tilewright.compiler.operators import ArrayOperators
from tilewright.compiler.trace import make_jaxpr

RNG = np.random.default_rng(0)
A = RNG.integers(-9, 9, (2, 3, 4)).astype(np.float32)
B = RNG.integers(-9, 9, (4, 5)).astype(np.float32)


# The operands are small integers, exact in bfloat16: NumPy's float32 result is exact too.
@pytest.mark.parametrize(
    ("ours", "numpys"),
    [
        (lambda a: tnp.matmul(a, B), lambda a: a @ B),
        (lambda a: a @ tnp.swapaxes(a, 1, 2), lambda a: a @ a.swapaxes(1, 2)),
        (lambda a: a @ B[:, 0], lambda a: a @ B[:, 0]),
        (lambda a: A[0, 0] @ tnp.swapaxes(a, -1, -2), lambda a: A[0, 0] @ a.swapaxes(1, 2)),
        (lambda a: a[:, None] @ a.mT[None], lambda a: a[:, None] @ a.mT[None]),
        (lambda a: a[0, 0] @ a[1, 1], lambda a: a[0, 0] @ a[1, 1]),
        (lambda a: B.T @ a[0].T, lambda a: B.T @ a[0].T),
        (lambda a: tnp.dot(a, B), lambda a: np.dot(a, B)),
        (lambda a: tnp.dot(a, tnp.swapaxes(a, 1, 2)), lambda a: np.dot(a, a.swapaxes(1, 2))),
        (lambda a: tnp.dot(a, 2.0), lambda a: a * 2),
        (lambda a: a.dot(B), lambda a: a.dot(B)),
        (lambda a: a + a[0], lambda a: a + a[0]),
        (lambda a: a[:, :1] - a[0, 0], lambda a: a[:, :1] - a[0, 0]),
        (lambda a: 3 - a * 2, lambda a: 3 - a * 2),
        (lambda a: 1 / (a + 0.5), lambda a: 1 / (a + np.float32(0.5))),
        (lambda a: tnp.negative(a), lambda a: -a),
        (lambda a: tnp.maximum(a, 0), lambda a: np.maximum(a, 0)),
        (lambda a: tnp.minimum(A[1], a), lambda a: np.minimum(A[1], a)),
        (lambda a: tnp.clip(a, -2, None), lambda a: np.clip(a, -2, None)),
        (lambda a: a.clip(max=3), lambda a: a.clip(max=3)),
        (lambda a: tnp.round(a / 4), lambda a: np.round(a / 4)),
        (lambda a: tnp.rint(a.astype(tnp.int32)), lambda a: a),
        (lambda a: tnp.broadcast_to(a, (7, 2, 3, 4)), lambda a: np.broadcast_to(a, (7, 2, 3, 4))),
        (lambda a: tnp.reshape(a, (3, -1)), lambda a: a.reshape(3, -1)),
        (lambda a: a.reshape((4, 6)), lambda a: a.reshape(4, 6)),
        (lambda a: tnp.ravel(a), lambda a: a.ravel()),
        (lambda a: tnp.transpose(a, (1, 2, 0)), lambda a: a.transpose(1, 2, 0)),
        (lambda a: a.transpose(1, 2, 0), lambda a: a.transpose(1, 2, 0)),
        (lambda a: a.T, lambda a: a.T),
        (lambda a: tnp.moveaxis(a, 0, -1), lambda a: np.moveaxis(a, 0, -1)),
        (lambda a: tnp.moveaxis(a, (0, 1), (2, 0)), lambda a: np.moveaxis(a, (0, 1), (2, 0))),
        (lambda a: tnp.expand_dims(a, (0, -1)), lambda a: np.expand_dims(a, (0, -1))),
        (lambda a: tnp.squeeze(a[:, :1, None]), lambda a: a[:, 0]),
        (lambda a: tnp.squeeze(a[:1, :1], 1), lambda a: a[:1, 0]),
        (lambda a: a[1:, -1, ..., None, 1:4:2], lambda a: a[1:, -1, ..., None, 1:4:2]),
        (lambda a: a[2:1], lambda a: a[2:1]),
        (lambda a: a[..., tnp.newaxis], lambda a: a[..., None]),
        (lambda a: a + tnp.ones_like(a) * tnp.full((4,), 3), lambda a: a + 3),
        (lambda a: a.astype(tnp.int8) @ tnp.ones((4, 2), tnp.int8), None),
        (lambda a: (a > 0) + (a > 5), lambda a: a > 0),
        (lambda a: (a > 0) * (a > 5), lambda a: a > 5),
        (lambda a: (a == 0) != (a >= 0), lambda a: (a == 0) != (a >= 0)),
        (lambda a: lax.clamp(-1.0, a, 1.0), lambda a: np.clip(a, -1, 1)),
        (lambda a: lax.max(lax.mul(a, 2.0), lax.min(a, a)), lambda a: np.maximum(a * 2, a)),
        (lambda a: lax.sub(lax.add(a, a), 1), lambda a: a + a - 1),
        (lambda a: lax.transpose(lax.reshape(a, (6, 4)), (1, 0)), lambda a: a.reshape(6, 4).T),
        (lambda a: lax.slice(a, (0, 1, 0), (2, 3, 4), (1, 1, 3)), lambda a: a[:, 1:3, ::3]),
        (
            lambda a: lax.broadcast_in_dim(a[0, 0], (4, 2), (0,)),
            lambda a: a[0, 0][:, None] + [0, 0],
        ),
        (
            lambda a: lax.round(a / 2, lax.RoundingMethod.TO_NEAREST_EVEN),
            lambda a: np.round(a / 2),
        ),
        (
            lambda a: lax.dot_general(a, B, (((2,), (0,)), ((), ())), lax.Precision.DEFAULT),
            lambda a: a @ B,
        ),
    ],
)
def test_functions_are_numpys(ours, numpys):
    if numpys is None:
        expected = (A.astype(np.int8) @ np.ones((4, 2), np.int8)).astype(np.int8)
    else:
        expected = numpys(A)
    traced = eval_jaxpr(make_jaxpr(ours)(A), [A])[0]
    assert traced.tolist() == expected.tolist()
    assert traced.shape == expected.shape
    eager = ours(Eager(A))
    assert np.asarray(eager).tobytes() == traced.tobytes()


class Eager(ArrayOperators):
    """The least that an array class of the SDK is: a value with the operators."""

    def __init__(self, value, weak_type=False):
        self.weak_type = weak_type
        self.value = np.asarray(value)
        self.shape, self.dtype = self.value.shape, self.value.dtype

    def __array__(self, dtype=None, copy=None):
        return self.value


@pytest.fixture(autouse=True)
def eager_arrays(monkeypatch):
    """Let eager operations return `Eager`, as the SDK's return its arrays."""
    monkeypatch.setattr(trace, "eager_hook", lambda *args: Eager(trace.eval_eagerly(*args)))
    monkeypatch.setattr(trace, "asarray_hook", Eager)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        ([1, 2], None, np.int32),
        ([1.5], None, np.float32),
        (np.arange(3), None, np.int32),
        (np.float64(2), None, np.float32),
        (True, None, np.bool_),
        ([1, 2], "bfloat16", ml_dtypes.bfloat16),
        (np.uint8([7]), tnp.float32, np.float32),
    ],
)
def test_asarray_narrows_and_converts(value, dtype, expected):
    result = tnp.asarray(value, dtype)
    assert result.dtype == expected
    assert np.asarray(result).astype(float).tolist() == np.asarray(value).astype(float).tolist()


def test_array_copies():
    source = np.ones(2, np.float32)
    made = tnp.array(source)
    source[:] = 5
    assert np.asarray(made).tolist() == [1, 1]


def test_creation_defaults_to_float32():
    assert tnp.zeros((2, 3)).dtype == np.float32
    assert tnp.ones(3).shape == (3,)
    assert tnp.full((2,), 7).dtype == np.int32
    assert tnp.zeros_like(np.ones(2, np.int8)).dtype == np.int8


def test_scalars_that_are_made_within_a_trace_are_arrays():
    """They were literals of the jaxpr, without operators, shape and methods."""

    def program(x):
        made = [tnp.zeros(()), tnp.ones((), np.int8), tnp.full((), 2.0), tnp.zeros_like(x[0]),
                lax.convert_element_type(2, np.float32)]  # fmt: skip
        return [(-a).astype(np.float32) + a.size for a in made]

    jaxpr = make_jaxpr(program)(np.ones(2, np.float32))
    assert [float(a) for a in eval_jaxpr(jaxpr, [np.ones(2, np.float32)])] == [1, 0, -1, 1, -1]


def test_numbers_make_weakly_typed_arrays():
    x = np.ones((2,), np.int8)
    assert tnp.add(tnp.full((2,), 3), x).dtype == np.int8
    assert tnp.add(tnp.asarray(3), x).dtype == np.int8
    assert tnp.add(tnp.asarray([3, 3]), x).dtype == np.int32
    jaxpr = make_jaxpr(lambda x: (tnp.full((2,), 3) * x, tnp.asarray(3) * x))(x)
    assert [str(a) for a in jaxpr.out_avals] == ["i8[2]", "i8[2]"]


def test_true_division_of_integers_converts_each_operand():
    quotient = tnp.divide(np.int8([-6]), np.uint32([3_000_000_000]))
    assert np.asarray(quotient).tolist() == [float(np.float32(-6) / np.float32(3e9))]
    assert np.asarray(tnp.divide(np.uint8([6]), -4)).tolist() == [-1.5]


def test_matmul_dtypes_follow_jax():
    a8, u8 = np.full((1, 300), 100, np.int8), np.full((300, 1), 200, np.uint8)
    assert np.asarray(tnp.matmul(a8, a8.T)).tolist() == [[-64]]  # 3,000,000 modulo 2^8
    wide = tnp.matmul(a8, u8, preferred_element_type=tnp.int32)
    assert (wide.dtype, np.asarray(wide).tolist()) == (np.int32, [[6_000_000]])
    assert tnp.matmul(a8, np.ones((300, 1), np.float32)).dtype == np.float32
    half = a8.astype(ml_dtypes.bfloat16)
    assert tnp.matmul(half, half.T).dtype == ml_dtypes.bfloat16
    assert tnp.dot(half, half.T, preferred_element_type="float32").dtype == np.float32


def test_missing_functions_are_attribute_errors_that_list_what_exists():
    assert not hasattr(tnp, "fft")
    with pytest.raises(AttributeError, match=r"no .softmax. \(at .*test_numpy.*add, all, "):
        tnp.softmax  # noqa: B018
    with pytest.raises(UnsupportedError, match=r"tilewright.lax has no 'fft'"):
        lax.fft  # noqa: B018


def test_listed_names_exist():
    for module in (tnp, lax, tree):
        assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lax.add(A, B), OperandError, r"add\(f32\[2,3,4\], f32\[4,5\]\): .*one shape"),
        (lambda: lax.add(A, A.astype(np.int8)), OperandError, "one dtype, not float32, int8"),
        (lambda: tnp.zeros(2, np.float16), DtypeError, "full: .*float16"),
        (lambda: tnp.zeros("a"), OperandError, "a shape must be"),
        (lambda: tnp.round(B.astype(np.int32), -2), UnsupportedError, "must be at least 0, not -2"),
        (lambda: tnp.reshape(A, -1, order="F"), UnsupportedError, "order must be 'C'"),
        (lambda: tnp.swapaxes(A, 0, 3), OperandError, r"axis must be in \[-3, 3\)"),
        (lambda: tnp.broadcast_to(A, (3, 4)), OperandError, "does not broadcast to"),
        (lambda: tnp.matmul(A, 2.0), OperandError, "at least one dimension"),
        (lambda: tnp.add(A, np.float16(1)), DtypeError, "add: .*float16.*test_numpy.py"),
        (lambda: tnp.matmul(A, B, precision="best"), OperandError, "precision must be one of"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_result_type():
    assert tnp.result_type(np.int8(1), 2.0) == np.float32
    assert tnp.result_type("bfloat16", np.int32) == ml_dtypes.bfloat16


def test_import_is_light():
    code = (
        "import sys, tilewright.numpy, tilewright.lax;"
        "heavy = {'amaranth', 'matplotlib', 'tilewright.hw', 'cocotb'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
