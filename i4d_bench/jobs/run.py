"""The main job: data → reader and driver → backbone → every design trained, scored, timed, stored → tables and figures."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from i4d_bench import outputs
from i4d_bench.config.ablations import scored
from i4d_bench.config.experiment import Experiment
from i4d_bench.drivers.driver import check
from i4d_bench.jobs import slurm
from i4d_bench.jobs.local import default_jobs, keep_memory, work
from i4d_bench.jobs.names import designs, folder_name
from i4d_bench.jobs.plan import RunPlan, plan
from i4d_bench.jobs.work import Task, tasks
from i4d_bench.progress import console
from i4d_bench.report.baseline import pick
from i4d_bench.results.environment import hardware_name
from i4d_bench.results.store import Store
from i4d_bench.train import curves, distil, distributed
from i4d_bench.types import UserError


def default_preset() -> str:
    return "gpu" if torch.cuda.is_available() else "cpu"


def run(
    experiment: Experiment,
    reports: Path,
    runs: Path,
    jobs: int | None = None,
    fresh: bool = False,
    baseline: str | None = None,
    seeds: Sequence[int] | None = None,
    cluster: Mapping[str, str] | None = None,
    log: Path | None = None,
    show: bool = True,
) -> Path:
    """Runs every design of the experiment that has no finished record yet, with each of the seeds (default: the experiment's own);
    `jobs` at once on each GPU, or in all without one (`default_jobs`). Returns the report folder. fresh: what these runs left is
    removed first. baseline: the row that others are compared with (`report.baseline.pick`). cluster: options of SLURM's jobs, which
    then do the work in place of this machine (`jobs.slurm`). log: a folder in which TensorBoard finds the curves. show: prints the
    report's table.

    Processes that torchrun started (`train.distributed`) train together, one design at a time; the first does all else.

    Raises UserError when a design failed to train (after every other design's results are stored).
    """
    from i4d_bench import report
    from i4d_bench.report import terminal

    started = time.monotonic()
    keep_memory()
    each = [dataclasses.replace(experiment, seed=s) for s in seeds or (experiment.seed,)]
    planned, logs = partial(_planned, each, reports, runs, fresh, baseline, log), runs.absolute() / "slurm"
    plans, todo = distributed.of_first(planned) if cluster is None else slurm.planned(planned, cluster, logs)
    store = Store(plans[0].report)
    if todo:
        _check_shares(experiment)
    seeded = f", seeds {', '.join(str(e.seed) for e in each)}" if len(each) > 1 else ""
    console.print(
        f"{experiment.preset} preset on {hardware_name()}: {', '.join(r.entry for r in plans[0].runs)}{seeded}"
    )
    waiting = {t.run.id for t in todo if t.run}
    ready = [r.entry for p in plans for r in p.runs if r.id not in waiting]
    if ready:
        counted = Counter(ready)
        console.print(f"already finished: {', '.join(d if n == 1 else f'{d} ({n} seeds)' for d, n in counted.items())}")
    failed = {}
    if todo:
        failed = (
            work(plans, todo, jobs or default_jobs()) if cluster is None else slurm.work(plans, todo, cluster, logs)
        )
    if distributed.first() and store.records:
        if baseline is not None:
            report.keep_baseline(store.folder, baseline)
        built = report.build_runs(store.folder)
        if show:
            terminal.show(store.folder, *built)
    console.print(f"tables and figures: {store.folder}  ({time.monotonic() - started:.0f} s)")
    if failed:
        raise UserError("; ".join(f"{name} failed: {why}" for name, why in failed.items()))
    return store.folder


def _planned(
    each: list[Experiment], reports: Path, runs: Path, fresh: bool, baseline: str | None, log: Path | None = None
) -> tuple[list[RunPlan], list[Task]]:
    """The plans, one of each seed, and what is to be done of them. Mistakes first."""
    outputs.folder(reports)
    outputs.folder(runs)
    experiment = each[0]
    wanted = designs(experiment)
    check(experiment.driver)
    distil.check(experiment.teacher, experiment.train)
    if log is not None:
        curves.check(log)
    store = Store(reports / folder_name(experiment))
    if baseline is not None:
        if not scored(experiment):
            raise UserError(f"a search has no pairs of designs, so nothing to compare with {baseline!r}")
        pick(dict.fromkeys((*wanted, *(r.design for r in store.records)), ""), baseline)
    store.check_writable()
    plans = [plan(e, reports, runs, log, film=e is experiment) for e in each]  # of the first seed
    if fresh:
        for what in plans:
            what.forget()
    return plans, tasks(plans)


def _check_shares(experiment: Experiment) -> None:
    """Raises UserError where a step's people cannot be divided among the processes."""
    mixed = experiment.teacher.bias_sink or experiment.world.beside
    for stage in (*experiment.train.warmup, *experiment.train.stages):
        for people in distil.halves(stage.sources) if mixed else (stage.sources,):
            distributed.share(people)
