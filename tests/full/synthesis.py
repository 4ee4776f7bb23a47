"""Size and speed of the chip: Yosys' checks, cells of each unit, place-and-route for ECP5.

    python tests/full/synthesis.py check tw4 tw16    # no latch, no multiple driver, no loop
    python tests/full/synthesis.py cells tw4         # LUTs, flip-flops, multipliers, RAM per unit
    python tests/full/synthesis.py estimate tw4      # the longest paths, before placement
    python tests/full/synthesis.py ecp5 tw4          # the same, then the clock it reaches

The Verilog is `tilewright verilog --plain`. Each unit is synthesised on its own (its boundary is
kept, so that a cell belongs to one unit), then all are flattened and placed. The chip has more
ports than the package has pins: a wrapper feeds all inputs from a shift register and folds all
outputs into another one, so that every path begins and ends in a flip-flop, as in a design around
the chip. All clocks of the chip are one there; its `trace_*` outputs are left open.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from amaranth.lib.wiring import In
from rich.console import Console
from rich.table import Table
from tilewright.hw.chip import GATED, Chip
from tilewright.hw.verilog import TOP, export
from tilewright.isa.config import ChipConfig, parse_config

sys.path.insert(0, str(Path(__file__).parent))  # the modules of this folder name each other plainly
from synthesis_timing import NET_NS, Netlist, TimingPath

#: Modules whose cells are counted apart; what is in none of them counts as its parent's.
UNITS = (
    "acc", "front", "host", "issue", "load", "matmul", "matmul.array", "matmul.foot", "sequencer",
    "spad", "store", "store.epilogue", "vector",
)  # fmt: skip
#: Column -> primitives of ECP5, and how many of the column's things each one is.
PRIMITIVES = {
    "LUT4": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4},
    "carry": {"CCU2C": 2},
    "LUT RAM": {"TRELLIS_DPR16X4": 4},
    "FF": {"TRELLIS_FF": 1},
    "MULT18": {"MULT18X18D": 1},
    "RAM 18k": {"DP16KD": 1, "PDPW16KD": 1},
}
#: `SRAM`'s contract: what is read while it is written is never used, so no bypass is needed; and a
#: bank is block RAM, however small.
BANKS = "tilewright.acc.bank?/m:* tilewright.spad.bank?/m:*"
MEMORIES = (f"setattr -set no_rw_check 1 {BANKS}", f'setattr -set ram_style "block" {BANKS}')
#: LFE5U-85F in its largest package and slowest grade.
DEVICE = ("--85k", "--package", "CABGA756", "--speed", "6")
TARGET_MHZ = 50
PATHS = 12  #: How many paths an estimate prints.
LATCHES = "t:$dlatch t:$adlatch t:$sr t:$dlatchsr t:$_DLATCH_* t:$_SR_*"
RUN = "import sys, {module} as m; sys.exit(m.{run}(sys.argv[1:]))"
#: An instance's register -> the name that the hardware's author gave it.
_CELL = re.compile(r"_(?:TRELLIS_FF|CCU2C|LUT4|L6MUX21|PFUMX|DP16KD|MULT18X18D|TRELLIS_DPR16X4)_.*")


class SynthesisError(RuntimeError):
    """A tool ended with an error; the message has the end of its log."""


def run(tool: str, work: Path, *arguments: str) -> None:
    """Run a tool of YoWASP in folder `work`, whose files it sees by their bare names.

    Raises
    ------
    SynthesisError
        The tool, or an assertion of its script, fails.
    """
    command = [sys.executable, "-c", RUN.format(module=f"yowasp_{tool.replace('-', '_')}",
               run=f"run_{tool.replace('-', '_')}"), *arguments]  # fmt: skip
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        log = f"{done.stdout}{done.stderr}"[-2000:]
        raise SynthesisError(f"{tool} must end with 0, not {done.returncode}:\n{log}")


def yosys(lines: list[str], work: Path) -> None:
    """Run a script."""
    (work / "script.ys").write_text("\n".join(lines) + "\n")
    run("yosys", work, "-q", "script.ys")


def read(config: ChipConfig, work: Path, more: dict[str, str] | None = None) -> list[str]:
    """Write the chip's Verilog to `work`; the commands that read it."""
    sources = export(config, plain=True) | (more or {})
    for name, text in sources.items():
        (work / name).write_text(text)
    return [f"read_verilog {name}" for name in sources]


def check(config: ChipConfig) -> float:
    """Latches, multiple drivers and loops are refused; in modules, then across them. Seconds."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        look = ["check -assert", f"select -assert-none {LATCHES}"]
        top = f"hierarchy -check -top {TOP}"
        yosys([*read(config, work), top, "proc", "opt -fast", *look, "flatten", *look], work)
    return time.monotonic() - began


def wrapper(config: ChipConfig) -> str:
    """Module `top`: the chip between two shift registers."""
    chip = Chip(config)
    chip._MustUse__used = True  # only its ports are looked at: no warning that it is unused
    ports = [("__".join(p), m.flow == In, len(v)) for p, m, v in chip.signature.flatten(chip)]
    clocks = ["clk", *(f"clk_{name}" for name in GATED)]
    pins, at = [f".{name}(clk)" for name in clocks], Counter()
    for name, inward, width in ports:
        if name not in clocks and not name.startswith("trace_"):
            side = "i" if inward else "o"
            pins.append(f".{name}({side}[{at[side]} +: {width}])")
            at[side] += width
    return f"""
module top(input clk, input si, output so);
  reg [{at["i"] - 1}:0] i; reg [{at["o"] - 1}:0] q; wire [{at["o"] - 1}:0] o;
  assign so = q[{at["o"] - 1}];
  always @(posedge clk) begin
    i <= {{i[{at["i"] - 2}:0], si}}; q <= {{q[{at["o"] - 2}:0], 1'b0}} ^ o;
  end
  {TOP} chip({", ".join(pins)});
endmodule
"""


@dataclass
class Cells:
    """Primitives of each unit, without those of the units inside; and the flat netlist."""

    units: dict[str, dict[str, int]]
    seconds: float
    netlist: str = field(repr=False)

    def total(self) -> Counter:
        """Primitives of the chip; the wrapper is not counted."""
        return sum((Counter(c) for c in self.units.values()), Counter())


def synthesise(config: ChipConfig) -> Cells:
    """Map the chip to ECP5, unit by unit."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        modules = [TOP, *(f"{TOP}.{unit}" for unit in UNITS)]
        commands = [
            *read(config, work, {"top.v": wrapper(config)}),
            "hierarchy -check -top top",
            *(f"setattr -mod -set keep_hierarchy 1 {name}" for name in modules),
            *MEMORIES,
            "synth_lattice -family ecp5 -top top",
            "tee -q -o stat.json stat -json",
            "setattr -mod -unset keep_hierarchy *",
            "flatten",
            "opt_clean",
            "write_json flat.json",
        ]
        yosys(commands, work)
        found = json.loads((work / "stat.json").read_text())["modules"]
        netlist = (work / "flat.json").read_text()
    units = {}
    for name in modules:
        types = found[f"\\{name}"]["num_cells_by_type"]
        unit = name.removeprefix(TOP).removeprefix(".") or "chip (slices, glue)"
        units[unit] = {t: n for t, n in types.items() if not t.startswith(TOP)}
    return Cells(units, time.monotonic() - began, netlist)


@dataclass
class Step:
    """What the critical path spends on its way to one signal."""

    unit: str
    name: str
    logic_ns: float = 0.0
    routing_ns: float = 0.0
    cells: int = 0


@dataclass
class Speed:
    """What nextpnr says of the clock, of the slowest path, and of the device."""

    mhz: float
    source: str
    target: str
    steps: list[Step]
    used: dict[str, tuple[int, int]]
    seconds: float


def _register(cell: str) -> tuple[str, str]:
    """(Unit, signal) of a cell that Yosys named after what it drives."""
    path = _CELL.sub("", cell).removeprefix("chip.").split(".")
    known = [n for n in (2, 1) if ".".join(path[:n]) in UNITS]
    cut = known[0] if known else 0
    return ".".join(path[:cut]) or "chip", ".".join(path[cut:])


def place_and_route(cells: Cells, seed: int = 1) -> Speed:
    """Fit the flat netlist into the device.

    Raises
    ------
    SynthesisError
        It does not fit.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "flat.json").write_text(cells.netlist)
        arguments = [
            "--json", "flat.json", "--report", "report.json", "--freq", str(TARGET_MHZ),
            "--timing-allow-fail", "--seed", str(seed), "-q",
        ]  # fmt: skip
        run("nextpnr-ecp5", work, *DEVICE, *arguments)
        report = json.loads((work / "report.json").read_text())
        return _speed(report, time.monotonic() - began)


def _speed(report: dict, seconds: float) -> Speed:
    (clock, reached), *_ = report["fmax"].items()
    path = next(
        p["path"] for p in report["critical_paths"] if clock in p["from"] and clock in p["to"]
    )
    steps: list[Step] = []
    for part in path:
        routing = part["type"] == "routing"
        unit, name = _register(part["to" if routing else "from"]["cell"])
        if not steps or (steps[-1].unit, steps[-1].name) != (unit, name):
            steps.append(Step(unit, name))
        steps[-1].routing_ns += part["delay"] * routing
        steps[-1].logic_ns += part["delay"] * (not routing)
        steps[-1].cells += not routing and part["delay"] > 0
    ends = [_register(path[0]["from"]["cell"]), _register(path[-1]["to"]["cell"])]
    used = {
        name: (n["used"], n["available"]) for name, n in report["utilization"].items() if n["used"]
    }
    return Speed(reached["achieved"], *(": ".join(e) for e in ends), steps, used, seconds)


def fingerprint(config: ChipConfig) -> str:
    """Short hash of the Verilog, so that a figure can be told from another version's."""
    text = "".join(export(config, plain=True).values())
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def column(cells: dict[str, int], name: str) -> int:
    """How many of a table's column a unit has."""
    return sum(n * cells.get(primitive, 0) for primitive, n in PRIMITIVES[name].items())


def cells_table(config: ChipConfig, cells: Cells) -> Table:
    """Cells of each unit, largest first."""
    table = Table(title=f"{config.name} on ECP5")
    table.add_column("unit")
    for name in PRIMITIVES:
        table.add_column(name, justify="right")
    for unit, own in sorted(cells.units.items(), key=lambda u: -column(u[1], "LUT4")):
        table.add_row(unit, *(f"{column(own, name):,}" for name in PRIMITIVES))
    table.add_section()
    total = cells.total()
    table.add_row("all", *(f"{column(total, name):,}" for name in PRIMITIVES))
    return table


def path_table(speed: Speed) -> Table:
    """The critical path, signal by signal."""
    table = Table(title=f"critical path: {speed.source} -> {speed.target}")
    for name in ("unit", "signal"):
        table.add_column(name, overflow="fold")
    for name in ("logic ns", "routing ns", "cells"):
        table.add_column(name, justify="right")
    for s in speed.steps:
        times = (f"{s.logic_ns:.2f}", f"{s.routing_ns:.2f}", str(s.cells))
        table.add_row(s.unit, s.name, *times)
    table.add_section()
    logic, routing = sum(s.logic_ns for s in speed.steps), sum(s.routing_ns for s in speed.steps)
    count = sum(s.cells for s in speed.steps)
    table.add_row("all", f"{logic + routing:.2f} ns", f"{logic:.2f}", f"{routing:.2f}", str(count))
    return table


def estimate_table(paths: list[TimingPath]) -> Table:
    """The longest paths between registers, by estimate."""
    table = Table(title=f"estimated with {NET_NS} ns for each net")
    for name, right in (("ns", True), ("cells", True), ("from", False), ("to", False)):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for path in paths:
        table.add_row(f"{path.nanoseconds:.1f}", str(path.cells), path.source, path.target)
    return table


def main(arguments: list[str]) -> int:
    """Print figures of each configuration; exit code 1 if a check fails or the clock is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("check", "cells", "estimate", "ecp5"))
    parser.add_argument("config", nargs="*", default=["tw4"])
    parser.add_argument("--seed", type=int, default=1, help="of the placement")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    console, good, out = Console(width=100), True, {}
    for config in map(parse_config, options.config):
        figures = out[config.name] = {"verilog": fingerprint(config)}
        if options.what == "check":
            try:
                figures["seconds"] = check(config)
                verdict = f"passes in {figures['seconds']:.0f} s"
            except SynthesisError as error:
                figures["error"], good, verdict = str(error), False, str(error)
            if not options.json:
                console.print(f"{config.name}: check -assert, no latch: {verdict}", markup=False)
            continue
        cells = synthesise(config)
        figures |= {"cells": cells.units, "synthesis_seconds": cells.seconds}
        if not options.json:
            console.print(cells_table(config, cells), f"synthesis took {cells.seconds:.0f} s")
        if options.what == "estimate":
            paths = Netlist(cells.netlist).paths(PATHS)
            figures["paths"] = [asdict(path) for path in paths]
            if not options.json:
                console.print(estimate_table(paths))
        if options.what == "ecp5":
            speed = place_and_route(cells, options.seed)
            figures |= asdict(speed)
            good = good and speed.mhz >= TARGET_MHZ
            if not options.json:
                console.print(path_table(speed))
                for name, (used, there) in speed.used.items():
                    console.print(f"{name}: {used:,} of {there:,}")
                console.print(
                    f"{config.name}: {speed.mhz:.1f} MHz on LFE5U-85F-6, {TARGET_MHZ} wanted; "
                    f"place and route took {speed.seconds:.0f} s"
                )
    if options.json:
        print(json.dumps(out, indent=2))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
