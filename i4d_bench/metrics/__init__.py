"""The metrics of DESIGN §5. Each is a function → [B], one value per sample, and a torchmetrics class; see `CARDS`."""

from i4d_bench.metrics.cards import CARDS, Card

__all__ = ["CARDS", "Card"]
