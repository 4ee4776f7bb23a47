"""LOAD's joined runs against `load_model`, among other instructions."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from tilewright.isa.config import ChipConfig


def _sibling(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench = _sibling("load_bench")
model, Load, CONFIGS = bench.model, bench.Load, bench.CONFIGS
Pins, PySim, check, loads_of = bench.Pins, bench.PySim, bench.check, bench.loads_of


@pytest.mark.parametrize("ideal", [True, False])
@pytest.mark.parametrize("name", [*CONFIGS, "wide16"])
def test_joined_runs_are_right_among_others(name, ideal):
    config = CONFIGS.get(name, ChipConfig(dim=16, spad_kib=8, acc_kib=8, bus_bytes=8))
    rng, left = np.random.default_rng(20), 1500
    loads, others = [], loads_of(config, 21, 300)
    while left > 0:
        loads.append(model.joined_load(rng, config))
        left -= loads[-1].slots(config.dim, config.bus_bytes)
        if rng.random() < 0.3:
            loads.append(others[rng.integers(len(others))])
    check(PySim(Pins(config)), config, loads, 22, ideal, gap=0.0)


def test_joined_runs_fetch_a_shared_beat_once():
    config = CONFIGS["dim4"]
    load = Load("COPY8", dram=3, c=(6, 3, 1, 1), s=(6, 0, 0), l=(1, 2, 0, 0))
    # beat 0; then the runs end in beats 2, 3 and 5, and each has two units
    assert list(load.walk(4, 4)) == [[0, 4, 8, 12, None, 16, 20]]
    assert load.bursts(4) == [(0, 6)]
    check(PySim(Pins(config)), config, [load], 23)


@pytest.mark.parametrize("elements", [1, 5, 16])
def test_beats_of_short_joined_runs_wait_on_the_bus(elements):
    config = CONFIGS["dim16"]
    load = Load("COPY8", dram=100, c=(elements, 240, 1, 1), s=(elements, 0, 0), l=(0, 1, 0, 0))
    assert load.slots(16, 16) == 241
    check(PySim(Pins(config)), config, [load, load], 24, gap=0.0)
