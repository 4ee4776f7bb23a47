"""The exported chip: port names, and the same text every time."""

import re

from tilewright.hw.chip import GATED
from tilewright.hw.verilog import export, main
from tilewright.isa.config import parse_config

SMALL = "dim=2,spad_kib=4,acc_kib=2"


def test_export_is_deterministic_and_has_the_contract_s_ports():
    config = parse_config(SMALL)
    sources = export(config)
    assert sources == export(config)
    text = sources["tilewright.v"]
    top = text[text.index("module tilewright(") :]
    header = top[: top.index(";")]
    ports = set(re.findall(r"\w+", header)) - {"module", "tilewright"}
    axi = {
        "host": "awaddr awprot awvalid awready wdata wstrb wvalid wready bresp bvalid bready "
        "araddr arprot arvalid arready rdata rresp rvalid rready",
        "instr": "arid araddr arlen arsize arburst arvalid arready rid rdata rresp rlast rvalid "
        "rready",
        "data": "arid araddr arlen arsize arburst arvalid arready rid rdata rresp rlast rvalid "
        "rready awid awaddr awlen awsize awburst awvalid awready wdata wstrb wlast wvalid wready "
        "bid bresp bvalid bready",
    }
    want = {f"{p}_{n}" for p, names in axi.items() for n in names.split()}
    want |= {"clk", "rst", "irq", *(f"{x}_{g}" for x in ("clk", "busy") for g in GATED)}
    want |= {"trace_run", "trace_seq_begin", "trace_seq_pc", "trace_seq_end"}
    want |= {"trace_start", "trace_done"}
    want |= {f"trace_id_{u}" for u in ("load", "matmul", "vector", "store")}
    assert ports == want


def test_command_prints_or_refuses(capsys):
    assert main([]) == 2
    assert main(["tw5"]) == 2
    assert "tw5" in capsys.readouterr().err
