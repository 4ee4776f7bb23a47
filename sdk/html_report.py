"""A profile as one HTML file: picture, report and listings, without references to other files."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright.analysis import analyse_all
from tilewright.listing import listing
from tilewright.report import report_text
from tilewright.timeline import timeline_png

if TYPE_CHECKING:
    from tilewright.profiler import Profile

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 80rem }}
body {{ margin: 2rem auto; padding: 0 1rem }}
pre {{ font: 12px/1.4 ui-monospace, monospace; background: #f6f6f6 }}
pre {{ overflow-x: auto; padding: 1rem }}
img {{ max-width: 100% }}
summary {{ cursor: pointer; font-weight: 600; margin: 1rem 0 }}
</style>
<h1>{title}</h1>
{picture}
<pre>{report}</pre>
{listings}
</html>
"""


def html_text(profile: Profile) -> str:
    """Return the page of a profile."""
    analyses = analyse_all(profile.runs)
    names = ", ".join(dict.fromkeys(a.run.name for a in analyses)) or "no program"
    picture = ""
    if analyses:
        png = b64encode(timeline_png([a.run for a in analyses])).decode()
        picture = f'<img alt="timeline of {escape(names)}" src="data:image/png;base64,{png}">'
    listings = "\n".join(
        f"<details><summary>Listing of {escape(a.run.name)}</summary>"
        f"<pre>{escape(listing(a.run.program, a.run.trace))}</pre></details>"
        for a in analyses
    )
    return _PAGE.format(
        title=f"Tilewright: {escape(names)}",
        picture=picture,
        report=escape(report_text(profile, color=False, width=110)),
        listings=listings,
    )


def save_html(profile: Profile, path: str | PathLike[str]) -> None:
    """Write the page."""
    Path(path).write_text(html_text(profile), encoding="utf-8")
