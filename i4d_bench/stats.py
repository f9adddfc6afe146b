"""Intervals and comparisons (DESIGN §7): seeds and people vary, and both are random factors, crossed.

The samples of one person, and on cross pairs those of one driver, are not independent, nor are those of one training: averages
are taken per seed and people, and what they vary by is a sum of the seed's part, the people's and a rest. A difference of two
designs is paired, sample by sample of the same seed. docs/statistics.md has the formulas, and how often intervals cover.

Two things are told apart: a sample that is there and NaN is a failed measurement, counted, and scored at `worst` where the metric's
card declares one; a sample that is not there (a seed not run yet) is missing, and no score of anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias, cast

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats
from statsmodels.stats.multitest import multipletests

LEVEL = 0.95
SEEDS = 3
"""With fewer, what training varies by is not known: intervals are over people alone, and nothing is significant."""
AXES = ["seed", "sample", "person", "driver"]
"""Of scores. driver: whose expression is shown, the person's own where nobody else drives."""

Scores: TypeAlias = pd.Series
"""One number per sample, indexed by AXES; NaN: the measurement failed."""


class Interval(NamedTuple):
    """A mean with its confidence interval. n: samples used; failures: NaN among the samples."""

    mean: float
    lo: float
    hi: float
    n: int
    failures: int
    seeds: int


@dataclass(frozen=True)
class Comparison:
    """`a` against `b` on the samples that both have: the mean of a − b.

    p: of the t statistic, two-sided (after `compare_family`: Holm-adjusted); NaN for too few seeds or people.
    equal: the interval lies inside ±margin (practically equal); None where no margin was declared or p is NaN.
    unpaired: samples that one side alone has.
    """

    difference: float
    lo: float
    hi: float
    p: float
    n: int
    seeds: int
    people: int
    failures: int
    unpaired: int
    equal: bool | None

    @property
    def significant(self) -> bool:
        """p below 1 − LEVEL; False where p is NaN (too little to tell)."""
        return self.p < 1 - LEVEL


class Estimate(NamedTuple):
    """A mean over seeds and people. variance: of the mean; df: its degrees of freedom (both NaN where they cannot be told)."""

    mean: float
    variance: float
    df: float
    seeds: int
    people: int

    def bounds(self, level: float = LEVEL) -> tuple[float, float]:
        half = stats.t.ppf((1 + level) / 2, self.df) * np.sqrt(self.variance)
        return float(self.mean - half), float(self.mean + half)

    @property
    def p(self) -> float:
        """Two-sided, of a mean of zero; NaN for fewer than SEEDS."""
        if self.seeds < SEEDS or not self.variance >= 0:
            return np.nan
        if self.variance == 0:
            return float(self.mean == 0)
        return float(2 * stats.t.sf(abs(self.mean) / np.sqrt(self.variance), self.df))


def estimate(scores: Scores) -> Estimate:
    """The mean of finite scores, and how sure it is. Seeds weigh the same, and so do people (on cross pairs, pairs)."""
    if not len(scores):
        return Estimate(np.nan, np.nan, np.nan, 0, 0)
    seed = _numbered(scores.index.get_level_values("seed"))
    person, driver = scores.index.get_level_values("person"), scores.index.get_level_values("driver")
    person, driver = _numbered(person.append(driver)).reshape(2, -1)  # in one list: who drives may be shown elsewhere
    most = 2 * len(scores)
    pairs, unit = np.unique(person * most + driver, return_inverse=True)
    table = np.full((len(pairs), seed.max() + 1), np.nan)
    means = cast("pd.Series", pd.Series(scores.to_numpy(float)).groupby(unit * table.shape[1] + seed).mean())
    table.flat[means.index] = means
    return crossed(table, pairs // most, pairs % most)


def _numbered(values: pd.Index) -> Int[np.ndarray, " N"]:
    """The number of every value, in their order from 0."""
    return np.unique(values, return_inverse=True)[1]


def crossed(table: Float[np.ndarray, "U S"], person: Int[np.ndarray, " U"], driver: Int[np.ndarray, " U"]) -> Estimate:
    """Of a table of units, each of a person and a driver (numbers from 0, of one list of people), and seeds.

    Cells that are missing (NaN) are filled by what an additive model expects there (Yates 1933), and the rest loses a degree of
    freedom for each.
    """
    table, missing = _filled(table)
    units, seeds = table.shape
    mean, of_people, of_seeds = table.mean(), table.mean(1), table.mean(0)
    variance, df = _between_people(of_people - mean, person, driver)
    if seeds >= SEEDS and units > 1:
        rest = table - of_people[:, None] - of_seeds + mean
        left = (seeds - 1) * (units - 1) - missing
        if left < 1:
            variance = df = np.nan
        else:
            of_rest = np.square(rest).sum() / left / table.size
            variance, df = _together(of_seeds.var(ddof=1) / seeds, seeds - 1, variance, df, of_rest, left)
    return Estimate(float(mean), float(variance), float(df), seeds, len(set(person.tolist())))


def _together(
    of_seeds: float, seeds_df: float, of_people: float, people_df: float, rest: float, rest_df: float
) -> tuple[float, float]:
    """Variance of a mean over two crossed factors from those of the mean over each and of the rest, and its degrees of freedom.

    It is no less than the rest's: where neither factor shows, their parts are noise that may cancel. Degrees of freedom are the
    factors' harmonic mean, weighted by their parts: Satterthwaite's, which square the weights, take what three seeds say of
    themselves for certain, and intervals cover 92 % (docs/statistics.md).
    """
    both = of_seeds + of_people
    if both <= 2 * rest:
        return rest, rest_df
    return both - rest, both / (of_seeds / seeds_df + of_people / people_df)


def _between_people(
    errors: Float[np.ndarray, " U"], person: Int[np.ndarray, " U"], driver: Int[np.ndarray, " U"]
) -> tuple[float, float]:
    """Variance of the mean of units, each of a person and a driver, and its degrees of freedom; NaN for a single person.

    Units that share anybody, in whichever part, may vary together (Aronow, Samii & Assenova 2015): errors are multiplied over all
    pairs of units that do, and the sum divided by the number of pairs that do not. Where nobody occurs twice that is the variance
    of a mean. It is no less than by sharing the person alone, or the driver alone. Degrees of freedom lie in the middle between
    people and groups that share nobody: by either alone intervals of few people cover 92 or 98 %.
    """
    fewest = min(len(np.unique(person)), len(np.unique(driver))) - 1
    if fewest < 1:
        return np.nan, np.nan

    def summed(weights: np.ndarray, codes: np.ndarray) -> float:
        """Of products of two units' weights, over all pairs of one code."""
        return float(np.square(np.bincount(codes, weights)).sum())

    units, alone = len(errors), person == driver
    low, high = np.minimum(person, driver), np.maximum(person, driver)
    pair = np.unique(low * (high.max() + 1) + high, return_inverse=True)[1]

    def sharing(weights: np.ndarray) -> float:
        """Both ends' people in one list; who is at both ends counts once, and so do two of the same people."""
        people = np.concatenate([person, driver[~alone]])
        ends = np.concatenate([weights, weights[~alone]])
        return summed(ends, people) - summed(weights[~alone], pair[~alone])

    found = []
    for part in (sharing, lambda w: summed(w, person), lambda w: summed(w, driver)):
        pairs = part(np.ones(units))
        if pairs < units**2:
            apart = units**2 / pairs - 1 if part is sharing else fewest  # as if they came in groups that share nobody
            found.append((part(errors) / (units**2 - pairs), (fewest + apart) / 2))
    return max(found, default=(np.nan, np.nan))


def _filled(table: Float[np.ndarray, "U S"]) -> tuple[Float[np.ndarray, "U S"], int]:
    """Unknown cells as the sum of their row's and column's effects would have them, and how many they were."""
    unknown = np.isnan(table)
    count = int(unknown.sum())
    if not count:
        return table, 0
    table = np.where(unknown, np.nanmean(table), table)
    for _ in range(1000):
        guess = table.mean(1, keepdims=True) + table.mean(0) - table.mean()
        change = np.abs(guess - table)[unknown].max()
        table = np.where(unknown, guess, table)
        if change <= 1e-12 * max(1.0, np.abs(table).max()):
            break
    return table, count


def mean_ci(scores: Scores, worst: float | None = None, level: float = LEVEL) -> Interval:
    """Mean with its interval, over seeds and people; with fewer than SEEDS over people alone. Bounds are NaN for fewer than two
    people, the mean too for no sample."""
    kept, failed = _scored(scores, worst)
    e = estimate(kept)
    return Interval(e.mean, *e.bounds(level), len(kept), failed, e.seeds)


def compare(
    a: Scores, b: Scores, worst: float | None = None, margin: float | None = None, level: float = LEVEL
) -> Comparison:
    """a − b. Without `worst`, samples that failed on either side are left out."""
    shared = a.index if a.index.equals(b.index) else a.index.intersection(b.index)
    left, right = (s if s.index.equals(shared) else s.loc[shared] for s in (a, b))
    failures = int((left.isna() | right.isna()).sum())
    if worst is not None:
        left, right = left.fillna(worst), right.fillna(worst)
    difference = (left - right).dropna()
    e = estimate(difference)
    lo, hi = e.bounds(level)
    equal = None if margin is None or np.isnan(e.p) else bool(-margin < lo and hi < margin)
    unpaired = len(a) + len(b) - 2 * len(shared)
    return Comparison(e.mean, lo, hi, e.p, len(difference), e.seeds, e.people, failures, unpaired, equal)


def holm(p: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """Holm-adjusted p values; NaN stays NaN and does not count as a comparison."""
    p = np.asarray(p, float)
    adjusted = np.full_like(p, np.nan)
    known = np.isfinite(p)
    if known.any():
        adjusted[known] = multipletests(p[known], method="holm")[1]
    return adjusted


def compare_family(
    scores: Mapping[str, Scores], baseline: str, worst: float | None = None, margin: float | None = None
) -> dict[str, Comparison]:
    """Everyone but the baseline against it, with p adjusted over the family (Holm)."""
    single = {n: compare(s, scores[baseline], worst, margin) for n, s in scores.items() if n != baseline}
    adjusted = holm(np.array([c.p for c in single.values()]))
    return {n: replace(c, p=float(p)) for (n, c), p in zip(single.items(), adjusted, strict=True)}


def best_and_ties(
    scores: Mapping[str, Scores],
    higher_is_better: bool,
    worst: float | None = None,
    means: Mapping[str, float] | None = None,
) -> set[str]:
    """The best name and all not significantly worse: what tables print in bold. Empty where it cannot be told: with fewer than
    SEEDS, or with one person. means: by `mean_ci`, where they are known."""
    if means is None:
        means = {n: mean_ci(s, worst).mean for n, s in scores.items()}
    means = {n: means[n] for n in scores if np.isfinite(means[n])}
    if not means:
        return set()
    best = (max if higher_is_better else min)(means, key=lambda name: means[name])
    family = compare_family({n: scores[n] for n in means}, best, worst)
    if not any(np.isfinite(c.p) for c in family.values()):
        return set()
    return {best} | {n for n, c in family.items() if np.isfinite(c.p) and not c.significant}


def _scored(scores: Scores, worst: float | None) -> tuple[Scores, int]:
    """Without failures or with them at the worst value, and how many there were. Raises ValueError."""
    if list(scores.index.names) != AXES:
        raise ValueError(f"scores are indexed by {', '.join(AXES)}, not by {scores.index.names}")
    if np.isinf(scores.to_numpy(float)).any():
        raise ValueError("a sample's value is infinite")
    failed = scores.isna()
    return cast("pd.Series", scores[~failed] if worst is None else scores.fillna(worst)), int(failed.sum())
