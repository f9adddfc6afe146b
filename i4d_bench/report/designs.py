"""docs/designs.md, from the designs' docstrings, `i4d-bench costs` and the stored speed reports; and the table of costs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import variants
from i4d_bench import outputs
from i4d_bench.cache import atomic_file
from i4d_bench.report import baseline as baselines
from i4d_bench.report import search
from i4d_bench.report.tables import latest
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from i4d_bench.speed import rig
from i4d_bench.speed.costs import COLUMNS as COSTS
from i4d_bench.speed.costs import N

NEAR = 0.2
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


def baseline_of(costs: pd.DataFrame, wanted: str | None = None) -> str | None:
    """What the others' costs are compared with (`baseline.pick`, of those that were counted). Raises UserError."""
    counted = costs[costs["params"].notna()]
    return baselines.pick(dict(zip(counted["design"], counted["family"], strict=True)), wanted)


def matched(costs: pd.DataFrame, baseline: str | None) -> dict[str, str]:
    """By what each design is matched to the baseline: parameters, FLOPs, or nothing."""
    of = costs.set_index("design")
    out = {}
    for name, row in of.to_dict("index").items():
        if baseline is None or not row["params"] > 0:
            out[name] = ""
            continue
        params, flops = (row[k] / float(of.at[baseline, k]) for k in ("params", "flops_frame"))
        out[name] = "parameters" if abs(params - 1) <= NEAR else "FLOPs" if flops <= 1 + NEAR else ""
    return out


def read_costs(reports: Path) -> pd.DataFrame:
    """What `i4d-bench costs` counted; empty where it has not."""
    path = reports / "costs.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(COSTS))


def listed(costs: pd.DataFrame, designs: Sequence[str]) -> pd.DataFrame:
    """The costs of these designs and of all their sizes; a design that was not counted has a row without numbers."""
    of = {d: costs[costs["design"].str.partition("@")[0] == d] for d in designs} if len(costs) else {}
    nothing = {
        d: pd.DataFrame([{"design": d, "family": variants.design(d).family}], columns=list(COSTS)) for d in designs
    }
    rows = [of[d] if d in of and len(of[d]) else nothing[d] for d in designs]
    return pd.DataFrame(pd.concat([r.astype(object) for r in rows], ignore_index=True))


def table(costs: pd.DataFrame, baseline: str | None) -> str:
    """Both matchings side by side."""
    by, base = (
        matched(costs, baseline),
        costs.set_index("design").loc[baseline] if baseline else dict.fromkeys(COSTS, np.nan),
    )
    shown = pd.DataFrame({
        "design": costs["design"], "family": costs["family"], "parameters": _cells(costs["params"], "{:,.0f}"),
        f"of {baseline}": _cells(costs["params"] / base["params"], "{:.2f}×"),
        "GFLOP per identity": _cells(costs["flops_identity"] / 1e9, "{:.2f}"),
        "GFLOP per frame": _cells(costs["flops_frame"] / 1e9, "{:.2f}"),
        f"of {baseline}'s": _cells(costs["flops_frame"] / base["flops_frame"], "{:.2f}×"),
        "activations (MiB)": _cells(costs["memory"] / 2**20, "{:,.0f}"), "matched by": costs["design"].map(by.__getitem__),
    })  # fmt: skip
    if baseline is None:
        shown = shown.drop(columns=[f"of {baseline}", f"of {baseline}'s", "matched by"])
    left = ("design", "family", "matched by")
    align = ["left" if c in left else "right" for c in shown]
    return shown.to_markdown(index=False, disable_numparse=True, colalign=align)


def _cells(numbers: Iterable[float], form: str) -> list[str]:
    """Formatted; empty where there is none."""
    return ["" if pd.isna(v) else form.format(v) for v in numbers]


def write_page(reports: Path, to: Path, baseline: str | None = None, designs: Sequence[str] = ()) -> None:
    """Writes `to`, with every registered design unless some are named. Raises UserError where the baseline was not counted."""
    to, designs = outputs.file(to), designs or variants.names()
    costs, speed = listed(read_costs(reports), designs), _speed(reports)
    counted = f"{N:,} Gaussians, one identity, one frame, in plain torch, Φ included where a design calls it."
    if pd.isna(costs["params"]).to_numpy().any():
        counted += " What has no numbers was not counted yet: `i4d-bench costs`."
    trained, searched = _trained(reports), _searched(reports)
    sections = [_section(n, costs.set_index("design"), speed, trained.get(n), searched.get(n)) for n in designs]
    parts = [HEAD, "## Costs\n\n", counted, "\n\n", table(costs, baseline_of(costs, baseline)), "\n\n", *sections]
    with atomic_file(to) as path:
        path.write_text("".join(parts).rstrip() + "\n", encoding="utf-8")


def _section(
    name: str, costs: pd.DataFrame, speed: dict[str, dict], trained: Record | None, arms: search.Arms | None
) -> str:
    title, diagram, text = variants.about(name)
    lines = [f"## {name}", "", f"*{variants.design(name).family}* · {title}", "", f"    {diagram}", "", text, ""]
    lines += [f"| | {' | '.join(COLUMNS)} |", "|---" + "|---:" * len(COLUMNS) + "|"]
    for entry in (n for n in costs.index if n.partition("@")[0] == name):
        row = costs.loc[entry]
        timed = [_fastest(speed, stage, entry) for stage in ("fusion", "frame")]
        shown = (lambda row: f"{row['ms']:.3f}", lambda row: f"{row['fps']:,.0f}")
        cells = [f"{show(t[1])} ({t[0]})" if t else "" for show, t in zip(shown, timed, strict=True)]
        mine = trained if entry == name else None
        cells += [_score(mine, "lpips_alex", 3), _score(mine, "gap", 2)]
        label = "published sizes" if "@" in entry else "as compared"
        counted = _cells(pd.Series([row["params"]]), "{:,.0f}") + _cells(
            pd.Series([row["flops_frame"] / 1e9]), "{:.2f}"
        )
        lines.append(f"| {label} | {' | '.join(counted + cells)} |")
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
    return json.loads(found[0].read_text(encoding="utf-8"))["rows"] if found else {}


def _fastest(rows: dict[str, dict], stage: str, entry: str) -> tuple[str, dict] | None:
    """Mode and row of the fastest that is right, at the base point."""
    tail = f"/b1/n{N}" + ("/r512" if stage == "frame" else "")
    of = {m: rows[k] for m in rig.MODES if (k := f"{stage}/{entry}/{m}{tail}") in rows and rows[k]["status"] == "ok"}
    return min(of.items(), key=lambda item: item[1]["ms"]) if of else None
