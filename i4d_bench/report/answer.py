"""What a report found, in one line: for the head of its page and the site's first page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from i4d_bench.metrics.cards import CARDS
from i4d_bench.report.columns import Column
from i4d_bench.report.paper import pick, varied
from i4d_bench.report.rows import Row, all_seeds
from i4d_bench.stats import SEEDS

DECIDING = ("gap", "aed_true", "aed_mp52")
"""Of cross-reenactment, the first that was measured."""
BLOCKS = {"fair": "", "privileged": "of those given more "}
"""Those that have a best design, and what is said before it."""


def of_designs(columns: Sequence[Column], designs: dict[str, Row]) -> str:
    """columns: of the main table. The best of each block by DECIDING with its interval, and what that is over; want of seeds is
    said. Empty where nothing of it was measured."""
    found = pick(columns, [("cross", DECIDING)])
    if not found:
        return ""
    (column,) = found
    card, seeds = CARDS[column.of[1]], len(all_seeds(designs))
    merits = {d: v if card.higher_is_better else -v for d, v in column.values.items()}
    told = [BLOCKS[block] + _measured(column, d, designs) for block, d in _best(merits, designs).items()]
    if not told:
        return ""
    most = "largest" if card.higher_is_better else "smallest"
    several = sum(row.block in BLOCKS for row in designs.values()) > 1
    few = {1: "; one seed: no intervals over seeds", 2: f"; two seeds: no design is called better, that takes {SEEDS}"}
    said = f"{most} " * several + f"{column.group} {card.label}: {'; '.join(told)}."
    return f"{said[0].upper()}{said[1:]} 95% intervals over {varied(designs)}{few.get(seeds, '')}."


def of_search(columns: Sequence[Column], designs: dict[str, Row]) -> str:
    """columns: of a search, which has one seed. The best of each block, with the rate and start that were taken."""
    taken = {d: c for c in columns for d in c.bold}
    best = _best({d: c.values[d] for d, c in taken.items()}, designs)
    told = [
        f"{BLOCKS[block]}{d}, {taken[d].text(taken[d].values[d])} dB ({taken[d].head})" for block, d in best.items()
    ]
    return f"Largest driving gap on validation, at the best rate and start: {'; '.join(told)}. One seed: no intervals over seeds."


def _best(merits: Mapping[str, float], designs: dict[str, Row]) -> dict[str, str]:
    """By block, the design with the largest of its merits; blocks without any are left out."""
    known = {
        block: [d for d, row in designs.items() if row.block == block and np.isfinite(merits[d])] for block in BLOCKS
    }
    return {block: max(own, key=lambda d: merits[d]) for block, own in known.items() if own}


def _measured(column: Column, design: str, designs: dict[str, Row]) -> str:
    """Its number, its interval, and where that can be told from how many others of its block it is not told apart."""
    unit, interval = CARDS[column.of[1]].unit, column.intervals.get(design)
    text = f"{design}, {column.text(column.values[design])} {unit}".strip()
    if interval and np.isfinite(interval.lo):
        text += f" ({column.text(interval.lo)} to {column.text(interval.hi)})"
    own = {d for d in column.bold if designs[d].block == designs[design].block}
    if len(own) > 1:
        return f"{text}, not told apart from {len(own) - 1} of those given the same"
    return text + ", ahead of all that are given the same" * bool(own)
