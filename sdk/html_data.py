"""What the HTML report shows, as JSON values: flat arrays, one entry for each instruction.

Starts and pcs are differences from the instruction before, so that compressed data stay small. Each
instruction has a kernel and lines, or a reason why it has none.
"""

from __future__ import annotations

import ast
import linecache
import warnings
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import Any

import numpy as np
from tilewright.analysis import MEANING, Analysis
from tilewright.isa.disassembler import format_instruction
from tilewright.isa.program import Origin, Program
from tilewright.isa.table import Unit
from tilewright.sim.timing_causes import CAUSES

AROUND = 2  # lines shown around a line that lies in no function
LONG = 200  # of a function with more lines than this only so many around each line are shown:
NEAR = 20
#: What each cause means for any unit.
CAUSE_MEANING = {
    "issuing": "a slot of an instruction, or a grant: useful work",
    "semaphore": "the next instruction waits for signals; to look takes a cycle",
    "port": "the next instruction waits for a memory bank's port",
    "memory": "data or results are on their way, and nothing more can start",
    "empty": "no instruction is there: start, dispatch, end",
}
NO_MAP = "the program has no source map"
NO_KERNEL = "the compiler's own: it ends the program"
NO_LINE = "no line of a user's file was known when it was traced"


def _place(line: str) -> tuple[str, int, str] | None:
    """(file, line, function) of ``file:line in function``."""
    place, _, function = line.partition(" in ")
    file, _, number = place.rpartition(":")
    if not file or not number.isdigit() or file == "<unknown>":
        return None
    return file, int(number), function


def _labels(files: Sequence[str]) -> list[str]:
    """Short names that differ: as few of a path's last parts as that needs."""
    parts = [PurePath(f).parts for f in files]
    labels = []
    for mine in parts:
        n = 1
        while n < len(mine) and sum(p[-n:] == mine[-n:] for p in parts) > 1:
            n += 1
        labels.append("/".join(mine[-n:]))
    return labels


def _extents(text: str) -> list[tuple[int, int]]:
    """First and last line of each function, the largest first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the user's code, which has been compiled before
        try:
            tree = ast.parse(text)
        except SyntaxError:  # a notebook's cell, with magic
            return []
    found = [
        (min([n.lineno, *(d.lineno for d in n.decorator_list)]), n.end_lineno or n.lineno)
        for n in ast.walk(tree)
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return sorted(found, key=lambda f: f[0] - f[1])


def excerpt(file: str, numbers: Iterable[int]) -> tuple[list[list[Any]], str]:
    """Return the [number, text] lines of the functions that hold `numbers`, and what is missing."""
    linecache.checkcache(file)
    lines = linecache.getlines(file)
    if not lines:
        return [[n, ""] for n in sorted(set(numbers))], "its text is not on this machine"
    extents, missing = _extents("".join(lines)), ""
    shown: set[int] = set()
    for number in numbers:
        if number > len(lines):
            missing = f"it has only {len(lines)} lines now: it has changed since it was traced"
            continue
        low, high = number - AROUND, number + AROUND
        for first, last in extents:
            if first <= number <= last:
                low, high = first, last
        if high - low >= LONG:
            low, high = number - NEAR, number + NEAR
        shown.update(range(max(low, 1), min(high, len(lines)) + 1))
    return [[n, lines[n - 1].rstrip()] for n in sorted(shown)], missing


class _Sources:
    """The user's lines of one program: numbered, and which kernels and equations made them."""

    def __init__(self, program: Program):
        self.equations = program.meta.get("equations", [])
        self.places: dict[tuple[str, int], str] = {}
        self.kernels: dict[str, tuple[int, list[int], list[list[Any]]]] = {}
        for origin in dict.fromkeys(program.source_map):
            if origin.kernel and origin.kernel not in self.kernels:
                self.kernels[origin.kernel] = self._kernel(origin)

    def number(self, line: str) -> int:
        """The line's number among `lines`, which it joins; -1 if it is not known."""
        place = _place(line)
        if place is None:
            return -1
        self.places.setdefault(place[:2], place[2])
        return list(self.places).index(place[:2])

    def _kernel(self, origin: Origin) -> tuple[int, list[int], list[list[Any]]]:
        """(home line, all lines, equations as [text, line])."""
        home = self.number(origin.line)
        numbers = [int(n) for n in origin.equation.split(",") if n]
        known = [self.equations[n] for n in numbers if n < len(self.equations)]
        equations = [[text, self.number(line)] for text, line in known]
        lines = dict.fromkeys([home, *(e[1] for e in equations)])
        return home, [n for n in lines if n >= 0], equations

    def files(self) -> list[dict[str, Any]]:
        names = list(dict.fromkeys(file for file, _ in self.places))
        found = []
        for name, label in zip(names, _labels(names), strict=True):
            text, missing = excerpt(name, [n for file, n in self.places if file == name])
            found.append({"label": label, "text": text, "missing": missing})
        return found

    def lines(self) -> list[list[Any]]:
        """[file's number, line, function]."""
        names = list(dict.fromkeys(file for file, _ in self.places))
        return [[names.index(f), number, fn] for (f, number), fn in self.places.items()]


def _reason(program: Program, origin: Origin, home: int) -> str:
    """Why an instruction has no line; empty if it has one."""
    if home >= 0:
        return ""
    if not program.source_map:
        return NO_MAP
    return NO_LINE if origin.kernel else NO_KERNEL


def _steps(values: Iterable[int]) -> list[int]:
    """The first value, then differences."""
    return [b - a for a, b in pairwise([0, *values])]


def run_data(analysis: Analysis) -> dict[str, Any]:
    """Return all that the page needs of one run."""
    run, total, found = analysis.run, analysis.total, analysis.attribution
    program, trace = run.program, run.trace
    sources = _Sources(program)
    names = [k.name for k in analysis.kernels]
    origins = program.source_map or (Origin(),) * len(program)
    kernel_of = [names.index(o.kernel) if o.kernel in names else -1 for o in origins]
    homes = [sources.number(o.line) for o in origins]
    reasons = [_reason(program, o, home) for o, home in zip(origins, homes, strict=True)]
    present = set(trace["unit"].tolist())
    units = [u for u in (Unit.LOAD, Unit.MATMUL, Unit.VECTOR, Unit.STORE)
             if u is not Unit.VECTOR or int(u) in present]  # fmt: skip
    lanes = [Unit.SEQ, *units]
    place = {int(u): i for i, u in enumerate(lanes)}
    distinct = list(dict.fromkeys(reasons))
    return {
        "name": run.name,
        "call": _call(run.call),
        "chip": program.config.name,
        "engine": run.engine,
        "count": analysis.count,
        "dim": program.config.dim,
        "cycles": total.cycles,
        "macs": total.macs,
        "bound": total.bound,
        "limit": total.limit,
        "array": total.array(),
        "kernels": [
            {
                "name": part.name,
                "cycles": part.cycles,
                "macs": part.macs,
                "bound": part.bound,
                "limit": part.limit,
                "array": part.array(),
                "home": sources.kernels[part.name][0],
                "lines": sources.kernels[part.name][1],
                "equations": sources.kernels[part.name][2],
            }
            for part in analysis.kernels
        ],
        "files": sources.files(),
        "lines": sources.lines(),
        "code": [format_instruction(i) for i in program.instructions()],
        "kernel": kernel_of,
        "home": homes,
        "reasons": distinct,
        "reason": [distinct.index(r) for r in reasons],
        "lanes": [u.name for u in lanes],
        "pc": _steps(trace["pc"].tolist()),
        "unit": [place[u] for u in trace["unit"].tolist()],
        "start": _steps(trace["start"].tolist()),
        "length": (trace["end"] - trace["start"] + 1).tolist(),
        "issued": np.maximum(np.array(found.issued) - trace["start"], 0).tolist(),
        "causes": [found.cycles[:, c].tolist() for c in range(len(CAUSES))],
        "after": [found.after[u].tolist() for u in units],
        "total": [[total.causes[u][c] for c in CAUSES] for u in units],
        "spans": [[_steps(found.spans[u][0].tolist()), found.spans[u][1].tolist()] for u in units],
        "waits": [[w.waiter, w.semaphore, w.count, w.signaller, w.kind] for w in found.waits],
    }


def _call(line: str) -> str:
    place = _place(line)
    return f"{PurePath(place[0]).name}:{place[1]}" if place else PurePath(line).name


def page_data(analyses: Sequence[Analysis]) -> dict[str, Any]:
    """Return the page's data: each different run of a profile."""
    return {
        "causes": list(CAUSES),
        "meaning": CAUSE_MEANING,
        "array": MEANING,
        "runs": [run_data(a) for a in analyses],
    }
