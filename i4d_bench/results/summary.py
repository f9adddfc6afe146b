"""summary.json, for scripts (DESIGN §7)."""

from __future__ import annotations

from typing import Any

import pandas as pd

from i4d_bench.metrics.cards import CARDS
from i4d_bench.results.aggregate import finite
from i4d_bench.results.environment import environment
from i4d_bench.results.record import SCHEMA
from i4d_bench.results.store import Store
from i4d_bench.stats import AXES, Interval, Scores, mean_ci


def scores(samples: pd.DataFrame, set_: str, metric: str) -> dict[str, Scores]:
    """By design, all its seeds; designs that were not measured there are left out."""
    rows = samples.loc[(samples["set"] == set_) & (samples["metric"] == metric)].rename(columns={"identity": "person"})
    return {str(d): own.set_index(AXES)["value"].astype(float) for d, own in rows.groupby("design", sort=False)}


def interval(samples: pd.DataFrame, design: str, set_: str, metric: str) -> Interval | None:
    """`stats.mean_ci` of a design's samples; None where there are none."""
    own = scores(samples.loc[samples["design"] == design], set_, metric).get(design)
    return None if own is None else mean_ci(own, CARDS[metric].worst)


def summary(store: Store, speed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """`summary.json` as DESIGN §7 has it, for scripts. speed: rows of a speed report by their keys."""
    records, samples = store.records, store.samples
    designs: dict[str, Any] = {}
    for design, set_, metric in samples[["design", "set", "metric"]].drop_duplicates().to_numpy():
        i = interval(samples, design, set_, metric)
        assert i is not None
        cell = {"mean": i.mean, "lo": i.lo, "hi": i.hi, "n": i.n, "failures": i.failures, "seeds": i.seeds}
        designs.setdefault(design, {}).setdefault(set_, {})[metric] = cell
    last = records[-1].environment if records else environment()
    return finite(
        {"schema": SCHEMA, "hardware": last["hardware"], "commit": last["commit"], "designs": designs, "speed": speed}
    )
