"""A site of all reports: a folder of pages that any web server, or none, can show."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from i4d_bench.progress import console, track
from i4d_bench.report import content
from i4d_bench.report.web import page
from i4d_bench.report.web.table import Head, row, table
from i4d_bench.report.writing import write_text
from i4d_bench.types import UserError

SCRIPTS = ("vendor/table-core.min.js", "assets/table.js", "assets/site.js")
SHOWN = ("Hardware", "Preset", "Data", "Driver", "Designs", "Seeds", "Measured")
"""Of a report's facts."""
FILTERED = ("Hardware", "Data", "Driver")
KINDS = {"": "comparison", "supervision-": "supervision", "ablation-": "ablation", "speed-": "speed"}
"""By how a folder's name begins, in this order."""


def write(reports: Path, out: Path) -> Path:
    """Makes `out` anew: index.html, and a folder per report under `reports` with its page. Nothing under `reports`
    changes. Raises UserError where there is no report, or `out` is a folder that this did not make."""
    folders = sorted({p.parent for name in ("runs", "speed.json") for p in reports.rglob(name)})
    if not folders:
        raise UserError(f"{reports} holds no reports (folders with runs/ or speed.json)")
    _empty(out)
    lines = []
    for folder in track(folders, "pages", len(folders)):
        name = folder.relative_to(reports).as_posix()
        lines.append(_line(name, _report(folder, out / name, "../" * (name.count("/") + 1) + "index.html")))
    kinds = list(KINDS.values())
    lines.sort(key=lambda line: (kinds.index(line["cells"][0]["v"]), line["name"]))
    heads = [
        Head("kind", words=True, filtered=True),
        *(Head(h.lower(), words=True, filtered=h in FILTERED) for h in SHOWN),
    ]
    listed = {"tables": [table("Reports", "reports", heads, lines)]}
    write_text(out / "index.html", page.render("site.html", SCRIPTS, listed))
    console.print(f"{out}: {len(folders)} reports, {_size(out) / 1e6:.1f} MB")
    return out / "index.html"


def _report(folder: Path, out: Path, home: str) -> dict[str, Any]:
    """Writes one report's page; returns its content."""
    out.mkdir(parents=True)
    found = content(folder)
    page.write(folder, found, out, home)
    return found


def _line(name: str, found: dict[str, Any]) -> dict[str, Any]:
    kind = KINDS[max((start for start in KINDS if name.startswith(start)), key=len)]
    facts = [{"v": found["facts"][h]} if h in found["facts"] else None for h in SHOWN]
    return row(name, [{"v": kind}, *facts])


def _empty(out: Path) -> None:
    """`.nojekyll` marks a site of ours, and tells GitHub Pages to take it as it is."""
    mark = out / ".nojekyll"
    if out.exists() and any(out.iterdir()) and not mark.exists():
        raise UserError(f"{out} holds other files: name a folder that is new or that this command has made")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    mark.touch()


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
