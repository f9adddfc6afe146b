"""Figures from a store alone, each as .pdf and .png at its printed width (`drawing`)."""

from __future__ import annotations

import pandas as pd

from i4d_bench.report import curves, differences, dots, qualitative, tradeoff
from i4d_bench.report.speeds import Speeds
from i4d_bench.results.store import Store


def draw(store: Store, speeds: Speeds | None, baseline: str | None, found: pd.DataFrame) -> None:
    """baseline: the design that others are compared with; found: their differences from it (`pairs.pairs`)."""
    tradeoff.draw(store, speeds)
    curves.draw(store)
    dots.draw(store)
    differences.draw(store, baseline, found)
    qualitative.draw(store, baseline)
