"""A profile as one HTML file: lines, kernels, instructions, timeline and causes, linked.

The page holds its data (compressed), style and scripts (`data/report*`), and refers to no other
file: it works offline, and its content policy forbids the browser to fetch anything.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from html import escape
from importlib.resources import files
from os import PathLike
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from tilewright.analysis import analyse_all
from tilewright.html_data import page_data
from tilewright.report import report_text

if TYPE_CHECKING:
    from tilewright.profiler import Profile

SCRIPTS = ("model", "timeline", "panes", "details", "app")


def _text(name: str) -> str:
    return (files("tilewright") / "data" / name).read_text(encoding="utf-8")


def html_text(profile: Profile) -> str:
    """Return the page of a profile."""
    analyses = analyse_all(profile.runs)
    data = page_data(analyses)
    packed = gzip.compress(json.dumps(data, separators=(",", ":")).encode(), mtime=0)
    names = ", ".join(dict.fromkeys(run["name"] for run in data["runs"])) or "no program"
    return Template(_text("report.html")).substitute(
        title=escape(f"Tilewright: {names}"),
        style=_text("report.css"),
        report=escape(report_text(profile, 110, False, analyses)),  # where scripts do not run
        data=b64encode(packed).decode(),
        script="\n".join(_text(f"report_{name}.js") for name in SCRIPTS),
    )


def save_html(profile: Profile, path: str | PathLike[str]) -> None:
    """Write the page."""
    Path(path).write_text(html_text(profile), encoding="utf-8")
