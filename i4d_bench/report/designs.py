"""docs/designs.md, from the designs' docstrings, `i4d-bench costs` and the stored speed reports; and the table of costs."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import pandas as pd

import variants
from i4d_bench import outputs
from i4d_bench.cache import atomic_file
from i4d_bench.report import search
from i4d_bench.report.tables import latest
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from i4d_bench.speed import rig
from i4d_bench.speed.costs import N
from i4d_bench.types import UserError

BASELINE, NEAR = "local_adaln", 0.2
"""Matched is what has about as many parameters, or at most about as many FLOPs per frame, within NEAR."""
COLUMNS = ("parameters", "GFLOP per frame", "fusion and Φ, ms", "frames per second", "self LPIPS ↓", "self gap, dB ↑")
HEAD = """# The designs

Written by `i4d-bench docs` from the designs' own docstrings and what is stored in reports/; do not edit. All designs share the
encoder, f, m, Φ, the renderer, the driver and the batches: only how the driving code meets the Gaussians differs.
c = [M(source); M(driving)].

*Local* here means: what a Gaussian becomes depends on its own m_i and f_i, and on the code, alone. By that word
`global_cross_attention` is local, too: its attention is global over the motion tokens, not over the Gaussians. In the other
`global_*` designs a change of one Gaussian or of one place in the planes reaches others (tests pin both).

Milliseconds and frames: the speed report at the paper's scale, the fastest mode. LPIPS and the driving gap: the GPU preset on the
embedded world, held-out people driven by their own expressions.

"""


def matched(costs: pd.DataFrame) -> dict[str, str]:
    """By what each design is matched to BASELINE: parameters, FLOPs, or nothing."""
    of = costs.set_index("design")
    out = {}
    for name, row in of.iterrows():
        params, flops = (row[k] / of.loc[BASELINE, k] for k in ("params", "flops_frame"))
        near = "parameters" if abs(params - 1) <= NEAR else "FLOPs" if flops <= 1 + NEAR else ""
        out[name] = near if params else ""
    return out


def read_costs(reports: Path) -> pd.DataFrame:
    path = reports / "costs.csv"
    if not path.exists():
        raise UserError(f"{path} is missing: run `i4d-bench costs`")
    return pd.read_csv(path)


def table(costs: pd.DataFrame) -> str:
    """Both matchings side by side."""
    by, base = matched(costs), costs.set_index("design").loc[BASELINE]
    shown = pd.DataFrame({
        "design": costs["design"], "family": costs["family"], "parameters": costs["params"].map("{:,}".format),
        "of local_adaln": (costs["params"] / base["params"]).map("{:.2f}×".format),
        "GFLOP per identity": (costs["flops_identity"] / 1e9).map("{:.2f}".format),
        "GFLOP per frame": (costs["flops_frame"] / 1e9).map("{:.2f}".format),
        "of local_adaln's": (costs["flops_frame"] / base["flops_frame"]).map("{:.2f}×".format),
        "activations (MiB)": (costs["memory"] / 2**20).map("{:,.0f}".format), "matched by": costs["design"].map(by.__getitem__),
    })  # fmt: skip
    return shown.to_markdown(index=False, disable_numparse=True, colalign=("left", "left", *["right"] * 6, "left"))


def build(reports: Path, to: Path) -> None:
    """Writes `to`. Raises UserError where there are no costs."""
    to = outputs.file(to)
    costs, speed = read_costs(reports), _speed(reports)
    counted = f"{N:,} Gaussians, one identity, one frame, in plain torch, Φ included where a design calls it."
    trained, searched = _trained(reports), _searched(reports)
    sections = [
        _section(n, costs.set_index("design"), speed, trained.get(n), searched.get(n)) for n in variants.names()
    ]
    parts = [HEAD, "## Costs\n\n", counted, "\n\n", table(costs), "\n\n", *sections]
    with atomic_file(to) as path:
        path.write_text("".join(parts).rstrip() + "\n")


def _section(
    name: str, costs: pd.DataFrame, speed: dict[str, dict], trained: Record | None, arms: search.Arms | None
) -> str:
    cls = variants.design(name)
    title, _, text = (sys.modules[cls.__module__].__doc__ or "").partition("\n")
    lines = [f"## {name}", "", f"*{cls.family}* · {title}", "", f"    {inspect.getdoc(cls)}", "", text.strip("\n"), ""]
    lines += [f"| | {' | '.join(COLUMNS)} |", "|---" + "|---:" * len(COLUMNS) + "|"]
    for entry in (n for n in costs.index if n.partition("@")[0] == name):
        row = costs.loc[entry]
        timed = [_fastest(speed, stage, entry) for stage in ("fusion", "frame")]
        shown = (lambda row: f"{row['ms']:.3f}", lambda row: f"{row['fps']:,.0f}")
        cells = [f"{show(t[1])} ({t[0]})" if t else "" for show, t in zip(shown, timed, strict=True)]
        mine = trained if entry == name else None
        cells += [_score(mine, "lpips_alex", 3), _score(mine, "gap", 2)]
        label = "published sizes" if "@" in entry else "as compared"
        lines.append(f"| {label} | {row['params']:,} | {row['flops_frame'] / 1e9:.2f} | {' | '.join(cells)} |")
    lines += ["", onset(trained, arms)] if trained or arms else []
    return "\n".join([*lines, "", ""])


def _score(trained: Record | None, metric: str, digits: int) -> str:
    """Of the self set; empty where it was not measured."""
    found = trained and trained.metrics.get("self", {}).get(metric)
    return f"{found['mean']:.{digits}f}" if found else ""


def onset(trained: Record | None, arms: search.Arms | None) -> str:
    """When a design starts to follow the driver and what decided that."""
    text = "**Onset.** "
    if trained and trained.family == "control":
        return text + "Never: the control."
    if trained:
        after, ended = trained.curve[-1]["step"], trained.curve[-1]["gap"]
        start = f"by step {trained.onset['step']} ({trained.onset['seconds']:.0f} s)" if trained.onset else "not"
        text += f"On the GPU preset it follows the driver {start}; after {after} steps the validation gap is {ended:.2f} dB. "
    return text + (search.decided(arms) if arms else "It has nothing of its own to learn, so nothing to search.")


def _trained(reports: Path) -> dict[str, Record]:
    """Runs of the GPU preset on the embedded world; empty where there are none."""
    found = sorted(reports.glob("gpu-*-procedural-oracle/runs"))
    return latest(Store(found[0].parent)) if found else {}


def _searched(reports: Path) -> dict[str, search.Arms]:
    found = sorted(reports.glob("ablation-search-gpu-*-procedural-oracle/runs"))
    return search.arms(Store(found[0].parent)) if found else {}


def _speed(reports: Path) -> dict[str, dict]:
    """Rows of the speed report at N Gaussians and 512²; empty where there is none."""
    found = sorted(reports.glob(f"speed-*-n{N}-r512/speed.json"))
    return json.loads(found[0].read_text())["rows"] if found else {}


def _fastest(rows: dict[str, dict], stage: str, entry: str) -> tuple[str, dict] | None:
    """Mode and row of the fastest that is right, at the base point."""
    tail = f"/b1/n{N}" + ("/r512" if stage == "frame" else "")
    of = {m: rows[k] for m in rig.MODES if (k := f"{stage}/{entry}/{m}{tail}") in rows and rows[k]["status"] == "ok"}
    return min(of.items(), key=lambda item: item[1]["ms"]) if of else None
