"""Reports: every table, figure and page of a folder, rebuilt from its stored results without a GPU."""

from __future__ import annotations

import gc
import json
from pathlib import Path

from i4d_bench.cache import atomic_file
from i4d_bench.results.store import Store
from i4d_bench.results.summary import summary
from i4d_bench.types import UserError


def build(folder: Path) -> None:
    """Raises UserError when the folder holds no results."""
    from i4d_bench.report import figures, search, speed_tables, tables
    from i4d_bench.report.web import page

    if (folder / "speed.json").exists():
        speed_tables.build(folder)
        return
    store = Store(folder)
    if not store.records:
        raise UserError(f"{folder} holds no results (no runs of this benchmark version in its runs/)")
    with atomic_file(store.folder / "summary.json") as path:
        path.write_text(json.dumps(summary(store), indent=1) + "\n", encoding="utf-8")
    gc.freeze()  # statsmodels collects garbage at every call; what is loaded by now need not be looked at again
    try:
        if store.records[0].config.get("ablation") == "search":
            built = search.build(store)
        else:
            built = tables.build(store)
            figures.build(store)
        page.build(store, *built)
    finally:
        gc.unfreeze()
