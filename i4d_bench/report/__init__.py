"""Reports: every table, figure and page of a folder, rebuilt from its stored results without a GPU."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from i4d_bench.cache import atomic_file
from i4d_bench.config.ablations import SEARCHES
from i4d_bench.progress import console
from i4d_bench.report import speeds
from i4d_bench.report.rows import Row
from i4d_bench.report.speeds import Speeds
from i4d_bench.results.store import Store
from i4d_bench.results.summary import summary
from i4d_bench.types import UserError

BASELINE = "baseline.txt"
"""In a report folder: the row that its designs are compared with, where one was asked for."""


def build_report(folder: Path, baseline: str | None = None) -> None:
    """baseline: the row that others are compared with (`baseline.pick`), kept for the next time. Raises UserError when the folder
    holds no results or no such row."""
    from i4d_bench.report import speed_tables
    from i4d_bench.report.web import page, speed

    if (folder / "speed.json").exists():
        _refuse(baseline, folder)
        speed_tables.write(folder)
        page.write(folder, speed.content(folder))
    else:
        build_runs(folder, baseline)


def build_runs(folder: Path, baseline: str | None = None) -> tuple[dict[str, list], dict[str, Row], list[str]]:
    """The same for runs alone; returns the tables by their titles, their rows and the notes."""
    from i4d_bench.report import figures, pairs, search, tables
    from i4d_bench.report.web import page, runs

    store, timed = _opened(folder)
    timings = timed.of(r.design for r in store.records) if timed else {}
    with atomic_file(store.folder / "summary.json") as path:
        path.write_text(json.dumps(summary(store, timings), indent=1) + "\n", encoding="utf-8")
    with _nothing_to_collect():
        if store.records[0].config.get("ablation") in SEARCHES:
            _refuse(baseline, folder)
            built = search.write_search(store)
            page.write(folder, runs.content(store, *built))
        else:
            compared = pairs.baseline_of(store, baseline or _kept(store))
            found = pairs.pairs(store, compared)
            figures.draw(store, timed, compared, found)  # paper.tex shows those that are there
            built = tables.write_all(store, timed, compared, found)
            if baseline is not None:
                keep_baseline(folder, baseline)
            page.write(folder, runs.content(store, *built, compared, found))
    return built


def keep_baseline(folder: Path, baseline: str) -> None:
    """For all reports of the folder from now on, as soon as there is such a row."""
    from i4d_bench.report.writing import write_text

    write_text(folder / BASELINE, f"{baseline}\n")


def content(folder: Path) -> dict[str, Any]:
    """What the page of a report folder shows, from its stored results; writes nothing. Raises UserError."""
    from i4d_bench.report import pairs, search, tables
    from i4d_bench.report.web import runs, speed

    if (folder / "speed.json").exists():
        return speed.content(folder)
    store, timed = _opened(folder)
    with _nothing_to_collect():
        if store.records[0].config.get("ablation") in SEARCHES:
            return runs.content(store, *search.compute(store))
        compared = pairs.baseline_of(store, _kept(store))
        return runs.content(store, *tables.compute(store, timed), compared, pairs.pairs(store, compared))


@contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """statsmodels collects garbage at every call; what is loaded by now need not be looked at again."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _opened(folder: Path) -> tuple[Store, Speeds | None]:
    """Its runs, and the speed report that their FPS are from."""
    store = Store(folder)
    if not store.records:
        raise UserError(f"{folder} holds no results (no runs of this benchmark version in its runs/)")
    return store, speeds.find(folder, store.records[-1].environment["hardware"])


def _kept(store: Store) -> str | None:
    """The baseline that was asked for before. While nothing is measured of it the default stands in, and a line says so."""
    path = store.folder / BASELINE
    if not path.exists():
        return None
    name = path.read_text(encoding="utf-8").strip()
    if name in set(store.samples["design"]):
        return name
    console.print(f"{name} has no scores, so designs are compared with the default row")
    return None


def _refuse(baseline: str | None, folder: Path) -> None:
    if baseline is not None:
        raise UserError(f"{folder} has no pairs of designs, so nothing to compare with {baseline!r}")
