"""Verilog for what lies above `sim`: the chip, and the bare array that `bench` compares with.

The one place besides `rtl_build` which imports `tilewright.hw`, and only when it is called.
"""

from __future__ import annotations

import os

from tilewright.isa.config import ChipConfig

#: The array with registered inputs, as the chip drives it: unregistered pins would be re-evaluated.
_WRAPPER = """
module tilewright(input clk, input rst, input valid, input switch_, input w_valid,
                  input [{bits}:0] a, input [{bits}:0] w, output [{sums}:0] sum);
  reg valid_r, switch_r, w_valid_r; reg [{bits}:0] a_r, w_r;
  always @(posedge clk) begin
    valid_r <= valid; switch_r <= switch_; w_valid_r <= w_valid; a_r <= a; w_r <= w;
  end
  tw_array array(.array_clk(clk), .array_rst(rst), .i_valid(valid_r), .i_a(a_r),
    .i_switch(switch_r), .i_tag(1'b0), .i_w_valid(w_valid_r), .i_w(w_r), .o_valid(), .o_tag(),
    .o_sum(sum));
endmodule
"""


def chip_sources(config: ChipConfig, plain: bool = False) -> dict[str, str]:
    """All sources of a chip: file name -> Verilog text; the top module is `tilewright`."""
    from tilewright.hw.verilog import export

    return export(config, plain)


def array_sources(config: ChipConfig) -> dict[str, str]:
    """All sources of the array alone, behind registered inputs; the top module is `tilewright`."""
    os.environ.setdefault("AMARANTH_USE_YOSYS", "builtin")
    from amaranth.back import verilog
    from tilewright.hw.array import Array, array_verilog_sources

    array = Array(config.dim, kind=config.array)
    ports = [member for _, _, member in array.signature.flatten(array)]
    text = verilog.convert(array, name="tw_array", emit_src=False, ports=ports)
    lane, total = array.column.LANE, array.column.sum_width(config.dim)
    wrapper = _WRAPPER.format(bits=config.dim * lane - 1, sums=config.dim * total - 1)
    sources = {"tilewright.v": wrapper, "tw_array.v": text}
    return sources | array_verilog_sources(config.dim, kind=config.array)
