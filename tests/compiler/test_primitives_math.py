"""More element-wise primitives: JAX's values, NumPy's float64 as reference, the chip's bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import tilewright.lax as lax
from tilewright import sim
from tilewright.compiler.core import ShapedArray, eval_jaxpr
from tilewright.compiler.errors import OperandError
from tilewright.compiler.trace import trace_to_jaxpr

from tests.compiler.backend_case import (
    BF16,
    F32,
    I8,
    I32,
    U8,
    U32,
    array,
    assert_same_bits,
    compiled,
    jaxpr_of,
)

RNG = np.random.default_rng(21)
SPECIAL = np.float32(
    [0.0, -0.0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 1.5, np.inf, -np.inf, np.nan, 3e38, -3e38,
     1.5e-38, -1.5e-38, 1e10, 16777217, 8388609, 8388607, -8388607, 2.0**31]
)
UNARY = ("cbrt", "tan", "atan", "asin", "acos", "sinh", "cosh", "asinh", "acosh", "atanh",
         "erf_inv", "erfc")  # fmt: skip
WIDE = (np.exp2(RNG.uniform(-126, 127, 9000)) * RNG.choice([-1, 1], 9000)).astype(np.float32)
MIDDLE = (np.exp2(RNG.uniform(-20, 6, 9000)) * RNG.choice([-1, 1], 9000)).astype(np.float32)
UNIT = np.concatenate([RNG.uniform(-1, 1, 5000), 1 - np.exp2(RNG.uniform(-23, 0, 4000))])
UNIT = UNIT.astype(np.float32)
ANGLES = np.concatenate([MIDDLE, RNG.uniform(-1e4, 1e4, 9000).astype(np.float32)])
GROWING = np.concatenate([MIDDLE, RNG.uniform(-89.4, 89.4, 9000).astype(np.float32)])
#: name -> (reference of float64, arguments, most ulp)
ACCURACY = {
    "cbrt": (np.cbrt, WIDE, 1), "tan": (np.tan, ANGLES, 4), "atan": (np.arctan, WIDE, 2),
    "asin": (np.arcsin, UNIT, 3), "acos": (np.arccos, UNIT, 3), "sinh": (np.sinh, GROWING, 4),
    "cosh": (np.cosh, GROWING, 4), "asinh": (np.arcsinh, np.concatenate([WIDE, MIDDLE]), 4),
    "acosh": (np.arccosh, 1 + np.abs(WIDE) + np.abs(MIDDLE), 4),
    "atanh": (np.arctanh, UNIT[np.abs(UNIT) < 1], 4),
    "erfc": (scipy.special.erfc, np.concatenate([MIDDLE, np.abs(MIDDLE)]), 5),
    "erf_inv": (scipy.special.erfinv, UNIT[np.abs(UNIT) < 0.9], 4),
    "sin": (np.sin, ANGLES, 4), "cos": (np.cos, ANGLES, 4),
}  # fmt: skip


def run(function, *args):
    """What NumPy, with the chip's bits, makes of a function."""
    jaxpr, _ = trace_to_jaxpr(function, [ShapedArray(a.shape, a.dtype) for a in args])
    return eval_jaxpr(jaxpr, args)[0]


def ulps(got, want):
    """Largest error in units of float32's last place, where the result is a normal number."""
    normal = (np.abs(want) >= 2.0**-126) & (np.abs(want) < 2.0**127.9)
    error = np.abs(got[normal].astype(np.float64) - want[normal])
    return float((error / np.ldexp(1.0, np.frexp(want[normal])[1] - 24)).max())


def flushed(x):
    """Subnormals are zeros."""
    return np.where(np.abs(x) < 2.0**-126, np.copysign(np.float32(0), x), x)


def agree(got, want):
    """Equal but for rounding: signs of zeros, infinities and NaNs are the same."""
    want = flushed(np.asarray(want))
    same = (got == want) & (np.signbit(got) == np.signbit(want)) | np.isnan(got) & np.isnan(want)
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.isfinite(want) & (want != 0) & (np.abs(got - want) <= 1e-5 * np.abs(want))
    return bool((same | near).all())


@pytest.mark.parametrize("name", ACCURACY)
def test_function_is_as_accurate_as_it_says(name):
    reference, x, most = ACCURACY[name]
    with np.errstate(all="ignore"):
        assert ulps(run(getattr(lax, name), x), reference(x.astype(np.float64))) <= most


def test_power_is_accurate():
    x = np.concatenate([np.exp2(RNG.uniform(-100, 100, 9000)), np.exp2(RNG.uniform(-1, 1, 9000))])
    x = x.astype(np.float32)
    y = (RNG.uniform(-125, 127, x.size) / np.log2(x.astype(np.float64))).astype(np.float32)
    want = x.astype(np.float64) ** y.astype(np.float64)
    assert ulps(run(lax.pow, x, y), want) <= 16


def test_special_values_are_jaxs():
    a, b = (np.ascontiguousarray(v.ravel()) for v in np.meshgrid(SPECIAL, SPECIAL))
    for name in ("pow", "atan2", "rem"):
        assert agree(run(getattr(lax, name), a, b), getattr(jax.lax, name)(a, b)), name
    for name in UNARY:
        x = SPECIAL[np.abs(SPECIAL) < 1e4] if name == "tan" else SPECIAL
        x = x[(np.abs(x) > 2e-38) | (x == 0)] if name == "asin" else x  # XLA's flushes these
        assert agree(run(getattr(lax, name), x), getattr(jax.lax, name)(x)), name
    assert agree(run(lax.round, SPECIAL), jax.lax.round(SPECIAL))
    assert np.array_equal(run(lax.is_finite, SPECIAL), np.isfinite(SPECIAL))


def test_float_remainder_is_exact():
    b = np.concatenate([RNG.permutation(WIDE), RNG.permutation(MIDDLE)])
    a = np.concatenate([WIDE, MIDDLE])
    assert np.array_equal(run(lax.rem, a, b), flushed(np.fmod(a, b)))
    least = np.full_like(WIDE, 2.0**-126)
    assert np.array_equal(run(lax.rem, WIDE, least), flushed(np.fmod(WIDE, least)))


@pytest.mark.parametrize("dtype", [I8, U8, I32, U32])
def test_integer_functions_are_jaxs(dtype):
    x, y = (array(RNG, (40, 50), dtype, True) for _ in range(2))
    y = np.where(RNG.random(y.shape) < 0.5, y, y % np.array(7, dtype)).astype(dtype)
    for name in ("div", "rem"):
        assert np.array_equal(run(getattr(lax, name), x, y), getattr(jax.lax, name)(x, y)), name
    for name in ("clz", "population_count"):
        assert np.array_equal(run(getattr(lax, name), x), getattr(jax.lax, name)(x)), name


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_floats_have_the_chips_bits(dtype):
    x, y = (array(RNG, (9, 23), dtype, True) for _ in range(2))
    for name in (*UNARY, "is_finite", "round"):
        assert_same_bits(getattr(lax, name), x)
    for name in ("pow", "rem", "atan2"):
        assert_same_bits(getattr(lax, name), x, y, config="tw8")


@pytest.mark.parametrize("dtype", [I8, U8, I32, U32])
def test_integers_have_the_chips_bits(dtype):
    x, y = (array(RNG, (9, 23), dtype, True) for _ in range(2))
    for name in ("div", "rem"):
        assert_same_bits(getattr(lax, name), x, y)
    for name in ("clz", "population_count"):
        assert_same_bits(getattr(lax, name), x)


def test_bitcast_keeps_bits():
    x = array(RNG, (9, 23), F32, True)
    want = jax.lax.bitcast_convert_type(jnp.asarray(x), jnp.int32)
    assert np.array_equal(run(lambda x: lax.bitcast_convert_type(x, I32), x), want)
    assert_same_bits(lambda x: lax.bitcast_convert_type(x, I32), x)
    assert_same_bits(lambda x: lax.bitcast_convert_type(x, U32) >> 3, x)
    assert_same_bits(lambda x: lax.bitcast_convert_type(x, I8), x.view(U8))
    with pytest.raises(OperandError, match="new_dtype must be as wide as float32, not int8"):
        run(lambda x: lax.bitcast_convert_type(x, I8), x)


@pytest.mark.parametrize("config", ["tw4", "tw16", "dim=2,spad_kib=4,acc_kib=2"])
@pytest.mark.parametrize("dtype", [F32, BF16, I8])
def test_concatenate(config, dtype):
    x, y = array(RNG, (3, 5, 7), dtype, True), array(RNG, (3, 2, 7), dtype, True)

    def f(x, y):
        return lax.concatenate([x * 2, y, x[:, ::2]], 1), lax.concatenate([x.T, y.T], 1) + 1

    assert_same_bits(f, x, y, config=config)
    joined = run(lambda x, y: lax.concatenate([x, y], 1), x, y)
    assert joined.tobytes() == np.concatenate([x, y], 1).tobytes()
    with pytest.raises(OperandError, match="shapes must be equal but for dimension 0"):
        run(lambda x, y: lax.concatenate([x, y], 0), x, y)


def test_concatenate_of_numbers_and_empty_parts():
    x = array(RNG, (3, 5), F32)
    assert_same_bits(lambda x: lax.concatenate([x[:0], x, x[1:1]], 0) * x, x)
    assert_same_bits(lambda x: lax.concatenate([x, lax.broadcast(1.0, (2, 5))], 0), x)


@pytest.mark.parametrize("dtype", [F32, BF16, I8, U8, I32, U32])
def test_iota(dtype):
    x = array(RNG, (3, 5, 7), dtype)
    count = lambda: lax.broadcasted_iota(dtype, (3, 5, 7), 1)  # noqa: E731
    want = jax.lax.broadcasted_iota(dtype, (3, 5, 7), 1)
    assert np.array_equal(run(count), want)
    assert_same_bits(lambda x: (x + count(), count()), x)
    assert np.array_equal(run(lambda: lax.iota(dtype, 5000)), jax.lax.iota(dtype, 5000))
    assert_same_bits(lambda: lax.iota(dtype, 5000))


def test_engines_leave_the_same_bits_and_cycles():
    """Divisions, powers, joins, padding by a computed value: functional, cycle and RTL."""
    x, y = array(RNG, (5, 6), F32, True), array(RNG, (5, 6), I32, True)

    def f(x, y):
        z = lax.pad(lax.div(y, y - 7), y[0, 0], ((1, 0, 0), (0, 2, 0)))
        powers = lax.pow(x, lax.rev(x, (1,)))
        return lax.concatenate([powers, lax.rem(x, x.T.reshape((5, 6)))], 1), z

    back = compiled(f, x, y, config="tw4")
    want = eval_jaxpr(jaxpr_of(f, x, y), (x, y), dim=4)
    found = {}
    for engine in ("functional", "cycle", "rtl"):
        memory = sim.load_memory(back.program)
        for data, port in zip((x, y), back.program.inputs, strict=True):
            memory.write(port.addr, data.tobytes())
        result = sim.run(back.program, memory, engine=engine)
        assert result.fault is None, result.fault
        out = [bytes(memory.read(p.addr, w.nbytes))
               for p, w in zip(back.program.outputs, want, strict=True)]  # fmt: skip
        assert out == [np.ascontiguousarray(w).tobytes() for w in want], engine
        found[engine] = result.cycles
    assert found["cycle"] == found["rtl"]
