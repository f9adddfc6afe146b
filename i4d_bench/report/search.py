"""The report of the ablations `search` and `finals`: for every design, the validation gap that each arm reached, and the best."""

from __future__ import annotations

from typing import Any

import numpy as np

from i4d_bench.config.ablations import BEST, BEYOND, RATES, STARTS
from i4d_bench.evaluate.gap import ONSET_DB
from i4d_bench.report import appendix, search_figure
from i4d_bench.report.columns import Column
from i4d_bench.report.notes import conditions
from i4d_bench.report.rows import Row, onset, rows
from i4d_bench.report.search_figure import Arms
from i4d_bench.report.tables import write
from i4d_bench.report.writing import write_text
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from variants.base import parse

NOTHING = 0.1
"""dB that decide nothing."""


def arms(store: Store) -> dict[str, Arms]:
    """The runs of every design that was searched, families together."""
    out: dict[str, Arms] = {}
    for entry, row in rows(store).items():
        name, settings = parse(entry)
        rate, start = settings.pop("lr", None), _start(settings)
        if rate is not None and start is not None:
            own = ",".join(f"{k}={v}" for k, v in settings.items() if k not in STARTS[start])
            out.setdefault(f"{name}@{own}" if own else name, {})[rate, start] = row.last
    return out


def _start(settings: dict[str, Any]) -> str | None:
    """The start with the most settings that these have."""
    found = [name for name, start in STARTS.items() if start.items() <= settings.items()]
    return max(found, key=lambda name: len(STARTS[name]), default=None)


def gap(record: Record) -> float:
    """At the end of training, dB; NaN for a failed run."""
    return record.curve[-1]["gap"] if record.curve and record.status != "failed" else np.nan


def best(arms: Arms) -> tuple[float, str]:
    """The arm with the largest gap."""
    return ranked(arms)[0]


def ranked(arms: Arms) -> list[tuple[float, str]]:
    """Arms by their gaps, the largest first."""
    return sorted(arms, key=lambda arm: np.nan_to_num(gap(arms[arm]), nan=-np.inf), reverse=True)


def finalists(arms: Arms) -> list[str]:
    """Designs as lists write them: the best arms, and the next rate beyond them where the best is at an end of the rates."""
    chosen = [arms[arm].design for arm in ranked(arms)[:BEST]]
    rate, start = best(arms)
    beyond = BEYOND.get(rate)
    if beyond is not None and (beyond, start) not in arms:
        chosen.append(chosen[0].replace(f"lr={rate}", f"lr={beyond}"))
    return chosen


def decided(arms: Arms) -> str:
    """What the gap depended on, the rate or the scale, by what the other value reached at best; and the first onset."""
    ended = {arm: r for arm, r in arms.items() if np.isfinite(gap(r))}
    if not ended:
        return "Every setting of the search failed."
    (rate, start), steps = best(ended), max(c["step"] for r in ended.values() for c in r.curve)
    top, costs = gap(arms[rate, start]), {}
    for k, called in enumerate(("rate", "start")):
        others = [gap(r) for arm, r in ended.items() if arm[k] != (rate, start)[k]]
        if others:
            costs[called] = top - max(others)
    onsets = {arm: step for arm, r in ended.items() if (step := onset(r)) is not None}
    first = [arm for arm in onsets if onsets[arm] == min(onsets.values())]
    out = [f"In the search ({steps} steps) the gap ended at {top:.2f} dB with lr {rate:g} and the start {start}"]
    larger = sorted(costs, key=lambda factor: costs[factor], reverse=True)
    if larger and costs[larger[0]] > NOTHING:
        out.append(
            "with any other "
            + " and with any other ".join(f"{called} at most {top - costs[called]:.2f}" for called in larger)
        )
        out.append(f"so the {larger[0]} decided more")
    elif larger:
        out.append(f"the best at another rate or start came within {NOTHING} dB")
    text = "; ".join(out) + "."
    if not first:
        return text + f" No setting passed {ONSET_DB} dB by then."
    which = (
        "lr {:g} with the start {}".format(*first[0]) if len(first) == 1 else f"{len(first)} of {len(arms)} settings"
    )
    return text + f" First to follow, by step {onsets[first[0]]}: {which}."


def write_search(store: Store) -> tuple[dict[str, list[Column]], dict[str, Row], list[str]]:
    """Writes main.csv, .md, appendix.tex, search.pdf, .png and finals.txt, the arms for `--ablation finals`; returns what
    `compute` does."""
    tables, best_runs, under = compute(store)
    ((title, columns),), found = tables.items(), arms(store)
    write(store.folder, "main", columns, best_runs, under)
    finals = [entry for runs in found.values() for entry in finalists(runs)]
    write_text(store.folder / "finals.txt", "\n".join(finals) + "\n")
    appendix.write(store.folder, columns, best_runs, under, title=title)
    search_figure.draw(store.folder, {name: (runs, best(runs)) for name, runs in found.items()})
    return tables, best_runs, under


def compute(store: Store) -> tuple[dict[str, list[Column]], dict[str, Row], list[str]]:
    """The table by its title, each design's best run, and the notes."""
    found = arms(store)
    chosen = {name: best(runs) for name, runs in found.items()}
    records = {name: runs[chosen[name]] for name, runs in found.items()}
    columns = []
    for arm in sorted({arm for runs in found.values() for arm in runs}):
        gaps = {n: gap(runs[arm]) if arm in runs else np.nan for n, runs in found.items()}
        columns.append(Column("lr {:g}, {}".format(*arm), gaps, 2, frozenset(n for n in found if chosen[n] == arm)))
    steps = {n: np.nan if (step := onset(r)) is None else step for n, r in records.items()}
    columns.append(Column("onset of the best (steps)", steps, 0))
    under = _notes(store, found, records)
    best_runs = {n: Row((r,)) for n, r in records.items()}
    return {"Driving gap on validation (dB)": columns}, best_runs, under


def _notes(store: Store, found: dict[str, Arms], records: dict[str, Record]) -> list[str]:
    if not records:
        return []
    every = store.records
    steps = max((c["step"] for r in every for c in r.curve), default=0)
    out = [
        f"{conditions(every)}.",
        f"Driving gap on the validation people after {steps} steps, dB; bold: the best, which is taken.",
        "lr: the design's own, the backbone's is the same for all. Starts: silent, at the canonical avatar; own, as it is by "
        "default; deaf, silent to the driver alone.",
    ]
    late = [n for n, r in records.items() if r.status == "did not start"]
    out += [f"† The best setting did not pass {ONSET_DB} dB: {', '.join(late)}."] if late else []
    out += [f"{r.design}: failed ({r.why})." for r in every if r.status == "failed"]
    # what the finals do not try again, the search had tried
    rates = {n: sorted({*RATES, *(lr for lr, _ in runs)}) for n, runs in found.items()}
    for where, k in (("smallest", 0), ("largest", -1)):
        at_end = [n for n, lrs in rates.items() if best(found[n])[0] == lrs[k]]
        out += [f"Best at the {where} rate tried, so perhaps better beyond it: {', '.join(at_end)}."] if at_end else []
    wanted = max(every, key=lambda r: r.created).config.get("designs", ())
    missing = set(wanted) - {r.design for r in every}
    return out + ([f"Not finished: {len(missing)} of {len(wanted)} runs are missing."] if missing else [])
