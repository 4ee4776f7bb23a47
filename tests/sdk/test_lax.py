"""`tilewright.lax`'s convolutions, windows and padding, and `tnp.pad`, against JAX on the CPU."""

import ml_dtypes
import numpy as np
import pytest
import tilewright.numpy as tnp
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright import lax
from tilewright.compiler import trace
from tilewright.compiler.core import ShapedArray, eval_jaxpr
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.trace import make_jaxpr

NHWC = ("NHWC", "HWIO", "NHWC")


@pytest.fixture(scope="module")
def jax():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_PLATFORMS", "cpu")
        import jax

        yield jax


@pytest.fixture(autouse=True)
def without_the_chip(monkeypatch):
    monkeypatch.setattr(trace, "eager_hook", trace.eval_eagerly)
    monkeypatch.setattr(trace, "asarray_hook", trace.asarray_unchanged)


def whole(*shape, seed=0):
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.int32)


def same(jax, function, *args):
    """Check a function of (lax, numpy, arrays) traced and eagerly against JAX."""
    expected = np.asarray(function(jax.lax, jax.numpy, *args))
    traced = eval_jaxpr(make_jaxpr(lambda *args: function(lax, tnp, *args))(*args), args)[0]
    eager = np.asarray(function(lax, tnp, *args))
    for result in (traced, eager):
        assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
        assert result.tolist() == expected.tolist()


@pytest.mark.parametrize("padding", ["SAME", "VALID", "SAME_LOWER", "same", ((1, -1), (2, 0))])
@pytest.mark.parametrize(("strides", "dilation"), [((1, 1), None), ((2, 3), (1, 2))])
def test_conv_general_dilated_is_jaxs(jax, padding, strides, dilation):
    same(
        jax,
        lambda lax, _, x, w: lax.conv_general_dilated(
            x, w, strides, padding, rhs_dilation=dilation, dimension_numbers=NHWC
        ),
        whole(2, 7, 8, 3),
        whole(3, 4, 3, 5),
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda lax, x, w: lax.conv(x, w, (2, 1), "SAME"),
        lambda lax, x, w: lax.conv_with_general_padding(
            x, w, (1, 1), [(1, 2), (0, -1)], (2, 1), (1, 2)
        ),
        lambda lax, x, w: lax.conv_general_dilated(x[:, :, 0], w[:, :, 0], [2], "SAME"),
        lambda lax, x, w: lax.conv_general_dilated(
            x, w[:, :1], (1, 1), "VALID", feature_group_count=3
        ),
        lambda lax, x, w: lax.conv_general_dilated(x, w, (1, 1), "VALID", batch_group_count=2),
        lambda lax, x, w: lax.conv_general_dilated(
            x, w, (1, 1), "VALID", dimension_numbers=lax.ConvDimensionNumbers(*[(0, 1, 3, 2)] * 3)
        ),
    ],
)
def test_other_convolutions_are_jaxs(jax, function):
    same(jax, lambda lax, _, x, w: function(lax, x, w), whole(2, 3, 7, 6), whole(6, 3, 3, 2))


@pytest.mark.parametrize("transpose_kernel", [False, True])
@pytest.mark.parametrize(
    ("padding", "consistent"),
    [
        ("SAME", False),
        ("VALID", False),
        (((2, 1), (0, 3)), False),
        (((1, 1), (0, 1)), True),
        ("VALID", True),
    ],
)
@pytest.mark.parametrize(("strides", "dilation"), [((1, 2), None), ((3, 2), (2, 1))])
def test_conv_transpose_is_jaxs(jax, padding, consistent, strides, dilation, transpose_kernel):
    same(
        jax,
        lambda lax, _, x, w: lax.conv_transpose(
            x,
            w,
            strides,
            padding,
            dilation,
            transpose_kernel=transpose_kernel,
            use_consistent_padding=consistent,
        ),
        whole(1, 4, 5, 3),
        whole(3, 2, 3, 3),
    )


def test_conv_transpose_1d_is_jaxs(jax):
    same(
        jax,
        lambda lax, _, x, w: lax.conv_transpose(
            x, w, (2,), "SAME", dimension_numbers=("NCH", "IOH", "NCH")
        ),
        whole(2, 3, 5),
        whole(3, 4, 3),
    )


@given(data=st.data(), rank=st.integers(3, 4))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_conv_dimension_numbers_are_jaxs(jax, data, rank):
    letters = "WHX"[: rank - 2]
    names = tuple("".join(data.draw(st.permutations(e + letters))) for e in ("NC", "OI", "NC"))
    shape = (1,) * rank
    assert lax.conv_dimension_numbers(shape, shape, names) == tuple(
        jax.lax.conv_dimension_numbers(shape, shape, names)
    )


@pytest.mark.parametrize("padding", ["SAME", "VALID", "SAME_LOWER", ((0, 0), (1, 0), (0, 2))])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int8])
def test_reduce_window_is_jaxs(jax, padding, dtype):
    low = -np.inf if dtype != np.int8 else -128
    same(
        jax,
        lambda lax, _, x: lax.reduce_window(
            x, np.array(low, dtype), lax.max, (1, 2, 3), (1, 2, 2), padding
        ),
        whole(2, 5, 7).astype(dtype),
    )


def test_reduce_window_takes_the_lowest_value_in_any_form():
    x = np.float32([3, 1, 2])
    for low in (-np.inf, -tnp.inf, np.float32(-np.inf), tnp.asarray(-tnp.inf)):
        assert lax.reduce_window(x, low, lax.max, (2,)).tolist() == [3, 2]

    def function(x):
        return lax.reduce_window(x, tnp.asarray(-tnp.inf), tnp.maximum, (2,))

    (eqn,) = make_jaxpr(function)(x).eqns
    assert eqn.primitive.name == "reduce_window_max"


@pytest.mark.parametrize(
    ("init", "computation", "message"),
    [
        (0.0, lax.mul, "computation must be lax.max, lax.min or lax.add, not mul"),
        (1.0, lax.add, "init_value must be 0 for lax.add, not 1.0"),
        (0.0, lax.max, "init_value must be the lowest float32, -inf, for a maximum, not 0.0"),
        (-np.inf, lax.min, "init_value must be inf for lax.min, not -inf"),
    ],
)
def test_reduce_window_refuses(init, computation, message):
    with pytest.raises(UnsupportedError, match=f"{message}.*test_lax.py"):
        lax.reduce_window(np.ones(3, np.float32), init, computation, (2,))


def test_reduce_window_refuses_a_traced_initial_value():
    x = np.ones(3, np.float32)
    with pytest.raises(UnsupportedError, match="init_value must be the lowest"):
        make_jaxpr(lambda x: lax.reduce_window(x, x[0], lax.max, (2,)))(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda lax, jnp, x: lax.pad(x, np.int32(7), ((1, 2, 1), (-1, 0, 2))),
        lambda lax, jnp, x: lax.rev(x, (1,)),
        lambda lax, jnp, x: lax.dot(x, x[0]),
        lambda lax, jnp, x: lax.dot(x[0], x[1]),
        lambda lax, jnp, x: lax.dot(x, x, dimension_numbers=(((0,), (0,)), ((1,), (1,)))),
        lambda lax, jnp, x: lax.batch_matmul(x[None], x.T[None]),
        lambda lax, jnp, x: jnp.pad(x, 2),
        lambda lax, jnp, x: jnp.pad(x, (1, 0), constant_values=4),
        lambda lax, jnp, x: jnp.pad(x, ((1, 2), (0, 3)), mode="constant"),
        lambda lax, jnp, x: jnp.pad(x, ((1, 2), (0, 3)), constant_values=((1, 2), (3, 4))),
        lambda lax, jnp, x: jnp.pad(x, ((1, 2), (0, 3)), constant_values=(5, 6)),
        lambda lax, jnp, x: jnp.pad(x, 1, constant_values=x[0, 0]),
        lambda lax, jnp, x: jnp.pad(x, 0),
    ],
)
def test_other_functions_are_jaxs(jax, function):
    same(jax, function, whole(3, 4))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: lax.conv(x, x, (1, 1), "SAME"), "conv_general_dilated"),
        (
            lambda x: lax.conv_with_general_padding(x, x, (1, 1), "SAME", None, None),
            "conv_general_dilated",
        ),
        (lambda x: lax.conv_general_dilated(x, x, (1, 1), "SAME"), "conv_general_dilated"),
        (lambda x: lax.conv_transpose(x, x, (2, 2), "SAME"), "conv_general_dilated"),
        (lambda x: lax.reduce_window(x, -np.inf, lax.max, (1,) * 4), "reduce_window_max"),
        (lambda x: lax.pad(x, 0.0, ((1, 0, 0),) * 4), "pad"),
        (lambda x: tnp.pad(x, 1), "pad"),
        (lambda x: lax.rev(x, (0,)), "rev"),
        (lambda x: lax.dot_general(x, x, (((3,), (3,)), ((), ()))), "dot_general"),
        (lambda x: lax.batch_matmul(x, x), "dot_general"),
    ],
)
def test_one_equation(function, expected):
    (eqn,) = make_jaxpr(function)(np.ones((2, 2, 2, 2), np.float32)).eqns
    assert eqn.primitive.name == expected
    assert eqn.source.file == __file__


def test_a_convolution_prints():
    def function(x, w):
        return lax.conv_general_dilated(x, w, (2,), "SAME", preferred_element_type=tnp.int32)

    args = ShapedArray((1, 3, 8), np.int8), ShapedArray((4, 3, 3), np.int8)
    assert str(make_jaxpr(function)(*args)) == (
        "{ lambda ; a:i8[1,3,8] b:i8[4,3,3]. let\n"
        "    c:i32[1,4,4] = conv_general_dilated[batch_group_count=1 "
        "dimension_numbers=ConvDimensionNumbers(lhs_spec=(0,1,2),rhs_spec=(0,1,2),"
        "out_spec=(0,1,2)) feature_group_count=1 lhs_dilation=(1,) padding=((0,1),) "
        "precision=default preferred_element_type=i32 rhs_dilation=(1,) window_strides=(2,)] a b\n"
        "  in (c,) }"
    )


X = np.ones((1, 4, 4, 2), np.float32)
W = np.ones((3, 3, 2, 4), np.float32)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: lax.conv_general_dilated(X, W, (1, 1), "FULL"), "'SAME_LOWER' or 'VALID'"),
        (lambda: lax.conv_general_dilated(X, W, (1, 1), 3), "sequence of .low, high. pairs"),
        (lambda: lax.conv_general_dilated(X, W, (1, 1), [(1, 1, 1)] * 2), "sequence of .low"),
        (lambda: lax.conv_general_dilated(X, W, 1, "VALID"), "window_strides must be a sequence"),
        (lambda: lax.conv_general_dilated(X, W, (1,), "VALID"), "strides must be 2 positive ints"),
        (
            lambda: lax.conv_general_dilated(X, W, (1, 1), "SAME", (2, 1), dimension_numbers=NHWC),
            "or use conv_transpose",
        ),
        (
            lambda: lax.conv_general_dilated(X, W, (1, 1), "SAME", dimension_numbers="NHWC"),
            "must be three strings",
        ),
        (
            lambda: lax.conv_general_dilated(
                X, W, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWW")
            ),
            "out_spec must hold each of NCHW once",
        ),
        (lambda: lax.conv(X, W[0], (1, 1), "SAME"), "must have one rank"),
        (lambda: lax.conv(X, W, (1, 1), "SAME"), "rhs must have 4 input features"),
        (
            lambda: lax.conv_general_dilated(
                X, W.astype(np.int8), (1, 1), "VALID", dimension_numbers=NHWC
            ),
            "must have one dtype",
        ),
        (lambda: lax.conv_transpose(X, W, (1,), "SAME"), "must have 2 entries"),
        (lambda: lax.dot(X, X), "must be vectors or matrices"),
        (lambda: lax.batch_matmul(X, X[0]), "one rank of at least 2"),
        (lambda: lax.pad(X, np.int8(0), ((0, 0, 0),) * 4), "must have one dtype"),
        (lambda: tnp.pad(X, -1), "pad_width must be at least 0"),
        (lambda: tnp.pad(X, 1.5), "pad_width must hold ints"),
        (lambda: tnp.pad(X, (1, 2, 3)), "pad_width must broadcast to .4, 2."),
    ],
)
def test_mistakes_are_named(function, message):
    with pytest.raises(OperandError, match=f"{message}.*test_lax.py"):
        function()


def test_what_is_missing_is_named():
    with pytest.raises(UnsupportedError, match="1 or 2 spatial dimensions, not 3"):
        lax.conv(X[..., None], W[..., None], (1, 1, 1), "VALID")
    with pytest.raises(UnsupportedError, match=r"mode must be one of .*not 'mean'"):
        tnp.pad(X, 1, mode="mean")
