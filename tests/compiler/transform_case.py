"""What the tests of transformations share: a function under each of them, here and in JAX."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from tilewright import autodiff, mapping
from tilewright.compiler import trace, tree
from tilewright.compiler.core import FLOATS, eval_jaxpr

OURS = SimpleNamespace(jvp=autodiff.jvp, vjp=autodiff.vjp)
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@pytest.fixture
def on_numpy(monkeypatch):
    """Operations outside of a trace are NumPy's work: the functions are tested, not the chip."""
    monkeypatch.setattr(trace, "eager_hook", lambda *a: trace.eval_eagerly(*a))
    monkeypatch.setattr(trace, "asarray_hook", lambda *a: trace.asarray_unchanged(*a))


def normal(seed, shape, low=None, high=None):
    """Return float32 numbers, normal or (with bounds) uniform."""
    rng = np.random.default_rng(seed)
    if low is None:
        return rng.normal(size=shape).astype(np.float32)
    return rng.uniform(low, high, shape).astype(np.float32)


def derivatives(api, f, args, tangents, ct):
    """Return f's value, jvp and vjp, and its second orders."""

    def pull(*a):
        return api.vjp(f, *a)[1](ct)

    return {
        "jvp": api.jvp(f, args, tangents),
        "vjp": pull(*args),
        "forward over reverse": api.jvp(pull, args, tangents)[1],
        "reverse over reverse": api.vjp(pull, *args)[1](tangents),
        "reverse over forward": api.vjp(lambda *a: api.jvp(f, a, tangents)[1], *args)[1](ct),
    }


def batches(f, args, tangents, cts, axes, shared):
    """Return vmap of f's jvp and vjp, and vjp and jvp of its vmap.

    Parameters
    ----------
    args, axes : for some examples, and what counts them.
    shared : the arguments of one example, of which all but the first are shared.
    """
    one = tuple(0 if i == 0 else None for i in range(len(args)))

    def pull(ct, *a):
        return autodiff.vjp(f, *a)[1](ct)

    def push(*a):
        return autodiff.jvp(f, a, tangents)

    mixed = (args[0], *shared[1:])
    first = mapping.vmap(lambda a: tangents[0])(args[0])
    return {
        "vmap jvp": mapping.vmap(push, axes)(*args),
        "vmap vjp": mapping.vmap(pull, (0, *axes))(cts, *args),
        "vmap vjp, shared": mapping.vmap(pull, (0, *one))(cts, *mixed),
        "vjp vmap": autodiff.vjp(mapping.vmap(f, axes), *args)[1](cts),
        "jvp vmap, shared": autodiff.jvp(mapping.vmap(f, one), mixed, (first, *tangents[1:])),
    }


def wanted_batches(run, args, tangents, cts, axes, shared):
    """Return the values of `batches`, from `derivatives` of one example at a time."""

    def example(i, axes, args):
        return tuple(a if d is None else np.take(a, i, d) for a, d in zip(args, axes, strict=True))

    def stacked(values, axes=None):
        columns = list(zip(*map(tree.leaves, values), strict=True))
        places = axes or [0] * len(columns)
        return [np.stack(leaf, d) for leaf, d in zip(columns, places, strict=True)]

    one = tuple(0 if i == 0 else None for i in range(len(args)))
    each = [run(example(i, axes, args), tangents, ct) for i, ct in enumerate(cts)]
    mixed = (args[0], *shared[1:])
    some = [run(example(i, one, mixed), tangents, ct) for i, ct in enumerate(cts)]
    return {
        "vmap jvp": stacked([e["jvp"] for e in each]),
        "vmap vjp": stacked([e["vjp"] for e in each]),
        "vmap vjp, shared": stacked([e["vjp"] for e in some]),
        "vjp vmap": stacked([e["vjp"] for e in each], axes),
        "jvp vmap, shared": stacked([e["jvp"] for e in some]),
    }


def compare(ours, theirs, rtol, atol):
    """Check two trees of arrays, leaf by leaf."""
    found, found_tree = tree.flatten_with_path(ours)
    wanted = tree.leaves(theirs)
    assert len(found) == len(wanted), found_tree
    for (path, a), b in zip(found, map(np.asarray, wanted), strict=True):
        where, a = tree.keystr(path), np.asarray(a)
        if b.dtype == jax.dtypes.float0:
            assert a.dtype == autodiff.float0, where
            continue
        assert (a.dtype, a.shape) == (b.dtype, b.shape), where
        wide = np.float64 if a.dtype in FLOATS else a.dtype
        np.testing.assert_allclose(a.astype(wide), b.astype(wide), rtol, atol, err_msg=where)


def check_everything(ours, theirs, args, rtol=2e-4, atol=2e-5):
    """Compare a function's derivatives and batches with JAX's, run at once and traced first."""
    shape = jax.eval_shape(theirs, *args).shape
    tangents = tuple(normal(50 + i, a.shape) for i, a in enumerate(args))
    cts = normal(60, (2, *shape))
    given = args, tangents, cts[0]
    lowered = jax.jit(lambda *a: derivatives(jax, theirs, *a)).lower(*given)
    run = lowered.compile(compiler_options=QUICKLY)
    axes = tuple(0 if i == 0 else -1 for i in range(len(args)))
    many = tuple(
        np.stack([a, np.roll(a, 1).astype(a.dtype)], d) for a, d in zip(args, axes, strict=True)
    )
    batch = many, tangents, cts
    wanted = [run(*given), wanted_batches(run, *batch, axes, args)]

    def found(given, batch):
        return derivatives(OURS, ours, *given), batches(ours, *batch, axes, args)

    compare(found(given, batch), wanted, rtol, atol)
    leaves, in_tree = tree.flatten(((given, batch), {}))
    jaxpr, out_tree = trace.trace_to_jaxpr(found, list(map(trace.aval_of, leaves)), in_tree)
    compare(tree.unflatten(out_tree, eval_jaxpr(jaxpr, leaves)), wanted, rtol, atol)
