"""The first tile of a convolution in portions, and the image's copy ahead of rows of tiles."""

from itertools import pairwise, product

import numpy as np
import pytest
from tilewright import lax
from tilewright.compiler.image import Image
from tilewright.compiler.schedule_conv import ConvPlan, ConvSchedule
from tilewright.compiler.tile_conv_start import portions
from tilewright.compiler.tile_stage import Stage
from tilewright.isa.config import parse_config
from tilewright.sim.cycle import time_program

from tests.compiler.backend_case import BF16, F32, I8, array, assert_same_bits, kernels_of

NUMBERS = ("NHWC", "HWIO", "NHWC")


def layer(strides=(1, 1), dilation=(1, 1), padding="SAME", **params):
    """A convolution of two operands."""

    def convolve(x, w):
        wide = np.int32 if x.dtype == I8 else None
        return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=NUMBERS,
                                        rhs_dilation=dilation, preferred_element_type=wide,
                                        **params)  # fmt: skip

    return convolve


def operands(rng, x, w, dtype):
    return array(rng, x, dtype), array(rng, w, dtype)


CASES = (  # image, weights, strides, dilation
    ((2, 9, 8, 19), (3, 3, 19, 8), (1, 1), (1, 1)),
    ((2, 9, 8, 3), (3, 4, 3, 9), (1, 1), (1, 1)),
    ((1, 12, 11, 5), (4, 3, 5, 6), (2, 1), (1, 2)),
    ((3, 4, 4, 21), (4, 3, 21, 6), (1, 2), (2, 1)),
    ((2, 12, 11, 10), (3, 3, 10, 5), (2, 2), (1, 1)),
    ((2, 11, 14, 8), (2, 4, 8, 5), (3, 2), (1, 3)),
)


@pytest.mark.parametrize("shapes", CASES)
@pytest.mark.parametrize(("first_k", "band"), [(0, 0), (1, 0), (3, 0), (1, 1), (2, 2)])
def test_portions_cover_k_and_the_image_once(shapes, first_k, band):
    """K ascends without gaps for each row of results; each pixel's blocks come once, in time."""
    x, w, strides, dilation = shapes
    arguments = np.zeros(x, I8), np.zeros(w, I8)
    kernel = kernels_of(layer(strides, dilation), *arguments).kernels[-1]
    image = Image(kernel.source, 4)
    height = min(3, image.axes[0].out)
    s = ConvSchedule(height, 2, 4, min(4, image.total), first_k=first_k, band=band)
    plan = ConvPlan(parse_config("tw4"), image, 0, 4, s)
    found = list(portions(plan, ((0, height), (0, 2)), 1))
    for row in range(height):
        mine = [p for p in found if row in range(*p.rows)]
        assert [k for p in mine for k in range(*p.ks)] == list(range(image.total))
    assert [k for p in found if p.new for k in range(*p.ks)] == list(range(image.total))
    assert all(plan.chunks[p.chunk][0] <= p.ks[0] < p.ks[1] <= plan.chunks[p.chunk][1]
               for p in found)  # fmt: skip
    loaded = set()
    axes = image.axes
    apart = [a.stride if a.taps > 1 else 1 for a in axes]  # without taps, results lie side by side
    for p in found:
        for window in p.windows:
            new = set(product(window.rows, window.cols, range(*window.blocks)))
            assert not new & loaded
            loaded |= new
        for k in range(*p.ks):
            segment, block = divmod(k, image.blocks)
            taps = divmod(segment, axes[1].taps)
            rows, columns = (
                {tap * a.dilation + i * by for i in range(*some)}
                for tap, a, some, by in zip(taps, axes, (p.rows, (0, 2)), apart, strict=True)
            )
            assert set(product(rows, columns, [block])) <= loaded
    first = found[0].ks[1]
    assert not first_k or first < 2 * first_k


@pytest.mark.parametrize("dtype", [I8, BF16, F32])
@pytest.mark.parametrize("shapes", CASES)
def test_a_start_in_portions_leaves_all_bits(shapes, dtype):
    """Beside and behind the image's copy, for one image and several in a tile."""
    x, w, strides, dilation = shapes
    rng = np.random.default_rng(1)
    arguments = operands(rng, x, w, dtype)
    convolve = layer(strides, dilation)
    kernels = kernels_of(convolve, *arguments).kernels
    number = len(kernels) - 1
    out = kernels[-1].source.axes
    for first_k, stage, band in ((1, 0, 0), (2, 1, 0), (2, 2, 0), (1, 0, 1), (2, 2, 1)):
        s = ConvSchedule(2, min(3, out[1].out), 4, 2, a_banks=5, first_k=first_k, band=band,
                         stage=stage * (number > 0))  # fmt: skip
        assert_same_bits(convolve, *arguments, schedules={number: s})
    if x[0] > 1:
        s = ConvSchedule(out[0].out, 1, 4, 2, a_banks=5, first_k=1, images=2)
        assert_same_bits(convolve, *arguments, schedules={number: s})


def test_a_start_in_portions_leaves_all_bits_of_several_passes():
    rng = np.random.default_rng(2)
    arguments = operands(rng, (1, 6, 5, 9), (3, 2, 9, 6), F32)
    s = ConvSchedule(3, 2, 4, 3, first_k=1)
    assert_same_bits(layer(precision="highest"), *arguments, schedules={0: s})


def test_the_array_starts_before_all_of_the_first_tile_is_there():
    """64 channels of 12 x 12 pixels: 576 granules of 16 are loaded, but the first product's 72."""
    rng = np.random.default_rng(3)
    arguments = operands(rng, (1, 12, 12, 64), (3, 3, 64, 16), I8)
    convolve = layer()
    cycles = []
    for first_k in (0, 1):
        s = ConvSchedule(6, 12, 16, 4, first_k=first_k)
        back = assert_same_bits(convolve, *arguments, config="tw16", schedules={0: s})
        timing = time_program(back.config, back.program.code)
        cycles.append(timing.cycles)
    assert cycles[1] < cycles[0] - 150


def test_the_copy_of_a_row_of_tiles_comes_in_pieces_during_the_one_before():
    """24 rows of results in tiles of 8 x 3: the rows that the next 8 read come 4 at a time."""
    rng = np.random.default_rng(4)
    arguments = operands(rng, (1, 24, 24, 3), (3, 3, 3, 8), I8)
    s = ConvSchedule(8, 3, 8, 3, stage=1)
    back = assert_same_bits(layer(), *arguments, config="tw16", schedules={1: s})
    ops = [op for op in back.tiles.ops if op.name == "store"]
    results = [i for i, op in enumerate(ops) if op.kernel == 1]
    for a, b in pairwise(results[1:]):
        rows = sum(op.fields["c1"] for op in ops[a:b] if op.kernel == 0 and op.fields["c0"] == 72)
        assert rows <= 4
    copied = sum(op.fields["c1"] for op in ops if op.kernel == 0 and op.fields["c0"] == 72)
    assert copied == 24


def test_only_arguments_are_waited_for_in_portions():
    """A layer whose image another one makes starts beside it: its own start says little."""
    rng = np.random.default_rng(5)
    x, v = operands(rng, (1, 12, 12, 64), (3, 3, 64, 64), I8)
    first = assert_same_bits(layer(), x, v, config="tw16")
    assert "first_k" in first.tiles.schedules[-1]

    def two(x, v):
        return layer()(layer()(x, v).astype(np.int8), v)

    second = assert_same_bits(two, x, v, config="tw16")
    assert "first_k" in second.tiles.schedules[0]
    assert "first_k" not in second.tiles.schedules[-1]


def test_a_tile_copies_the_columns_that_it_reads():
    """Tiles of 8 x 3 results of 3 x 3 taps: the first reads 5 of 26 columns, others add 3 or 2."""
    rng = np.random.default_rng(6)
    arguments = operands(rng, (1, 24, 24, 3), (3, 3, 3, 8), I8)
    s = ConvSchedule(8, 3, 8, 3, first_k=1, stage=2)
    back = assert_same_bits(layer(), *arguments, config="tw16", schedules={1: s})
    ops = [op for op in back.tiles.ops if op.kernel == 0 and op.buffer and op.name == "load"]
    start = next(i for i, op in enumerate(back.tiles.ops) if op.name == "matmul")
    first = [op for op in ops if op in back.tiles.ops[:start]]
    assert {op.fields["c0"] for op in first} == {4 * 3}  # the first column is a zero
    pixels = sum(op.fields["c0"] // 3 * op.fields["c1"] for op in ops)
    assert pixels == 24 * 24


@pytest.mark.parametrize("dtype", [I8, BF16])
def test_parts_of_a_copy_in_phases_make_it_once(dtype):
    """Windows of any rows and columns, of three phases, until each byte is stored."""
    x = np.zeros((1, 7, 11, 5), dtype)
    kernels = kernels_of(layer((1, 1), (1, 3)), x, np.zeros((3, 3, 5, 4), dtype)).kernels
    kernel = kernels[0]
    assert kernel.source.phases == 3
    stage = Stage(parse_config("tw4"), kernel, 0, (0, 1024))
    _, height, width, _ = kernel.out.shape
    stored = np.zeros(kernel.out.nbytes, int)
    whole = (0, height, (0, width))
    for first, last, across in ((0, 4, (2, 9)), (2, height, (5, 12)), (1, 5, (0, 4)), whole):
        for op in stage.rows(0, first, last, across):
            if op.name == "store":
                f = op.values
                for i, j in product(range(f["c2"]), range(f["c1"])):
                    at = op.offset + i * f["s2"] + j * f["s1"]
                    stored[at : at + f["c0"]] += 1
        seen = stored.reshape(height, width, -1)[:, :, 0] > 0
        places = [c % 3 * (width // 3) + c // 3 for c in range(*across)]
        assert seen[first:last, places].all()
    assert stored.min() == 1
