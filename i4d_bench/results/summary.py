"""summary.json, for scripts (DESIGN §7)."""

from __future__ import annotations

from typing import Any

import pandas as pd

from i4d_bench.metrics.cards import CARDS
from i4d_bench.results.aggregate import finite
from i4d_bench.results.environment import environment
from i4d_bench.results.record import SCHEMA
from i4d_bench.results.store import Store
from i4d_bench.stats import Interval, mean_ci


def interval(samples: pd.DataFrame, design: str, set_: str, metric: str) -> Interval | None:
    """`stats.mean_ci` of a design's samples, clustered by identity; None where there are none."""
    rows = samples.loc[(samples["design"] == design) & (samples["set"] == set_) & (samples["metric"] == metric)]
    if not len(rows):
        return None
    return mean_ci(rows["value"].to_numpy(float), rows["identity"].to_numpy(), CARDS[metric].worst)


def summary(store: Store) -> dict[str, Any]:
    """`summary.json` as DESIGN §7 has it, for scripts."""
    records, samples = store.records, store.samples
    designs: dict[str, Any] = {}
    for design, set_, metric in samples[["design", "set", "metric"]].drop_duplicates().to_numpy():
        i = interval(samples, design, set_, metric)
        assert i is not None
        cell = {"mean": i.mean, "lo": i.lo, "hi": i.hi, "n": i.n, "failures": i.failures}
        designs.setdefault(design, {}).setdefault(set_, {})[metric] = cell
    speed = {key: timing for r in records for key, timing in r.timings.items()}
    last = records[-1].environment if records else environment()
    return finite(
        {"schema": SCHEMA, "hardware": last["hardware"], "commit": last["commit"], "designs": designs, "speed": speed}
    )
