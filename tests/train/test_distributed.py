"""Several processes train as one does, and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT, ranks, teacher

from i4d_bench.config import presets
from i4d_bench.config.experiment import Stage
from i4d_bench.config.override import override
from i4d_bench.data.teacher.store import Store as Pairs
from i4d_bench.drivers.driver import Driver
from i4d_bench.jobs.run import _check_shares
from i4d_bench.loader import Loader
from i4d_bench.results.store import Store
from i4d_bench.train import distributed
from i4d_bench.train.distil import FromPairs, Mixed
from i4d_bench.train.lessons import FromFrames
from i4d_bench.types import UserError

CPU = torch.device("cpu")
TRAINING = """
import os, signal, sys
from pathlib import Path
import torch
from i4d_bench.cli import _fail
from i4d_bench.config import presets
from i4d_bench.config.override import override
from i4d_bench.data import synthetic
from i4d_bench.data.frames import open_frames
from i4d_bench.drivers.driver import Driver
from i4d_bench.loader import Loader
from i4d_bench.train import distributed
from i4d_bench.train.loop import Trainer
from i4d_bench.types import UserError

def train(folder, killed=None):
    e = override(presets.smoke(), ["train.warmup=[[2,32,16,4,2]]", "train.stages=[[6,32,16,4,2]]", "train.accumulate=2",
                                   "train.loss.adversarial=0.01", "train.loss.adversarial_from=0.2"])
    frames = open_frames(synthetic.rendered(e.world))
    cpu, step = torch.device("cpu"), Trainer.step
    def dies(self, student, lesson, stage, number, optimizer):
        if number == killed and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, student, lesson, stage, number, optimizer)
    Trainer.step = dies
    trainer = Trainer(e, Loader(frames, Driver("sliders", frames), cpu), None, cpu)
    trainer.warm_up(folder / "backbone.pt")
    trainer.design(folder, "local_adaln", folder / "backbone.pt")

try:
    with distributed.joined():
        train(Path(FOLDER), KILLED)
except UserError as e:
    sys.exit(_fail(f"i4d-bench: {e}", 2))
"""


def training(folder: Path, killed: int | None = None) -> str:
    return TRAINING.replace("FOLDER", repr(str(folder))).replace("KILLED", repr(killed))


def test_one_process_alone_is_every_rank():
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.full((2,), 3.0)
    with distributed.joined():
        distributed.average([parameter])
        assert distributed.first() and distributed.ranks() == 1 and list(range(3)[distributed.share(3)]) == [0, 1, 2]
        assert distributed.of_first(lambda: "plan") == distributed.after_first(lambda: "plan") == "plan"
        assert distributed.collected(2.0) == [2.0] and distributed.mean(parameter.grad).tolist() == [3.0, 3.0]


def test_ranks_average_agree_and_share():
    code = """
import torch
from i4d_bench.train import distributed as d
from i4d_bench.types import UserError
with d.joined():
    ps = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(5)), torch.nn.Parameter(torch.zeros(1))]
    ps[0].grad, ps[2].grad = torch.full((2, 3), float(d.rank())), torch.full((1,), 10.0 + d.rank())
    d.average(ps)
    assert (ps[0].grad == 0.5).all() and ps[1].grad is None and ps[2].grad.item() == 10.5
    assert d.mean(torch.tensor(float(d.rank()))) == 0.5 and d.collected(d.rank() + 7) == [7, 8]
    assert d.of_first(lambda: {"rank": d.rank()}) == {"rank": 0}
    assert list(range(6)[d.share(6)]) == [d.rank(), d.rank() + 2, d.rank() + 4]
    try:
        d.share(5)
        raise AssertionError
    except UserError as e:
        assert "5 people cannot be divided evenly among 2 processes" in str(e)
"""
    assert ranks.end(ranks.start(code)) == [(0, "", "")] * 2


def test_two_ranks_train_as_one_although_one_was_killed(smoke_frames, tmp_path):
    """With parts, an adversary and random backgrounds: to rounding the same weights."""
    alone = ranks.start(training(tmp_path / "one"), 1)
    first, second = ranks.end(ranks.start(training(tmp_path / "two", killed=6)))
    assert second[0] == -signal.SIGKILL and first[0] == 2
    assert first[2] == f"i4d-bench: {distributed.GONE}\n"
    step = torch.load(tmp_path / "two" / "checkpoint.pt")["progress"]["step"]
    assert step == 4, "the last validation's"
    assert [code for code, *_ in ranks.end(ranks.start(training(tmp_path / "two")))] == [0, 0]
    assert ranks.end(alone)[0][0] == 0
    two, one = (torch.load(tmp_path / name / "checkpoint.pt") for name in ("two", "one"))
    for part in ("backbone", "fusion"):
        for key, value in one[part].items():
            torch.testing.assert_close(two[part][key], value, atol=5e-5, rtol=1e-4, msg=key)
    assert [c["step"] for c in two["progress"]["curve"]] == [c["step"] for c in one["progress"]["curve"]] == [2, 4, 6]
    assert two["adversary"]["steps"] == one["adversary"]["steps"]


def test_a_signal_ends_all_with_one_sentence():
    """Also one that waits for another, where Python does not hear it."""
    code = """
import sys, time
from i4d_bench.cli import _fail
from i4d_bench.train import distributed as d
from i4d_bench.types import UserError
d.PATIENCE = (0.5, 0.5)
try:
    with d.joined():
        d.wait()
        print("here", file=sys.stdout, flush=True)
        time.sleep(60) if d.first() else d.wait()
except UserError as e:
    sys.exit(_fail(f"i4d-bench: {e}", 2))
"""
    started = ranks.start(code)
    for process in started:
        assert process.stdout is not None and process.stdout.readline() == "here\n"
    started[1].send_signal(signal.SIGTERM)
    assert started[1].wait(30) == 2
    started[0].send_signal(signal.SIGTERM)
    first, second = ranks.end(started)
    assert (first[0], first[2]) == (2, "") and second[2] == f"i4d-bench: {distributed.GONE}\n"


@pytest.mark.parametrize("drive", [True, False])
def test_ranks_have_parts_of_one_lesson(smoke_frames, tmp_path, monkeypatch, drive):
    """People, pictures and backgrounds, also of a mixed step."""
    store = Pairs(teacher.store(tmp_path / "s", people=5, drivers=6))
    driver = Driver("sliders", smoke_frames)
    own = FromFrames(Loader(smoke_frames, driver, CPU), 32, seed=0)
    lessons, stage = Mixed(FromPairs(store, driver, None, 32, seed=0), own), Stage(1, 32, 16, 8, 2)

    def lesson(rank: int, count: int):
        monkeypatch.setattr(distributed, "ranks", lambda: count)
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        lesson = next(iter(lessons.over(range(3, 4), stage, drive)))
        return lesson, lesson.backgrounds(3)[lesson.people]

    whole, colours = lesson(0, 1)
    assert whole.people.tolist() == list(range(8)) and colours.shape == (8, whole.frames, 3)
    for rank in range(2):
        part, seen = lesson(rank, 2)
        assert part.people.tolist() == list(range(rank, 8, 2))
        assert torch.equal(seen, colours[part.people]) and torch.equal(part.images, whole.images[part.people])
        assert torch.equal(part.truth.rgb, whole.truth.rgb.unflatten(0, (8, -1))[part.people].flatten(0, 1))


def test_uneven_halves_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "ranks", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    mixed = override(presets.smoke(), ["teacher.path=pairs"])
    _check_shares(mixed)
    with pytest.raises(UserError, match="1 people cannot be divided evenly among 2 processes"):
        _check_shares(override(mixed, ["teacher.bias_sink=true"]))


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="started 2 processes, and this machine has 1 GPUs"):
        distributed._begin(torch.distributed.HashStore(), 0, 2)


def test_torchrun_runs_the_whole_job(tmp_path, smoke_frames):
    command = ["torch.distributed.run", "--nproc-per-node", "2", "-m", "i4d_bench.cli", "run", "--preset", "smoke"]
    more = ["--designs", "static", "--reports", str(tmp_path / "reports"), "--runs", str(tmp_path / "runs")]
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", *command, *more], capture_output=True, encoding="utf-8", env=env, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tables and figures") == done.stdout.count("static: control") == 1
    (record,) = Store(next((tmp_path / "reports").iterdir())).records
    assert record.metrics and "trained by 2 processes together" in record.notes
