"""Contractions: every legal schedule leaves the same bits, on every engine; transposed operands."""

from functools import partial

import numpy as np
import pytest
import tilewright.numpy as tnp
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright import sim
from tilewright.compiler.schedule import Schedule, ScheduleError
from tilewright.sim.cycle import time_program

from tests.compiler.backend_case import BF16, F32, I8, U8, array, assert_same_bits, compiled

SIDE = st.integers(1, 40)
DIM = 4  # of tw4


@st.composite
def cases(draw):
    """A shape, an operand type, and a schedule of which not every part need fit."""
    m, n, k = draw(SIDE), draw(SIDE), draw(SIDE)
    mt, nt, kt = draw(st.integers(1, m)), draw(st.integers(1, n)), DIM * draw(st.integers(1, 10))
    schedule = Schedule(
        mt, nt, kt, draw(st.sampled_from(("mn", "nm"))),
        first_m=draw(st.integers(0, mt)), last_m=draw(st.integers(0, mt)),
        first_k=DIM * draw(st.integers(0, kt // DIM)), last_k=DIM * draw(st.integers(0, kt // DIM)),
        head=draw(st.integers(0, mt)), tail=draw(st.integers(0, mt)),
        last_n=draw(st.integers(0, nt)), lead=draw(st.integers(0, -(-nt // DIM))),
        ka=draw(st.sampled_from((0, 2 * kt, k))), swap=draw(st.booleans()),
        a_banks=draw(st.sampled_from((2, 5, 7))), parts=draw(st.sampled_from((2, 4, 8))),
    )  # fmt: skip
    return (m, n, k), draw(st.sampled_from((I8, BF16, F32))), draw(st.booleans()), schedule


@given(cases())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_contract_every_legal_schedule_keeps_bits(case):
    (m, n, k), dtype, biased, schedule = case
    rng = np.random.default_rng(m * n * k)
    x, w, b = array(rng, (m, k), dtype), array(rng, (k, n), dtype), array(rng, (n,), F32)

    def layer(x, w, b):
        y = tnp.matmul(x, w, preferred_element_type=np.int32 if dtype == I8 else F32)
        return y.astype(F32) + b if biased else y

    try:
        assert_same_bits(layer, x, w, b, schedules={0: schedule})
    except ScheduleError as error:
        words = ("granules", "rows", "a slot for", "nt must be", "ka must be", "multiple of")
        assert any(word in str(error) for word in words)


@pytest.mark.parametrize("config", ["tw4", "tw16"])
@pytest.mark.parametrize("dtype", [I8, U8, BF16, F32])
@pytest.mark.parametrize("m, n, k", [(13, 11, 18), (40, 33, 37), (3, 5, 4)])
def test_contract_transposed_operands_keep_bits(m, n, k, dtype, config):
    rng = np.random.default_rng(0)
    x, w = array(rng, (m, k), dtype, True), array(rng, (k, n), dtype, True)
    kind = np.int32 if dtype.itemsize == 1 else F32
    product = partial(tnp.matmul, preferred_element_type=kind)
    right, left = np.ascontiguousarray(w.T), np.ascontiguousarray(x.T)
    for function, args in (
        (lambda x, v: product(x, v.T), (x, right)),
        (lambda u, w: product(u.T, w), (left, w)),
        (lambda u, v: product(u.T, v.T), (left, right)),
    ):
        back = assert_same_bits(function, *args, config=config)
        turned = [op for op in back.tiles.ops if op.fields.get("xpose")]
        assert turned and all(op.name == "store" or op.fields["pack"] == 1 for op in turned)


def test_contract_transposed_loads_go_at_the_speed_of_the_bus():
    x, w = np.zeros((128, 128), I8), np.zeros((128, 128), I8)
    plain = compiled(lambda x, w: x @ w, x, w, config="tw16").program
    turned = compiled(lambda x, w: x @ w.T, x, w, config="tw16").program
    cycles = [time_program(p.config, p.code).cycles for p in (plain, turned)]
    assert cycles[1] <= 1.1 * cycles[0]


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(20, 12, 8, head=4, tail=3, first_k=4),
        Schedule(14, 24, 40, first_m=3, last_m=2, tail=14, a_banks=2),
        Schedule(7, 8, 16, "nm", parts=4, last_k=4, tail=2),
        Schedule(12, 16, 8, head=4, lead=1, ka=37, last_n=6, swap=True),
    ],
)
def test_contract_engines_agree(schedule):
    rng = np.random.default_rng(0)
    x, w, b = array(rng, (38, 37), I8), array(rng, (37, 21), I8), array(rng, (21,), F32)

    def layer(x, w, b):
        return tnp.matmul(x, w, preferred_element_type=np.int32).astype(F32) + b

    program = compiled(layer, x, w, b, schedules={0: schedule}).program
    results = []
    for engine in ("functional", "cycle", "rtl"):
        memory = sim.load_memory(program)
        for port, value in zip(program.inputs, (x, w, b), strict=True):
            memory.write(port.addr, value)
        results.append(sim.run(program, memory, engine=engine))
    (out,) = program.outputs
    want = (x.astype(np.int64) @ w.astype(np.int64)).astype(F32) + b
    for r in results:
        assert r.fault is None
        assert np.array_equal(r.memory.read(out.addr, want.nbytes).view(F32).reshape(38, 21), want)
    assert results[1].counters == results[2].counters
    assert np.array_equal(results[1].trace["end"], results[2].trace["end"])


def test_contract_next_kernel_loads_while_the_previous_one_drains():
    """Three layers keep the array busy across both boundaries: 3 * 4096 cycles of passes."""

    def narrow(y):
        return tnp.clip(tnp.round(y.astype(F32) * 0.01), -128, 127).astype(I8)

    def layers(x, u, v, w):
        for weight in (u, v, w):
            x = narrow(tnp.matmul(x, weight, preferred_element_type=np.int32))
        return x

    x, w = np.zeros((64, 128), I8), np.zeros((128, 128), I8)
    back = compiled(layers, x, w, w, w, config="tw16")
    timing = time_program(back.config, back.program.code)
    assert len(back.kernels.kernels) == 3 and timing.cycles <= 3 * 64 * 8 * 8 + 700
