"""What a user gets wrong under transformations is JAX's error; it says where, and what to do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax
from tilewright.compiler.errors import ConcretizationError, LeakedTracerError

X = np.arange(1, 4, dtype=np.float32)
ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)
HERE = r".*\(at [^ ]*test_messages\.py:\d+ in .*\)"


@pytest.fixture(autouse=True)
def small_chip():
    with tw.default_device(tw.Device("tw4", "functional")):
        yield


def power(api):
    return api.jit(lambda x, n: (x**n).sum(), static_argnums=1)


def scaled(api):
    return api.jit(
        lambda x, how: (x * {"twice": 2, "thrice": 3}[how]).sum(), static_argnames="how"
    )


STATIC = {
    "grad": lambda api: api.grad(power(api))(X, 3),
    "grad by name": lambda api: api.grad(power(api))(X, n=3),
    "a string": lambda api: api.grad(scaled(api))(X, how="thrice"),
    "a string by place": lambda api: api.grad(scaled(api))(X, "twice"),
    "vmap": lambda api: api.vmap(power(api), in_axes=(0, None))(ROWS, 2),
    "vmap of a string": lambda api: api.vmap(scaled(api), in_axes=(0, None))(ROWS, "twice"),
    "vmap of grad": lambda api: api.vmap(api.grad(power(api)), in_axes=(0, None))(ROWS, 3),
    "jit of grad": lambda api: api.jit(api.grad(power(api)), static_argnums=1)(X, 3),
    "jit in jit": lambda api: api.jit(lambda x: power(api)(x, 2) + scaled(api)(x, "twice"))(X),
    "jvp": lambda api: api.jvp(lambda x: power(api)(x, 3), (X,), (X,)),
    "hessian": lambda api: api.hessian(power(api))(X, 3),
    "a function": lambda api: api.value_and_grad(
        api.jit(lambda f, x: f(x).sum(), static_argnums=0), argnums=1)(square, X),
    "eval_shape": lambda api: np.zeros(api.eval_shape(
        functools.partial(power(api), n=2), X).shape),
}  # fmt: skip


def square(x):
    return x * x


@pytest.mark.parametrize("name", STATIC)
def test_static_arguments_under_transformations(name):
    found, wanted = (STATIC[name](api) for api in (tw, jax))
    for a, b in zip(tw.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(np.asarray(a), b, rtol=1e-4)


def test_a_jitted_function_of_a_transformed_jitted_function_is_the_outer_one():
    def f(x):
        return (x * x).sum()

    np.testing.assert_array_equal(tw.jit(tw.grad(tw.jit(f)))(X), 2 * X)
    np.testing.assert_array_equal(tw.jit(tw.vmap(tw.jit(f)))(ROWS), (ROWS * ROWS).sum(1))
    g = tw.custom_jvp(tw.grad(tw.jit(f)))
    g.defjvps(lambda t, ans, x: 3 * t)
    value, tangent = tw.jvp(tw.jit(g), (X,), (X,))
    np.testing.assert_array_equal(value, 2 * X)
    np.testing.assert_array_equal(tangent, 3 * X)


TRACED_STATICS = {
    "grad": lambda api: api.grad(power(api), argnums=1)(X, 3.0),
    "vmap": lambda api: api.vmap(power(api))(ROWS, np.arange(2)),
    "jit": lambda api: api.jit(lambda x, n: power(api)(x, n))(X, 2),
    "a list in jit": lambda api: api.jit(lambda x: power(api)(x, [2]))(X),
    "a list": lambda api: power(api)(X, [2]),
    "an array": lambda api: power(api)(X, api.numpy.ones(2)),
}


@pytest.mark.parametrize("name", TRACED_STATICS)
def test_static_arguments_must_be_values(name):
    with pytest.raises(ValueError):
        TRACED_STATICS[name](jax)
    with pytest.raises(ValueError, match=r"static argument 1 of <lambda> must be" + HERE):
        TRACED_STATICS[name](tw)


def test_make_jaxpr_takes_static_arguments():
    def f(x, how):
        return {how: x * 2, "sum": x.sum()}

    jaxpr, shapes = tw.make_jaxpr(f, static_argnums=1, return_shape=True)(X, "double")
    assert [e.primitive.name for e in jaxpr.eqns] == ["mul", "reduce_sum"]
    assert {k: (v.shape, v.dtype) for k, v in shapes.items()} == {
        "double": ((3,), np.float32), "sum": ((), np.float32)}  # fmt: skip


def branch(x):
    y = x * 2
    if y.sum() > 0:
        return x
    return -x


def loop(x):
    while x[0] > 0:
        x = x - 1
    return x


NEEDS_A_VALUE = {
    "if": lambda api, np_: api.jit(branch)(X),
    "if in a gradient": lambda api, np_: api.jit(api.grad(lambda x: branch(x).sum()))(X),
    "gradient of jit": lambda api, np_: api.grad(api.jit(lambda x: branch(x).sum()))(X),
    "while": lambda api, np_: api.jit(loop)(X),
    "if in scan": lambda api, np_: api.lax.scan(lambda c, x: (branch(c), x), X, X),
    "range": lambda api, np_: api.jit(lambda x: sum(range(x)))(3),
    "shape": lambda api, np_: api.jit(lambda x: np_.zeros(x))(3),
    "a dimension": lambda api, np_: api.jit(lambda x: np_.zeros((2, x)))(3),
    "index of a list": lambda api, np_: api.jit(lambda x: [1, 2][x])(1),
    "float": lambda api, np_: api.jit(lambda x: float(x))(1.0),
    "item": lambda api, np_: api.jit(lambda x: x.sum().item())(X),
    "tolist": lambda api, np_: api.jit(lambda x: x.tolist())(X),
}


@pytest.mark.parametrize("name", NEEDS_A_VALUE)
def test_what_needs_a_value_names_the_argument(name):
    f = NEEDS_A_VALUE[name]
    with pytest.raises(TypeError):
        f(jax, jnp)
    with pytest.raises(ConcretizationError, match=r"depends on argument [xc] of " + HERE) as caught:
        f(tw, tnp)
    assert isinstance(caught.value, TypeError)


def test_only_the_arguments_that_decide_are_named():
    def f(a, flag, *, sizes, c):
        inner = tnp.where(sizes["n"] > 0, a, 1)
        return lax.scan(lambda carry, _: (carry if inner[0] else -carry, None), a, None, 3)

    with pytest.raises(ConcretizationError) as caught:
        tw.jit(f, static_argnames="flag")(X, True, sizes={"m": 1, "n": 2}, c=X)
    text = str(caught.value)
    assert "argument a of f and argument sizes['n'] of f:" in text and "lax.cond" in text


def test_branches_on_examples_say_so():
    with pytest.raises(ConcretizationError, match="differs between the examples of vmap" + HERE):
        tw.vmap(branch)(ROWS)


def leak(api, transform):
    kept = []

    def f(x):
        kept.append(x * 2)
        return x.sum()

    transform(api, f)
    return kept[0]


LEAKS = {
    "jit": lambda api, f: api.jit(f)(X),
    "grad": lambda api, f: api.grad(f)(X),
    "vmap": lambda api, f: api.vmap(f)(ROWS),
    "jit of grad": lambda api, f: api.jit(api.grad(f))(X),
    "scan": lambda api, f: api.lax.scan(lambda c, x: (c + f(x), None), 0.0, ROWS),
    "cond": lambda api, f: api.lax.cond(True, f, f, X),
}


@pytest.mark.parametrize("name", LEAKS)
def test_leaked_tracers_say_where_they_were_made(name):
    with pytest.raises(jax.errors.UnexpectedTracerError):
        leak(jax, LEAKS[name]) + 1
    kept = leak(tw, LEAKS[name])
    made = f"test_messages.py:{leak.__code__.co_firstlineno + 4} in leak"
    uses = (
        *(lambda: kept + 1, lambda: tw.jit(lambda y: y + kept)(X), lambda: tw.jit(square)(kept)),
        *(lambda: np.asarray(kept), lambda: float(kept), lambda: tw.device_put(kept)),
    )
    for use in uses:
        with pytest.raises(LeakedTracerError, match=r"has ended; return values") as caught:
            use()
        assert made in str(caught.value) and "at " + __file__ in str(caught.value)
