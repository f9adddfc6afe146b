"""`i4d-bench reproduce`: trains again what a published report holds, and says row by row whether the numbers agree.

It trains in a folder of its own, RUNS/reproduced/NAME, so that nothing published is taken for a new training; stopped, it goes on
there.

Two trainings of one experiment differ: by seed, and on a GPU or another kind of machine also with the same one. How much, the
published seeds say: the standard deviation between them, pooled over the designs that have three or more. Two runs of such a design
agree when they lie no further apart than two seeds would in 95 of 100 whole tables (Student's t over all rows, Bonferroni). Fewer
seeds say nothing of their spread; such a design is held to what two runs of one seed were seen to differ by.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats

from i4d_bench.config.experiment import Experiment, from_dict
from i4d_bench.data.teacher.store import pairs_digest
from i4d_bench.drivers.external import located
from i4d_bench.jobs.run import run
from i4d_bench.metrics.cards import CARDS
from i4d_bench.printing import print_table
from i4d_bench.progress import console
from i4d_bench.report.tables import MAIN
from i4d_bench.results.environment import code_of, environment, hardware_name
from i4d_bench.results.evidence import Reproduction, keep_reproduction, now
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from i4d_bench.types import UserError

ENOUGH = 3
"""Seeds of a design from which its own spread is taken."""
SEEN = {"psnr": 0.32, "gap": 0.40}
"""dB between two trainings of one seed before and after changes that change no result."""
BY_SEEDS, BY_SEEN = "seeds", "one seed twice"
"""What the allowed difference is from: the spread of seeds, or SEEN."""
LEVEL = 0.05
FOLDER = "reproduced"
"""Below the folder of runs."""


def reproduce(
    published: Path,
    designs: tuple[str, ...],
    runs: Path,
    jobs: int | None = None,
    driver: Path | None = None,
    keep: bool = False,
) -> int:
    """Trains the report's designs, or those named, at the first seed of each, and prints the comparison. Returns 1 if a row
    disagrees or is missing, else 0. runs: where what is trained goes, into FOLDER/NAME. driver: where the report's encoder lies
    now, if it was moved. keep: writes it down in the report's folder.

    Raises UserError where the report holds no such run, or cannot be trained here, or what was to be trained is the published run.
    """
    store = Store(published)
    records = {
        r.design: r for r in sorted(store.records, key=lambda r: -r.seed)
    }  # of each design that of the first seed
    if not records:
        raise UserError(f"{published} holds no results to reproduce")
    unknown = [d for d in designs if d not in records]
    if unknown:
        raise UserError(f"{published} has no run of {', '.join(unknown)}; it has {', '.join(sorted(records))}")
    chosen = {d: records[d] for d in designs or records}
    if not set(chosen) & set(store.samples["design"]):
        raise UserError(f"{published} holds curves alone and no scores to compare, as a search does")
    needs = {"gpu", "paper"} & {r.preset for r in chosen.values()}
    if needs and not torch.cuda.is_available():
        raise UserError(f"{published} was trained with the {needs.pop()} preset, and torch sees no GPU here")
    for r in chosen.values():
        store.experiment(r)
        r.config["driver"] = located(r.config["driver"], r.weights.get("encoder"), driver)
        pairs = r.config.get("teacher", {}).get("path")
        if pairs and pairs_digest(Path(pairs)) != r.weights.get("teacher"):
            raise UserError(f"the pairs in {pairs} are not those that {published} was trained on")
    here: dict[str, Record] = {}
    samples, own = [], runs / FOLDER / published.resolve().name
    for experiment in experiments(list(chosen.values())):
        made = Store(run(experiment, own / "reports", own / "runs", jobs, show=False))
        here |= {r.design: r for r in made.records if r.seed == experiment.seed and r.design in experiment.designs}
        samples.append(made.samples)
    if same := [d for d, r in here.items() if r.training == chosen[d].training]:
        raise UserError(
            f"{own} holds the published runs of {', '.join(same)}, so nothing was trained again: move it away"
        )
    table = compare(chosen, store.samples, here, pd.concat(samples))
    _print(table, chosen, here)
    if keep:
        _keep(published, chosen, table)
    return int(bool({"differs", "missing"} & set(table["verdict"])))


def _keep(published: Path, chosen: dict[str, Record], table: pd.DataFrame) -> None:
    runs = {design: r.run_id for design, r in chosen.items()}
    rows = table.to_dict("records")
    kept = keep_reproduction(published, Reproduction(hardware_name(), code_of(environment()), now(), runs, rows))
    console.print(f"kept in {kept}")


def experiments(records: list[Record]) -> list[Experiment]:
    """One for all records that were made by one configuration."""
    groups: dict[str, list[Record]] = {}
    for r in records:
        own = {**r.config, "designs": None}
        groups.setdefault(json.dumps(own, sort_keys=True), []).append(r)
    return [
        dataclasses.replace(from_dict(group[0].config), designs=tuple(r.design for r in group), seed=group[0].seed)
        for group in groups.values()
    ]


def compare(
    published: dict[str, Record], old: pd.DataFrame, here: dict[str, Record], new: pd.DataFrame
) -> pd.DataFrame:
    """Rows design, set, metric, published, here, difference, allowed, by (BY_SEEDS or BY_SEEN), verdict (agrees, differs, not
    judged, missing)."""
    rows: list[dict[str, Any]] = []
    for design, record in published.items():
        for set_, metrics in MAIN.items():
            for metric in metrics:
                before = _mean(old, design, record.seed, set_, metric)
                if before is None:
                    continue
                after = _mean(new, design, here[design].seed, set_, metric) if design in here else None
                difference = np.nan if after is None else after - before
                rows.append({"design": design, "set": set_, "metric": metric, "published": before,
                             "here": np.nan if after is None else after, "difference": difference})  # fmt: skip
    table = pd.DataFrame(rows)
    if not len(table):
        raise UserError("the published runs hold no scores to compare")
    measured = list(table[["set", "metric"]].itertuples(index=False, name=None))
    limits = {(set_, metric): allowed(old, set_, metric, len(table)) for set_, metric in dict.fromkeys(measured)}
    found = [limits[of][design] for of, design in zip(measured, table["design"], strict=True)]
    table["allowed"], table["by"] = [limit for limit, _ in found], [by for _, by in found]
    table["verdict"] = [
        _verdict(*row) for row in zip(table["here"], table["difference"], table["allowed"], strict=True)
    ]
    return table


def allowed(samples: pd.DataFrame, set_: str, metric: str, rows: int) -> dict[str, tuple[float, str]]:
    """By design how far apart two trainings may lie, of so many rows, and by what; NaN where nothing is known."""
    of = samples[(samples["set"] == set_) & (samples["metric"] == metric)]
    of = of.assign(value=_scored(np.asarray(of["value"], float), metric))
    means = pd.Series(of.groupby(["design", "seed"])["value"].mean()).unstack("seed")
    seeds = pd.Series(means.notna().sum(axis=1))
    limits = {str(design): (SEEN.get(metric, np.nan), BY_SEEN) for design in means.index}
    enough = seeds >= ENOUGH
    freedom = (seeds - 1)[enough]
    if enough.any():
        spread = np.sqrt((means.var(axis=1, ddof=1)[enough] * freedom).sum() / freedom.sum())
        limit = float(stats.t.ppf(1 - LEVEL / 2 / rows, freedom.sum()) * spread * 2**0.5)
        limits |= {str(design): (limit, BY_SEEDS) for design in means.index[enough]}
    return limits


def _mean(samples: pd.DataFrame, design: str, seed: int, set_: str, metric: str) -> float | None:
    """As tables have it; None where nothing was measured."""
    of = samples[(samples["design"] == design) & (samples["seed"] == seed) & (samples["set"] == set_)]
    values = _scored(of.loc[of["metric"] == metric, "value"].to_numpy(float), metric)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def _scored(values: Float[np.ndarray, " N"], metric: str) -> Float[np.ndarray, " N"]:
    """Failed measurements at the card's worst value; NaN where it has none."""
    worst = CARDS[metric].worst
    return np.where(np.isfinite(values), values, np.nan if worst is None else worst)


def _verdict(here: float, difference: float, limit: float) -> str:
    if np.isnan(here):
        return "missing"
    if np.isnan(limit):
        return "not judged"
    return "agrees" if abs(difference) <= limit else "differs"


def _print(table: pd.DataFrame, published: dict[str, Record], here: dict[str, Record]) -> None:
    for name, records in (("published", published), ("here", here)):
        made = sorted(
            {f"{r.environment['hardware']}, commit {r.environment['commit']}, seed {r.seed}" for r in records.values()}
        )
        console.print(f"{name}: {'; '.join(made)}")
    numbers = ["published", "here", "difference", "allowed"]
    for design, own in table.groupby("design", sort=False):
        rows = [
            [
                f"{row['set']} {row['metric']}",
                *("" if np.isnan(row[k]) else f"{row[k]:.4f}" for k in numbers),
                "" if np.isnan(row["allowed"]) else row["by"],
                row["verdict"],
            ]
            for row in own.to_dict("records")
        ]
        print()
        print_table([str(design), *numbers, "by", "verdict"], rows)
    print()
    told = {
        BY_SEEDS: f"no more than two seeds differ, by the spread of designs with {ENOUGH} or more",
        BY_SEEN: "what two trainings of one seed were once seen to differ by",
    }
    for by in table.loc[table["allowed"].notna(), "by"].unique():
        console.print(f"allowed by {by}: {told[by]}")
    counts = table["verdict"].value_counts()
    console.print(", ".join(f"{counts[v]} {v}" for v in ("agrees", "differs", "not judged", "missing") if v in counts))
