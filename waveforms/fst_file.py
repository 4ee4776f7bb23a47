"""FST files of RTL runs: all named signals of the chip, and for each unit its instruction as text.

The signals come from the traced build of the RTL engine, value by value, into `pylibfst`, the
library of GTKWave's own authors. Scope ``units`` holds what the RTL does not: ``instruction``, the
youngest instruction in flight, as ``#id @pc assembly``; ``oldest``, the one that ends next;
``source``, kernel and user's line; ``in_flight``. An instruction's text appears in the cycle in
which `RunResult` says that it starts, and goes after the one in which it ends.

Ten units of time, 1 ns, are a cycle; the clock falls at 5. Clock pins are left out (``clk`` stands
for all, ``busy_*`` says which run).
"""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tilewright.isa.program import Program
from tilewright.sim.result import QUEUED
from tilewright.sim.rtl import RtlError
from tilewright.sim.rtl_wave import LANE_SIGNALS, WaveOptions
from tilewright.waveforms.assembly import assembly_lines, source_lines

PER_CYCLE = 10  # units of time
UNITS = (*(u.name.lower() for u in QUEUED), "sequencer")  # in the order of `rtl_wave.h`
SCOPE = "units"
TOP = 2  # depth of the chip's scope; above it Verilator repeats the pins
_VAR = re.compile(r"\$var +\w+ +(\d+) +(\S+) +(\S+)(?: +(\[\S+\]))? +\$end")
_CLOCK = re.compile(r"(.*_)?clk(_.*)?$")


class WaveError(RuntimeError):
    """Waves cannot be written or read; the message says why and what helps."""


def library() -> Any:
    """The module `pylibfst`.

    **Raises** WaveError: it is not installed.
    """
    try:
        import pylibfst
    except ImportError:
        raise WaveError(
            "FST files need pylibfst: pip install 'tilewright[waves]' (wheels for Linux on x86-64; "
            "elsewhere it builds with CMake and zlib)"
        ) from None
    return pylibfst


def _code(text: str) -> int:
    """The number of a signal from its VCD identifier, as Verilator counts."""
    number = -1
    for char in reversed(text):
        number = 94 * (number + 1) + ord(char) - 33
    return number


class FstWriter:
    """One FST file of one run; a context manager: the file is there whole, or not at all.

    Parameters
    ----------
    path : of the file.
    program : what runs.
    first, last : cycles that are kept.
    """

    def __init__(self, path: Path, program: Program, first: int = 0, last: int | None = None):
        if first < 0 or (last is not None and last < first):
            raise WaveError(f"cycles to trace must be first <= last from 0 on, not {first}, {last}")
        self.path, self.first = path, first
        self.last = (1 << 62) if last is None else last
        self._fst = library()
        handle, self._partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        self._writer = self._fst.lib.fstWriterCreate(self._partial.encode(), 1)
        if self._writer == self._fst.ffi.NULL:
            os.unlink(self._partial)
            raise WaveError(f"{path}: cannot be written")
        lib = self._fst.lib
        lib.fstWriterSetTimescale(self._writer, -10)
        lib.fstWriterSetVersion(self._writer, b"Tilewright, 1 cycle = 1 ns")
        lib.fstWriterSetPackType(self._writer, lib.FST_WR_PT_LZ4)
        texts = (assembly_lines(program), source_lines(program))
        self._texts = [(ctypes.c_char_p * len(t))(*(x.encode() for x in t)) for t in texts]
        self._count = len(program)
        self._arrays: list[Any] = []
        self._path: list[str] = []
        self._declared = 0
        #: Full name of every signal of the file -> bits; 0 for text.
        self.signals: dict[str, int] = {}

    def __enter__(self) -> FstWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:  # fmt: skip
        self._fst.lib.fstWriterClose(self._writer)
        if kind is None or issubclass(kind, RtlError):  # a hang's wave is what explains it
            self._check()
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(self._partial, 0o666 & ~umask)
            os.replace(self._partial, self.path)
        else:
            os.unlink(self._partial)

    def _check(self) -> None:
        """The library does not report that a write failed: see whether the file can be read."""
        lib, ffi = self._fst.lib, self._fst.ffi
        context = lib.fstReaderOpen(self._partial.encode())
        if context == ffi.NULL or lib.fstReaderGetVarCount(context) != self._declared:
            os.unlink(self._partial)
            raise WaveError(f"{self.path}: cannot be written whole; is there room on the disk?")
        lib.fstReaderClose(context)

    def _variable(self, kind: int, width: int, name: str, alias: int = 0) -> int:
        lib = self._fst.lib
        self._declared += 1
        self.signals[".".join([*self._path, name.partition(" ")[0]])] = width
        return lib.fstWriterCreateVar(
            self._writer, kind, lib.FST_VD_IMPLICIT, width, name.encode(), alias
        )

    def _scope(self, name: str) -> None:
        self._path.append(name)
        lib, null = self._fst.lib, self._fst.ffi.NULL
        lib.fstWriterSetScope(self._writer, lib.FST_ST_VCD_MODULE, name.encode(), null)

    def _up(self) -> None:
        self._path.pop()
        self._fst.lib.fstWriterSetUpscope(self._writer)

    def _units(self) -> list[int]:
        """Declare scope ``units``; the handles, `LANE_SIGNALS` of each unit."""
        lib = self._fst.lib
        handles = []
        self._scope(SCOPE)
        for unit in UNITS:
            self._scope(unit)
            for name in LANE_SIGNALS[:3]:
                handles.append(self._variable(lib.FST_VT_GEN_STRING, 0, name))
            count = f"{LANE_SIGNALS[3]} [15:0]"
            handles.append(self._variable(lib.FST_VT_VCD_REG, 16, count))
            self._up()
        self._up()
        return handles

    def _signals(self, declarations: str) -> tuple[dict[int, tuple[int, int]], int]:
        """Declare what VCD text declares: by number (handle, width); and the handle of ``clk``."""
        lib = self._fst.lib
        found: dict[int, tuple[int, int]] = {}
        clock, depth = 0, 0
        for line in declarations.splitlines():
            words = line.split()
            if words[:1] == ["$scope"]:
                depth += 1
                if depth >= TOP:
                    self._scope(words[2])
                    clock = clock or self._variable(lib.FST_VT_VCD_WIRE, 1, "clk")
            elif words[:1] == ["$upscope"]:
                if depth >= TOP:
                    self._up()
                depth -= 1
            elif depth >= TOP and (var := _VAR.search(line)):
                width, number, name = int(var[1]), _code(var[2]), var[3]
                if _CLOCK.match(name):
                    continue
                alias = found.get(number, (0, 0))[0]
                label = f"{name} {var[4]}" if var[4] else name
                handle = self._variable(lib.FST_VT_VCD_WIRE, width, label, alias)
                found.setdefault(number, (handle, width))
        return found, clock

    def sink(self, declarations: str) -> WaveOptions:
        """`sim.rtl_wave.WaveSink`: declare all signals; what the traced model calls."""
        ffi, lib = self._fst.ffi, self._fst.lib
        lanes = self._units()
        found, clock = self._signals(declarations)
        if not found:
            raise WaveError("the traced RTL declares no signal")
        handles = np.zeros(max(found) + 1, np.uint32)
        widths = np.zeros_like(handles)
        for number, (handle, width) in found.items():
            handles[number], widths[number] = handle, width
        numbers = ctypes.POINTER(ctypes.c_uint32)
        self._arrays = [handles, widths, np.array(lanes, np.uint32)]
        tables = [array.ctypes.data_as(numbers) for array in self._arrays]
        names = ("TimeChange", "ValueChange", "VariableLengthValueChange")
        calls = [ffi.addressof(lib, f"fstWriterEmit{name}") for name in names]
        time, value, text = (int(ffi.cast("uintptr_t", call)) for call in calls)
        return WaveOptions(
            int(ffi.cast("uintptr_t", self._writer)), time, value, text,
            tables[0], tables[1], len(handles), clock, tables[2], *self._texts, self._count,
            self.first, self.last,
        )  # fmt: skip
