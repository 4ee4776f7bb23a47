"""Pictures of waves: chosen signals of an FST file over a span of cycles.

A bit is a line, a number a band with its value in hexadecimal, a text a band with as much of it as
fits. Below, the cycles; a band's edges lie where the value changes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from tilewright.waveforms.fst_file import PER_CYCLE, WaveError, library

#: Changes of a signal: (cycle, value); bits as text of 0 and 1, else text.
Changes = list[tuple[float, str]]
INK, BIT, NUMBER, TEXT = "#333333", "#228833", "#4477aa", "#ee6677"
LABEL = 0.075  # inches that one character of a value takes


def read_fst(path: str | os.PathLike[str], names: Sequence[str]) -> dict[str, tuple[int, Changes]]:
    """Read signals of an FST file: full name -> (bits, 0 for text; changes).

    **Raises** WaveError: no such file or signal.
    """
    fst = library()
    context = fst.lib.fstReaderOpen(os.fsencode(path))
    if context == fst.ffi.NULL:
        raise WaveError(f"{os.fspath(path)}: no FST file that can be read")
    try:
        _, signals = fst.get_scopes_signals2(context)
        known = {name.partition(" ")[0]: signal for name, signal in signals.by_name.items()}
        for name in names:
            if name not in known:
                raise WaveError(f"{os.fspath(path)}: holds no signal {name!r}")
        found: dict[int, Changes] = {known[name].handle: [] for name in names}
        fst.lib.fstReaderClrFacProcessMaskAll(context)
        for handle in found:
            fst.lib.fstReaderSetFacProcessMask(context, handle)

        def fixed(user: Any, time: int, handle: int, value: Any) -> None:
            found[handle].append((time / PER_CYCLE, fst.ffi.string(value).decode()))

        def text(user: Any, time: int, handle: int, value: Any, length: int) -> None:
            raw = bytes(fst.ffi.buffer(value, length))
            found[handle].append((time / PER_CYCLE, raw.decode()))

        fst.fstReaderIterBlocks2(context, fixed, text, None)
    finally:
        fst.lib.fstReaderClose(context)
    out = {}
    for name in names:
        changes = dict(found[known[name].handle])  # the last one of a time holds
        width = known[name].length if set("".join(changes.values())) <= set("01xz") else 0
        out[name] = (width, sorted(changes.items()))
    return out


def _spans(changes: Changes, low: int, high: int) -> list[tuple[float, float, str]]:
    """(start, end, value) within low <= cycle < high; touching equal values are one."""
    spans: list[tuple[float, float, str]] = []
    for i, (start, value) in enumerate(changes):
        end = changes[i + 1][0] if i + 1 < len(changes) else float("inf")
        a, b = max(start, low), min(end, high)
        if a >= b:
            continue
        if spans and spans[-1][2] == value and spans[-1][1] == a:
            a = spans.pop()[0]
        spans.append((a, b, value))
    return spans


def _shown(width: int, value: str) -> str:
    if width == 0 or not value or set(value) - {"0", "1"}:
        return value
    return f"{int(value, 2):x}"


def _draw(axes: Any, place: int, width: int, spans: list[tuple[float, float, str]], room: float):
    """One signal in the row `place`; `room` is inches per cycle."""
    if width == 1:
        xs = [x for a, b, _ in spans for x in (a, b)]
        ys = [place + 0.3 - 0.6 * (value == "1") for _, _, value in spans for _ in (0, 1)]
        axes.plot(xs, ys, color=BIT, linewidth=1.3, solid_joinstyle="miter")
        return
    colour = NUMBER if width else TEXT
    for a, b, value in spans:
        if not value:
            axes.plot([a, b], [place, place], color=INK, linewidth=0.8)
            continue
        slope = min(0.15, (b - a) / 4)
        xs = [a, a + slope, b - slope, b, b - slope, a + slope]
        ys = [place, place - 0.33, place - 0.33, place, place + 0.33, place + 0.33]
        axes.fill(xs, ys, facecolor=colour + "22", edgecolor=colour, linewidth=1.0)
        fits = int((b - a) * room / LABEL)
        label = _shown(width, value)
        if len(label) > fits:
            label = label[: fits - 1] + "…" if width == 0 and fits > 2 else ""
        axes.text((a + b) / 2, place, label, ha="center", va="center", fontsize=7.5,
                  family="monospace", color=INK, parse_math=False)  # fmt: skip


def picture(
    path: str | os.PathLike[str], signals: Sequence[str], first: int, last: int
) -> Any:  # fmt: skip
    """Draw `signals` of an FST file in cycles `first` to `last`; a Matplotlib figure.

    Parameters
    ----------
    signals : full names, such as ``units.load.instruction`` or ``tilewright.data_arvalid``.

    **Raises** WaveError: no such file or signal, or no such span.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not signals or not 0 <= first <= last:
        raise WaveError(
            f"a picture needs signals and cycles 0 <= first <= last, not {first} to {last}"
        )
    low, high = first, last + 1
    waves = read_fst(path, signals)
    inches = 13.0
    fig = Figure(figsize=(inches, 0.9 + 0.34 * len(signals)), dpi=110, layout="constrained")
    FigureCanvasAgg(fig)
    axes = fig.subplots()
    for place, name in enumerate(signals):
        width, changes = waves[name]
        _draw(axes, place, width, _spans(changes, low, high), 0.8 * inches / (high - low))
    axes.set_yticks(range(len(signals)), list(signals), family="monospace", fontsize=8)
    axes.set_ylim(len(signals) - 0.4, -0.6)
    axes.set_xlim(low, high)
    axes.set_xlabel("cycle")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return fig
