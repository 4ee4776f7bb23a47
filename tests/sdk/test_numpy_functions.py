"""NumPy's functions: JAX's values, dtypes and weak types, broadcasting and special values."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright.compiler.core import ShapedArray, eval_jaxpr
from tilewright.compiler.errors import DtypeError, OperandError, UnsupportedError
from tilewright.compiler.trace import trace_to_jaxpr

from tests.compiler.backend_case import assert_same_bits

RNG = np.random.default_rng(5)
BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(d) for d in ("f4", ml_dtypes.bfloat16, "i1", "u1", "i4", "u4", "?")]
SPECIAL = np.float32([0.0, -0.0, 1, -1, 0.5, -2.5, np.inf, -np.inf, np.nan, 3e38, 7, -7, 1e-3, 100])
UNARY = (
    *("arcsin", "arccos", "arctan", "sinh", "cosh", "arcsinh", "arccosh", "arctanh", "cbrt"),
    *("log2", "log10", "isnan", "isinf", "isfinite", "isposinf", "isneginf", "signbit", "fabs"),
    *("nan_to_num", "trunc", "deg2rad", "rad2deg", "positive", "square", "reciprocal"),
)
BINARY = (
    *("floor_divide", "remainder", "fmod", "power", "float_power", "arctan2", "hypot"),
    *("logaddexp", "logaddexp2", "heaviside", "copysign", "fmax", "fmin", "isclose"),
)


def values(dtype, shape):
    """Values of a dtype, small ones and special ones."""
    if dtype.kind == "b":
        return RNG.random(shape) < 0.5
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        x = RNG.integers(max(info.min, -9), 9, shape).astype(dtype)
        edges = np.array([info.min, info.max, 0, 1], dtype)
        return np.where(RNG.random(shape) < 0.2, RNG.choice(edges, shape), x)
    x = np.where(RNG.random(shape) < 0.5, RNG.choice(SPECIAL, shape), RNG.normal(0, 3, shape))
    return x.astype(np.float32).astype(dtype)


def run(function, *args):
    """What NumPy, with the chip's bits, makes of a function; and its weak type."""
    avals = [ShapedArray(np.shape(a), a.dtype) for a in args]
    jaxpr, _ = trace_to_jaxpr(lambda *args: function(*args), avals)
    return eval_jaxpr(jaxpr, args), [v.aval for v in jaxpr.outvars]


def flushed(x):
    x = np.asarray(x)
    if x.dtype.kind != "f" and x.dtype != BF16:
        return x
    x = x.astype(np.float32)
    return np.where(np.abs(x) < 2.0**-126, np.copysign(np.float32(0), x), x)


def compare(ours, jaxs, *args, tolerance=2e-6, broadcast=False):
    """Equal types; integers equal; floats equal but for rounding."""
    got, avals = run(ours, *args)
    if broadcast:  # else XLA divides by a row by multiplying with its reciprocal
        args = np.broadcast_arrays(*args)
    want = jax.tree.leaves(jaxs(*map(jnp.asarray, args)))
    assert len(got) == len(want)
    for g, aval, w in zip(got, avals, want, strict=True):
        assert (g.dtype, g.shape, aval.weak_type) == (w.dtype, w.shape, w.aval.weak_type)
        near = 0.01 if w.dtype == BF16 else tolerance
        np.testing.assert_allclose(flushed(g), flushed(w), rtol=near, atol=1e-37)


@pytest.mark.parametrize("dtype", [*DTYPES[:3], DTYPES[6]], ids=str)
def test_unary_functions_are_jaxs(dtype):
    x = values(dtype, (6, 30))
    for name in UNARY:
        if dtype.kind == "b" and name in ("signbit", "trunc", "square", "positive", "reciprocal"):
            continue
        if name in ("arccosh", "arctanh") and dtype == BF16:
            continue
        with np.errstate(all="ignore"):
            compare(getattr(tnp, name), getattr(jnp, name), x, tolerance=2e-5)


@pytest.mark.parametrize("dtype", [*DTYPES[:3], *DTYPES[5:]], ids=str)
def test_binary_functions_are_jaxs(dtype):
    x, y = values(dtype, (6, 1, 20)), values(dtype, (7, 1))
    for name in BINARY:
        if dtype.kind == "b" and name in ("floor_divide", "remainder", "fmod", "copysign", "power"):
            continue
        if dtype.kind in "iu" and name == "power":
            y = np.abs(y) % np.array(60, dtype)
        if dtype == BF16 and name in ("power", "float_power", "floor_divide", "logaddexp2"):
            continue  # XLA rounds each step to bfloat16, or keeps float32: both differ
        with np.errstate(all="ignore"):
            compare(getattr(tnp, name), getattr(jnp, name), x, y, tolerance=4e-5, broadcast=True)


@pytest.mark.parametrize("dtype", [DTYPES[0], *DTYPES[2:6]], ids=str)
def test_divmod_and_operators_are_jaxs(dtype):
    x, y = values(dtype, (50,)), values(dtype, (50,))
    compare(tnp.divmod, jnp.divmod, x, y)
    compare(lambda x, y: x // y, lambda x, y: x // y, x, y)
    compare(lambda x: (x % 3, 7 // (x + 1), x**3), lambda x: (x % 3, 7 // (x + 1), x**3), x)


def test_promotion_of_mixed_operands_is_jaxs():
    operands = [values(d, (5,)) for d in DTYPES]
    for x in operands[:6]:
        for y in operands[:6]:
            try:
                promoted = tnp.result_type(x, y)
            except DtypeError:
                continue  # uint8 with int8 is int16 in JAX
            assert promoted == jnp.result_type(x, y)
            if BF16 not in (x.dtype, y.dtype) and np.int32 in (x.dtype, y.dtype):
                compare(tnp.remainder, jnp.remainder, x, y)
    for x in operands[:6]:
        compare(lambda x: tnp.remainder(x, 2), lambda x: jnp.remainder(x, 2), x)
        compare(lambda x: tnp.fmax(x, 2.5), lambda x: jnp.fmax(x, 2.5), x)


def test_power_and_round_by_known_and_traced_numbers():
    x = values(DTYPES[0], (40,))
    compare(lambda x: tnp.round(x, 2), lambda x: jnp.round(x, 2), x)
    for y in (2, -3, 0.5, -1.5):
        compare(lambda x, y=y: x**y, lambda x, y=y: x**y, x, tolerance=1e-5)
    compare(lambda x: 2**x, lambda x: 2**x, x, tolerance=1e-5)
    n = RNG.integers(-4, 6, (40,)).astype(np.int32)
    compare(tnp.power, jnp.power, x, n, tolerance=1e-5)
    with pytest.raises(DtypeError, match="an integer to the power -1 has no integer value"):
        run(lambda n: n**-1, n)


A, B, V = (RNG.integers(-9, 9, s).astype(np.int32) for s in ((3, 4), (2, 4), (6,)))
C = RNG.integers(-9, 9, (2, 3, 4)).astype(np.int32)
#: functions of a module (tilewright.numpy or jax.numpy) and arrays
MOVES = [
    (lambda np: lambda a, b: np.concatenate([a, b]), A, B),
    (lambda np: lambda a, b: np.concatenate((a, b), axis=None), A, B),
    (lambda np: lambda a, c: np.concatenate([c, a[None]], 0), A, C),
    (lambda np: lambda a, b: np.vstack([a, b]), A, B),
    (lambda np: lambda a: np.hstack([a, a[:, :1]]), A),
    (lambda np: lambda v: np.hstack([v, v[:2]]), V),
    (lambda np: lambda v: np.vstack([v, v]), V),
    (lambda np: lambda v: np.dstack([v, v]), V),
    (lambda np: lambda v: np.column_stack([v, v]), V),
    (lambda np: lambda a: np.stack([a, a + 1], -1), A),
    (lambda np: lambda a: np.stack([a, a * 1.5], 1), A),
    (lambda np: lambda a: np.append(a, 3), A),
    (lambda np: lambda c: np.split(c, 3, 1), C),
    (lambda np: lambda v: np.split(v, [1, 4]), V),
    (lambda np: lambda v: np.array_split(v, 4), V),
    (lambda np: lambda a: np.hsplit(a, 2), A),
    (lambda np: lambda a: np.tile(a, (2, 3)), A),
    (lambda np: lambda a: np.tile(a, (2, 1, 2)), A),
    (lambda np: lambda v: np.tile(v, 3), V),
    (lambda np: lambda a: np.repeat(a, 3, 1), A),
    (lambda np: lambda a: np.repeat(a, 2), A),
    (lambda np: lambda a: np.roll(a, 2), A),
    (lambda np: lambda a: np.roll(a, -1, 1), A),
    (lambda np: lambda a: np.roll(a, (1, 2), (0, 1)), A),
    (lambda np: lambda a: np.flip(a), A),
    (lambda np: lambda c: np.flip(c, (0, 2)), C),
    (lambda np: lambda a: np.fliplr(np.flipud(a)), A),
    (lambda np: lambda c: np.rollaxis(c, 2), C),
    (lambda np: lambda a: np.atleast_3d(a), A),
    (lambda np: lambda a, v: np.meshgrid(a[0], v), A, V),
    (lambda np: lambda a, v: np.meshgrid(a[0], v, v[1:], indexing="ij"), A, V),
    (lambda np: lambda a: np.tril(a, -1), A),
    (lambda np: lambda c: np.triu(c, 1), C),
    (lambda np: lambda v: np.diag(v), V),
    (lambda np: lambda v: np.diag(v, -2), V),
    (lambda np: lambda v: np.diag(v, 1), V),
    (lambda np: lambda a: np.diag(a, 2), A),
    (lambda np: lambda a: np.diagonal(a, -1), A),
    (lambda np: lambda a: a + np.arange(4), A),
    (lambda np: lambda a: a * np.arange(2, 10, 2), A),
    (lambda np: lambda a: a * np.arange(0.0, 1.0, 0.25), A),
    (lambda np: lambda v: v + np.indices((2, 6)), V),
    (lambda np: lambda a: a + np.eye(3, 4, 1), A),
    (lambda np: lambda a: a @ np.identity(4, np.int32) if np is jnp else a, A),
    (lambda np: lambda a: a * np.tri(3, 4, -1), A),
    (lambda np: lambda a: np.linspace(a[0], 5.0, 7), A),
    (lambda np: lambda a: np.linspace(0, a, 5, endpoint=False, axis=-1), A),
    (lambda np: lambda a: np.array([[a[0, 0], 1], [2, a[1, 1]]]), A),
    (lambda np: lambda a, b: np.array([np.allclose(a, a), np.array_equal(a, b)]), A, B),
    (lambda np: lambda a: np.array_equal(a, a + 0), A),
    (lambda np: lambda a, b: np.array_equiv(a, b[0]), A, B),
    (lambda np: lambda c: np.count_nonzero(c, 1), C),
    (lambda np: lambda a: (np.ptp(a, 1), np.ptp(a)), A),
    (lambda np: lambda a, b: np.average(a, 1, b[0]), A, B),
    (lambda np: lambda a: np.average(a, 0), A),
    (lambda np: lambda a: np.trace(a[:, 1:]), A),
    (lambda np: lambda a: (np.diff(a), np.diff(a, 2, 0)), A),
    (lambda np: lambda a: np.cross(a[:2, :3], a[1:, 1:]), A),
    (lambda np: lambda a, b: np.kron(a, b), A, B),
    (lambda np: lambda v: np.kron(v, v[:2]), V),
    (lambda np: lambda v: np.polyval(v[:4], v), V),
    (lambda np: lambda a: np.pad(a, ((1, 2), (3, 0)), "edge"), A),
    (lambda np: lambda a: np.pad(a, 2, "reflect"), A),
    (lambda np: lambda a: np.pad(a, (1, 5), "symmetric"), A),
    (lambda np: lambda a: np.pad(a, ((0, 1), (6, 2)), "wrap"), A),
    (lambda np: lambda a, v: np.pad(a, 1, constant_values=v[0]), A, V),
    (lambda np: lambda a: (a[::-1], a[::-2, 3:0:-2], a[-1:0:-1, None, 2], a[5:1:-1]), A),
    (lambda np: lambda a: [np.rot90(a, k) for k in range(-1, 4)], A),
    (lambda np: lambda c: np.rot90(c, 1, (2, 0)), C),
    (lambda np: lambda a, b: np.broadcast_arrays(a, b[:1]), A, B),
    (lambda np: lambda a: a * np.logspace(0, 2, 4), A),
    (lambda np: lambda a: a[0, 0] + np.stack(np.tril_indices(4, -1)), A),
    (lambda np: lambda a: a[0, 0] + np.stack(np.triu_indices(3, 0, 5)), A),
    (lambda np: lambda a: np.select([a > 3, a < -3], [a, -a], 7), A),
]


@pytest.mark.parametrize("case", MOVES, ids=range(len(MOVES)))
def test_data_movement_is_jaxs(case):
    function, *args = case
    compare(function(tnp), function(jnp), *args)


def test_summaries_without_nans_are_jaxs():
    x = values(DTYPES[0], (5, 6))
    x[1] = np.nan
    for name in ("nansum", "nanmax", "nanmin", "nanprod", "nanmean"):
        compare(
            lambda x, n=name: getattr(tnp, n)(x, 1), lambda x, n=name: getattr(jnp, n)(x, 1), x,
            tolerance=1e-5,
        )  # fmt: skip


def test_elements_are_replaced_as_jaxs():
    for index in (1, (0, 2), (slice(None), 1), (slice(0, 3, 2), slice(None, None, -1)), ...,
                  (slice(1, 1),), (None, 2), slice(-2, None)):  # fmt: skip
        for name in ("set", "add") if index != 1 else ("set", "multiply", "max", "min"):
            def change(x, y):
                return getattr(x.at[index], name)(y)  # noqa: B023

            compare(change, change, A, B[0, 0])
    compare(lambda a, v: a.at[:, 1:4].set(v[:3]), lambda a, v: a.at[:, 1:4].set(v[:3]), A, V)
    compare(lambda a: a.at[1].apply(lambda r: r * 2), lambda a: a.at[1].apply(lambda r: r * 2), A)
    assert_same_bits(lambda a: a.at[1:, ::2].set(7).at[0].add(a[2]), A)
    x = values(DTYPES[0], (4, 5))
    assert_same_bits(lambda x: x.at[1:3].multiply(2.0)[::-1, ::-2], x)
    with tw.default_device(tw.Device("tw4", "functional")):
        assert np.array_equal(tw.device_put(A).at[0, 1].set(5), jnp.asarray(A).at[0, 1].set(5))


def test_creation_outside_of_a_trace_is_jaxs():
    for make in (
        lambda np: np.arange(7), lambda np: np.arange(3, 20, 4), lambda np: np.arange(0.5, 3),
        lambda np: np.arange(9, 0, -2), lambda np: np.arange(4, dtype=np.uint8),
        lambda np: np.eye(3, 5, -1), lambda np: np.tri(4), lambda np: np.identity(3),
        lambda np: np.linspace(0, 1, 9), lambda np: np.linspace(-3.5, 2, 6, endpoint=False),
        lambda np: np.indices((2, 3)), lambda np: np.linspace(2, 3, 1), lambda np: np.arange(0),
    ):  # fmt: skip
        got, want = make(tnp), make(jnp)
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=4e-7)


def test_dtypes_have_kinds_and_promote():
    for a in DTYPES:
        for kind in ("floating", "integer", "inexact", "number", "unsignedinteger"):
            assert tnp.issubdtype(a, getattr(tnp, kind)) == jnp.issubdtype(a, getattr(jnp, kind))
    assert tnp.promote_types("int8", "float32") == jnp.promote_types("int8", "float32")
    assert tnp.broadcast_shapes((3, 1), (4,)) == (3, 4)
    assert tnp.empty((2, 3), tnp.bfloat16).shape == tnp.empty_like(A[:2, :3]).shape == (2, 3)


def test_functions_run_at_once():
    with tw.default_device(tw.Device("tw4", "functional")):
        a, b = tw.device_put(A), tw.device_put(B)
        assert np.array_equal(tnp.concatenate([a, b]), np.concatenate([A, B]))
        assert np.array_equal(a // 3, A // 3)
        assert np.array_equal(5 % (abs(a) + 1), 5 % (abs(A) + 1))
        assert all(map(np.array_equal, divmod(a, 3), divmod(A, 3)))
        assert all(map(np.array_equal, tnp.divmod(a, 4), divmod(A, 4)))
        assert np.array_equal(tnp.roll(a, 1, 0), np.roll(A, 1, 0))
        assert np.array_equal(tnp.triu(a), np.triu(A))
        assert np.array_equal(tnp.asarray([a[0], b[0]]), np.stack([A[0], B[0]]))
        assert np.array_equal(tnp.isnan(SPECIAL), np.isnan(SPECIAL))


@pytest.mark.parametrize("config", ["tw4", "tw8"])
def test_functions_have_the_chips_bits(config):
    x, y = values(DTYPES[0], (7, 9)), values(DTYPES[0], (9,))
    for name in ("floor_divide", "remainder", "hypot", "logaddexp", "fmin", "copysign"):
        assert_same_bits(lambda x, y, n=name: getattr(tnp, n)(x, y), x, y, config=config)
    assert_same_bits(lambda a, b: (tnp.roll(a, 1, 1), tnp.tile(b, 2), tnp.triu(a)), A, B)
    assert_same_bits(lambda a: (a + tnp.eye(3, 4), tnp.repeat(a, 2, 0), tnp.diag(a)), A)
    assert_same_bits(lambda a: (tnp.pad(a, 2, "reflect"), tnp.pad(a, 1, "edge")), A)
    assert_same_bits(lambda a, v: tnp.pad(a, 1, constant_values=v[0]), A, V)
    assert_same_bits(lambda a: (a // 3, a % 3, 3**tnp.abs(a), tnp.power(a, a)), A)


def test_errors_name_function_and_line():
    for function, kind, text in (
        (lambda a: tnp.concatenate([a, a[0]]), OperandError, "shapes must be equal"),
        (lambda a: tnp.concatenate([]), OperandError, "at least one array"),
        (lambda a: tnp.split(a, 2), OperandError, "axis 0 of i32.3,4. must divide into 2"),
        (lambda a: tnp.roll(a, a[0, 0]), UnsupportedError, "shift must be known"),
        (lambda a: tnp.repeat(a, a[0]), UnsupportedError, "repeats must be an int"),
        (lambda a: tnp.arange(a[0, 0]), UnsupportedError, "bounds must be known"),
        (lambda a: tnp.linspace(0, 1, -1), OperandError, "num must be at least 0"),
        (lambda a: tnp.stack([a, a[0]]), OperandError, "stack: arrays must have one shape"),
    ):
        with pytest.raises(kind, match=text) as error:
            run(function, A)
        assert "test_numpy_functions.py" in str(error.value)
