"""Widths and directions of the chip's pins, from the AMBA AXI and AXI4-Lite specification."""

import pytest
from amaranth.hdl import Shape
from amaranth.lib.wiring import In
from tilewright.hw.chip import GATED, Chip
from tilewright.isa.config import parse_config

# A master's outputs and inputs; addresses have 32 bits, identifiers one, data `d` bytes.
READ_OUT = {"arid": 1, "araddr": 32, "arlen": 8, "arsize": 3, "arburst": 2, "arvalid": 1,
            "rready": 1}  # fmt: skip
WRITE_OUT = {"awid": 1, "awaddr": 32, "awlen": 8, "awsize": 3, "awburst": 2, "awvalid": 1,
             "wlast": 1, "wvalid": 1, "bready": 1}  # fmt: skip
READ_IN = {"arready": 1, "rid": 1, "rresp": 2, "rlast": 1, "rvalid": 1}
WRITE_IN = {"awready": 1, "wready": 1, "bid": 1, "bresp": 2, "bvalid": 1}
LITE_IN = {"awaddr": 12, "awprot": 3, "awvalid": 1, "wdata": 32, "wstrb": 4, "wvalid": 1,
           "bready": 1, "araddr": 12, "arprot": 3, "arvalid": 1, "rready": 1}  # fmt: skip
LITE_OUT = {"awready": 1, "wready": 1, "bresp": 2, "bvalid": 1, "arready": 1, "rdata": 32,
            "rresp": 2, "rvalid": 1}  # fmt: skip


@pytest.mark.parametrize(
    "text, width", [("tw4", 4), ("tw16", 16), ("dim=8,spad_kib=8,acc_kib=8,bus_bytes=2", 2)]
)
def test_every_pin_has_the_width_and_direction_of_the_specification(text, width):
    chip = Chip(parse_config(text))
    pins = {"__".join(map(str, path)): member for path, member, _ in chip.signature.flatten(chip)}
    inward = {name: Shape.cast(m.shape).width for name, m in pins.items() if m.flow == In}
    outward = {name: Shape.cast(m.shape).width for name, m in pins.items() if m.flow != In}
    want_in = {f"host_{n}": w for n, w in LITE_IN.items()}
    want_in |= {f"instr_{n}": w for n, w in (READ_IN | {"rdata": 128}).items()}
    want_in |= {f"data_{n}": w for n, w in (READ_IN | WRITE_IN | {"rdata": 8 * width}).items()}
    want_in |= {"clk": 1, "rst": 1, **{f"clk_{g}": 1 for g in GATED}}
    assert inward == want_in
    want_out = {f"host_{n}": w for n, w in LITE_OUT.items()}
    want_out |= {f"instr_{n}": w for n, w in READ_OUT.items()}
    written = {"wdata": 8 * width, "wstrb": width}
    want_out |= {f"data_{n}": w for n, w in (READ_OUT | WRITE_OUT | written).items()}
    want_out |= {"irq": 1, **{f"busy_{g}": 1 for g in GATED}}
    assert {n: w for n, w in outward.items() if not n.startswith("trace_")} == want_out
