"""gather and scatter: JAX's values, derivatives and errors for all kinds of dimension numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
from tilewright import lax
from tilewright.compiler.errors import OperandError
from tilewright.compiler.trace import make_jaxpr

from tests.compiler.transform_case import check_everything, on_numpy  # noqa: F401

RNG = np.random.default_rng(23)
X = RNG.standard_normal((4, 5, 3)).astype(np.float32)


def places(*shape, high=6):
    return RNG.integers(-2, high, shape).astype(np.int32)


#: Dimension numbers, sizes of a window, indices.
CASES = {
    "rows": (((1, 2), (0,), (0,)), (1, 5, 3), places(6, 1)),
    "rows of a table of places": (((0, 3), (0,), (0,)), (1, 5, 3), places(2, 3, 1)),
    "elements": (((), (0, 1, 2), (0, 1, 2)), (1, 1, 1), places(7, 3, high=5)),
    "columns": (((0, 1), (1,), (1,)), (4, 1, 3), places(6, 1)),
    "swapped": (((1,), (0, 2), (2, 0)), (1, 5, 1), places(6, 2, high=4)),
    "boxes": (((1, 2, 3), (), (0, 1)), (2, 3, 3), places(5, 2, high=4)),
    "a part of each": (((1,), (0, 2), (0,)), (1, 2, 1), places(5, 1, high=4)),
    "ones that stay": (((0, 1, 3), (), (1,)), (4, 1, 3), places(5, 1)),
    "one place": (((0, 1), (1,), (0, 1)), (2, 1, 3), places(2)),
    "nothing named": (((1, 2, 3), (), ()), (4, 5, 3), np.zeros((2, 0), np.int32)),
    "whole, but out of range": (((1, 2, 3), (), (1,)), (4, 5, 3), np.int32([[0], [1], [-1]])),
    "batches behind": (((), (1,), (1,), (0, 2), (1, 0)), (1, 1, 1), places(3, 4, 1)),
    "batches": (((1,), (1,), (1,), (0,), (0,)), (1, 1, 3), places(4, 1)),
}
MODES = ["clip", "fill", "promise_in_bounds"]


@pytest.fixture(autouse=True)
def device():
    with tw.default_device(tw.Device("tw4", "functional")) as chosen:
        yield chosen


def gathers(module, dims, sizes, mode):
    dimension_numbers = module.GatherDimensionNumbers(*dims)
    return lambda x, i: module.gather(x, i, dimension_numbers, sizes, mode=mode)


def scatters(module, kind, dims, mode):
    dimension_numbers = module.ScatterDimensionNumbers(*dims)
    name = f"scatter_{kind}" if kind else "scatter"
    return lambda x, i, y: getattr(module, name)(x, i, y, dimension_numbers, mode=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_gathers_are_jaxs(name, mode):
    dims, sizes, i = CASES[name]
    found = tw.jit(gathers(lax, dims, sizes, mode))(X, i)
    np.testing.assert_array_equal(found, gathers(jax.lax, dims, sizes, mode)(X, i))


@pytest.mark.parametrize("mode", ["clip", "drop"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("on_numpy")
def test_scatters_are_jaxs(name, mode):
    dims, sizes, i = CASES[name]
    shape = gathers(jax.lax, dims, sizes, None)(X, i).shape
    y = RNG.standard_normal(shape).astype(np.float32)
    for kind in ("", "add", "sub", "mul", "min", "max"):
        found = scatters(lax, kind, dims, mode)(X, i, y)
        wanted = scatters(jax.lax, kind, dims, mode)(X, i, y)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6, err_msg=kind)


@pytest.mark.parametrize("name", ["boxes", "batches", "swapped", "whole, but out of range"])
def test_scatters_on_the_chip(name):
    dims, sizes, i = CASES[name]
    y = RNG.standard_normal(gathers(jax.lax, dims, sizes, None)(X, i).shape).astype(np.float32)
    for kind in ("", "add"):
        found = tw.jit(scatters(lax, kind, dims, None))(X, i, y)
        wanted = scatters(jax.lax, kind, dims, None)(X, i, y)
        np.testing.assert_allclose(found, wanted, rtol=1e-6, err_msg=kind)


def test_a_function_is_applied_as_often_as_an_element_is_named():
    i = np.int32([[1], [3], [1], [9]])

    def run(module):
        dims = module.ScatterDimensionNumbers((1, 2), (0,), (0,))
        double = lambda e: e * 2  # noqa: E731
        return lambda x: module.scatter_apply(x, i, double, dims, update_shape=(4, 5, 3))

    np.testing.assert_array_equal(tw.jit(run(lax))(X), run(jax.lax)(jnp.asarray(X)))


@pytest.mark.usefixtures("on_numpy")
def test_derivatives_and_batches_are_jaxs():
    dims, sizes, i = CASES["boxes"]
    i, y = np.clip(i, 0, 2), RNG.standard_normal((5, 2, 3, 3)).astype(np.float32)
    check_everything(
        lambda x: gathers(lax, dims, sizes, "fill")(x, i) ** 2,
        lambda x: gathers(jax.lax, dims, sizes, "fill")(x, i) ** 2, (X,),
    )  # fmt: skip
    check_everything(
        lambda x, y: scatters(lax, "add", dims, None)(x, i, y) ** 2,
        lambda x, y: scatters(jax.lax, "add", dims, None)(x, i, y) ** 2, (X, y),
    )  # fmt: skip


def test_modes_have_jaxs_names():
    dims, sizes, i = CASES["rows"]
    found = tw.jit(gathers(lax, dims, sizes, lax.GatherScatterMode.FILL_OR_DROP))(X, i)
    np.testing.assert_array_equal(found, gathers(jax.lax, dims, sizes, "fill")(X, i))


def test_what_does_not_fit_is_refused():
    dims, sizes, i = CASES["rows"]
    with pytest.raises(OperandError, match=r"last dimension must have size 1.*test_gathering"):
        make_jaxpr(gathers(lax, dims, sizes, None))(X, i[:, 0])
    with pytest.raises(OperandError, match=r"windows \(2, 5, 3\) of \(4, 5, 3\) .*do not fit"):
        make_jaxpr(gathers(lax, dims, (2, 5, 3), None))(X, i)
    with pytest.raises(OperandError, match=r"scatter: updates must have the indices' places"):
        make_jaxpr(scatters(lax, "", dims, None))(X, i, np.zeros((5, 5, 3), np.float32))
