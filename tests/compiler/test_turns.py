"""Transposing LOADs of an operand: their runs cover it, and cost what the estimate says."""

import numpy as np
import pytest
import tilewright.numpy as tnp
from tilewright import sim
from tilewright.compiler.schedule import Operand, Schedule
from tilewright.compiler.schedule_turns import HIDDEN, turn, turned_slots
from tilewright.isa.config import parse_config
from tilewright.isa.encoding import Instr
from tilewright.isa.table import INSTRUCTIONS, Conv
from tilewright.sim.timing_ops import _WORK

from tests.compiler.backend_case import I8, array, compiled

TW16 = parse_config("tw16")
SIZES = [(1, 3), (16, 16), (38, 107), (67, 1465), (128, 64), (129, 48), (300, 17), (1958, 107)]


@pytest.mark.parametrize("size, conv", [(1, Conv.COPY8), (2, Conv.COPY16), (4, Conv.F32_BF16)])
@pytest.mark.parametrize("rows, cols", SIZES)
def test_turn_prices_its_loads_exactly_over_whole_periods_of_the_alignment(rows, cols, size, conv):
    pitch = rows * size + size
    cols = -(-cols // 16) * 16 if size < 4 else cols  # all offsets in a beat come equally often
    cols -= cols % 4
    best = turn(TW16, Operand(size, "columns", pitch), rows, max(cols, 16))
    found, first, drain = 0, 0, 0
    for run, count in best.cut:
        assert run <= 128
        fields = dict(conv=conv, xpose=1, dram=first * size, c0=run, c1=max(cols, 16), s1=pitch,
                      c2=count, s2=run * size)  # fmt: skip
        values = Instr.make("load", **fields).values
        work = _WORK["load"](TW16, INSTRUCTIONS["load"], values)
        found += work.slots + max(0, drain - work.hidden)
        first, drain = first + run * count, work.drain
    assert (first, best.drain) == (rows, drain)
    assert best.hidden == -(-best.cut[0][0] // 16) * 16
    assert best.slots == pytest.approx(found)


def test_many_unaligned_columns_are_cut_into_long_runs_and_few_into_short_ones():
    odd = Operand(1, "columns", 1001)
    assert turn(TW16, odd, 1000, 256).cut == ((128, 7), (104, 1))
    assert turn(TW16, odd, 128, 4).cut[0][0] < 64
    # nothing is fetched twice if columns are aligned: the drain is what counts
    assert turn(TW16, Operand(1, "columns", 1024), 1024, 256).cut == ((16, 64),)


def test_estimates_of_arrays_are_those_of_numbers():
    o = Operand(1, "columns", 67, 5)
    rows, cols = np.array([5, 67, 67, 300, 129]), np.array([8, 1465, 3, 19, 64])
    want = [turn(TW16, o, *x) for x in zip(rows.tolist(), cols.tolist(), strict=True)]
    want = [x.slots + (1 - HIDDEN) * x.drain for x in want]
    assert turned_slots(TW16, o, rows, cols).tolist() == pytest.approx(want)


@pytest.mark.parametrize("k", [29, 75])
def test_operands_of_long_runs_are_right_on_every_engine(k):
    rng = np.random.default_rng(k)
    x, w = array(rng, (21, k), I8), array(rng, (38, k), I8)

    def product(x, w):
        return tnp.matmul(x, w.T, preferred_element_type=np.int32)

    program = compiled(product, x, w, schedules={0: Schedule(9, 38, k)}).program  # tw4
    results = []
    for engine in ("functional", "cycle", "rtl"):
        memory = sim.load_memory(program)
        for port, value in zip(program.inputs, (x, w), strict=True):
            memory.write(port.addr, value)
        results.append(sim.run(program, memory, engine=engine))
    (out,) = program.outputs
    want = x.astype(np.int32) @ w.astype(np.int32).T
    for r in results:
        assert r.fault is None
        got = r.memory.read(out.addr, want.nbytes).view(np.int32).reshape(want.shape)
        assert np.array_equal(got, want)
    assert results[1].counters == results[2].counters
