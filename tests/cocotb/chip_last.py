"""The last test of a simulation writes what was covered: the tests' bins and the monitor's."""

import json
from pathlib import Path

import cocotb
import monitor
from chip_bench import COVER, settings
from tilewright.isa.config import parse_config


@cocotb.test()
async def coverage_is_written(dut):
    config = parse_config(settings()["config"])
    counts = int(dut.counts.value)
    for i, name in enumerate(monitor.events(config)):
        COVER[name] += counts >> monitor.WIDTH * i & (1 << monitor.WIDTH) - 1
    Path(settings()["bins"]).write_text(json.dumps(COVER, sort_keys=True))
