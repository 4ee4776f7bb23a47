"""The command line, `tilewright`: thin layers over functions that Python users call too.

What a user got wrong is one message without a traceback, and exit code 1 (2 for wrong options);
a traceback is a bug of Tilewright. Commands import what they need when they run, so that
``tilewright --help`` is quick.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import click

#: Command -> (module, the click command in it).
COMMANDS = {
    "demo": ("cli_demo", "demo"),
    "train": ("cli_train", "train"),
    "run": ("cli_programs", "run"),
    "asm": ("cli_programs", "asm"),
    "disasm": ("cli_programs", "disasm"),
    "check": ("cli_programs", "check"),
    "report": ("cli_report", "report"),
    "bench": ("cli_bench", "bench"),
    "fuzz": ("cli_fuzz", "fuzz"),
    "verilog": ("cli_tools", "verilog"),
    "header": ("cli_c", "header"),
    "export-c": ("cli_c", "export_c"),
    "doctor": ("cli_tools", "doctor"),
}


def user_errors() -> tuple[type[BaseException], ...]:
    """The errors that a user can cause; their messages say what, where, and how to mend it."""
    from tilewright.compiler.errors import TilewrightError
    from tilewright.isa.config import ConfigError
    from tilewright.isa.program import ProgramError
    from tilewright.isa.text import AssemblyError
    from tilewright.runs import ChipFaultError
    from tilewright.sim.checker import CheckError
    from tilewright.sim.functional import EndlessProgram
    from tilewright.sim.memory import AddressError
    from tilewright.sim.rtl import RtlError
    from tilewright.sim.rtl_build import RtlUnavailableError

    return (
        AddressError, AssemblyError, CheckError, ChipFaultError, ConfigError, EndlessProgram,
        MemoryError, OSError, ProgramError, RtlError, RtlUnavailableError, TilewrightError,
    )  # fmt: skip


class Commands(click.Group):
    """The group: finds commands when they are asked for, and turns users' errors into messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        return getattr(import_module(f"tilewright.{module}"), name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            known = ", ".join(COMMANDS)
            raise click.UsageError(f"command must be one of {known}, not {args[0]!r}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            raise  # click ends quietly
        except Exception as error:
            if isinstance(error, user_errors()):
                raise click.ClickException(str(error)) from error
            raise


def chip_option(**more: Any) -> Any:
    """``--config``, else ``TILEWRIGHT_CONFIG``; the command gets a ChipConfig, or None."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        from tilewright.isa.config import ConfigError, parse_config

        try:
            return None if value is None else parse_config(value)
        except ConfigError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    what = "tw4, tw8, tw16 or dim=N,spad_kib=N,acc_kib=N[,bus_bytes=N][,array=int8]"
    more.setdefault("help", f"The chip: {what}.")
    return click.option(
        "--config", callback=read, metavar="CHIP", envvar="TILEWRIGHT_CONFIG", **more
    )


def engine_option(**more: Any) -> Any:
    """``--engine``, else ``TILEWRIGHT_ENGINE``."""
    return click.option(
        "--engine",
        type=click.Choice(("functional", "cycle", "rtl")),
        default="cycle",
        envvar="TILEWRIGHT_ENGINE",
        show_default=True,
        help="What executes the program.",
        **more,
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
program_argument = click.argument("file", type=click.Path(path_type=Path))


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2))


def read_program(path: Path, config: Any = None) -> Any:
    """A program from a program file, or from assembly (``.s``, ``.asm``)."""
    from tilewright.isa.assembler import assemble_file
    from tilewright.isa.program import Program

    if path.suffix.lower() in (".s", ".asm"):
        return assemble_file(path, config)
    return Program.load(path)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tilewright")
def main() -> None:
    """Write NumPy; get a checked, cycle-exact program for a systolic-array accelerator.

    \b
    Start with:
        tilewright demo
        tilewright doctor
    """


if __name__ == "__main__":
    main()
