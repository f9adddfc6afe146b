"""Work as jobs of a SLURM cluster, through submitit: one array for what the designs of each plan share, then one for all runs.

Login node and compute nodes see the same files under the same paths. A job that is preempted, or reaches its time limit, is queued
again and goes on from its checkpoint. States come from squeue, which every cluster has; sacct needs a database that many lack.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from i4d_bench.cache import atomic_file
from i4d_bench.extras import install
from i4d_bench.jobs.local import keep_memory, use_threads
from i4d_bench.jobs.plan import RunPlan, plan
from i4d_bench.jobs.work import Task, do
from i4d_bench.progress import Whole, console
from i4d_bench.types import UserError
from variants import know

if TYPE_CHECKING:
    import submitit

T = TypeVar("T")
DEFAULTS = {"name": "i4d-bench", "timeout_min": "240"}
SHARED = ("name", "timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node")
"""Options that submitit has under these names; it calls all others slurm_NAME."""
OWN = "sbatch_"
"""Begins the name of an option that goes to sbatch as it is: sbatch_reservation=NAME."""
THREADS = "export OPENBLAS_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}"
"""Numpy's, which it reads as it begins: a job may see cores that are others'."""
ONE_PROCESS = ("nodes", "tasks_per_node", "ntasks_per_node")
RESTARTS = 30
"""How often a job may reach its time limit."""
LOOK, GRACE = 10.0, 60.0
"""Seconds between looks at the queue, and those in which an ended job's result must come into sight, which NFS may delay."""
PROGRAMS = ("sbatch", "srun", "squeue", "scancel")
ENDED = ("", *"BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT".split())
"""States after which nothing comes, if the job is not queued again; empty for one that has left the queue."""
QUEUE = "queue.json"
"""Job ids by task, of this call and earlier ones."""


def planned(make: Callable[[], T], options: Mapping[str, str], logs: Path) -> T:
    """What `make` returns in a job of its own. For plans: names of runs hold the hardware, which is that of the compute nodes.

    Raises UserError where it fails, with its own sentence if it has one.
    """
    job = _submit(_executor(options, logs), [make])[0]
    console.print(f"job {job.job_id} makes the plan")
    try:
        for _, why in _ended({"": job}):
            if why:
                raise UserError(f"no plan could be made: {why}")
    except KeyboardInterrupt:
        job.cancel(check=False)
        raise
    return job.result()


def work(plans: list[RunPlan], todo: list[Task], options: Mapping[str, str], logs: Path) -> dict[str, str]:
    """Does all tasks. Returns why some failed; the others are done. Those that wait in the queue or run since an earlier call are
    waited for and not submitted again. options: `_executor`'s. logs: a folder that all nodes see.

    Raises UserError where sbatch refuses.
    """
    tasks = {_key(task): task for task in todo}
    jobs = _queued(tasks, logs)
    earlier = len(jobs)
    runs = [key for key, t in tasks.items() if t.run and key not in jobs]
    shared = {_key(Task(tasks[key].plan)) for key in runs}
    for keys in ([key for key in tasks if key in shared and key not in jobs], runs):
        before = [jobs[key].job_id for key in shared if key in jobs] if keys is runs else []
        new = _submit(_executor(options, logs, before), [_Job(tasks[key]) for key in keys])
        jobs |= zip(keys, new, strict=True)
        _remember(jobs, logs)
    console.print(
        f"{len(jobs)} jobs, {earlier} of an earlier call; they go on where this command is stopped; logs: {logs}"
    )
    failed: dict[str, str] = {}
    every, left = sum(len(p.runs) for p in plans), sum(t.run is not None for t in todo)
    with Whole(every, "runs", done=every - left) as whole:
        for _ in whole.parts(_finished(tasks, jobs, failed), say=True):
            pass
    return failed


def _finished(tasks: Mapping[str, Task], jobs: Mapping[str, submitit.Job], failed: dict[str, str]) -> Iterator[Task]:
    """Runs as they end, well or not; notes why tasks failed."""
    for key, why in _ended(jobs):
        task = tasks[key]
        if why:
            failed[str(task)] = why
        console.print(f"{task} failed: {why}" if why else f"{task}: done")
        if task.run:
            yield task


@dataclass(frozen=True)
class _Job:
    """What a compute node does. Queued again, it does the rest."""

    task: Task

    def __call__(self) -> None:
        keep_memory()
        if asked := os.environ.get("SLURM_CPUS_PER_TASK"):
            use_threads(int(asked))  # not every cluster ties a job to the cores that it has asked for
        self._check()
        do(self.task)

    def checkpoint(self) -> Any:
        """What submitit queues when the time is up: training has left its state on disk by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _check(self) -> None:
        """Raises UserError where the task would not be the one whose name it has."""
        was = self.task.plan
        know(was.experiment.designs, was.experiment.sources)
        now = plan(was.experiment, was.report.parent, was.backbone.parents[1], was.log, was.film)
        if now.made["hardware"] != was.made["hardware"]:
            kinds = f"planned for {was.made['hardware']}, but this node is {now.made['hardware']}"
            raise UserError(f"{kinds}: name one kind of nodes (--slurm partition=… or constraint=…)")
        if now != was:
            raise UserError("code, data or settings have changed since the job was queued: start the command again")


def _executor(options: Mapping[str, str], logs: Path, before: Sequence[str] = ()) -> submitit.AutoExecutor:
    """submitit's, for one process a job, with the options of `--slurm KEY=VALUE`: partition, timeout_min, gpus_per_node,
    cpus_per_task, mem_gb, array_parallelism and whatever else submitit knows. before: jobs without whose success these are
    cancelled. Raises UserError."""
    try:
        from submitit import AutoExecutor
    except ImportError as e:
        raise UserError(f"--slurm needs submitit: {install('slurm')}") from e
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        raise UserError(
            f"--slurm: this machine has no {', '.join(missing)}: start the command on a cluster's login node"
        )
    parameters: dict[str, Any] = {"slurm_stderr_to_stdout": True, "slurm_additional_parameters": {}}
    for key, text in {**DEFAULTS, **options}.items():
        name = key.removeprefix("slurm_")
        if name in ONE_PROCESS:
            raise UserError(f"--slurm {key}: a job is one process on one node")
        if name.startswith(OWN):
            parameters["slurm_additional_parameters"][name.removeprefix(OWN).replace("_", "-")] = text
        else:
            parameters[name if name in SHARED else f"slurm_{name}"] = _value(name, text)
    parameters["slurm_setup"] = [THREADS, *parameters.get("slurm_setup", [])]
    if before:
        parameters["slurm_dependency"] = f"afterok:{':'.join(before)}"
        parameters["slurm_additional_parameters"]["kill-on-invalid-dep"] = "yes"
    try:
        executor = AutoExecutor(logs, cluster="slurm", slurm_max_num_timeout=RESTARTS)
        executor.update_parameters(**parameters)
    except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as e:
        raise UserError(f"--slurm: {str(e).splitlines()[0]}") from e
    return executor


def _value(name: str, text: str) -> Any:
    """As submitit wants it."""
    if name in ("setup", "teardown"):
        return [text]
    if name == "srun_args":
        return shlex.split(text)
    if name == "time" and not text.isdigit():
        raise UserError(f"--slurm time={text}: in minutes")
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text) if re.fullmatch(r"\d+", text) else float(text)
    except ValueError:
        return text


def _submit(executor: submitit.AutoExecutor, functions: list[Callable[[], Any]]) -> list[submitit.Job]:
    """Several are one array. Raises UserError where sbatch refuses."""
    from submitit.core.utils import FailedJobError

    jobs: list[submitit.Job] = []
    if not functions:
        return jobs
    try:
        with executor.batch():
            jobs = [executor.submit(function) for function in functions]
    except FailedJobError as e:
        raise UserError(f"sbatch refused: {' '.join(str(e).split())}") from e
    return jobs


def _key(task: Task) -> str:
    """The same in every call that plans the same."""
    p, run = task.plan, task.run
    return f"{run.id} {run.scoring}" if run else " ".join(str(f) for f in (p.backbone, p.lifter, p.reader, p.encoder))


def _queued(keys: Iterable[str], logs: Path) -> dict[str, submitit.Job]:
    """Jobs of earlier calls that still wait or run."""
    known = _known(logs)
    if not known:
        return {}
    from submitit import SlurmJob

    states = _states()
    if states is None:
        raise UserError("squeue does not answer: try again when the cluster does")
    return {k: SlurmJob(logs, known[k]) for k in keys if k in known and states.get(known[k], "") not in ENDED}


def _known(logs: Path) -> dict[str, str]:
    file = logs / QUEUE
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _remember(jobs: Mapping[str, submitit.Job], logs: Path) -> None:
    content = _known(logs) | {key: job.job_id for key, job in jobs.items()}
    with atomic_file(logs / QUEUE) as path:
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _ended(jobs: Mapping[str, submitit.Job]) -> Iterator[tuple[str, str]]:
    """Each as it ends, with why it failed; empty where it did not."""
    left, gone = dict(jobs), {}
    while left:
        states, now = _states(), time.monotonic()
        for key, job in list(left.items()):
            state = None if states is None else states.get(job.job_id, "")
            if state in ENDED:
                gone.setdefault(key, now)
            else:
                gone.pop(key, None)  # queued again, or nobody knows
            if job.paths.result_pickle.exists():
                why = _failure(job)
            elif state is not None and now - gone.get(key, now) > GRACE:
                why = _death(job, state)
            else:
                continue
            del left[key]
            yield key, why
        if left:
            time.sleep(LOOK)


def _failure(job: submitit.Job) -> str:
    """Why a job that has a result failed: the last line of its traceback. Empty where it did not."""
    from submitit.core.utils import pickle_load

    outcome, trace = pickle_load(job.paths.result_pickle)
    if outcome == "success":
        return ""
    kind, _, text = trace.strip().splitlines()[-1].partition(": ")
    name = kind.rpartition(".")[2]
    return text if name in ("UserError", "Diverged") else f"{name}: {text} (log: {job.paths.stdout})"


def _death(job: submitit.Job, state: str) -> str:
    """Why a job ended without a result."""
    how = f"its job {job.job_id} ended ({state.lower().replace('_', ' ') or 'it has left the queue'})"
    log = job.paths.stdout
    return f"{how} without a result; log: {log}" if log.exists() else f"{how} before it began"


def _states() -> dict[str, str] | None:
    """Of the user's jobs, by their ids, ended ones included for some minutes; None while the cluster does not answer."""
    ask = ["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i %T"]
    done = subprocess.run(ask, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        return None
    return dict(line.split() for line in done.stdout.splitlines())
