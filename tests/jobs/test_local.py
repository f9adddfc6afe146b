"""Work on this machine: what is shared first, the longest first, and what is lost of a process that dies."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numba
import pandas as pd
import pytest
import torch
from helpers import ROOT
from helpers.ranks import Rank

from i4d_bench import report
from i4d_bench.config import presets
from i4d_bench.config.experiment import Teacher
from i4d_bench.jobs import local, mps
from i4d_bench.jobs.bench import prepare
from i4d_bench.jobs.names import seeds
from i4d_bench.jobs.plan import Run, RunPlan, plan
from i4d_bench.jobs.run import run
from i4d_bench.jobs.work import Task, do, pieces, tasks
from i4d_bench.progress import Whole
from i4d_bench.report import terminal
from i4d_bench.results.store import Store
from i4d_bench.train import distributed
from i4d_bench.train.checkpoint import Progress
from i4d_bench.train.loop import Diverged
from i4d_bench.types import UserError

DESIGNS = ("local_adaln", "static")


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    """What is asked here is what the store holds: tables of it are test_run's, of several seeds test_report's."""
    monkeypatch.setattr(report, "build_runs", lambda *_: ({}, {}, []))
    monkeypatch.setattr(terminal, "show", lambda *_: None)


def experiment(**more):
    return dataclasses.replace(presets.smoke(), designs=DESIGNS, **more)


@pytest.mark.parametrize(
    ("text", "wanted"), [("0", (0,)), ("0-3", (0, 1, 2, 3)), ("0,2,5", (0, 2, 5)), ("1-2,2,7", (1, 2, 7))]
)
def test_seeds_as_they_are_written(text, wanted):
    assert seeds(text) == wanted


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "0..3"])
def test_what_is_no_seed_is_named(text):
    with pytest.raises(UserError, match="0-3"):
        seeds(text)


def test_two_processes_make_what_one_makes(cpu, tmp_path, capfd):
    """Two seeds in one call, one table; the same numbers as one process after the other, and nothing is done twice."""
    e = experiment()
    both = run(e, tmp_path / "a" / "reports", tmp_path / "a" / "runs", jobs=2, seeds=(0, 1))
    said = capfd.readouterr().out
    assert "2 processes on" in said and "4 of 4 runs" in said
    store = Store(both)
    assert {(r.design, r.seed) for r in store.records} == {(d, s) for d in DESIGNS for s in (0, 1)}
    assert all(r.extras.keys() == store.records[0].extras.keys() for r in store.records)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = Store(run(e, tmp_path / "b" / "reports", tmp_path / "b" / "runs", jobs=1, seeds=(0, 1)))
    finally:
        torch.set_num_threads(threads)
    key = ["design", "seed", "set", "sample", "metric"]
    values = [s.samples.set_index(key)["value"].sort_index() for s in (store, one)]
    pd.testing.assert_series_equal(*values, rtol=0.02, atol=0.02)
    run(e, tmp_path / "a" / "reports", tmp_path / "a" / "runs", jobs=2, seeds=(0, 1))
    assert "already finished: local_adaln (2 seeds), static (2 seeds)" in capfd.readouterr().out


def test_a_worker_has_its_threads_also_where_torch_had_begun():
    code = (
        "import torch, numba\nfrom i4d_bench.jobs.local import use_threads\ntorch.get_num_threads()\nuse_threads(1)\n"
        "print(torch.get_num_threads(), numba.get_num_threads())"
    )
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout == "1 1\n"


def _tell(pipe, workers, on_cores):
    pipe.send((os.environ["OPENBLAS_NUM_THREADS"], os.environ.get("CUDA_VISIBLE_DEVICES"), on_cores))


@pytest.mark.parametrize(("card", "shares", "threads"), [(None, 3, "2"), ("5", 8, "1")])
def test_numpys_threads_are_a_share_of_the_cores(monkeypatch, card, shares, threads):
    monkeypatch.setattr(local, "_serve", _tell)
    monkeypatch.setattr(local, "cores", lambda: 7)
    before = os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OPENBLAS_NUM_THREADS")
    with Whole(1, "runs") as whole:
        worker = local._Room([], whole, [card], shares)._hire(card)
    assert worker.pipe.recv() == (threads, before[0] if card is None else card, card is None)
    worker.process.join()
    assert before == (os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OPENBLAS_NUM_THREADS"))


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    numba.set_num_threads(numba.get_num_threads())  # its begin undoes what torch was told
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("driver", ["image", "sliders"])
def test_pieces_made_apart_are_those_made_in_turn(cpu, tmp_path, one_thread, driver):
    """The backbone too, which comes before the encoder here."""
    whole, apart = (plan(experiment(driver=driver), tmp_path, tmp_path / runs) for runs in ("whole", "apart"))
    prepare(whole)
    todo = pieces([Task(apart)])
    assert [t.piece for t in todo] == ["encoder", "reader", "backbone"][driver != "image" :]
    for task in reversed(todo):
        do(task)
        made, alike = (torch.load(getattr(p, task.piece), weights_only=True) for p in (apart, whole))
        for part in ("backbone", "optimizer") if task.piece == "backbone" else made.keys():
            torch.testing.assert_close(made[part], alike[part], rtol=0, atol=0, equal_nan=True)
    assert not pieces([Task(apart)]) and not apart.codes.exists()
    do(Task(apart))
    assert apart.codes.read_bytes() == whole.codes.read_bytes()


@pytest.fixture
def no_card(monkeypatch):
    """Work goes to a card that there is not, and hence is done on the CPU."""
    monkeypatch.setattr(local, "_cards", lambda: ["-1"])
    monkeypatch.setattr(mps, "CONTROL", "no-such-control")


def test_on_gpus_workers_make_the_pieces(cpu, tmp_path, no_card, monkeypatch, capfd):
    monkeypatch.setattr(local, "networks_of_data", lambda *_: pytest.fail("the parent made them"))
    folder = run(experiment(driver="image"), tmp_path / "reports", tmp_path / "runs", jobs=2)
    said = capfd.readouterr().out
    assert {r.design for r in Store(folder).records} == set(DESIGNS) and "waiting for another process" not in said
    for piece in ("image driver's encoder", "expression reader", "backbone, seed 0"):
        assert said.count(f"{piece}: done") == 1
    assert said.count("encoder reads the 52 coefficients") == 1, "the notes of the probe"


def _plan(seed: int, **more) -> RunPlan:
    runs = tuple(_run(f"{d}-s{seed}", d) for d in DESIGNS)
    here = Path("nowhere")
    reader, encoder = here / "reader.pt", here / "encoder.pt"
    return RunPlan(
        experiment(seed=seed, **more), here, here / f"s{seed}.pt", None, reader, encoder, {"training": "t"}, runs
    )


def _run(name: str, entry: str) -> Run:
    return Run(entry, name, "", Path(name))


def _room(*tasks: Task):
    return local._Room(list(tasks), Whole(4, "runs"), [None, None], 2)


def _worker(task: Task | None = None, last: RunPlan | None = None) -> local._Worker:
    process = multiprocessing.get_context("spawn").Process()
    return local._Worker(None, process, multiprocessing.Pipe()[0], task, last)


def test_runs_wait_for_what_their_designs_share_and_no_others():
    one, two = _plan(0), _plan(1)
    shared, ready = Task(one), Task(two, two.runs[0])
    room = _room(ready, Task(one, one.runs[0]))
    room.workers = [_worker(shared), _worker()]
    assert room._next(room.workers[1]) == ready
    room.todo = [Task(one, one.runs[0])]
    assert room._next(room.workers[1]) is None
    room.workers[0].task = None
    assert room._next(room.workers[1]) == room.todo[0]


def test_pieces_are_given_out_at_once_and_runs_wait_for_theirs():
    todo = tasks([_plan(0), _plan(1)])
    room = _room(*pieces(todo), *todo)
    room.workers = [_worker() for _ in range(5)]
    given = []

    def give():
        for worker in room.workers:
            if worker.task is None and (task := room._next(worker)):
                room.todo.remove(task)
                worker.task = task
                given.append(str(task))
        return given

    def finish(*names: str):
        for worker in room.workers:
            if str(worker.task) in names:
                worker.task = None
        given.clear()
        return give()

    encoder, reader = "image driver's encoder", "expression reader"
    assert give() == [encoder, reader, "backbone, seed 0", "backbone, seed 1"]
    assert finish(encoder, "backbone, seed 0") == []
    assert finish(reader) == ["what designs share, seed 0"]
    assert finish("what designs share, seed 0") == ["local_adaln, seed 0", "static, seed 0"]
    assert finish("backbone, seed 1") == ["what designs share, seed 1"]
    assert finish("what designs share, seed 1") == ["local_adaln, seed 1", "static, seed 1"]
    assert not room.todo


def test_what_is_there_or_needs_the_driver_is_no_piece(tmp_path):
    """A teacher's pairs are given with codes, and a run's weights have a backbone."""
    names = lambda *plans: [str(t) for t in pieces(tasks(list(plans)))]  # noqa: E731
    encoder, reader = "image driver's encoder", "expression reader"
    beside = dataclasses.replace(experiment().world, beside="procedural")
    for driven in ({"teacher": Teacher(path="pairs")}, {"init": ("runs/its",)}, {"world": beside}):
        assert names(_plan(0, **driven)) == [encoder, reader]
    (tmp_path / "its.pt").touch()
    there = dataclasses.replace(_plan(0), encoder=tmp_path / "its.pt", reader=None)
    assert names(there) == ["backbone, seed 0"]
    assert names(dataclasses.replace(there, backbone=tmp_path / "its.pt")) == []
    assert names(dataclasses.replace(_plan(0), backbone=tmp_path / "its.pt")) == [encoder, reader, "backbone, seed 0"]


@pytest.mark.parametrize(
    ("fails", "done"),
    [
        ("backbone, seed 0", ["local_adaln, seed 1", "static, seed 1"]),
        ("what designs share, seed 1", ["local_adaln, seed 0", "static, seed 0"]),
        ("image driver's encoder", []),
        ("expression reader", []),
        ("static, seed 0", ["local_adaln, seed 0", "static, seed 0", "local_adaln, seed 1", "static, seed 1"]),
    ],
)
def test_what_waits_for_a_piece_that_failed_is_given_up_alone(monkeypatch, fails, done):
    def give(self, worker, task):
        self.todo.remove(task)
        worker.task = task

    monkeypatch.setattr(local._Room, "_give", give)
    monkeypatch.setattr(local._Room, "_outcome", lambda _, worker: "it was killed" * (str(worker.task) == fails))
    monkeypatch.setattr(local, "wait", lambda ready: ready[:1])
    todo = tasks([_plan(0), _plan(1)])
    room = _room(*pieces(todo), *todo)
    room.workers = [_worker(), _worker()]
    for worker in room.workers:
        monkeypatch.setattr(worker.process, "_sentinel", object(), raising=False)
    assert sorted(str(t) for t in room._finished()) == sorted(done)
    assert room.failed == {fails: "it was killed"} and not room.todo


def test_a_worker_stays_with_the_plan_that_it_has_open():
    one, two = _plan(0), _plan(1)
    longest, own = Task(one, one.runs[0]), Task(two, two.runs[1])
    room = _room(longest, own)
    assert room._next(_worker(last=two)) == own
    assert room._next(_worker()) == longest
    assert room._next(_worker(last=None)) == longest


def test_a_worker_that_died_while_it_waited_is_replaced(monkeypatch):
    """Its next task is another's."""
    task, asked = Task(_plan(0), _plan(0).runs[0]), []

    def hire(self, card):
        ours, theirs = multiprocessing.Pipe()
        theirs.send("")  # done
        asked.append(theirs)
        worker = _worker()
        worker.pipe = ours
        monkeypatch.setattr(worker.process, "_sentinel", theirs, raising=False)
        return worker

    monkeypatch.setattr(local._Room, "_hire", hire)
    room = _room(task)
    room.workers = [_worker()]
    assert list(room._finished()) == [task] and not room.failed
    assert [theirs.recv() for theirs in asked] == [task]


def test_the_longest_come_first(monkeypatch):
    one = _plan(0)
    monkeypatch.setattr(local, "Store", lambda path: SimpleNamespace(records=known))
    tasks = [
        Task(one, _run(entry, entry))
        for entry in ("static", "local_adaln@budget=4", "global_joint_attention", "local_mlp")
    ]
    known = []
    order = lambda: [t.run.entry for t in sorted(tasks, key=local._expected(tasks), reverse=True)]  # noqa: E731
    assert order()[:2] == ["local_adaln@budget=4", "global_joint_attention"]
    measured = {"local_mlp": 9.0, "local_adaln@budget=4": 3.0, "static": 0.3, "global_joint_attention": 8.0}
    known = [SimpleNamespace(design=d, train_seconds=seconds) for d, seconds in measured.items()]
    assert order()[0] == "local_mlp", "what was measured counts"


@pytest.fixture
def faulty(monkeypatch):
    """What the designs of seed 0 share cannot be made, nor local_adaln of seed 1. Tells what was tried."""
    tried = []

    def do(task: Task) -> None:
        tried.append(str(task))
        if task.run is None and task.plan.experiment.seed == 0:
            raise Diverged("the loss of backbone became nan by step 25", Progress())
        if tried[-1] == "local_adaln, seed 1":
            raise ValueError("no such shape")

    monkeypatch.setattr(local, "do", do)
    return tried


def test_one_process_goes_on_where_a_task_fails(faulty):
    """But for the runs of a plan whose designs lack what they share."""
    todo = [Task(p, r) for p in (_plan(0), _plan(1)) for r in (None, *p.runs)]
    failed = local._alone(todo, Whole(4, "runs"))
    assert failed == {
        "what designs share, seed 0": "the loss of backbone became nan by step 25",
        "local_adaln, seed 1": "ValueError: no such shape",
    }
    assert faulty[1:] == ["what designs share, seed 1", "local_adaln, seed 1", "static, seed 1"]
    assert failed == {str(t): why for t in todo if (why := local._answer(t))}, "a worker says the same"


def test_processes_that_train_together_end_where_one_fails(faulty, monkeypatch):
    """The others may not have failed, and would wait for it; all of them diverge."""
    monkeypatch.setattr(distributed, "ranks", lambda: 2)
    assert local._alone([Task(_plan(0))], Whole(4, "runs"))
    with pytest.raises(ValueError, match="no such shape"):
        local._alone([Task(_plan(1), _plan(1).runs[0])], Whole(4, "runs"))


INTERRUPTED = """
import os, signal
from dataclasses import replace
from pathlib import Path
os.setsid()
signal.signal(signal.SIGINT, signal.default_int_handler)
from i4d_bench.config import presets
from i4d_bench.jobs.run import run
run(replace(presets.smoke(), designs=("local_adaln", "static")), Path("reports"), Path("runs"), jobs=2)
"""


@pytest.fixture
def killed(monkeypatch):
    """killed(name): the process that takes up the task of this name will be. Returns their ids."""
    waited, give, pids = local.wait, local._Room._give, []

    def of(name: str) -> list[int]:
        rooms = []

        def killing(ready):
            for worker in rooms[-1].workers:
                if str(worker.task) == name and not pids:
                    pids.append(worker.process.pid)
                    os.kill(worker.process.pid, signal.SIGKILL)
            return waited(ready)

        monkeypatch.setattr(local._Room, "_give", lambda self, *what: rooms.append(self) or give(self, *what))
        monkeypatch.setattr(local, "wait", killing)
        return pids

    return of


def test_a_process_that_dies_is_named_and_the_others_work_on(cpu, tmp_path, killed):
    """The run of the one that was killed failed; its next start does it."""
    pids = killed("local_adaln, seed 0")
    with pytest.raises(UserError, match=r"local_adaln, seed 0 failed: its process was killed \(exit code -9\)"):
        run(experiment(), tmp_path / "reports", tmp_path / "runs", jobs=2)
    assert len(pids) == 1
    folder = run(experiment(), tmp_path / "reports", tmp_path / "runs", jobs=1)
    assert {r.design for r in Store(folder).records} == set(DESIGNS)


def test_a_piece_whose_process_dies_ends_the_call_and_is_made_by_the_next(cpu, tmp_path, no_card, killed):
    pids, e = killed("image driver's encoder"), experiment(driver="image")
    with pytest.raises(UserError, match=r"^image driver's encoder failed: its process was killed [^;]*$"):
        run(e, tmp_path / "reports", tmp_path / "runs", jobs=2)
    assert len(pids) == 1 and list((tmp_path / "runs" / "backbones").glob("*.pt")), "the others were made"
    folder = run(e, tmp_path / "reports", tmp_path / "runs", jobs=2)
    assert {r.design for r in Store(folder).records} == set(DESIGNS)


def test_an_interrupted_call_leaves_no_process_and_goes_on(cpu, tmp_path, monkeypatch):
    """The parent alone is interrupted; its workers are those of its session that were spawned."""
    monkeypatch.chdir(tmp_path)
    parent = Rank(INTERRUPTED, {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"})
    workers = lambda: subprocess.run(["pgrep", "-s", str(parent.pid), "-f", "spawn_main"], capture_output=True).stdout  # noqa: E731
    try:
        began = time.monotonic()
        while not list(tmp_path.glob("runs/backbones/*.pt")):
            assert parent.returncode is None and time.monotonic() - began < 120, parent.stderr.read()
            time.sleep(0.05)
        assert len(workers().split()) == 2
        parent.send_signal(signal.SIGINT)
        assert parent.wait(60) == 1 and "KeyboardInterrupt" in parent.stderr.read()
    finally:
        parent.kill()
    assert not workers()
    folder = run(experiment(), tmp_path / "reports", tmp_path / "runs", jobs=1)
    assert {r.design for r in Store(folder).records} == set(DESIGNS)
