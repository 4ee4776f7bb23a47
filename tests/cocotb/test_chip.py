"""cocotb on the exported Verilog: builds the chip with Verilator, runs `chip_tests.py` in it.

The build is kept in pytest's cache, one for each state of the sources and geometry.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import shlex
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest
from cocotb_tools.runner import get_runner
from tilewright.hw.verilog import TOP, export
from tilewright.isa.config import parse_config
from tilewright.sim.generate import ALL_BINS, bins, generate
from tilewright.sim.rtl_build import build_key, tool_env

HERE = Path(__file__).parent
SMALL = "dim=2,spad_kib=4,acc_kib=2"
CANDIDATES = range(64)  # seeds of random programs
# cocotb asks for --public-flat-rw, which keeps every signal and is slow: the ports are enough
VERILATOR = shlex.split(
    "--no-public-flat-rw --x-assign fast --x-initial fast --no-timing -Wno-fatal -Wno-WIDTH "
    "-Wno-CASEINCOMPLETE -Wno-UNOPTFLAT --output-split 20000 --output-split-cfuncs 2000"
)
MAKE = "OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O0"


def modes(names: Iterable[str]) -> set[str]:
    """The unit and its mode out of the names of coverage bins."""
    unit = ("load/", "matmul/", "store/")
    return {"/".join(name.split("/")[:2]) for name in names if name.startswith(unit)}


@cache
def seeds(text: str) -> tuple[int, ...]:
    """Those candidates that cover a mode which no earlier one covers."""
    config, hit, out = parse_config(text), set(), []
    for seed in CANDIDATES:
        new = modes(bins(generate(seed, config).program))
        if new - hit:
            out.append(seed)
            hit |= new
    return tuple(out)


@cache
def build(text: str, folder: Path) -> Path:
    """The simulator of one geometry, built in `folder` unless it is there; gives its place."""
    config = parse_config(text)
    key = hashlib.sha256(f"{build_key(config)} {VERILATOR} {MAKE}".encode())
    key.update(importlib.metadata.version("cocotb").encode())
    work = folder / key.hexdigest()[:16]
    work.mkdir(exist_ok=True)
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (work / "built").exists():
            sources = export(config)
            sources = {"ports.vlt": public_ports(sources[f"{TOP}.v"]), **sources}
            for name, content in sources.items():
                (work / name).write_text(content)
            env = tool_env()
            env["MAKEFLAGS"] = f"{env['MAKEFLAGS']} {MAKE}"
            with patch.dict(os.environ, env):
                get_runner("verilator").build(
                    sources=[work / name for name in sources], hdl_toplevel=TOP, build_dir=work,
                    build_args=VERILATOR, timescale=("1ns", "1ps"), always=True,
                    log_file=work / "build.log",
                )  # fmt: skip
            (work / "built").touch()
    return work


def public_ports(verilog: str) -> str:
    """Verilator's control file that lets cocotb see the top module's ports."""
    ports = re.search(rf"^module {TOP}\((.*?)\);", verilog, re.MULTILINE | re.DOTALL)[1]
    lines = [f'public_flat_rw -module "{TOP}" -var "{name}"' for name in re.findall(r"\w+", ports)]
    return "\n".join(["`verilator_config", *lines, ""])


def failures(results: Path) -> list[str]:
    """Names and messages of the tests that failed in the simulator."""
    out = []
    for case in ElementTree.parse(results).iter("testcase"):
        for failure in case.findall("failure") + case.findall("error"):
            out.append(f"{case.get('name')}: {failure.get('message') or failure.get('error_msg')}")
    return out


def simulate(work: Path, text: str, gated: bool, folder: Path) -> None:
    """Run all of `chip_tests`; fail with the names of those that failed and the log's end."""
    settings = {"config": text, "gated": gated, "seeds": seeds(text)[gated::2]}
    log = folder / "simulation.log"
    results = folder / "results.xml"
    try:
        get_runner("verilator").test(
            test_module="chip_tests", hdl_toplevel=TOP, hdl_toplevel_lang="verilog", build_dir=work,
            test_dir=folder, results_xml=str(results), seed=1, log_file=log,
            extra_env={"TILEWRIGHT_COCOTB": json.dumps(settings)},
        )  # fmt: skip
        broken = []
    except SystemExit as stop:
        broken = [f"the simulator stopped with status {stop.code}"]
    if results.exists():
        broken += failures(results)
    if broken:
        end = "\n".join(log.read_text().splitlines()[-60:])
        pytest.fail("\n".join([*broken, end]), pytrace=False)


@pytest.mark.parametrize("gated", [False, True], ids=["tied", "gated"])
@pytest.mark.parametrize("text", [SMALL, pytest.param("tw4", marks=pytest.mark.full)])
def test_the_exported_verilog_passes_every_cocotb_test(
    text, gated, pytestconfig, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(HERE)
    work = build(text, Path(pytestconfig.cache.mkdir("cocotb")))
    simulate(work, text, gated, tmp_path)


def test_the_random_programs_cover_every_mode_of_every_unit():
    config = parse_config(SMALL)
    hit = set().union(*(modes(bins(generate(seed, config).program)) for seed in seeds(SMALL)))
    assert modes(ALL_BINS) - hit == set()
