"""Figures from a store alone, each as .pdf and .png at its printed width (`drawing`)."""

from __future__ import annotations

from i4d_bench.report import curves, differences, dots, qualitative, tradeoff
from i4d_bench.report.speeds import Speeds
from i4d_bench.results.store import Store


def draw(store: Store, speeds: Speeds | None, baseline: str | None) -> None:
    """baseline: the design that others are compared with."""
    tradeoff.draw(store, speeds)
    curves.draw(store)
    dots.draw(store)
    differences.draw(store, baseline)
    qualitative.draw(store, baseline)
