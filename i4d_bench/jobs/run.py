"""The main job: data → reader and driver → backbone → every design trained, scored, timed, stored → tables and figures."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from i4d_bench import outputs
from i4d_bench.config.ablations import scored
from i4d_bench.config.experiment import Experiment
from i4d_bench.drivers.driver import check
from i4d_bench.jobs.bench import prepare
from i4d_bench.jobs.local import default_jobs, keep_memory, trained
from i4d_bench.jobs.names import designs, folder_name
from i4d_bench.jobs.plan import Run, RunPlan, plan
from i4d_bench.progress import Whole, console
from i4d_bench.report.baseline import pick
from i4d_bench.results.environment import hardware_name
from i4d_bench.results.store import Store
from i4d_bench.train import distil, distributed
from i4d_bench.train.loop import Diverged
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
) -> Path:
    """Runs every design of the experiment that has no finished record yet, `jobs` of them at once (`default_jobs`). Returns the
    report folder. fresh: what these runs left is removed first. baseline: the row that others are compared with
    (`report.baseline.pick`).

    Processes that torchrun started (`train.distributed`) train together, one design at a time; the first does all else.

    Raises UserError when a design failed to train (after every other design's results are stored).
    """
    from i4d_bench import report
    from i4d_bench.report import terminal

    started = time.monotonic()
    keep_memory()
    what, todo = distributed.of_first(lambda: _planned(experiment, reports, runs, fresh, baseline))
    store = Store(what.report)
    if todo:
        _check_shares(experiment)
    console.print(f"{experiment.preset} preset on {hardware_name()}: {', '.join(r.entry for r in what.runs)}")
    ready = [r.entry for r in what.runs if r not in todo]
    if ready:
        console.print(f"already finished: {', '.join(ready)}")
    failed = _run(what, todo, store, jobs or default_jobs()) if todo else {}
    if distributed.first():
        terminal.show(store.folder, *report.build_runs(store.folder, baseline))
    console.print(f"tables and figures: {store.folder}  ({time.monotonic() - started:.0f} s)")
    if failed:
        raise UserError("; ".join(f"{name} failed: {why}" for name, why in failed.items()))
    return store.folder


def _planned(
    experiment: Experiment, reports: Path, runs: Path, fresh: bool, baseline: str | None
) -> tuple[RunPlan, list[Run]]:
    """The plan, and what is to be done of it. Mistakes first."""
    outputs.folder(reports)
    outputs.folder(runs)
    wanted = designs(experiment)
    check(experiment.driver)
    distil.check(experiment.teacher, experiment.train)
    store = Store(reports / folder_name(experiment))
    if baseline is not None:
        if not scored(experiment):
            raise UserError(f"a search has no pairs of designs, so nothing to compare with {baseline!r}")
        pick(dict.fromkeys((*wanted, *(r.design for r in store.records)), ""), baseline)
    store.check_writable()
    what = plan(experiment, reports, runs)
    if fresh:
        what.forget()
    return what, what.unfinished()


def _check_shares(experiment: Experiment) -> None:
    """Raises UserError where a step's people cannot be divided among the processes."""
    mixed = experiment.teacher.bias_sink or experiment.world.beside
    for stage in (*experiment.train.warmup, *experiment.train.stages):
        for people in distil.halves(stage.sources) if mixed else (stage.sources,):
            distributed.share(people)


def _run(what: RunPlan, todo: list[Run], store: Store, jobs: int) -> dict[str, str]:
    """Trains, scores and stores. Returns why designs failed."""
    failed = {}
    with Whole(len(what.runs), "designs", done=len(what.runs) - len(todo)) as whole:
        bench = prepare(what)
        jobs = jobs if distributed.ranks() == 1 else 1
        ready = trained(what, todo, jobs)
        ready = (
            list(ready) if what.scored and jobs > 1 else ready
        )  # scores come with timings, which want an idle machine
        for one in whole.parts(ready):
            if distributed.of_first(
                lambda one=one: store.finished(one.id, one.scoring)
            ):  # by another job in the meantime
                continue
            try:
                bench.run_design(one, store)
            except Diverged as e:
                failed[one.entry] = str(e)
                if distributed.first():
                    store.add(bench.record(one, "failed", str(e)), [])
    return failed
