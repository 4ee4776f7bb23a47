"""Command bench: engines, gemm, roofline, costmodel."""

from __future__ import annotations

from typing import Any

import click
from tilewright.cli import chip_option, json_option, print_json
from tilewright.cli_fuzz import seed_of

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
        tilewright bench roofline
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


@bench.command()
@chip_option(default="tw16", show_default=True)
@click.option("--engine", type=click.Choice(("cycle", "rtl")), default="cycle", show_default=True,
              help="What counts the cycles.")  # fmt: skip
@click.option("--seed", callback=seed_of, default="0", show_default=True, metavar="N|commit",
              help="Seed of the random products; 'commit' takes it from HEAD's hash.")  # fmt: skip
@click.option("--count", default=60, show_default=True, type=click.IntRange(0),
              help="Random products.")  # fmt: skip
@click.option("--convs", default=40, show_default=True, type=click.IntRange(0),
              help="Random convolutions.")  # fmt: skip
@json_option
def roofline(config: Any, engine: str, seed: int, count: int, convs: int, as_json: bool) -> None:
    """How near to the roofline plain jit comes: DESIGN's table, random products and convolutions.

    The share of a random one is (bound + 300) / cycles. Exit code 1 if anything is missed.

    \b
    Examples:
        tilewright bench roofline
        tilewright bench roofline --engine rtl --seed commit
    """
    from tilewright import bench_convolutions as c
    from tilewright import bench_fused as fused
    from tilewright import bench_lanes as lanes
    from tilewright import bench_roofline as b

    if not as_json:
        click.echo(f"{config.name}, {engine} engine, seed {seed}")
    rows = []
    cases = (
        *b.table_cases(config), *c.table_cases(config), *c.depthwise_cases(config),
        *((*lanes.cases(config), *fused.cases(config)) if config.array == "bf16" else ()),
        *b.random_cases(config, seed, count), *c.random_cases(config, seed, convs),
    )  # fmt: skip
    for case in cases:
        row = b.measure(config, case, engine)
        rows.append(row)
        if not as_json:
            goal = f">= {100 * row.reach:.1f} %" if row.reach else ""
            said = ("ok" if row.ok else "MISSED") if row.reach or not row.ok else ""
            click.echo(f"{row.name:<36} {row.cycles:>10,} {row.bound:>10,} "
                       f"{100 * row.share:>7.2f} % {goal:>10} {said}")  # fmt: skip
            if not row.ok:
                lost = ", ".join(f"{k} {v:,}" for k, v in row.lost.items())
                click.echo(f"    {row.schedule}\n    beyond the bound: {lost}")
    found = b.summary(rows)
    goals = {"median": b.MEDIAN, "worst": b.WORST}
    fine = all(r.ok for r in rows if r.reach)
    fine &= all(x[k] >= goal for x in found.values() for k, goal in goals.items())
    if as_json:
        print_json({"config": config.geometry, "engine": engine, "seed": seed, "random": found,
                    "ok": fine, "rows": [vars(r) | {"ok": r.ok} for r in rows]})  # fmt: skip
    else:
        for group, shares in found.items():
            for k, least in goals.items():
                said = "ok" if shares[k] >= least else "MISSED"
                click.echo(f"{k} of {shares['count']} {group}: {100 * shares[k]:.2f} % "
                           f"(>= {100 * least:.0f} %) {said}")  # fmt: skip
    if not fine:
        raise click.exceptions.Exit(1)


@bench.command()
@chip_option(default="tw16", show_default=True)
@json_option
def costmodel(config: Any, as_json: bool) -> None:
    """How far the analytic cost model is from exact cycles, over a fixed set of products.

    Timed is the formula's first choice, with a head and a tail where they fit, before refinement.

    \b
    Examples:
        tilewright bench costmodel
    """
    from tilewright import bench_roofline as b

    rows = list(b.cost_model(config))
    if as_json:
        print_json({"config": config.geometry, "rows": rows})
        return
    heads = ("formula", "exact", "off", "refined")
    click.echo(f"{config.name:<24}" + "".join(f"{h:>12}" for h in heads))
    for r in rows:
        click.echo(f"{r['name']:<24}{r['formula']:>12,}{r['exact']:>12,}{100 * r['off']:>10.1f} %"
                   f"{r['refined']:>12,}")  # fmt: skip
    off = sorted(abs(r["off"]) for r in rows)
    middle, most = 100 * off[len(off) // 2], 100 * off[-1]
    click.echo(f"off by {middle:.1f} % in the median, {most:.1f} % at most")
