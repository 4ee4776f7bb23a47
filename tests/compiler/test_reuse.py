"""Temporaries that share bytes: what lives is never overwritten, and few bytes are taken."""

import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright import lax
from tilewright.compiler.core import eval_jaxpr
from tilewright.compiler.kernels import Buffer
from tilewright.compiler.reuse import lifetimes, packed, shared
from tilewright.compiler.sync import synchronise
from tilewright.compiler.tile_control import scalar
from tilewright.compiler.tiles import Dram, Op

from tests.compiler.backend_case import compiled, jaxpr_of

RNG = np.random.default_rng(9)
X = RNG.standard_normal((9, 16)).astype(np.float32)
W = [RNG.standard_normal((16, 16)).astype(np.float32) / 4 for _ in range(6)]


def temp(name, size=100):
    return Buffer(name, (size,), np.dtype(np.int8), "temp")


def write(buffer, lo=0, hi=100):
    return Op("store", {}, (), (Dram(buffer, lo, hi),), 0)


def read(buffer, lo=0, hi=100):
    return Op("load", {}, (Dram(buffer, lo, hi),), (), 0)


def deep(x, *ws):
    """Layers whose normalised sums are stored between them."""
    for w in ws:
        x = tnp.tanh(x @ w)
        x = x - tnp.mean(x, axis=0)
    return x


def branches(x, *ws):
    """Loops in loops, a branch, and arrays that live through them."""
    kept = x @ ws[0]

    def step(c, w):
        a = tnp.tanh(c @ w)
        b = lax.cond(a.sum() > 0, lambda v: tnp.sin(v) @ w, lambda v: (v @ w) @ w, a)
        c = lax.while_loop(lambda v: abs(v).sum() > 9.0, lambda v: tnp.flip(v @ w, 0) * 0.1, b)
        return c, lax.fori_loop(0, 5, lambda i, v: (v @ w) @ w, c - a)

    c, ys = lax.scan(step, x, tnp.stack([*ws, *ws]))
    return kept + c, ys.sum(0) @ ws[1]


def test_what_is_read_last_before_may_be_overwritten():
    a, b, c = map(temp, "abc")
    ops = [write(a), read(a), write(b), read(b), write(c), read(c)]
    assert lifetimes(ops) == {a: (0, 1), b: (2, 3), c: (4, 5)}
    found = shared(ops)
    assert (found.whole.nbytes, found.least) == (128, 100)
    assert found.before == {b: (a,), c: (b,)}


def test_results_have_memory_of_their_own():
    a, out = temp("a"), temp("out")
    assert list(lifetimes([write(a), read(a), write(out)], {out})) == [a]


@pytest.mark.parametrize("outside", ["before", "behind", "neither"])
def test_what_is_touched_around_a_loop_lives_through_it(outside):
    a, b = temp("a"), temp("b")
    body = [scalar("label", 0, id=0), write(b), read(b), read(a), scalar("bne", 0, target=0)]
    ops = {"before": [write(a), *body], "behind": [*body, read(a)], "neither": body}[outside]
    spans = lifetimes([*ops, write(temp("c"))])
    at = ops.index(body[0])
    first, last = spans[a]
    assert first <= at and last >= at + 4  # `neither`: it is read before it is written
    assert spans[b] == (at + 1, at + 2)


def test_the_first_write_waits_for_the_last_read_of_what_was_there():
    a, b = temp("a"), temp("b")
    ops = [write(a), read(a, 0, 50), read(a, 50, 100), write(b, 60, 70), write(b, 0, 60)]
    synchronise(ops, None, shared(ops).before)
    assert ops[2].sync["done_en"] and "done_en" not in ops[1].sync
    assert ops[3].sync["wait0_n"] and "wait0_n" not in ops[4].sync


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9), st.integers(1, 50)), min_size=1))
def test_packed_arrays_that_live_together_do_not_overlap(drawn):
    spans, sizes = [(a, a + n) for a, n, _ in drawn], [64 * n for *_, n in drawn]
    found = packed(spans, sizes)
    owner = {}
    for i, (first, last) in enumerate(spans):
        for time in range(first, last + 1):
            for unit in range(found[i] // 64, (found[i] + sizes[i]) // 64):
                assert owner.setdefault((time, unit), i) == i
    alive = [sum(n for (a, b), n in zip(spans, sizes, strict=True) if a <= t <= b)
             for t in range(41)]  # fmt: skip
    assert max(a + n for a, n in zip(found, sizes, strict=True)) <= 1.5 * max(alive) + 64


@pytest.mark.parametrize("function", [deep, branches])
def test_every_read_finds_what_its_own_temporary_was_given(function):
    """Each byte's last writer, in the order of the program, bodies of loops twice."""
    back = compiled(function, X, *W)
    assert 0 < back.temps.least <= back.temps.whole.nbytes <= 1.2 * back.temps.least
    owner = np.zeros(back.temps.whole.nbytes, np.int64)
    numbers = {b: i for i, b in enumerate(back.temps.offsets, 1)}
    ops, at, jumped = back.tiles.ops, 0, set()
    labels = {op.fields["id"]: n for n, op in enumerate(ops) if op.name == "label"}
    reads = 0
    while at < len(ops):
        op = ops[at]
        places = [(p, False) for p in op.reads] + [(p, True) for p in op.writes]
        for place, writes in places:
            start = back.temps.offsets.get(getattr(place, "buffer", None))
            if start is None:
                continue
            part = owner[start + place.lo : start + place.hi]
            if op.register is not None:  # another row in each step
                part = owner[start : start + place.buffer.nbytes]
            if writes:
                part[:] = numbers[place.buffer]
            else:
                assert (part == numbers[place.buffer]).all(), op
                reads += 1
        target = labels.get(op.fields.get("target"), at + 1)
        back_again = target <= at and at not in jumped
        if back_again:
            jumped.add(at)
        at = target if back_again else at + 1
    assert reads > 20


@pytest.mark.parametrize("function", [deep, branches])
def test_shared_bytes_change_no_bits_on_any_engine(function):
    jaxpr = jaxpr_of(function, X, *W)
    want = [a.tobytes() for a in eval_jaxpr(jaxpr, [X, *W], dim=4)]
    for engine in ("functional", "cycle", "rtl"):
        with tw.default_device(tw.Device("tw4", engine)):
            found = tw.tree.leaves(tw.jit(function)(X, *W))
        assert [np.asarray(a).tobytes() for a in found] == want


def test_depth_costs_no_memory():
    def temps(count):
        ws = [W[0] + i for i in range(count)]
        return tw.jit(deep).lower(X, *ws).compile().memory_analysis().temp_size_in_bytes

    assert 0 < temps(12) == temps(6) <= 3 * X.nbytes


def test_a_saved_program_has_one_place_for_all_temporaries(tmp_path):
    step = tw.jit(deep).lower(X, *W).compile()
    step.save(tmp_path / "deep.tw")
    loaded = tw.load(tmp_path / "deep.tw")
    (place,) = [p for p in loaded.program.places if p.name == "temps"]
    assert place.size == step.memory_analysis().temp_size_in_bytes
    got = loaded(X, *W, engine="functional")
    assert got.tobytes() == np.asarray(step(X, *W)).tobytes()
