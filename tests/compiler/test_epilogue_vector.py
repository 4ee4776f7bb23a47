"""VECTOR computes on a contraction's sums in place: one kernel with the bits of eval_jaxpr."""

from math import erf

import numpy as np
import pytest
import tilewright.lax as lax
import tilewright.numpy as tnp
from tilewright import nn, sim
from tilewright.compiler.kernels import Contract, Lanes
from tilewright.compiler.schedule import Schedule
from tilewright.sim.cycle import time_program

from tests.compiler.backend_case import (
    BF16,
    CONFIGS,
    F32,
    I8,
    I32,
    array,
    assert_same_bits,
    compiled,
    execute,
)

EPILOGUES = {
    "gelu": lambda x, w, b, r: nn.gelu(x @ w + b),
    "residual": lambda x, w, b, r: r + (x @ w + b),
    "gate": lambda x, w, b, r: lax.logistic(x @ w) * r,
    "silu": lambda x, w, b, r: nn.silu(x @ w + b),
    "tanh": lambda x, w, b, r: tnp.tanh(x @ w),
    "where": lambda x, w, b, r: tnp.where(x @ w > r, r, b),
    "mask": lambda x, w, b, r: (x @ w > r).astype(x.dtype),
}


def arguments(m, k, n, dtype, special=False):
    rng = np.random.default_rng(m * 1000 + n)
    shapes = [(m, k), (k, n), (n,), (m, n)]
    return [array(rng, s, dtype, special and i > 1) for i, s in enumerate(shapes)]


def only(back):
    """The one kernel of a program: a contraction that VECTOR finishes."""
    (kernel,) = back.kernels.kernels
    assert isinstance(kernel.source, Contract) and kernel.epilogue.finish is not None
    return kernel


@pytest.mark.parametrize("name", EPILOGUES)
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_epilogue_is_one_kernel_with_the_same_bits(name, dtype):
    for config, (m, k, n) in (("tw4", (13, 9, 11)), ("tw16", (37, 21, 50)), ("tw8", (8, 5, 1))):
        only(assert_same_bits(EPILOGUES[name], *arguments(m, k, n, dtype, True), config=config))


@pytest.mark.parametrize("config", CONFIGS)
def test_epilogue_fits_every_memory(config):
    for m, k, n in ((40, 33, 70), (9, 5, 3)):
        args = arguments(m, k, n, F32)
        for name in ("residual", "gate", "where"):
            only(assert_same_bits(EPILOGUES[name], *args, config=config))
        assert_same_bits(EPILOGUES["gelu"], *args, config=config)


def test_epilogue_too_long_for_the_accumulator_is_a_kernel_of_its_own():
    back = assert_same_bits(EPILOGUES["gelu"], *arguments(9, 5, 3, F32), config=CONFIGS[1])
    assert [type(k.source) for k in back.kernels.kernels] == [Contract, Lanes]


@pytest.mark.parametrize("config", ["tw4", "tw16"])
@pytest.mark.parametrize("dtype", [F32, BF16, I8, I32])
def test_epilogue_operands_of_every_kind(dtype, config):
    rng = np.random.default_rng(5)
    x, w = array(rng, (37, 19), I8), array(rng, (19, 41), I8)
    row, column, one, full = (array(rng, s, dtype) for s in [(41,), (37, 1), (), (41, 37)])
    scale = array(rng, (37, 1), F32)

    def f(x, w, scale, other):
        y = tnp.matmul(x, w, preferred_element_type=np.int32)
        return (y.astype(np.float32) * scale + other.astype(np.float32)).astype(dtype)

    for other in (row, column, one, full.T.copy()):
        back = assert_same_bits(f, x, w, scale, other, config=config)
        assert any(k.epilogue.finish for k in back.kernels.kernels)
    back = assert_same_bits(lambda x, w, s, y: f(x, w, s, y.T), x, w, scale, full, config=config)
    assert len(back.kernels.kernels) == 1


def test_epilogue_of_integers():
    rng = np.random.default_rng(6)
    x, w, r = array(rng, (21, 30), I8), array(rng, (30, 17), I8), array(rng, (21, 17), I8)

    def f(x, w, r):
        y = tnp.matmul(x, w, preferred_element_type=np.int32)
        return tnp.maximum(y >> 3, r.astype(np.int32)) ^ 5

    only(assert_same_bits(f, x, w, r, config="tw8"))
    only(assert_same_bits(lambda *a: (f(*a) & 127).astype(np.int8), x, w, r, config="tw8"))


def test_epilogue_of_batches():
    rng = np.random.default_rng(7)
    q, k = array(rng, (3, 11, 8), BF16), array(rng, (3, 8, 13), BF16)
    mask = array(rng, (11, 13), F32)

    def f(q, k, mask):
        y = tnp.matmul(q, k, preferred_element_type=np.float32)
        return tnp.exp(y * 0.125 + mask)

    for config in ("tw4", "tw16"):
        only(assert_same_bits(f, q, k, mask, config=config))


def test_epilogue_ends_where_a_value_is_needed_elsewhere():
    x, w, b, r = arguments(12, 9, 10, F32)

    def both(x, w, b, r):
        y = x @ w
        z = tnp.tanh(y) * y + r  # all of it on the sums
        return z, tnp.exp(z) + b  # which needs z, that is stored

    back = assert_same_bits(both, x, w, b, r)
    assert [type(k.source) for k in back.kernels.kernels] == [Contract, Lanes]

    def escapes(x, w, b, r):
        y = x @ w
        return tnp.tanh(y) * y + r, y  # y is a result, too

    back = assert_same_bits(escapes, x, w, b, r)
    assert [type(k.source) for k in back.kernels.kernels] == [Contract, Lanes]
    assert back.kernels.kernels[0].epilogue.finish is None


def test_epilogue_of_the_last_of_two_contractions():
    x, w, b, r = arguments(12, 9, 10, F32)

    def gated(x, w, b, r):
        return nn.silu(x @ w) * (x @ (w * 2.0)) + b

    back = assert_same_bits(gated, x, w, b, r)
    found = [k for k in back.kernels.kernels if isinstance(k.source, Contract)]
    assert [k.epilogue.finish is not None for k in found] == [True, True]
    assert len(back.kernels.kernels) == 3


def test_epilogue_feeds_the_next_contraction_in_its_type():
    x, w, b, r = arguments(20, 12, 18, F32)

    def f(x, w, b, r):
        return tnp.tanh(x @ w + b) @ r.T

    back = assert_same_bits(f, x, w, b, r, config="tw16")
    assert back.kernels.kernels[0].out.dtype == BF16


def test_epilogue_of_bfloat16_weights_that_become_float32():
    x, _, b, r = arguments(20, 12, 18, F32)
    w = arguments(20, 12, 18, BF16)[1]
    only(assert_same_bits(EPILOGUES["residual"], x, w, b, r, config="tw16"))


def test_epilogue_store_is_preferred():
    x, w, b, r = arguments(20, 12, 18, F32)
    back = assert_same_bits(lambda x, w, b, r: tnp.maximum(x @ w + b, 0), x, w, b, r)
    assert back.kernels.kernels[0].epilogue.finish is None


def test_epilogue_every_legal_schedule_keeps_bits():
    args = arguments(45, 40, 70, BF16)
    shapes = [
        Schedule(45, 70, 16), Schedule(16, 32, 32, "nm", tail=8), Schedule(20, 16, 48, parts=4),
        Schedule(9, 32, 16, first_m=3, last_m=4, head=3, lead=1), Schedule(32, 16, 40, last_n=16),
        Schedule(45, 48, 16, tail=45, a_banks=2), Schedule(13, 16, 16, parts=8, tail=5, ka=40),
    ]  # fmt: skip
    for s in shapes:
        assert_same_bits(EPILOGUES["residual"], *args, config="tw16", schedules={0: s})
        assert_same_bits(EPILOGUES["gelu"], *args, config="tw16", schedules={0: s})


def test_epilogue_is_near_float64():
    x, w, b, _ = arguments(33, 24, 29, F32)
    x, w = (np.asarray(a, np.float64).astype(BF16) for a in (x, w))
    y = x.astype(np.float64) @ w.astype(np.float64) + b.astype(np.float64)
    exact = y * 0.5 * (1 + np.vectorize(erf)(y / np.sqrt(2)))

    def f(x, w, b):
        y = tnp.matmul(x, w, preferred_element_type=np.float32) + b
        return y * 0.5 * (1.0 + lax.erf(y * np.float32(0.5**0.5)))

    back = compiled(f, x, w, b, config="tw16")
    only(back)
    (got,) = execute(back, x, w, b)
    assert np.abs(got - exact).max() < 1e-5 * np.abs(exact).max()


def test_epilogue_on_rtl_and_cycle_engine():
    args = arguments(9, 7, 6, BF16)
    for name in ("residual", "silu"):
        back = compiled(EPILOGUES[name], *args, config="tw4")
        only(back)
        results = {}
        for engine in ("functional", "cycle", "rtl"):
            memory = sim.Memory(back.program.dram_size)
            for at, data in back.program.data:
                memory.write(at, data)
            for data, port in zip(args, back.program.inputs, strict=True):
                memory.write(port.addr, np.ascontiguousarray(data).tobytes())
            result = sim.run(back.program, memory, engine=engine)
            assert result.fault is None, result.fault
            port = back.program.outputs[0]
            results[engine] = bytes(memory.read(port.addr, 9 * 6 * 2)), result.cycles
        assert results["functional"][0] == results["cycle"][0] == results["rtl"][0]
        assert results["cycle"][1] == results["rtl"][1]


@pytest.mark.parametrize("name", ["gelu", "residual", "gate"])
def test_epilogue_hides_behind_the_array(name):
    args = arguments(128, 768, 512, BF16)
    cycles = [
        time_program(back.config, back.program.code).cycles
        for f in (EPILOGUES[name], lambda x, w, b, r: x @ w)
        for back in [compiled(f, *args, config="tw16")]
    ]
    assert cycles[0] <= 1.05 * cycles[1], cycles


def test_a_contraction_of_nothing_has_no_sums_to_finish():
    def program(x, w, r):
        return tnp.tanh((x @ w) * r)

    x, w, _, r = arguments(9, 0, 5, F32)
    assert_same_bits(program, x, w, r)


def test_contraction_of_batches_stores_its_rows_transposed():
    """Heads beside each other, as attention needs them: no copy of the result."""
    rng = np.random.default_rng(8)
    a, v, w = array(rng, (3, 11, 9), BF16), array(rng, (3, 9, 8), BF16), array(rng, (24, 7), BF16)

    def f(a, v, w):
        y = tnp.matmul(a, v, preferred_element_type=np.float32)
        return y.transpose((1, 0, 2)).reshape((11, 24)) @ w

    def g(a, v):
        return (a @ v).transpose((1, 0, 2))

    for config in ("tw4", "tw16"):
        back = assert_same_bits(f, a, v, w, config=config)
        assert [type(k.source) for k in back.kernels.kernels] == [Contract, Contract]
        assert len(assert_same_bits(g, a, v, config=config).kernels.kernels) == 1
        assert_same_bits(lambda a, v: (a @ v).transpose((2, 1, 0)), a, v, config=config)
