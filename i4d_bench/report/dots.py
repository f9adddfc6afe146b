"""Every design's scores with 95% intervals, as dots: one panel per metric."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from i4d_bench.data.splits import UNSEEN
from i4d_bench.metrics.cards import CARDS
from i4d_bench.report.drawing import PAGE, STYLE, looks_of, plain, save
from i4d_bench.report.rows import rows
from i4d_bench.results.store import Store

METRICS = ("gap", "aed_true", "aed_mp52", "lpips_alex", "psnr", "csim_mobileface", "csim_dlib")
PANELS = 5
SETS = (("self", 0.16, "o"), ("cross", -0.16, "o"), (f"{UNSEEN}self", 0.32, "s"), (f"{UNSEEN}cross", -0.32, "s"))
"""How far above its line each is drawn, and how; those of self are filled."""


def draw(store: Store) -> None:
    """Self above cross on every design's line, those of unseen people beside them; a thin line between families."""
    by_name, samples, intervals = rows(store), store.samples, store.measured.intervals
    metrics = [m for m in METRICS if m in set(samples["metric"])][:PANELS]
    if not metrics:
        return
    designs, look = list(by_name)[::-1], looks_of(by_name)
    families = [by_name[d].family for d in designs]
    with plt.rc_context(STYLE):
        size = (PAGE, 0.75 + 0.155 * len(designs))
        figure, axes = plt.subplots(1, len(metrics), figsize=size, sharey=True, squeeze=False)
        for axis, metric in zip(axes[0], metrics, strict=True):
            for set_, offset, shape in SETS:
                found = intervals(set_, metric)
                for y, d in enumerate(designs):
                    if d not in found or (metric == "gap" and families[y] == "control"):
                        continue  # the control's gap is 0 by its nature, and would squeeze the others
                    i, color = found[d], look[d]["color"]
                    if np.isfinite(i.lo):
                        axis.plot([i.lo, i.hi], [y + offset] * 2, color=color, lw=0.9)
                    face = color if set_.endswith("self") else "white"
                    axis.plot(i.mean, y + offset, shape, ms=3.2, mew=0.7, color=color, mfc=face)
            for y in range(1, len(designs)):
                if families[y] != families[y - 1]:
                    axis.axhline(y - 0.5, color="0.6", lw=0.5)
            axis.set_title(CARDS[metric].head)
            axis.locator_params(axis="x", nbins=3)
            axis.set_yticks(range(len(designs)), [plain(d) + by_name[d].mark for d in designs])
            axis.set_ylim(-0.6, len(designs) - 0.4)
        unseen = "; squares: people never trained on" * any(s.startswith(UNSEEN) for s in set(samples["set"]))
        figure.supxlabel(f"filled: self, open: cross{unseen}", fontsize=STYLE["axes.labelsize"])
        save(figure, store.folder, "intervals")
