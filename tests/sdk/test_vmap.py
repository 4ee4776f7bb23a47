"""`vmap`'s arguments, nesting, errors; special shapes; compared with JAX's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax
from tilewright.compiler.errors import ConcretizationError, OperandError

from tests.compiler.transform_case import compare, normal, on_numpy  # noqa: F401

pytestmark = pytest.mark.usefixtures("on_numpy")
X, Y = normal(1, (3, 4)), normal(2, (4, 3))


def same(program, *args, rtol=1e-5, atol=1e-6):
    """Compare a function of (api, numpy, lax) and arguments."""
    ours = program(tw, tnp, lax, *args)
    compare(ours, program(jax, jnp, jax.lax, *args), rtol, atol)


@pytest.mark.parametrize("in_axes", [(0, 1), (1, 0), (-1, -2), [0, 1], (0, None), (None, 1)])
@pytest.mark.parametrize("out_axes", [0, 1, -1])
def test_axes(in_axes, out_axes):
    shared = {(0, None): (X, Y[:, 0]), (None, 1): (X[0], Y)}
    args = shared.get(tuple(in_axes), (X, Y))
    same(lambda api, np_, L, x, y: api.vmap(
        lambda a, b: np_.sin(a) * b, in_axes, out_axes)(x, y), *args)  # fmt: skip


def test_pytrees_of_axes():
    tree = {"a": X, "b": (Y, np.float32(2).reshape(()))}

    def program(api, np_, L, tree, x):
        f = lambda t, x: {"s": t["a"] * x + t["b"][1], "p": (t["b"][0], x)}  # noqa: E731
        return api.vmap(f, ({"a": 0, "b": (1, None)}, None), {"s": 1, "p": (0, None)})(tree, x)

    same(program, tree, X[0])


def test_keyword_arguments_and_axis_size():
    same(lambda api, np_, L, x: api.vmap(lambda a, *, b: a * b)(x, b=x + 1), X)
    same(lambda api, np_, L: api.vmap(lambda: np_.ones((2,), np_.float32), axis_size=3)())
    same(lambda api, np_, L, x: api.vmap(lambda a: (a, 3.0), out_axes=(1, 0))(x), X)


def test_nesting():
    same(lambda api, np_, L, x, y: api.vmap(
        api.vmap(lambda a, b: np_.sum(a * b), (None, 1)), (0, None))(x, y), X, Y)  # fmt: skip
    same(lambda api, np_, L, x: api.vmap(api.vmap(api.vmap(lambda a: a * 2, 1, 1)), -1)(x),
         normal(3, (2, 3, 4, 5)))  # fmt: skip
    same(lambda api, np_, L, x: api.vmap(lambda r: api.vmap(lambda a: a * np_.sum(r))(r))(x), X)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (1, 1), (1, 3)])
def test_special_shapes(shape):
    """No elements, no examples, one of them."""
    x = normal(1, shape)

    def program(api, np_, L, x):
        f = lambda a: np_.sum(np_.tanh(np_.reshape(a, (-1, 1)) * a))  # noqa: E731
        return {
            "vmap grad": api.vmap(api.grad(f))(x),
            "grad vmap": api.grad(lambda x: np_.sum(api.vmap(f)(x)))(x),
            "slices": api.grad(lambda x: np_.sum(x[:, 1:] * x[:, :-1]))(x),
            "pads": api.vjp(lambda x: L.pad(x, 0.0, ((1, 0, 2), (0, 1, 0))), x)[0],
            "products": api.vmap(api.grad(lambda a: np_.dot(a, a, precision="highest")))(x),
        }  # fmt: skip

    same(program, x)


def test_bfloat16():
    x = X.astype(tnp.bfloat16)

    def program(api, np_, L, x):
        return api.vmap(api.grad(lambda a: np_.sum(np_.sin(a) * a)))(x)

    same(program, x, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tw.vmap(tnp.add)(X, Y), r"one size; the arguments are f32\[3,4\] along 0, f32"),
        (lambda: tw.vmap(tnp.sin)(1.0), "axis 0 of an argument.*it has rank 0"),
        (lambda: tw.vmap(tnp.sin, 2)(X), r"axis 2 .* must be in \[-2, 2\)"),
        (lambda: tw.vmap(tnp.sin, None)(X), "at least one argument"),
        (lambda: tw.vmap(tnp.sin, (0, 0))(X), "an entry for each of 1 positional"),
        (lambda: tw.vmap(lambda d: d["a"], ({"b": 0},))({"a": X}), "a prefix of the structure"),
        (lambda: tw.vmap(tnp.sin, "x")(X), "must hold ints and None"),
        (lambda: tw.vmap(tnp.sin, out_axes=None)(X), "must not differ between the examples"),
        (lambda: tw.vmap(tnp.sin, out_axes=3)(X), r"out_axes must be in \[-2, 2\)"),
        (lambda: tw.vmap(tnp.sin, axis_size=5)(X), "axis_size is 5"),
    ],
)
def test_errors(call, message):
    with pytest.raises(OperandError, match=message) as caught:
        call()
    assert "test_vmap.py" in str(caught.value)


def test_python_cannot_branch_on_a_batch():
    with pytest.raises(ConcretizationError, match=r"differs between.*BatchTracer.*test_vmap"):
        tw.vmap(lambda x: 1 if x > 0 else 0)(X[0])
