"""Pieces of work of a plan, which any process on the same file system can do: nothing is done twice, what is begun goes on."""

from __future__ import annotations

from dataclasses import dataclass

from i4d_bench.jobs.bench import Bench, prepare
from i4d_bench.jobs.plan import Run, RunPlan
from i4d_bench.results.store import Store
from i4d_bench.train import distributed
from i4d_bench.train.loop import Diverged
from variants import know


@dataclass(frozen=True)
class Task:
    """Trains, scores and stores a run. run None: what the plan's designs share is made, and must be before their runs."""

    plan: RunPlan
    run: Run | None = None

    def __str__(self) -> str:
        return f"{self.run.entry if self.run else 'what designs share'}, seed {self.plan.experiment.seed}"


def tasks(plans: list[RunPlan]) -> list[Task]:
    """What is to be done of these: of each plan that is not finished what its designs share, then its runs."""
    return [Task(p, run) for p in plans if (todo := p.unfinished()) for run in (None, *todo)]


_open: Bench | None = None
"""Of the plan that this process worked on last."""


def do(task: Task) -> None:
    """Raises Diverged, after the failure is stored, and what training and scoring raise."""
    global _open
    plan, run = task.plan, task.run
    know(plan.experiment.designs, plan.experiment.sources)
    if run is None:
        _open = prepare(plan)
        return
    store = Store(plan.report)
    if distributed.of_first(lambda: store.finished(run.id, run.scoring)):  # by another process in the meantime
        return
    if _open is None or _open.plan != plan:
        _open = None  # its tensors go before those of the next come
        _open = Bench(plan)
    try:
        _open.run_design(run, store)
    except Diverged as e:
        if distributed.first():
            store.add(_open.record(run, "failed", str(e), e.progress), [])
        raise
