"""The calls of JAX's quickstart, autodiff cookbook, control flow and "sharp bits" pages.

The programs are our own; each runs here and in JAX, with the import changed. Calls covered: jit
with static_argnums and static_argnames, lower, grad, value_and_grad, vmap, jvp, vjp, jacfwd,
jacrev, hessian, custom_jvp, custom_vjp, make_jaxpr, debug_nans; lax.cond, fori_loop, scan,
stop_gradient, switch, while_loop; random.key, split, normal, uniform, permutation; numpy's arange,
asarray, clip, dot, exp, log, log1p, ones, round, sin, sum, tanh, vdot, where, zeros; indices out
of range, x.at[...].set, add, multiply, get; masks; block_until_ready.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax
from tilewright.compiler.errors import ConcretizationError, UnsupportedError

from tests.compiler.transform_case import compare, normal, on_numpy  # noqa: F401

pytestmark = pytest.mark.usefixtures("on_numpy")
INPUTS = np.array([[0.52, 1.12, 0.77], [0.88, -1.08, 0.15], [0.52, 0.06, -1.30]], np.float32)
TARGETS = np.array([1, 1, 0], np.float32)
W, B, X = normal(1, (3,)), np.float32(0.3), normal(2, (5,))


def selu(np_, x, alpha=1.67, lmbda=1.05):
    return lmbda * np_.where(x > 0, x, alpha * np_.exp(x) - alpha)


def sum_logistic(np_, x):
    return np_.sum(1.0 / (1.0 + np_.exp(-x)))


def predict(np_, w, b, inputs):
    return 0.5 * (np_.tanh(np_.dot(inputs, w, precision="highest") + b) + 1)


def loss(np_, w, b):
    p = predict(np_, w, b, INPUTS)
    return -np_.sum(np_.log(p * TARGETS + (1 - p) * (1 - TARGETS)))


def hvp(api, f, primals, tangents):
    return api.jvp(api.grad(f), primals, tangents)[1]


PROGRAMS = {
    "jit": lambda api, np_, L: api.jit(partial(selu, np_))(X),
    "grad of a sum": lambda api, np_, L: api.grad(partial(sum_logistic, np_))(np_.arange(3.0)),
    "grad of jit of grad": lambda api, np_, L: api.grad(
        lambda x: api.jit(api.grad(partial(sum_logistic, np_)))(x)[0])(X),
    "vmap of a matrix": lambda api, np_, L: api.vmap(
        lambda v: np_.dot(INPUTS, v, precision="highest"))(np_.asarray(INPUTS)),
    "logistic regression": lambda api, np_, L: api.grad(partial(loss, np_), (0, 1))(W, B),
    "values too": lambda api, np_, L: api.value_and_grad(partial(loss, np_), 0)(W, B),
    "parameters in a dict": lambda api, np_, L: api.grad(
        lambda p: loss(np_, p["W"], p["b"]))({"W": W, "b": B}),
    "hessian-vector product": lambda api, np_, L: hvp(
        api, lambda w: loss(np_, w, B), (W,), (W + 1,)),
    "hvp by reverse twice": lambda api, np_, L: api.grad(lambda w: np_.vdot(
        api.grad(lambda w: loss(np_, w, B))(w), W, precision="highest"))(W),
    "jacobians": lambda api, np_, L: [j(lambda w: predict(np_, w, B, INPUTS))(W)
                                      for j in (api.jacfwd, api.jacrev)],
    "jacobian of a dict": lambda api, np_, L: api.jacrev(
        lambda p: predict(np_, p["W"], p["b"], INPUTS))({"W": W, "b": B}),
    "hessian": lambda api, np_, L: api.hessian(lambda w: loss(np_, w, B))(W),
    "jacobian-matrix products": lambda api, np_, L: api.vmap(
        lambda s: api.jvp(lambda w: predict(np_, w, B, INPUTS), (W,), (s,))[1])(INPUTS),
    "matrix-jacobian products": lambda api, np_, L: api.vmap(
        api.vjp(lambda w: predict(np_, w, B, INPUTS), W)[1])(INPUTS),
    "one example's gradients": lambda api, np_, L: api.vmap(api.grad(
        lambda w, x, t: (predict(np_, w, B, x) - t) ** 2), (None, 0, 0))(W, INPUTS, TARGETS),
    "second derivatives": lambda api, np_, L: api.vmap(api.grad(api.grad(np_.tanh)))(X),
    "clipped gradients": lambda api, np_, L: api.grad(
        lambda x: clipped(api, np_)(x * 5.0) ** 2)(np.float32(1)),
    "log1pexp": lambda api, np_, L: [api.grad(log1pexp(api, np_))(v) for v in (3.0, 100.0)],
    "fixed point": lambda api, np_, L: api.grad(
        lambda a: L.fori_loop(0, 12, lambda i, x: (x + a / x) / 2, a))(np.float32(2)),
    "scan of a sum": lambda api, np_, L: L.scan(lambda c, x: (c + x, c * x), 0.0, X),
    "cond": lambda api, np_, L: [L.cond(v, lambda x: x + 1, lambda x: x - 1, np.float32(0))
                                 for v in (True, False)],
    "while": lambda api, np_, L: L.while_loop(lambda x: x < 10, lambda x: x + 1, 0),
    "factorial": lambda api, np_, L: L.fori_loop(1, 6, lambda i, x: x * i, 1),
    "td target": lambda api, np_, L: api.grad(lambda w: (
        L.stop_gradient(1 + np_.vdot(w, W, precision="highest")) - np_.sum(w)) ** 2)(W),
    "straight through": lambda api, np_, L: api.grad(lambda x: np_.sum(
        (x + L.stop_gradient(np_.round(x) - x)) ** 2))(X),
    "nested vmap of outer": lambda api, np_, L: api.vmap(api.vmap(
        lambda a, b: a * b, (None, 0)), (0, None))(X, W),
    "polynomial": lambda api, np_, L: [api.grad(lambda x: 4 * x**3 + 2 * x**2 + x)(2.0),
                                       api.grad(lambda x: abs(x))(-3.0)],
    "keys": lambda api, np_, L: [api.random.normal(k, (3,)) for k in
                                 api.random.split(api.random.key(42), 2)],
    "uniform": lambda api, np_, L: api.random.uniform(api.random.key(7), (2, 3)),
    "in place of assignments": lambda api, np_, L: api.jit(
        lambda x: x.at[1, :].set(1.0))(np_.zeros((3, 3))),
    "functional updates": lambda api, np_, L: api.jit(
        lambda x: x.at[::2, 2:].add(7.0).at[0].multiply(2))(np_.ones((5, 6))),
    "read out of range": lambda api, np_, L: api.jit(lambda x, i: x[i])(np_.arange(10), 11),
    "written out of range": lambda api, np_, L: api.jit(
        lambda x, i: x.at[i].add(23))(np_.arange(10), 11),
    "filled out of range": lambda api, np_, L: api.jit(
        lambda x, i: x.at[i].get(mode="fill", fill_value=-1.0))(np_.arange(10.0), 11),
    "a mask by where": lambda api, np_, L: api.jit(
        lambda x: np_.where(x < 0, 0.0, x))(X),
    "a known mask": lambda api, np_, L: np_.asarray(X)[X > 0],
    "narrowed": lambda api, np_, L: np_.asarray(np.ones(3)),
    "switch": lambda api, np_, L: [L.switch(i, [lambda v: v, lambda v: -v, np_.sin], X)
                                   for i in (0, 2, 5)],
    "two outputs of a scan": lambda api, np_, L: L.scan(
        lambda c, x: ((c[0] + x, c[1] * x), c), (0.0, 1.0), X),
    "finished": lambda api, np_, L: api.jit(lambda x: x * 2)(X).block_until_ready(),
}  # fmt: skip


def clipped(api, np_):
    @api.custom_vjp
    def clip(x):
        return x

    clip.defvjp(lambda x: (x, None), lambda _, g: (np_.clip(g, -0.5, 0.5),))
    return clip


def log1pexp(api, np_):
    @api.custom_jvp
    def f(x):
        return np_.log1p(np_.exp(x))

    f.defjvps(lambda t, out, x: (1 - 1 / (1 + np_.exp(x))) * t)
    return f


@pytest.mark.parametrize("name", PROGRAMS)
def test_calls(name):
    program = PROGRAMS[name]
    compare(program(tw, tnp, lax), program(jax, jnp, jax.lax), 2e-4, 2e-5)


def test_python_control_flow_on_static_arguments():
    def f(x, n):
        y = 0.0
        for i in range(n):
            y = y + x[i]
        return y

    jaxpr = tw.jit(f, static_argnums=1).lower(X, 3).jaxpr
    assert [e.primitive.name for e in jaxpr.eqns].count("add") == 3
    with pytest.raises(ConcretizationError, match="Make the argument static"):
        tw.make_jaxpr(f)(X, 3)
    named = tw.jit(lambda x, neg: -x if neg else x, static_argnames="neg")
    assert named.lower(X, neg=True).jaxpr.eqns[0].primitive.name == "neg"


def test_arrays_are_immutable():
    with pytest.raises(UnsupportedError, match="immutable"):
        tw.make_jaxpr(lambda x: x.__setitem__(0, 1))(X)


def test_side_effects_happen_while_tracing():
    seen = []
    f = tw.jit(lambda x: seen.append("run") or x * 2)
    for _ in range(2):
        f.lower(X)
    assert seen == ["run", "run"]
    tw.vmap(lambda x: seen.append(x.shape) or x)(INPUTS)
    assert seen[-1] == (3,)


def test_shapes_cannot_depend_on_data():
    with pytest.raises(IndexError, match=r"tnp.where\(mask"):
        tw.jit(lambda x: x[x > 0]).lower(X)


def test_a_known_index_out_of_range_is_an_error_as_in_numpy():
    with pytest.raises(IndexError, match="11 is out of bounds for axis 0 of size 10"):
        tw.jit(lambda x: x[11]).lower(np.arange(10, dtype=np.int32))


def test_functions_take_arrays_not_lists():
    with pytest.raises(TypeError):
        jnp.sum([1, 2])
    with pytest.raises(TypeError, match="list"):
        tnp.sum([1, 2])


def test_nans_are_found():
    with tw.debug_nans(True), pytest.raises(FloatingPointError, match="log"):
        tw.jit(lambda x: tnp.log(x) * 2)(-np.ones(3, np.float32))


def test_make_jaxpr_shows_the_transformed_program():
    jaxpr = tw.make_jaxpr(tw.vmap(tw.grad(lambda x: tnp.sin(x) * 2)))(X)
    assert {str(e.outputs[0].aval) for e in jaxpr.eqns if e.primitive.name == "cos"} == {"f32[5]"}
