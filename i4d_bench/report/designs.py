"""docs/designs.md, from the designs' docstrings, `i4d-bench costs` and the stored speed reports; and the table of costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import variants
from i4d_bench import outputs, reading
from i4d_bench.cache import atomic_file
from i4d_bench.report import baseline as baselines
from i4d_bench.report import search
from i4d_bench.report.rows import ORDER, Row, rows
from i4d_bench.report.rows import onset as started
from i4d_bench.report.speeds import Speeds, inside
from i4d_bench.results.environment import code_of
from i4d_bench.results.store import Store
from i4d_bench.speed import rig
from i4d_bench.speed.costs import COLUMNS as COSTS
from i4d_bench.speed.costs import N

NEAR = 0.2
"""Matched is what has about as many parameters, or at most about as many FLOPs per frame, within NEAR."""
TRAINED, SEARCHED = "gpu-*-procedural-*", "ablation-search-gpu-*-procedural-*"
"""Folders whose newest the page quotes."""
COLUMNS = ("parameters", "GFLOP per frame", "fusion and Φ, ms", "FPS", "self LPIPS ↓", "self gap, dB ↑")
HEAD = """# The designs

Written by `i4d-bench docs` from the designs' own docstrings and what is stored in reports/; do not edit. All designs share the
encoder, f, m, Φ, the renderer, the driver and the batches: only how the driving code meets the Gaussians differs.
c = [M(source); M(driving)].

*Local* here means: what a Gaussian becomes depends on its own m_i and f_i, and on the code, alone. By that word
`global_cross_attention` is local, too: its attention is global over the motion tokens, not over the Gaussians. In the other
`global_*` designs a change of one Gaussian or of one place in the planes reaches others (tests pin both).

Costs are of today's code; times and scores are of the commits that are named, and a design may have changed since.
Milliseconds: the speed report at the paper's scale, the fastest mode. FPS: {fps}.
LPIPS and the driving gap: the GPU preset on the embedded world, held-out people driven by their own expressions, means over
the seeds; {trained}.
The search: {searched}. Its starts: `silent` at the canonical avatar, `own` the design's default, `deaf` silent to the driver alone.

"""


def baseline_of(costs: pd.DataFrame, wanted: str | None = None) -> str | None:
    """What the others' costs are compared with (`baseline.pick`, of those that were counted). Raises UserError."""
    return baselines.pick({r["design"]: r["family"] for r in costs.to_dict("records") if r["params"] >= 0}, wanted)


def matched(costs: pd.DataFrame, baseline: str | None) -> dict[str, str]:
    """By what each design is matched to the baseline: parameters, FLOPs, or nothing."""
    of = {r["design"]: r for r in costs.to_dict("records")}
    out = {}
    for name, row in of.items():
        out[name] = ""
        if baseline is not None and row["params"] > 0:
            params, flops = (_share(row[k], of[baseline][k]) for k in ("params", "flops_frame"))
            out[name] = "parameters" if abs(params - 1) <= NEAR else "FLOPs" if flops <= 1 + NEAR else ""
    return out


def read_costs(reports: Path) -> pd.DataFrame:
    """What `i4d-bench costs` counted; empty where it has not."""
    path = reports / "costs.csv"
    if not path.exists():
        return pd.DataFrame(columns=list(COSTS))
    return reading.table(path, COSTS)


def listed(costs: pd.DataFrame, designs: Sequence[str]) -> pd.DataFrame:
    """The costs of these designs and of all their sizes; a design that was not counted has a row without numbers."""
    rows, counted = [], costs.to_dict("records")
    for name in designs:
        own = [r for r in counted if r["design"].partition("@")[0] == name]
        rows += own or [{"design": name, "family": variants.design(name).family}]
    return pd.DataFrame(rows, columns=list(COSTS))


def table(costs: pd.DataFrame, baseline: str | None) -> str:
    """Both matchings side by side."""
    by, rows = matched(costs, baseline), costs.to_dict("records")
    of = {r["design"]: r for r in rows}

    def column(form: str, key: str, unit: float = 1.0) -> list[str]:
        return [_cell(form, _share(r[key], unit)) for r in rows]

    def share(key: str) -> list[str]:
        return column("{:.2f}×", key, of[baseline][key]) if baseline else []

    columns = {
        "design": [r["design"] for r in rows],
        "family": [r["family"] for r in rows],
        "parameters": column("{:,.0f}", "params"),
        f"of {baseline}": share("params"),
        "GFLOP per identity": column("{:.2f}", "flops_identity", 1e9),
        "GFLOP per frame": column("{:.2f}", "flops_frame", 1e9),
        f"of {baseline}'s": share("flops_frame"),
        "activations (MiB)": column("{:,.0f}", "memory", 2**20),
        "matched by": [by[r["design"]] for r in rows] if baseline else [],
    }
    shown = pd.DataFrame({head: cells for head, cells in columns.items() if cells})
    align = ["left" if head in ("design", "family", "matched by") else "right" for head in shown]
    return shown.to_markdown(index=False, disable_numparse=True, colalign=align)


def _share(number: float, of: float) -> float:
    """NaN of nothing, as the control's parameters are."""
    return number / of if of else np.nan


def _cell(form: str, number: float) -> str:
    """Empty where nothing was counted."""
    return "" if np.isnan(number) else form.format(number)


def write_page(reports: Path, to: Path, baseline: str | None = None, designs: Sequence[str] = ()) -> None:
    """Writes `to`, with every registered design unless some are named, in the tables' order. Raises UserError where the baseline
    was not counted."""
    to, designs = outputs.file(to), sorted(designs or variants.names(), key=_place)
    costs, speeds = listed(read_costs(reports), designs), next(iter(inside(reports)), None)
    counted = f"{N:,} Gaussians, one identity, one frame, in plain torch, Φ included where a design calls it."
    if not all(p >= 0 for p in costs["params"]):
        counted += " What has no numbers was not counted yet: `i4d-bench costs`."
    of_runs, of_search = _newest(reports, TRAINED), _newest(reports, SEARCHED)
    head = HEAD.format(
        fps=speeds.about() if speeds else "none were measured yet (`i4d-bench speed`)",
        trained=_named(of_runs),
        searched=_named(of_search),
    )
    trained = rows(of_runs) if of_runs else {}
    searched = search.arms(of_search) if of_search else {}
    counts = costs.to_dict("records")
    own = {n: [r for r in counts if r["design"].partition("@")[0] == n] for n in designs}
    sections = [_section(n, own[n], speeds, trained.get(n), searched.get(n)) for n in designs]
    parts = [head, "## Costs\n\n", counted, "\n\n", table(costs, baseline_of(costs, baseline)), "\n\n", *sections]
    with atomic_file(to) as path:
        path.write_text("".join(parts).rstrip() + "\n", encoding="utf-8")


def _place(design: str) -> tuple[int, str]:
    return ORDER.get(variants.design(design).family, len(ORDER)), design


def _section(name: str, costs: list[dict], speeds: Speeds | None, trained: Row | None, arms: search.Arms | None) -> str:
    title, diagram, text = variants.about(name)
    lines = [f"## {name}", "", f"*{variants.design(name).family}* · {title}", "", f"    {diagram}", "", text, ""]
    lines += [f"| | {' | '.join(COLUMNS)} |", "|---" + "|---:" * len(COLUMNS) + "|"]
    for row in costs:
        entry = row["design"]
        cells = [_fusion(speeds, entry), _cell("{:,.0f}", speeds.fps(entry) if speeds else np.nan)]
        mine = trained if entry == name else None
        cells += [_score(mine, "lpips_alex", 3), _score(mine, "gap", 2)]
        settings = entry.partition("@")[2]
        label = "published sizes" if settings == "native" else settings or "as compared"
        counted = [_cell("{:,.0f}", row["params"]), _cell("{:.2f}", row["flops_frame"] / 1e9)]
        lines.append(f"| {label} | {' | '.join(counted + cells)} |")
    lines += ["", onset(trained, arms)] if trained or arms else []
    return "\n".join([*lines, "", ""])


def _score(trained: Row | None, metric: str, digits: int) -> str:
    """Of the self set, a mean over the seeds; empty where it was not measured."""
    found = trained.mean(lambda r: r.metrics.get("self", {}).get(metric, {}).get("mean")) if trained else np.nan
    return _cell(f"{{:.{digits}f}}", found)


def onset(trained: Row | None, arms: search.Arms | None) -> str:
    """When a design starts to follow the driver and what decided that."""
    text = "**Onset.** "
    if trained and trained.family == "control":
        return text + "Never: the control."
    if trained:
        text += f"On the GPU preset ({_seeds(trained)}) it follows the driver {_started(trained)}; "
        after, ended = trained.last.curve[-1]["step"], trained.mean(lambda r: r.curve[-1]["gap"])
        text += f"after {after} steps the validation gap is {ended:.2f} dB. "
    return text + (search.decided(arms) if arms else "It has nothing of its own to learn, so nothing to search.")


def _seeds(trained: Row) -> str:
    return f"{len(trained.runs)} seeds" if len(trained.runs) > 1 else f"seed {trained.seeds[0]} alone"


def _started(trained: Row) -> str:
    """By which validation each of the seeds had."""
    steps = sorted(step for r in trained.runs if (step := started(r)) is not None)
    if not steps:
        return "not"
    by = f"by step {' to '.join(map(str, dict.fromkeys((steps[0], steps[-1]))))}"
    return by if len(steps) == len(trained.runs) else f"{by} in {len(steps)} of them"


def _newest(reports: Path, pattern: str) -> Store | None:
    """The report with the newest record."""
    stores = [store for runs in reports.glob(f"{pattern}/runs") if (store := Store(runs.parent)).records]
    return max(stores, key=lambda store: max(r.created for r in store.records), default=None)


def _named(store: Store | None) -> str:
    """What was run, where and by which code."""
    if store is None:
        return "none was run yet"
    made = {(r.environment["hardware"], code_of(r.environment)) for r in store.records}
    return f"{store.folder.name} ({'; '.join(f'{hardware}, commit {code}' for hardware, code in sorted(made))})"


def _fusion(speeds: Speeds | None, entry: str) -> str:
    """Milliseconds of the fastest mode that is right, at the base point; empty where there is none."""
    rows = speeds.rows if speeds else {}
    of = {m: rows[k] for m in rig.MODES if (k := f"fusion/{entry}/{m}/b1/n{N}") in rows and rows[k]["status"] == "ok"}
    return min((row["ms"], f"{row['ms']:.3f} ({m})") for m, row in of.items())[1] if of else ""
