"""`i4d-bench compare`: two stored speed runs of one machine, row by row; the gate of the benchmark jobs.

Reads what `pytest --benchmark-only --benchmark-json=FILE` wrote, or the speed.json of `i4d-bench speed`.

A row that was timed before and now gives wrong output, has no time or is not there fails, whatever the row. A slower one fails
where the device bounds it (`decides`); the others, whose times are the host's and vary by its mood, are printed beside. A row is
slower when its median is over the threshold times the one before and each median lies outside the other's 5 to 95 % of rounds.
Where a row knows how near it is to the roof, which was measured in its own run, there is a second ratio, free of the clock rate
that the machine happened to have, and both must be over the threshold: neither a low clock nor a high roof alarms alone.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from i4d_bench.errors import UserError
from i4d_bench.printing import print_table
from i4d_bench.progress import console
from i4d_bench.speed import suite
from i4d_bench.speed.keys import of_roof

LOST = ("wrong", "vanished", "no time")
Verdict = Literal["", "slower", "faster", "wrong", "vanished", "no time", "new", "mended"]


@dataclass
class Run:
    """rows: by key (DESIGN §7), those that do not count too."""

    kind: str
    machine: dict[str, Any]
    software: dict[str, Any]
    rows: dict[str, dict[str, Any]]

    @property
    def on_a_cpu(self) -> bool:
        """By the hardware's name, which on a CPU ends with its cores (`results.environment.hardware_name`)."""
        return re.search(r"\dcores$", self.machine["hardware"]) is not None


@dataclass(frozen=True)
class Row:
    """One key of two runs. Times in ms, None where there is none; counts: the smaller ratio, which is judged."""

    key: str
    decides: bool
    verdict: Verdict
    base: float | None = None
    new: float | None = None
    ratio: float | None = None
    of_roof: float | None = None
    counts: float | None = None
    said: str = ""  # by a row without a time

    @property
    def fails(self) -> bool:
        return self.verdict in LOST or (self.verdict == "slower" and self.decides)


def main(base: Path, new: Path, threshold: float, as_json: bool = False) -> int:
    """Prints the rows; 1 if one fails, else 0. Raises UserError where the two runs cannot be compared."""
    a, b = read(base), read(new)
    rows = compare(a, b, threshold)
    failed = [row for row in rows if row.fails]
    if as_json:
        content = {
            "machine": a.machine,
            "base": a.software,
            "new": b.software,
            "threshold": threshold,
            "rows": [dataclasses.asdict(row) for row in rows],
            "failed": [row.key for row in failed],
        }
        print(json.dumps(content, indent=1))
    else:
        _print(a, b, rows)
    if failed:
        named = ", ".join(
            f"{row.key} ({row.verdict if row.verdict in LOST else f'{row.counts:.2f}×'})" for row in failed
        )
        print(
            f"i4d-bench: {len(failed)} of {len(rows)} rows fail at {threshold:g} times as long: {named}",
            file=sys.stderr,
        )
        return 1
    if not as_json:
        print(
            f"none of {sum(row.decides for row in rows)} rows that decide takes more than {threshold:g} times as long"
        )
    return 0


def _print(a: Run, b: Run, rows: list[Row]) -> None:
    for name, run in (("base", a), ("new", b)):
        console.print(
            f"{name}: {', '.join(f'{k} {v}' for k, v in run.software.items())}", highlight=False, markup=False
        )
    number = lambda value, digits: "" if value is None else f"{value:.{digits}f}"  # noqa: E731
    head = ("key", "base (ms)", "new (ms)", "ratio", "of roof", "verdict", "why")
    for decides, title in ((True, "rows that decide: bound by the device"), (False, "the others, for context")):
        table = [
            (r.key, number(r.base, 4), number(r.new, 4), number(r.ratio, 3), number(r.of_roof, 3), r.verdict, r.said)
            for r in rows
            if r.decides == decides
        ]
        if table:
            print(f"\n{title}\n")
            print_table(head, table, order=("key", "ratio", "verdict", "base (ms)", "new (ms)", "of roof", "why"))
    print()


def decides(key: str, on_a_cpu: bool) -> bool:
    """Whether the device bounds the row: kernels, and whole calls in a CUDA graph. On a CPU, kernels alone: what else there is
    spends its time in Python as well."""
    stage, _, mode = key.split("/")[:3]
    return stage == "kernel" or ("graph" in mode.split("+") and not on_a_cpu)


def compare(base: Run, new: Run, threshold: float) -> list[Row]:
    """Every row that one of the two has timed: what fails first, then the slowest. Raises UserError."""
    if base.kind != new.kind:
        raise UserError(f"a file of {base.kind} and one of {new.kind} were not measured alike: compare two of one kind")
    for what, value in base.machine.items():
        if new.machine[what] != value:
            raise UserError(f"measured on different hardware ({what}: {value} and {new.machine[what]}): not comparable")
    keys = sorted(base.rows.keys() | new.rows.keys())
    rows = [row for key in keys if (row := _judge(key, base.rows.get(key), new.rows.get(key), threshold, new.on_a_cpu))]
    if not any(row.ratio for row in rows):
        raise UserError("the two runs have no row in common")
    return sorted(rows, key=lambda row: (not row.fails, -(row.counts or math.inf)))


def _judge(
    key: str, a: dict[str, Any] | None, b: dict[str, Any] | None, threshold: float, on_a_cpu: bool
) -> Row | None:
    """None for a row that neither run has timed."""
    decisive = decides(key, on_a_cpu)
    ms = "ms" if decisive else "host_ms"
    before, now = _time(a, ms), _time(b, ms)
    if a is None or b is None or now is None or before is None:
        status = b["status"] if b else ""
        if now is not None:
            return Row(key, decisive, "mended" if a else "new", None, now)
        if status == "wrong" and (a or {}).get("status") != "wrong":
            return Row(key, decisive, "wrong", before, said=status)
        return None if before is None else Row(key, decisive, "no time" if b else "vanished", before, said=status)
    ratio, near = now / before, None
    if (
        a.get("of_roof") and b.get("of_roof") and all(a[k] == b.get(k) for k in ("bytes", "flops"))
    ):  # else the op has changed
        near = a["of_roof"] / b["of_roof"]
    counts = min(ratio, near or ratio)
    verdict: Verdict = ""
    if counts > threshold and (not decisive or _apart(a, b)):
        verdict = "slower"
    elif max(ratio, near or ratio) < 1 / threshold and (not decisive or _apart(b, a)):
        verdict = "faster"
    return Row(key, decisive, verdict, before, now, ratio, near, counts)


def _time(row: dict[str, Any] | None, ms: str) -> float | None:
    """None where the row gives no time that counts."""
    value = row.get(ms) if row and row["status"] == "ok" else None
    return value if value and math.isfinite(value) else None


def _apart(fast: dict[str, Any], slow: dict[str, Any]) -> bool:
    """Whether each median lies outside the other's 5 to 95 % of rounds."""
    return slow["ms"] > fast["p95"] and fast["ms"] < slow["p5"]


def read(path: Path) -> Run:
    """Raises UserError for what is no stored run of this suite, or one of another version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        bench = "benchmarks" in content
        info = content["machine_info"] if bench else content
        schema, environment, roof = info["schema"], info if bench else info["environment"], info["roof"]
        if bench:
            rows = {b["extra_info"]["key"]: b["extra_info"] for b in content["benchmarks"]}
            machine = {"hardware": info["hardware"], "gpu": info["gpu"], "cpu": info["cpu"].get("brand_raw")}
        else:
            near = lambda r: of_roof(r, roof) if r["status"] == "ok" else None  # noqa: E731
            rows = {k: r | {"of_roof": near(r)} for k, r in content["rows"].items()}
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
