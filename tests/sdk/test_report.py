"""The report: cycles sum up, kernels are cut without loss, losses are named, text is plain."""

import dataclasses

import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from hypothesis import given
from hypothesis import strategies as st
from tilewright import lax
from tilewright.analysis import analyse, analyse_all, shares
from tilewright.html_data import page_data
from tilewright.isa.table import Unit
from tilewright.report import losses, report_text
from tilewright.timeline import figure, zoom_window

RNG = np.random.default_rng(3)


@tw.jit
def two_layers(x, w1, b1, w2):
    return tnp.maximum(x @ w1 + b1, 0) @ w2


@pytest.fixture(scope="module")
def profile():
    args = [RNG.standard_normal(s).astype(np.float32) for s in [(19, 13), (13, 21), 21, (21, 6)]]
    with tw.default_device(tw.Device("tw4", "cycle")), tw.profile() as p:
        two_layers(*args)
        two_layers(*args)
    return p


def test_a_kernel_of_many_operations_is_limited_by_the_vector_unit():
    x = np.linspace(-3, 3, 700, dtype=np.float32)
    with tw.default_device(tw.Device("tw4", "cycle")), tw.profile() as p:
        tw.jit(tnp.tanh)(x)
    run = p.runs[0]
    (kernel,) = analyse(run).kernels
    assert (kernel.limit, kernel.bound) == ("vector", run.counters["vector_issuing"])
    assert kernel.bound > 700  # a beat has one element, an operation takes a slot for four


def test_kernels_sum_to_the_run(profile):
    run = profile.runs[0]
    found = analyse(run)
    assert [k.name for k in found.kernels] == ["k0", "k1"]
    assert sum(k.cycles for k in found.kernels) == found.total.cycles == run.cycles
    assert [k.macs for k in found.kernels] == [19 * 13 * 21, 19 * 21 * 6]
    for name in ("beats_read", "beats_written", "macs_useful", "macs_padding"):
        assert sum(k.counters[name] for k in found.kernels) == run.counters[name]
    for part in (*found.kernels, found.total):
        for causes in part.causes.values():
            assert sum(causes.values()) == part.cycles
        assert sum(part.array().values()) == pytest.approx(part.cycles)
        assert part.utilisation <= 1


def test_causes_are_the_engines_counters(profile):
    run = profile.runs[0]
    for unit, causes in analyse(run).total.causes.items():
        counted = {c: run.counters[f"{unit.name.lower()}_{c}"] for c in causes}
        assert causes == counted


def test_another_course_is_refused(profile):
    run = dataclasses.replace(profile.runs[0], cycles=1)
    with pytest.raises(ValueError, match="two_layers took 1 cycles on the cycle engine, but"):
        analyse(run)


def test_equal_runs_are_shown_once(profile):
    found = analyse_all(profile.runs)
    assert [a.count for a in found] == [len(profile.runs)]


def test_losses_are_named_largest_first(profile):
    found = losses(analyse(profile.runs[0]).total)
    assert [c for _, c, _ in found] == sorted((c for _, c, _ in found), reverse=True)
    meanings = {name: meaning for name, _, meaning in found}
    assert meanings["semaphore"] == "waiting for LOAD and STORE"
    assert "dim" in meanings["padding"]  # 13, 21 and 6 are no multiples of 4


def test_text_names_everything(profile):
    text = report_text(profile)
    for word in ("two_layers", "test_report.py", "k0", "k1", "total", "MATMUL", "semaphore"):
        assert word in text
    assert text.count("100.0") == 9  # three units of two kernels and the total
    assert f"{profile.cycles:,}" in text
    assert max(map(len, text.splitlines())) <= 100


def test_colour_only_where_it_is_wanted(profile, monkeypatch):
    assert "\x1b" not in report_text(profile)
    assert "\x1b" in report_text(profile, color=True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert "\x1b" not in report_text(profile)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
def test_shares_sum_to_exactly_100(values):
    found = shares(values)
    assert round(sum(found), 6) == (100 if any(values) else 0)
    for share, value in zip(found, values, strict=True):
        assert abs(share - 100 * value / (sum(values) or 1)) < 0.1001


def test_timeline_has_a_whole_and_a_part(profile):
    fig = figure(profile.runs)
    whole, part = fig.axes
    assert [t.get_text() for t in whole.get_yticklabels()] == ["SEQ", "LOAD", "MATMUL", "STORE"]
    assert whole.get_xlim() == (0, profile.runs[0].cycles)
    assert part.get_xlabel() == "cycle"
    labels = [t.get_text() for t in whole.get_legend().get_texts()]
    assert [label.split()[0] for label in labels] == ["k0", "k1", "halt"]
    assert all("test_report.py:" in label for label in labels[:2])
    low, high = zoom_window(profile.runs[0])
    assert 0 <= low < high <= profile.runs[0].cycles


def test_timeline_draws_each_instruction(profile):
    run = profile.runs[0]
    _, part = figure([run]).axes
    low, high = zoom_window(run)
    drawn = sum(len(c.get_paths()) for c in part.collections)
    trace = run.trace
    inside = (trace["start"] < high) & (trace["end"] >= low) & (trace["start"] >= 0)
    assert drawn == int(inside.sum())
    assert int(Unit.SEQ) in trace["unit"]


@tw.jit
def newton(x):
    def body(c):
        i, y = c
        twice = lax.cond(i % 2 == 0, lambda y: y + x / y, lambda y: 2 * y - (y * y - x) / y, y)
        y = 0.5 * twice
        return i + 1, y

    return lax.while_loop(lambda c: tnp.abs(c[1] * c[1] - x) > 1e-3, body, (0, x))


def test_data_decide_the_course():
    """Also on the RTL: the same parts; each step of a loop and each branch that ran counts."""
    found = {}
    for engine in ("cycle", "rtl"):
        with tw.default_device(tw.Device("tw4", engine)), tw.profile() as p:
            steps = [int(newton(np.float32(x))[0]) for x in (2, 300)]
        assert 2 < steps[0] < steps[1]
        runs = p.runs
        found[engine] = [analyse(run) for run in runs]
        for run, parts in zip(runs, found[engine], strict=True):
            assert sum(k.cycles for k in parts.kernels) == parts.total.cycles == run.cycles
            for unit, causes in parts.total.causes.items():
                counted = {c: run.counters[f"{unit.name.lower()}_{c}"] for c in causes}
                assert causes == counted
            for part in parts.kernels:
                assert all(sum(c.values()) == part.cycles for c in part.causes.values())
        assert "newton" in report_text(p, 100) and len(page_data(found[engine])["runs"]) == 2
    assert [a.kernels for a in found["cycle"]] == [a.kernels for a in found["rtl"]]
    assert all("test_report.py" in k.line for a in found["cycle"] for k in a.kernels)
    few, many = ({k.name: k.cycles for k in a.kernels} for a in found["cycle"])
    assert few.keys() == many.keys() and all(few[k] <= many[k] for k in few)


def test_kernels_of_a_loop_share_its_steps():
    def f(xs):
        return lax.scan(lambda c, x: (tnp.tanh(c + x), c.sum()), xs[0], xs)

    with tw.default_device(tw.Device("tw4", "cycle")), tw.profile() as p:
        for n in (6, 12):
            tw.jit(f)(np.ones((n, 40), np.float32))
    few, many = (analyse(run).kernels for run in p.runs)
    shares_of = [max(k.cycles for k in ks) / sum(k.cycles for k in ks) for ks in (few, many)]
    assert shares_of[0] == pytest.approx(shares_of[1], rel=0.1)
    inner = [k for k in many if "." in k.name]
    assert len(inner) >= 2 and min(k.cycles for k in inner) > 12


def test_runs_of_different_courses_are_not_one():
    with tw.default_device(tw.Device("tw4", "cycle")), tw.profile() as p:
        for x in (2, 300, 2):
            newton(np.float32(x))
    assert [a.count for a in analyse_all(p.runs)] == [2, 1]
