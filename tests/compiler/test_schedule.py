"""A schedule changes cycles, never bits; what does not fit is refused with the reason."""

from functools import partial
from random import Random

import numpy as np
import pytest
import tilewright.numpy as tnp
from tilewright import sim
from tilewright.compiler import refine
from tilewright.compiler.refine import choose
from tilewright.compiler.schedule import (
    Operand,
    Problem,
    Schedule,
    ScheduleError,
    grid,
    spans,
)
from tilewright.compiler.schedule_check import (
    check,
    slot_sizes,
    slots,
)
from tilewright.compiler.schedule_cost import ranked
from tilewright.compiler.schedule_moves import sample
from tilewright.compiler.tile_contract import problem
from tilewright.isa.config import parse_config

from tests.compiler.backend_case import (
    BF16,
    CONFIGS,
    F32,
    I8,
    SMALL,
    array,
    assert_same_bits,
    compiled,
)

LEAST = (
    *("dim=4,spad_kib=1,acc_kib=1", "dim=32,spad_kib=16,acc_kib=32"),
    "dim=16,spad_kib=4,acc_kib=512",
)
SIDES = (1, 2, 3, 7, 16, 17, 31, 100, 255, 299, 300)


@pytest.mark.parametrize("dtype", [F32, BF16, I8])
@pytest.mark.parametrize("order", ["mn", "nm"])
def test_schedule_by_hand_keeps_bits(dtype, order):
    rng = np.random.default_rng(0)
    x, w, b = (array(rng, s, dtype) for s in ((13, 18), (18, 11), (11,)))
    for mt, nt, kt in [(1, 1, 4), (5, 4, 8), (13, 11, 20), (8, 7, 18), (6, 8, 12), (24, 3, 100)]:
        assert_same_bits(
            lambda x, w, b: tnp.maximum(tnp.matmul(x, w).astype(np.float32) + b, 0),
            x, w, b.astype(np.float32), schedules={0: Schedule(mt, nt, kt, order)},
        )  # fmt: skip


def test_drawn_schedules_keep_bits():
    """int8, rows and columns as they are and exchanged, weights block by block and across."""
    rng, draw, config = np.random.default_rng(1), Random(1), parse_config("tw4")
    x, w = array(rng, (13, 30), I8), array(rng, (30, 11), I8)

    def product(x, w):
        return tnp.matmul(x, w, preferred_element_type=np.int32)

    p, kinds = problem(compiled(product, x, w).kernels.kernels[0]), set()
    for swap in (False, True) * 24:
        s = sample(config, p.transposed if swap else p, swap, draw)
        try:
            check(config, p, s)
            slots(config, p, s)
        except ScheduleError:
            continue
        kinds.add((swap, s.across))
        assert_same_bits(product, x, w, schedules={0: s})
    assert len(kinds) == 4


def sizes(m, n, k, local=2, size=4, out=4, vectors=1):
    """A contraction of dense row-major operands."""
    return Problem(m, n, k, local, Operand(size, "rows", k * size), Operand(size, "rows", n * size),
                   out, vectors)  # fmt: skip


@pytest.mark.parametrize(
    "schedule, reason",
    [
        (Schedule(0, 4, 4), "mt must be in 1 to 65535, not 0"),
        (Schedule(4, 4, 6), r"kt must be a multiple of dim \(4\) or at least K \(30\), not 6"),
        (Schedule(4, 4, 4, "nk"), "order must be 'mn' or 'nm', not 'nk'"),
        (Schedule(64, 12, 4), "needs 195 accumulator rows, 67 more than 1 of 2 parts has"),
        (Schedule(16, 16, 4, parts=4), "needs 68 accumulator rows, 4 more than 1 of 4 parts has"),
        (Schedule(1, 68, 4), r"nt must be at most 64 with a scale or bias, not 68"),
        (Schedule(64, 4, 28), "2 activation slots of 896 granules need 1792 granules, not 1280"),
        (Schedule(4, 4, 4, a_banks=8), "a_banks must be in 1 to 7, not 8"),
        (Schedule(4, 4, 4, parts=3), "parts must be 2, 4 or 8, not 3"),
        (Schedule(4, 4, 4, first_m=5), "first_m must be in 0 to 4, not 5"),
        (Schedule(4, 4, 8, first_k=6), r"first_k must be a multiple of dim \(4\), not 6"),
        (
            Schedule(4, 4, 8, ka=20),
            r"ka must be a multiple of kt \(8\) or at least K \(30\), not 20",
        ),
        (Schedule(8, 4, 4, lead=2), "lead must be in 0 to 1, not 2"),
        (Schedule(6, 4, 4, swap=True), r"tiles must begin at a multiple of dim \(4\)"),
        (Schedule(8, 4, 4, tail=3, swap=True), "a tail must be whole rows of the last tile"),
        (Schedule(8, 4, 4, head=9), "head must be in 0 to 8, not 9"),
        (Schedule(8, 8, 4, across=True), "across needs 8-bit operands and no head"),
        (Schedule(100, 4, 4, tail=4), "a slot for each of 8 activation chunks, not 6"),
    ],
)
def test_schedule_that_does_not_fit_is_refused_with_the_reason(schedule, reason):
    config, problem = parse_config("tw4"), sizes(300, 300, 30)
    with pytest.raises(ScheduleError, match=reason):
        check(config, problem, schedule)
        slots(config, problem, schedule)


def test_weights_across_have_room_for_an_even_number_of_blocks():
    config, p = parse_config("tw4"), sizes(8, 9, 30, local=1, size=1)
    assert slot_sizes(config, p, Schedule(8, 9, 8))[1] == 8 * 3  # rows of 3 blocks
    assert slot_sizes(config, p, Schedule(8, 9, 8, across=True))[1] == 8 * 4
    with pytest.raises(ScheduleError, match="across needs 8-bit operands and no head"):
        check(config, p, Schedule(8, 9, 8, head=4, across=True))


@pytest.mark.parametrize(
    "args, want",
    [
        ((10, 4), [(0, 4), (4, 8), (8, 10)]),
        ((20, 8, 2), [(0, 2), (2, 6), (6, 14), (14, 20)]),
        ((10, 4, 0, 1), [(0, 4), (4, 7), (7, 9), (9, 10)]),
        ((61, 16, 4, 4, 4), [(0, 4), (4, 12), (12, 28), (28, 44), (44, 48), (48, 56), (56, 61)]),
        ((3, 16, 4, 4, 4), [(0, 3)]),
        ((30, 100, 0, 0, 4), [(0, 30)]),
        ((5, 5, 5, 5), [(0, 5)]),
    ],
)
def test_schedule_parts_of_a_dimension(args, want):
    assert spans(*args) == want


def test_schedule_prints_what_is_not_usual():
    assert str(Schedule(8, 4, 4)) == "tile 8x4x4 order mn"
    assert str(Schedule(8, 4, 4, swap=True)) == "tile 8x4x4 order mn swap"
    assert str(Schedule(8, 4, 4, across=True)) == "tile 8x4x4 order mn across"
    assert str(Schedule(8, 4, 4, "nm", head=2, parts=4)) == "tile 8x4x4 order nm head 2 parts 4"


@pytest.mark.parametrize("config", [*CONFIGS, *LEAST])
def test_schedule_is_found_for_every_shape_on_every_memory(config):
    chip, rng = parse_config(config), np.random.default_rng(0)
    for m, n, k in rng.choice(SIDES, (60, 3)).tolist():
        for local, size, vectors in ((1, 1, 0), (2, 4, 3), (1, 1, 3)):
            problem = sizes(m, n, k, local, size, 4, vectors)
            for schedule in ranked(chip, problem, 3):
                check(chip, problem, schedule)
                assert min(slots(chip, problem, schedule)) >= 1
            assert grid(chip, problem, schedule)[2][-1][1] == k


def kernel_of(config, m, n, k):
    x, w = np.zeros((m, k), I8), np.zeros((k, n), I8)
    return compiled(lambda x, w: x @ w, x, w, config=config).kernels.kernels[0]


def test_schedule_choice_is_deterministic():
    chip, kernel = parse_config("tw16"), kernel_of("tw16", 90, 40, 50)
    refine._chosen.clear()
    first = choose(chip, kernel)
    refine._chosen.clear()
    assert choose(chip, kernel) == first


@pytest.mark.parametrize("config", ["tw4", SMALL])
def test_schedule_by_default_keeps_bits_of_long_contractions(config):
    rng = np.random.default_rng(0)
    x, w = array(rng, (3, 2000), I8), array(rng, (2000, 5), I8)
    product = partial(tnp.matmul, preferred_element_type=np.int32)
    assert_same_bits(product, x, w, config=config)


@pytest.mark.parametrize("side, least", [(512, 0.995), (128, 0.955), (64, 0.745)])
def test_schedule_by_default_keeps_the_array_busy(side, least):
    def layer(x, w, s):
        y = tnp.matmul(x, w, preferred_element_type=np.int32).astype(np.float32) * s
        return tnp.clip(tnp.round(y), -128, 127).astype(np.int8)

    shapes = ((side, side), I8), ((side, side), I8), ((side,), F32)
    program = compiled(layer, *(np.zeros(s, t) for s, t in shapes), config="tw16").program
    cycles = sim.run(program, sim.Memory(program.dram_size), engine="cycle").cycles
    assert side**3 / (256 * cycles) >= least
