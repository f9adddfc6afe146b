"""The driving gap over training: one panel per family, onsets marked."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import ticker

from i4d_bench.evaluate.gap import ONSET_DB
from i4d_bench.report.drawing import PAGE, STYLE, Labelled, label_beside, looks_of, save, short
from i4d_bench.report.rows import Row, onset, rows
from i4d_bench.results.store import Store

MARKS = 6
"""Of a line, beside its onset."""


def draw(store: Store) -> None:
    """The mean over the seeds, every seed as a thin line behind it. Large marks: each seed's onset (`rows.onset`)."""
    designs = {d: row for d, row in rows(store).items() if any(r.curve for r in row.runs)}
    if not designs:
        return
    look = looks_of(designs)
    families = list(dict.fromkeys(row.family for row in designs.values() if row.family != "control"))
    families = families or ["control"]
    ends: list[list[Labelled]] = []
    most = max(sum(row.family in (f, "control") for row in designs.values()) for f in families)
    with plt.rc_context(STYLE):
        size = (PAGE, max(2.3, 0.7 + 0.13 * most))
        figure, axes = plt.subplots(1, len(families), figsize=size, sharex=True, sharey=True, squeeze=False)
        for axis, family in zip(axes[0], families, strict=True):
            axis.axhline(ONSET_DB, color="k", lw=0.6, ls=(0, (1, 2)))
            axis.set_title(family, loc="left")
            own = [d for d, row in designs.items() if row.family in (family, "control")]
            ends.append([_line(axis, designs[d], short(d) + designs[d].mark, look[d]) for d in own])
            axis.set_xscale("log")  # onsets lie at a hundredth to a half of the steps
            axis.margins(x=0.03)
            axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 3), numticks=9))
            axis.xaxis.set_major_formatter(
                ticker.FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}")
            )
            axis.xaxis.set_minor_locator(ticker.NullLocator())
        for axis, own in zip(axes[0], ends, strict=True):  # by now the panels have their common limits
            label_beside(axis, [end for end in own if np.isfinite(end.y)])
        axes[0][0].set_ylabel("driving gap, validation (dB)")
        figure.supxlabel("training steps after the warm-up", fontsize=STYLE["axes.labelsize"])
        save(figure, store.folder, "curves")


def _line(axis, row: Row, text: str, look: dict) -> Labelled:
    """Draws a design; returns the end of its line."""
    runs = {r.seed: pd.Series({c["step"]: c["gap"] for c in r.curve}, dtype=float) for r in row.runs if r.curve}
    mean = pd.DataFrame(runs).mean(axis=1)
    if row.family == "control":
        look = {**look, "ls": (0, (1, 2)), "marker": ""}
    quiet = {"color": look["color"], "ls": look["ls"], "lw": 0.5, "alpha": 0.5}
    for r in row.runs:
        if len(runs) > 1 and r.curve:
            axis.plot(runs[r.seed], **quiet)
        if r.curve and (step := onset(r)) is not None:
            axis.plot(step, runs[r.seed][step], ms=5.5, **{**look, "ls": "none", "mew": 1.0})
    axis.plot(mean, lw=0.9, ms=3, markevery=max(1, len(mean) // MARKS), **look)
    return Labelled(float(mean.index[-1]), float(mean.iloc[-1]), text, look)
