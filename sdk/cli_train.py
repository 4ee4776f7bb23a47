"""Command train: the digits network from random weights, on the chip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from tilewright.cli import chip_option, engine_option, json_option, print_json


@click.command()
@engine_option()
@chip_option(default="tw16", show_default=True)
@click.option("--steps", default=110, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              default=Path("tilewright-train.png"), show_default=True,
              help="Picture of the loss curve.")  # fmt: skip
@json_option
def train(engine: str, config: Any, steps: int, seed: int, out: Path, as_json: bool) -> None:
    """Train a digit classifier on the simulated chip: one program for each step.

    \b
    Examples:
        tilewright train
        tilewright train --engine functional --steps 20 --out loss.svg
    """
    from rich.console import Console
    from rich.progress import Progress
    from tilewright import Device
    from tilewright.training import draw, train_digits

    console = Console(stderr=True)
    with Progress(console=console, disable=as_json or not console.is_terminal) as bar:
        task = bar.add_task("steps", total=steps)

        def progress(loss: float) -> None:
            bar.update(task, advance=1, description=f"loss {loss:.3f}")

        found = train_digits(Device(config, engine), steps, seed, progress)
    draw(found, out)
    if as_json:
        print_json({"engine": engine, "config": config.geometry, "losses": found.losses,
                    "accuracy": found.accuracy, "cycles_per_step": found.cycles,
                    "picture": str(out)})  # fmt: skip
        return
    click.echo(f"loss      {found.losses[0]:.3f} to {found.losses[-1]:.3f} in {steps} steps")
    click.echo(f"accuracy  {100 * found.accuracy:.2f} % of the images that it has not seen")
    if found.cycles is not None:
        click.echo(f"cycles    {found.cycles:,} for a step: forward, backward and Adam")
    click.echo(f"picture   {out}")
