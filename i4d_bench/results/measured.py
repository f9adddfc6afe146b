"""What a store's samples say, by set, metric and design: split once, and every interval computed once."""

from __future__ import annotations

from functools import cached_property
from typing import cast

import pandas as pd

from i4d_bench.metrics.cards import CARDS
from i4d_bench.stats import AXES, Interval, Scores, mean_ci


class Measured:
    """samples: columns `store.ROW`; nobody changes them."""

    def __init__(self, samples: pd.DataFrame):
        self.samples = samples
        self._intervals: dict[tuple[str, str], dict[str, Interval]] = {}

    @cached_property
    def _scores(self) -> dict[tuple[str, str], dict[str, Scores]]:
        out: dict[tuple[str, str], dict[str, Scores]] = {}
        rows = self.samples.rename(columns={"identity": "person"}).set_index(AXES)
        for key, values in rows.groupby(["set", "metric", "design"], sort=False)["value"]:
            set_, metric, design = cast("tuple[str, str, str]", key)
            out.setdefault((set_, metric), {})[design] = cast("pd.Series", values).astype(float)
        return out

    def scores(self, set_: str, metric: str) -> dict[str, Scores]:
        """By design, all its seeds; designs that were not measured there are left out."""
        return self._scores.get((set_, metric), {})

    def intervals(self, set_: str, metric: str) -> dict[str, Interval]:
        """`stats.mean_ci` of the same."""
        if (set_, metric) not in self._intervals:
            worst = CARDS[metric].worst
            self._intervals[set_, metric] = {d: mean_ci(s, worst) for d, s in self.scores(set_, metric).items()}
        return self._intervals[set_, metric]
