"""LOADs of bytes that write two granules in a slot: their price, and that programs have them."""

from collections import Counter

import numpy as np
import pytest
import tilewright.numpy as tnp
from tilewright import lax, sim
from tilewright.compiler.boxes import _rows_on_rows
from tilewright.compiler.bus_slots import load_row, words
from tilewright.compiler.schedule import Schedule
from tilewright.isa.config import parse_config
from tilewright.isa.encoding import decode
from tilewright.isa.extent import derived
from tilewright.sim.timing_ops import joined_loads

from tests.compiler.backend_case import I8, array, compiled

TW16 = parse_config("tw16")


@pytest.mark.parametrize(
    ("size", "slots"),
    [
        (1, 1 / 2),
        (2, 1 / 2),
        (7, 1 / 2),  # two rows are 14 bytes: a beat or less, wherever they begin
        (8, 1 / 2),
        (12, 3 / 4),  # 24 bytes from 0, 8 on: two new beats, then one
        (15, 15 / 16),
        (16, 1),
        (24, 2),  # two units; new beats are two or one
    ],
)
def test_two_short_rows_share_a_slot(size, slots):
    assert load_row(TW16, size, size, 0, -(-size // 16), paired=True) == slots


def test_rows_with_gaps_do_not_share_a_slot():
    assert load_row(TW16, 2, 16, 0, 1, paired=True) == 1


def test_two_units_of_a_row_share_a_slot_where_they_are_as_long_as_a_beat():
    assert [words(TW16, n) for n in (1, 2, 9, 10)] == [1, 1, 9, 5]
    assert [words(TW16, n, even=True) for n in (1, 2, 9, 10)] == [1, 1, 5, 5]
    assert words(TW16, np.array([3, 4])).tolist() == [3, 2]
    assert words(parse_config("dim=16,spad_kib=64,acc_kib=64,bus_bytes=8"), 4) == 4


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("size", range(1, 16))
def test_price_is_the_average_of_many_rows(size, rows):
    count = 16 * 2  # all offsets
    got = joined_loads(0, size, 1, [(count, size), (1, 0), (1, 0)], 16, rows)
    assert got == count * load_row(TW16, size, size, 0, 1, paired=rows == 2)


def loads_of(program):
    """(Columns, rows, whether paired) of each LOAD from DRAM, and how often."""
    found = Counter()
    for at in range(0, len(program.code), 64):
        instr = decode(program.code[at : at + 64])
        if instr.spec.name == "load" and not instr.values["fill"]:
            v = instr.values
            pair = derived(program.config, instr.spec, v)["paired"]
            found[v["c0"], v["c1"], pair] += 1
    return found


def on_every_engine(function, want, *args, **how):
    """The program, after all engines gave `want`."""
    program = compiled(function, *args, **how).program
    results = []
    for engine in ("functional", "cycle", "rtl"):
        memory = sim.load_memory(program)
        for port, value in zip(program.inputs, args, strict=True):
            memory.write(port.addr, value)
        results.append(sim.run(program, memory, engine=engine))
    (out,) = program.outputs
    for r in results:
        got = r.memory.read(out.addr, want.nbytes).view(want.dtype).reshape(want.shape)
        assert np.array_equal(got, want)
    assert results[1].counters == results[2].counters
    return program


def test_weights_of_few_columns_are_paired():
    rng = np.random.default_rng(1)
    x, w = array(rng, (5, 37), I8), array(rng, (37, 3), I8)
    want = x.astype(np.int32) @ w.astype(np.int32)

    def product(x, w):
        return tnp.matmul(x, w, preferred_element_type=np.int32)

    program = on_every_engine(product, want, x, w, schedules={0: Schedule(5, 3, 16)})
    found = loads_of(program)
    assert (3, 16, 1) in found and (3, 5, 1) in found  # also the odd rest of 37 rows


@pytest.mark.parametrize("n", [9, 13])  # three and four blocks: an odd number gets room for one
@pytest.mark.parametrize("how", [
    {"nt": 16, "kt": 16}, {"nt": 16, "kt": 8, "tail": 2, "order": "nm"}, {"nt": 8, "kt": 40},
    {"nt": 16, "kt": 16, "mt": 4, "first_k": 4, "last_k": 4}, {"nt": 16, "kt": 16, "tail": 5},
])  # fmt: skip
def test_weights_across_keep_bits_and_are_paired(n, how):
    rng = np.random.default_rng(4)
    x, w = array(rng, (5, 37), I8), array(rng, (37, n), I8)
    want = x.astype(np.int32) @ w.astype(np.int32)

    def product(x, w):
        return tnp.matmul(x, w, preferred_element_type=np.int32)

    s = Schedule(**({"mt": 5, "across": True} | how))
    found = loads_of(on_every_engine(product, want, x, w, schedules={0: s}))
    whole = s.nt >= n  # else a row's columns come in two parts, which do not follow each other
    assert any(c0 == n and pair for c0, _, pair in found) == whole


def test_rows_of_an_even_number_of_units_are_paired():
    rng = np.random.default_rng(2)
    x, w = array(rng, (6, 13), I8), array(rng, (13, 9), I8)  # four units
    want = x.astype(np.int32) @ w.astype(np.int32)

    def product(x, w):
        return tnp.matmul(x, w, preferred_element_type=np.int32)

    program = on_every_engine(product, want, x, w, schedules={0: Schedule(6, 9, 16)})
    assert (13, 6, 1) in loads_of(program)


def test_weights_of_a_convolution_of_few_channels_are_paired():
    rng = np.random.default_rng(3)
    x, w = array(rng, (1, 5, 5, 5), I8), array(rng, (3, 3, 5, 3), I8)
    want = np.zeros((1, 3, 3, 3), np.int32)
    for i, j in np.ndindex(3, 3):
        window = x[0, i : i + 3, j : j + 3].astype(np.int32)
        want[0, i, j] = np.tensordot(window, w.astype(np.int32), 3)

    def conv(x, w):
        return lax.conv_general_dilated(
            x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            preferred_element_type=np.int32,
        )  # fmt: skip

    program = on_every_engine(conv, want, x, w)
    assert any(c0 == 3 and pair for c0, _, pair in loads_of(program))


def test_dimensions_that_go_on_with_each_other_are_one():
    assert _rows_on_rows([(5, 3, 1), (3, 15, 5)]) == [(15, 3, 1)]
    assert _rows_on_rows([(5, 3, 1), (3, 15, 5), (2, 45, 15)]) == [(30, 3, 1)]
    assert _rows_on_rows([(5, 3, 1), (3, 16, 5)]) == [(5, 3, 1), (3, 16, 5)]  # a gap in DRAM
    assert _rows_on_rows([(5, 3, 1), (3, 15, 6)]) == [(5, 3, 1), (3, 15, 6)]  # a gap in the chip
    assert _rows_on_rows([(300, 3, 1), (300, 900, 300)]) == [(300, 3, 1), (300, 900, 300)]
    assert _rows_on_rows([]) == []
