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
    load = Load("COPY8", dram=3, c=(6, 3, 1, 1), s=(6, 0, 0), l=(1, 3, 0, 0))
    # beat 0; then the runs end in beats 2, 3 and 5, and each has two units
    assert list(load.walk(4, 4)) == [[0, 4, 8, 12, None, 16, 20]]
    assert load.bursts(4) == [(0, 6)]
    check(PySim(Pins(config)), config, [load], 23)


@pytest.mark.parametrize(
    ("fields", "slots"),
    [
        # rows of 3 bytes from 3 on, two in a slot: they end in bytes 8, 14 and 17
        ({"c": (3, 5, 1, 1), "l": (0, 1, 0, 0)}, [0, 4, 8, 12, 16]),
        ({"c": (1, 5, 1, 1), "l": (7, 1, 0, 0)}, [0, 4, None, None]),  # bytes 3, 4; 5, 6; 7
        ({"c": (3, 5, 1, 1), "l": (0, 1, 0, 0), "loc": 1}, [0, 4, 8, None, 12, 16]),
        ({"c": (1, 4, 1, 1), "l": (0, 1, 3, 0)}, [0, None, 4, None, None]),
        ({"c": (4, 3, 1, 1), "l": (0, 1, 0, 0)}, [0, 4, 8, 12]),  # a beat each
        # rows of 6 bytes: two units in a slot, so that no row has more slots than new beats
        ({"c": (6, 3, 1, 1), "l": (1, 2, 0, 0)}, [0, 4, 8, 12, 16, 20]),
        ({"c": (6, 3, 1, 1), "l": (2, 4, 0, 0)}, [0, 4, 8, 12, None, 16, 20]),
    ],
)
def test_two_granules_are_written_in_a_slot(fields, slots):
    config = CONFIGS["dim4"]
    load = Load("COPY8", dram=3, s=(fields["c"][0], 0, 0), **fields)
    got = [a for part in load.walk(4, 4) for a in part]
    assert got == slots
    check(PySim(Pins(config)), config, [load], 25)


@pytest.mark.parametrize("elements", [1, 5, 16])
def test_beats_of_short_joined_runs_wait_on_the_bus(elements):
    config = CONFIGS["dim16"]
    load = Load("COPY8", dram=100, c=(elements, 240, 1, 1), s=(elements, 0, 0), l=(0, 1, 0, 0))
    assert load.slots(16, 16) == {1: 121, 5: 121, 16: 241}[elements]
    check(PySim(Pins(config)), config, [load, load], 24, gap=0.0)
