"""`tw.profile()`: figures against hand-counted work, and what it collects."""

import json

import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp

X = np.ones((32, 24), np.int8)
W = np.ones((24, 8), np.int8)


@tw.jit
def product(x, w):
    return tnp.matmul(x, w, preferred_element_type=np.int32)


@pytest.fixture(autouse=True)
def device():
    with tw.default_device(tw.Device("tw4", "cycle")) as chosen:
        yield chosen


def test_figures():
    with tw.profile() as p:
        product(X, W)
    macs = 32 * 24 * 8
    assert p.macs == macs
    assert p.utilisation == macs / (4**2 * p.cycles)
    # one beat is 4 bytes; the bound is the writes' (32 x 8 words) or the array's
    bound = max(macs / 16, 32 * 8)
    assert p.roofline_utilisation == bound / p.cycles
    assert 0 < p.utilisation <= p.roofline_utilisation <= 1


def test_collects_only_what_starts_inside_and_waits():
    product(X, W)
    with tw.profile() as outer:
        product(X, W)
        with tw.profile() as inner:
            product(X, W)
            product(X, W)
        product(X, W)
    product(X, W)
    assert (len(outer.runs), len(inner.runs)) == (4, 2)
    assert {r.name for r in outer.runs} == {"product"}
    assert all("test_profile.py" in r.call for r in outer.runs)
    assert outer.cycles == 2 * inner.cycles


def test_engine_without_a_clock_is_refused():
    with tw.default_device(tw.Device("tw4", "functional")), tw.profile() as p:
        product(X, W)
    assert p.macs == 32 * 24 * 8
    for ask in (lambda: p.cycles, lambda: p.utilisation, p.report):
        with pytest.raises(ValueError, match="needs an engine with a clock: product ran on"):
            ask()


def test_empty_profile():
    with tw.profile() as p:
        pass
    assert (p.cycles, p.macs, p.utilisation, p.roofline_utilisation) == (0, 0, 0, 0)
    assert "no program ran" in p.report()


def test_error_of_a_run_is_raised_at_the_end(monkeypatch):
    from tilewright import runs

    def broken(*args, **kwargs):
        raise RuntimeError("the engine broke")

    monkeypatch.setattr(runs.sim, "run", broken)
    with pytest.raises(RuntimeError, match="the engine broke"), tw.profile():
        product(X, W)


def test_json():
    with tw.profile() as p:
        product(X, W)
        product(X, W)
    found = json.loads(p.to_json())
    assert found["cycles"] == p.cycles
    (program,) = found["programs"]
    assert (program["runs"], program["macs"]) == (2, 32 * 24 * 8)
    for unit in program["units"].values():
        assert sum(unit.values()) == program["cycles"]


def test_saved_page_stands_alone(tmp_path):
    with tw.profile() as p:
        product(X, W)
    p.save(tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text()
    assert "<title>Tilewright: product</title>" in page
    assert "://" not in page
    p.timeline(tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_loaded_programs_are_collected(tmp_path):
    product.lower(X, W).compile().save(tmp_path / "p.tw")
    with tw.profile() as p:
        tw.load(tmp_path / "p.tw")(X, W, engine="cycle")
    assert [r.name for r in p.runs] == ["product"]
