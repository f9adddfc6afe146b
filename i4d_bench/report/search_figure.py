"""The figure of a search: the gap of every setting over the steps, a panel per design, the one that was taken marked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D

from i4d_bench.config.ablations import STARTS
from i4d_bench.evaluate.gap import ONSET_DB
from i4d_bench.report.drawing import PAGE, SMALL, STYLE, plain, save
from i4d_bench.results.record import Record

Arm = tuple[float, str]
"""A learning rate and a start."""
Arms = dict[Arm, Record]
"""A design's runs."""
DASHES = dict(zip(STARTS, ((0, (1, 1)), "-", (0, (5, 1.5))), strict=True))
ACROSS = 4
"""Panels side by side."""
DECADES = LogNorm(1.5e-5, 1e-2, clip=True)
"""A rate's place among the shades, the same in every figure: those of `ablations.RATES` and BEYOND lie within."""


def draw(folder: Path, found: Mapping[str, tuple[Arms, Arm]]) -> None:
    """found: every design's runs, and which was taken: the thick line, named in its panel. A shade per rate, a dash per start."""
    if not found:
        return
    rates = sorted({lr for runs, _ in found.values() for lr, _ in runs})
    shades = {lr: plt.get_cmap("viridis_r")(float(DECADES(lr))) for lr in rates}
    starts = [s for s in STARTS if any(s == start for runs, _ in found.values() for _, start in runs)]
    rows = -(-len(found) // ACROSS)
    with plt.rc_context(STYLE):
        size = (PAGE, 0.75 + 1.15 * rows)
        figure, axes = plt.subplots(rows, ACROSS, figsize=size, sharex=True, sharey=True, squeeze=False)
        for axis in axes.flat[len(found):]:  # fmt: skip
            axis.set_axis_off()
        for axis in axes.flat[max(0, len(found) - ACROSS):len(found)]:  # fmt: skip
            axis.tick_params(labelbottom=True)  # those with nothing below them
        for axis, (name, (runs, taken)) in zip(axes.flat, found.items(), strict=False):
            axis.axhline(ONSET_DB, color="0.55", lw=0.6)
            for (lr, start), r in sorted(
                runs.items(), key=lambda item: item[0] == taken
            ):  # the choice above the others
                if not r.curve:
                    continue
                steps, gaps = [0, *(c["step"] for c in r.curve)], [0.0, *(c["gap"] for c in r.curve)]
                look = (
                    {"lw": 2.0, "marker": "D", "markevery": [-1], "ms": 4, "mec": "k"}
                    if (lr, start) == taken
                    else {"lw": 0.8}
                )
                axis.plot(steps, gaps, color=shades[lr], ls=DASHES[start], **look)
            axis.set_title(plain(name), fontsize=SMALL, pad=2)
            said = f"{taken[0]:g}, {taken[1]}" if runs[taken].status != "failed" else "failed"
            axis.text(0.03, 0.97, said, transform=axis.transAxes, va="top", fontsize=SMALL)
        figure.supxlabel("training steps after the warm-up", fontsize=STYLE["axes.labelsize"])
        figure.supylabel("driving gap, validation (dB)", fontsize=STYLE["axes.labelsize"])
        entries = [
            *(Line2D([], [], color=shades[lr], label=f"lr {lr:g}") for lr in rates),
            *(Line2D([], [], color="k", ls=DASHES[start], lw=1, label=start) for start in starts),
            Line2D([], [], color="0.5", lw=2, marker="D", ms=4, mec="k", label="taken"),
            Line2D([], [], color="0.55", lw=0.6, label=f"{ONSET_DB} dB"),
        ]
        figure.legend(
            handles=entries, loc="outside upper center", ncols=len(entries), columnspacing=1.2, handlelength=2
        )
        save(figure, folder, "search")
