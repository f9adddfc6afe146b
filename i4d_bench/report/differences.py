"""Every design's difference from the one that others are compared with, as dots: what a design adds, people and seeds paired."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from i4d_bench.metrics.cards import CARDS
from i4d_bench.report.columns import SET_NAMES, people_set
from i4d_bench.report.drawing import PAGE, STYLE, looks_of, plain, save
from i4d_bench.report.rows import rows
from i4d_bench.results.store import Store
from i4d_bench.stats import LEVEL, SEEDS

PANELS = (("self", "gap"), ("cross", "gap"), ("extreme", "gap"), ("cross", "aed_true"), ("cross", "aed_mp52"))
SHOWN = 4
"""Of PANELS, the first that were measured."""


def draw(store: Store, baseline: str | None, found: pd.DataFrame) -> None:
    """found: differences from the baseline (`pairs.pairs`). Above, those that get what the baseline gets; below, on a scale of
    their own, those that get more or less. Without the control, which lies far below all of them. Nothing is drawn where there is
    nobody to compare."""
    by_name, of = rows(store), {key: own.set_index("design") for key, own in found.groupby(["set", "metric"])}
    wanted = [(people_set(store.samples, set_), metric) for set_, metric in PANELS]
    panels = [p for p in wanted if p in of][:SHOWN]
    others = [d for d, r in by_name.items() if d != baseline and r.family != "control"]
    if baseline is None or not panels or not others:
        return
    like = lambda d: by_name[d].block == by_name[baseline].block  # noqa: E731
    groups = [g for g in ([d for d in others if like(d)], [d for d in others if not like(d)]) if g]
    hue = {d: look["color"] for d, look in looks_of(by_name).items()}
    with plt.rc_context(STYLE):
        size, heights = (PAGE, 0.9 + 0.14 * len(others) + 0.25 * (len(groups) - 1)), [len(g) for g in groups]
        figure, axes = plt.subplots(
            len(groups), len(panels), figsize=size, sharey="row", squeeze=False, height_ratios=heights
        )
        first: dict[str, int] = {}  # panels of one metric share their scales
        for k, (column, (set_, metric)) in enumerate(zip(axes.T, panels, strict=True)):
            for axis, group, shared in zip(column, groups, axes.T[first.setdefault(metric, k)], strict=True):
                if axis is not shared:
                    axis.sharex(shared)
                _panel(axis, group[::-1], of[set_, metric], hue)
                axis.set_yticks(range(len(group)), [plain(d) + by_name[d].mark for d in group[::-1]])
            column[0].set_title(f"{SET_NAMES[set_]}\n{CARDS[metric].head}")
        filled = (
            f"filled: p < {1 - LEVEL:.2g} after Holm"
            if np.isfinite(found["p"].to_numpy()).any()
            else f"no p below {SEEDS} seeds"
        )
        figure.supxlabel(f"difference from {plain(baseline)}; {filled}", fontsize=STYLE["axes.labelsize"])
        save(figure, store.folder, "differences")


def _panel(axis: Axes, designs: list[str], found: pd.DataFrame, hue: dict[str, str]) -> None:
    """From below to above."""
    axis.axvline(0, color="0.5", lw=0.6)
    for y, design in enumerate(designs):
        if design in found.index:
            c, color = found.loc[design], hue[design]
            if np.isfinite(c.lo):
                axis.plot([c.lo, c.hi], [y, y], color=color, lw=0.9)
            face = color if c.verdict in ("better", "worse") else "white"
            axis.plot(c.difference, y, "o", ms=3.4, mew=0.7, color=color, mfc=face)
    axis.set_ylim(-0.6, len(designs) - 0.4)
    axis.locator_params(axis="x", nbins=4)
