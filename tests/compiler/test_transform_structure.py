"""Derivatives and batches of what moves data, contracts and reduces, compared with JAX's."""

import jax
import numpy as np
import pytest
from tilewright import lax
from tilewright.compiler import primitives_reduce as r
from tilewright.compiler.trace import bind

from tests.compiler.transform_case import check_everything, normal, on_numpy  # noqa: F401

pytestmark = pytest.mark.usefixtures("on_numpy")

X = normal(1, (3, 4))
Y = normal(2, (4, 2))
SCALAR = np.float32(0.75).reshape(())


def both(function, *args, **tolerance):
    """Check a function of (lax, *args)."""
    check_everything(
        lambda *a: function(lax, *a), lambda *a: function(jax.lax, *a), args, **tolerance
    )


MOVES = {
    "reshape": lambda L, x: L.reshape(x, (2, 6)),
    "transpose": lambda L, x: L.transpose(x, (1, 0)),
    "rev": lambda L, x: L.rev(x, (1,)),
    "broadcast": lambda L, x: L.broadcast_in_dim(x, (3, 2, 4), (0, 2)),
    "broadcast a one": lambda L, x: L.broadcast_in_dim(x[:, None], (3, 5, 4), (0, 1, 2)),
    "slice": lambda L, x: L.slice(x, (1, 0), (3, 3)),
    "strided slice": lambda L, x: L.slice(x, (0, 1), (3, 4), (2, 2)),
    "empty slice": lambda L, x: L.slice(x, (1, 1), (1, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVES)
def test_data_movement(name):
    both(lambda L, x: MOVES[name](L, x * x), X)


@pytest.mark.parametrize(
    "config", [((1, 2, 0), (0, 0, 0)), ((-1, 1, 0), (2, -2, 1)), ((0, -1, 2), (1, 0, 1))]
)
def test_pad(config):
    both(lambda L, x, value: L.pad(x, value, config), X, SCALAR)
    both(lambda L, x: L.pad(x, np.float32(3), config), X)


def test_concatenate():
    def joined(api, x, y, z):
        return api.concatenate([x, x * y, z], 1)

    check_everything(
        lambda *a: joined(lax, *a), lambda *a: joined(jax.lax, *a), (X, X + 1, normal(3, (3, 2)))
    )


DOTS = {
    "matrices": ((3, 4), (4, 2), (((1,), (0,)), ((), ()))),
    "batch": ((2, 3, 4), (4, 2, 2), (((2,), (0,)), ((0,), (2,)))),
    "two contracted, crossed": ((3, 2, 4), (4, 3, 2), (((0, 2), (1, 0)), ((), ()))),
    "two batch, free first": ((3, 2, 5, 4), (5, 4, 2), (((3,), (1,)), ((1, 2), (2, 0)))),
    "vectors": ((4,), (4,), (((0,), (0,)), ((), ()))),
    "outer": ((3,), (2,), (((), ()), ((), ()))),
}


@pytest.mark.parametrize("name", DOTS)
def test_dot_general(name):
    left, right, numbers = DOTS[name]
    both(
        lambda L, x, y: L.dot_general(x, y, numbers, precision="highest"),
        normal(3, left), normal(4, right),
    )  # fmt: skip


def test_dot_general_widens():
    both(
        lambda L, x, y: L.dot_general(
            L.convert_element_type(x, "bfloat16"), L.convert_element_type(y, "bfloat16"),
            (((1,), (0,)), ((), ())), preferred_element_type=np.float32,
        ),
        X, Y, rtol=3e-2, atol=5e-2,
    )  # fmt: skip


NCHW = None
NHWC = ("NHWC", "HWIO", "NHWC")
CONVS = {
    "plain": dict(lhs=(2, 3, 5, 5), rhs=(4, 3, 3, 3)),
    "strided, padded": dict(
        lhs=(2, 5, 6, 3), rhs=(3, 2, 3, 4), window_strides=(2, 1), padding=((1, 2), (0, 1)),
        dimension_numbers=NHWC,
    ),
    "dilated": dict(
        lhs=(1, 2, 5, 4), rhs=(3, 2, 2, 2), lhs_dilation=(2, 1), rhs_dilation=(2, 2),
        padding=((2, 1), (1, 2)),
    ),
    "cropped": dict(lhs=(1, 2, 7), rhs=(2, 2, 2), padding=((-1, -2),)),
    "feature groups": dict(lhs=(2, 4, 5), rhs=(6, 2, 2), feature_group_count=2, padding=((1, 0),)),
    "batch groups": dict(lhs=(4, 2, 5), rhs=(4, 2, 2), batch_group_count=2, window_strides=(2,)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVS)
def test_convolution(name):
    params = dict(CONVS[name])
    left, right = params.pop("lhs"), params.pop("rhs")
    flat = (1,) * (len(left) - 2)
    params = {"window_strides": flat, "padding": ((0, 0),) * len(flat), **params}
    both(
        lambda L, x, y: L.conv_general_dilated(x, y, precision="highest", **params),
        normal(5, left), normal(6, right), rtol=1e-3, atol=1e-4,
    )  # fmt: skip


REDUCTIONS = {
    "sum": (r.reduce_sum_p, jax.numpy.sum), "prod": (r.reduce_prod_p, jax.numpy.prod),
    "max": (r.reduce_max_p, jax.numpy.max), "min": (r.reduce_min_p, jax.numpy.min),
}  # fmt: skip


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("axes", [(1,), (0, 2)])
def test_reductions(name, axes):
    primitive, theirs = REDUCTIONS[name]
    x = normal(7, (2, 3, 5))
    check_everything(
        lambda x: bind(primitive, x, axes=axes), lambda x: theirs(x, axis=axes), (x,), atol=1e-4
    )


def test_the_derivative_of_an_extreme_is_shared_by_all_places():
    x = np.array([[1, 3, 3], [2, 2, 2]], np.float32)
    check_everything(
        lambda x: bind(r.reduce_max_p, x, axes=(1,)), lambda x: jax.numpy.max(x, 1), (x,)
    )


def test_the_derivative_of_a_product_with_zeros():
    x = np.array([[0, 3, 4], [0, 2, 0]], np.float32)
    check_everything(
        lambda x: bind(r.reduce_prod_p, x, axes=(1,)), lambda x: jax.numpy.prod(x, 1), (x,)
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["cumsum", "cumprod", "cummax", "cummin"])
def test_scans(name, reverse):
    x = normal(8, (2, 5))
    primitive = r.PRIMITIVES[name]
    check_everything(
        lambda x: bind(primitive, x, axis=1, reverse=reverse),
        lambda x: getattr(jax.lax, name)(x, axis=1, reverse=reverse), (x,),
    )  # fmt: skip


def test_predicates_and_indices_have_no_derivative():
    x = normal(9, (2, 5))
    jnp = jax.numpy
    check_everything(
        lambda x: x[:, 0] * lax.convert_element_type(
            bind(r.argmax_p, x, axes=(1,), index_dtype=np.dtype("int32")), "float32"),
        lambda x: x[:, 0] * jnp.argmax(x, 1).astype("float32"), (x,),
    )  # fmt: skip


WINDOWS = {
    "pooling": dict(window=(2, 2), strides=(2, 2), padding="VALID"),
    "overlapping": dict(window=(3, 2), strides=(1, 2), padding=((1, 1), (0, 1))),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windowed_maximum(name):
    p = WINDOWS[name]
    both(
        lambda L, x: L.reduce_window(
            x, -np.inf, L.max, p["window"], p["strides"], p["padding"]
        ),
        normal(10, (4, 6)),
    )  # fmt: skip


def test_windowed_maximum_of_equal_values_belongs_to_the_first():
    x = np.zeros((4, 4), np.float32)
    both(lambda L, x: L.reduce_window(x, -np.inf, L.max, (2, 2), (2, 2), "VALID"), x)
