"""Command report: where the cycles of a program file went."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from tilewright.cli import chip_option, json_option, print_json, program_argument, read_program
from tilewright.cli_programs import fill_inputs, inputs_option

_file = click.Path(path_type=Path, dir_okay=False)


@click.command()
@program_argument
@click.option("--engine", type=click.Choice(("cycle", "rtl")), default="cycle", show_default=True,
              help="What counts the cycles.")  # fmt: skip
@chip_option(default=None, help="The chip of assembly that has no .config line.")
@inputs_option
@click.option("--listing", type=_file, metavar="FILE", help="Write the assembly with its cycles.")
@click.option("--html", type=_file, metavar="FILE", help="Write the report as one HTML file.")
@click.option("--picture", type=_file, metavar="FILE.png", help="Write the timeline.")
@json_option
def report(file: Path, engine: str, config: Any, inputs: tuple[str, ...], listing: Path | None,
           html: Path | None, picture: Path | None, as_json: bool) -> None:  # fmt: skip
    """Run a program and say where its cycles went: each unit, each cause, the largest losses.

    Inputs that are not given are zero; cycles depend on them only where they decide the course.

    \b
    Examples:
        tilewright report program.tw
        tilewright report program.tw --listing program.lst --picture program.png
        tilewright report program.tw --json
    """
    from tilewright import sim
    from tilewright.course import reads_words, words_read
    from tilewright.profiler import Profile, ProgramRun
    from tilewright.runs import fault_error
    from tilewright.sim import checker

    program = read_program(file, config)
    memory = fill_inputs(program, inputs)
    checker.check(program, memory).require()
    loaded = replace(program, data=())  # it is in memory, under the inputs
    before = memory.snapshot() if reads_words(program.code) else None
    result = sim.run(loaded, memory, engine=engine, check=False)
    if result.fault is not None:
        raise fault_error(program, result.fault, str(file))
    profile = Profile()
    name = str(program.meta.get("name") or file.stem)
    words = words_read(loaded, before) if before else ()
    profile.runs.append(ProgramRun.of(name, str(file), program, result, words))
    if listing is not None:
        listing.write_text(profile.listing(), encoding="utf-8")
    if html is not None:
        profile.save(html)
    if picture is not None:
        profile.timeline(picture)
    if as_json:
        print_json(profile.to_dict())
    else:
        click.echo(profile.report())
