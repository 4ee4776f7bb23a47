"""Which signals a viewer shows first, in which order and radix: for GTKWave and for Surfer.

Units come first, each with its instruction as text and what its issue logic sees; then the three
AXI ports. A signal that the file does not hold is left out, so that a layout never names one that
is not there.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tilewright.waveforms.fst_file import SCOPE, UNITS

CHIP = "tilewright"
HEX, DECIMAL, BITS, TEXT = "hex", "dec", "bin", "ascii"
_PORTS = {
    "AXI_instructions": ("instr", ("ar", "r")),
    "AXI_read": ("data", ("ar", "r")),
    "AXI_write": ("data", ("aw", "w", "b")),
}
_CHANNEL = {
    "ar": ("valid", "ready", "addr", "len"),
    "aw": ("valid", "ready", "addr", "len"),
    "r": ("valid", "ready", "last", "resp", "data"),
    "w": ("valid", "ready", "last", "strb", "data"),
    "b": ("valid", "ready", "resp"),
}
_RADIX = {"len": DECIMAL}
_SURFER = {DECIMAL: "Unsigned", BITS: "Binary"}  # hexadecimal is what it shows unless told


@dataclass(frozen=True)
class Shown:
    """A signal as a viewer shows it: full name, bits (0 for text), radix."""

    name: str
    width: int
    radix: str


def _unit(unit: str) -> Iterator[tuple[str, str]]:
    for name in ("instruction", "oldest", "source"):
        yield f"{SCOPE}.{unit}.{name}", TEXT
    yield f"{SCOPE}.{unit}.in_flight", DECIMAL
    yield f"{CHIP}.busy_{unit}", BITS
    if unit == "sequencer":
        yield f"{CHIP}.host.pc", DECIMAL
        return
    for name in (f"{unit}__start", f"{unit}__done", f"{unit}_request", f"{unit}_grant"):
        yield f"{CHIP}.issue.{name}", BITS
    yield f"{CHIP}.issue.{unit}_cause", BITS  # one bit for each of CAUSES
    yield f"{CHIP}.issue.dispatch_{unit}__full", BITS
    if unit == "matmul":
        yield f"{CHIP}.busy_array", BITS
        yield f"{CHIP}.matmul.o_row", BITS


def groups(signals: Mapping[str, int]) -> dict[str, list[Shown]]:
    """By heading, what is shown of `signals` (full name -> bits; 0 for text)."""
    wanted: dict[str, list[tuple[str, str]]] = {"clock": [(f"{CHIP}.clk", BITS)]}
    for unit in ("sequencer", *(u for u in UNITS if u != "sequencer")):
        if unit == "sequencer" or f"{CHIP}.issue.{unit}__start" in signals:
            wanted[unit.upper()] = list(_unit(unit))
    for title, (port, channels) in _PORTS.items():
        wanted[title] = [
            (f"{CHIP}.{port}_{channel}{name}", _RADIX.get(name, HEX))
            for channel in channels
            for name in _CHANNEL[channel]
        ]
    return {
        title: [
            Shown(name, signals[name], BITS if signals[name] == 1 else radix)
            for name, radix in rows
            if name in signals
        ]
        for title, rows in wanted.items()
    }


def gtkwave(signals: Mapping[str, int], wave: Path) -> str:
    """A GTKWave save file: ``gtkwave run.fst run.gtkw``."""
    from vcd.gtkw import GTKWSave

    out = io.StringIO()
    save = GTKWSave(out)
    save.comment("Tilewright: 1 cycle = 1 ns")
    save.dumpfile(str(wave))
    save.timestart(0)
    save.size(1600, 900)
    save.zoom_markers(-16.5)  # about 400 cycles are seen
    save.sst_expanded(False)
    save.signals_width(280)
    save.treeopen(CHIP)
    for title, rows in groups(signals).items():
        with save.group(title):
            for row in rows:
                bits = f"[{row.width - 1}:0]" if row.width > 1 else ""
                save.trace(row.name + bits, datafmt=row.radix)
    return out.getvalue()


def surfer(signals: Mapping[str, int]) -> str:
    """A Surfer command file: ``surfer run.fst --command-file run.sucl``."""
    lines = []
    for title, rows in groups(signals).items():
        lines.append(f"divider_add {title}")
        for row in rows:
            lines.append(f"variable_add {row.name}")
            if row.width > 1 and row.radix in _SURFER:
                lines.append(f"item_set_format {_SURFER[row.radix]}")
    return "\n".join([*lines, "zoom_fit", ""])
