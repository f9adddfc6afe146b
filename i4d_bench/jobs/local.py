"""Work on this machine: several processes on every GPU, or on its cores without one."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import numba
import numpy as np
import torch

from i4d_bench.jobs import mps
from i4d_bench.jobs.bench import networks_of_data
from i4d_bench.jobs.plan import RunPlan
from i4d_bench.jobs.work import Task, do, pieces
from i4d_bench.portable import cores
from i4d_bench.progress import Whole, console, lines_only
from i4d_bench.results.store import Store
from i4d_bench.train import distributed
from i4d_bench.train.loop import Diverged
from i4d_bench.types import UserError
from kernels import Unsupported
from variants import design

MOST_JOBS, JOB_BYTES = 5, 12 * 2**30
"""Trainings at once on a GPU, and what one may take of its memory (the preset gpu: 8 GiB). One does not fill a large GPU: on
an H100 five take twice as many steps a second."""
LONGER = {"global": 2.0}
"""Families that train longer than others, where nothing was measured yet (preset gpu, H200: 1.6 to 2.6 times)."""
PR_SET_PDEATHSIG = 1


def default_jobs() -> int:
    """Trainings at once on each GPU, by its free memory; without one, as many as cores, with a thread each."""
    if not torch.cuda.is_available():
        return min(MOST_JOBS, cores())
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


def work(plans: list[RunPlan], todo: list[Task], jobs: int) -> dict[str, str]:
    """Does all tasks, `jobs` at once on every GPU, or in all without one. Returns why some failed; the others are done.

    Raises UserError for what would end every task, a full disk for instance.
    """
    cards = _cards() if distributed.ranks() == 1 else []
    every, left = sum(len(p.runs) for p in plans), sum(t.run is not None for t in todo)
    count = min(jobs * max(1, len(cards)), every)
    if distributed.ranks() > 1:
        count = 1
    with Whole(every, "runs", done=every - left) as whole:
        if count < 2:
            return _alone(todo, whole)
        if cards:  # a step there waits for one core: together they take as long as the longest
            todo = [*pieces(todo), *todo]
        else:
            networks_of_data(plans[0])  # with all cores
        with mps.shared(jobs if cards else 1):
            most = min(jobs * len(cards), len(todo)) if cards else min(count, left)
            places = [cards[k % len(cards)] if cards else None for k in range(most)]
            return _Room(todo, whole, places, count).done()


def _alone(todo: list[Task], whole: Whole) -> dict[str, str]:
    """One after the other, in this process."""
    failed, left = {}, list(todo)
    while left:
        task = left.pop(0)
        for _ in whole.parts([task]) if task.run else [task]:
            try:
                do(task)
            except UserError:
                raise
            except Exception as e:
                if distributed.ranks() > 1 and not isinstance(e, Diverged):  # which the others have not met
                    raise
                failed[str(task)] = _told(e)
                if task.run is None:
                    left = [t for t in left if t.plan != task.plan]
    return failed


def _cards() -> list[str]:
    """Every GPU that this process may use, as CUDA_VISIBLE_DEVICES names it."""
    if not torch.cuda.is_available():
        return []
    named = [c for c in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if c]
    return named or [str(k) for k in range(torch.cuda.device_count())]


@dataclass
class _Worker:
    """A process of its own, on a card or on a share of the cores, and what it does now."""

    card: str | None
    process: BaseProcess
    pipe: Connection
    task: Task | None = None
    last: RunPlan | None = None


@dataclass
class _Room:
    """Hands tasks to workers: what is shared before the runs that wait for it, the longest first, and to a worker those of the plan
    that it has open, if there are."""

    todo: list[Task]
    whole: Whole
    places: list[str | None]
    shares: int  # of the cores, one for each worker where there is no GPU
    workers: list[_Worker] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    begun: bool = False  # the runs, after what they share

    def done(self) -> dict[str, str]:
        """Why tasks failed, once none is left."""
        self.todo = sorted(self.todo, key=_expected(self.todo), reverse=True)
        where = f"on {len(set(self.places))} GPUs" if self.places[0] else f"on {cores()} cores"
        console.print(f"{len(self.places)} processes {where}")
        try:
            self.workers = [self._hire(place) for place in self.places]
            for _ in self.whole.parts(self._finished(), say=True):
                pass
        finally:
            self._close()
        return self.failed

    def _finished(self) -> Iterator[Task]:
        """Runs as they end, well or not."""
        while self.todo or any(w.task for w in self.workers):
            for worker in self.workers:
                if worker.task is None and (task := self._next(worker)):
                    self._give(worker, task)
            busy = [w for w in self.workers if w.task]
            if not busy:
                raise UserError("; ".join(f"{name} failed: {why}" for name, why in self.failed.items()))
            ended = wait([*(w.pipe for w in busy), *(w.process.sentinel for w in busy)])
            for worker in [w for w in busy if w.pipe in ended or w.process.sentinel in ended]:
                task, why = worker.task, self._outcome(worker)
                assert task is not None
                worker.task = None
                if why:
                    self.failed[str(task)] = why
                    console.print(f"{task} failed: {why}")
                    self.todo = [t for t in self.todo if not t.waits_for(task)]
                elif task.piece:
                    console.print(f"{task}: done")
                if task.run is not None:
                    yield task

    def _give(self, worker: _Worker, task: Task) -> None:
        """To the worker, or where it has died since its last task, to one in its place."""
        self.todo.remove(task)
        try:
            worker.pipe.send(task)
        except ConnectionError:
            worker = self._replace(worker)
            worker.pipe.send(task)
        worker.task, worker.last = task, None if task.piece else task.plan
        if task.run is not None and not self.begun:
            self.begun = True
            self.whole.begin()

    def _next(self, worker: _Worker) -> Task | None:
        """The task that this worker takes up, or None where all wait for what is being made."""
        shared = [t for t in (*self.todo, *(w.task for w in self.workers if w.task)) if t.run is None]
        ready = [t for t in self.todo if not any(t.waits_for(s) for s in shared)]
        ready.sort(key=lambda t: (t.run is not None, t.plan != worker.last))  # stable: the longest stay first
        return next(iter(ready), None)

    def _outcome(self, worker: _Worker) -> str:
        """Why a worker's task failed; empty where it did not. One that died is replaced. Raises what would end every task."""
        try:
            what = worker.pipe.recv()
        except (EOFError, ConnectionError):
            worker.process.join()
            code = worker.process.exitcode
            if self.todo:
                self._replace(worker)
            else:
                self.workers.remove(worker)
            return f"its process was killed (exit code {code})"
        if isinstance(what, UserError):
            raise what
        return what

    def _replace(self, worker: _Worker) -> _Worker:
        """One that died."""
        new = self.workers[self.workers.index(worker)] = self._hire(worker.card)
        return new

    def _hire(self, card: str | None) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_serve, args=(theirs, self.shares, card is None), daemon=False)
        # as many as there are cores, numpy's threads of several processes wait for each other ten times as long as they work
        own = {"OPENBLAS_NUM_THREADS": str(max(1, cores() // self.shares))}
        if card is not None:
            own["CUDA_VISIBLE_DEVICES"] = card
        with _environment(own):  # before numpy and anything of CUDA begin
            process.start()
        theirs.close()
        return _Worker(card, process, ours)

    def _close(self) -> None:
        """Ends the processes; those that still train keep where they are."""
        for worker in self.workers:
            worker.pipe.close()
            if worker.task and worker.process.pid:
                os.kill(worker.process.pid, signal.SIGINT)
        for worker in self.workers:
            worker.process.join()


def _expected(todo: list[Task]) -> Callable[[Task], float]:
    """How long a task takes: seconds that its design's training took before, or guessed by its steps and family."""
    records = [r for path in {t.plan.report for t in todo} for r in Store(path).records]
    known = {r.design: r.train_seconds for r in records if r.train_seconds}

    def steps(task: Task, entry: str) -> int:
        return sum(s.steps for s in task.plan.experiment.stages(entry))

    usual = float(np.mean([seconds / steps(todo[0], entry) for entry, seconds in known.items()])) if known else 1.0

    def seconds(task: Task) -> float:
        if task.run is None:
            return float("inf")
        entry = task.run.entry
        return known.get(entry, usual * steps(task, entry) * LONGER.get(design(entry).family, 1.0))

    return seconds


def use_threads(count: int) -> None:
    """In this process. The bits of a training depend on it, so that it depends on the command alone, not on what is left to do."""
    numba.set_num_threads(max(1, count))
    torch.set_num_threads(max(1, count))  # after numba, whose begin undoes what torch was told


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {k: os.environ.get(k) for k in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _serve(pipe: Connection, workers: int, on_cores: bool) -> None:
    """A worker: does what comes through the pipe until that is closed, or its parent ends."""
    os.setpgrp()  # Ctrl-C reaches the parent alone, which passes it on once
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a script that runs in the background
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
    keep_memory()
    lines_only(workers)
    if on_cores:
        use_threads(cores() // workers)
    with suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
        while True:
            pipe.send(_answer(pipe.recv()))


def _answer(task: Task) -> str | UserError:
    """Why a task failed, nothing where it did not, and the error that would end every task."""
    try:
        do(task)
    except torch.OutOfMemoryError:
        return UserError("the GPU's memory does not hold so many trainings at once: go on with a smaller --jobs")
    except UserError as e:
        return e
    except Exception as e:
        return _told(e)
    return ""


def _told(error: Exception) -> str:
    """Why one task failed; prints where, if the error's own sentence does not say it all."""
    if isinstance(error, (Diverged, Unsupported)):
        return str(error)
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"
