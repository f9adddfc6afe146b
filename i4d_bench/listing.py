"""What `i4d-bench list` lists."""

from __future__ import annotations

from typing import Any

from i4d_bench.config.ablations import ablations
from i4d_bench.config.presets import PRESETS
from i4d_bench.metrics.cards import CARDS, Card
from variants import about, design, names


def listing(what: str) -> list[dict[str, Any]]:
    """name, kind and text of every design, ablation, preset or metric; of an ablation its designs, of a metric its card, too."""
    if what == "designs":
        return [{"name": n, "kind": design(n).family, "text": about(n)[0]} for n in names()]
    if what == "ablations":
        return [
            {"name": n, "kind": f"{len(a.designs)} rows", "text": a.question, "designs": a.designs}
            for n, a in ablations().items()
        ]
    if what == "presets":
        return [{"name": n, "kind": "", "text": _first_line(make)} for n, make in PRESETS.items()]
    return [
        {"name": c.name, "kind": c.arrow, "text": _told(c), "unit": c.unit, "network": c.network, "worst": c.worst}
        for c in CARDS.values()
    ]


def _told(card: Card) -> str:
    """A metric in one line."""
    unit = f"unit: {card.unit}" if card.unit else ""
    network = f"network: {card.network}" if card.network else ""
    worst = "" if card.worst is None else f"worst value: {card.worst:.4g}"
    return "; ".join(filter(None, (card.definition, unit, network, worst)))


def _first_line(thing: Any) -> str:
    return next(iter((thing.__doc__ or "").splitlines()), "")
