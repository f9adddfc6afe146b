"""What our torchmetrics classes share: one value per sample, failures (NaN) counted and scored at the worst."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from i4d_bench.metrics.cards import CARDS, Card


class SampleMetric(Metric):
    """Mean of per-sample values. Subclasses give the card's `name` and `score(...) -> [B]`, NaN where measuring failed.

    `compute()` counts failures at the card's worst value, or leaves them out where the card has none;
    `successes()` is the mean without them, `failures()` their number, `values()` the rows.
    """

    full_state_update = False
    name: str
    scores: list[Float[Tensor, " B"]]

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add_state("scores", default=[], dist_reduce_fx="cat")

    @property
    def card(self) -> Card:
        return CARDS[self.name]

    @property
    def higher_is_better(self) -> bool | None:
        return self.card.higher_is_better

    @abstractmethod
    def score(self, *args) -> Float[Tensor, " B"]: ...

    def update(self, *args) -> None:
        self.scores.append(self.score(*args).detach())

    def values(self) -> Float[Tensor, " N"]:
        return dim_zero_cat(self.scores)

    def failures(self) -> int:
        return int(self.values().isnan().sum())

    def successes(self) -> Tensor:
        return self.values().nanmean()

    def compute(self) -> Tensor:
        values = self.values()
        worst = self.card.worst
        return values.nanmean() if worst is None else torch.where(values.isnan(), worst, values).mean()
