"""Trainings on this machine: several processes on one GPU, one on a CPU."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

import torch

from i4d_bench.jobs.bench import Bench
from i4d_bench.jobs.plan import Run, RunPlan
from i4d_bench.progress import Whole, console, lines_only
from i4d_bench.train.loop import Diverged
from i4d_bench.types import UserError
from variants import know

MOST_JOBS, JOB_BYTES = 4, 12 * 2**30
"""Trainings at once, and what one may take of a GPU's memory (the preset gpu: 8 GiB)."""


def default_jobs() -> int:
    """One process does not fill a large GPU: five train twice as many steps a second on an H100 as one."""
    if not torch.cuda.is_available():
        return 1
    return max(1, min(MOST_JOBS, torch.cuda.mem_get_info()[0] // JOB_BYTES))


def keep_memory() -> None:
    """glibc: keep freed blocks instead of returning them to the system; training on a CPU is up to twice as fast."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library: nothing to set
        return
    mmap_threshold, trim_threshold = -3, -1
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)


def trained(plan: RunPlan, todo: list[Run], jobs: int) -> Iterator[Run]:
    """Runs as soon as their checkpoint is finished: `jobs` at a time in processes of their own, one alone by the caller."""
    if min(jobs, len(todo)) < 2:
        yield from todo
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(todo)), context, _open, (plan,))
    try:
        running = {pool.submit(_train, run): run for run in todo}
        with Whole(len(todo), "designs trained") as whole:
            for job in whole.parts(as_completed(running), say=True):
                try:
                    job.result()
                except Diverged as e:  # said again, and recorded, when its turn comes
                    console.print(str(e))
                except torch.OutOfMemoryError as e:
                    raise UserError(
                        f"the GPU's memory does not hold {jobs} trainings at once: go on with a smaller --jobs"
                    ) from e
                yield running[job]
    finally:
        pool.shutdown(cancel_futures=True)


_bench: Bench | None = None
"""Of a training process."""


def _open(plan: RunPlan) -> None:
    global _bench
    lines_only()
    know(plan.experiment.designs, plan.experiment.sources)
    _bench = Bench(plan)


def _train(run: Run) -> None:
    assert _bench is not None, "the process was opened without a bench"
    _bench.train(run)
