"""Every design's difference from the one that others are compared with, as dots: what a design adds, people and seeds paired."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from i4d_bench.metrics.cards import CARDS
from i4d_bench.report.columns import SET_NAMES, people_set
from i4d_bench.report.drawing import PAGE, STYLE, looks_of, plain, save
from i4d_bench.report.rows import rows
from i4d_bench.results.store import Store
from i4d_bench.stats import LEVEL, SEEDS, compare_family

PANELS = (("self", "gap"), ("cross", "gap"), ("extreme", "gap"), ("cross", "aed_true"), ("cross", "aed_mp52"))
SHOWN = 4
"""Of PANELS, the first that were measured."""


def draw(store: Store, baseline: str | None) -> None:
    """Above, those that get what the baseline gets; below, on a scale of their own, those that get more or less. Without the
    control, which lies far below all of them. Nothing is drawn where there is nobody to compare."""
    by_name, scores = rows(store), store.measured.scores
    wanted = [(people_set(store.samples, set_), metric) for set_, metric in PANELS]
    panels = [p for p in wanted if baseline in scores(*p)][:SHOWN]
    others = [d for d, r in by_name.items() if d != baseline and r.family != "control"]
    if baseline is None or not panels or not others:
        return
    own = by_name[baseline].block
    groups = [
        g for g in ([d for d in others if by_name[d].block == own], [d for d in others if by_name[d].block != own]) if g
    ]
    look = looks_of(by_name)
    with plt.rc_context(STYLE):
        size = (PAGE, 0.9 + 0.14 * len(others) + 0.25 * (len(groups) - 1))
        figure, axes = plt.subplots(
            len(groups), len(panels), figsize=size, sharey="row", squeeze=False, height_ratios=[len(g) for g in groups]
        )
        told = False
        first: dict[str, int] = {}  # panels of one metric share their scales
        for k, (column, (set_, metric)) in enumerate(zip(axes.T, panels, strict=True)):
            card = CARDS[metric]
            found = compare_family(scores(set_, metric), baseline, card.worst)
            told |= any(np.isfinite(c.p) for c in found.values())
            for axis, group, shared in zip(column, groups, axes.T[first.setdefault(metric, k)], strict=True):
                if axis is not shared:
                    axis.sharex(shared)
                axis.axvline(0, color="0.5", lw=0.6)
                for y, design in enumerate(group[::-1]):
                    if design not in found:
                        continue
                    c, color = found[design], look[design]["color"]
                    if np.isfinite(c.lo):
                        axis.plot([c.lo, c.hi], [y, y], color=color, lw=0.9)
                    axis.plot(
                        c.difference, y, "o", ms=3.4, mew=0.7, color=color, mfc=color if c.significant else "white"
                    )
                axis.set_yticks(range(len(group)), [plain(d) + by_name[d].mark for d in group[::-1]])
                axis.set_ylim(-0.6, len(group) - 0.4)
                axis.locator_params(axis="x", nbins=4)
            column[0].set_title(f"{SET_NAMES[set_]}\n{card.label} {card.arrow}")
        filled = (
            f"filled: p < {1 - LEVEL:.2g} after Holm" if told else f"nothing is called significant below {SEEDS} seeds"
        )
        figure.supxlabel(f"difference from {plain(baseline)}; {filled}", fontsize=STYLE["axes.labelsize"])
        save(figure, store.folder, "differences")
