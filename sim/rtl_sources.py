"""Verilog for what lies above `sim`: the chip, and the bare array that `bench` compares with.

The one place besides `rtl_build` which imports `tilewright.hw`, and only when it is called.
"""

from __future__ import annotations

import os

from tilewright.isa.config import ChipConfig


def chip_sources(config: ChipConfig) -> dict[str, str]:
    """All sources of a chip: file name -> Verilog text; the top module is `tilewright`."""
    from tilewright.hw.verilog import export

    return export(config)


def array_sources(config: ChipConfig) -> dict[str, str]:
    """All sources of the array alone; the top module is `tilewright`, its clock `array_clk`."""
    os.environ.setdefault("AMARANTH_USE_YOSYS", "builtin")
    from amaranth.back import verilog
    from tilewright.hw.array import Array, array_verilog_sources

    array = Array(config.dim)
    ports = [member for _, _, member in array.signature.flatten(array)]
    text = verilog.convert(array, name="tilewright", emit_src=False, ports=ports)
    return {"tilewright.v": text, **array_verilog_sources(config.dim)}
