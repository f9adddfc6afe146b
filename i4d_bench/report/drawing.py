"""How figures look: at their printed width, hue for the family, marker and dash for the design, labels in place of legends."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from scipy.optimize import isotonic_regression

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

import variants
from i4d_bench.cache import atomic_file
from i4d_bench.report.rows import Row

COLUMN, PAGE = 3.3, 6.9
"""Inches: one column of a two-column conference paper, and both."""
SMALL = 6.5
"""Points: the smallest text, at the printed width."""
STYLE: dict[Any, Any] = {
    "font.size": 7.5, "axes.labelsize": 7.5, "axes.titlesize": 7.5, "xtick.labelsize": SMALL, "ytick.labelsize": SMALL,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.5,
    "legend.frameon": False, "legend.fontsize": SMALL, "pdf.fonttype": 42, "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.02, "figure.constrained_layout.h_pad": 0.02,
}  # fmt: skip
SUFFIXES = ("pdf", "png")
HUES = {"local": "#004488", "global": "#aa3355", "parametric": "#a07800", "control": "#808080"}
"""Blue and red as in Paul Tol's high-contrast scheme, and a yellow dark enough for lines on white; colour-blind readers tell them
apart. In grey, fills do. A dark page turns them as it turns figures."""
OTHER_HUES = ("#117733", "#882255", "#2b92b0", "#333333")
"""Of families that are none of those, in turn."""
FILLS = {"local": "full", "global": "none", "parametric": "right"}
"""What tells families apart in grey: filled, open and half-filled markers."""
SHAPES = "osD^vP*Xph"
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (8, 1.5)), (0, (2, 1)), (0, (6, 1, 1, 1, 1, 1)))
ROUTES = ("local_", "global_", "flame_")
"""What names of designs begin with that their family says already."""


class Labelled(NamedTuple):
    """A point of an axis in its data's units, what is written beside it, and the look of its mark."""

    x: float
    y: float
    text: str
    look: dict[str, Any]


def save(figure, folder: Path, name: str) -> None:
    for suffix in SUFFIXES:
        drawn = io.BytesIO()  # written as one: matplotlib's writers stumble over a full disk
        metadata = {"CreationDate": None} if suffix == "pdf" else None
        figure.savefig(drawn, format=suffix, dpi=300, metadata=metadata)
        with atomic_file(folder / f"{name}.{suffix}") as path:
            path.write_bytes(drawn.getvalue())
    plt.close(figure)


def hues(families: Iterable[str]) -> dict[str, str]:
    """By family: HUES, and one of OTHER_HUES for each that is none of those."""
    others = list(dict.fromkeys(f for f in families if f not in HUES))
    return HUES | {f: OTHER_HUES[k % len(OTHER_HUES)] for k, f in enumerate(others)}


def looks(families: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Per design, given its family: the family's hue and fill, and a marker and dash of its own. Registered designs have theirs in
    every figure, whoever else is in it."""
    out, hue = {}, hues(families.values())
    known = {name: variants.design(name).family for name in variants.names()} | dict(families)
    for name, family in families.items():
        k = [n for n, f in known.items() if f == family].index(name)
        out[name] = {"color": hue[family], "marker": SHAPES[k % len(SHAPES)], "fillstyle": FILLS.get(family, "full"),
                     "ls": DASHES[k % len(DASHES)], "markerfacecoloralt": "white", "mew": 0.7}  # fmt: skip
    return out


def looks_of(designs: Mapping[str, Row]) -> dict[str, dict[str, Any]]:
    return looks({name: row.family for name, row in designs.items()})


def mark_only(look: dict[str, Any]) -> dict[str, Any]:
    """The look of points that no line joins."""
    return {**look, "ls": "none"}


def plain(name: str) -> str:
    """A design's name in words; a line for its settings."""
    return name.replace("_", " ").replace("@", "\n@ ")


def short(name: str) -> str:
    """The same where its family is known."""
    return plain(next((name.removeprefix(r) for r in ROUTES if name.startswith(r)), name))


def spread(
    wanted: Sequence[float] | Float[np.ndarray, " N"], gap: float, low: float, high: float
) -> Float[np.ndarray, " N"]:
    """Positions within low..high that are `gap` apart and as near as can be to those wanted (least squares, order kept).
    Closer together where there is no room for so many."""
    wanted = np.asarray(wanted, float)
    order, steps = np.argsort(wanted, kind="stable"), np.arange(len(wanted))
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    free = np.clip(wanted[order] - gap * steps, low, high - gap * (len(wanted) - 1))
    out = np.empty(len(wanted))
    out[order] = isotonic_regression(free).x + gap * steps
    return out


def label_beside(axis: Axes, points: Sequence[Labelled]) -> None:
    """A column of labels to the right of the axis, each with its mark and a line to its point. The axis has its limits by now."""
    if not points:
        return
    figure = axis.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # the layout says how tall the axis is
    height = axis.get_window_extent().height / figure.dpi * 72
    places = axis.transAxes.inverted().transform(axis.transData.transform([(p.x, p.y) for p in points]))
    lines = max(p.text.count("\n") + 1 for p in points)
    heights = spread(places[:, 1], (SMALL + 1) * lines / height, 0, 1)
    line = {"arrowstyle": "-", "lw": 0.35, "alpha": 0.8, "shrinkA": 0, "shrinkB": 2}
    for p, y in zip(points, heights, strict=True):
        axis.annotate("", (p.x, p.y), (1.03, y), textcoords="axes fraction", annotation_clip=False,
                      arrowprops=line | {"color": p.look["color"]})  # fmt: skip
        axis.plot(1.06, y, ms=3.5, transform=axis.transAxes, clip_on=False, **mark_only(p.look))
        axis.annotate(p.text, (1.06, y), (5, 0), xycoords="axes fraction", textcoords="offset points", va="center",
                      fontsize=SMALL, annotation_clip=False)  # fmt: skip
