"""Copies before loops: gone where the operand dies there, kept where it is needed."""

import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax
from tilewright.compiler.copies import _moves, without_copies
from tilewright.compiler.core import eval_jaxpr

from tests.compiler.backend_case import jaxpr_of, kernels_of

RNG = np.random.default_rng(4)
X, Y = (RNG.standard_normal((5, 6)).astype(np.float32) for _ in range(2))


def steps(x, n=7):
    return lax.fori_loop(0, n, lambda i, v: tnp.sin(v) + Y, x)


def made_before(x):
    return steps(tnp.cos(x))


def one_after_the_other(x):
    return steps(steps(x * 2) - 1)


def needed_behind(x):
    y = tnp.cos(x)
    return steps(y) + y


def needed_by_what_comes_later(x):
    """A pending element-wise operation reads the operand after the loop."""
    y = x.T @ x
    late = tnp.exp(y)
    return lax.fori_loop(0, 7, lambda i, v: tnp.sin(v) * 2, y), late


def used_twice(x):
    y = tnp.cos(x)
    return lax.fori_loop(0, 6, lambda i, c: (c[1], c[0] + 1), (y, y))


def within(x):
    """The inner loop's operand is made in each step of the outer one."""
    return lax.fori_loop(0, 5, lambda i, v: steps(v @ Y.T @ Y * 0.1), x)


def of_the_carry(x):
    """The inner loop begins with what the outer one carries, which is needed once more."""
    return lax.fori_loop(0, 5, lambda i, v: steps(v) + v, x)


def chosen(x):
    branches = [lambda v: steps(tnp.cos(v)), lambda v: v * 2]
    started = lax.switch((x[0, 0] > 9).astype(tnp.int32), branches, x)
    state = tnp.abs(x), 0
    return started, lax.while_loop(lambda c: c[1] < 3, lambda c: (steps(c[0] + 1), c[1] + 1), state)


COPIES = {  # function -> copies that are left (one of each loop's counter), of how many
    made_before: (1, 2),
    one_after_the_other: (2, 4),
    needed_behind: (2, 2),
    needed_by_what_comes_later: (2, 2),
    used_twice: None,
    within: None,
    of_the_carry: None,
    chosen: None,
}


@pytest.mark.parametrize("function", [f for f, n in COPIES.items() if n])
def test_copies_that_are_left(function):
    program = kernels_of(function, X)
    found = len(_moves(without_copies(program).kernels)), len(_moves(program.kernels))
    assert found == COPIES[function]


@pytest.mark.parametrize("function", COPIES)
def test_bits_stay(function):
    want = eval_jaxpr(jaxpr_of(function, X), [X], dim=4)
    with tw.default_device(tw.Device("tw4", "functional")):
        found = tw.tree.leaves(tw.jit(function)(X))
    for a, b in zip(found, want, strict=True):
        assert np.asarray(a).tobytes() == b.tobytes()


def test_a_donated_state_is_overwritten_by_the_loop():
    """A cache that a loop of decoding steps extends: no copy of it before the loop."""

    def decode(cache, x):
        def step(i, c):
            cache, x = c
            cache = lax.dynamic_update_slice(cache, x[None] * 2, (i, 0))
            return cache, tnp.sin(x + cache.sum(0))

        return lax.fori_loop(0, 6, step, (cache, x))

    cache, x = RNG.standard_normal((64, 6)).astype(np.float32), X[0]
    with tw.default_device(tw.Device("tw4", "functional")):
        plain = tw.jit(decode)
        want = [np.asarray(a).tobytes() for a in plain(cache, x)]
        step = tw.jit(decode, donate_argnums=0)
        compiled = step.lower(cache, x).compile()
        found = compiled.memory_analysis()
        assert found.alias_size_in_bytes == cache.nbytes
        assert found.output_size_in_bytes == x.nbytes
        shapes = [m.out.shape for m in _moves(compiled.back.kernels.kernels)]
        assert cache.shape not in shapes
        placed = tw.device_put(cache)
        address = placed.address
        out = step(placed, x)
        assert out[0].address == address and placed.is_deleted()
        assert [np.asarray(a).tobytes() for a in out] == want
