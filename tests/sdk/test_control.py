"""Control flow, its derivatives and batches, compared with JAX's; errors; runs on the chip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax
from tilewright.compiler.core import eval_jaxpr
from tilewright.compiler.errors import OperandError, UnsupportedError

from tests.compiler.transform_case import compare, normal, on_numpy  # noqa: F401

X, W = normal(1, (4, 3)), normal(2, (3, 3))
H = normal(3, (3,))


def rnn(np_, L, w, h, xs):
    """A recurrent cell: residuals in the carry, the weights and the rows."""

    def step(h, x):
        new = np_.tanh(np_.matmul(h, w, precision="highest") + x)
        return new, {"out": new * x, "count": 2.0 * np_.sum(h)}

    return L.scan(step, h, xs)


def lstm_cell(np_, w, carry, x):
    """One step: w is (inputs and state, 4 gates)."""
    h, c = carry
    n = h.shape[0]
    gates = np_.matmul(np_.concatenate([x, h]), w, precision="highest")
    sigmoid = lambda v: 1 / (1 + np_.exp(-v))  # noqa: E731
    i, f, o = (sigmoid(gates[k * n : (k + 1) * n]) for k in range(3))
    c = f * c + i * np_.tanh(gates[3 * n :])
    h = o * np_.tanh(c)
    return (h, c), h


def lstm(np_, L, w, h, xs):
    wide = np_.concatenate([np_.concatenate([w, w + 1, w - 1, -w], 1)] * 2, 0)
    return L.scan(lambda carry, x: lstm_cell(np_, wide, carry, x), (h, np_.zeros_like(h)), xs)


def reverse_sum(np_, L, w, h, xs):
    last, ys = L.scan(lambda c, x: (c + np_.sin(x), c * x), h, xs, reverse=True)
    return last, ys


def power(np_, L, w, h, xs):
    """A counter, and a loop that closes over what is differentiated."""
    return L.fori_loop(0, 3, lambda i, v: v * h + i, xs[0])


def mapped(np_, L, w, h, xs):
    return L.map(lambda x: (np_.sin(x) * h, np_.sum(x)), xs)


def branch(np_, L, w, h, xs):
    first = L.cond(np_.sum(h) > 0, lambda a: (a * w[0], a), lambda a: (np_.sin(a), h), xs[0])
    second = L.switch(2, [lambda a: a, lambda a: a * a, lambda a: a * h], xs[1])
    return first, second


def branch_without_derivative(np_, L, w, h, xs):
    return L.cond(h[0] > 5, lambda a: a * 2, lambda a: np_.ones((3,), np_.float32), xs[0])


def in_a_scan(np_, L, w, h, xs):
    """Branches by the row, an inner loop, a carry that gets its tangent in a step."""

    def step(carry, x):
        total, count = carry
        part = L.cond(x[0] > 0, lambda a: a * h, lambda a: np_.cos(a), x)
        inner = L.fori_loop(0, 2, lambda i, v: v * part, x)
        return (total + inner, count + 1), part

    return L.scan(step, (np_.zeros((3,), np_.float32), 0), xs)[1]


PROGRAMS = {f.__name__: f for f in (rnn, lstm, reverse_sum, power, mapped, branch,
                                    branch_without_derivative, in_a_scan)}  # fmt: skip


def transformed(api, np_, L, f):
    """A function of (w, h, xs) of f's value, jvp, gradient, second derivative, and batches."""

    def value(w, h, xs):
        return f(np_, L, w, h, xs)

    def scalar(w, h, xs):
        leaves = api.tree.leaves(value(w, h, xs))
        return sum(np_.sum(np_.sin(v)) for v in leaves)

    def run(w, h, xs):
        gradient = api.grad(scalar, (0, 1, 2))
        hs = np_.stack([h, 2 * h - 1])
        return {
            "value": value(w, h, xs),
            "jvp": api.jvp(value, (w, h, xs), (w + 1, h, xs)),
            "gradient": gradient(w, h, xs),
            "second": api.jvp(gradient, (w, h, xs), (w, h + 1, xs))[1],
            "twice": api.grad(lambda *a: sum(np_.sum(g * g) for g in gradient(*a)), 1)(w, h, xs),
            "vmap": api.vmap(value, (None, 0, None))(w, hs, xs),
            "vmap gradient": api.vmap(gradient, (None, 0, None))(w, hs, xs),
            "gradient of vmap": api.grad(lambda hs: sum(
                np_.sum(v * v) for v in api.tree.leaves(
                    api.vmap(value, (None, 0, None))(w, hs, xs))))(hs),
        }  # fmt: skip

    return run


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.usefixtures("on_numpy")
def test_against_jax(name):
    ours = transformed(tw, tnp, lax, PROGRAMS[name])
    theirs = transformed(jax, jnp, jax.lax, PROGRAMS[name])
    lowered = jax.jit(theirs).lower(W, H, X)
    wanted = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})(W, H, X)
    compare(ours(W, H, X), wanted, 1e-3, 1e-4)
    found = eval_jaxpr(tw.make_jaxpr(ours)(W, H, X), [W, H, X])
    compare(found, tw.tree.leaves(wanted), 1e-3, 1e-4)


@pytest.mark.usefixtures("on_numpy")
def test_while_loops():
    def newton(np_, L, a):
        return L.while_loop(
            lambda s: s[1] > 1e-5, lambda s: ((s[0] + a / s[0]) / 2, np_.abs(a - s[0] * s[0])),
            (a, 1.0),
        )[0]  # fmt: skip

    ours, theirs = (lambda a: newton(tnp, lax, a)), (lambda a: newton(jnp, jax.lax, a))
    two = np.float32(2)
    values = np.array([2, 3, 50], np.float32)
    compare(ours(two), theirs(two), 1e-5, 0)
    compare(tw.jvp(ours, (two,), (two,)), jax.jvp(theirs, (two,), (two,)), 1e-4, 0)
    compare(tw.vmap(ours)(values), jax.vmap(theirs)(values), 1e-5, 0)
    compare(tw.jacfwd(lambda v: tw.vmap(ours)(v))(values),
            jax.jacfwd(lambda v: jax.vmap(theirs)(v))(values), 1e-4, 1e-5)  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"reverse-mode.*while_loop.*test_control\.py"):
        tw.grad(ours)(two)
    steps = tw.vmap(lambda n: lax.fori_loop(0, n, lambda i, v: v + i, 0))(np.arange(4))
    assert steps.tolist() == [0, 0, 1, 3]


@pytest.mark.usefixtures("on_numpy")
def test_a_batched_predicate_chooses_for_each_example():
    def f(np_, L, x):
        return L.cond(x > 0, lambda v: v * v, lambda v: -v, x) + L.switch(
            np_.floor(x).astype("int32"), [lambda: 10.0, lambda: 20.0, lambda: 30.0])  # fmt: skip

    xs = np.array([-7.5, -0.5, 0.5, 1.5, 9], np.float32)
    ours, theirs = (lambda x: f(tnp, lax, x)), (lambda x: f(jnp, jax.lax, x))
    compare(tw.vmap(ours)(xs), jax.vmap(theirs)(xs), 1e-6, 0)
    compare(tw.vmap(tw.grad(ours))(xs), jax.vmap(jax.grad(theirs))(xs), 1e-6, 0)


@pytest.mark.usefixtures("on_numpy")
def test_custom_derivatives_within_a_scan():
    def make(api, np_, L, stop):
        @api.custom_vjp
        def f(x):
            return np_.sin(x)

        f.defvjp(lambda x: (f(x), x), lambda x, ct: (3 * x * ct,))

        @api.custom_jvp
        def g(x):
            return x * x

        g.defjvp(lambda primals, tangents: (g(*primals), 7 * tangents[0]))

        def loss(h, xs):
            return np_.sum(L.scan(lambda c, x: (f(c) + g(x) * stop(c), c), h, xs)[0])

        return loss

    ours = make(tw, tnp, lax, lax.stop_gradient)
    theirs = make(jax, jnp, jax.lax, jax.lax.stop_gradient)
    compare(tw.grad(ours, (0, 1))(H, X), jax.grad(theirs, (0, 1))(H, X), 1e-4, 1e-5)
    compare(tw.vmap(tw.grad(ours), (0, None))(np.stack([H, H + 1]), X),
            jax.vmap(jax.grad(theirs), (0, None))(np.stack([H, H + 1]), X), 1e-4, 1e-5)  # fmt: skip


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lax.scan(lambda c, x: c, 0.0, X), r"must return a pair \(carry, y\)"),
        (lambda: lax.scan(lambda c, x: ((c, c), x), 0.0, X), "a carry of the structure"),
        (lambda: lax.scan(lambda c, x: (x, x), H[:2], X), "a carry of the types that it gets"),
        (lambda: lax.scan(lambda c, x: (c, x), 0.0, (X, H)), "must have one length"),
        (lambda: lax.scan(lambda c, x: (c, x), 0.0), "must have one length"),
        (lambda: lax.while_loop(lambda x: x, lambda x: x, H), "must return a bool scalar"),
        (lambda: lax.cond(True, lambda: 1.0, lambda: H), "branches must have results of one"),
        (lambda: lax.cond(H, lambda: 1, lambda: 2), "pred must be a scalar"),
        (lambda: lax.switch(0.5, [lambda: 1]), "index must be an integer scalar"),
        (lambda: lax.switch(0, []), "at least one branch"),
    ],
)
def test_errors(call, message):
    with pytest.raises(OperandError, match=message) as caught:
        call()
    assert "test_control.py" in str(caught.value)


@pytest.mark.usefixtures("on_numpy")
def test_numbers_in_a_carry_take_the_dtype_of_the_body():
    total, _ = lax.scan(lambda c, x: (c + x, None), 0, X[:, 0])
    assert np.asarray(total).dtype == np.float32
    assert np.allclose(total, X[:, 0].sum(), atol=1e-6)
    assert int(lax.fori_loop(0, 5, lambda i, v: v + i, 0)) == 10


def test_on_the_chip():
    with tw.default_device(tw.Device("tw4", "functional")):
        ours = tw.jit(tw.value_and_grad(lambda w, h, xs: tnp.vdot(
            lax.scan(lambda h, x: (tnp.tanh(h @ w + x), h), h, xs)[0], h), (0, 1)))  # fmt: skip
        theirs = jax.value_and_grad(lambda w, h, xs: jnp.vdot(
            jax.lax.scan(lambda h, x: (jnp.tanh(h @ w + x), h), h, xs)[0], h), (0, 1))  # fmt: skip
        found, wanted = ours(W, H, X), jax.jit(theirs)(W, H, X)
        for a, b in zip(tw.tree.leaves(found), tw.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=0.05, atol=0.05)
        ours = tw.jit(tw.grad(lambda w: tnp.sum(lstm(tnp, lax, w, H, X)[1])))
        theirs = jax.jit(jax.grad(lambda w: jnp.sum(lstm(jnp, jax.lax, w, H, X)[1])))
        np.testing.assert_allclose(ours(W), theirs(W), rtol=0.02, atol=0.02)
        _, ys = lax.scan(lambda c, x: (c + x[0], x * c), 1.0, X)  # at once
        np.testing.assert_allclose(ys, X * (1 + np.cumsum(X[:, :1], 0) - X[:, :1]), rtol=1e-5)
        assert float(tw.jit(lambda x: lax.cond(x > 1, tnp.sin, tnp.cos, x))(0.5)) == pytest.approx(
            np.cos(0.5), rel=1e-6
        )
        assert tw.jit(lambda x: lax.while_loop(lambda v: v < 9, lambda v: v * 2, x))(1.0) == 16


def test_only_the_branch_of_a_known_index_is_compiled():
    with tw.default_device(tw.Device("tw4", "functional")):
        f = tw.jit(lambda x: lax.switch(1, [tnp.sin, tnp.negative, tnp.exp], x))
        assert [e.primitive.name for e in f.lower(H).compile().jaxpr.eqns] == ["neg"]


def test_equal_loops_at_once_are_one_program():
    from tilewright import eager

    def run(factor, steps):
        def step(i, v):
            return lax.cond(v[0] > 2, tnp.negative, lambda v: v * factor, v)

        return lax.fori_loop(0, steps, step, H)

    with tw.default_device(tw.Device("tw4", "functional")):
        before, made = len(eager._programs), []
        for factor, steps in ((2.0, 5), (2.0, 5), (3.0, 5), (2.0, 6), (2.0, 5)):
            found = run(factor, steps)
            made.append(len(eager._programs) - before)
            wanted = H
            for _ in range(steps):
                wanted = -wanted if wanted[0] > 2 else wanted * np.float32(factor)
            np.testing.assert_array_equal(found, wanted)
    assert made == [1, 1, 2, 3, 3]
