"""The table of costs: every design at the paper's scale, by torch's own counter."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from i4d_bench import outputs
from i4d_bench.cache import atomic_file
from i4d_bench.config import presets
from i4d_bench.progress import track
from i4d_bench.speed import rig
from i4d_bench.speed.cost import cost
from i4d_bench.speed.plan import Plan, everything

N = Plan().gaussians


def costs(entries: tuple[str, ...] = ()) -> pd.DataFrame:
    """Of every design at the paper's scale, one identity and one frame, by torch's own counter on the CPU."""
    rows, base = [], presets.gpu()
    entries = entries or everything()
    for entry in track(entries, "costs", len(entries)):
        r = rig.rig(entry, N, 64, frames=1, base=base)
        spent = cost(r.fusion, r.identity, r.source, r.driver(r.images[0]))
        rows.append({"design": entry, "family": r.fusion.family, **asdict(spent)})
    return pd.DataFrame(rows)


def write_costs(reports: Path) -> None:
    outputs.folder(reports)
    with atomic_file(reports / "costs.csv") as path:
        costs().to_csv(path, index=False)
