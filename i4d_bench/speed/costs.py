"""The table of costs: every design at the paper's scale, by torch's own counter."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import pandas as pd

from i4d_bench import outputs
from i4d_bench.cache import atomic_file
from i4d_bench.config import presets
from i4d_bench.progress import track
from i4d_bench.speed import rig
from i4d_bench.speed.cost import Cost, cost
from i4d_bench.speed.plan import Plan, everything

N = Plan().gaussians
COLUMNS = ("design", "family", *(f.name for f in fields(Cost)))


def costs(entries: tuple[str, ...] = ()) -> pd.DataFrame:
    """Of every design at the paper's scale, one identity and one frame, by torch's own counter on the CPU."""
    rows, base = [], presets.gpu()
    entries = tuple(dict.fromkeys(d for e in entries or ("all",) for d in (everything() if e == "all" else (e,))))
    for entry in track(entries, "costs", len(entries)):
        r = rig.rig(entry, N, 64, frames=1, base=base)
        spent = cost(r.fusion, r.identity, r.source, r.driver(r.images[0]))
        rows.append({"design": entry, "family": r.fusion.family, **asdict(spent)})
    return pd.DataFrame(rows)


def write_costs(reports: Path, entries: tuple[str, ...] = ()) -> None:
    """Counts every design into costs.csv, or these alone, beside what it holds of others."""
    outputs.folder(reports)
    counted, path = costs(entries).to_dict("records"), reports / "costs.csv"
    if entries and path.exists():
        new = {r["design"] for r in counted}
        counted += [r for r in pd.read_csv(path).to_dict("records") if r["design"] not in new]
    with atomic_file(path) as partial:
        pd.DataFrame(sorted(counted, key=lambda r: r["design"]), columns=list(COLUMNS)).to_csv(partial, index=False)
