"""What the page of a report of runs shows: its tables, its pictures, and where every row comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from i4d_bench.metrics.cards import CARDS
from i4d_bench.report import answer, curves
from i4d_bench.report.columns import SET_NAMES, Column
from i4d_bench.report.pairs import RESOLUTION
from i4d_bench.report.qualitative import rule
from i4d_bench.report.rows import Row
from i4d_bench.report.web.avatars import avatars, clips
from i4d_bench.report.web.pictures import pictures
from i4d_bench.report.web.table import FIRST, Cell, Head, number, of_columns, row, table
from i4d_bench.results.aggregate import finite
from i4d_bench.results.environment import code_of
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store

FIGURES = {
    "speed_quality": "Speed against expression error",
    "curves": "When designs start to follow the driver",
    "differences": "Paired differences from one design, with 95% intervals; filled: significant. Below, on scales of their own, "
    "designs that see more",
    "intervals": "Scores with 95% intervals",
    "search": "The gap of every setting over training",
}

FILMED = (
    "Clips: the photo, then who drives, beside the avatar. It turns by 45° to either side with the photo's expression; then test "
    "people drive it, one after the other, and between two of them the code goes straight from one to the other."
)


def content(
    store: Store,
    tables: Mapping[str, list[Column]],
    designs: dict[str, Row],
    notes: list[str],
    baseline: str | None = None,
    differences: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """tables: by their titles, with their rows and notes, as `tables.compute` and `search.compute` return them. differences: from
    the baseline, as `pairs.pairs`; a search has none, and no pictures."""
    shown = [of_columns(title, columns, designs) for title, columns in tables.items()]
    if differences is not None and len(differences):
        shown.append(_differences(differences, baseline, designs))
    first = next(iter(tables.values()))
    filmed, moving = clips(store, designs), avatars(store, designs, baseline)
    return finite(
        {
            "title": store.folder.resolve().name,
            "facts": facts(store, designs),
            "answer": answer.of_search(first, designs) if differences is None else answer.of_designs(first, designs),
            "notes": [*notes, FILMED] if filmed else notes,
            "tables": shown,
            "figures": FIGURES | {"curves": f"{FIGURES['curves']}.{curves.lines(designs)}".rstrip(".")},
            "pictures": pictures(store, designs),
            "avatars": moving,
            "avatars_about": f"{rule(store.measured, baseline)}." if any(a["name"] in designs for a in moving) else "",
            "clips": filmed,
            "runs": {name: _provenance(store.folder, r) for name, r in designs.items()},
        }
    )  # fmt: skip


def facts(store: Store, designs: Mapping[str, Row]) -> dict[str, str]:
    """What all runs of a report have in common, in words."""
    records = store.records
    one, samples = records[0], store.samples
    days = sorted({r.created[:10] for r in records})
    return {
        "Hardware": _machine(one),
        "Preset": one.preset,
        "Data": one.data["kind"],
        "Driver": one.driver,
        "Designs": str(len(designs)),
        "Runs": str(len(records)),
        "Seeds": ", ".join(map(str, sorted({r.seed for r in records}))),
        "Test people": str(samples["identity"].nunique()) if len(samples) else "none",
        "Measured": days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
        "Code": ", ".join(sorted({code_of(r.environment) for r in records})),
    }


def _machine(record: Record) -> str:
    gpu = record.environment.get("gpu")
    return gpu["name"] if gpu else record.environment["hardware"]


def _differences(pairs: pd.DataFrame, baseline: str | None, designs: dict[str, Row]) -> dict[str, Any]:
    """One line per set, metric and design; at first those of one set, and of a metric that was measured on it."""
    order = list(designs)
    sets = set(pairs["set"])
    first = next(s for s in ("cross", *SET_NAMES) if s in sets)
    metrics = set(pairs.loc[pairs["set"] == first, "metric"])
    wanted = next(m for m in (*FIRST, *CARDS) if m in metrics)
    heads = [
        Head("set", words=True, filtered=True, wanted=SET_NAMES[first]),
        Head("metric", words=True, filtered=True, wanted=_label(wanted)),
        Head("difference", digits=3, about=f"mean of the design minus {baseline}, on the samples that both have"),
        Head("p", digits=4, better="low", about="after Holm over the designs; none where it cannot be told"),
        Head("samples"),
        Head("people", shown=False),
        Head("seeds", shown=False),
        Head("verdict", words=True, filtered=True),
    ]
    lines = [
        _difference(p, designs[p["design"]])
        for p in sorted(pairs.to_dict("records"), key=lambda p: order.index(p["design"]))
    ]
    return table(f"Differences from {baseline}", "differences", heads, lines)


def _difference(pair: dict[str, Any], design: Row) -> dict[str, Any]:
    p = pair["p"]
    cells: list[Cell] = [
        {"v": SET_NAMES[pair["set"]]},
        {"v": _label(pair["metric"])},
        number(pair["difference"], **_bounds(pair["lo"], pair["hi"])),
        number(p, **({"as": f"<{RESOLUTION:g}"} if p < RESOLUTION else {})),
        number(pair["n"]),
        number(pair["people"]),
        number(pair["seeds"]),
        {"v": pair["verdict"]},
    ]
    return row(pair["design"], cells, design.family, design.block, design.mark)


def _bounds(lo: float, hi: float) -> dict[str, float]:
    return {"lo": lo, "hi": hi} if lo == lo else {}  # NaN differs from itself


def _label(metric: str) -> str:
    return CARDS[metric].head


def _provenance(folder: Path, row: Row) -> dict[str, Any]:
    """Where a row comes from: its runs by seed, the settings of the newest, and the command that trains it again."""
    last = row.last
    return {
        "family": row.family,
        "sees": last.sees,
        "why": row.why,
        "command": f"i4d-bench reproduce {folder.as_posix()} --designs {last.design}",
        "overrides": last.overrides,
        "config": last.config,
        "runs": [
            {
                "seed": r.seed,
                "run": r.run_id,
                "status": r.status,
                "made": r.created[:16].replace("T", " "),
                "code": code_of(r.environment),
                "machine": _machine(r),
                "data": r.data["hash"],
                "training": r.made.get("training", ""),
                "scoring": r.scoring,
                "weights": ", ".join(f"{k} {v}" for k, v in r.weights.items()),
                "versions": ", ".join(f"{k} {v}" for k, v in r.environment["versions"].items() if v),
            }
            for r in row.runs
        ],
    }
