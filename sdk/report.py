"""A profile as text: programs, kernels, each unit's cycles by cause, the array's largest losses.

Colour is used on a terminal only, and never with ``NO_COLOR``.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from tilewright.analysis import MEANING, Analysis, Part, analyse_all, shares
from tilewright.isa.table import Unit
from tilewright.listing import short_line
from tilewright.sim.timing_causes import CAUSES

if TYPE_CHECKING:
    from tilewright.profiler import Profile

WIDTH = 100
CUT = (
    "A kernel's cycles end with its last MATMUL row, the next one's begin there; its loads may\n"
    "have run under the previous kernel, so its bound may exceed its cycles."
)
LOSSES = 4


def _table(title: str, *columns: str, left: int = 1) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        if i < left:
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=True)
    return table


def _kernels(analysis: Analysis) -> Table:
    table = _table(
        "Kernels", "kernel", "source", "cycles", "MACs", "utilisation", "roofline bound", "limit",
        left=2,
    )  # fmt: skip
    for part in (*analysis.kernels, analysis.total):
        name = "total" if part is analysis.total else part.name
        table.add_row(
            name, short_line(part.line), f"{part.cycles:,}", f"{part.macs:,}",
            f"{part.utilisation:.1%}", f"{part.bound:,}", part.limit,
            style="bold" if part is analysis.total else None,
        )  # fmt: skip
    return table


def _units(analysis: Analysis) -> Table:
    table = _table("Cycles of each unit, per cent", "kernel", "unit", *CAUSES, "sum", left=2)
    parts = analysis.kernels if len(analysis.kernels) > 1 else []
    for part in (*parts, analysis.total):
        name = "total" if part is analysis.total else part.name
        for unit, causes in part.causes.items():
            if unit is Unit.VECTOR and not analysis.run.counters["vector_instructions"]:
                continue
            row = shares([causes[c] for c in CAUSES])
            table.add_row(name, unit.name, *(f"{v:.1f}" for v in row), f"{sum(row):.1f}")
            name = ""
        table.add_section()
    return table


def losses(part: Part) -> list[tuple[str, float, str]]:
    """Return (name, cycles, meaning) of what the array's cycles were lost to, largest first."""
    found = []
    for name, cycles in part.array().items():
        if name == "useful" or cycles < 0.5:
            continue
        meaning = MEANING[name]
        if name == "semaphore" and part.waits_for:
            meaning = f"waiting for {' and '.join(part.waits_for)}"
        found.append((name, cycles, meaning))
    return sorted(found, key=lambda loss: -loss[1])


def _losses(analysis: Analysis) -> Table:
    table = _table("The array's largest losses", "cause", "meaning", "cycles", "per cent", left=2)
    total = analysis.total
    for name, cycles, meaning in losses(total)[:LOSSES]:
        share = 100 * cycles / total.cycles if total.cycles else 0.0
        table.add_row(name, meaning, f"{cycles:,.0f}", f"{share:.1f}")
    return table


def _summary(profile: Profile, analyses: list[Analysis]) -> Table:
    table = _table(
        "Programs", "function", "called at", "chip", "engine", "runs", "cycles", "MACs",
        "utilisation", "of roofline", left=4,
    )  # fmt: skip
    for a in analyses:
        bound = a.total.bound / a.total.cycles if a.total.cycles else 0.0
        table.add_row(
            a.run.name, short_line(a.run.call), a.run.program.config.name, a.run.engine,
            str(a.count), f"{a.total.cycles:,}", f"{a.total.macs:,}",
            f"{a.total.utilisation:.1%}", f"{bound:.1%}",
        )  # fmt: skip
    if len(analyses) > 1 or any(a.count > 1 for a in analyses):
        table.add_row(
            "total", "", "", "", str(len(profile.runs)), f"{profile.cycles:,}",
            f"{profile.macs:,}", f"{profile.utilisation:.1%}",
            f"{profile.roofline_utilisation:.1%}", style="bold",
        )  # fmt: skip
    return table


def report_text(
    profile: Profile,
    width: int | None = None,
    color: bool | None = None,
    analyses: list[Analysis] | None = None,
) -> str:
    """Return the report of a profile.

    Parameters
    ----------
    width : columns; by default the terminal's, or 100.
    color : by default, whether standard output is a terminal and ``NO_COLOR`` is not set.
    analyses : of its runs, if they are there already.
    """
    terminal = sys.stdout.isatty()
    if color is None:
        color = terminal and not os.environ.get("NO_COLOR")
    if width is None:
        width = max(WIDTH, Console().width) if terminal else WIDTH
    console = Console(
        file=io.StringIO(), width=width, force_terminal=color, no_color=not color, highlight=False
    )
    if not profile.runs:
        return "no program ran within the profile\n"
    if analyses is None:
        analyses = analyse_all(profile.runs)
    console.print(_summary(profile, analyses))
    for a in analyses:
        if len(analyses) > 1:
            console.rule(f"{a.run.name} ({short_line(a.run.call)})", align="left")
        for table in (_kernels(a), _units(a), _losses(a)):
            console.print(table)
        if len(a.kernels) > 1:
            console.print(CUT)
    assert isinstance(console.file, io.StringIO)
    lines = (line.rstrip() for line in console.file.getvalue().splitlines())
    return "\n".join(lines) + "\n"


def _part_dict(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "line": part.line,
        "cycles": part.cycles,
        "macs": part.macs,
        "utilisation": part.utilisation,
        "roofline_bound": part.bound,
        "limit": part.limit,
        "units": {unit.name: causes for unit, causes in part.causes.items()},
        "array": part.array(),
    }


def profile_dict(profile: Profile) -> dict[str, Any]:
    """Return the report's figures as JSON values."""
    return {
        "cycles": profile.cycles,
        "macs": profile.macs,
        "utilisation": profile.utilisation,
        "roofline_utilisation": profile.roofline_utilisation,
        "programs": [
            {
                "config": a.run.program.config.to_dict(),
                "engine": a.run.engine,
                "runs": a.count,
                "counters": a.run.counters,
                **_part_dict(a.total),
                "kernels": [_part_dict(k) for k in a.kernels],
            }
            for a in analyse_all(profile.runs)
        ],
    }
