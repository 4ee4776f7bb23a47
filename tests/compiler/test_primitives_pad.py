"""`pad`, `rev` and `reduce_window_max` against JAX on the CPU, and their simplification."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright import lax
from tilewright.compiler.core import ShapedArray, eval_jaxpr
from tilewright.compiler.errors import OperandError
from tilewright.compiler.primitives_pad import pad_p, reduce_window_max_p, rev_p
from tilewright.compiler.simplify import simplify
from tilewright.compiler.trace import make_jaxpr, primitive_jaxpr

BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(t) for t in (np.float32, BF16, np.int8, np.uint8, np.int32)]
NAN = np.float32(np.nan)
NOTHING = {
    "window_dimensions": (2,),
    "window_strides": (1,),
    "padding": ((0, 0),),
    "base_dilation": (1,),
    "window_dilation": (1,),
}


@pytest.fixture(scope="module")
def jax():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_PLATFORMS", "cpu")
        import jax

        yield jax


def run(primitive, args, params):
    """Evaluate one equation without the chip."""
    jaxpr = primitive_jaxpr(primitive, [ShapedArray(a.shape, a.dtype) for a in args], params)
    return eval_jaxpr(jaxpr, args)[0]


def values(shape, dtype):
    return np.random.default_rng(len(shape)).integers(0, 99, shape).astype(dtype)


@st.composite
def pads(draw):
    """Draw (shape, padding_config)."""
    shape = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=3)))
    config = []
    for n in shape:
        interior = draw(st.integers(0, 2))
        size = max(0, 1 + (interior + 1) * (n - 1))
        low = draw(st.integers(-size - 1, 3))
        config.append((low, draw(st.integers(max(-3, -size - low), 5)), interior))
    return shape, tuple(config)


@given(case=pads(), dtype=st.sampled_from(DTYPES))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_pad_is_jaxs(jax, case, dtype):
    shape, config = case
    x, value = values(shape, dtype), np.array(7, dtype)
    expected = np.asarray(jax.lax.pad(x, value, config))
    result = run(pad_p, [x, value], {"padding_config": config})
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    assert result.tolist() == expected.tolist()


def test_pad_moves_bits():
    odd = np.uint32([0x00000001, 0x7FA00001, 0x80000000]).view(np.float32)
    result = run(pad_p, [odd, odd[1]], {"padding_config": ((1, 0, 0),)})
    assert result.view(np.uint32).tolist() == [0x7FA00001, 0x00000001, 0x7FA00001, 0x80000000]


@pytest.mark.parametrize(
    ("value", "config", "message"),
    [
        (ShapedArray((1,), np.float32), ((0, 0, 0),), "padding_value must be a scalar"),
        (ShapedArray((), np.int32), ((0, 0, 0),), "operand's dtype float32, not int32"),
        (ShapedArray((), np.float32), (), "must have 1 entries"),
        (ShapedArray((), np.float32), ((0, 0, -1),), "interior padding must be at least 0"),
        (ShapedArray((), np.float32), ((-2, -2, 0),), "sizes of at least 0"),
    ],
)
def test_pad_refuses(value, config, message):
    with pytest.raises(OperandError, match=message):
        pad_p.abstract(ShapedArray((3,), np.float32), value, padding_config=config)


def test_rev_is_numpys_flip():
    x = values((2, 3, 4), np.int32)
    result = run(rev_p, [x], {"dimensions": (0, 2)})
    assert result.tolist() == x[::-1, :, ::-1].tolist()
    with pytest.raises(OperandError, match="distinct and below 3, not"):
        rev_p.abstract(ShapedArray((2, 3, 4), np.int32), dimensions=(3,))


@st.composite
def windows(draw):
    """Draw (shape, params) of a windowed maximum."""
    rank = draw(st.integers(1, 3))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    pairs = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(rank))
    return each(1, 5), {
        "window_dimensions": each(1, 3),
        "window_strides": each(1, 3),
        "padding": pairs,
        "base_dilation": each(1, 2),
        "window_dilation": each(1, 2),
    }


@given(case=windows(), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_reduce_window_max_is_jaxs(jax, case, dtype, seed):
    shape, params = case
    x = np.random.default_rng(seed).integers(-99, 99, shape).astype(dtype)
    if dtype == np.float32:
        x = np.where(x > 60, NAN, x)
    lowest = np.array(-np.inf if dtype in (np.float32, BF16) else np.iinfo(dtype).min, dtype)
    expected = np.asarray(jax.lax.reduce_window(x, lowest, jax.lax.max, **params))
    result = run(reduce_window_max_p, [x], params)
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    as_f32 = result.astype(np.float32), expected.astype(np.float32)
    assert np.array_equal(*as_f32, equal_nan=True)


def test_reduce_window_max_corners():
    x = np.float32([-0.0, 0.0, -0.0, -0.0, 1e-40, -1.0])
    result = run(reduce_window_max_p, [x], {**NOTHING, "window_strides": (2,)})
    assert result.view(np.uint32).tolist() == np.float32([0.0, -0.0, 0.0]).view(np.uint32).tolist()


def test_reduce_window_max_crops():
    x = np.int32([9, 1, 2, 8])
    result = run(reduce_window_max_p, [x], {**NOTHING, "padding": ((-1, -1),)})
    assert result.tolist() == [2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_dimensions": (2, 2)}, "window_dimensions must have 1 entries"),
        ({"window_strides": (0,)}, "window_strides must have 1 entries, each at least 1"),
        ({"padding": ()}, "padding must have 1"),
        ({"padding": ((-3, -3),)}, "sizes of at least 0"),
    ],
)
def test_reduce_window_max_refuses(changes, message):
    with pytest.raises(OperandError, match=message):
        reduce_window_max_p.abstract(ShapedArray((4,), np.int32), **{**NOTHING, **changes})


def simplified(function, *args):
    """Return the names of the simplified equations, whose bits must be the same."""
    jaxpr = make_jaxpr(function)(*args)
    small = simplify(jaxpr)
    before, after = (eval_jaxpr(j, args, dim=4)[0] for j in (jaxpr, small))
    assert before.tobytes() == after.tobytes()
    return [eqn.primitive.name for eqn in small.eqns]


@pytest.mark.parametrize(
    ("config", "padding", "value", "is_merged"),
    [
        (((0, 0, 0), (0, 0, 0), (2, 1, 0)), [(0, 0)], 0.0, True),
        (((0, 0, 0), (0, 0, 0), (2, 1, 1)), [(-3, 2)], 0.0, True),
        (((0, 0, 0), (0, 0, 0), (-1, 3, 0)), [(-2, 0)], 0.0, True),
        (((0, 0, 0), (0, 0, 0), (-1, 0, 0)), [(1, 0)], 0.0, False),
        (((0, 0, 0), (0, 0, 0), (2, 1, 0)), [(0, 0)], -0.0, False),
        (((0, 0, 0), (0, 0, 0), (2, 1, 0)), [(0, 0)], 1.0, False),
        (((1, 0, 0), (0, 0, 0), (2, 1, 0)), [(0, 0)], 0.0, False),
    ],
)
def test_padding_moves_into_the_convolution(config, padding, value, is_merged):
    x = np.random.default_rng(0).standard_normal((2, 3, 8)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((4, 3, 2)).astype(np.float32)

    def function(x, w):
        return lax.conv_general_dilated(lax.pad(x, value, config), w, (1,), padding)

    expected = ["conv_general_dilated"] if is_merged else ["pad", "conv_general_dilated"]
    assert simplified(function, x, w) == expected


def test_padding_moves_into_the_window():
    x = values((4, 4), np.float32)

    def function(x):
        x = lax.pad(x, -np.inf, ((1, 1, 0), (0, 2, 1)))
        return lax.reduce_window(x, -np.inf, lax.max, (2, 2), (1, 2))

    assert simplified(function, x) == ["reduce_window_max"]


def test_nothing_to_move_is_no_equation():
    x = values((4, 1), np.float32)
    assert simplified(lambda x: lax.pad(x, 1.0, ((0, 0, 0),) * 2), x) == []
    assert simplified(lambda x: lax.rev(x, (1,)), x) == []


def test_a_padded_value_is_not_clean():
    odd = np.uint32([0x00000001]).view(np.float32)
    names = simplified(lambda x: lax.pad(x + x, x[0], ((1, 0, 0),)) * 1, odd)
    assert names == ["add", "reshape", "pad", "mul"]  # x * 1 flushes the subnormal
