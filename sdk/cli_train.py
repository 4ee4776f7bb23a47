"""Command train: networks from random weights, on the chip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from tilewright.cli import chip_option, engine_option, json_option, print_json


@click.command()
@click.argument("network", default="digits", type=click.Choice(("digits", "cnn", "chars")))
@engine_option()
@chip_option(default="tw16", show_default=True)
@click.option("--steps", type=click.IntRange(1), show_default="110, 90 or 80",
              help="How many steps of training.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              default=Path("tilewright-train.png"), show_default=True,
              help="Picture of the loss curve.")  # fmt: skip
@json_option
def train(network: str, engine: str, config: Any, steps: int | None, seed: int, out: Path,
          as_json: bool) -> None:  # fmt: skip
    """Train a network on the simulated chip: one program for each step.

    NETWORK: digits, a dense classifier of handwritten digits; cnn, the same with convolutions;
    chars, a transformer that reads a text letter by letter and writes some in the end.

    \b
    Examples:
        tilewright train
        tilewright train chars
        tilewright train cnn --engine functional --steps 20 --out loss.svg
    """
    from rich.console import Console
    from rich.progress import Progress
    from tilewright import Device
    from tilewright.training import TASKS, draw
    from tilewright.training import train as run

    task = TASKS[network]()
    steps = steps or task.steps
    console = Console(stderr=True)
    with Progress(console=console, disable=as_json or not console.is_terminal) as bar:
        row = bar.add_task("steps", total=steps)

        def progress(loss: float) -> None:
            bar.update(row, advance=1, description=f"loss {loss:.3f}")

        found = run(task, Device(config, engine), steps, seed, progress)
    draw(task, found, out)
    if as_json:
        print_json({"network": network, "engine": engine, "config": config.geometry,
                    "losses": found.losses, "accuracy": found.accuracy,
                    "cycles_per_step": found.cycles, "sample": found.sample,
                    "picture": str(out)})  # fmt: skip
        return
    click.echo(f"loss      {found.losses[0]:.3f} to {found.losses[-1]:.3f} in {steps} steps")
    click.echo(f"accuracy  {100 * found.accuracy:.2f} % of the {task.unseen} that it has not seen")
    if found.cycles is not None:
        click.echo(f"cycles    {found.cycles:,} for a step: forward, backward and Adam")
    if found.sample is not None:
        click.echo(f"it wrote  {found.sample}")
    click.echo(f"picture   {out}")
