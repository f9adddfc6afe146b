"""How much a driver's code says about who is seen, from where and in which light, beside the expression that it is for.

Read-outs are linear and in closed form: ridge regression for expression, pose and light, for identity nearest class means after
whitening within people. What they are scored on was not fitted: other people, of few people the last part of each, and for identity
other expressions of the same people. Training frames alone are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from i4d_bench.data.frames import Frames
from i4d_bench.data.splits import SPLITS, pitch, split_of, yaw
from i4d_bench.types import MOTION_TOKENS

FEWEST = 200
"""Frames below which nothing is said."""
PEOPLE = 25
"""At most so many are told apart at once: chance is 4 %."""
FOLDS = 4
"""One of them chooses the ridge, one is scored."""
RIDGES = tuple(10.0**e for e in range(-6, 2))
"""Times the mean variance of a code's numbers."""
FLAT = 1e-3
"""Degrees: below such a spread a pose is constant, and has no R²."""

SAID = {"token": "one token's"}


@dataclass(frozen=True)
class Leak:
    """R² of read-outs (1: all is there, 0: nothing; below: worse than the mean), and the share of frames whose person is found
    where guessing finds `chance`. token: expression's of the best single token. None where the data cannot say."""

    expression: float | None
    identity: float | None
    chance: float | None
    yaw: float | None
    pitch: float | None
    token: float | None = None
    light: float | None = None

    def __str__(self) -> str:
        parts = [f"{SAID.get(k, k)} R² {v:.2f}" for k, v in self._regressions if v is not None]
        if self.identity is not None and self.chance is not None:
            after = sum(v is not None for v in (self.expression, self.token))
            parts.insert(after, f"identity {self.identity:.0%} (chance {self.chance:.0%})")
        return ", ".join(parts)

    @property
    def _regressions(self) -> list[tuple[str, float | None]]:
        return [(k, getattr(self, k)) for k in ("expression", "token", "yaw", "pitch", "light")]

    @property
    def extras(self) -> dict[str, float | None]:
        """As a record keeps them."""
        return {f"code_{k}": v for k, v in self.__dict__.items()}

    @staticmethod
    def of(extras: dict[str, float | None]) -> Leak | None:
        """Of a record; None where it has none."""
        found = {k: extras[f"code_{k}"] for k in Leak.__dataclass_fields__ if f"code_{k}" in extras}
        return Leak(**found) if found else None


def probe(codes: Float[np.ndarray, "F D"], frames: Frames) -> Leak | None:
    """Of the codes of all frames. None for less than `FEWEST` training frames."""
    within = np.flatnonzero(split_of(frames) == SPLITS.index("train"))
    if len(within) < FEWEST:
        return None
    people, expressions = np.asarray(frames.identity)[within], np.asarray(frames.expression)[within]
    own, folds = codes[within].astype(np.float64), _folds(people, expressions)
    angles = np.stack([yaw(frames), pitch(frames)], 1)[within]
    coefficients = np.asarray(frames.coefficients)[within].astype(np.float64)
    measured, lit = np.isfinite(coefficients).all(), "light" in frames.arrays
    tokens = [readable(t, coefficients, folds) for t in np.split(own, MOTION_TOKENS, 1)] if measured else []
    identity, chance = recognised(own, people, _last_quarter(people, expressions))
    turned = [readable(own, angles[:, [k]], folds) if np.ptp(angles[:, k]) > FLAT else None for k in range(2)]
    return Leak(
        expression=readable(own, coefficients, folds) if measured else None,
        token=max((r for r in tokens if r is not None), default=None),
        identity=identity,
        chance=chance,
        yaw=turned[0],
        pitch=turned[1],
        light=readable(own, np.asarray(frames.light)[within].astype(np.float64), folds) if lit else None,
    )


def readable(
    codes: Float[np.ndarray, "F D"], values: Float[np.ndarray, "F K"], folds: Int[np.ndarray, " F"]
) -> float | None:
    """R² on the last fold, over all K values together, of the ridge regression that does best on the fold before. None where the
    values do not vary there, or there is too little for three parts."""
    fit, choose, score = folds < FOLDS - 2, folds == FOLDS - 2, folds == FOLDS - 1
    if not all(part.any() and values[part].std(0).any() for part in (fit, choose, score)):
        return None
    mean, centre = codes[fit].mean(0), values[fit].mean(0)
    x, y = codes[fit] - mean, values[fit] - centre
    variance, axes = np.linalg.eigh(x.T @ x / len(x))
    read = axes.T @ (x.T @ y / len(x))
    unit = max(float(variance.mean()), np.finfo(float).tiny)

    def r2(ridge: float, on: Bool[np.ndarray, " F"]) -> float:
        off = (codes[on] - mean) @ (axes @ (read / (variance[:, None].clip(0) + ridge * unit))) + centre - values[on]
        return 1 - float((off**2).sum() / ((values[on] - values[on].mean(0)) ** 2).sum())

    return r2(max(RIDGES, key=lambda ridge: r2(ridge, choose)), score)


def recognised(
    codes: Float[np.ndarray, "F D"], people: Int[np.ndarray, " F"], held: Bool[np.ndarray, " F"]
) -> tuple[float, float] | tuple[None, None]:
    """The share of `held` frames that lie nearest to their own person's mean of the other frames, in groups of people of one size,
    and chance. None, None below two people with frames on both sides."""
    who = np.intersect1d(people[held], people[~held])
    groups = max(1, round(len(who) / PEOPLE))
    size = len(who) // groups
    if size < 2:
        return None, None
    right, frames = 0, 0
    means = np.stack([codes[(people == p) & ~held].mean(0) for p in who])
    inside = np.isin(people, who)
    fit, row = inside & ~held, np.searchsorted(who, people)
    within = codes[fit] - means[row[fit]]
    variance, axes = np.linalg.eigh(within.T @ within / len(within))
    white = axes / np.sqrt(variance.clip(0) + max(float(variance.mean()), np.finfo(float).tiny))
    means, seen = means @ white, codes @ white
    for g in range(groups):
        members = np.arange(g * size, (g + 1) * size)
        of = np.flatnonzero(inside & held & np.isin(row, members))
        near = ((seen[of][:, None] - means[members]) ** 2).sum(-1).argmin(1)
        right, frames = right + int((members[near] == row[of]).sum()), frames + len(of)
    return right / frames, 1 / size


def _folds(people: Int[np.ndarray, " F"], expressions: Int[np.ndarray, " F"]) -> Int[np.ndarray, " F"]:
    """Of people where there are two for each fold; else of the parts of each person's expressions, in their order."""
    who = np.unique(people)
    if len(who) >= 2 * FOLDS:
        return np.searchsorted(who, people) % FOLDS
    return _parts(people, expressions)


def _last_quarter(people: Int[np.ndarray, " F"], expressions: Int[np.ndarray, " F"]) -> Bool[np.ndarray, " F"]:
    """Of each person's expressions, at least one of two."""
    return _parts(people, expressions) == FOLDS - 1


def _parts(people: Int[np.ndarray, " F"], expressions: Int[np.ndarray, " F"]) -> Int[np.ndarray, " F"]:
    """0 … FOLDS - 1: which part of its person's expressions a frame shows; with few of them, of the last parts."""
    out = np.zeros(len(people), int)
    for p in np.unique(people):
        mine = np.flatnonzero(people == p)
        own, rank = np.unique(expressions[mine], return_inverse=True)
        out[mine] = FOLDS - 1 - (len(own) - 1 - rank) * FOLDS // len(own)
    return out
