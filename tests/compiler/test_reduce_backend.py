"""Reductions on VECTOR leave the bits of eval_jaxpr, whatever the shape and the chip."""

import numpy as np
import pytest
import tilewright.lax as lax
import tilewright.numpy as tnp
from tilewright.compiler.kernels import Lanes

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
)

RNG = np.random.default_rng(11)
NUMBERS = ("sum", "prod", "max", "min")


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("shape", [(1,), (9, 23), (3, 700), (70, 3), (1, 2500), (2, 3, 4, 5)])
def test_sums_of_rows_of_any_length_on_any_memory(shape, config):
    x = array(RNG, shape, F32)
    back = assert_same_bits(lambda x: tnp.sum(x, -1), x, config=config)
    assert all(isinstance(k.source, Lanes) for k in back.kernels.kernels)
    assert_same_bits(lambda x: tnp.sum(x), x, config=config)


@pytest.mark.parametrize("dtype", [F32, BF16, I8, U8, I32, U32, BOOL])
@pytest.mark.parametrize("config", ["tw4", "tw8"])
def test_reductions_of_every_dtype(dtype, config):
    x = array(RNG, (6, 85), dtype, True)
    for name in ("max", "min", "any", "all") if dtype == BOOL else (*NUMBERS, "any"):
        assert_same_bits(lambda x, n=name: getattr(tnp, n)(x, -1), x, config=config)


def test_operations_before_and_behind_a_reduction_are_one_kernel():
    a, x, b = (array(RNG, (5, 77), F32) for _ in range(3))
    f = lambda a, x, b: tnp.sqrt(tnp.sum((a * x + b) ** 2, -1))  # noqa: E731
    (kernel,) = assert_same_bits(f, a, x, b).kernels.kernels
    assert len(kernel.source.stages) == 1
    (kernel,) = assert_same_bits(lambda x, y, z: (x * 2 * y + z).sum(1), a, x, b).kernels.kernels
    assert len(kernel.source.views) == 3


def test_reductions_of_reductions():
    x = array(RNG, (4, 6, 33), F32)
    assert_same_bits(lambda x: x.max(2).sum(1), x)
    assert_same_bits(lambda x: (x - x.sum(2, keepdims=True)).sum((1, 2)), x)
    assert_same_bits(lambda x: x / x.sum(), x)
    assert_same_bits(lambda x: x.T.sum(2), x)
    assert_same_bits(lambda x: x.sum(2) @ x[:, 0, :6].T, x)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("shape", [(23, 9), (700, 3), (5, 300), (2500, 2), (17, 16)])
def test_sums_of_columns_of_any_length_on_any_memory(shape, config):
    x = array(RNG, shape, F32)
    assert_same_bits(lambda x: tnp.sum(x, 0), x, config=config)


@pytest.mark.parametrize("dtype", [F32, BF16, I8, U8, I32, U32, BOOL])
@pytest.mark.parametrize("config", ["tw4", "tw8"])
def test_columns_of_every_dtype(dtype, config):
    x = array(RNG, (3, 40, 11), dtype, True)
    for name in ("max", "min", "any", "all") if dtype == BOOL else (*NUMBERS, "any"):
        for axis in (1, 0, (0, 1), (0, 2)):
            f = lambda x, n=name, a=axis: getattr(tnp, n)(x, a)  # noqa: E731
            assert_same_bits(f, x, config=config)


def test_columns_with_operations_before_and_broadcasts():
    x, y = (array(RNG, (6, 40, 19), F32) for _ in range(2))
    row, column = array(RNG, (19,), F32), array(RNG, (40, 1), F32)
    back = assert_same_bits(lambda x, r, c: (x * r - c).sum(1), x, row, column)
    assert len(back.kernels.kernels) == 1
    assert_same_bits(lambda x, r, c: (x * r - c).sum((0, 1)), x, row, column)
    assert_same_bits(lambda x, y: (x - x.mean(0)).sum(0) + (x * y).sum(0), x, y)
    assert_same_bits(lambda x: x.transpose(2, 1, 0).sum(1), x)
    assert_same_bits(lambda x: ((x - x.mean((0, 1))) ** 2).mean((0, 1)), x)
    for shape in ((70, 5, 9), (200, 3, 4), (60, 40, 5)):
        z = array(RNG, shape, F32)
        assert_same_bits(lambda z: tnp.maximum(z, 0).sum(1), z)
        assert_same_bits(lambda z: z[::2].max(1), z, config="tw8")


@pytest.mark.parametrize("dtype", [F32, BF16, I8, U8, I32, U32, BOOL])
def test_arg_reductions(dtype):
    x = array(RNG, (5, 6, 37), dtype, True)
    x[:, :, 1::2] = x[:, :, :-1:2]
    for axis in (0, 1, 2, None):
        for name in ("argmax", "argmin"):
            f = lambda x, n=name, a=axis: getattr(tnp, n)(x, a)  # noqa: E731
            assert_same_bits(f, x)
    (kernel,) = assert_same_bits(lambda x: tnp.argmax(tnp.abs(x), 2), x).kernels.kernels
    assert len(kernel.source.stages) == 2


def test_arg_reductions_of_many_operands():
    arrays = [array(RNG, (30, 20), F32) for _ in range(5)]
    f = lambda a, b, c, d, e: tnp.argmin((a * b + c) * d - e, 0)  # noqa: E731
    assert_same_bits(f, *arrays)
    assert_same_bits(f, *arrays, config="dim=2,spad_kib=1,acc_kib=1")
    g = lambda a, b, c, d, e: tnp.argmax(((a * b + c) * d - e).reshape(-1))  # noqa: E731
    assert_same_bits(g, *arrays)
    assert_same_bits(g, *arrays, config="dim=2,spad_kib=1,acc_kib=1")
    assert_same_bits(lambda x: tnp.argmax(x, 1, keepdims=True).sum(0), arrays[0])


@pytest.mark.parametrize("config", CONFIGS)
def test_arg_reductions_of_any_length(config):
    for shape in ((2, 1500), (1500, 2), (40, 40)):
        x = array(RNG, shape, F32)
        for axis in (0, 1):
            assert_same_bits(lambda x, a=axis: x.argmin(a), x, config=config)


def test_scans():
    x, y = array(RNG, (5, 23), F32, True), array(RNG, (5, 9), BF16, True)
    q = array(RNG, (6, 11), I8)
    for name in ("cumsum", "cumprod", "cummax", "cummin"):
        for axis in (0, 1):
            f = lambda x, n=name, a=axis: getattr(lax, n)(x, a, a == 0)  # noqa: E731
            assert_same_bits(f, x)
            assert_same_bits(f, y)
            assert_same_bits(f, q)
    assert_same_bits(lambda x: tnp.cumsum(x[:, :1], 1) * 2, x)
