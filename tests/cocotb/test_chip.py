"""cocotb on the exported chip: runs `chip_coverage.RUNS`, and no bin of coverage may stay empty.

The default runs take dim 2; `-m full` takes `tw4`, longer pauses, and every bin of the fuzzer.
"""

import fcntl
import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)
coverage = importlib.import_module("chip_coverage")
simulators = importlib.import_module("simulators")
sys.path.remove(HERE)


@pytest.fixture(scope="session")
def result(tmp_path_factory):
    """Simulates a run once in a session, whichever worker asks first."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(run):
        if run.simulator == "icarus" and not simulators.icarus_is_here():
            pytest.skip(simulators.NO_ICARUS)
        folder = root / f"cocotb-{run.name}"
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = folder / "result.json"
            if not kept.exists():
                kept.write_text(json.dumps(asdict(coverage.simulate(run, folder))))
            return simulators.Result(**json.loads(kept.read_text()))

    return get


def marked(run):
    return pytest.param(run, id=run.name, marks=pytest.mark.full if run.full else ())


@pytest.mark.parametrize("run", [marked(run) for run in coverage.RUNS])
def test_the_exported_chip_passes_every_cocotb_test(run, result):
    result(run).check()


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.full)])
def test_no_bin_of_coverage_is_empty(full, result):
    """On Verilator alone: Icarus may be missing."""
    runs = [r for r in coverage.RUNS if r.full == full and r.simulator == "verilator"]
    counts = coverage.merge([result(run).bins for run in runs], full)
    assert [name for name, count in counts.items() if not count] == [], coverage.table(counts)


def test_initial_values_are_taken_out_but_tables_and_triggers_stay():
    text = (
        "  reg \\$auto$x:1:dump_module$1  = 0;\n"
        "  reg [3:0] \\a.b  = 4'h3;\n"
        "  initial begin\n    rom[0] = 1;\n  end\n"
        "  initial begin\n    ram[0] = 1;\n  end\n"
        "      ram[at][7:0] <= x;\n"
    )
    assert simulators.powered_up(text) == (
        "  reg \\$auto$x:1:dump_module$1 ; initial \\$auto$x:1:dump_module$1  <= 0;\n"
        "  reg [3:0] \\a.b ;\n"
        "  initial begin\n    rom[0] = 1;\n  end\n"
        "      ram[at][7:0] <= x;\n"
    )
