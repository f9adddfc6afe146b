"""Samples to one number per set and metric."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pandas as pd

from i4d_bench.metrics.cards import CARDS


def finite(value: Any) -> Any:
    """NaN and infinity as null, which JSON has."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def aggregate(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Per set and metric. A failed sample (NaN) counts as the card's worst value, or is left out where there is none."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    if not rows:
        return out
    for key, group in pd.DataFrame(rows).groupby(["set", "metric"], sort=False):
        set_, metric = cast("tuple[str, str]", key)
        values, card = group["value"].to_numpy(float), CARDS[metric]
        scored = values if card.worst is None else np.where(np.isfinite(values), values, card.worst)
        scored = scored[np.isfinite(scored)]
        good = values[np.isfinite(values)]
        out.setdefault(set_, {})[metric] = {
            "mean": float(scored.mean()) if len(scored) else None,
            "se": float(scored.std(ddof=1) / np.sqrt(len(scored))) if len(scored) > 1 else None,
            "n": len(scored),
            "failures": len(values) - len(good),
            "mean_success": float(good.mean()) if len(good) else None,
            "higher_is_better": card.higher_is_better,
        }
    return out
