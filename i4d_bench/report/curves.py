"""The driving gap over training: a panel per design, a line of them per family, onsets marked."""

from __future__ import annotations

from collections import Counter

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes

from i4d_bench.evaluate.gap import ONSET_DB
from i4d_bench.report.drawing import PAGE, SMALL, STYLE, hues, plain, save, short
from i4d_bench.report.rows import Row, onset, rows
from i4d_bench.results.store import Store

ACROSS = 8
"""Panels side by side, at most."""


def draw(store: Store) -> None:
    """A design's mean over its seeds, and its last value in the corner; every seed as a thin line, with a mark at its onset
    (`rows.onset`). In grey behind it: from the lowest to the highest mean of its family."""
    designs = _curved(rows(store))
    if not designs:
        return
    hue, lines = hues(row.family for row in designs.values()), _lines(designs)
    means = {d: _seeds(row).mean(axis=1).dropna() for d, row in designs.items()}
    with plt.rc_context(STYLE):
        size = (PAGE, max(1.8, 0.4 + 0.95 * len(lines)))
        figure, axes = plt.subplots(len(lines), max(map(len, lines)), figsize=size, sharey=True, squeeze=False)
        for row, line in zip(axes, lines, strict=True):
            for axis in row[len(line) :]:
                axis.set_axis_off()
            for axis, d in zip(row, line, strict=False):
                _steps(axis, (1, 3) if len(row) < ACROSS // 2 else (1,))
                family = designs[d].family
                own = pd.DataFrame({other: means[other] for other in designs if designs[other].family == family})
                if own.shape[1] > 1:
                    axis.fill_between(own.index, own.min(axis=1), own.max(axis=1), color="0.82", lw=0)
                _panel(axis, designs[d], means[d], hue[family])
                words = plain(d) if len(lines) == 1 else short(d)
                broken = words.replace("@ ", "@").replace(" ", "\n").replace(",", ",\n")
                axis.set_title(broken + designs[d].mark, fontsize=SMALL, pad=2)
            if len(lines) > 1:
                row[0].set_ylabel(designs[line[0]].family)
        figure.supxlabel("training steps after the warm-up", fontsize=STYLE["axes.labelsize"])
        figure.supylabel("driving gap, validation (dB)", fontsize=STYLE["axes.labelsize"])
        save(figure, store.folder, "curves")


def lines(designs: dict[str, Row]) -> str:
    """What its lines and marks mean, of those that are there."""
    shown = _curved(designs).values()
    out = []
    if any(len(row.runs) > 1 for row in shown):
        out.append("Thick lines: means over the seeds; thin lines: seeds.")
    if any(n > 1 for n in Counter(row.family for row in shown).values()):
        out.append("Grey: from the lowest to the highest mean of the family.")
    if any(onset(r) is not None for row in shown for r in row.runs):
        out.append("Circles: the validation from which a seed stays above the dotted line.")
    return "".join(f" {said}" for said in out)


def _curved(designs: dict[str, Row]) -> dict[str, Row]:
    """Those with a curve; a control's gap is 0 by nature: it has no panel beside others."""
    curved = {d: row for d, row in designs.items() if any(r.curve for r in row.runs)}
    return {d: row for d, row in curved.items() if row.family != "control"} or curved


def _lines(designs: dict[str, Row]) -> list[list[str]]:
    """The designs of each line of panels, ACROSS at most: one family's, or all of few."""
    if len(designs) <= ACROSS:
        return [list(designs)]
    families = dict.fromkeys(row.family for row in designs.values())
    own = [[d for d, row in designs.items() if row.family == f] for f in families]
    return [some[k : k + ACROSS] for some in own for k in range(0, len(some), ACROSS)]


def _seeds(row: Row) -> pd.DataFrame:
    """The gap by step and seed."""
    return pd.DataFrame(
        {r.seed: pd.Series({c["step"]: c["gap"] for c in r.curve}, dtype=float) for r in row.runs if r.curve}
    )


def _steps(axis: Axes, ticks: tuple[int, ...]) -> None:
    """Logarithmic: onsets lie at a hundredth to a half of the steps."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=ticks, numticks=9))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}"))
    axis.xaxis.set_minor_locator(ticker.NullLocator())


def _panel(axis: Axes, row: Row, mean: pd.Series, color: str) -> None:
    seeds = _seeds(row)
    axis.axhline(ONSET_DB, color="k", lw=0.5, ls=(0, (1, 2)))
    axis.plot(seeds, color=color, lw=0.4, alpha=0.6)
    axis.plot(mean, color=color, lw=1.1)
    for r in row.runs:
        if r.curve and (step := onset(r)) is not None:
            axis.plot(step, seeds[r.seed][step], "o", ms=3.2, color=color, mfc="white", mew=0.8)
    if len(mean):
        axis.text(0.05, 0.97, f"{mean.iloc[-1]:.1f} dB", transform=axis.transAxes, va="top", fontsize=SMALL)
