"""The order of kernels: dependencies hold, and what is read last is read early."""

import numpy as np
import tilewright as tw
import tilewright.numpy as tnp
from tilewright.compiler.fuse import fuse
from tilewright.compiler.kernels import operands_of
from tilewright.compiler.order import _edges, by_equation, ordered, peak
from tilewright.compiler.simplify import simplify
from tilewright.compiler.unroll import unroll
from tilewright.isa.config import parse_config

from tests.compiler.backend_case import jaxpr_of

X = np.ones((40, 16), np.float32)
WS = [np.ones((16, 16), np.float32) for _ in range(8)]


def kernels_of(function, *args):
    return fuse(simplify(unroll(jaxpr_of(function, *args))), parse_config("tw4"))


def gradients(x, *ws):
    """Contractions that only the caller wants, of arrays that are made on the way."""

    def loss(ws):
        y = x
        for w in ws:
            y = tw.checkpoint(lambda y, w=w: y + tnp.sin(tnp.tanh(y @ w) @ w))(y)
        return (y * y).sum()

    return tw.grad(loss)(ws)


def test_gradients_of_weights_come_when_their_operands_are_there():
    program = kernels_of(gradients, X, *WS)
    before, after = peak(program.kernels), peak(ordered(program).kernels)
    kept = len(WS) * X.nbytes  # in the forward pass; the backward pass needs a few at a time
    assert kept / 2 <= after <= 2 * kept and after <= 0.7 * before


def test_kernels_that_depend_on_each_other_keep_their_order():
    program = kernels_of(gradients, X, *WS)
    kernels = by_equation(program.kernels)
    assert sorted(map(id, kernels)) == sorted(map(id, program.kernels))
    place = {k: n for n, k in enumerate(kernels)}
    for early, late in _edges(program.kernels):
        assert place[program.kernels[early]] < place[program.kernels[late]]
    written = set()
    for kernel in kernels:
        read = {v.buffer for v in operands_of(kernel)}
        assert all(b in written for b in read if b.kind == "temp")
        written |= set(kernel.outs)


def test_the_order_stays_where_it_saves_little():
    program = kernels_of(lambda x, w: tnp.sin(x @ w) @ w, X, WS[0])
    assert ordered(program) is program


def test_peak_counts_what_lives_at_once():
    program = kernels_of(lambda x, w: tnp.sin(tnp.sin(x @ w) @ w).T @ x, X, WS[0])
    sizes = [k.out.nbytes for k in program.kernels if k.out.kind == "temp"]
    assert max(sizes) <= peak(program.kernels) <= sum(sizes)
