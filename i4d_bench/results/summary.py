"""summary.json, for scripts (DESIGN §7)."""

from __future__ import annotations

from typing import Any

from i4d_bench.results.aggregate import finite
from i4d_bench.results.environment import environment
from i4d_bench.results.record import SCHEMA
from i4d_bench.results.store import Store


def summary(store: Store, speed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """`summary.json` as DESIGN §7 has it, for scripts. speed: rows of a speed report by their keys."""
    records, measured = store.records, store.measured
    designs: dict[str, Any] = {}
    for design, set_, metric in store.samples[["design", "set", "metric"]].drop_duplicates().to_numpy():
        i = measured.intervals(set_, metric)[design]
        cell = {"mean": i.mean, "lo": i.lo, "hi": i.hi, "n": i.n, "failures": i.failures, "seeds": i.seeds}
        designs.setdefault(design, {}).setdefault(set_, {})[metric] = cell
    last = records[-1].environment if records else environment()
    return finite(
        {"schema": SCHEMA, "hardware": last["hardware"], "commit": last["commit"], "designs": designs, "speed": speed}
    )
