"""What SCALE-Sim is told and what is read from its report; and (`full`) one layer of each kind."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tilewright.isa.config import PRESETS

_path = Path(__file__).parent / "compare_scalesim.py"
_spec = importlib.util.spec_from_file_location("compare_scalesim", _path)
compare = importlib.util.module_from_spec(_spec)
sys.modules["compare_scalesim"] = compare  # dataclasses look their module up
_spec.loader.exec_module(compare)

#: SCALE-Sim 3.0.0 wrote this for 64 x 64 x 64, 128 x 128 x 128 and a 3 x 3 convolution.
HEAD = (
    "LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, Overall Util %,"
    " Mapping Efficiency %, Compute Util %,\n"
)
REPORT = f"""{HEAD}0, 3038, 1759, 0, 58.21489482660603, 100.0, 51.200000000000024,
1, 14207, 11135, 0, 73.5698248765155, 100.0, 67.72486772486772,
2, 43051, 37355, 2508, 75.55615044840049, 100.0, 76.26459143968854,
"""


def test_report_of_a_real_run_is_read():
    found = compare.parse_report(REPORT)
    cycles = [(r.cycles, r.compute_cycles, r.stall_cycles) for r in found]
    assert cycles == [(3038, 1759, 0), (14207, 11135, 0), (43051, 37355, 2508)]
    assert [round(r.own_utilisation, 4) for r in found] == [0.5821, 0.7357, 0.7556]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (REPORT.replace("Stall Cycles", "Stalls"), "must have a column 'Stall Cycles'"),
        (REPORT.replace("\n1, ", "\n5, "), "layers must be numbered 0, 1, 2"),
    ],
)
def test_report_of_another_form_is_refused(text, message):
    with pytest.raises(compare.ScalesimError, match=message):
        compare.parse_report(text)


def test_topology_has_the_six_layers():
    """Rows, columns of the picture; of the window; channels, filters, stride. Pictures padded."""
    head, *rows = compare.topology_text(compare.LAYERS).splitlines()
    assert head.count(",") == 8
    assert rows == [
        "512 x 512 x 512, 512, 512, 1, 512, 1, 512, 1,",
        "3136 x 512 x 128, 3136, 128, 1, 128, 1, 512, 1,",
        "784 x 1024 x 256, 784, 256, 1, 256, 1, 1024, 1,",
        "conv 56 x 56 64 -> 64, 58, 58, 3, 3, 64, 64, 1,",
        "conv 28 x 28 128 -> 128, 30, 30, 3, 3, 128, 128, 1,",
        "conv 14 x 14 256 -> 256, 16, 16, 3, 3, 256, 256, 1,",
    ]


def test_topology_has_the_macs_that_we_count():
    """By SCALE-Sim's formula: pixels of the output x window x filters."""
    for layer in compare.LAYERS:
        rows, columns, high, wide, channels, filters, stride = layer.topology
        pixels = ((rows - high) // stride + 1) * ((columns - wide) // stride + 1)
        assert pixels * high * wide * channels * filters == layer.macs


def test_configuration_is_tw16s():
    """256 KiB of scratchpad for two operands, 64 KiB for the output, 16 bytes per cycle each."""
    lines = compare.config_text(PRESETS["tw16"], "ws").splitlines()
    assert {
        "ArrayHeight = 16", "ArrayWidth = 16", "IfmapSramSzkB = 128", "FilterSramSzkB = 128",
        "OfmapSramSzkB = 64", "Dataflow = ws", "InterfaceBandwidth = USER", "Bandwidth = 16",
        "IfmapSRAMBankBandwidth = 16", "FilterSRAMBankBandwidth = 16",
    } <= set(lines)  # fmt: skip


def test_convolution_that_checks_ours_is_right():
    """One picture of ones, one channel: each pixel counts its neighbours."""
    ones = np.ones((1, 3, 3, 1), np.int8), np.ones((3, 3, 1, 1), np.int8), np.ones(1, np.float32)
    got = compare.Conv(3, 1, 1).expected(*ones)
    assert got[0, :, :, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scalesim")
    try:
        compare.environment(folder)
    except compare.ScalesimError as error:
        pytest.skip(str(error))
    return folder


@pytest.mark.full
def test_one_layer_of_each_kind(environment, capsys):
    """A weight-stationary fold takes 2 rows + columns + T - 2 cycles (SCALE-Sim's paper)."""
    layers = compare.Gemm(32, 16, 16), compare.Conv(4, 16, 16)
    assert compare.main(["--venv", str(environment), "--json"], layers) == 0
    out = json.loads(capsys.readouterr().out)
    gemm, conv = (entry["scalesim"] for entry in out["layers"])
    fold = 2 * 16 + 16 - 2
    assert (gemm["compute_cycles"], gemm["stall_cycles"]) == (fold + 32 - 1, 0)  # from cycle 0
    assert gemm["stall_free_utilisation"] == 32 / (fold + 32 - 1)
    assert conv["compute_cycles"] - conv["stall_cycles"] == 9 * (fold + 16) - 1
    for entry in out["layers"]:
        assert entry["tilewright"]["cycles"] >= entry["macs"] / 256
        assert entry["scalesim"]["cycles"] > entry["scalesim"]["compute_cycles"]
    assert out["versions"]["scalesim"].startswith("3.")
