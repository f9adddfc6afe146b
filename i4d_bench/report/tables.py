"""Tables from a store alone: the main table and the further test sets, as .csv (all numbers) and .md (rounded; best and not
significantly worse in bold, where that can be told)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from i4d_bench.data.splits import UNSEEN
from i4d_bench.report import appendix, pairs, paper
from i4d_bench.report.columns import METRICS, Column, cost_columns, metric_column, reference_rows
from i4d_bench.report.notes import gone, notes
from i4d_bench.report.rows import BLOCKS, Row, rows
from i4d_bench.report.speeds import Speeds
from i4d_bench.report.writing import write_text
from i4d_bench.results.store import Store

SHOWN = ("lpips_alex", "psnr", "ssim", "csim_dlib", "csim_mobileface", "aed_true", "aed_mp52", "gap", "l1_eyes", "l1_mouth",
         "lpips_eyes", "lpips_mouth", "floaters")  # fmt: skip
MAIN = {"self": SHOWN, "cross": SHOWN, f"{UNSEEN}self": SHOWN, f"{UNSEEN}cross": SHOWN}


def main_table(store: Store, speeds: Speeds | None) -> tuple[list[Column], dict[str, Row]]:
    designs, measured = rows(store), store.measured
    sets = _of_these_people(MAIN, measured.samples)
    quality = [metric_column(designs, set_, m, measured) for set_ in sets for m in MAIN[set_]]
    return [*quality, *cost_columns(designs, speeds)], designs


def _of_these_people(sets: Iterable[str], samples: pd.DataFrame) -> list[str]:
    """Without those of unseen people where nobody was kept out of training."""
    return [s for s in sets if not s.startswith(UNSEEN) or s in set(samples["set"])]


def sets_table(store: Store) -> tuple[list[Column], dict[str, Row]]:
    designs, measured = rows(store), store.measured
    sets = _of_these_people(("recon", f"{UNSEEN}recon", "novel", "extreme"), measured.samples)
    # the gap of a source that drives itself is 0 by definition
    shown = [(s, m) for s in sets for m in METRICS if m != "gap" or not s.endswith("recon")]
    shown.append(("cross", "leak_driver"))
    return [metric_column(designs, s, m, measured) for s, m in shown], designs


def write(folder: Path, name: str, columns: list[Column], designs: dict[str, Row], under: list[str]) -> None:
    """NAME.csv and NAME.md. Columns with no number at all are left out of the printed ones and named below."""
    shown = [c for c in columns if not c.empty]
    heads = ["design", *(c.head for c in shown)]
    md = ["| " + " | ".join(heads) + " |", "|" + "---|" + "---:|" * len(shown)]
    block = next((row.block for row in designs.values()), "fair")
    for d, row in designs.items():
        if row.block != block:
            block = row.block
            md.append(f"| *{BLOCKS[block]}:* |" + " |" * len(shown))
        cells = [c.printed(d) for c in shown]
        bold = [bool(t) and d in c.bold for t, c in zip(cells, shown, strict=True)]
        md.append(
            f"| {d}{row.mark} | " + " | ".join(f"**{t}**" if b else t for t, b in zip(cells, bold, strict=True)) + " |"
        )
    for known_name in reference_rows(shown):
        cells = [c.text(c.references.get(known_name, np.nan)) for c in shown]
        md.append(f"| *{known_name}* | " + " | ".join(cells) + " |")
    numbers = in_numbers(columns, designs)
    write_text(folder / f"{name}.csv", numbers.to_csv(index=False, float_format="%.6g"))
    write_text(folder / f"{name}.md", "\n".join([*md, "", *(f"{line}  " for line in under)]) + "\n")


def in_numbers(columns: list[Column], designs: dict[str, Row]) -> pd.DataFrame:
    """A row per design and reference, a column per mean; where 95% intervals are known two more, its name with _low and _high."""
    known = reference_rows(columns)
    out: dict[str, list[Any]] = {
        "design": [*designs, *known],
        "status": [*(row.status for row in designs.values()), *("reference" for _ in known)],
        "block": [*(row.block for row in designs.values()), *("reference" for _ in known)],
    }
    for c in columns:
        out[c.name] = [*c.values.values(), *(c.references.get(n, np.nan) for n in known)]
        if any(np.isfinite(i.lo) for i in c.intervals.values()):
            between = [(i.lo, i.hi) if (i := c.intervals.get(d)) else (np.nan, np.nan) for d in (*designs, *known)]
            out[f"{c.name}_low"], out[f"{c.name}_high"] = map(list, zip(*between, strict=True))
    return pd.DataFrame(out)


def compute(store: Store, speeds: Speeds | None) -> tuple[dict[str, list[Column]], dict[str, Row], list[str]]:
    """The main and the sets table by their titles, their rows, and the notes."""
    columns, designs = main_table(store, speeds)
    under = notes(designs, len(set(store.samples["identity"])), store.left_out, speeds) + gone(store, designs)
    return {"Self- and cross-reenactment": columns, "Other test sets": sets_table(store)[0]}, designs, under


def write_all(
    store: Store, speeds: Speeds | None, baseline: str | None, found: pd.DataFrame
) -> tuple[dict[str, list[Column]], dict[str, Row], list[str]]:
    """Writes every table, paper.tex and appendix.tex among them; returns what `compute` does. found: differences from the baseline
    (`pairs.pairs`)."""
    tables, designs, under = compute(store, speeds)
    columns, more = tables.values()
    write(store.folder, "main", columns, designs, under)
    write(store.folder, "sets", more, designs, [])
    pairs.write(store.folder, baseline, found)
    if designs:
        paper.write(store, columns, designs, speeds, baseline)
        appendix.write(store.folder, [*columns, *more], designs, under, (baseline, found))
    return tables, designs, under
