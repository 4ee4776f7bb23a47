"""Derivatives and batches of scalars, of one element, and of no elements, compared with JAX's."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright.numpy as tnp
from tilewright import lax

from tests.compiler.transform_case import check_everything, normal, on_numpy  # noqa: F401

pytestmark = pytest.mark.usefixtures("on_numpy")

OURS, THEIRS = SimpleNamespace(lax=lax, np=tnp), SimpleNamespace(lax=jax.lax, np=jnp)
SHAPES = [(), (1,), (0,), (1, 1), (2, 0, 3)]
MATRIX = (((1,), (0,)), ((), ()))
AT = np.int32(1)

#: Of any shape.
ELEMENTWISE = {
    "chain": lambda a, x, y: a.np.sin(x * y) / (1 + y * y) - a.np.maximum(x, y),
    "select": lambda a, x, y: a.np.where(x > y, x * x, a.np.exp(y)),
    "reshape": lambda a, x, y: a.np.reshape(x * x, (1, -1, 1) if x.size else (0, 4)),
    "sum": lambda a, x, y: a.np.sum(x * x * y),
    "transpose": lambda a, x, y: a.np.transpose(x * y) * 2,
    "expand": lambda a, x, y: a.np.broadcast_to(x * x, (2, *x.shape)) + y,
}
#: A function and its operands' shapes.
SPECIAL = {
    "erfc": (lambda a, x: a.lax.erfc(x), (2,)),
    "product with nothing between": (
        lambda a, x, y: a.lax.dot_general(x, y, MATRIX), (3, 0), (0, 2)),
    "product of no rows": (lambda a, x, y: a.lax.dot_general(x, y, MATRIX), (0, 3), (3, 2)),
    "product of single elements": (
        lambda a, x, y: a.lax.dot_general(x, y, MATRIX, precision="highest"), (1, 1), (1, 1)),
    "sums of nothing": (lambda a, x: a.np.sum(x * x, 1), (3, 0)),
    "join with nothing": (lambda a, x, y: a.lax.concatenate([x * x, y], 0), (0, 2), (3, 2)),
    "pad nothing": (lambda a, x: a.lax.pad(x * x, np.float32(2), ((1, 2, 0),)), (0,)),
    "running sum of one": (lambda a, x: a.lax.cumsum(x * x, 0), (1,)),
    "running sum of none": (lambda a, x: a.lax.cumsum(x * x, 0), (0,)),
    "one pixel": (
        lambda a, x, y: a.lax.conv_general_dilated(
            x, y, (1, 1), ((0, 0), (0, 0)), precision="highest"), (1, 1, 1, 1), (1, 1, 1, 1)),
    "dynamic slice": (
        lambda a, x: a.lax.dynamic_slice(x * x, (AT, AT), (1, 2)), (3, 4)),
    "dynamic update": (
        lambda a, x, y: a.lax.dynamic_update_slice(x * x, y * 2, (AT, AT)), (3, 4), (1, 2)),
    "dynamic update by nothing": (
        lambda a, x, y: a.lax.dynamic_update_slice(x * x, y, (AT, AT)), (3, 4), (0, 2)),
    "one step": (
        lambda a, x, y: a.lax.scan(lambda c, r: (c * r, c + r), x, y)[1], (), (1,)),
    "no step": (lambda a, x, y: a.lax.scan(lambda c, r: (c * r, c + r), x, y)[0], (), (0,)),
    "largest of one": (lambda a, x: a.np.max(x * x, 0), (1, 2)),
}  # fmt: skip


def both(function, *shapes):
    check_everything(
        lambda *a: function(OURS, *a), lambda *a: function(THEIRS, *a),
        tuple(normal(i + 1, shape) for i, shape in enumerate(shapes)),
    )  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_any_shape(name, shape):
    both(ELEMENTWISE[name], shape, shape)


@pytest.mark.parametrize("name", SPECIAL)
def test_special_shapes(name):
    function, *shapes = SPECIAL[name]
    both(function, *shapes)
