"""Frames per second against expression error, both with and without the tracker that FLAME designs wait for."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from textwrap import wrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker

from i4d_bench.metrics.cards import CARDS
from i4d_bench.report.columns import SET_NAMES, expression_metric, people_set
from i4d_bench.report.drawing import PAGE, STYLE, SUFFIXES, Labelled, label_beside, looks_of, mark_only, plain, save
from i4d_bench.report.rows import rows
from i4d_bench.report.speeds import Speeds
from i4d_bench.results.store import Store

EMPTY = 3
"""A factor between frame rates over which an axis is broken."""
LINE = 110
"""Characters of a line under the figure."""


def draw(store: Store, speeds: Speeds | None) -> None:
    """Expression error in cross-reenactment with its 95% interval. A design on FLAME coefficients has two points, joined: given
    the coefficients, and with the tracker's time. Designs that were not timed are named below; where fewer than two were,
    there is nothing to weigh, and an older figure goes."""
    for suffix in SUFFIXES:
        (store.folder / f"speed_quality.{suffix}").unlink(missing_ok=True)
    designs, samples, metric = rows(store), store.samples, expression_metric(store.samples)
    set_ = people_set(samples, "cross")
    if metric is None or speeds is None:
        return
    rates = {d: speeds.fps(d, tracked=False) for d in designs}
    found = {d: i for d, i in store.measured.intervals(set_, metric).items() if np.isfinite(i.mean)}
    points = [(d, rates[d], found[d]) for d in designs if np.isfinite(rates[d]) and d in found]
    if len(points) < 2:
        return
    look = looks_of(designs)
    parts = _parts([r for d, fps, _ in points for r in (fps, speeds.fps(d)) if np.isfinite(r)])
    with plt.rc_context(STYLE):
        size = (PAGE, max(2.0, 0.65 + 0.11 * len(points)))
        widths = [1 + 2.5 * np.log(high / low) for low, high in parts]
        figure, axes = plt.subplots(1, len(parts), figsize=size, sharey=True, squeeze=False, width_ratios=widths)
        for axis, (low, high) in zip(axes[0], parts, strict=True):
            for d, fps, i in points:
                error = None if not np.isfinite(i.lo) else [[max(0, i.mean - i.lo)], [max(0, i.hi - i.mean)]]
                axis.errorbar(fps, i.mean, error, ms=4.5, elinewidth=0.5, **mark_only(look[d]))
                tracked = speeds.fps(d)
                if np.isfinite(tracked) and tracked < fps:
                    axis.plot([tracked, fps], [i.mean] * 2, color=look[d]["color"], lw=0.5, ls=(0, (1, 1.5)))
                    axis.plot(tracked, i.mean, ms=4.5, **mark_only(look[d]))
            axis.set_xscale("log")
            axis.set_xlim(low / 1.08, high * 1.08)
            axis.xaxis.set_major_locator(ticker.MaxNLocator(nbins=6 if axis is axes[0][-1] else 2, steps=[1, 2, 5, 10]))
            axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
            axis.xaxis.set_minor_locator(ticker.NullLocator())
        for axis in axes[0][1:]:
            axis.spines["left"].set_linestyle((0, (1, 2)))
            axis.tick_params(left=False)
        figure.supxlabel(_below(speeds, designs), fontsize=STYLE["axes.labelsize"])
        axes[0][0].set_ylabel(f"{SET_NAMES[set_]} {CARDS[metric].head}")
        ends = [Labelled(fps, i.mean, plain(d) + designs[d].mark, look[d]) for d, fps, i in points]
        label_beside(axes[0][-1], ends)
        save(figure, store.folder, "speed_quality")


def _below(speeds: Speeds, designs: Iterable[str]) -> str:
    """What is to be said of the axis and of what is not on it, in lines that a page holds."""
    lines, missing = [speeds.axis], untimed(speeds, designs)
    if twice(speeds, designs):
        lines.append("FLAME designs twice: coefficients from the driver, and with a tracker")
    if missing:
        lines += wrap(f"not drawn, for want of FPS: {', '.join(missing)}", LINE)
    return "\n".join(lines)


def untimed(speeds: Speeds, designs: Iterable[str]) -> list[str]:
    """Those that have no point."""
    return [d for d in designs if not np.isfinite(speeds.fps(d, tracked=False))]


def twice(speeds: Speeds, designs: Iterable[str]) -> bool:
    """Whether one of these has FPS with a tracker and without."""
    return any(speeds.fps(d) < speeds.fps(d, tracked=False) for d in designs)


def _parts(rates: list[float]) -> list[tuple[float, float]]:
    """The stretches of an axis that hold all rates: two where nothing lies between a slow group and a fast one."""
    at = sorted(rates)
    steps = [b / a for a, b in pairwise(at)]
    if not steps or max(steps) < EMPTY:
        return [(at[0], at[-1])]
    k = steps.index(max(steps)) + 1
    return [(at[0], at[k - 1]), (at[k], at[-1])]
