"""docs/gemmini.md's table and the tests of this folder name the same things."""

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
#: `tests` of gemmini-rocc-tests' bareMetalC/Makefile.
NAMES = """
mvin_mvout mvin_mvout_zeros mvin_mvout_stride mvin_mvout_block_stride mvin_mvout_acc
mvin_mvout_acc_zero_stride mvin_mvout_acc_stride mvin_mvout_acc_full mvin_mvout_acc_full_stride
matmul_os matmul_ws matmul raw_hazard aligned padded mvin_scale conv conv_with_pool conv_with_rot180
conv_with_kernel_dilation conv_with_input_dilation conv_with_input_dilation_and_rot180
conv_with_input_dilation_and_neg_padding conv_trans_output_1203 conv_trans_weight_1203
conv_trans_weight_0132 conv_trans_input_3120 conv_trans_input_3120_with_kernel_dilation
conv_first_layer conv_dw tiled_matmul_os tiled_matmul_ws tiled_matmul_ws_At tiled_matmul_ws_Bt
tiled_matmul_ws_full_C tiled_matmul_ws_low_D tiled_matmul_cpu tiled_matmul_option
tiled_matmul_ws_perf transpose matrix_add resadd global_average template gemmini_counter
"""
MAKEFILE = NAMES.split()
ROW = re.compile(r"\| `(\w+)` \| (test|no) \| (.+) \|")


@pytest.fixture(scope="module")
def table():
    """Gemmini's name -> (test or no, words)."""
    text = (HERE.parents[1] / "docs" / "gemmini.md").read_text()
    rows = [m.groups() for m in map(ROW.fullmatch, text.splitlines()) if m]
    assert len(rows) == len({name for name, *_ in rows}), "a name stands twice"
    return {name: rest for name, *rest in rows}


def test_each_test_of_gemmini_has_a_row(table):
    assert set(MAKEFILE) - table.keys() == set()
    assert len(MAKEFILE) == 45


def test_rows_and_tests_agree(table):
    found = set()
    for path in HERE.glob("test_*.py"):
        if path.name != Path(__file__).name:
            tree = ast.parse(path.read_text())
            found |= {f.name for f in tree.body if isinstance(f, ast.FunctionDef)}
    tests = {name.removeprefix("test_") for name in found if name.startswith("test_")}
    assert {name for name, (how, _) in table.items() if how == "test"} == tests


def test_what_does_not_apply_has_a_reason(table):
    for name, (how, why) in table.items():
        assert how == "test" or len(why) > 20, name
