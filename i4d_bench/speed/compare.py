"""`i4d-bench compare`: two stored speed runs of one machine, row by row.

Reads what `pytest --benchmark-only --benchmark-json=FILE` wrote, or the speed.json of `i4d-bench speed`. A kernel's time is its
median on the device; a stage's or a frame's is the median wall clock, which its user waits for. The ratio is new over base. Where
a row knows how near it is to the roof, which was measured in its own run, there is a second ratio, free of the clock rate that the
machine happened to have. A row is slower when both are over the threshold: neither a low clock nor a high roof alarms alone.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from i4d_bench.speed import suite
from i4d_bench.speed.keys import of_roof
from i4d_bench.types import UserError


@dataclass
class Run:
    """rows: by key (DESIGN §7), those alone that count."""

    kind: str
    machine: dict[str, Any]
    software: dict[str, Any]
    rows: dict[str, dict[str, Any]]


def main(base: Path, new: Path, threshold: float) -> int:
    """Prints the table; 1 if a row of `new` is slower, else 0. Raises UserError where the two cannot be compared."""
    a, b = read(base), read(new)
    table = compare(a, b)
    for name, run in (("base", a), ("new", b)):
        print(f"{name}: {', '.join(f'{k} {v}' for k, v in run.software.items())}")
    shown = table.astype(object).where(table.notna(), None)
    digits = ("", ".4f", ".4f", ".3f", ".3f", ".3f")
    print(f"\n{shown.to_markdown(index=False, floatfmt=digits, missingval='')}\n")
    for name, only in (("new", b.rows.keys() - a.rows.keys()), ("missing", a.rows.keys() - b.rows.keys())):
        if only:
            print(f"{name}: {', '.join(sorted(only))}")
    slower = table[table["counts"] > threshold]
    if not len(slower):
        print(f"none of {len(table)} rows takes more than {threshold:g} times as long")
        return 0
    named = ", ".join(f"{row.key} ({row.counts:.2f}×)" for row in slower.itertuples())
    print(f"i4d-bench: {len(slower)} of {len(table)} take over {threshold:g} times as long: {named}", file=sys.stderr)
    return 1


def compare(base: Run, new: Run) -> pd.DataFrame:
    """Rows that both have, slowest first. `counts` is the smaller ratio. Raises UserError."""
    if base.kind != new.kind:
        raise UserError(f"a file of {base.kind} and one of {new.kind} were not measured alike: compare two of one kind")
    for what, value in base.machine.items():
        if new.machine[what] != value:
            raise UserError(f"measured on different hardware ({what}: {value} and {new.machine[what]}): not comparable")
    rows = []
    for key in base.rows.keys() & new.rows.keys():
        a, b = base.rows[key], new.rows[key]
        ms = "ms" if key.startswith("kernel/") else "host_ms"
        ratio, near = b[ms] / a[ms], None
        if a.get("of_roof") and all(a[k] == b.get(k) for k in ("bytes", "flops")):  # else the op itself has changed
            near = a["of_roof"] / b["of_roof"]
        rows.append((key, a[ms], b[ms], ratio, near, min(ratio, near or ratio)))
    if not rows:
        raise UserError("the two runs have no row in common")
    columns = ["key", "base (ms)", "new (ms)", "ratio", "of roof", "counts"]
    return pd.DataFrame(rows, columns=columns).sort_values(["counts", "key"], ascending=[False, True])


def read(path: Path) -> Run:
    """Raises UserError for what is no stored run of this suite, or one of another version."""
    try:
        content = json.loads(path.read_text())
        bench = "benchmarks" in content
        info = content["machine_info"] if bench else content
        schema, environment, roof = info["schema"], info if bench else info["environment"], info["roof"]
        if bench:
            rows = {b["extra_info"]["key"]: b["extra_info"] for b in content["benchmarks"]}
            machine = {"hardware": info["hardware"], "gpu": info["gpu"], "cpu": info["cpu"].get("brand_raw")}
        else:
            good = {k: r for k, r in content["rows"].items() if r["status"] == "ok"}
            rows = {k: r | {"of_roof": of_roof(r, roof)} for k, r in good.items()}
            machine = {"hardware": environment["hardware"]}
        software = {"commit": environment["commit"]} | environment["versions"]
        if environment["dirty"]:
            software["commit"] += " with local changes"
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{path} is neither a --benchmark-json file of this suite nor a speed.json") from e
    if schema != suite.SCHEMA:
        raise UserError(f"{path} was written by another version of this suite: measure it again")
    return Run("pytest-benchmark" if bench else "i4d-bench speed", machine, software, rows)
