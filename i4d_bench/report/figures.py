"""Figures from a store alone, each as .pdf and .png at its printed width (`drawing`)."""

from __future__ import annotations

from i4d_bench.report import curves, dots, qualitative, tradeoff
from i4d_bench.report.speeds import Speeds
from i4d_bench.results.store import Store


def draw(store: Store, speeds: Speeds | None) -> None:
    tradeoff.draw(store, speeds)
    for figure in (curves, dots, qualitative):
        figure.draw(store)
