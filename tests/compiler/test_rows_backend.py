"""Rows that LOAD gathers and STORE scatters: the bytes, loops around, and how long it takes."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax

RNG = np.random.default_rng(31)
DTYPES = [np.float32, np.int8, np.bool_, ml_dtypes.bfloat16, np.uint32]
TABLE = RNG.standard_normal((1000, 64)).astype(np.float32)
PLACES = RNG.integers(0, 1000, 256).astype(np.int32)


def device(chip, engine="functional"):
    return tw.default_device(tw.Device(chip, engine))


def kernels(function, *args):
    return tw.jit(function).lower(*args).as_text("kernels")


def written(x, i, y):
    out = x.copy()
    for at, row in zip(i, y, strict=True):
        if 0 <= at < len(x):
            out[at] = row
    return out


def get(x, i):
    return x[i]


def put(x, i, y):
    return x.at[i].set(y)


def cycles(function, *args, **options):
    with device("tw16", "cycle"), tw.profile() as p:
        result = np.asarray(tw.jit(function, **options)(*args))
    return result, p.runs[0].cycles


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("chip", ["tw4", "tw16"])
def test_bytes_of_rows_of_any_size(chip, dtype):
    for shape in ((37,), (20, 3), (33, 2), (9, 5, 7)):
        x = (RNG.standard_normal(shape) * 100).astype(dtype)
        i = RNG.integers(0, shape[0] + 3, 11).astype(np.int32)
        y = x[RNG.integers(0, shape[0], 11)]
        with device(chip):
            found = tw.jit(get)(x, i), tw.jit(put)(x, i, y)
        wanted = x[np.minimum(i, shape[0] - 1)], written(x, i, y)
        for a, b in zip(map(np.asarray, found), wanted, strict=True):
            assert a.tobytes() == b.tobytes(), shape


def test_floats_keep_their_bits():
    x = np.array([-0.0, 1e-42, np.nan, -np.inf, 0.0, -np.nan], np.float32)
    i = np.array([5, 4, 3, 2, 1, 0], np.int32)
    with device("tw4"):
        assert np.asarray(tw.jit(get)(x, i)).tobytes() == x[::-1].tobytes()


@pytest.mark.parametrize("shape, count", [((50, 8), 3000), ((6, 5000), 7), ((3, 40, 70), 9)])
def test_more_than_the_scratchpad_holds(shape, count):
    x = RNG.standard_normal(shape).astype(np.float32)
    i = RNG.integers(-9, shape[0] + 9, count).astype(np.int32)
    low = np.where(i < 0, i + shape[0], i)
    with device("tw4"):
        found = np.asarray(tw.jit(get)(x, i))
        np.testing.assert_array_equal(found, x[np.clip(low, 0, shape[0] - 1)])
        changed = tw.jit(put)(x, i, found * 2)
    np.testing.assert_array_equal(changed, written(x, low, found * 2))


def test_an_array_of_many_rows_takes_a_loop():
    x = np.arange(70000 * 4, dtype=np.int32).reshape(-1, 4)
    i = np.array([69999, 3, 65536, 65535, 0], np.int32)
    with device("tw4"):
        assert "loop" in kernels(get, x, i)
        np.testing.assert_array_equal(tw.jit(get)(x, i), x[i])


def test_windows_that_are_no_run():
    x = RNG.standard_normal((6, 12, 8)).astype(np.float32)
    i = np.array([11, 0, 3, 3], np.int32)
    with device("tw4"):
        found = tw.jit(lambda x, i: (x[:, i], x[:, :, i % 8], x[:, i, ::2], x[::-1, i]))(x, i)
    wanted = x[:, i], x[:, :, i % 8], x[:, i, ::2], x[::-1, i]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_rows_of_a_table_go_at_the_speed_of_the_bus():
    assert "gather(in0" in kernels(get, TABLE, PLACES)
    found, taken = cycles(get, TABLE, PLACES)
    np.testing.assert_array_equal(found, TABLE[PLACES])
    beats = 256 * 64 * 4 // 16
    assert taken < 1.3 * beats
    rows = TABLE[::-1][:256] * 2
    found, put_in_place = cycles(put, tw.device_put(TABLE), PLACES, rows, donate_argnums=0)
    np.testing.assert_array_equal(found, written(TABLE, PLACES, rows))
    assert put_in_place < 1.7 * beats  # a scatter has some slots before each row


KINDS = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "min": np.minimum,
         "max": np.maximum}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.int32, np.uint32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("width", [32, 1, 7])
@pytest.mark.parametrize("chip", ["tw4", "tw16"])
def test_repeated_rows_are_computed_in_index_order(chip, dtype, width):
    x = RNG.integers(0, 9, (6, width)).astype(dtype)
    i = np.array([5, 0, 5, 5, 9, -1, -7, 0, 3], np.int32)
    y = RNG.integers(1, 4, (9, width)).astype(dtype)
    low = np.where(i < 0, i + 6, i)
    with device(chip):
        assert "accumulate" in kernels(lambda x, i, y: x.at[i].add(y), x, i, y)
        for kind, combine in KINDS.items():
            found = tw.jit(lambda x, i, y, k=kind: getattr(x.at[i], k)(y))(x, i, y)
            wanted = x.copy()
            for at, row in zip(low, y, strict=True):
                if 0 <= at < 6:
                    wanted[at] = combine(wanted[at], row)
            np.testing.assert_array_equal(found, wanted, err_msg=kind)


def test_float_sums_are_those_of_index_order():
    x, y = np.zeros((3, 4), np.float32), RNG.standard_normal((900, 4)).astype(np.float32)
    y[::3] *= 1e7
    i = RNG.integers(0, 3, 900).astype(np.int32)
    wanted = x.copy()
    for at, row in zip(i, y, strict=True):
        wanted[at] += row
    with device("tw4", "cycle"):
        np.testing.assert_array_equal(tw.jit(lambda x, i, y: x.at[i].add(y))(x, i, y), wanted)


def test_repeated_rows_take_some_200_cycles_each():
    rows = TABLE[::-1][:256]
    found, taken = cycles(lambda x, i, y: x.at[i].add(y), tw.device_put(TABLE), PLACES, rows,
                          donate_argnums=0)  # fmt: skip
    wanted = TABLE.copy()
    for at, row in zip(PLACES, rows, strict=True):
        wanted[at] += row
    np.testing.assert_array_equal(found, wanted)
    assert taken < 240 * 256


def test_a_program_does_not_grow_with_the_rows():
    def length(count):
        args = TABLE[:, :8], np.zeros(count, np.int32), np.zeros((count, 8), np.float32)
        with device("tw16"):
            return len(tw.jit(lambda x, i, y: x.at[i].add(y)).lower(*args).compile().program.code)

    assert length(200) == length(40)


def test_distinct_rows_are_added_to_at_once():
    i = np.array([5, 3, 900], np.int32)
    add = lambda x, y: x.at[i].add(y)  # noqa: E731
    assert "loop" not in kernels(add, TABLE, TABLE[:3])
    wanted = TABLE.copy()
    wanted[i] += TABLE[:3]
    np.testing.assert_array_equal(cycles(add, TABLE, TABLE[:3])[0], wanted)


def test_rows_behind_other_dimensions_are_set_in_place():
    x = RNG.standard_normal((3, 6, 2, 4)).astype(np.float32)
    y = RNG.standard_normal((3, 5, 2, 4)).astype(np.float32)
    i = np.array([5, -1, 9, 0, 0], np.int32)

    def run(x, y, i):
        return (x.at[:, i].set(y), x.at[:, i, i].set(y[:, :, 0]), x.at[1:, i % 3, :].set(y[:2]),
                x.at[:, i[:, None], i % 2].set(y[:, 0, 0, None, None]))  # fmt: skip

    with device("tw4"):
        assert "move(in0" not in kernels(lambda x, y, i: run(x, y, i)[0], x, y, i)
        found = tw.jit(run)(x, y, i)
        slope = tw.jit(tw.grad(lambda x: (run(x, y, i)[0] ** 2).sum()))(x)
    for a, b in zip(found, run(jnp.asarray(x), y, i), strict=True):
        np.testing.assert_array_equal(a, b)
    wanted = jax.grad(lambda x: (run(x, y, i)[0] ** 2).sum())(jnp.asarray(x))
    np.testing.assert_allclose(slope, wanted, rtol=1e-6)


def test_rows_within_loops_and_branches():
    def run(np_, lax_, x, i):
        def step(x, i):
            x = x.at[i].add(x[i[::-1]] * 0.5)
            x = lax_.cond(i[0] > 2, lambda x: x.at[i].set(1.0), lambda x: x.at[i[:2]].max(0.5), x)
            return x, np_.take(x, i[:2], axis=0)

        return lax_.scan(step, x, i)

    x = RNG.standard_normal((6, 4)).astype(np.float32)
    i = RNG.integers(-7, 8, (7, 5)).astype(np.int32)
    with device("tw4", "cycle"):
        found = tw.jit(lambda x, i: run(tnp, lax, x, i))(x, i)
    for a, b in zip(found, run(jnp, jax.lax, x, i), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_an_embedding_learns_on_the_chip():
    def loss(np_, table, i, w):
        return np_.sum(np_.tanh(table[i] * w) ** 2)

    table, i = TABLE[:7, :5], np.array([[3, 3, 0], [6, 3, 1]], np.int32)
    w = TABLE[9, :5]
    with device("tw16"):
        found = tw.jit(tw.grad(lambda t, w: loss(tnp, t, i, w), (0, 1)))(table, w)
    wanted = jax.grad(lambda t, w: loss(jnp, t, i, w), (0, 1))(table, w)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
