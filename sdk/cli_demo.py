"""Command demo: the digits network on the chip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tilewright.cli import chip_option, engine_option, json_option, print_json

if TYPE_CHECKING:
    from tilewright.demo import Demo


def _rows(demo: Demo, right: dict[str, float]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"network": "NumPy float32", "accuracy": right["float32"]}]
    dim = demo.device.config.dim
    for name, run in zip(demo.logits, demo.profile.runs, strict=True):
        row: dict[str, Any] = {"network": f"chip {name}", "accuracy": right[name]}
        if run.cycles is not None:
            row |= {
                "cycles": run.cycles,
                "utilisation": run.macs / (dim**2 * run.cycles),
                "roofline_utilisation": run.bound / run.cycles,
            }
        rows.append(row)
    return rows


def _table(rows: list[dict[str, Any]]) -> None:
    click.echo(f"{'network':<14} {'accuracy':>9} {'cycles':>9} {'utilisation':>12} {'roofline':>9}")
    for row in rows:
        line = f"{row['network']:<14} {100 * row['accuracy']:>7.2f} %"
        if "cycles" in row:
            line += f" {row['cycles']:>9,} {100 * row['utilisation']:>10.1f} %"
            line += f" {100 * row['roofline_utilisation']:>7.1f} %"
        click.echo(line)


@click.command()
@engine_option()
@chip_option(default="tw16", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              default=Path("tilewright-demo"), show_default=True,
              help="Folder of listing, report and picture.")  # fmt: skip
@json_option
@click.pass_context
def demo(ctx: click.Context, engine: str, config: Any, out: Path, as_json: bool) -> None:
    """Run a digit classifier, written as NumPy, as bf16 and as int8 on the simulated chip.

    With --engine rtl it runs on the cycle engine, too, and every cycle is compared; exit code 1 if
    one differs.

    \b
    Examples:
        tilewright demo
        tilewright demo --engine rtl
        tilewright demo --config tw8 --out /tmp/digits --json
    """
    from tilewright import demo as digits

    nets, labels, reference = digits.networks()
    if not as_json:
        click.echo(
            f"Digits: a 64-128-64-10 network on {len(labels)} images that its training has not\n"
            f"seen, on {config.name}, {engine} engine\n"
        )
    result = digits.run_networks(nets, config, engine)
    right = {"float32": digits.accuracy(reference, labels)}
    right |= {name: digits.accuracy(logits, labels) for name, logits in result.logits.items()}
    rows = _rows(result, right)
    files = digits.write_files(result, out)
    different: list[str] | None = None
    if engine == "rtl":
        other = digits.run_networks(nets, config, "cycle")
        different = digits.demo_differences(other, result)
    if as_json:
        print_json({"engine": engine, "config": config.geometry, "networks": rows,
                    "files": {k: str(v) for k, v in files.items()},
                    "differences": different})  # fmt: skip
    else:
        _table(rows)
        click.echo()
        for what, path in files.items():
            click.echo(f"{what + ':':<9} {path}")
        if different is not None:
            count = sum(len(r.trace) for r in result.profile.runs)
            same = (
                "rtl = cycle: outputs, counters and the start and end cycle of each of "
                f"{count} instructions are equal"
            )
            click.echo("\n" + (same if not different else "rtl and cycle engine differ:"))
            for text in different:
                click.echo(f"  {text}")
    if different:
        ctx.exit(1)
