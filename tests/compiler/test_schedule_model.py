"""The model of schedules is near the exact timing, and cheap for many tiles."""

from random import Random

import numpy as np
import pytest
from tilewright.compiler import refine
from tilewright.compiler.schedule import Schedule
from tilewright.compiler.schedule_model import model, work
from tilewright.compiler.schedule_moves import sample
from tilewright.compiler.tile_contract import problem
from tilewright.isa.config import parse_config

from tests.compiler.backend_case import I8, compiled

SHAPES = ((101, 62, 256), (6, 2, 782), (10, 707, 8), (107, 300, 18), (64, 64, 64))


def kernel_of(m, k, n):
    x, w = np.zeros((m, k), I8), np.zeros((k, n), I8)
    return compiled(lambda x, w: x @ w, x, w, config="tw16").kernels.kernels[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_model_is_near_the_exact_timing(shape):
    config, kernel = parse_config("tw16"), kernel_of(*shape)
    p, search = problem(kernel), refine._Search(config, kernel, 1 << 60)
    rng, off = Random(0), []
    for i in range(40):
        q = p.transposed if i % 4 == 3 else p
        s = sample(config, q, q.turned, rng)
        exact = search.cycles(s)
        if exact is not None:
            off.append(model(config, p, s) / exact - 1)
    assert len(off) >= 10
    assert np.median(np.abs(off)) < 0.015 and np.max(np.abs(off)) < 0.3


def test_model_of_many_rows_walks_few_tiles():
    config, kernel = parse_config("tw16"), kernel_of(12544, 256, 64)
    p, s = problem(kernel), Schedule(64, 64, 256, head=16, tail=15)
    assert work(config, p, s) < 60
    exact = refine._Search(config, kernel, 1 << 60).cycles(s)
    assert abs(model(config, p, s) / exact - 1) < 0.01
