"""`tw.debug_nans`: calls whose results hold NaN are errors that name who made it."""

import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax

X = np.array([4.0, -1.0, 9.0], np.float32)


@pytest.fixture(autouse=True)
def small_chip():
    with tw.default_device(tw.Device("tw4", "functional")):
        yield


def fails(f, *args, match):
    """The message of the error of ``f(*args)``; without the setting there is none."""
    f(*args)
    with tw.debug_nans(), pytest.raises(FloatingPointError, match=match) as caught:
        f(*args)
    return str(caught.value)


def line(function, n):
    return f"test_nans.py:{function.__code__.co_firstlineno + n} "


def test_the_equation_and_its_line():
    def f(x):
        y = x * 2
        z = tnp.log(y)
        return y, z + 1

    text = fails(tw.jit(f), X, match=r"result 1 \(f32\[3\]\) of f, called at .*test_nans.py")
    assert "made by log(f32[3]) at" in text and line(f, 2) in text
    assert text.endswith("first at [1], of -2.0")


def test_several_operands():
    def f(x, y):
        return (x / y).sum()

    text = fails(tw.jit(f), X * 0, np.float32(0), match=r"made by div\(f32\[3\], ~?f32\[")
    assert line(f, 1) in text and text.endswith("first at [0], of 0.0, 0.0")


def test_operations_that_run_at_once():
    x = tw.device_put(X)
    text = fails(tnp.sqrt, x, match=r"made by sqrt\(f32\[3\]\)")
    assert "test_nans.py" in text
    with tw.debug_nans(), tw.debug_nans(False):
        assert np.isnan(np.asarray(tnp.sqrt(x))[1])


def test_derivatives():
    """The derivative of a root of 0 is infinite, and times 0 it is none."""
    def f(x):
        return tnp.sum(tnp.sqrt(x) * 0)

    text = fails(tw.jit(tw.grad(f)), np.zeros(2, np.float32), match="made by mul|made by div")
    assert line(f, 1) in text
    fails(tw.grad(f), np.zeros(2, np.float32), match="made by")


def test_loops_and_branches():
    def f(x):
        def body(i, x):
            return lax.cond(i == 5, lambda x: tnp.log(x), lambda x: x - 1, x)

        return lax.fori_loop(0, 7, body, x)

    text = fails(tw.jit(f), X[0], match=r"made by log\(f32\[\]\)")
    assert line(f, 2) in text and text.endswith("of -1.0")

    def g(x):
        return lax.while_loop(lambda x: x > -3, lambda x: tnp.sqrt(x) - 3, x)

    assert line(g, 1) in fails(tw.jit(g), X[0], match="made by sqrt")


def test_a_nan_that_was_given():
    x = np.array([1, np.nan], np.float32)
    fails(tw.jit(lambda a, b: a + b), X[:2], x, match="leaf 1 of its arguments")
    fails(tw.jit(lambda a: a + x), X[:2], match="closes over")


def test_what_is_masked_is_no_error():
    def f(x):
        return tnp.where(x > 0, tnp.log(x), 0), x > 0

    with tw.debug_nans():
        np.testing.assert_allclose(tw.jit(f)(X)[0], [np.log(4), 0, np.log(9)], rtol=1e-5)


def test_a_donated_argument_and_prints(capsys):
    def f(x):
        tw.debug.print("{}", x)
        return tnp.log(x)

    with tw.debug_nans(), pytest.raises(FloatingPointError, match="made by log"):
        tw.jit(f, donate_argnums=0)(tw.device_put(X))
    assert capsys.readouterr().out == f"{X}\n"


def test_bfloat16():
    fails(tw.jit(lambda x: tnp.log(x)), X.astype("bfloat16"), match=r"log\(bf16\[3\]\)")


def test_settings():
    f = tw.jit(lambda x: tnp.log(x))
    try:
        tw.config.update("jax_debug_nans", True)
        assert tw.settings.debug_nans
        with pytest.raises(FloatingPointError):
            f(X)
        tw.config.update("debug_nans", False)
        f(X)
    finally:
        tw.settings.debug_nans = False
    with pytest.raises(ValueError, match="must be one of check_programs, debug_nans, not 'x64'"):
        tw.config.update("x64", True)
