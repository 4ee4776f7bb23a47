"""A contraction and a kernel of VECTOR side by side: same bits, legal, and less time."""

from itertools import pairwise

import numpy as np
import pytest
import tilewright.numpy as tnp
from tilewright import sim
from tilewright.compiler.donate import donate
from tilewright.compiler.emit import compile_kernels
from tilewright.compiler.fuse import fuse
from tilewright.compiler.schedule import A_BANKS
from tilewright.compiler.share import moved, share, whole
from tilewright.compiler.simplify import simplify
from tilewright.compiler.tile_vector import tile_vector
from tilewright.compiler.tiles import Local, Plan
from tilewright.compiler.weave import groups, woven
from tilewright.isa.config import parse_config
from tilewright.isa.table import Mem
from tilewright.sim import checker
from tilewright.sim.cycle import time_program

from tests.compiler.backend_case import BF16, F32, array, assert_same_bits, compiled, jaxpr_of


def softmax(s):
    e = tnp.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(x, wq, wk, wv):
    """One head; the values' product depends on nothing of the softmax."""
    return softmax((x @ wq) @ (x @ wk).T) @ (x @ wv)


def arguments(m, k, n):
    rng = np.random.default_rng(m)
    x, *w = [array(rng, s, BF16) for s in [(m, k), (k, n), (k, n), (k, n)]]
    return [x.astype(F32), *((a.astype(F32) * 0.1).astype(BF16) for a in w)]


@pytest.mark.parametrize("config, sizes", [("tw4", (37, 70, 50)), ("tw8", (60, 100, 120))])
def test_weave_keeps_bits_and_takes_less_time(config, sizes, monkeypatch):
    args = arguments(*sizes)
    back = assert_same_bits(attention, *args, config=config)
    assert any("beside" in text for text in back.tiles.schedules), back.tiles.schedules
    numbers = [op.kernel for op in back.tiles.ops]
    changes = sum(a != b for a, b in pairwise(numbers))
    assert changes > 2 * len(back.kernels.kernels)  # they take turns
    monkeypatch.setattr("tilewright.compiler.tile_program.groups", lambda *a: [])
    plain = compiled(attention, *args, config=config)
    cycles = [time_program(b.config, b.program.code).cycles for b in (back, plain)]
    assert cycles[0] < cycles[1], cycles


def test_weave_does_not_move_what_is_needed_in_between():
    """The only contraction beside the softmax is the one that it reads, or one that reads it."""
    x, w, *_ = arguments(37, 70, 50)
    back = assert_same_bits(lambda x, w: softmax(x @ w) @ w.T, x, w, config="tw4")
    assert not groups(back.config, back.kernels.kernels)


def test_weave_given_schedules_are_kept():
    args = arguments(37, 70, 50)
    back = compiled(attention, *args, config="tw4")
    assert groups(back.config, back.kernels.kernels)
    from tilewright.compiler.schedule import Schedule

    again = compile_kernels(back.config, back.kernels, {0: Schedule(8, 8, 16)})
    assert not any("beside" in text for text in again.tiles.schedules)


def test_share_has_banks_of_the_chip():
    config = parse_config("tw16")
    some = share(config, 6, 7)
    assert (some.acc_rows, some.spad_granules) == (768, 7 * config.spad_bank)
    assert some.spad_bank == config.spad_bank and whole(some) == config and whole(config) == config


def test_share_moves_every_place():
    back = compiled(lambda x, w: softmax(x @ w), *arguments(37, 70, 50)[:2], config="tw4")
    (number,) = [n for n, k in enumerate(back.kernels.kernels) if "reduce" in str(k.source)]
    part = share(back.config, 4, 4)
    ops, _ = tile_vector(Plan(part, A_BANKS), back.kernels.kernels[number], number)
    by = {Mem.ACC: part.acc_rows, Mem.SPAD: part.spad_granules}
    for old, new in zip(ops, moved(ops, *(by[m] for m in (Mem.ACC, Mem.SPAD))), strict=True):
        for a, b in zip((*old.reads, *old.writes), (*new.reads, *new.writes), strict=True):
            if isinstance(a, Local):
                assert (b.lo - a.lo, b.hi - a.hi) == (by[a.mem], by[a.mem])
            else:
                assert a == b


def test_woven_keeps_each_order_and_reads_what_was_written():
    back = compiled(attention, *arguments(37, 70, 50), config="tw4")
    ops = back.tiles.ops
    streams = [[op for op in ops if op.kernel % 2 == n] for n in (0, 1)]
    merged = woven(back.config, *streams)
    for stream in streams:
        own = {id(op) for op in stream}
        assert [op for op in merged if id(op) in own] == stream
    seen = {}
    for at, op in enumerate(merged):
        for place in op.writes:
            if not isinstance(place, Local):
                seen[place.buffer] = at
    for at, op in enumerate(merged):
        for place in op.reads:
            if not isinstance(place, Local) and place.buffer in seen:
                writers = [w for w in ops for p in w.writes
                           if not isinstance(p, Local) and p.buffer is place.buffer
                           and p.meets(place)]  # fmt: skip
                assert all(merged.index(w) < at for w in writers)


@pytest.mark.parametrize("config", ["tw4", "tw8"])
def test_weave_a_normalisation_between_two_contractions(config, monkeypatch):
    """Rows are normalised under the products that make them and that take them."""
    rng = np.random.default_rng(3)
    x, w, v = array(rng, (100, 130), F32), array(rng, (130, 24), BF16), array(rng, (24, 200), BF16)
    g = array(rng, (24,), F32)

    def f(x, w, v, g):
        y = x @ w
        c = y - y.mean(-1, keepdims=True)
        return (c / tnp.sqrt((c * c).mean(-1, keepdims=True) + 1e-3) * g) @ v

    back = assert_same_bits(f, x, w, v, g, config=config)
    (group,) = groups(back.config, back.kernels.kernels)
    assert sorted(group.texts) == [0, 1, 2]
    monkeypatch.setattr("tilewright.compiler.tile_program.groups", lambda *a: [])
    plain = compiled(f, x, w, v, g, config=config)
    cycles = [time_program(b.config, b.program.code).cycles for b in (back, plain)]
    assert cycles[0] < cycles[1], cycles


def test_weave_leaves_what_overwrites_a_donated_argument_in_its_place():
    """The result of the softmax takes the place of what the other product reads."""
    rng = np.random.default_rng(5)
    x, s = array(rng, (60, 100), F32), array(rng, (60, 120), F32)
    w, v = array(rng, (120, 100), BF16), array(rng, (60, 120), F32)

    def f(s, v, w, x):
        return v @ w, softmax(s + v), x @ w.T

    chip = parse_config("tw8")
    kernels = donate(fuse(simplify(jaxpr_of(f, s, v, w, x)), chip), (1,))
    assert kernels.outputs[1] is kernels.inputs[1]
    for group in groups(chip, kernels.kernels):
        assert 0 not in group.texts, group.texts
    back = compile_kernels(chip, kernels)
    checker.check(back.program, sim.load_memory(back.program)).require()
