"""tilewright.waveforms: timelines for Perfetto, waves of the RTL as FST, layouts and pictures.

`record` runs a program and writes all of it; ``tilewright run --trace FOLDER`` calls it. In every
file one cycle is 1 ns, so that a time in a viewer is a cycle of `RunResult` and of the listing.

* `perfetto`, `save_perfetto`: any run with a clock as a timeline: units, instructions, causes.
* `fst`: all named signals of an RTL run, and each unit's instruction as text; beside it ``.gtkw``
  (``gtkwave run.gtkw``) and ``.sucl`` (``surfer run.fst --command-file run.sucl``).
* `picture`: chosen signals of an FST file over a span of cycles, drawn by Matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilewright.waveforms.fst_file import WaveError
    from tilewright.waveforms.pictures import picture, read_fst
    from tilewright.waveforms.recording import fst, record, save_perfetto
    from tilewright.waveforms.trace_events import perfetto

__all__ = ["WaveError", "fst", "perfetto", "picture", "read_fst", "record", "save_perfetto"]

_WHERE = {
    "WaveError": "fst_file",
    "fst": "recording",
    "perfetto": "trace_events",
    "picture": "pictures",
    "read_fst": "pictures",
    "record": "recording",
    "save_perfetto": "recording",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
