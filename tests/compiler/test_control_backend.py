"""Loops and branches that the sequencer runs: the bits of eval_jaxpr, on every engine."""

import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax, nn
from tilewright.compiler.core import eval_jaxpr
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.kernels import Loop, Switch, While

RNG = np.random.default_rng(5)
H, W, X = (RNG.standard_normal(s).astype(np.float32) for s in ((5, 7), (7, 7), (6, 5, 7)))
N = RNG.integers(-128, 128, (9, 3), dtype=np.int8)


def recurrent(h, w, xs, n):
    """Weights stay, the state is overwritten, rows go in and out."""

    def step(h, x):
        new = tnp.tanh(h @ w + x)
        return new, (new * 2, new[0])

    return lax.scan(step, h, xs)


def backwards(h, w, xs, n):
    return lax.scan(lambda c, x: (c * 0.5 + x, c - x), h, xs, reverse=True)


def exchanged(h, w, xs, n):
    """Two carried arrays change places, a third one stays, one becomes a constant."""

    def step(i, c):
        a, b, same, last = c
        return b, a + 1, same, tnp.zeros_like(last)

    return lax.fori_loop(0, 7, step, (h, 2 * h, xs[0], h))


def bytes_and_flags(h, w, xs, n):
    def step(c, row):
        total, seen = c
        return (total + row, seen | (row > 100)), total

    return lax.scan(step, (n[0], n[0] > 0), n)


def counted(h, w, xs, n):
    """A number of steps that depends on data."""
    return lax.while_loop(lambda c: c[0].sum() < 900.0, lambda c: (c[0] * 1.5 + w[0], c[1] + 1),
                          (tnp.abs(h), 0))  # fmt: skip


def never(h, w, xs, n):
    return lax.while_loop(lambda v: v.sum() > 1e9, lambda v: v + 1, h)


def nested(h, w, xs, n):
    """A loop of loops that end by data, with a branch inside."""

    def step(c, x):
        def inner(v):
            return lax.cond(v[0, 0] > 1, lambda v: v * 0.5, lambda v: v * 0.25 + x, v)

        c = lax.while_loop(lambda v: abs(v).sum() > 60.0, inner, c * 3)
        return lax.fori_loop(0, 5, lambda i, v: v + x * i, c), c.max()

    return lax.scan(step, h, xs)


def chosen(h, w, xs, n):
    branches = [lambda v: (v, v + 1), lambda v: (v @ w, v), lambda v: (nn.softmax(v), v * 0)]
    index = n[:4, 0].astype(np.int32)
    return [lax.switch(i, branches, h) for i in (index[0], index[1] * 0 + 1, tnp.int32(0))]


def of_another_shape(h, w, xs, n):
    """Rows of a view that has not its buffer's shape."""
    return lax.scan(lambda c, x: (c + x, x * 2), h[0], xs.reshape((30, 7)))


def of_nothing(h, w, xs, n):
    return lax.scan(lambda c, x: (c + x, c), h, xs[:0])


def unchanged(h, w, xs, n):
    """Carries that stay, in other shapes than their buffers'."""
    same, ys = lax.scan(lambda c, x: (c, x + c.sum()), h.reshape((7, 5)), w.reshape((7, 7, 1)))
    row, _ = lax.while_loop(lambda c: c[1] < 3, lambda c: (c[0], c[1] + 1), (n.reshape((27,)), 0))
    return same.T, ys, row[1:]


PROGRAMS = [recurrent, backwards, exchanged, bytes_and_flags, counted, never, nested, chosen,
            of_another_shape, of_nothing, unchanged]  # fmt: skip
ARGUMENTS = (H, W, X, N)


def run(function, chip, engine):
    """Results, what they must be, and the compiled program."""
    with tw.default_device(tw.Device(chip, engine)), tw.profile() as p:
        compiled = tw.jit(function).lower(*ARGUMENTS).compile()
        found = [np.asarray(a) for a in tw.tree.leaves(compiled(*ARGUMENTS))]
    want = eval_jaxpr(compiled.jaxpr, ARGUMENTS, dim=compiled.config.dim)
    return found, want, compiled, p


@pytest.mark.parametrize("chip", ["tw4", "tw8"])
@pytest.mark.parametrize("function", PROGRAMS, ids=lambda f: f.__name__)
def test_control_flow_has_the_bits_of_its_equations(function, chip):
    found, want, _, _ = run(function, chip, "functional")
    for a, b in zip(found, want, strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("function", [recurrent, nested, chosen], ids=lambda f: f.__name__)
def test_control_flow_takes_the_same_cycles_on_the_rtl(function):
    cycle, rtl = (run(function, "tw4", engine) for engine in ("cycle", "rtl"))
    assert [a.tobytes() for a in cycle[0]] == [a.tobytes() for a in rtl[0]]
    assert cycle[3].runs[0].counters == rtl[3].runs[0].counters


@pytest.mark.parametrize(
    "function, kind", [(recurrent, Loop), (counted, While), (chosen, Switch), (never, While)]
)
def test_control_flow_is_not_unrolled(function, kind):
    compiled = tw.jit(function).lower(*ARGUMENTS).compile()
    assert kind in {type(k.source) for k in compiled.back.kernels.kernels}


def test_a_program_does_not_grow_with_its_steps():
    def program(steps):
        return tw.jit(lambda x: lax.fori_loop(0, steps, lambda i, v: v * 0.5 + i, x)).lower(H)

    ten, thousand = (program(n).compile() for n in (10, 1000))
    assert len(ten.program) == len(thousand.program)
    want = np.float64(H)
    for i in range(1000):
        want = want * 0.5 + i
    np.testing.assert_allclose(thousand(H), want, rtol=1e-6)


def test_newton_stops_by_itself():
    root = tw.jit(lambda a: lax.while_loop(lambda s: abs(s * s - a) > 1e-5 * a,
                                           lambda s: 0.5 * (s + a / s), a))  # fmt: skip
    with tw.default_device(tw.Device("tw4", "rtl")):
        for a in (2.0, 3e4):
            assert float(root(a)) == pytest.approx(a**0.5, rel=1e-4)


def test_loops_deeper_than_the_registers_are_refused_by_name():
    def deep(x, n):
        return lax.fori_loop(0, 9, lambda i, v: deep(v, n - 1) if n else v + 1, x)

    assert float(tw.jit(lambda x: deep(x, 3))(0.0)) == 9.0**4
    with pytest.raises(UnsupportedError, match=r"at most 4 loops .*test_control_backend\.py"):
        tw.jit(lambda x: deep(x, 4))(0.0)


def test_listing_and_report_name_the_kernels_inside():
    with tw.default_device(tw.Device("tw4", "cycle")), tw.profile() as p:
        tw.jit(recurrent)(*ARGUMENTS)
    assert "bne" in p.listing() and ".1" in p.report()
