"""Figures from a store alone, each as .pdf and .png at column width."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from i4d_bench.metrics import CARDS
from i4d_bench.report.tables import latest
from i4d_bench.results import Record, Store, interval
from i4d_bench.train import ONSET_DB

STYLE = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
         "legend.frameon": False, "pdf.fonttype": 42, "figure.constrained_layout.use": True}  # fmt: skip
HUES = {"local": "#0a7f6f", "global": "#c2501a", "parametric": "#5b4bb5", "control": "#777777"}
MARKERS = {"local": "o", "global": "s", "parametric": "^", "control": "X"}
LINES = ("-", "--", ":", "-.")


def _save(figure, folder: Path, name: str) -> None:
    for suffix in ("pdf", "png"):
        figure.savefig(
            folder / f"{name}.{suffix}", dpi=200, metadata={"CreationDate": None} if suffix == "pdf" else None
        )
    plt.close(figure)


def _label(record: Record) -> str:
    return record.design + ("†" if record.status in ("not converged", "failed") else "")


def _expression_metric(store: Store) -> str | None:
    measured = set(store.samples["metric"])
    return next((m for m in ("aed_true", "aed_mp52", "gap") if m in measured), None)


def speed_quality(store: Store, set_: str = "cross") -> None:
    """Frames per second against expression error, with 95% intervals. Designs without a timing are not drawn."""
    records, samples, metric = latest(store), store.samples, _expression_metric(store)
    points = [(r, interval(samples, d, set_, metric)) for d, r in records.items() if metric and r.fps]
    points = sorted(((r, i) for r, i in points if i is not None), key=lambda p: p[0].fps)
    if not points:
        return
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(3.5, 2.6))
        for r, i in points:
            error = None if not np.isfinite(i.lo) else [[max(0, i.mean - i.lo)], [max(0, i.hi - i.mean)]]
            axis.errorbar(
                r.fps, i.mean, error, fmt=MARKERS.get(r.family, "o"), color=HUES.get(r.family), ms=5, capsize=2
            )
        axis.set_xscale("log")
        low, high = points[0][0].fps, points[-1][0].fps
        axis.set_xlim(low / (1.6 * (high / low) ** 0.12), high * (1.6 * (high / low) ** 0.12))
        axis.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        ticks = np.unique(np.round(np.geomspace(low, high, 4), -int(np.floor(np.log10(low))) + 1))
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
        _place_labels(axis, [(r.fps, i.mean, _label(r), HUES.get(r.family)) for r, i in points])
        card = CARDS[metric]
        axis.set_xlabel("frames per second, batch 1 (higher is better)")
        axis.set_ylabel(f"{set_} {card.label} {card.arrow}")
        _save(figure, store.folder, "speed_quality")


def _place_labels(axis, points) -> None:
    """Names beside the points, moved apart vertically where they would overlap; a thin line leads to the point."""
    axis.figure.canvas.draw()
    to_pixels, height = axis.transData.transform, 0.115 * axis.figure.dpi
    x_middle = np.mean(axis.transAxes.transform([(0, 0), (1, 0)])[:, 0])
    for right in (False, True):
        last = -np.inf
        side = [
            (to_pixels((x, y)), text, color)
            for x, y, text, color in points
            if (to_pixels((x, y))[0] > x_middle) == right
        ]
        for (px, py), text, color in sorted(side, key=lambda s: s[0][1]):
            y = max(py, last + height)
            last = y
            shift = 72 / axis.figure.dpi
            axis.annotate(text, axis.transData.inverted().transform((px, py)), ((-7 if right else 7), (y - py) * shift),
                          textcoords="offset points", ha="right" if right else "left", va="center", color=color, fontsize=7,
                          arrowprops={"arrowstyle": "-", "lw": 0.4, "color": color} if abs(y - py) > 4 else None)  # fmt: skip


def curves(store: Store) -> None:
    """The driving gap over training steps; dots mark the onset."""
    records = [r for r in latest(store).values() if r.curve]
    if not records:
        return
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(3.5, 2.6 if len(records) <= 6 else 3.8))
        count: dict[str, int] = {}
        for r in records:
            style = LINES[count.get(r.family, 0) % len(LINES)]
            shade = 1 - 0.16 * (count.get(r.family, 0) // len(LINES))
            count[r.family] = count.get(r.family, 0) + 1
            color = np.array(matplotlib.colors.to_rgb(HUES.get(r.family, "k"))) * shade
            axis.plot(
                [c["step"] for c in r.curve], [c["gap"] for c in r.curve], style, color=color, lw=1.3, label=_label(r)
            )
            if r.onset:
                axis.plot(r.onset["step"], r.onset["gap"], "o", color=color, ms=4)
        axis.axhline(ONSET_DB, color="k", lw=0.6, ls=(0, (1, 2)))
        axis.set_xlabel("training steps after the warm-up")
        axis.set_ylabel("driving gap, validation (dB)")
        axis.legend(fontsize=6, ncol=1 if len(records) <= 6 else 2, loc="best")
        _save(figure, store.folder, "curves")


def intervals(store: Store) -> None:
    """Every design's self and cross scores with 95% intervals, one panel per metric."""
    records, samples = latest(store), store.samples
    metrics = [
        m
        for m in ("gap", "aed_true", "aed_mp52", "lpips_alex", "psnr", "csim_dlib", "csim_mobileface")
        if m in set(samples["metric"])
    ]
    metrics = metrics[:5]
    if not metrics:
        return
    designs = list(records)[::-1]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(metrics), figsize=(7.2, 0.9 + 0.24 * len(designs)), sharey=True, squeeze=False
        )
        for axis, metric in zip(axes[0], metrics, strict=True):
            for set_, offset, fill in (("self", 0.15, True), ("cross", -0.15, False)):
                for y, d in enumerate(designs):
                    i = interval(samples, d, set_, metric)
                    if i is None or not np.isfinite(i.mean):
                        continue
                    color = HUES.get(records[d].family, "k")
                    if np.isfinite(i.lo):
                        axis.plot([i.lo, i.hi], [y + offset] * 2, color=color, lw=1)
                    axis.plot(
                        i.mean,
                        y + offset,
                        MARKERS.get(records[d].family, "o"),
                        ms=4,
                        color=color,
                        mfc=color if fill else "white",
                    )
            axis.set_xlabel(f"{CARDS[metric].label} {CARDS[metric].arrow}")
            axis.locator_params(axis="x", nbins=4)
            axis.set_yticks(range(len(designs)), [_label(records[d]) for d in designs])
        axes[0][0].set_title("filled: self, open: cross", fontsize=7, loc="left")
        _save(figure, store.folder, "intervals")


def qualitative(store: Store, most: int = 6) -> None:
    """Cross-reenactment as images: source, driver, truth (where it is known) and each design."""
    path = store.folder / "qualitative.npz"
    if not path.exists():
        return
    with np.load(path) as file:
        images = {k: file[k] for k in file.files}
    columns = [c for c in ("source", "driver", "truth", *latest(store)) if c in images]
    rows = min(most, *(len(images[c]) for c in columns))
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = plt.subplots(rows, len(columns), figsize=(0.95 * len(columns), 0.95 * rows + 0.3), squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for c, name in enumerate(columns):
            axes[0][c].set_title(name.replace("_", "\n", 1), fontsize=6)
            for r in range(rows):
                axes[r][c].imshow(images[name][r], interpolation="nearest")
        figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
        _save(figure, store.folder, "qualitative")


def build(store: Store) -> None:
    for draw in (speed_quality, curves, intervals, qualitative):
        draw(store)
