"""A table's rows: what every seed of a design came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from i4d_bench.evaluate.gap import ONSET_DB
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store

BAD = ("did not start", "failed")
"""States that a dagger marks."""
BLOCKS = {
    "fair": "",
    "privileged": "these see more than the others, and are compared among themselves alone",
    "control": "the control, which never moves",
}
"""Of a table, in this order: bold is of a block's own, and the control takes none."""
ORDER = {"local": 0, "global": 1, "parametric": 2, "control": 3}


@dataclass(frozen=True)
class Row:
    """The runs of a design, in the order of their seeds: one at least."""

    runs: tuple[Record, ...]

    @property
    def last(self) -> Record:
        """The newest, for what is the same in all."""
        return max(self.runs, key=lambda r: r.created)

    @property
    def family(self) -> str:
        return self.last.family

    @property
    def block(self) -> str:
        """One of BLOCKS."""
        return "control" if self.family == "control" else "privileged" if self.last.sees else "fair"

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(r.seed for r in self.runs)

    @property
    def status(self) -> str:
        """Of all its seeds: "started", or where they differ "2 started, 1 did not start"."""
        counts = Counter(r.status for r in self.runs)
        return self.last.status if len(counts) == 1 else ", ".join(f"{n} {s}" for s, n in counts.most_common())

    @property
    def mark(self) -> str:
        """A dagger where any of its seeds came to nothing."""
        return "†" if any(r.status in BAD for r in self.runs) else ""

    @property
    def why(self) -> list[str]:
        """In sentences, what became of the seeds that came to nothing."""
        return came_to_nothing([self])

    def mean(self, value: Callable[[Record], float | None]) -> float:
        """Over the seeds that have a value; NaN where none has."""
        known = [v for r in self.runs if (v := value(r)) is not None]
        return float(np.mean(known)) if known else np.nan


def came_to_nothing(rows: Iterable[Row]) -> list[str]:
    """The notes to their daggers: one sentence for all seeds that ended alike."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for r in row.runs:
            if r.status in BAD:
                how, _, own = r.why.partition("; ")
                details = [f"seed {r.seed} of {len(row.runs)}"] * (len(row.runs) > 1) + [own] * bool(own)
                told = f"{r.design} ({', '.join(details)})" if details else r.design
                found.setdefault((r.status, how), []).append(told)
    return [
        f"† {status[0].upper()}{status[1:]}{f' ({how})' * bool(how)}: {', '.join(those)}."
        for (status, how), those in found.items()
    ]


def onset(record: Record) -> float | None:
    """The validation step from which a run's gap stays at ONSET_DB or above to the end; None where it does not. A gap that passes
    once and falls back is none: a network may move eyes and mouth by chance. A record without its curve has what it says."""
    if not record.curve:
        return record.onset["step"] if record.onset else None
    below = [k for k, c in enumerate(record.curve) if not (c["gap"] or 0) >= ONSET_DB]
    after = record.curve[below[-1] + 1 if below else 0 :]
    return after[0]["step"] if after else None


def all_seeds(designs: dict[str, Row]) -> set[int]:
    return {seed for row in designs.values() for seed in row.seeds}


def lacking(designs: dict[str, Row]) -> dict[str, str]:
    """By design, the seeds that others have and it has not."""
    seeds = all_seeds(designs)
    lacks = {design: sorted(seeds - set(row.seeds)) for design, row in designs.items()}
    return {design: ", ".join(map(str, those)) for design, those in lacks.items() if those}


def rows(store: Store) -> dict[str, Row]:
    """By design, families together, block after block."""
    out: dict[str, list[Record]] = {}
    for r in sorted(store.records, key=lambda r: (ORDER.get(r.family, 4), r.design, r.seed)):
        out.setdefault(r.design, []).append(r)
    found = {design: Row(tuple(runs)) for design, runs in out.items()}
    return {d: row for block in BLOCKS for d, row in found.items() if row.block == block}
