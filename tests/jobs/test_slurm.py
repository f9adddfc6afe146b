"""Work on a real SLURM of one node: the records are those of this machine, jobs that die are reported, others go on."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import threading
import time
from functools import partial

import pytest
import torch
from helpers import ROOT
from helpers import slurm as own

from i4d_bench.config import presets
from i4d_bench.config.experiment import Stage
from i4d_bench.jobs import local, run, slurm
from i4d_bench.jobs.plan import plan
from i4d_bench.jobs.work import Task, do, tasks
from i4d_bench.results.store import Store
from i4d_bench.types import UserError

OPTIONS = {"partition": "main", "cpus_per_task": "1", "timeout_min": "10"}


@pytest.fixture(scope="module")
def cluster(cpu, tmp_path_factory):
    """With two cores, each job on one of them, as this process is meanwhile: bits depend on the number of threads (numba's, too,
    which torch takes over when numba begins)."""
    threads = torch.get_num_threads()
    local.use_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(slurm, "LOOK", 0.3)
        patch.setattr(slurm, "GRACE", 2.0)
        patch.setenv("PYTHONPATH", str(ROOT))
        with own.cluster(tmp_path_factory.mktemp("slurm"), 2):
            yield
    local.use_threads(threads)


def long(designs, steps=100_000):
    """The smoke preset, of so many steps, each of which is kept."""
    e = presets.smoke()
    train = dataclasses.replace(
        e.train, stages=(Stage(steps, 32, 16, 2, 2),), checkpoint_seconds=0.0, validate_every=steps
    )
    return dataclasses.replace(e, train=train, designs=designs)


@pytest.fixture(scope="module")
def ready(cluster, tmp_path_factory):
    """Plans an experiment whose designs share what was made once for all of them."""
    runs = tmp_path_factory.mktemp("ready") / "runs"

    def made(experiment, folder):
        what = plan(experiment, folder / "reports", runs)
        if not what.backbone.exists():
            do(Task(what))
        return what

    return made


def test_a_machine_without_a_cluster_is_said_before_anything_is_made(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="this machine has no sbatch, srun, squeue, scancel: start the command on"):
        run.run(long(("static",)), tmp_path / "reports", tmp_path / "runs", cluster=OPTIONS)
    assert not list(tmp_path.iterdir())


def test_a_job_has_threads_for_the_cores_that_it_asked_for_and_the_users_setup(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    for program in slurm.PROGRAMS:
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    executor = slurm._executor({"setup": "module load cuda", "cpus_per_task": "6"}, tmp_path / "logs")
    made = executor._executor.parameters
    assert made["setup"] == [slurm.THREADS, "module load cuda"] and made["cpus_per_task"] == 6
    for asked, threads in (({"SLURM_CPUS_PER_TASK": "6"}, "6"), ({}, "1")):
        said = subprocess.run(
            ["sh", "-c", f"{slurm.THREADS}; echo $OPENBLAS_NUM_THREADS"], env=asked, capture_output=True, text=True
        )
        assert said.stdout == f"{threads}\n"


class Working(threading.Thread):
    """`slurm.work` on the runs of a plan, beside the test."""

    def __init__(self, what, logs):
        self.what, self.logs, self.failed = what, logs, None
        super().__init__(daemon=True)
        self.start()

    def run(self):
        todo = [Task(self.what, r) for r in self.what.unfinished()]
        self.failed = slurm.work([self.what], todo, OPTIONS, self.logs)

    def ended(self) -> dict[str, str]:
        self.join(60)
        assert not self.is_alive() and self.failed is not None
        return self.failed


def step(of) -> int:
    """How far a run is by its checkpoint."""
    file = of.folder / "checkpoint.pt"
    return torch.load(file)["progress"]["step"] if file.exists() else 0


def job_of(of, logs) -> str:
    return next(job for key, job in slurm._known(logs).items() if key.startswith(of.id))


def test_a_job_is_the_task_that_it_was_queued_as(cpu, tmp_path):
    """With a film or curves, too: what it is looks the same on the node, and other code does not."""
    e = dataclasses.replace(presets.smoke(), designs=("static",))
    what = plan(e, tmp_path / "reports", tmp_path / "runs", log=tmp_path / "curves", film=True)
    slurm._Job(Task(what))._check()
    changed = dataclasses.replace(what, made={**what.made, "training": "other code"})
    with pytest.raises(UserError, match="have changed since the job was queued"):
        slurm._Job(Task(changed))._check()


@pytest.mark.slurm
def test_the_records_are_those_of_this_machine(cluster, tmp_path):
    e = dataclasses.replace(presets.smoke(), designs=("local_adaln", "static"))
    each = [dataclasses.replace(e, seed=s) for s in (0, 1)]
    folders = [(tmp_path / name / "reports", tmp_path / name / "runs") for name in ("cluster", "here")]
    logs = tmp_path / "logs"
    plans, todo = slurm.planned(partial(run._planned, each, *folders[0], False, None), OPTIONS, logs)
    assert plans == [plan(e, *folders[0], film=e.seed == 0) for e in each], "names are those of the node's hardware"
    assert slurm.work(plans, todo, OPTIONS, logs) == {}
    assert not tasks(plans) and len(slurm._known(logs)) == 6
    here = [plan(e, *folders[1]) for e in each]
    assert local.work(here, tasks(here), 1) == {}
    there, these = ({r.run_id: r for r in Store(p[0].report).records} for p in (plans, here))
    assert len(these) == 4 and there.keys() == these.keys()
    for name, record in these.items():
        for field in ("metrics", "status", "made", "seed", "params"):
            assert getattr(there[name], field) == getattr(record, field), (name, field)
        gaps = [[point["gap"] for point in r.curve] for r in (there[name], record)]
        assert gaps[0] == gaps[1]


@pytest.mark.slurm
def test_a_job_that_dies_is_reported_with_its_log(ready, tmp_path):
    what = ready(long(("local_adaln", "local_film")), tmp_path)
    killed, cancelled = what.runs
    working = Working(what, tmp_path / "logs")
    own.wait_until(lambda: all(step(r) for r in what.runs))
    jobs = {r.id: job_of(r, tmp_path / "logs") for r in what.runs}
    os.kill(own.task_of(jobs[killed.id]), signal.SIGKILL)
    own.called("scancel", jobs[cancelled.id])
    failed = working.ended()
    assert failed.keys() == {str(Task(what, r)) for r in what.runs}
    for one, state in ((killed, "failed"), (cancelled, "cancelled")):
        why = failed[str(Task(what, one))]
        assert state in why and jobs[one.id] in why
        log = tmp_path / "logs" / f"{jobs[one.id]}_0_log.out"
        assert why.endswith(str(log)) and log.exists()
    assert len(what.unfinished()) == 2


@pytest.mark.slurm
def test_a_job_that_is_queued_again_goes_on_from_its_checkpoint(ready, tmp_path):
    """By the cluster, then by itself as when its time is up. A second call of the parent meanwhile submits nothing."""
    what = ready(long(("local_adaln",), steps=200), tmp_path)
    one, logs = what.runs[0], tmp_path / "logs"
    calls, seen = [Working(what, logs)], [0]
    for how in ("scontrol requeue", "scancel --signal=USR2"):
        own.wait_until(lambda: step(one) > seen[-1] + 10)
        job = job_of(one, logs)
        own.called(*how.split(), job)
        own.wait_until(lambda job=job: own.state(job) == "PENDING")
        seen.append(step(one))
        calls.append(Working(what, logs))
        own.release(job)
    assert 20 < seen[-1] < 200, "it was still at work"
    while calls[0].is_alive():
        seen.append(step(one))
        time.sleep(0.05)
    assert [call.ended() for call in calls] == [{}, {}, {}]
    assert seen == sorted(seen) and seen[-1] == 200 and len(set(seen)) > 5
    assert not what.unfinished() and slurm._known(logs) == {slurm._key(Task(what, one)): job}


@pytest.mark.slurm
def test_a_failure_of_what_is_shared_cancels_the_runs(cluster, tmp_path):
    what = plan(long(("static",)), tmp_path / "reports", tmp_path / "runs")
    other = dataclasses.replace(what, made={**what.made, "hardware": "another"})
    failed = slurm.work([other], tasks([other]), OPTIONS, tmp_path / "logs")
    shared, one = failed.values()
    assert shared.startswith("planned for another, but this node is") and "ended (cancelled) before it began" in one


@pytest.mark.slurm
def test_mistakes_are_one_sentence(cluster, tmp_path):
    for options, sentence in {
        "nonsense=1": "Unknown argument 'nonsense'",
        "partition=nowhere": "sbatch refused: .*[Ii]nvalid partition",
        "timeout_min=soon": "timeout_min",
        "nodes=2": "one process on one node",
    }.items():
        key, _, value = options.partition("=")
        with pytest.raises(UserError, match=sentence) as e:
            slurm.planned(dict, OPTIONS | {key: value}, tmp_path)
        assert "\n" not in str(e.value)
    with pytest.raises(UserError, match="there is no preset 'none'"):
        slurm.planned(partial(presets.preset, "none"), OPTIONS, tmp_path)
