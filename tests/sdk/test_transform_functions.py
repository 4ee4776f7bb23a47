"""Gradients of whole functions of `nn` and `numpy`, and vmap of them, compared with JAX's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import nn

from tests.compiler.transform_case import compare, normal, on_numpy  # noqa: F401

pytestmark = pytest.mark.usefixtures("on_numpy")
X = normal(1, (3, 4))
NN = ("celu", "elu", "gelu", "glu", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu",
      "log_sigmoid", "log_softmax", "logsumexp", "mish", "relu", "relu6", "selu", "sigmoid", "silu",
      "soft_sign", "softmax", "softplus", "squareplus", "standardize")  # fmt: skip
NUMPY = ("cbrt", "cosh", "cumsum", "diff", "exp2", "expm1", "flip", "hypot", "log10", "log1p",
         "mean", "median", "nanmax", "nansum", "ptp", "ravel", "reciprocal", "roll", "sinc", "sqrt",
         "square", "std", "tan", "trace", "tril", "var")  # fmt: skip
EXTRA = {"roll": (1,), "hypot": (2.0,)}


def gradients(api, np_, functions, x):
    """For each function the gradient of a sum, and gradients of two examples."""
    found = {}
    for name, function in functions.items():
        more = EXTRA.get(name, ())
        gradient = api.grad(lambda x, f=function, more=more: np_.sum(np_.sin(f(x, *more))))
        found[name] = gradient(x), api.vmap(gradient)(np_.stack([x, x + 1]))
    return found


def both(ours, theirs, names, x):
    names = [n for n in names if hasattr(ours, n)]
    assert len(names) > 10
    given = {n: getattr(ours, n) for n in names}, {n: getattr(theirs, n) for n in names}
    wanted = jax.jit(lambda x: gradients(jax, jnp, given[1], x)).lower(x).compile(
        compiler_options={"xla_backend_optimization_level": 0})(x)  # fmt: skip
    compare(gradients(tw, tnp, given[0], x), wanted, 5e-4, 5e-5)


def test_functions_of_nn():
    both(nn, jax.nn, NN, X)


def test_functions_of_numpy():
    both(tnp, jnp, NUMPY, np.abs(X) + np.float32(0.5))


def test_attention():
    q, k, v = (normal(i, (1, 4, 2, 3)) for i in range(3))

    def loss(attend, np_):
        return lambda *a: np_.sum(np_.sin(attend(*a, is_causal=True)))

    with tw.default_matmul_precision("highest"):
        ours = tw.grad(loss(nn.dot_product_attention, tnp), (0, 1, 2))(q, k, v)
    theirs = jax.jit(jax.grad(loss(jax.nn.dot_product_attention, jnp), (0, 1, 2)))(q, k, v)
    compare(ours, theirs, 1e-3, 1e-4)


def test_random_numbers_in_transformations():
    """The bits are Threefry's, as JAX's: of many keys, in a scan (scalars), in a derivative."""

    def program(api, np_, L, random, key):
        draw = lambda k, _: (random.split(k)[0], random.uniform(k, ()))  # noqa: E731
        return (
            api.vmap(lambda k: random.uniform(k, (4,)))(random.split(key, 3)),
            L.scan(draw, key, None, length=3)[1],
            api.grad(lambda x: np_.sum(np_.where(random.bernoulli(key, 0.5, (5,)), x * x, 0.0)))(
                np_.ones((5,), np_.float32)),
        )  # fmt: skip

    ours = program(tw, tnp, tw.lax, tw.random, tw.random.PRNGKey(3))
    theirs = program(jax, jnp, jax.lax, jax.random, jax.random.PRNGKey(3))
    compare(ours, theirs, 0, 0)
