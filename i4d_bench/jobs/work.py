"""Pieces of work of a plan, which any process on the same file system can do: nothing is done twice, what is begun goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from i4d_bench.jobs.bench import Bench, lessons_are_driven, networks_of_data, prepare, warm_up
from i4d_bench.jobs.plan import Run, RunPlan
from i4d_bench.results.store import Store
from i4d_bench.train import distributed
from i4d_bench.train.loop import Diverged
from variants import know

PIECES = {"encoder": "image driver's encoder", "reader": "expression reader", "backbone": "backbone"}
"""Files of what designs share that can be made at the same time, by the plan's names for them. The first two serve all seeds."""


@dataclass(frozen=True)
class Task:
    """Trains, scores and stores a run. run None: what the plan's designs share is made, and must be before their runs; of it, where
    there is a piece, that one alone."""

    plan: RunPlan
    run: Run | None = None
    piece: str = ""

    def __str__(self) -> str:
        what = self.run.entry if self.run else PIECES.get(self.piece, "what designs share")
        return what if self.piece in ("encoder", "reader") else f"{what}, seed {self.plan.experiment.seed}"

    def waits_for(self, other: Task) -> bool:
        """Whether the other makes what this one needs."""
        if self.piece or other.run:
            return False
        if other.piece:
            return getattr(self.plan, other.piece) == getattr(other.plan, other.piece)
        return self.run is not None and self.plan == other.plan


def tasks(plans: list[RunPlan]) -> list[Task]:
    """What is to be done of these: of each plan that is not finished what its designs share, then its runs."""
    return [Task(p, run) for p in plans if (todo := p.unfinished()) for run in (None, *todo)]


def pieces(todo: list[Task]) -> list[Task]:
    """Those of what these share that there are not, each once. `prepare` does the rest: a backbone whose lessons are driven, or
    one that may be done, where nothing else is missing."""
    found: dict[Path, Task] = {}
    for piece in PIECES:
        for plan in [t.plan for t in todo if t.run is None]:
            path, e = getattr(plan, piece), plan.experiment
            later = piece == "backbone" and (e.init or lessons_are_driven(e))
            begun = piece == "backbone" and found  # a checkpoint does not say whether it is the last
            if path is not None and not later and (begun or not path.exists()):
                found.setdefault(path, Task(plan, piece=piece))
    return list(found.values())


_open: Bench | None = None
"""Of the plan that this process worked on last."""


def do(task: Task) -> None:
    """Raises Diverged, after the failure is stored, and what training and scoring raise."""
    global _open
    plan, run = task.plan, task.run
    know(plan.experiment.designs, plan.experiment.sources)
    if task.piece:
        _open = None
        if task.piece == "backbone":
            warm_up(plan)
        else:
            networks_of_data(plan, (task.piece,))
        return
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
