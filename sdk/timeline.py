"""A picture of runs: one lane per unit, one bar per instruction from its start to its end.

Each run has two panels: all of it, and a part of it in which single instructions can be told apart.
Instructions of one unit overlap (the next one's first address goes out before the last data are
there), so a lane has two rows, which they use in turn.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from tilewright.isa.table import Unit
from tilewright.listing import short_line
from tilewright.profiler import ProgramRun

LANES = (Unit.SEQ, Unit.LOAD, Unit.MATMUL, Unit.VECTOR, Unit.STORE)
ZOOM = 24  # MATMULs or, without any, instructions in the second panel
RUNS = 4  # at most this many in one picture
MERGE = 1500  # bars of the first panel that are closer than 1/MERGE of it are drawn as one
COLOURS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bb5500", "#555555",
)  # fmt: skip
OTHER = "#bbbbbb"  # instructions of no kernel


def _kernels(run: ProgramRun) -> tuple[list[str], np.ndarray]:
    """Kernel names in order, and for each trace row the kernel's number (-1: none)."""
    origins = run.program.source_map
    names = list(dict.fromkeys(o.kernel for o in origins if o.kernel))
    number = {name: i for i, name in enumerate(names)}
    of_pc = np.array([number.get(o.kernel, -1) for o in origins] or [-1])
    return names, of_pc[np.minimum(run.trace["pc"], len(of_pc) - 1)]


def _merged(starts: np.ndarray, ends: np.ndarray, gap: float) -> list[tuple[float, float]]:
    """(start, width) bars with small gaps closed."""
    bars: list[list[float]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if bars and start <= bars[-1][1] + gap:
            bars[-1][1] = max(bars[-1][1], end + 1)
        else:
            bars.append([start, end + 1])
    return [(a, b - a) for a, b in bars]


def _colour(kernel: int) -> str:
    return OTHER if kernel < 0 else COLOURS[kernel % len(COLOURS)]


def _lanes(run: ProgramRun) -> list[Unit]:
    used = set(run.trace["unit"].tolist())
    return [u for u in LANES if u is not Unit.VECTOR or int(u) in used]


def _draw(
    axes: Any, run: ProgramRun, kernels: np.ndarray, low: int, high: int, single: bool
) -> None:
    """Draw the instructions that lie within low <= cycle < high."""
    trace, lanes = run.trace, _lanes(run)
    gap = 0 if single else (high - low) / MERGE
    for place, unit in enumerate(lanes):
        rows = np.flatnonzero(
            (trace["unit"] == int(unit)) & (trace["start"] >= 0)
            & (trace["end"] >= low) & (trace["start"] < high)
        )  # fmt: skip
        rows = rows[np.argsort(trace["start"][rows], kind="stable")]
        for turn in (0, 1):
            mine = rows[turn::2]
            for kernel in np.unique(kernels[mine]).tolist():
                some = mine[kernels[mine] == kernel]
                starts, ends = trace["start"][some], np.maximum(trace["end"][some], 0)
                bars = _merged(starts, ends, gap) if not single else [
                    (a, b + 1 - a) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
                ]  # fmt: skip
                axes.broken_barh(
                    bars, (place - 0.4 + 0.4 * turn, 0.38), facecolors=_colour(kernel),
                    edgecolors="white" if single else "none", linewidth=0.4, rasterized=not single,
                )  # fmt: skip
    axes.set_yticks(range(len(lanes)), [u.name for u in lanes])
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.set_xlim(low, high)
    for place in range(1, len(lanes)):
        axes.axhline(place - 0.5, color="#dddddd", linewidth=0.8, zorder=0)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.xaxis.set_major_formatter("{x:,.0f}")


def zoom_window(run: ProgramRun) -> tuple[int, int]:
    """Return (low, high) cycles of the part that is shown large: some passes in the middle."""
    trace = run.trace[(run.trace["unit"] == int(Unit.MATMUL)) & (run.trace["start"] >= 0)]
    if not len(trace):
        trace = run.trace[run.trace["start"] >= 0]
    cycles = run.cycles or 1
    if len(trace) <= ZOOM:
        return 0, cycles
    at = (len(trace) - ZOOM) // 2
    some = trace[at : at + ZOOM]
    return int(some["start"].min()), min(cycles, int(some["end"].max()) + 1)


def figure(runs: Sequence[ProgramRun]) -> Any:
    """Return the Matplotlib figure of at most `RUNS` different runs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    distinct = list({r.kind: r for r in reversed(runs)}.values())[::-1][:RUNS]
    if not distinct:
        raise ValueError("a timeline needs at least one run")
    fig = Figure(figsize=(12, 5.6 * len(distinct)), dpi=110, layout="constrained")
    FigureCanvasAgg(fig)
    panels = fig.subplots(2 * len(distinct), 1, squeeze=False)[:, 0]
    for run, whole, part in zip(distinct, panels[::2], panels[1::2], strict=True):
        names, kernels = _kernels(run)
        cycles = run.cycles or 1
        low, high = zoom_window(run)
        _draw(whole, run, kernels, 0, cycles, single=False)
        _draw(part, run, kernels, low, high, single=True)
        config = run.program.config
        share = run.macs / (config.dim**2 * cycles)
        whole.set_title(
            f"{run.name} on {config.name}: {cycles:,} cycles, utilisation {share:.1%}", loc="left"
        )
        part.set_title(f"cycles {low:,} to {high - 1:,}, each bar one instruction", loc="left")
        if (low, high) != (0, cycles):
            whole.axvspan(low, high, color="#000000", alpha=0.08, linewidth=0, zorder=0)
        part.set_xlabel("cycle")
        whole.set_xlabel("cycle")
        shown = names[: len(COLOURS)]
        lines = {o.kernel: short_line(o.line) for o in reversed(run.program.source_map)}
        handles = [
            Patch(color=_colour(i), label=f"{name} {lines[name]}") for i, name in enumerate(shown)
        ]
        if len(names) > len(shown):
            handles.append(Patch(color="none", label=f"… {len(names)} kernels"))
        handles.append(Patch(color=OTHER, label="halt"))
        whole.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(1.005, 1), frameon=False,
            title="kernel", alignment="left",
        )  # fmt: skip
    return fig


def save_timeline(runs: Sequence[ProgramRun], path: str | PathLike[str]) -> None:
    """Write the picture (PNG, or what the path's suffix says)."""
    figure(runs).savefig(path)


def timeline_png(runs: Sequence[ProgramRun]) -> bytes:
    """Return the picture as PNG."""
    out = io.BytesIO()
    figure(runs).savefig(out, format="png")
    return out.getvalue()
