"""Every design against one of them: all numbers as pairs.csv, and a matrix of designs and metrics with marks for each test set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from i4d_bench.metrics.cards import CARDS
from i4d_bench.report import baseline as baselines
from i4d_bench.report.columns import METRICS, SET_NAMES
from i4d_bench.report.rows import rows
from i4d_bench.report.writing import write_text
from i4d_bench.results.store import Store
from i4d_bench.stats import LEVEL, SEEDS, Comparison, compare_family

MARGINS = {"psnr": 0.1, "gap": 0.1, "ssim": 0.005, "lpips_alex": 0.005, "lpips_vgg": 0.005, "aed_true": 0.005, "aed_mp52": 0.005,
           "csim_dlib": 0.005, "csim_mobileface": 0.01, "akd": 0.1, "akd_iod": 0.002, "apd": 0.1}  # fmt: skip
"""Differences inside ± this are *practically equal*."""
PAIRS = (
    "set",
    "metric",
    "design",
    "difference",
    "lo",
    "hi",
    "p",
    "n",
    "seeds",
    "people",
    "failures",
    "unpaired",
    "verdict",
)
RESOLUTION = 1e-4
"""Smaller p are printed as below it: the tails of real differences are not known that far."""
MARKS = {
    "▲": f"better, p < {RESOLUTION:g}",
    "△": f"better, p < {1 - LEVEL:.2g}",
    "▼": f"worse, p < {RESOLUTION:g}",
    "▽": f"worse, p < {1 - LEVEL:.2g}",
    "=": "practically equal",
    "·": "undecided",
    "?": f"not told, for want of {SEEDS} seeds or two people",
}


def baseline_of(store: Store, wanted: str | None = None) -> str | None:
    """What the store's designs are compared with (`baseline.pick`, of those that were scored). Raises UserError."""
    measured = set(store.samples["design"])
    return baselines.pick({d: r.family for d, r in rows(store).items() if d in measured}, wanted)


def pairs(store: Store, baseline: str | None) -> pd.DataFrame:
    """Every design against the baseline, in the main table's order: difference, 95% interval, Holm-adjusted p over the designs,
    verdict."""
    found, scores, order = [], store.measured.scores, list(rows(store))
    for set_ in SET_NAMES:
        for metric in METRICS:
            measured = scores(set_, metric)
            if baseline not in measured or len(measured) < 2:
                continue
            card = CARDS[metric]
            compared = compare_family(measured, baseline, card.worst, MARGINS.get(metric))
            for design, c in sorted(compared.items(), key=lambda pair: order.index(pair[0])):
                verdict = _verdict(c, card.higher_is_better)
                found.append({"set": set_, "metric": metric, "design": design, "difference": c.difference, "lo": c.lo, "hi": c.hi,
                              "p": c.p, "n": c.n, "seeds": c.seeds, "people": c.people, "failures": c.failures,
                              "unpaired": c.unpaired, "verdict": verdict})  # fmt: skip
    return pd.DataFrame(found, columns=list(PAIRS))


def _verdict(c: Comparison, higher_is_better: bool | None) -> str:
    if not np.isfinite(c.p):
        return f"not told: {c.seeds} of {SEEDS} seeds" if c.seeds < SEEDS else "not told: one person"
    if c.equal:
        return "practically equal"
    if not c.significant:
        return "undecided"
    return "better" if (c.difference > 0) == higher_is_better else "worse"


def _mark(p: float, verdict: str) -> str:
    """One of MARKS."""
    if verdict == "better":
        return "▲" if p < RESOLUTION else "△"
    if verdict == "worse":
        return "▼" if p < RESOLUTION else "▽"
    return {"practically equal": "=", "undecided": "·"}.get(verdict, "?")


def matrices(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Of `pairs`, by set: designs × metrics with one of MARKS each; empty where it was not measured."""
    marks = found.assign(mark=[_mark(p, v) for p, v in zip(found["p"], found["verdict"], strict=True)])
    out = {}
    for set_, own in marks.groupby("set", sort=False):
        table = own.pivot(index="design", columns="metric", values="mark").fillna("")
        designs, metrics = own["design"].unique(), [m for m in METRICS if m in table.columns]
        out[str(set_)] = table.reindex(index=designs, columns=metrics)
    return out


def legend(found: pd.DataFrame) -> str:
    """What the marks of these mean."""
    used = {_mark(p, v) for p, v in zip(found["p"], found["verdict"], strict=True)}
    return "; ".join(f"{mark} {means}" for mark, means in MARKS.items() if mark in used)


def write(folder: Path, baseline: str | None, found: pd.DataFrame) -> None:
    """pairs.csv and pairs.md."""
    write_text(folder / "pairs.csv", found.to_csv(index=False, float_format="%.6g"))
    told = f"{legend(found)}." if len(found) else "No pairs."
    out = [f"Differences from {baseline}; p after Holm over the designs. {told}"]
    for set_, table in matrices(found).items():
        shown = table.rename(columns={m: f"{CARDS[m].label} {CARDS[m].arrow}".strip() for m in table.columns})
        out.append(f"## {SET_NAMES[set_]}\n\n{shown.to_markdown(colalign=('left', *['center'] * len(shown.columns)))}")
    out.append("Differences, intervals, p and counts: pairs.csv.")
    write_text(folder / "pairs.md", "\n\n".join(out) + "\n")
