"""`custom_jvp`, `custom_vjp`, `stop_gradient`, `checkpoint`: compared with JAX's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright.compiler.core import eval_jaxpr
from tilewright.compiler.errors import OperandError, UnsupportedError

from tests.compiler.transform_case import compare, normal, on_numpy  # noqa: F401

pytestmark = pytest.mark.usefixtures("on_numpy")
X, Y = normal(1, (3,)), normal(2, (3,))


def same(ours, theirs, rtol=2e-4, atol=2e-5):
    compare(ours, theirs, rtol, atol)


def with_jvp(api, np_):
    @api.custom_jvp
    def f(x, y):
        return np_.sin(x) * y

    @f.defjvp
    def rule(primals, tangents):
        (x, y), (dx, dy) = primals, tangents
        return f(x, y), 2 * np_.cos(x) * dx * y + 3 * np_.sin(x) * dy  # not the true one

    return f


def with_vjp(api, np_):
    @api.custom_vjp
    def f(x, y):
        return {"out": np_.sin(x) * y}

    def forward(x, y):
        return f(x, y), (np_.cos(x), x, y)

    def backward(residuals, ct):
        cos, x, y = residuals
        return 5 * cos * y * ct["out"], 7 * np_.sin(x) * ct["out"]

    f.defvjp(forward, backward)
    return lambda x, y: f(x, y)["out"]


def programs(api, np_, f):
    """Calls of a function of two vectors under every transformation that reverse mode allows."""
    scalar = lambda x, y: np_.sum(f(x, y) * y)  # noqa: E731
    x, y = np_.asarray(X), np_.asarray(Y)
    matrix = np_.asarray(np.stack([X, 2 * X]))
    return {
        "value": lambda: f(x, y),
        "grad": lambda: api.grad(scalar, (0, 1))(x, y),
        "by the second": lambda: api.grad(scalar, 1)(x, y),
        "second": lambda: api.grad(
            lambda x, y: np_.sum(api.grad(scalar, 1)(x, y) * x), (0, 1))(x, y),
        "vmap": lambda: api.vmap(f, (0, None))(matrix, y),
        "vmap grad": lambda: api.vmap(api.grad(scalar, (0, 1)), (0, None))(matrix, y),
        "grad vmap": lambda: api.grad(
            lambda m, y: np_.sum(api.vmap(f, (0, None))(m, y) * m), (0, 1))(matrix, y),
        "in a nested vmap": lambda: api.grad(lambda m, y: np_.sum(
            api.vmap(api.vmap(f, (0, None)), (None, 0), 1)(m, y) ** 2), (0, 1))(x, y),
        "jacrev": lambda: api.jacrev(f)(x, y),
    }  # fmt: skip


@pytest.mark.parametrize("make", [with_jvp, with_vjp])
def test_custom_derivatives(make):
    ours, theirs = programs(tw, tnp, make(tw, tnp)), programs(jax, jnp, make(jax, jnp))
    for name, call in ours.items():
        wanted = jax.jit(theirs[name])()
        same(call(), wanted)
        jaxpr = tw.make_jaxpr(call)()
        same(eval_jaxpr(jaxpr, []), tw.tree.leaves(wanted))


def test_forward_mode_of_a_custom_jvp():
    ours, theirs = with_jvp(tw, tnp), with_jvp(jax, jnp)
    same(tw.jvp(ours, (X, Y), (Y, X)), jax.jvp(theirs, (X, Y), (Y, X)))
    same(tw.jacfwd(ours)(X, Y), jax.jacfwd(theirs)(X, Y))
    push = lambda api, f: api.vmap(lambda x, t: api.jvp(f, (x, Y[0]), (t, 1.0)))(X, Y)  # noqa: E731
    same(push(tw, ours), push(jax, theirs))


def test_forward_mode_of_a_custom_vjp_is_refused():
    f = with_vjp(tw, tnp)
    for call in (lambda: tw.jvp(f, (X, Y), (Y, X)), lambda: tw.jacfwd(f)(X, Y)):
        with pytest.raises(UnsupportedError, match=r"forward-mode.*test_custom.py"):
            call()


def test_arguments_that_are_python_values():
    def make(api, np_):
        @functools.partial(api.custom_jvp, nondiff_argnums=(0,))
        def power(n, x):
            return x**n

        power.defjvp(lambda n, primals, tangents: (
            power(n, *primals), 10 * n * tangents[0]))  # fmt: skip

        @functools.partial(api.custom_vjp, nondiff_argnums=(0, 2))
        def scaled(f, x, k):
            return f(x) * k

        scaled.defvjp(lambda f, x, k: (scaled(f, x, k), x), lambda f, k, x, ct: (ct * f(x) * k,))
        return lambda x: np_.sum(power(3, x) + scaled(np_.sin, x, 4))

    same(tw.grad(make(tw, tnp))(X), jax.grad(make(jax, jnp))(X))


def test_rules_by_argument():
    def make(api, np_):
        @api.custom_jvp
        def f(x, y):
            return x * y

        f.defjvps(lambda t, out, x, y: t * out, None)
        return lambda x, y: np_.sum(f(x, y))

    same(tw.grad(make(tw, tnp), (0, 1))(X, Y), jax.grad(make(jax, jnp), (0, 1))(X, Y))


def test_integers_and_none_in_custom_vjp():
    @tw.custom_vjp
    def f(x, n, unused):
        return x * n

    f.defvjp(lambda x, n, u: (f(x, n, u), n), lambda n, ct: (ct * n, None, None))
    n = np.array([1, 2, 3], np.int32)
    found = tw.vjp(lambda x, u: f(x, n, u), X, Y)[1](np.ones(3, np.float32))
    same(found, (n.astype(np.float32), np.zeros(3, np.float32)))


def test_stop_gradient():
    def make(api, np_, stop):
        return lambda x: np_.sum(stop({"a": x * x, "n": 3})["a"] * x)

    ours = make(tw, tnp, tw.stop_gradient)
    theirs = make(jax, jnp, jax.lax.stop_gradient)
    for transform in ("grad", "jacfwd", "hessian"):
        same(getattr(tw, transform)(ours)(X), jax.jit(getattr(jax, transform)(theirs))(X))
    rows = np.stack([X, Y])
    same(tw.vmap(tw.grad(ours))(rows), jax.jit(jax.vmap(jax.grad(theirs)))(rows))
    same(tw.grad(lambda m: tnp.sum(tw.vmap(ours)(m)))(rows),
         jax.grad(lambda m: jnp.sum(jax.vmap(theirs)(m)))(rows))  # fmt: skip


def test_checkpoint_keeps_values_and_derivatives():
    f = tw.checkpoint(lambda x: tnp.sum(tnp.sin(tnp.sin(x))))
    g = jax.checkpoint(lambda x: jnp.sum(jnp.sin(jnp.sin(x))))
    same(tw.value_and_grad(f)(X), jax.value_and_grad(g)(X))


def test_errors_of_rules():
    @tw.custom_jvp
    def f(x):
        return x

    with pytest.raises(AttributeError, match="f has a custom_jvp without a rule"):
        f(X)
    f.defjvp(lambda primals, tangents: (primals[0], tangents[0][:2]))
    with pytest.raises(OperandError, match="f: the rule's result: a tangent must have"):
        tw.jvp(f, (X,), (X,))

    @tw.custom_vjp
    def g(x):
        return x

    g.defvjp(lambda x: (x, None), lambda _, ct: ct)
    with pytest.raises(OperandError, match="the bwd of g must return a tuple of 1"):
        tw.grad(lambda x: tnp.sum(g(x)))(X)
