"""Where in the user's program an equation comes from.

The first frame, from the innermost, whose module does not belong to the `tilewright` package is the
user's. A module of the package that plays the user (the demo) says so with a global
`__tilewright_user_code__ = True`.
"""

import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass

_PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True)
class Source:
    """A place in a Python file: path, line from 1, and the qualified name of the function."""

    file: str
    line: int
    function: str

    def __str__(self):
        return f"{self.file}:{self.line} in {self.function}"


UNKNOWN = Source("<unknown>", 0, "<unknown>")


def _is_internal(module_globals):
    if module_globals.get("__tilewright_user_code__"):
        return False
    return module_globals.get("__name__", "").partition(".")[0] == _PACKAGE


class _Attributed(threading.local):
    source: Source | None = None


_attributed = _Attributed()


@contextmanager
def attributed(source):
    """Let `user_source` return this within the block: what is done there is for that line."""
    previous, _attributed.source = _attributed.source, source
    try:
        yield
    finally:
        _attributed.source = previous


def user_source():
    """Return the :class:`Source` of the innermost frame outside of the package."""
    if _attributed.source is not None:
        return _attributed.source
    frame = sys._getframe(1)
    while frame is not None:
        if not _is_internal(frame.f_globals):
            code = frame.f_code
            return Source(code.co_filename, frame.f_lineno, code.co_qualname)
        frame = frame.f_back
    return UNKNOWN
