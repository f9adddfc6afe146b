"""The record schema and the run store (DESIGN §7): one JSON line per run, one row per run, sample and metric.

A report folder holds `runs.jsonl`, `samples.csv.gz`, `summary.json` and, when a design was rendered, `qualitative.npz`;
every table and figure is rebuilt from them. Results of another benchmark version are never mixed in.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from i4d_bench import BENCHMARK_VERSION
from i4d_bench.cache import atomic_file
from i4d_bench.results.aggregate import _finite, aggregate
from i4d_bench.results.record import SCHEMA, Record
from i4d_bench.types import UserError

ROW = ("run_id", "design", "seed", "set", "sample", "identity", "metric", "value", "ok")


class Store:
    """The results in one folder. Several processes may add to it."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def add(self, record: Record, rows: list[dict[str, Any]]) -> None:
        """Stores a run, in place of an earlier one of the same design and seed. Raises UserError."""
        record.metrics = aggregate(rows)
        with self._lock():
            kept = [r for r in self._lines() if (r["design"], r["seed"]) != (record.design, record.seed)]
            ids = {r["run_id"] for r in kept}
            lines = [*kept, dataclasses.asdict(record)]
            old = self._read_samples()
            new = pd.DataFrame(rows, columns=list(ROW))
            old = old[old["run_id"].isin(ids)]
            with atomic_file(self.folder / "samples.csv.gz") as path:
                pd.concat([d for d in (old, new) if len(d)] or [new]).to_csv(
                    path, index=False, float_format="%.6g", compression={"method": "gzip", "mtime": 0}
                )
            with atomic_file(self.folder / "runs.jsonl") as path:
                path.write_text("".join(json.dumps(_finite(line)) + "\n" for line in lines))

    def finished(self, run_id: str) -> bool:
        return any(r.run_id == run_id and r.status != "failed" for r in self.records)

    @property
    def records(self) -> list[Record]:
        """Runs of this benchmark version, in the order they were added."""
        return [Record(**line) for line in self._lines()]

    @property
    def samples(self) -> pd.DataFrame:
        """Columns ROW; only of the runs in `records`."""
        table = self._read_samples()
        return table[table["run_id"].isin({r.run_id for r in self.records})]

    def _lines(self) -> list[dict[str, Any]]:
        path = self.folder / "runs.jsonl"
        if not path.exists():
            return []
        try:
            lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        except ValueError as e:
            raise UserError(f"{path} is damaged ({e}): restore it or move the folder away") from e
        ours = [r for r in lines if (r["schema"], r["benchmark_version"]) == (SCHEMA, BENCHMARK_VERSION)]
        if len(ours) < len(lines):
            print(f"{path}: {len(lines) - len(ours)} runs of another benchmark version are left out")
        return ours

    def _read_samples(self) -> pd.DataFrame:
        path = self.folder / "samples.csv.gz"
        return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(ROW))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / ".lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as e:
            raise UserError(f"cannot write the report folder {self.folder}: {e.strerror or e}") from e

    def check_writable(self) -> None:
        """Raises UserError before hours of work rather than after. Leaves nothing behind."""
        made = [p for p in (self.folder, *self.folder.parents) if not p.exists()]
        with self._lock():
            pass
        if made:
            shutil.rmtree(made[-1])
