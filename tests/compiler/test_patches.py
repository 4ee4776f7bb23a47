"""Convolutions as contractions of their patches: bits, LOADs, and what is refused."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from tilewright import sim
from tilewright.compiler import tile_program
from tilewright.compiler.kernels import Convolve
from tilewright.compiler.patch_product import beside, products
from tilewright.compiler.patches import Patches, boxes
from tilewright.compiler.schedule import Schedule, ScheduleError
from tilewright.compiler.schedule_check import check, slots
from tilewright.compiler.schedule_moves import sample
from tilewright.compiler.tile_contract import problem
from tilewright.compiler.views import Buffer
from tilewright.isa.config import parse_config

from tests.compiler.backend_case import (
    BF16,
    I8,
    LEAST,
    SMALL,
    array,
    assert_same_bits,
    compiled,
    kernels_of,
)
from tests.compiler.test_conv_backend import DTYPES, conv, random_case

NHWC = ("NHWC", "HWIO", "NHWC")


def drawn(config, kernels, random, each):
    """(Kernel number, schedule) of drawn schedules that fit, `each` for each product."""
    pads = tile_program._staged(kernels)
    for number, kernel in enumerate(kernels.kernels):
        if not isinstance(kernel.source, Convolve):
            continue
        chip, seen = beside(config, pads.get(number)), set()
        for product in products(chip, kernel):
            p, lanes, found = problem(product.kernel), product.lanes, 0
            if lanes in seen:
                continue
            seen.add(lanes)
            for _ in range(60):
                s = sample(chip, p.transposed if lanes else p, lanes, random)
                try:
                    check(chip, p, s)
                    slots(chip, p, s)
                except ScheduleError:
                    continue
                found += 1
                yield number, s
                if found == each:
                    break


@pytest.mark.parametrize("config", ["tw4", SMALL, "tw16", "dim=32,spad_kib=64,acc_kib=32", LEAST])
def test_drawn_schedules_keep_bits(config):
    rng, random, count = np.random.default_rng(11), Random(11), 0
    chip = parse_config(config)
    while count < 24:
        lhs, rhs, params = random_case(rng, chip.dim)
        if params["batch_group_count"] > 1 or params["feature_group_count"] > 1:
            continue
        dtype = DTYPES[int(rng.integers(len(DTYPES)))]
        x, w = array(rng, lhs, dtype), array(rng, rhs, dtype)

        def layer(x, w, params=params):
            return conv(x, w, dimension_numbers=NHWC, **params)

        kernels = kernels_of(layer, x, w, config=config)
        for number, s in drawn(chip, kernels, random, 2):
            assert_same_bits(layer, x, w, config=config, schedules={number: s})
            count += 1


def test_boxes_are_the_numbers_of_a_span_in_order():
    rng = np.random.default_rng(2)
    for _ in range(200):
        counts = tuple(map(int, rng.integers(1, 5, rng.integers(1, 4))))
        total = int(np.prod(counts))
        lo, hi = sorted(map(int, rng.integers(0, total + 1, 2)))
        parts = boxes(counts, (lo, hi))
        found = [n for at, box in parts for n in range(at, at + int(np.prod(box)))]
        assert found == list(range(lo, hi))
        for at, box in parts:
            for n, some in zip(counts, box, strict=True):
                assert some == n or at % n + some <= n or some == 1
                at //= n


def test_lanes_are_the_pixels_of_a_span_in_order():
    rng = np.random.default_rng(5)
    for _ in range(200):
        counts = tuple(map(int, rng.integers(1, 6, rng.integers(1, 4))))
        steps = tuple(1000 ** (i + 1) for i in range(len(counts)))
        levels = tuple(zip(counts, steps, strict=True))
        patches = Patches(Buffer("x", (10**12,), I8, "input"), 7, (1, 0), levels, ((1, 1),))
        total = int(np.prod(counts))
        lo, hi = sorted(map(int, rng.choice(total + 1, 2, replace=False)))
        found = patches.lanes_of(0, (lo, hi))
        box = [found.element]
        for n, s in found.levels:
            box = [at + i * s for i in range(n) for at in box]
        pitch, skip, drop = 1, 0, 0
        for (n, _), before, after in zip(found.levels, found.skip, found.drop, strict=False):
            assert 0 <= before < n and 0 <= after < n
            skip, drop, pitch = skip + before * pitch, drop + after * pitch, pitch * n
        index = np.unravel_index(np.arange(lo, hi), counts, order="F")
        elements = 7 + sum(i * s for i, s in zip(index, steps, strict=True))
        assert box[skip : len(box) - drop] == elements.tolist()
        assert found.read() == (elements[0], elements[-1]) and found.count == hi - lo


@pytest.mark.parametrize("dtype", [I8, BF16])
@pytest.mark.parametrize("swap", [False, True])
def test_engines_agree(swap, dtype):
    """Packed and transposed patches: the same bytes and cycles on all engines."""
    rng = np.random.default_rng(3)
    x, w = array(rng, (3, 6, 7, 3), dtype), array(rng, (3, 3, 3, 9), dtype)

    def layer(x, w):
        return conv(x, w, window_strides=(1, 1), padding="SAME", dimension_numbers=NHWC)

    kernels = kernels_of(layer, x, w)
    assert kernels.kernels[-1].source.packing == 3
    s = Schedule(8, 24, 8, swap=True) if swap else Schedule(5, 9, 8, ka=27, a_banks=3)
    back = compiled(layer, x, w, schedules={len(kernels.kernels) - 1: s})
    modes = {(op.fields.get("xpose", 0), op.fields.get("pack")) for op in back.tiles.ops
             if op.name == "load"}  # fmt: skip
    assert ({(1, 2), (1, 3)} if swap else {(0, 2)}) <= modes
    ends = {(n, op.fields.get(n, 0) > 0) for op in back.tiles.ops
            for n in ("skip1", "skip2", "drop1", "drop2")}  # fmt: skip
    assert not swap or len(ends) == 8  # within a row and within an image, or not
    memory = sim.load_memory(back.program)
    for value, port in zip((x, w), back.program.inputs, strict=True):
        memory.write(port.addr, value)
    results = [sim.run(back.program, memory, engine=e) for e in ("functional", "cycle", "rtl")]
    (port,) = back.program.outputs
    first, *others = (bytes(r.memory.read(port.addr, back.kernels.outputs[0].nbytes))
                      for r in results)  # fmt: skip
    assert all(o == first for o in others) and any(first)
    assert results[1].cycles == results[2].cycles


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"swap": False, "kt": 8}, "must be a multiple of the 6 neighbours among the taps"),
    ],
)
def test_refused_schedule_says_what_patches_do_not_allow(change, message):
    x, w = np.zeros((1, 6, 7, 3), BF16), np.zeros((3, 2, 3, 9), BF16)

    def layer(x, w):
        return conv(x, w, window_strides=(1, 1), padding="SAME", dimension_numbers=NHWC)

    s = replace(Schedule(8, 14, 8, swap=True), **change)
    with pytest.raises(ScheduleError, match=message):
        compiled(layer, x, w, schedules={1: s})


def test_tiles_of_large_images_do_not_go_on_in_the_next_one():
    def layer(x, w):
        return conv(x, w, window_strides=(1, 1), padding="VALID", dimension_numbers=NHWC)

    for side, batches in ((180, 1), (190, 2)):
        x, w = np.zeros((2, side, side, 3), I8), np.zeros((3, 3, 3, 5), I8)
        (kernel,) = kernels_of(layer, x, w, config="tw16").kernels
        (found,) = [x for x in products(parse_config("tw16"), kernel) if x.lanes]
        assert problem(found.kernel).batches == batches


def test_columns_among_more_pixels_than_load_counts_are_refused():
    x, w = np.zeros((1, 3, 40002, 1), I8), np.zeros((2, 3, 1, 5), I8)

    def layer(x, w):
        return conv(x, w, window_strides=(1, 1), padding="VALID", dimension_numbers=NHWC)

    with pytest.raises(ScheduleError, match="among 80000 pixels of whole rows and images, LOAD"):
        compiled(layer, x, w, config="tw16", schedules={0: Schedule(5, 4096, 6, swap=True)})


def test_an_image_is_copied_ahead_of_the_tiles_that_read_it():
    x, w = np.zeros((1, 20, 16, 3), I8), np.zeros((3, 3, 3, 5), I8)

    def layer(x, w):
        return conv(x, w, window_strides=(1, 1), padding="SAME", dimension_numbers=NHWC)

    back = compiled(layer, x, w, schedules={1: Schedule(5, 16, 12, "nm", swap=True)})
    first = next(i for i, op in enumerate(back.tiles.ops) if op.name == "matmul")
    copied = [i for i, op in enumerate(back.tiles.ops) if op.name == "store" and op.kernel == 0]
    assert copied[0] < first < copied[-1]


@pytest.mark.parametrize(("o", "lanes"), [(5, True), (4, None)])
def test_few_channels_beyond_a_block_become_rows(o, lanes):
    """5 channels would take 8 columns; with pixels as columns they take 5. 4 take 4."""
    x, w = np.zeros((1, 24, 24, 4), I8), np.zeros((3, 3, 4, o), I8)

    def layer(x, w):
        return conv(x, w, window_strides=(1, 1), padding="SAME", dimension_numbers=NHWC)

    text = str(compiled(layer, x, w).tiles.schedules[-1])
    assert ("swap" in text) == bool(lanes), text
