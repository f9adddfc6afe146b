"""Columns of tables, from a store alone: one number per design, its interval, and what is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from i4d_bench.data.splits import UNSEEN
from i4d_bench.evaluate.references import NAMES
from i4d_bench.metrics.cards import CARDS
from i4d_bench.report.rows import BLOCKS, Row, onset
from i4d_bench.report.speeds import NO_FPS, Speeds
from i4d_bench.results.measured import Measured
from i4d_bench.results.record import Record
from i4d_bench.stats import Interval, best_and_ties
from variants import names
from variants.base import defaults

SET_NAMES = {"self": "self", "cross": "cross", "recon": "reconstruction", "novel": "novel view", "extreme": "extreme"}
SET_NAMES |= {f"{UNSEEN}{s}": f"unseen {SET_NAMES[s]}" for s in ("self", "cross", "recon")}
METRICS = (
    "psnr",
    "ssim",
    "lpips_alex",
    "lpips_vgg",
    "csim_dlib",
    "csim_mobileface",
    "aed_true",
    "aed_mp52",
    "akd",
    "akd_iod",
    "apd",
    "gap",
    "l1_eyes",
    "l1_mouth",
    "lpips_eyes",
    "lpips_mouth",
    "floaters",
    "reprojection",
    "leak_dlib",
    "leak_mobileface",
    "leak_driver",
)
DIGITS = {"psnr": 2, "gap": 2, "apd": 2, "akd": 2, "floaters": 2}
"""Of printed means, at least; others have 3."""
FIGURES, MOST_DIGITS = 2, 6
"""A column has so many digits that its largest value shows that many figures, up to MOST_DIGITS."""


@dataclass(frozen=True)
class Column:
    """One column: its head, a number per design (NaN: none) and how it is printed; `bold` designs are the best. references: what is
    known without any avatar scores there, by name. of: its set and metric, where it has some. intervals: of measured
    means, by design. absent: what stands in place of a design's number that is missing."""

    head: str
    values: dict[str, float]
    digits: int
    bold: frozenset[str] = frozenset()
    references: dict[str, float] = field(default_factory=dict)
    of: tuple[str, str] = ("", "")
    intervals: dict[str, Interval] = field(default_factory=dict)
    absent: str = ""

    @property
    def name(self) -> str:
        """Its head without the arrow, and a metric's without its unit, as .csv files have it."""
        unit = CARDS[self.of[1]].unit if self.of[0] else ""
        return self.head.rstrip(" ↑↓").removesuffix(f" ({unit})")

    @property
    def empty(self) -> bool:
        """Whether no design has a number; such a column is not printed."""
        return not any(np.isfinite(v) for v in self.values.values())

    @property
    def group(self) -> str:
        """What its set is called."""
        return SET_NAMES.get(self.of[0], "")

    @property
    def label(self) -> str:
        """Its head without its set."""
        return self.head.removeprefix(self.group).strip()

    def text(self, value: float) -> str:
        return f"{value:.{self.digits}f}" if np.isfinite(value) else ""

    def printed(self, design: str) -> str:
        return self.text(self.values[design]) or self.absent


def cost_columns(designs: dict[str, Row], speeds: Speeds | None) -> list[Column]:
    """Means over the seeds; at the end FPS, where there is a speed report."""

    def column(head: str, digits: int, value: Callable[[Record], float | None], metric: str = "") -> Column:
        return Column(head, {d: row.mean(value) for d, row in designs.items()}, digits, of=("", metric))

    def setting(r: Record, name: str, default: float | None) -> float | None:
        """What a learned design was trained with."""
        return r.overrides.get(name, default) if r.params else None

    scaled = lambda v, by: None if v is None else v / by  # noqa: E731
    return [
        column("params (M)", 3, lambda r: scaled(r.params, 1e6)),
        column("Gaussians", 0, lambda r: r.gaussians),
        column("GFLOP / person", 3, lambda r: scaled(r.flops_identity, 1e9)),
        column("GFLOP / frame", 3, lambda r: scaled(r.flops_frame, 1e9)),
        column("memory (MiB)", 1, lambda r: scaled(r.memory, 2**20)),
        column("lr", 4, lambda r: setting(r, "lr", r.config.get("train", {}).get("lr_fusion"))),
        column("start scale", 2, lambda r: setting(r, "init_scale", _default(r.design, "init_scale"))),
        column("training (s)", 0, lambda r: r.train_seconds),
        column("onset (steps)", 0, onset, "onset"),
        Column("seeds", {d: len(row.runs) for d, row in designs.items()}, 0),
        *([fps_column(designs, speeds)] if speeds else []),
    ]


def fps_column(designs: dict[str, Row], speeds: Speeds) -> Column:
    """Its head names the machine they were measured on, which may be another than the runs'; what has none is marked."""
    found = {d: speeds.fps(d) for d in designs}
    digits = 0 if np.nanmin([np.inf, *found.values()]) >= 10 else 2
    return Column(f"FPS ({speeds.machine}) ↑", found, digits, of=("", "fps"), absent=NO_FPS)


def _default(entry: str, setting: str) -> float | None:
    """Of a design's constructor; None where it has no such setting, or is not registered here."""
    if entry.partition("@")[0] not in names():
        return None
    return defaults(entry).get(setting)


def metric_column(designs: dict[str, Row], set_: str, metric: str, measured: Measured) -> Column:
    card, bold = CARDS[metric], set()
    found = {d: s for d, s in measured.scores(set_, metric).items() if d in designs}
    intervals = {d: i for d, i in measured.intervals(set_, metric).items() if d in designs}
    means = {d: intervals[d].mean if d in intervals else np.nan for d in designs}
    for block in BLOCKS:
        own = {d: s for d, s in found.items() if designs[d].block == block}
        if len(own) > 1 and card.higher_is_better is not None and block != "control":
            bold |= best_and_ties(own, card.higher_is_better, card.worst, means)
    head = f"{SET_NAMES[set_]} {card.head}"
    digits, references = _digits(means.values(), DIGITS.get(metric, 3)), _references(designs, set_, metric)
    return Column(head, means, digits, frozenset(bold), references, (set_, metric), intervals)


def _digits(values: Iterable[float], least: int) -> int:
    """So many that the largest has FIGURES of them: what is small everywhere is not printed as 0.00 throughout."""
    largest = max((abs(v) for v in values if np.isfinite(v)), default=0.0)
    return max(least, min(FIGURES - 1 - math.floor(math.log10(largest)), MOST_DIGITS)) if largest else least


def _references(designs: dict[str, Row], set_: str, metric: str) -> dict[str, float]:
    """Where they are known: the mean over all runs."""
    known: dict[str, list[float]] = {}
    for row in designs.values():
        for r in row.runs:
            for name, sets in r.references.items():
                value = sets.get(set_, {}).get(metric)
                if value is not None:
                    known.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in known.items()}


def reference_rows(columns: Iterable[Column]) -> list[str]:
    """Names of the references that any of these columns has, in their order."""
    columns = list(columns)
    return [name for name in NAMES if any(np.isfinite(c.references.get(name, np.nan)) for c in columns)]


def expression_metric(samples: pd.DataFrame) -> str | None:
    """What tells how well an expression is met, of what was measured."""
    measured = set(samples["metric"])
    return next((m for m in ("aed_true", "aed_mp52", "gap") if m in measured), None)


def people_set(samples: pd.DataFrame, set_: str) -> str:
    """The set of people who were never trained on, where real people were kept out; else the set itself."""
    unseen = f"{UNSEEN}{set_}"
    return unseen if unseen in set(samples["set"]) else set_
