"""Functional coverage of the exported chip: ``python tests/cocotb/chip_coverage.py`` runs the
simulations, merges what they covered, and prints the table (`--full`: the long ones, `--json`).

Bins come from three places. Programs: `sim.gen_bins`, opcode x mode x what else matters. Pins: the
events of `monitor`, counted in every cycle. Tests: each fault, abort and reset in each phase,
interrupts, debugging. A bin that stays empty fails `test_chip.py`.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

import monitor
import simulators
from tilewright.isa.config import parse_config
from tilewright.sim.generate import ALL_BINS, all_bins, bins, generate

SMALL = "dim=2,spad_kib=4,acc_kib=2"
CANDIDATES = range(400)  # seeds of random programs
UNITS = ("load/", "matmul/", "store/")
#: Bins of programs that are few enough for the default run.
SHORT = ("scalar/", "fault/")
ALL_MODULES = ("chip_tests", "chip_faults", "chip_debug", "chip_last")


@dataclass(frozen=True)
class Run:
    """One simulation of the chip.

    Parameters
    ----------
    gated : the clocks that may rest do.
    every : random programs until every bin is hit, else every mode and scalar instruction.
    part : (i, n): the i-th of n shares of the random programs.
    """

    name: str
    simulator: str
    config: str = SMALL
    gated: bool = False
    modules: tuple[str, ...] = ALL_MODULES
    gaps: tuple[int, ...] = (0, 3)
    every: bool = False
    part: tuple[int, int] = (0, 1)
    full: bool = False

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the random programs."""
        i, n = self.part
        return programs(self.config, self.every)[i::n]


RUNS = (
    Run("verilator", "verilator", part=(0, 2)),
    Run("verilator-gated", "verilator", gated=True, modules=("chip_tests", "chip_last"),
        gaps=(12,), part=(1, 2)),
    Run("icarus", "icarus", gated=True, gaps=(3,), part=(0, 6)),
    Run("verilator-long", "verilator", gated=True, gaps=(0, 3, 12), every=True, full=True),
    Run("icarus-long", "icarus", gaps=(0, 3, 12), part=(0, 1), full=True),
    Run("tw4-long", "verilator", "tw4", gaps=(0, 3, 12), every=True, full=True),
    Run("tw4-icarus-long", "icarus", "tw4", gated=True, gaps=(0, 12), full=True),
)  # fmt: skip


def modes(names: Iterable[str]) -> set[str]:
    """The unit and its mode out of names of bins, and those of SHORT."""
    names = list(names)
    short = {name for name in names if name.startswith(SHORT)}
    return short | {"/".join(n.split("/")[:2]) for n in names if n.startswith(UNITS)}


@cache
def programs(text: str, every: bool) -> tuple[int, ...]:
    """Seeds that together cover every bin (or every mode), each one needed when it was taken."""
    config = parse_config(text)
    reduce = set if every else modes
    found = {seed: reduce(bins(generate(seed, config).program)) for seed in CANDIDATES}
    hit, out = set(), []
    while found:
        best = max(found, key=lambda seed: (len(found[seed] - hit), -seed))
        if not found[best] - hit:
            break
        out.append(best)
        hit |= found.pop(best)
    return tuple(out)


def simulate(run: Run, folder: Path) -> simulators.Result:
    """Build, if needed, and run."""
    work = simulators.chip(run.config, run.simulator)
    settings = {"config": run.config, "gated": run.gated, "seeds": run.seeds, "gaps": run.gaps,
                "long": run.full}  # fmt: skip
    return simulators.simulate(
        work, run.simulator, monitor.TOP, list(run.modules), settings, folder
    )


def required(full: bool) -> set[str]:
    """Bins of programs that must be hit; those of pins and tests come with a run's result."""
    config = parse_config(SMALL)
    return set(all_bins(config)) if full else modes(ALL_BINS) & modes(all_bins(config))


def merge(results: Iterable[dict[str, int]], full: bool) -> dict[str, int]:
    """How often each bin that must be hit was hit."""
    total = Counter(dict.fromkeys(required(full), 0))
    for counts in results:
        for name, count in counts.items():
            total[name] += count
            for mode in modes([name]) - {name}:
                total[mode] += count
    ours = required(full) | {n for n in total if n.split("/")[0] in OWN}
    return {name: total[name] for name in sorted(ours - monitor.IMPOSSIBLE)}


#: First parts of the names of bins of pins and tests.
OWN = ("axi", "response", "chip_fault", "abort", "reset", "interrupt", "debug")


def table(counts: dict[str, int]) -> str:
    """The report: bins and hits by group, and the empty ones."""
    groups: dict[str, list[str]] = {}
    for name in counts:
        groups.setdefault("/".join(name.split("/")[: 2 if name.startswith("axi") else 1]), [])
        groups["/".join(name.split("/")[: 2 if name.startswith("axi") else 1])].append(name)
    lines = [f"{'group':<20} {'hit':>5} {'bins':>5} {'least':>8}  least hit"]
    for group, names in groups.items():
        hit = sum(counts[name] > 0 for name in names)
        least = min(names, key=lambda n: counts[n])
        lines.append(f"{group:<20} {hit:>5} {len(names):>5} {counts[least]:>8}  {least}")
    empty = [name for name, count in counts.items() if not count]
    lines.append(f"{'all':<20} {len(counts) - len(empty):>5} {len(counts):>5}")
    return "\n".join([*lines, *(f"empty: {name}" for name in empty)])


def main(arguments: list[str]) -> int:
    """Run, merge, print."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--full", action="store_true", help="the long simulations")
    parser.add_argument("--json", action="store_true", help="counts as JSON")
    options = parser.parse_args(arguments)
    results, failed = [], 0
    for run in RUNS:
        if run.full != options.full:
            continue
        if run.simulator == "icarus" and not simulators.icarus_is_here():
            print(f"{run.name}: left out, it {simulators.NO_ICARUS}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            result = simulate(run, Path(folder))
        print(f"{run.name}: {result.passed} tests passed, {len(result.failures)} failed, "
              f"{len(run.seeds)} random programs, {result.cycles} cycles, "
              f"{result.seconds:.0f} s", file=sys.stderr)  # fmt: skip
        for failure in result.failures:
            print(f"  {failure}", file=sys.stderr)
        failed += bool(result.failures)
        results.append(result.bins)
    counts = merge(results, options.full)
    print(json.dumps(counts, indent=1) if options.json else table(counts))
    return 1 if failed or not all(counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
