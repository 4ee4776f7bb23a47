"""The roofline benchmark: its bounds, its random products, and where lost cycles are said to go."""

import pytest
from tilewright import bench_convolutions as c
from tilewright import bench_lanes as lanes
from tilewright import bench_roofline as b
from tilewright.isa.config import parse_config


@pytest.mark.parametrize(
    "m, n, k, size, bound",
    [
        (64, 64, 64, 1, 4 * 4 * 64),  # the array
        (100, 17, 64, 1, 4 * 7 * 17),  # the array, with A stationary
        (1, 512, 1000, 2, (1000 + 512000) * 2 // 16),  # reads
        (100, 100, 1, 1, 100 * 100 * 4 // 16),  # writes
    ],
)
def test_bench_roofline_bound(m, n, k, size, bound):
    assert b.product_bound(parse_config("tw16"), m, n, k, size, 4) == bound


def test_bench_roofline_random_products_follow_the_seed():
    config = parse_config("tw16")
    first, again, other = ([x.name for x in b.random_cases(config, seed, 8)] for seed in (1, 1, 2))
    assert first == again != other and len(set(first)) == 8


@pytest.mark.parametrize("engine", ["cycle", "rtl"])
def test_bench_roofline_measures_a_product(engine):
    config = parse_config("tw4")
    case = b.Case("int8 20x24x28", b.int32_gemm, b._zeros("int8", (20, 28), (28, 24)), 840, 300)
    row = b.measure(config, case, engine)
    assert row.share == (840 + 300) / row.cycles and row.cycles > 840
    assert sum(row.lost.values()) == row.cycles - row.bound and row.schedule.startswith("tile ")


@pytest.mark.parametrize("engine", ["cycle", "rtl"])
def test_bench_roofline_measures_convolutions(engine):
    """The smallest of some random ones, and what its bound counts."""
    config = parse_config("tw4")
    case = min(c.random_cases(config, 1, 9), key=lambda case: case.bound)
    row = b.measure(config, case, engine)
    assert row.cycles > case.bound and row.share == (case.bound + 300) / row.cycles
    x, w = case.arguments
    macs = row.cycles * config.dim**2
    assert x.shape[0] * w.size * (-(-x.shape[1] // 2)) ** 2 < macs
    assert sum(row.lost.values()) == row.cycles - row.bound


def test_bench_roofline_depthwise_bound_is_a_diagonal_of_the_array():
    bounds = [case.bound for case in c.depthwise_cases(parse_config("tw16"))]
    assert bounds == [4 * 56 * 56 * 9 * 4, 4 * 28 * 28 * 9 * 8, 4 * 14 * 14 * 9 * 16]


def test_bench_roofline_median_and_worst_are_of_random_products():
    rows = [b.Row("", g, 1, 1, s, None, "") for g, s in (("random", 0.9), ("random", 0.7),
            ("random", 0.95), ("table", 0.1))]  # fmt: skip
    assert b.summary(rows) == {"random": {"median": 0.9, "worst": 0.7, "count": 3}}


def test_bench_roofline_has_element_wise_cases_whose_bound_is_bus_or_vector():
    config = parse_config("tw16")
    found = {case.name: case for case in lanes.cases(config)}
    first = found["float32 relu(a*x + b), 1 M"]
    assert first.bound == 3 * 4 * 2**20 // 16 and first.reach == 0.95
    assert found["bf16 tanh, 1 M"].bound == 18 * 2**20 // 16
    small = tuple(x[:64, :64] for x in first.arguments)
    row = b.measure(parse_config("tw4"), b.Case("small", first.function, small, 3 * 64 * 64))
    assert row.share >= 0.95 and sum(row.lost.values()) == row.cycles - row.bound
