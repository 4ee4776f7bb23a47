"""Commands for firmware: header, export-c."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from tilewright.cli import chip_option, program_argument, read_program

out_option = click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
                          help="Where to write it; standard output by default.")  # fmt: skip


def _write(text: str, out: Path | None) -> None:
    if out is None:
        click.echo(text, nl=False)
        return
    out.write_text(text, encoding="utf-8")
    click.echo(f"{out}: {len(text.splitlines()):,} lines")


@click.command()
@chip_option(default="tw16", show_default=True)
@out_option
def header(config: Any, out: Path | None) -> None:
    """Write the driver for bare-metal firmware: one C99 header with registers and program loader.

    \b
    Examples:
        tilewright header > tilewright.h
        tilewright header --config tw4 --out tilewright.h
    """
    from tilewright.c_source import header as text

    _write(text(config), out)


@click.command("export-c")
@program_argument
@click.option("--name", metavar="NAME", help="The C name; by default the program's, or the file's.")
@chip_option(help="The chip of assembly that names none.")
@out_option
def export_c(file: Path, name: str | None, config: Any, out: Path | None) -> None:
    """Write a program as C arrays, for firmware that includes `tilewright.h`.

    \b
    Examples:
        tilewright export-c digits.tw > digits.h
        tilewright export-c layer.s --name layer --out layer.h
    """
    from tilewright.c_source import c_name, program_source

    program = read_program(file, config)
    if name is not None and name != c_name(name):
        raise click.BadParameter(f"--name must be a C name such as {c_name(name)}, not {name!r}")
    _write(program_source(program, name or c_name(str(program.meta.get("name") or file.stem))), out)
