"""Verilator and Icarus under cocotb: builds that are kept, runs, and what a run gave.

Initial values are taken out of the Verilog: only reset may put the chip in order. Icarus starts all
registers and memories as X, Verilator as random bits. Icarus gets Amaranth's plain Verilog,
Verilator the text that the RTL engine uses. A build is kept in the user's cache, one for each state
of the sources.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import monitor
from amaranth.back import verilog
from cocotb_tools.runner import get_runner
from tilewright.hw.array import array_verilog_sources
from tilewright.hw.chip import Chip
from tilewright.hw.verilog import export
from tilewright.isa.config import ChipConfig, parse_config
from tilewright.sim.rtl_build import build_key, cache_dir, tool_env

HERE = Path(__file__).parent
SETTINGS = "TILEWRIGHT_COCOTB"  # environment variable: JSON for the tests in the simulator
NO_ICARUS = "needs Icarus Verilog: apt-get install iverilog"
KEPT = 12  # builds
CYCLE = 10  # ns
TIMESCALE = ("1ns", "1ps")
# cocotb asks for --public-flat-rw, which keeps every signal and is slow: the ports are enough
VERILATOR = shlex.split(
    "--no-public-flat-rw --x-assign unique --x-initial unique --no-timing -Wno-fatal -Wno-WIDTH "
    "-Wno-CASEINCOMPLETE -Wno-UNOPTFLAT --output-split 20000 --output-split-cfuncs 2000"
)
MAKE = "OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O0"


def icarus_is_here() -> bool:
    """Whether Icarus is installed."""
    return shutil.which("iverilog") is not None


def powered_up(text: str) -> str:
    """Verilog without initial values.

    Yosys' tables (memories without a write) stay. So do its triggers, registers that shall wake
    each `always @*` at the start: they must change after all blocks have begun to wait.
    """

    def unless_table(block: re.Match) -> str:
        name = block[1]
        write = rf"{re.escape(name)} ?\[[^\]]*\] ?(\[[^\]]*\])? ?<= "
        written = re.search(write, text)
        return "" if written else block[0]

    text = re.sub(r"^(  reg (?:\[[\d:]+\] )?(?!\S*dump_module)\S+ ?) = [^;]+;", r"\1;", text,
                  flags=re.MULTILINE)  # fmt: skip
    text = re.sub(r"^  initial begin\n +(\S+?) ?\[.*?^  end\n", unless_table, text,
                  flags=re.MULTILINE | re.DOTALL)  # fmt: skip
    text = re.sub(r"^  reg (\S*dump_module\S* ) = 0;", r"  reg \1; initial \1 <= 0;", text,
                  flags=re.MULTILINE)  # fmt: skip
    return re.sub(r"^  initial for .*;\n", "", text, flags=re.MULTILINE)


def plain(design, name: str) -> str:
    """Amaranth's own Verilog of a component."""
    with patch.dict(os.environ, {"AMARANTH_USE_YOSYS": "builtin"}):
        return verilog.convert(design, name=name, emit_src=False)


def chip_sources(config: ChipConfig, simulator: str) -> dict[str, str]:
    """File name -> Verilog of the chip in its monitor."""
    if simulator == "icarus":
        texts = {"chip.v": plain(Chip(config), monitor.CHIP)}
        texts |= array_verilog_sources(config.dim, fast=False)
    else:
        texts = export(config)
    return {f"{monitor.TOP}.v": monitor.verilog(config)} | {
        name: powered_up(text) for name, text in texts.items()
    }


def build(simulator: str, top: str, key: str, sources) -> Path:
    """The folder of a simulator of module `top`, built there unless it is kept.

    Parameters
    ----------
    key : what the sources depend on, besides this project's own `hw/` and `isa/`.
    sources : gives file name -> Verilog; only called for a new build.
    """
    digest = hashlib.sha256(f"{key} {simulator} {top} {VERILATOR} {MAKE}".encode())
    digest.update(Path(__file__).read_bytes() + Path(monitor.__file__).read_bytes())
    # a build is linked to the libraries of the cocotb that made it
    digest.update(f"{importlib.metadata.version('cocotb')} {sys.prefix}".encode())
    root = cache_dir().parent / "cocotb"
    work = root / digest.hexdigest()[:16]
    work.mkdir(exist_ok=True, parents=True)
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (work / "built").exists():
            _compile(simulator, top, work, sources())
            (work / "built").touch()
            _forget(root)
    (work / "built").touch()
    return work


def _compile(simulator: str, top: str, work: Path, sources: dict[str, str]) -> None:
    arguments, env = [], dict(os.environ)
    if simulator == "verilator":
        sources = {"ports.vlt": _public_ports(sources, top), **sources}
        arguments, env = VERILATOR, tool_env()
        env["MAKEFLAGS"] = f"{env['MAKEFLAGS']} {MAKE}"
    else:
        arguments = ["-g2012"]
    for name, content in sources.items():
        (work / name).write_text(content)
    with patch.dict(os.environ, env):
        get_runner(simulator).build(
            sources=[work / name for name in sources], hdl_toplevel=top, build_dir=work,
            build_args=arguments, timescale=TIMESCALE, always=True, log_file=work / "build.log",
        )  # fmt: skip


def _public_ports(sources: dict[str, str], top: str) -> str:
    """Verilator's control file that lets cocotb see the top module's ports."""
    texts = "\n".join(sources.values())
    ports = re.search(rf"^module {top}\((.*?)\);", texts, re.MULTILINE | re.DOTALL)[1]
    found = re.findall(r"(\w+)\s*(?:,|$)", ports)
    lines = [f'public_flat_rw -module "{top}" -var "{name}"' for name in found]
    return "\n".join(["`verilator_config", *lines, ""])


def _forget(root: Path) -> None:
    """Keep the builds that were used last."""
    built = sorted(root.glob("*/built"), key=lambda p: p.stat().st_mtime)
    for mark in built[:-KEPT]:
        shutil.rmtree(mark.parent, ignore_errors=True)


@dataclass
class Result:
    """Of one simulation: names and messages of failed tests, the log's end, coverage, effort."""

    failures: list[str]
    log: str = ""
    bins: dict[str, int] = field(default_factory=dict)
    passed: int = 0
    seconds: float = 0.0
    cycles: int = 0

    def check(self) -> None:
        """Raise `AssertionError` with what failed."""
        if self.failures:
            raise AssertionError("\n".join([*self.failures, self.log]))


def simulate(
    work: Path, simulator: str, top: str, modules: list[str], settings: dict, folder: Path, seed=1
) -> Result:
    """Run all cocotb tests of some modules."""
    folder.mkdir(parents=True, exist_ok=True)
    log, results, bins = (folder / n for n in ("simulation.log", "results.xml", "bins.json"))
    given = settings | {"bins": str(bins), "simulator": simulator}
    # Verilator: registers and memories start as random bits
    random = [f"+verilator+seed+{seed}", "+verilator+rand+reset+2"]
    failures = []
    before = sys.path[:]
    sys.path.insert(0, str(HERE))  # the simulator's Python takes it over
    try:
        get_runner(simulator).test(
            test_module=modules, hdl_toplevel=top, hdl_toplevel_lang="verilog", build_dir=work,
            test_dir=folder, results_xml=str(results), seed=seed, log_file=log,
            plusargs=random if simulator == "verilator" else [], timescale=TIMESCALE,
            extra_env={SETTINGS: json.dumps(given)},
        )  # fmt: skip
    except SystemExit as stop:
        failures.append(f"the simulator stopped with status {stop.code}")
    finally:
        sys.path[:] = before
    out = Result(failures, "\n".join(log.read_text().splitlines()[-60:]))
    if not results.exists():
        out.failures.append("the tests did not begin")
    for case in ElementTree.parse(results).iter("testcase") if results.exists() else ():
        wrong = case.findall("failure") + case.findall("error")
        out.passed += not wrong
        out.seconds += float(case.get("time", 0))
        for p in case.iter("property"):
            if p.get("name") == "sim_time_duration":
                out.cycles += round(float(p.get("value")) / CYCLE)
        for w in wrong:
            out.failures.append(f"{case.get('name')}: {w.get('message') or w.get('error_msg')}")
    if bins.exists():
        out.bins = json.loads(bins.read_text())
    return out


def chip(text: str, simulator: str) -> Path:
    """The simulator of one geometry of the chip."""
    config = parse_config(text)
    return build(simulator, monitor.TOP, build_key(config), lambda: chip_sources(config, simulator))
