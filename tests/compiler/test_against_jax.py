"""Drawn functions, dtypes, broadcasts and special values: JAX's results, and the chip's bits.

JAX on the CPU keeps subnormals or not as it likes, so operands have none, and a result of JAX up to
2^-126 stands for a zero. Integers, data movement, comparisons and basic arithmetic must be equal.
"""

import jax
import jax.numpy as jnp
import numpy as np
import tilewright.lax as lax
import tilewright.numpy as tnp
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright.compiler.core import ShapedArray, eval_jaxpr
from tilewright.compiler.trace import trace_to_jaxpr

from tests.compiler.backend_case import BF16, BOOL, F32, I8, I32, U8, U32, assert_same_bits

LEAST = 2.0**-126
FLOATS = np.float32(
    [0.0, -0.0, np.inf, -np.inf, np.nan, LEAST, -LEAST, 1, -1, 0.5, 1.5, 2.5, -2.5, 3.4028235e38,
     -3.4028235e38, 16777216, 8388608.5, 2147483648, -2147483648, 4294967296, 127.5, -128.5, 255,
     1e-20, 1e20, 3.1415927, 1 - 2**-24, 1 + 2**-23, -87.5, 88.8, 0.49999997]
)  # fmt: skip
SHAPES = [((7,), (7,)), ((3, 5), (5,)), ((4, 1), (1, 6)), ((2, 3, 4), ()), ((1,), (2, 3))]
EXACT_UNARY = {
    "f": ("neg", "abs", "sign", "floor", "ceil", "round", "sqrt", "is_finite", "square"),
    "i": ("neg", "abs", "sign", "bitwise_not", "clz", "population_count"),
}
NEAR_UNARY = ("exp", "log", "tanh", "logistic", "erf", "sin", "cos", "log1p", "expm1", "rsqrt",
              "cbrt", "atan", "asin", "acos", "sinh", "cosh", "asinh", "tan", "exp2")  # fmt: skip
EXACT_BINARY = {
    "f": ("add", "sub", "mul", "div", "max", "min", "rem", "eq", "ne", "lt", "le", "gt", "ge"),
    "i": ("add", "sub", "mul", "div", "max", "min", "rem", "eq", "ne", "lt", "le", "gt", "ge",
          "bitwise_and", "bitwise_or", "bitwise_xor", "shift_left", "shift_right_logical",
          "shift_right_arithmetic"),
    "b": ("bitwise_and", "bitwise_or", "bitwise_xor", "eq", "ne"),
}  # fmt: skip
NUMPY_BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "less", "equal",
                "power", "remainder", "arctan2", "logical_and", "where")  # fmt: skip
DRAWN = settings(max_examples=25, derandomize=True, deadline=None)


def kind(dtype):
    return {"f": "f", "b": "b"}.get(dtype.kind, "i") if dtype != BF16 else "f"


def operand(seed, shape, dtype):
    """Values of a dtype, half of them special."""
    rng = np.random.default_rng(seed)
    if dtype == BOOL:
        return rng.random(shape) < 0.5
    if kind(dtype) == "i":
        info = np.iinfo(dtype)
        some = rng.integers(info.min, info.max, shape, endpoint=True, dtype=dtype)
        edges = np.array([0, 1, info.max, info.min, info.max - 1, 7, 33], np.int64).astype(dtype)
        return np.where(rng.random(shape) < 0.5, rng.choice(edges, shape), some)
    some = rng.normal(0, 10, shape).astype(np.float32)
    some = np.where(rng.random(shape) < 0.5, rng.choice(FLOATS, shape), some).astype(dtype)
    tiny = np.abs(some.astype(np.float32)) < LEAST
    return np.where(tiny & (some != 0), np.array(0, dtype), some)


def run(function, *args):
    jaxpr, _ = trace_to_jaxpr(function, [ShapedArray(a.shape, a.dtype) for a in args])
    return eval_jaxpr(jaxpr, args)[0]


def assert_agree(got, want, near=0.0, signed=True):
    """Equal; of floats NaNs and infinities too, and numbers within a relative distance."""
    want = np.asarray(want)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    if kind(want.dtype) != "f":
        assert np.array_equal(got, want)
        return
    got, want = got.astype(np.float32), want.astype(np.float32)
    got, want = (np.where(np.abs(v) <= LEAST, np.copysign(np.float32(0), v), v)
                 for v in (got, want))  # fmt: skip
    same = (got == want) | np.isnan(got) & np.isnan(want)
    if signed:
        same &= (np.signbit(got) == np.signbit(want)) | np.isnan(want) | (want != 0)
    with np.errstate(invalid="ignore", over="ignore"):
        close = np.isfinite(want) & (np.abs(got - want) <= near * np.abs(want))
    assert (same | close).all(), (got, want)


NUMBERS = st.sampled_from([F32, BF16, I8, U8, I32, U32])
SEEDS = st.integers(0, 1 << 16)


@DRAWN
@given(NUMBERS, st.data(), SEEDS)
def test_unary_primitives(dtype, data, seed):
    name = data.draw(st.sampled_from(EXACT_UNARY[kind(dtype)]))
    if dtype in (U8, U32) and name in ("abs", "neg", "sign"):
        name = "clz"
    x = operand(seed, (5, 7), dtype)
    assert_agree(run(getattr(lax, name), x), getattr(jax.lax, name)(x))
    assert_same_bits(getattr(lax, name), x)


@DRAWN
@given(st.sampled_from(NEAR_UNARY), st.sampled_from([F32, BF16]), SEEDS)
def test_functions_of_floats(name, dtype, seed):
    x = operand(seed, (5, 7), dtype)
    if name in ("sin", "cos", "tan"):
        x = np.where(np.abs(x) < 1e4, x, np.array(1, dtype))
    near = 2**-7 if dtype == BF16 else 1e-5
    want = getattr(jax.lax, name)(x.astype(F32)).astype(dtype)  # in bfloat16 XLA rounds inside
    assert_agree(run(getattr(lax, name), x), want, near, name != "asin")
    assert_same_bits(getattr(lax, name), x)


@DRAWN
@given(st.sampled_from([F32, BF16, I8, U8, I32, U32, BOOL]), st.data(), SEEDS)
def test_binary_primitives(dtype, data, seed):
    name = data.draw(st.sampled_from(EXACT_BINARY[kind(dtype)]))
    x, y = (operand(seed + i, (5, 7), dtype) for i in range(2))
    near = 2**-8 if (dtype, name) == (BF16, "rem") else 0
    want = getattr(jax.lax, name)(x, y)
    assert_agree(run(getattr(lax, name), x, y), want, near, name not in ("max", "min"))
    assert_same_bits(getattr(lax, name), x, y)


@DRAWN
@given(st.sampled_from(NUMPY_BINARY), NUMBERS, NUMBERS, st.sampled_from(SHAPES), SEEDS)
def test_numpy_promotes_and_broadcasts(name, first, second, shapes, seed):
    if {first, second} in ({U8, I8}, {U32, I8}, {U32, I32}) or BF16 in (first, second):
        second = first = F32  # int16 or int64 in JAX; bfloat16 is rounded elsewhere there
    x, y = operand(seed, shapes[0], first), operand(seed + 1, shapes[1], second)
    if name == "power" and {kind(first), kind(second)} == {"i"}:
        y = abs(y) % np.array(50, y.dtype)

    def call(module):
        function = getattr(module, name)
        return (lambda x, y: function(x > y, x, y)) if name == "where" else function

    full = np.broadcast_arrays(x, y)
    with np.errstate(all="ignore"):
        want = call(jnp)(*map(jnp.asarray, full))
    near = 1e-5 if name in ("power", "arctan2", "remainder") else 0
    assert_agree(run(call(tnp), x, y), want, near, name not in ("maximum", "minimum", "remainder"))
    assert_same_bits(call(tnp), x, y)


@DRAWN
@given(NUMBERS, st.sampled_from([F32, BF16, I8, U8, I32, U32, BOOL]), SEEDS)
def test_conversions(old, new, seed):
    x = operand(seed, (6, 8), old)
    want = jax.lax.convert_element_type(x, new)
    if kind(old) == "f" and kind(new) == "i":  # XLA leaves a NaN to the machine
        x = np.where(np.isnan(x), np.array(0, old), x)
        want = jax.lax.convert_element_type(x, new)
    assert_agree(run(lambda x: x.astype(new), x), want)
    assert_same_bits(lambda x: x.astype(new), x)


@DRAWN
@given(st.data(), NUMBERS, SEEDS)
def test_data_movement(data, dtype, seed):
    shape = data.draw(st.sampled_from([(6,), (4, 6), (2, 3, 4)]))
    axis = data.draw(st.integers(0, len(shape) - 1))
    by, times = data.draw(st.integers(-5, 5)), data.draw(st.integers(1, 3))
    x = operand(seed, shape, dtype)
    calls = [
        lambda np: lambda x: np.roll(x, by, axis),
        lambda np: lambda x: np.concatenate([x, np.flip(x, axis), x], axis),
        lambda np: lambda x: np.repeat(x, times, axis),
        lambda np: lambda x: np.tile(x, (times, 2)),
        lambda np: lambda x: np.stack([x, x], axis),
        lambda np: lambda x: np.split(x, 2, axis)[1] if shape[axis] % 2 == 0 else x,
        lambda np: lambda x: np.moveaxis(x, axis, 0),
    ]
    call = data.draw(st.sampled_from(calls))
    assert run(call(tnp), x).tobytes() == np.ascontiguousarray(call(np)(x)).tobytes()
    assert_same_bits(call(tnp), x, config=data.draw(st.sampled_from(["tw4", "tw8"])))
