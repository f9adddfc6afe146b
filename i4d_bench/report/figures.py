"""Figures from a store alone, each as .pdf and .png at column width."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib import colors, ticker
from matplotlib.container import ErrorbarContainer
from matplotlib.layout_engine import ConstrainedLayoutEngine

from i4d_bench.cache import atomic_file
from i4d_bench.data.splits import UNSEEN
from i4d_bench.evaluate.gap import ONSET_DB
from i4d_bench.metrics.cards import CARDS
from i4d_bench.report.rows import Row, rows
from i4d_bench.report.speeds import Speeds
from i4d_bench.report.tables import SET_NAMES
from i4d_bench.results.store import Store
from i4d_bench.results.summary import interval

STYLE: dict[Any, Any] = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "legend.frameon": False, "pdf.fonttype": 42, "figure.constrained_layout.use": True,
}  # fmt: skip
SUFFIXES = ("pdf", "png")
OTHER_HUES, OTHER_SHAPES = ("#2b6cb0", "#a8841a", "#b3376e", "#4f6d1f"), "oDpsP^"
"""Of families that are none of those below, in turn."""
HUES = {"local": "#0a7f6f", "global": "#c2501a", "parametric": "#5b4bb5", "control": "#777777"}
SHAPES = {"local": "oH8ph*d", "global": "sDPXsDPX", "parametric": "^v<>^v", "control": "X"}
DASHES = ("-", "--", ":", "-.")
SCORED = (
    ("self", 0.15, True, "o"),
    ("cross", -0.15, False, "o"),
    (f"{UNSEEN}self", 0.3, True, "s"),
    (f"{UNSEEN}cross", -0.3, False, "s"),
)
"""Sets of a panel: how far above its line each is drawn, filled or not, and how."""


def save(figure, folder: Path, name: str) -> None:
    for suffix in SUFFIXES:
        drawn = io.BytesIO()  # written as one: matplotlib's writers stumble over a full disk
        metadata = {"CreationDate": None} if suffix == "pdf" else None
        figure.savefig(drawn, format=suffix, dpi=200, metadata=metadata)
        with atomic_file(folder / f"{name}.{suffix}") as path:
            path.write_bytes(drawn.getvalue())
    plt.close(figure)


def looks(families: dict[str, str]) -> dict[str, dict]:
    """Per design, given its family: the family's hue, and a shade, marker and dash of its own, the same in every figure."""
    out, known = {}, list(families.values())
    others = list(dict.fromkeys(f for f in known if f not in HUES))
    hues = HUES | {f: OTHER_HUES[k % len(OTHER_HUES)] for k, f in enumerate(others)}
    for n, (name, family) in enumerate(families.items()):
        k, of = known[:n].count(family), known.count(family)
        hue = np.array(colors.to_rgb(hues[family]))
        light = 0.55 * k / max(of - 1, 3)
        shapes = SHAPES.get(family, OTHER_SHAPES)
        out[name] = {"color": tuple(hue + (1 - hue) * light), "marker": shapes[k % len(shapes)],
                     "ls": DASHES[k % len(DASHES)]}  # fmt: skip
    return out


def _looks(designs: dict[str, Row]) -> dict[str, dict]:
    of = looks({name: row.family for name, row in designs.items()})
    return {name: {**of[name], "label": name + row.mark} for name, row in designs.items()}


def beside_a_legend(designs: int):
    """A figure of one axis, tall enough for a legend of so many."""
    return plt.subplots(figsize=(4.6, max(2.6, 0.4 + 0.165 * designs)))


def legend(axis) -> None:
    """Beside the axis: nothing in it can be covered. Points with an interval stand in it without."""
    drawn, labels = axis.get_legend_handles_labels()
    marks = [d[0] if isinstance(d, ErrorbarContainer) else d for d in drawn]
    axis.legend(
        marks, labels, fontsize=6.5, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.8, labelspacing=0.7
    )


def _expression_metric(store: Store) -> str | None:
    measured = set(store.samples["metric"])
    return next((m for m in ("aed_true", "aed_mp52", "gap") if m in measured), None)


def speed_quality(store: Store, speeds: Speeds | None) -> None:
    """Frames per second against expression error in cross-reenactment (of unseen people where there are some), with 95% intervals.
    Designs that were not timed are not drawn; where none was, an older figure goes."""
    for suffix in SUFFIXES:
        (store.folder / f"speed_quality.{suffix}").unlink(missing_ok=True)
    designs, samples, metric = rows(store), store.samples, _expression_metric(store)
    set_ = f"{UNSEEN}cross" if f"{UNSEEN}cross" in set(samples["set"]) else "cross"
    looks = _looks(designs)
    if metric is None or speeds is None:
        return
    measured = [(d, speeds.fps(d), interval(samples, d, set_, metric)) for d in designs]
    points = [(d, fps, i) for d, fps, i in measured if np.isfinite(fps) and i is not None]
    if not points:
        return
    with plt.rc_context(STYLE):
        figure, axis = beside_a_legend(len(points))
        for d, fps, i in points:
            error = None if not np.isfinite(i.lo) else [[max(0, i.mean - i.lo)], [max(0, i.hi - i.mean)]]
            axis.errorbar(fps, i.mean, error, capsize=2, ms=5, **{**looks[d], "ls": "none"})
        axis.set_xscale("log")
        axis.margins(x=0.12)
        rates = [fps for _, fps, _ in points]
        subs = (1, 1.5, 2, 3, 5, 7) if max(rates) < 6 * min(rates) else (1, 2, 5)
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=subs))
        axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        card = CARDS[metric]
        axis.set_xlabel(speeds.axis, fontsize=6.5)
        axis.set_ylabel(f"{SET_NAMES[set_]} {card.label} {card.arrow}")
        legend(axis)
        save(figure, store.folder, "speed_quality")


def curves(store: Store) -> None:
    """The driving gap over training steps, of every seed; markers show the onset."""
    designs = {d: row for d, row in rows(store).items() if any(r.curve for r in row.runs)}
    if not designs:
        return
    looks = _looks(designs)
    with plt.rc_context(STYLE):
        figure, axis = beside_a_legend(len(designs))
        for d, row in designs.items():
            for k, r in enumerate(row.runs):
                steps, gap = [c["step"] for c in r.curve], [c["gap"] for c in r.curve]
                onset = [steps.index(r.onset["step"])] if r.onset else []
                look = looks[d] if not k else {**looks[d], "label": None, "alpha": 0.6}
                axis.plot(steps, gap, lw=1.3 if not k else 0.8, ms=5 if not k else 3.5, markevery=onset, **look)
        axis.axhline(ONSET_DB, color="k", lw=0.6, ls=(0, (1, 2)))
        axis.set_xlabel("training steps after the warm-up")
        axis.set_ylabel("driving gap, validation (dB)")
        legend(axis)
        save(figure, store.folder, "curves")


def intervals(store: Store) -> None:
    """Every design's self and cross scores with 95% intervals, those of unseen people beside them, one panel per metric."""
    by_name, samples = rows(store), store.samples
    metrics = [
        m
        for m in ("gap", "aed_true", "aed_mp52", "lpips_alex", "psnr", "csim_dlib", "csim_mobileface")
        if m in set(samples["metric"])
    ]
    metrics = metrics[:5]
    if not metrics:
        return
    designs, looks = list(by_name)[::-1], _looks(by_name)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(metrics), figsize=(7.2, 0.9 + 0.24 * len(designs)), sharey=True, squeeze=False
        )
        for axis, metric in zip(axes[0], metrics, strict=True):
            for set_, offset, fill, shape in SCORED:
                for y, d in enumerate(designs):
                    i = interval(samples, d, set_, metric)
                    if i is None or not np.isfinite(i.mean):
                        continue
                    color = looks[d]["color"]
                    if np.isfinite(i.lo):
                        axis.plot([i.lo, i.hi], [y + offset] * 2, color=color, lw=1)
                    axis.plot(i.mean, y + offset, shape, ms=4, color=color, mfc=color if fill else "white")
            axis.set_xlabel(f"{CARDS[metric].label} {CARDS[metric].arrow}")
            axis.locator_params(axis="x", nbins=3)
            axis.set_yticks(range(len(designs)), [d + by_name[d].mark for d in designs])
        unseen = "; squares: people never trained on" * any(s.startswith(UNSEEN) for s in set(samples["set"]))
        axes[0][0].set_title(f"filled: self, open: cross{unseen}", fontsize=7, loc="left")
        save(figure, store.folder, "intervals")


def qualitative(store: Store, most: int = 6) -> None:
    """Cross-reenactment as images: source, driver, truth (where it is known) and each design."""
    images = store.images
    if not images:
        return
    columns = [c for c in ("source", "driver", "truth", *rows(store)) if c in images]
    lines = min([most, *(len(images[c]) for c in columns)])
    if not lines:
        return
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = plt.subplots(
            lines, len(columns), figsize=(0.95 * len(columns), 0.95 * lines + 0.3), squeeze=False
        )
        for axis in axes.flat:
            axis.set_axis_off()
        for c, name in enumerate(columns):
            axes[0][c].set_title(name.replace("_", "\n", 1), fontsize=6)
            for r in range(lines):
                axes[r][c].imshow(images[name][r], interpolation="nearest")
        layout = figure.get_layout_engine()
        assert isinstance(layout, ConstrainedLayoutEngine)
        layout.set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
        save(figure, store.folder, "qualitative")


def draw(store: Store, speeds: Speeds | None) -> None:
    speed_quality(store, speeds)
    for draw in (curves, intervals, qualitative):
        draw(store)
