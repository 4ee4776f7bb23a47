"""Element-wise kernels on VECTOR leave the bits of eval_jaxpr, on every engine."""

import numpy as np
import pytest
import tilewright.lax as lax
import tilewright.numpy as tnp
from tilewright import sim
from tilewright.compiler.kernels import Lanes, Map
from tilewright.sim.cycle import time_program

from tests.compiler.backend_case import (
    BF16,
    BOOL,
    CONFIGS,
    F32,
    I8,
    I32,
    U8,
    U32,
    array,
    assert_same_bits,
    compiled,
)

FLOAT_UNARY = (
    *("abs", "sign", "floor", "ceil", "sqrt", "rsqrt", "exp", "exp2", "log", "tanh", "logistic"),
    *("erf", "sin", "cos", "neg", "log1p", "expm1"),
)
BINARY = ("add", "sub", "mul", "max", "min", "eq", "ne", "lt", "le", "gt", "ge")
WORDS = ("bitwise_and", "bitwise_or", "bitwise_xor")
SHIFTS = ("shift_left", "shift_right_logical", "shift_right_arithmetic")
DTYPES = (F32, BF16, I8, U8, I32, U32, BOOL)


def operands(dtype, shape=(9, 23), count=3):
    rng = np.random.default_rng(3)
    return [array(rng, shape, dtype, True) for _ in range(count)]


def lanes_of(back):
    """The element-wise kernels of a program, which has no others."""
    assert all(isinstance(k.source, Lanes) for k in back.kernels.kernels), back.kernels
    return back.kernels.kernels


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_vector_float_functions(dtype):
    x, y, z = operands(dtype)
    for name in FLOAT_UNARY:
        assert_same_bits(getattr(lax, name), x)
    for name in (*BINARY, "div"):
        assert_same_bits(getattr(lax, name), x, y)
    for n in (-3, -1, 0, 1, 2, 7):
        assert_same_bits(lambda x, n=n: lax.integer_pow(x, n), x)
    assert_same_bits(lambda x: tnp.round(x), x)
    assert_same_bits(lax.clamp, x, y, z)
    assert_same_bits(lambda x, y, z: tnp.where(x > y, z, x), x, y, z)


@pytest.mark.parametrize("dtype", [I8, U8, I32, U32])
def test_vector_integer_functions(dtype):
    x, y, z = operands(dtype)
    few = array(np.random.default_rng(1), x.shape, dtype) % np.array(40, dtype)
    for name in (*BINARY, *WORDS):
        assert_same_bits(getattr(lax, name), x, y)
    for name in SHIFTS:
        assert_same_bits(getattr(lax, name), x, few)
        assert_same_bits(getattr(lax, name), x, y)
    for name in ("abs", "sign", "neg", "bitwise_not"):
        assert_same_bits(getattr(lax, name), x)
    for n in (0, 1, 5):
        assert_same_bits(lambda x, n=n: lax.integer_pow(x, n), x)
    assert_same_bits(lax.clamp, x, y, z)
    assert_same_bits(lambda x, y, z: tnp.where(x > y, z, x), x, y, z)


def test_vector_bools():
    x, y, _ = operands(BOOL)
    for name in (*WORDS, "eq", "ne", "max", "min", "lt"):
        assert_same_bits(getattr(lax, name), x, y)
    assert_same_bits(lambda x: ~x, x)


@pytest.mark.parametrize("old", DTYPES)
def test_vector_conversions(old):
    x, y, _ = operands(old)
    for new in DTYPES:
        assert_same_bits(lambda x, new=new: x.astype(new), x)
        assert_same_bits(lambda x, y, new=new: tnp.maximum(x, y).astype(new), x, y)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("shape", [(1,), (37,), (3, 5), (70, 30), (2, 3, 4, 5), (1000,)])
def test_vector_one_kernel_of_any_shape_on_any_memory(shape, config):
    a, x, b = operands(F32, shape)
    back = assert_same_bits(lambda a, x, b: tnp.maximum(a * x + b, 0), a, x, b, config=config)
    if len(back.kernels.kernels) == 1 and isinstance(back.kernels.kernels[0].source, Map):
        assert shape[:-1] in ((), (1,))  # one row: STORE's epilogue has the other operands
        return
    (kernel,) = lanes_of(back)
    assert len(kernel.source.views) == 3


@pytest.mark.parametrize("config", ["tw4", "tw16"])
@pytest.mark.parametrize("dtype", [F32, BF16, I8])
def test_vector_broadcasts_rows_columns_and_scalars(dtype, config):
    rng = np.random.default_rng(5)
    x, row, column = (array(rng, s, dtype, True) for s in [(37, 41), (41,), (37, 1)])
    one, cube = array(rng, (), dtype, True), array(rng, (3, 37, 41), dtype, True)
    f = lambda x, r, c: tnp.where(x > r, x - c, x * c)  # noqa: E731
    assert len(lanes_of(assert_same_bits(f, x, row, column, config=config))) == 1
    assert_same_bits(f, x, one, row, config=config)
    assert_same_bits(lambda r, c: r * c - r, row, column, config=config)
    assert_same_bits(f, cube, row, column, config=config)
    assert_same_bits(f, x.T.copy(), column.T[0], row[:, None], config=config)


@pytest.mark.parametrize("dtype", [F32, BF16, I32])
def test_vector_strided_operands(dtype):
    x, y = operands(dtype, (12, 12), 2)
    assert_same_bits(lambda x, y: x.T * y + lax.rev(y, (0,)), x, y)
    assert_same_bits(lambda x, y: lax.rev(x.T, (1,)) - y[::2, 1][:, None].reshape((6,))[0], x, y)
    assert_same_bits(lambda x, y: x[2:7, 1:9:2] * y[::2, 8:][:5], x, y)


def test_vector_mixes_dtypes_in_one_kernel():
    rng = np.random.default_rng(6)
    x, q, b = array(rng, (50, 20), BF16), array(rng, (50, 20), I8), array(rng, (50, 20), F32)
    f = lambda x, q, b: (tnp.exp(x.astype(np.float32)) * q.astype(np.float32) + b).astype(BF16)  # noqa: E731
    assert len(lanes_of(assert_same_bits(f, x, q, b))) == 1


def test_vector_makes_stages_of_what_has_too_many_operands_or_words():
    arrays = operands(F32, (5, 40), 6)

    def total(*arrays):
        y = arrays[0]
        for x in arrays[1:]:
            y = y * x + 1.5
        return y

    (kernel,) = lanes_of(assert_same_bits(total, *arrays))
    assert len(kernel.source.stages) == 3
    x = arrays[0]

    def deep(x):
        for _ in range(12):
            x = tnp.tanh(x) * 1.25
        return x

    (kernel,) = lanes_of(assert_same_bits(deep, x, config="tw16"))
    assert 2 <= len(kernel.source.stages) <= 4


def test_vector_value_with_several_uses():
    x, y, _ = operands(F32, (9, 40))

    def f(x, y):
        z = x * y
        return z, tnp.exp(z) + z, (z - y).T, z.reshape((40, 9)) * 2.0

    assert_same_bits(f, x, y)


def test_vector_between_contractions():
    rng = np.random.default_rng(7)
    x, w, v = array(rng, (19, 21), F32), array(rng, (21, 17), F32), array(rng, (17, 5), F32)
    b = array(rng, (17,), F32)

    def f(x, w, v, b):
        y = tnp.tanh(x @ w + b)
        z = (y * y) @ v
        return tnp.exp(-z) + 1.0, y

    for config in ("tw4", "tw16"):
        assert_same_bits(f, x, w, v, b, config=config)


def test_vector_takes_rounded_sums_that_stay_floats():
    rng = np.random.default_rng(8)
    x, w = array(rng, (9, 12), F32), array(rng, (12, 7), F32)
    assert_same_bits(lambda x, w: tnp.clip(tnp.round(x @ w), -2.5, 3.5), x, w)
    assert_same_bits(lambda x, w: tnp.clip(tnp.round(x @ w).reshape((63,)), -2.5, 3.5), x, w)
    assert_same_bits(lambda x, w: tnp.round(x @ w).reshape((63,)), x, w)


def test_vector_program_on_rtl_and_cycle_engine():
    a, x, b = operands(F32, (13, 11))
    f = lambda a, x, b: tnp.where(a > x, tnp.sqrt(x) / b, tnp.tanh(a))  # noqa: E731
    back = compiled(f, a, x, b, config="tw4")
    results = {}
    for engine in ("functional", "cycle", "rtl"):
        memory = sim.Memory(back.program.dram_size)
        for data, port in zip((a, x, b), back.program.inputs, strict=True):
            memory.write(port.addr, data.tobytes())
        for at, data in back.program.data:
            memory.write(at, data)
        result = sim.run(back.program, memory, engine=engine)
        assert result.fault is None, result.fault
        port = back.program.outputs[0]
        results[engine] = bytes(memory.read(port.addr, a.nbytes)), result.cycles
    assert results["functional"][0] == results["cycle"][0] == results["rtl"][0]
    assert results["cycle"][1] == results["rtl"][1]


def test_vector_streams_at_the_memory_bound():
    """Three arrays in, one out: loads take three beats of four, stores go beside them."""
    a, x, b = operands(F32, (512, 256))
    back = compiled(lambda a, x, b: tnp.maximum(a * x + b, 0), a, x, b, config="tw16")
    cycles = time_program(back.config, back.program.code).cycles
    assert 3 * a.nbytes / back.config.bus_bytes / cycles >= 0.95, cycles


def test_vector_long_row_of_bfloat16():
    """A tile's bytes stay below what STORE counts."""
    x = operands(BF16, (1 << 18,))[0]
    assert_same_bits(lambda x: x * x - 1, x, config="tw16")


def test_vector_leaves_rounding_to_the_store():
    """Two loads, *, round beside the last load, +, max, and a store; a maximum rounds nothing."""
    a, x, b = operands(BF16, (9, 40))
    (kernel,) = lanes_of(assert_same_bits(lambda a, x, b: tnp.maximum(a * x + b, 0), a, x, b))
    assert len(kernel.source.codes) == 1
    assert kernel.source.codes[0].shape == (2 * 7,)
    y = operands(F32, (9, 40))[0]
    assert_same_bits(lambda y: (y * 3).astype(BF16).astype(F32), y)


def test_vector_adds_two_long_rows_of_bfloat16_in_one_kernel():
    x, y, _ = operands(BF16, (250,))
    assert len(lanes_of(assert_same_bits(lambda x, y: x + y, x, y))) == 1
    assert len(lanes_of(assert_same_bits(lambda x, y: x - y, x, y))) == 1
