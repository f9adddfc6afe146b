"""The main job: data → reader and driver → backbone → every design trained, scored, timed, stored → tables and figures."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from i4d_bench.config.ablations import scored
from i4d_bench.config.experiment import Experiment
from i4d_bench.jobs.bench import Bench
from i4d_bench.jobs.local import _keep_memory, _trained, default_jobs
from i4d_bench.jobs.names import designs, folder_name, run_id
from i4d_bench.progress import console
from i4d_bench.results.environment import hardware_name
from i4d_bench.results.store import Store
from i4d_bench.train.loop import Diverged
from i4d_bench.types import UserError


def default_preset() -> str:
    return "gpu" if torch.cuda.is_available() else "cpu"


def run(experiment: Experiment, reports: Path, runs: Path, jobs: int | None = None) -> Path:
    """Runs every design of the experiment that has no finished record yet, `jobs` of them at once (`default_jobs`). Returns the
    report folder.

    Raises UserError when a design failed to train (after every other design's results are stored).
    """
    from i4d_bench import report

    started = time.monotonic()
    _keep_memory()
    wanted = designs(experiment)
    store = Store(reports / folder_name(experiment))
    store.check_writable()
    ready = [d for d in wanted if store.finished(run_id(experiment, d))]
    todo = [d for d in wanted if d not in ready]
    console.print(f"{experiment.preset} preset on {hardware_name()}: {', '.join(wanted)}")
    if ready:
        console.print(f"already finished: {', '.join(ready)}")
    failed = {}
    if todo:
        bench, trained = Bench(experiment, runs), _trained(experiment, todo, runs, jobs or default_jobs())
        for name in (
            list(trained) if scored(experiment) else trained
        ):  # scores come with timings, which want an idle machine
            try:
                bench.run_design(name, store)
            except Diverged as e:
                failed[name] = str(e)
                store.add(bench.record(name, "failed", str(e)), [])
    report.build(store.folder)
    console.print((store.folder / "main.md").read_text())
    console.print(f"tables and figures: {store.folder}  ({time.monotonic() - started:.0f} s)")
    if failed:
        raise UserError("; ".join(f"{name} failed: {why}" for name, why in failed.items()))
    return store.folder
