"""`tw.explain` and `tw.log_compiles` say what is new in a call, and what became of it."""

import logging

import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp

X = np.ones((4, 6), np.float32)


@pytest.fixture(autouse=True)
def device():
    with tw.default_device(tw.Device("tw4", "functional")) as chosen:
        yield chosen


def test_explain_says_what_is_new():
    f = tw.jit(lambda x, y=None, n=1: x * n, static_argnames="n")
    assert "would be compiled:\n  its first call" in tw.explain(f)(X)
    f(X)
    assert "is compiled already" in tw.explain(f)(X)
    text = tw.explain(f)(X[:2])
    assert "argument 0 is f32[2,6], before f32[4,6]" in text
    assert "argument 0 is bf16[4,6], before f32[4,6]" in tw.explain(f)(X.astype(tnp.bfloat16))
    assert "static values {'n': 3}, before {}" in tw.explain(f)(X, n=3)
    assert "arguments of another structure" in tw.explain(f)(X, X)
    with tw.default_device(tw.Device("tw8", "functional")):
        assert "another chip: tw8, before tw4" in tw.explain(f)(X)
    with tw.default_matmul_precision("highest"):
        assert "default precision 'highest', before 'default'" in tw.explain(f)(X)
    assert f.cache_size() == 1


def test_explain_names_kernels_and_what_is_not_fused():
    text = tw.explain(lambda x: x.sum(0) + 1)(X)
    assert "k0: " in text and "\nnot fused: equation " in text and "reduces rows below" in text
    assert f"DRAM: {X.nbytes:,} bytes of arguments, 24 of results" in text
    assert "nothing was kept apart" in tw.explain(lambda x: x + 1)(X)


def test_compilations_are_logged(caplog):
    f = tw.jit(lambda x: x + 1)
    with caplog.at_level(logging.WARNING, "tilewright"):
        f(X)
        with tw.log_compiles():
            f(X)
            f(X[:3])
    (record,) = caplog.records
    assert "test_explain.py" in record.getMessage()
    assert "argument 0 is f32[3,6], before f32[4,6]" in record.getMessage()
