"""Verilog of the chip: `python -m tilewright.hw.verilog tw16 > tw16.v`.

The chip is one text; modules that it instances many times (the array's column, lanes of foot and
epilogue, memory banks) are texts of their own. `lazy` and `one_step` rewrite them for the speed
of simulation; `plain` text, for synthesis, is Amaranth's own. Amaranth's builtin Yosys is used
always, so that the text is the same on every machine.
"""

import gc
import os
import sys

from amaranth.back import verilog
from tilewright.hw.array import array_verilog_sources
from tilewright.hw.blackbox import BlackBoxes
from tilewright.hw.chip import Chip
from tilewright.hw.lazy import lazy
from tilewright.isa.config import ChipConfig, ConfigError, parse_config

TOP = "tilewright"


def export(config: ChipConfig, plain: bool = False, keep_names: bool = False) -> dict[str, str]:
    """All sources of one chip: file name -> Verilog text. The top module is `tilewright`.

    With `plain`, nothing is rewritten for the speed of simulation: Verilog 2005 for synthesis. With
    `keep_names`, signals that nothing reads stay, for waves.
    """
    before = os.environ.get("AMARANTH_USE_YOSYS")
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    collecting = gc.isenabled()
    gc.disable()  # Amaranth makes millions of objects that stay: a third of the time
    try:
        boxes = None if plain else BlackBoxes()
        text = verilog.convert(Chip(config), name=TOP, emit_src=False, platform=boxes)
        columns = array_verilog_sources(config.dim, fast=not plain, kind=config.array)
        if boxes is None:
            return {f"{TOP}.v": text, **columns}
        return {f"{TOP}.v": lazy(text, keep_names), **columns, **boxes.sources()}
    finally:
        if collecting:
            gc.enable()
        if before is None:
            del os.environ["AMARANTH_USE_YOSYS"]
        else:
            os.environ["AMARANTH_USE_YOSYS"] = before


def main(arguments: list[str]) -> int:
    """Print the Verilog of one configuration."""
    if len(arguments) != 1:
        print("usage: python -m tilewright.hw.verilog CONFIG", file=sys.stderr)
        return 2
    try:
        config = parse_config(arguments[0])
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(export(config).values()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
