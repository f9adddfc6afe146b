"""Cross-reenactment as pictures: designs and cases chosen by rule, eyes and mouth magnified, their errors below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from matplotlib.layout_engine import ConstrainedLayoutEngine

from i4d_bench.evaluate.evaluator import spread_over
from i4d_bench.heads.base import REGIONS
from i4d_bench.metrics.cards import CARDS
from i4d_bench.report.columns import expression_metric, people_set
from i4d_bench.report.drawing import PAGE, SMALL, STYLE, plain, save
from i4d_bench.report.rows import rows
from i4d_bench.results.measured import Measured
from i4d_bench.results.store import REGION, SHOWN, Store

DECILES = {"median": 0.5, "worst decile": 0.9}
"""Of the errors of all cases: what the cases shown come nearest to."""
PARTS = {"eyes": 0.5, "mouth": 0.5}
"""Regions that are magnified, and the height of a crop over its width."""
WIDEST, MARGIN = 1.0, 0.35
"""Inches: a picture where there are few columns; and what stands left of them, in pictures."""
FULL_ERROR = 0.3
"""Absolute RGB difference, mean of the channels, at which an error map is black."""


class Case(NamedTuple):
    """A picture of the grid: which, and why."""

    index: int
    rule: str


class Box(NamedTuple):
    top: int
    left: int
    height: int
    width: int

    def of(self, image: np.ndarray) -> np.ndarray:
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def rule(measured: Measured, baseline: str | None) -> str:
    """In words, how designs are chosen (`chosen`)."""
    metric = _deciding(measured)
    if metric is None:
        return "Designs: the first six"
    own = f"; of the reference's family the reference, {plain(baseline)}, and the best other" if baseline else ""
    return f"Designs: of each family the best and the worst by {CARDS[metric].label} in cross-reenactment{own}"


CASES = (
    "Cases: of the stored ones those whose expression error, averaged over the designs, is nearest the median and the worst decile "
    "of all"
)


def merits(measured: Measured) -> dict[str, float]:
    """By design its mean in cross-reenactment: the driving gap where that is known, else the expression error. Larger is better."""
    metric = _deciding(measured)
    if metric is None:
        return {}
    sign = 1 if CARDS[metric].higher_is_better else -1
    found = measured.intervals(people_set(measured.samples, "cross"), metric)
    return {d: sign * i.mean for d, i in found.items() if np.isfinite(i.mean)}


def _deciding(measured: Measured) -> str | None:
    cross = people_set(measured.samples, "cross")
    return next((m for m in ("gap", "aed_true", "aed_mp52") if measured.scores(cross, m)), None)


def errors(measured: Measured) -> dict[str, pd.Series]:
    """By design and sample (mean of its seeds), how far the expression is off in cross-reenactment; larger is worse."""
    metric = expression_metric(measured.samples)
    if metric is None:
        return {}
    sign = -1 if CARDS[metric].higher_is_better else 1
    found = measured.scores(people_set(measured.samples, "cross"), metric)
    return {d: sign * cast("pd.Series", s.groupby("sample").mean()) for d, s in found.items()}


def chosen(families: Mapping[str, str], merits: Mapping[str, float], baseline: str | None = None) -> list[str]:
    """Of designs with their families, of each family the best and the worst; of the baseline's, it and the best other; no other
    control. Without merits the first six."""
    if not merits:
        return list(families)[:6]
    out = []
    for family in dict.fromkeys(f for d, f in families.items() if f != "control" or d == baseline):
        own = sorted((d for d, f in families.items() if f == family and d in merits), key=lambda d: -merits[d])
        if baseline in own:
            own.remove(baseline)
            out += [baseline, *own[:1]]
        else:
            out += own if len(own) < 3 else [own[0], own[-1]]
    return out or list(families)


def cases(errors: Sequence[pd.Series], stored: int) -> list[Case]:
    """Of the pictures stored, the first `stored` of `evaluator.spread_over`: by DECILES of the error of all cases, averaged over
    designs. The first where there are no errors."""
    if not any(e.notna().any() for e in errors):
        return [Case(0, "first")]
    rank = (sum(errors[1:], errors[0]) / len(errors)).rank(pct=True)
    of_stored = rank.to_numpy()[spread_over(len(rank))[:stored]]
    out: dict[int, Case] = {}
    for name, decile in DECILES.items():
        k = int(np.nanargmin(np.abs(of_stored - decile)))
        out.setdefault(k, Case(k, name))
    return list(out.values())


def crop(region: UInt8[np.ndarray, "H W"], name: str) -> Box | None:
    """Around a labelled region, PARTS[name] as high as wide; None where it is hidden."""
    y, x = np.nonzero(region == REGIONS.index(name))
    if not len(y):
        return None
    width = float(max(x.max() - x.min(), (y.max() - y.min()) / PARTS[name]) + 3)
    return _box(float(y.min() + y.max()) / 2, float(x.min() + x.max()) / 2, width * PARTS[name], width, region.shape)


def head(region: UInt8[np.ndarray, "H W"]) -> Box | None:
    """A square around eyes and mouth that holds the face."""
    y, x = np.nonzero(region >= REGIONS.index("eyes"))
    if not len(y):
        return None
    side = 2.1 * float(max(y.max() - y.min(), x.max() - x.min()))
    return _box(float(y.min() + y.max()) / 2, float(x.min() + x.max()) / 2, side, side, region.shape)


def _box(y: float, x: float, height: float, width: float, shape: tuple[int, ...]) -> Box:
    """Of that size around a centre, moved into the picture."""
    h, w = min(round(height), shape[0]), min(round(width), shape[1])
    return Box(int(np.clip(round(y - h / 2), 0, shape[0] - h)), int(np.clip(round(x - w / 2), 0, shape[1] - w)), h, w)


def error_map(image: UInt8[np.ndarray, "H W 3"], truth: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    return np.abs(image.astype(float) - truth.astype(float)).mean(-1) / 255


def draw(store: Store, baseline: str | None = None) -> None:
    """A column each for source, driver, truth (where it is known) and the designs; per case the face, then eyes and mouth with
    their errors. Runs that stored no regions have the whole picture and its error."""
    images = store.images
    families = {d: row.family for d, row in rows(store).items() if d in images}
    stored = min(map(len, images.values()), default=0)
    if not families or not stored:
        return
    off = errors(store.measured)
    designs = chosen(families, merits(store.measured), baseline)
    moving = [e for d, e in off.items() if families.get(d, "control") != "control"]
    shown = cases(moving, stored)
    columns = [*(c for c in SHOWN if c in images), *designs]
    lines = [line for case in shown for line in _lines(images, case)]
    width = min(PAGE / (len(columns) + MARGIN), WIDEST)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        ratios = [box.height / box.width for _, box, _, _ in lines]
        size = (width * (len(columns) + MARGIN), width * sum(ratios) + 0.3 + 0.02 * len(lines))
        figure, axes = plt.subplots(len(lines), len(columns), figsize=size, squeeze=False, height_ratios=ratios)
        for axis in axes.flat:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        for axis, name in zip(axes[0], columns, strict=True):
            axis.set_title(plain(name).replace(" ", "\n"), fontsize=SMALL, pad=3)
        for row, (title, box, case, is_error) in zip(axes, lines, strict=True):
            row[0].set_ylabel(title, fontsize=SMALL, labelpad=2)
            for axis, name in zip(row, columns, strict=True):
                image = images[name][case.index]
                if not is_error and (name == "truth" or name in designs):
                    axis.imshow(box.of(image), interpolation="nearest", aspect="auto")
                elif not is_error and title not in PARTS:  # source and driver are seen from elsewhere
                    axis.imshow(image, interpolation="nearest", aspect="auto")
                elif is_error and name in designs:
                    error = error_map(image, images["truth"][case.index])
                    axis.imshow(box.of(error), cmap="gray_r", vmin=0, vmax=FULL_ERROR, aspect="auto")
                    axis.spines[:].set(visible=True, linewidth=0.3, color="0.6")
        layout = figure.get_layout_engine()
        assert isinstance(layout, ConstrainedLayoutEngine)
        layout.set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
        save(figure, store.folder, "qualitative")


def _lines(images: dict[str, np.ndarray], case: Case) -> list[tuple[str, Box, Case, bool]]:
    """Of a case: what each line of pictures is called, where it is cut out, and whether it shows errors."""
    size = images["source"].shape[1:3]
    known, whole = "truth" in images, Box(0, 0, *size)
    face = head(images[REGION][case.index]) if REGION in images else None
    out = [(case.rule, face or whole, case, False)]
    boxes = {p: crop(images[REGION][case.index], p) for p in PARTS} if REGION in images else {"face": whole}
    for part, box in boxes.items():
        if box is not None:
            out += [(part, box, case, False)] * (part in PARTS) + [("error", box, case, True)] * known
    return out
