"""Compiled programs leave the bits of eval_jaxpr, on every geometry, or are refused by name."""

import numpy as np
import pytest
import tilewright.numpy as tnp
from tilewright.compiler.contraction import dot_general
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.schedule import Schedule

from tests.compiler.backend_case import (
    BF16,
    BOOL,
    CONFIGS,
    F32,
    I8,
    I32,
    LEAST,
    SMALL,
    U8,
    U32,
    array,
    assert_same_bits,
)
from tests.compiler.backend_programs import random_program

LIMIT = {"tw16": 300, "tw8": 120}


def rng_of(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("config", CONFIGS)
def test_backend_random_programs_keep_their_bits_or_are_refused_by_name(config):
    ran = 0
    for seed in range(30):
        program, args = random_program((CONFIGS.index(config), seed), LIMIT.get(config, 50))
        try:
            assert_same_bits(program, *args, config=config)
            ran += 1
        except UnsupportedError as error:
            assert "backend_programs.py" in str(error) and "cannot run on this chip: " in str(error)
    assert ran >= 10


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("left, right", [(F32, F32), (BF16, BF16), (I8, I8), (U8, I8), (I8, U8)])
def test_backend_dense_layer_of_every_dtype(left, right, config):
    rng = rng_of()
    small = left.itemsize == 1
    x, w = array(rng, (37, 41), left), array(rng, (41, 43), right)
    b, s = array(rng, (43,), I32 if small else left), array(rng, (43,), F32)

    def layer(x, w, b, s):
        y = tnp.maximum(tnp.matmul(x, w, preferred_element_type=np.int32 if small else None) + b, 0)
        return tnp.clip(tnp.round(y.astype(np.float32) * s), -128, 127).astype(np.int8)

    assert_same_bits(layer, x, w, b, s, config=config)


@pytest.mark.parametrize("config", ["tw4", SMALL, "tw16"])
@pytest.mark.parametrize("dtype", [F32, BF16, I8])
def test_backend_ragged_shapes_up_to_300(dtype, config):
    for m, k, n in [(1, 300, 7), (300, 1, 9), (129, 5, 1), (1, 1, 300), (11, 257, 3)]:
        rng = rng_of(m)
        x, w = array(rng, (m, k), dtype, True), array(rng, (k, n), dtype, True)
        assert_same_bits(lambda x, w: x @ w, x, w, config=config)


@pytest.mark.parametrize("dtype", [F32, I8])
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_backend_empty_dimension(shape, dtype):
    m, k, n = shape
    x, w, b = np.zeros((m, k), dtype), np.zeros((k, n), dtype), np.ones((n,), dtype)
    assert_same_bits(lambda x, w, b: (x @ w, b), x, w, b)


def test_backend_any_dimension_numbers():
    rng = rng_of()
    a, w = array(rng, (3, 2, 5, 4), F32), array(rng, (4, 6, 2, 3), F32)
    numbers = (((0, 3), (3, 0)), ((1,), (2,)))
    assert_same_bits(lambda a, w: dot_general(a, w, numbers), a, w)


def test_backend_one_weight_for_all_batches():
    rng = rng_of()
    a, w = array(rng, (3, 9, 5), I8), array(rng, (5, 7), I8)
    numbers = (((2,), (1,)), ((0,), (0,)))
    shared = lambda a, w: dot_general(  # noqa: E731
        a, tnp.broadcast_to(w, (3, 5, 7)), numbers, preferred_element_type=np.int32
    )
    assert_same_bits(shared, a, w)


@pytest.mark.parametrize("dtype", [F32, BF16, I8, U8, I32, U32, BOOL])
def test_backend_move_keeps_every_bit(dtype):
    x = array(rng_of(), (5, 6, 7), dtype, special=True)
    assert_same_bits(lambda x: (x.transpose((2, 0, 1)), x[1:, ::2, 1:6:3], x), x)


def test_backend_results_that_nothing_computes():
    x = array(rng_of(), (3, 4), F32, special=True)
    const = array(rng_of(1), (4, 2), I8)
    assert_same_bits(lambda x: (x, x, tnp.asarray(const), tnp.zeros((2, 3)), x.T), x)


def test_backend_results_that_are_joins_and_pads_in_another_shape():
    """The copy took the shape of the result's buffer for its own: an error of the compiler."""
    x = array(rng_of(), (3, 4), F32)

    def program(x):
        return tnp.concatenate([x, x[1:]]).reshape((2, 10)), tnp.pad(x, 1).reshape((5, 1, 6))

    assert_same_bits(program, x)


def test_backend_result_used_by_a_later_result():
    """A temporary that becomes a result was not renamed in a chain that still grew."""
    x = array(rng_of(), (6, 6), F32)

    def program(x):
        y = (x @ x).T.T
        z = y * 2.0
        return y.reshape((36,)), z, z + 1.0

    assert_same_bits(program, x)


@pytest.mark.parametrize("config", ["tw4", LEAST])
@pytest.mark.parametrize("shape", [(300,), (1, 300), (300, 1), (70, 30)])
@pytest.mark.parametrize("dtype", [F32, BF16, I8, I32])
def test_backend_map_with_every_vector_fits_every_memory(dtype, shape, config):
    """On the smallest accumulator three vectors left no room for a row of a map."""
    rng = rng_of()
    x, s, b = array(rng, shape, dtype), array(rng, shape[-1:], F32), array(rng, shape[-1:], F32)
    i = array(rng, shape[-1:], I32)

    def program(x, s, b, i):
        y = x if dtype in (F32, BF16) else x.astype(np.int32) + i
        return y.astype(np.float32) * s + b

    assert_same_bits(program, x, s, b, i, config=config)


def test_backend_many_stores_before_their_first_reader_do_not_overflow_a_semaphore():
    """More than 255 tokens were under way between two kernels."""
    rng = rng_of()
    x, w, v = array(rng, (1200, 4), I8), array(rng, (4, 4), I8), array(rng, (4, 4), F32)

    def program(x, w, v):
        y = tnp.matmul(x, w, preferred_element_type=np.int32)
        return y.astype(np.float32) @ v

    assert_same_bits(program, x, w, v, schedules=dict.fromkeys((0, 1), Schedule(4, 4, 4)))


def test_backend_refusal_names_operation_shapes_reason_and_line():
    def program(x):
        return x.astype(np.uint8).astype(np.int32) @ x.astype(np.int32).T

    with pytest.raises(UnsupportedError) as error:
        assert_same_bits(program, np.ones((3, 4), np.float32))
    text = str(error.value)
    assert "cannot run on this chip: " in text and "test_backend.py" in text
    assert "dot_general i32[3,4] i32[3,4]" in text
