"""Command bench: engines, gemm."""

from __future__ import annotations

from typing import Any

import click
from tilewright.cli import chip_option, json_option, print_json

#: (M, N, K) of DESIGN.md's table.
SHAPES = (
    (512, 512, 512), (12544, 256, 64), (12544, 64, 256), (3136, 512, 128), (3136, 128, 512),
    (784, 1024, 256), (128, 128, 128), (64, 64, 64),
)  # fmt: skip


@click.group()
def bench() -> None:
    """Measure the engines' speed, and how busy compiled programs keep the array.

    \b
    Examples:
        tilewright bench engines
        tilewright bench gemm 512 512 512 --engine rtl
    """


def _say(text: str) -> None:
    click.echo(f"{text} ...", err=True)


@bench.command()
@chip_option(default="tw16", show_default=True)
@json_option
def engines(config: Any, as_json: bool) -> None:
    """Measure the RTL engine against the bare array, and the cycle engine against NumPy.

    Takes one or two minutes: the RTL engine is built anew, in a temporary cache.

    \b
    Examples:
        tilewright bench engines
        tilewright bench engines --config tw8 --json
    """
    from tilewright import bench as b

    found = b.rtl_speed(config, _say) | b.cycle_speed(config, _say)
    if as_json:
        print_json({"config": config.geometry, **found})
        return

    def line(what: str, value: str, reach: str, ok: bool) -> None:
        click.echo(f"{what:<40} {value:>14}   {reach:<16} {'ok' if ok else 'MISSED'}")

    def plain(what: str, value: str) -> None:
        click.echo(f"{what:<40} {value:>14}")

    idle, first = found["idle_cycles_per_second"], found["build_seconds"]
    click.echo(f"{config.name}, {b.SIZE} x {b.SIZE} x {b.SIZE}")
    line("RTL engine, first build (s)", f"{first:.1f}", f"<= {b.BUILD_SECONDS:.0f}",
         first <= b.BUILD_SECONDS)  # fmt: skip
    plain("RTL engine, cached build (s)", f"{found['cached_build_seconds']:.3f}")
    for kind in b.kinds_of(config):
        ratio = found[f"{kind}_busy_ratio"]
        plain(f"RTL engine, {kind} array busy (cycles/s)",
              f"{found[f'{kind}_busy_cycles_per_second']:,.0f}")  # fmt: skip
        plain(f"bare array, {kind} (cycles/s)",
              f"{found[f'{kind}_bare_array_cycles_per_second']:,.0f}")  # fmt: skip
        line("  ratio", f"{100 * ratio:.1f} %", f">= {100 * b.BUSY_RATIO:.0f} %",
             ratio >= b.BUSY_RATIO)  # fmt: skip
    line("RTL engine, array idle (cycles/s)", f"{idle:,.0f}", f">= {b.IDLE_RATE:,.0f}",
         idle >= b.IDLE_RATE)  # fmt: skip
    plain("np.matmul float32 (MAC/s)", f"{found['numpy_macs_per_second']:.3g}")
    plain("cycle engine, int8, with results (MAC/s)", f"{found['cycle_macs_per_second']:.3g}")
    share = found["cycle_ratio"]
    line("  ratio", f"1/{1 / share:.1f}", ">= 1/16", share >= b.CYCLE_RATIO)
    plain("  timings remembered (MAC/s)", f"{found['cycle_warm_macs_per_second']:.3g}")
    plain("  ratio", f"1/{1 / found['cycle_warm_ratio']:.1f}")


@bench.command()
@click.argument("sizes", nargs=-1, type=click.IntRange(1), metavar="[M N K]")
@chip_option(default="tw16", show_default=True)
@click.option("--engine", type=click.Choice(("cycle", "rtl")), default="cycle", show_default=True,
              help="What counts the cycles.")  # fmt: skip
@json_option
def gemm(sizes: tuple[int, ...], config: Any, engine: str, as_json: bool) -> None:
    """Utilisation of int8 products with requantised int8 output, straight from jit.

    Without sizes: all of DESIGN.md's table.

    \b
    Examples:
        tilewright bench gemm
        tilewright bench gemm 512 512 512 --engine rtl
    """
    if len(sizes) not in (0, 3):
        raise click.UsageError(f"sizes must be M N K, not {len(sizes)} numbers")
    from tilewright.bench import gemm_utilisation

    rows = []
    if not as_json:
        click.echo(f"int8 on {config.name}, {engine} engine")
        click.echo(f"{'M':>6} {'N':>6} {'K':>6} {'cycles':>11} {'utilisation':>12} {'roofline':>9}")
    for m, n, k in [sizes] if sizes else SHAPES:
        row = gemm_utilisation(config, engine, m, n, k)
        rows.append(row)
        if not as_json:
            click.echo(
                f"{m:>6} {n:>6} {k:>6} {row['cycles']:>11,} {100 * row['utilisation']:>10.2f} % "
                f"{100 * row['roofline_utilisation']:>7.2f} %"
            )
    if as_json:
        print_json({"config": config.geometry, "engine": engine, "gemm": rows})
