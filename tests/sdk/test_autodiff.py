"""`grad` and its relatives as users call them: named programs, pytrees, closures, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright.compiler import trace
from tilewright.compiler.core import eval_jaxpr
from tilewright.compiler.errors import (
    ConcretizationError,
    DtypeError,
    LeakedTracerError,
    OperandError,
    UnsupportedError,
)

from tests.compiler.transform_case import compare, normal, on_numpy  # noqa: F401

pytestmark = pytest.mark.usefixtures("on_numpy")
X = normal(1, (3, 4))


def same(ours, theirs, rtol=2e-4, atol=2e-5):
    compare(ours, theirs, rtol, atol)


def test_third_derivative_of_sine():
    third = tw.grad(tw.grad(tw.grad(tnp.sin)))
    same(third(1.0), jax.grad(jax.grad(jax.grad(jnp.sin)))(1.0))
    assert np.allclose(third(1.0), -np.cos(1))


def test_partial_derivatives():
    def f(x, y, z):
        return x + 2 * y + z**2

    assert [float(g) for g in tw.grad(f, (0, 1, 2))(1.0, 2.0, 3.0)] == [1, 2, 6]
    assert float(tw.grad(f, -1)(1.0, 2.0, 3.0)) == 6


def test_control_flow_on_concrete_values():
    def f(x):
        if x > 0:
            while x < 100:
                x = x * x + 1
            return x
        return -3.0 * x

    for x in (1.5, -2.0):
        same(tw.grad(f)(x), jax.grad(f)(x), rtol=1e-5)
    same(tw.grad(tw.grad(f))(1.5), jax.grad(jax.grad(f))(1.5), rtol=1e-5)
    with pytest.raises(ConcretizationError, match=r"test_autodiff\.py"):
        tw.make_jaxpr(tw.grad(f))(1.5)
    with pytest.raises(ConcretizationError, match="BatchTracer"):
        tw.vmap(f)(np.ones(3, np.float32))


def test_per_example_gradients():
    def loss(np_, w, x, y):
        return np_.sum((np_.tanh(np_.matmul(x, w, precision="highest")) - y) ** 2)

    w, x, y = normal(1, (4, 2)), normal(2, (5, 4)), normal(3, (5, 2))
    same(
        tw.vmap(tw.grad(lambda *a: loss(tnp, *a)), (None, 0, 0))(w, x, y),
        jax.vmap(jax.grad(lambda *a: loss(jnp, *a)), (None, 0, 0))(w, x, y),
    )


def test_hessian_vector_products():
    def f(np_, x):
        return np_.sum(np_.sin(x) * x[0] ** 2)

    def both(api, np_):
        g = api.grad(lambda x: f(np_, x))
        return (
            lambda x, v: api.jvp(g, (x,), (v,))[1],
            lambda x, v: api.grad(lambda x: np_.vdot(g(x), v, precision="highest"))(x),
            lambda x, v: api.vjp(g, x)[1](v)[0],
        )

    x, v = normal(4, (5,)), normal(5, (5,))
    for ours, product in zip(both(tw, tnp), both(jax, jnp), strict=True):
        same(ours(x, v), product(x, v))


def test_pytrees_and_aux():
    def loss(np_, params, x):
        h = np_.tanh(np_.matmul(x, params["w"][0], precision="highest") + params["b"])
        y = np_.matmul(h, params["w"][1], precision="highest")
        return np_.sum(y * y), {"hidden": h, "count": 3}

    params = {"w": [normal(1, (4, 3)), normal(2, (3, 2))], "b": normal(3, (3,))}
    x = normal(4, (5, 4))
    ours = tw.value_and_grad(lambda p, x: loss(tnp, p, x), has_aux=True)(params, x)
    theirs = jax.value_and_grad(lambda p, x: loss(jnp, p, x), has_aux=True)(params, x)
    assert ours[0][1]["count"] == 3
    same(ours, theirs)
    same(tw.grad(lambda p, x: loss(tnp, p, x)[0], (1, 0))(params, x),
         jax.grad(lambda p, x: loss(jnp, p, x)[0], (1, 0))(params, x))  # fmt: skip
    same(tw.vjp(lambda p: loss(tnp, p, x), params, has_aux=True)[2],
         jax.vjp(lambda p: loss(jnp, p, x), params, has_aux=True)[2])  # fmt: skip


def test_jacobians_and_hessian():
    def f(np_, p, x):
        return {"a": np_.sin(p["u"]) * x[0], "b": np_.sum(p["v"] ** 3) * x}

    p = {"u": normal(1, (2,)), "v": normal(2, (2, 2))}
    x = normal(3, (3,))
    for name, argnums in (("jacfwd", (1, 0)), ("jacrev", 0), ("jacrev", (1, 0)), ("hessian", 0)):
        same(
            getattr(tw, name)(lambda *a: f(tnp, *a), argnums)(p, x),
            jax.jit(getattr(jax, name)(lambda *a: f(jnp, *a), argnums))(p, x),
        )
    composed = tw.vmap(tw.hessian(lambda x: tnp.sum(x**3)))(X)
    same(composed, jax.jit(jax.vmap(jax.hessian(lambda x: jnp.sum(x**3))))(X))


def test_linearize_and_linear_transpose():
    out, push = tw.linearize(lambda x: tnp.sin(x) * x, X)
    wanted, theirs = jax.linearize(lambda x: jnp.sin(x) * x, X)
    same((out, push(X), push(2 * X)), (wanted, theirs(X), theirs(2 * X)))
    transpose = tw.linear_transpose(lambda x: 3 * x[1:], tw.ShapeDtypeStruct((3,), np.float32))
    assert transpose(np.ones(2, np.float32))[0].tolist() == [0, 3, 3]
    with pytest.raises(UnsupportedError, match=r"sin is not linear.*test_autodiff"):
        tw.linear_transpose(tnp.sin, X)(X)


def test_a_linearized_function_holds_no_work_on_primals():
    runs = []

    def f(x):
        runs.append(1)
        return tnp.exp(tnp.sin(x))

    _, push = tw.linearize(f, X)
    jaxpr = tw.make_jaxpr(push)(X)
    assert [e.primitive.name for e in jaxpr.eqns] == ["mul", "mul"]
    assert len(runs) == 1


def test_paths_without_derivative_cost_nothing():
    def f(x, y):
        return tnp.sum(x) * 2 + 0 * tnp.sum(tw.stop_gradient(tnp.exp(y)))

    jaxpr = tw.make_jaxpr(tw.grad(f))(X, X)
    from tilewright.compiler.simplify import simplify

    assert [e.primitive.name for e in simplify(jaxpr).eqns] == ["broadcast_in_dim"]


def test_closures_over_enclosing_traces():
    def nested(api, np_):
        def f(x, y):
            inner = api.grad(lambda z: np_.sin(z * x) * y)
            return inner(y) * api.vmap(lambda a: a * x)(y * np_.ones(2, np.float32))[0]

        return api.jit(api.grad(f, (0, 1))), api.jit(lambda x, y: api.jvp(
            lambda z: api.grad(f)(z, y) * x, (x,), (y,)))  # fmt: skip

    jitted = [j.fun for j in nested(tw, tnp)]  # on NumPy: as they are, then traced
    for ours, theirs in zip(jitted, nested(jax, jnp), strict=True):
        wanted = theirs(0.5, 2.0)
        same(ours(0.5, 2.0), wanted)
        jaxpr = tw.make_jaxpr(ours)(0.5, 2.0)
        args = np.float32(0.5).reshape(()), np.float32(2).reshape(())
        same(eval_jaxpr(jaxpr, args), tw.tree.leaves(wanted))


def test_a_jitted_function_inside():
    inner = tw.jit(lambda x, n: tnp.sin(x) * n, static_argnums=1)
    same(tw.grad(lambda x: inner(x, 3))(0.5), jax.grad(lambda x: jnp.sin(x) * 3)(0.5))
    same(tw.vmap(tw.grad(inner), (0, None))(X[0], 2), 2 * np.cos(X[0]))

    def program(api, np_, x):
        scaled = api.jit(lambda y: {"s": np_.sin(y) * x, "n": y + 1})  # closes over a tracer
        f = lambda y: np_.sum(scaled(y)["s"] * y)  # noqa: E731
        each = api.vmap(api.grad(lambda a: scaled(a)["s"][0]))(np_.stack([x, x + 1]))
        nested = api.grad(lambda x: np_.sum(api.jit(api.grad(f))(x)))(x)
        return api.grad(f)(x), api.hessian(f)(x), each, nested

    ours = program(tw, tnp, X[0]), tw.grad(lambda x: tnp.sum(program(tw, tnp, x)[1]))(X[0])
    theirs = program(jax, jnp, X[0]), jax.grad(lambda x: jnp.sum(program(jax, jnp, x)[1]))(X[0])
    same(ours, theirs, rtol=1e-3, atol=1e-4)


def test_integers_have_no_tangents():
    n = np.arange(3, dtype=np.int32)
    f = lambda x, n: (x * n, n + 1)  # noqa: E731
    x = normal(1, (3,))
    zeros = np.zeros(3, tw.float0)
    same(tw.jvp(f, (x, n), (x, zeros)), jax.jvp(f, (x, n), (x, np.zeros(3, jax.dtypes.float0))))
    ours = tw.vjp(f, x, n)[1]((x, zeros))
    same(ours, jax.vjp(f, x, n)[1]((x, np.zeros(3, jax.dtypes.float0))))
    same(tw.grad(lambda x: tnp.sum(x * 2.0), allow_int=True)(n), np.zeros(3, jax.dtypes.float0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tw.grad(tnp.sin)(1), DtypeError, "grad requires real-valued inputs.*int32"),
        (lambda: tw.grad(tnp.sin)(X), OperandError, r"a scalar, not of shape \(3, 4\)"),
        (lambda: tw.grad(lambda x: (x, x))(1.0), OperandError, "a scalar, not the pytree"),
        (lambda: tw.grad(lambda x: 3)(1.0), DtypeError, "grad requires real-valued outputs"),
        (lambda: tw.grad(lambda x: "no")(1.0), DtypeError, "result of <lambda> is not an array"),
        (lambda: tw.grad(tnp.sin, 1)(1.0), ValueError, r"argnums must be in \[-1, 1\)"),
        (lambda: tw.grad(tnp.sin, "x")(1.0), TypeError, "argnums must be an int"),
        (lambda: tw.grad(tnp.sin)("x"), DtypeError, r"grad: argument \[0\]: an operand must be"),
        (lambda: tw.grad(lambda x: x, has_aux=True)(1.0), TypeError, "must return a pair"),
        (lambda: tw.jvp(tnp.sin, (X,), (X[0],)), OperandError, r"a tangent must have.*f32\[3,4\]"),
        (lambda: tw.jvp(tnp.sin, X, X), OperandError, "primals must be a tuple"),
        (lambda: tw.vjp(tnp.sin, X)[1](X[0]), OperandError, "the cotangent: a tangent must have"),
        (lambda: tw.vjp(tnp.sin, X)[1]((X,)), OperandError, "the cotangent must have the struct"),
        (lambda: tw.jvp(lambda x: x, (np.int32(1),), (1.0,)), OperandError, "dtype float0"),
        (lambda: tw.jacfwd(lambda x: x > 0)(X), DtypeError, "jacfwd requires real-valued outputs"),
    ],
)  # fmt: skip
def test_errors(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    if error is not TypeError and "is not an array" not in str(caught.value):
        assert "test_autodiff.py" in str(caught.value)


def test_leaked_tracers_of_transformations():
    kept = []
    tw.grad(lambda x: kept.append(x) or x)(1.0)
    tw.vmap(lambda x: kept.append(x) or x)(X)
    for tracer in kept:
        with pytest.raises(LeakedTracerError, match="whose tracing has ended"):
            tnp.sin(tracer)
        with pytest.raises(LeakedTracerError, match="whose tracing has ended"):
            tw.make_jaxpr(lambda x, t=tracer: x + t)(1.0)


def test_a_failure_leaves_no_trace_active():
    def fails(x):
        raise KeyError("mine")

    for call in (tw.grad(fails), tw.vmap(fails), tw.vmap(tw.grad(tw.jit(fails)))):
        with pytest.raises(KeyError, match="mine"):
            call(X[0])
        assert trace.current_trace() is None


def test_equations_of_the_backward_pass_carry_the_users_line():
    def f(x):
        return tnp.sum(tnp.exp(x))

    jaxpr = tw.make_jaxpr(tw.grad(f))(X)
    line = f.__code__.co_firstlineno + 1
    assert {e.source.line for e in jaxpr.eqns if e.primitive.name in ("exp", "mul")} == {line}


def test_eval_shape_and_disable_jit():
    struct = tw.eval_shape(lambda x: {"y": tw.vmap(tw.grad(tnp.sin))(x)}, X[0])
    assert struct == {"y": tw.ShapeDtypeStruct((4,), np.float32)}
    seen = []
    f = tw.jit(lambda x: seen.append(x) or x * 2)
    with tw.disable_jit():
        assert f(X[0]).tolist() == (X[0] * 2).tolist()
    assert isinstance(seen[0], np.ndarray)
