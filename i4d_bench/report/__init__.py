"""Reports: every table, figure and page of a folder, rebuilt from its stored results without a GPU."""

from __future__ import annotations

import gc
import json
from pathlib import Path

from i4d_bench.cache import atomic_file
from i4d_bench.config.ablations import SEARCHES
from i4d_bench.report.rows import Row
from i4d_bench.results.store import Store
from i4d_bench.results.summary import summary
from i4d_bench.types import UserError

BASELINE = "baseline.txt"
"""In a report folder: the row that its designs are compared with, where one was asked for."""


def build_report(folder: Path, baseline: str | None = None) -> None:
    """baseline: the row that others are compared with (`baseline.pick`), kept for the next time. Raises UserError when the folder
    holds no results or no such row."""
    from i4d_bench.report import speed_tables

    if (folder / "speed.json").exists():
        _refuse(baseline, folder)
        speed_tables.write(folder)
    else:
        build_runs(folder, baseline)


def build_runs(folder: Path, baseline: str | None = None) -> tuple[dict[str, list], dict[str, Row], list[str]]:
    """The same for runs alone; returns the tables by their titles, their rows and the notes."""
    from i4d_bench.report import figures, search, speeds, tables
    from i4d_bench.report.web import page
    from i4d_bench.report.writing import write_text

    store = Store(folder)
    if not store.records:
        raise UserError(f"{folder} holds no results (no runs of this benchmark version in its runs/)")
    timed = speeds.find(folder, store.records[-1].environment["hardware"])
    timings = timed.of(r.design for r in store.records) if timed else {}
    with atomic_file(store.folder / "summary.json") as path:
        path.write_text(json.dumps(summary(store, timings), indent=1) + "\n", encoding="utf-8")
    gc.freeze()  # statsmodels collects garbage at every call; what is loaded by now need not be looked at again
    try:
        if store.records[0].config.get("ablation") in SEARCHES:
            _refuse(baseline, folder)
            built = search.write_search(store)
        else:
            figures.draw(store, timed)  # paper.tex shows those that are there
            built = tables.write_all(store, timed, baseline or _kept(store))
            if baseline is not None:
                write_text(folder / BASELINE, f"{baseline}\n")
        page.write(store, *built)
    finally:
        gc.unfreeze()
    return built


def _kept(store: Store) -> str | None:
    """The baseline that was asked for before, while it has a row."""
    path = store.folder / BASELINE
    name = path.read_text(encoding="utf-8").strip() if path.exists() else None
    return name if name in {r.design for r in store.records} else None


def _refuse(baseline: str | None, folder: Path) -> None:
    if baseline is not None:
        raise UserError(f"{folder} has no pairs of designs, so nothing to compare with {baseline!r}")
