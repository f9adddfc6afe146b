"""Intervals and comparisons (DESIGN §7): paired by sample, clustered by identity.

Frames of one person are not independent, so the person is the unit: values are averaged per cluster first, and
bootstrap (BCa) and permutation draw clusters. Every person weighs the same; with four people no p is below 0.125. A
failed measurement is NaN: counted, and scored at `worst` where the metric's card declares one, left out otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats
from statsmodels.stats.multitest import multipletests

FEW_CLUSTERS = 20
"""Below this many people the interval is Student's t on their means: a 95% bootstrap covers 74% with four."""
RESAMPLES = 2000
PERMUTATIONS = 9999
LEVEL = 0.95

Values = Float[np.ndarray, " N"]
Clusters = Shaped[np.ndarray, " N"]


class Interval(NamedTuple):
    """A mean with its confidence interval. n: samples used; failures: NaN among the samples."""

    mean: float
    lo: float
    hi: float
    n: int
    failures: int


@dataclass(frozen=True)
class Comparison:
    """`a` against `b` on shared samples: the mean of a − b.

    p: sign-flip permutation over clusters, two-sided (after `compare_family`: Holm-adjusted).
    equal: the interval lies inside ±margin (practically equal); None when no margin was declared.
    """

    difference: float
    lo: float
    hi: float
    p: float
    n: int
    clusters: int
    failures: int
    equal: bool | None

    @property
    def significant(self) -> bool:
        """p below 1 − LEVEL; False where p is NaN (too few clusters to tell)."""
        return self.p < 1 - LEVEL


def cluster_means(values: Values, clusters: Clusters) -> Float[np.ndarray, " C"]:
    """Mean per cluster, in the order of the sorted cluster names. Values must be finite."""
    names, index = np.unique(clusters, return_inverse=True)
    return np.bincount(index, values, len(names)) / np.bincount(index, minlength=len(names))


def mean_ci(
    values: Values, clusters: Clusters, worst: float | None = None, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Mean over people with its interval. Bounds are NaN for fewer than two clusters, the mean too for no sample."""
    values, failed = _score_failures(values, clusters, worst)
    kept = np.isfinite(values)
    means = cluster_means(values[kept], np.asarray(clusters)[kept])
    lo, hi = _interval(means, level, seed)
    return Interval(float(means.mean()) if len(means) else np.nan, lo, hi, int(kept.sum()), int(failed.sum()))


def compare(
    a: Values, b: Values, clusters: Clusters, worst: float | None = None, margin: float | None = None,
    level: float = LEVEL, seed: int = 0,
) -> Comparison:  # fmt: skip
    """a − b on the same samples in the same order. Without `worst`, samples that failed on either side are left out."""
    if np.shape(a) != np.shape(b):
        raise ValueError(f"a paired comparison needs the same samples, got {np.shape(a)} and {np.shape(b)}")
    a, failed_a = _score_failures(a, clusters, worst)
    b, failed_b = _score_failures(b, clusters, worst)
    kept = np.isfinite(a) & np.isfinite(b)
    means = cluster_means(a[kept] - b[kept], np.asarray(clusters)[kept])
    lo, hi = _interval(means, level, seed)
    equal = None if margin is None else bool(-margin < lo and hi < margin)
    difference = float(means.mean()) if len(means) else np.nan
    failures = int((failed_a | failed_b).sum())
    return Comparison(difference, lo, hi, _sign_flip(means, seed), int(kept.sum()), len(means), failures, equal)


def holm(p: Values) -> Values:
    """Holm-adjusted p values; NaN stays NaN and does not count as a comparison."""
    p = np.asarray(p, float)
    adjusted = np.full_like(p, np.nan)
    known = np.isfinite(p)
    if known.any():
        adjusted[known] = multipletests(p[known], method="holm")[1]
    return adjusted


def compare_family(
    scores: Mapping[str, Values], baseline: str, clusters: Clusters, worst: float | None = None,
    margin: float | None = None, level: float = LEVEL, seed: int = 0,
) -> dict[str, Comparison]:  # fmt: skip
    """Everyone but the baseline against it, with p adjusted over the family (Holm)."""
    others = [n for n in scores if n != baseline]
    single = [compare(scores[n], scores[baseline], clusters, worst, margin, level, seed) for n in others]
    adjusted = holm(np.array([c.p for c in single]))
    return {n: replace(c, p=float(p)) for n, c, p in zip(others, single, adjusted, strict=True)}


def best_and_ties(
    scores: Mapping[str, Values], clusters: Clusters, higher_is_better: bool, worst: float | None = None, seed: int = 0
) -> set[str]:
    """The best name and all not significantly worse: what tables print in bold. Empty when nothing was measured."""
    means = {n: mean_ci(v, clusters, worst, seed=seed).mean for n, v in scores.items()}
    means = {n: m for n, m in means.items() if np.isfinite(m)}
    if not means:
        return set()
    best = (max if higher_is_better else min)(means, key=lambda name: means[name])
    family = compare_family({n: scores[n] for n in means}, best, clusters, worst, seed=seed)
    return {best} | {n for n, c in family.items() if not c.significant}


def _score_failures(values: Values, clusters: Clusters, worst: float | None) -> tuple[Values, np.ndarray]:
    values = np.asarray(values, float)
    if values.ndim != 1 or values.shape != np.shape(clusters):
        raise ValueError(f"expected one value and one cluster per sample, got {values.shape} and {np.shape(clusters)}")
    if np.isinf(values).any():
        raise ValueError("a sample's value is infinite")
    failed = np.isnan(values)
    return (values if worst is None else np.where(failed, worst, values)), failed


def _interval(means: Values, level: float, seed: int) -> tuple[float, float]:
    if len(means) < 2:
        return np.nan, np.nan
    if len(means) < FEW_CLUSTERS:
        half = stats.t.ppf((1 + level) / 2, len(means) - 1) * stats.sem(means)
        return float(means.mean() - half), float(means.mean() + half)
    if np.ptp(means) == 0:  # BCa divides by the spread
        return float(means[0]), float(means[0])
    result = stats.bootstrap((means,), np.mean, n_resamples=RESAMPLES, confidence_level=level, vectorized=True,
                             rng=np.random.default_rng(seed))  # fmt: skip
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _sign_flip(differences: Values, seed: int) -> float:
    """Two-sided p of "each cluster's difference is as likely negative": exact for few clusters, else drawn."""
    if len(differences) < 2:
        return np.nan
    zero = np.zeros_like(differences)
    result = stats.permutation_test((differences, zero), lambda x, y, axis: np.mean(x - y, axis=axis), vectorized=True,
                                    permutation_type="samples", n_resamples=PERMUTATIONS,
                                    rng=np.random.default_rng(seed))  # fmt: skip
    return float(result.pvalue)
