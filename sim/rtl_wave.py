"""What the traced build of the RTL needs in order to write waves; the C++ side is `rtl_wave.h`.

`sim` does not know the file's format: whoever wants waves gives a function that takes the VCD
declarations of all signals and returns `WaveOptions` with the writer's functions.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

LANES = 5  # four units and the sequencer
LANE_SIGNALS = ("instruction", "oldest", "source", "in_flight")


class WaveOptions(ctypes.Structure):
    """Addresses of the writer's functions, handles of the signals, texts by pc, cycles to keep.

    The functions are called with (writer, time), (writer, handle, bits), (writer, handle, text,
    length).
    """

    _fields_ = (
        ("writer", ctypes.c_void_p),
        ("time", ctypes.c_void_p),
        ("value", ctypes.c_void_p),
        ("text", ctypes.c_void_p),
        ("handles", ctypes.POINTER(ctypes.c_uint32)),
        ("widths", ctypes.POINTER(ctypes.c_uint32)),
        ("codes", ctypes.c_uint64),
        ("clock", ctypes.c_uint32),
        ("lanes", ctypes.POINTER(ctypes.c_uint32)),
        ("assembly", ctypes.POINTER(ctypes.c_char_p)),
        ("source", ctypes.POINTER(ctypes.c_char_p)),
        ("count", ctypes.c_uint64),
        ("first", ctypes.c_uint64),
        ("last", ctypes.c_uint64),
    )


#: Declarations as VCD text -> what the model writes to; the arrays must live as long as the run.
WaveSink = Callable[[str], WaveOptions]


def wave_functions() -> dict[str, tuple[object, list[object]]]:
    """Functions that only the traced build has."""
    ptr = ctypes.c_void_p
    return {
        "tw_wave_header": (ctypes.c_uint64, [ptr, ctypes.POINTER(ptr)]),
        "tw_wave_attach": (None, [ptr, ctypes.POINTER(WaveOptions)]),
    }


def attach(lib: ctypes.CDLL, chip: object, sink: WaveSink) -> WaveOptions:
    """Connect a chip of the traced build to `sink`; keep what comes back until the run's end."""
    text = ctypes.c_void_p()
    size = lib.tw_wave_header(chip, ctypes.byref(text))
    options = sink(ctypes.string_at(text.value or 0, size).decode())
    lib.tw_wave_attach(chip, ctypes.byref(options))
    return options
