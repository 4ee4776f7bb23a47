"""Command fuzz: random programs on several engines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tilewright.cli import chip_option, json_option, print_json

if TYPE_CHECKING:
    from tilewright.fuzz import Outcome


def seed_of(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """A seed option's number; "commit" takes it from HEAD's hash."""
    from tilewright.fuzz import commit_seed

    try:
        return commit_seed() if value == "commit" else int(value, 0)
    except ValueError as error:
        said = str(error) if value == "commit" else f"must be a number or 'commit', not {value!r}"
        raise click.BadParameter(said, ctx, param) from None


def _engines(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    from tilewright.sim import ENGINES

    names = tuple(name.strip() for name in value.split(","))
    wrong = [n for n in names if n not in ENGINES]
    if wrong or len(set(names)) != len(names):
        raise click.BadParameter(f"must be some of {','.join(ENGINES)}, not {value!r}", ctx, param)
    return names


def _groups(names: list[str]) -> str:
    """Names of bins, those with the same start in one line."""
    lines: dict[str, list[str]] = {}
    for name in names:
        start, _, rest = name.rpartition("/")
        lines.setdefault(start, []).append(rest)
    return "\n".join(f"  {start}: {', '.join(rest)}" for start, rest in lines.items())


def _print(outcome: Outcome, files: list[Path], show_bins: bool) -> None:
    from tilewright.sim.generate import all_bins

    engines, missed = ", ".join(outcome.engines), outcome.missed
    click.echo(
        f"{outcome.programs} programs for {outcome.config.name}, seed {outcome.seed}, on {engines}:"
        f" {len(outcome.failures) or 'no'} with differences in bytes, counters, cycles or faults "
        f"({outcome.faults} end in a fault)"
    )
    for failure, file in zip(outcome.failures, files, strict=True):
        click.echo(f"seed {failure.seed}: {file} ({len(failure.program)} of "
                   f"{failure.instructions} instructions)")  # fmt: skip
        for text in failure.what:
            click.echo(f"  {text}")
    if outcome.racy_programs:
        found = outcome.racy_programs - len(outcome.racy_missed)
        click.echo(f"racy: the checker found {found} of {outcome.racy_programs}")
        for text in outcome.racy_missed:
            click.echo(f"  missed: {text}")
    every = all_bins(outcome.config)
    click.echo(f"bins: {len(every) - len(missed)} of {len(every)} hit")
    if show_bins:
        click.echo("hit:")
        click.echo(_groups([b for b in every if b in outcome.hit]))
    if missed:
        click.echo("missed:")
        click.echo(_groups(missed))


@click.command()
@chip_option(default="tw4", show_default=True)
@click.option("--count", type=click.IntRange(1), default=100, show_default=True, help="Programs.")
@click.option("--seed", callback=seed_of, default="0", show_default=True, metavar="N|commit",
              help="Seed of the first program; 'commit' takes it from HEAD's hash.")  # fmt: skip
@click.option("--engines", callback=_engines, default="functional,cycle,rtl", show_default=True,
              help="Engines that must agree.")  # fmt: skip
@click.option("--racy", is_flag=True, help="Also make each program racy: the checker must see it.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("fuzz"),
              show_default=True, help="Folder for failing programs.")  # fmt: skip
@click.option("--bins", "show_bins", is_flag=True, help="List the bins that were hit, too.")
@json_option
@click.pass_context
def fuzz(ctx: click.Context, config: Any, count: int, seed: int, engines: tuple[str, ...],
         racy: bool, out: Path, show_bins: bool, as_json: bool) -> None:  # fmt: skip
    """Run random programs on several engines; exit code 1 if they disagree.

    A failing program is shrunk and written as program file and as text.

    \b
    Examples:
        tilewright fuzz --config tw4 --count 200 --seed commit
        tilewright fuzz --engines functional,cycle --racy
        tilewright fuzz --config dim=2,spad_kib=4,acc_kib=2 --count 50 --json
    """
    from rich.console import Console
    from rich.progress import Progress
    from tilewright import fuzz as fuzzer
    from tilewright.isa.disassembler import disassemble_program

    quiet = as_json or not sys.stderr.isatty()
    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task("programs", total=count)
        outcome = fuzzer.fuzz(
            config, count, seed, engines, with_racy=racy, progress=lambda: bar.advance(task)
        )
    files = []
    for failure in outcome.failures:
        out.mkdir(parents=True, exist_ok=True)
        file = out / f"{config.name.replace(',', '_').replace('=', '')}-{failure.seed}.tw"
        failure.program.save(file)
        file.with_suffix(".s").write_text(disassemble_program(failure.program), encoding="utf-8")
        files.append(file)
    if as_json:
        print_json({
            "ok": outcome.ok,
            "config": config.geometry,
            "seed": seed,
            "engines": list(engines),
            "programs": outcome.programs,
            "faults": outcome.faults,
            "failures": [
                {"seed": f.seed, "what": list(f.what), "file": str(p),
                 "instructions": len(f.program)}
                for f, p in zip(outcome.failures, files, strict=True)
            ],
            "racy": {"programs": outcome.racy_programs, "missed": outcome.racy_missed},
            "bins": {"hit": sorted(outcome.hit), "missed": outcome.missed},
        })  # fmt: skip
    else:
        _print(outcome, files, show_bins)
    if not outcome.ok:
        ctx.exit(1)
