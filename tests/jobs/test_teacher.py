"""The whole path in miniature: pairs are made and checked, a design learns from them by every term and survives a kill -9."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import torch
from helpers import teacher
from helpers.ranks import Rank, command
from PIL import Image

from i4d_bench import cli
from i4d_bench.assets import MOBILEFACE
from i4d_bench.config import presets
from i4d_bench.config.experiment import Teacher
from i4d_bench.config.override import override
from i4d_bench.data.teacher.store import Store as TeacherStore
from i4d_bench.jobs import bench
from i4d_bench.jobs.names import folder_name
from i4d_bench.jobs.plan import plan
from i4d_bench.results.store import Store
from i4d_bench.train.checkpoint import Progress
from i4d_bench.train.loop import Diverged
from i4d_bench.types import UserError

MAKE = ["teacher", "make", "--animator", "world", "--preset", "smoke", "--pairs", "2", "--frontal", "--out", "pairs"]
TERMS = ("loss.identity=0.1", "loss.adversarial=0.025", "loss.lpips=0.0", "stages=[[6,16,8,2,2],[6,32,16,2,2]]")
RUN = ["run", "--preset", "smoke", "--designs", "local_adaln", "--teacher", "pairs", "--supervision", "lifted"]
RUN += ["--bias-sink", "--set", *(f"train.{t}" for t in TERMS), "train.checkpoint_seconds=0.0", "train.accumulate=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def finished(cpu, monkeypatch, capsys):
    """finished(folder, *words) → what a command prints that ends well, in this process."""

    def run(folder, *words) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["i4d-bench", *words])
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as stop:
            assert not stop.code, capsys.readouterr()
        return capsys.readouterr().out

    return run


def test_from_an_animator_to_scores(folder, finished):
    finished(folder, *MAKE)
    assert "18 good, 0 bad" in finished(folder, "data", "check", "pairs")

    process = Rank(command(*RUN), {"CUDA_VISIBLE_DEVICES": ""})
    deadline = time.monotonic() + 240
    while not (found := list(folder.glob("runs/*/local_adaln-*/checkpoint.pt"))):
        assert process.returncode is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.05)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    stopped = torch.load(found[0])["progress"]["step"]
    assert 0 < stopped < 12

    said = finished(folder, *RUN)
    state = torch.load(found[0])
    assert state["progress"]["step"] == 12 == state["progress"]["curve"][-1]["step"]
    assert state["adversary"]["steps"] == 6, "one in each of the last six steps"
    assert state["sink"]["token"].any()
    assert "CSIM by dlib" not in said, "no score here is one that training saw"
    (report,) = folder.glob("reports/*-lifted-bias_sink-*")
    (record,) = Store(report).records
    assert {"self", "cross", "novel", "recon"} <= set(record.metrics)
    assert len(list(folder.glob("runs/backbones/lifter-*.pt"))) == 1


@pytest.mark.assets
def test_an_animator_of_photos_works_on_what_the_lifting_network_turned_and_training_uses_the_same(tmp_path, finished):
    from helpers.real_faces import clip_frames

    for name, clip in (("ann", "d0"), ("ben", "d3"), ("drives", "d9")):
        place = tmp_path / ("drivers" if name == "drives" else "sources")
        place.mkdir(exist_ok=True)
        Image.fromarray(clip_frames(clip, 1)[0]).save(place / f"{name}.png")
    shutil.copy(tmp_path / "sources" / "ann.png", tmp_path / "animated.png")
    (tmp_path / "show.py").write_text(
        "import shutil, sys; shutil.copy(sys.argv[1], 'seen.png'); shutil.copy('animated.png', sys.argv[2])"
    )
    make = [
        "teacher",
        "make",
        "--animator",
        "command",
        "--command",
        f"{sys.executable} show.py {{source}} {{out}} {{driver}}",
    ]
    make += [
        "--sources",
        "sources",
        "--drivers",
        "drivers",
        "--size",
        "32",
        "--preset",
        "smoke",
        "--frontal",
        "--out",
        "pairs",
    ]
    assert "pairs: 2 pairs, 0 failed" in finished(tmp_path, *make, "--held-out", "0.0")
    seen = np.asarray(Image.open(tmp_path / "seen.png"))
    assert seen.shape == (32, 32, 3) and np.ptp(seen[[0, 0], [0, -1]]) <= 4, "a head on grey"
    (lifter,) = tmp_path.glob("runs/backbones/lifter-*.pt")
    assert "frontal" in TeacherStore(tmp_path / "pairs").rows()[0].flags
    trained = lifter.read_bytes()
    finished(
        tmp_path, "run", "--preset", "smoke", "--designs", "static", "--teacher", "pairs", "--supervision", "lifted"
    )
    assert lifter.read_bytes() == trained and len(list(tmp_path.glob("runs/backbones/lifter-*.pt"))) == 1


def experiment(store, **more):
    return dataclasses.replace(presets.smoke(), designs=("static",), teacher=Teacher(str(store), **more))


def test_a_run_is_known_by_its_pairs_and_its_supervision(tmp_path):
    a, b = teacher.store(tmp_path / "a" / "pairs"), teacher.store(tmp_path / "b" / "pairs", drivers=5)
    moved = tmp_path / "c"
    moved.mkdir()
    (tmp_path / "a" / "pairs").rename(moved / "pairs")
    known = (
        experiment(b),
        experiment(moved / "pairs"),
        experiment(b, supervision="lifted"),
        experiment(b, bias_sink=True),
    )
    plans = [plan(e, tmp_path / "reports", tmp_path / "runs") for e in known]
    assert len({p.runs[0].id for p in plans}) == len({p.report for p in plans}) == 4
    assert len({p.backbone for p in plans}) == 3, "all supervisions of a store warm up alike"
    assert [p.lifter is not None for p in plans] == [False, False, True, False]
    (moved / "pairs").rename(a)
    there = plan(experiment(a), tmp_path / "reports", tmp_path / "runs")
    assert there.runs[0].id == plans[1].runs[0].id and there.report == plans[1].report, "wherever it lies"
    assert "-pairs-" in folder_name(experiment(b)) and folder_name(experiment(b)).endswith("monocular")


def test_seeds_have_lifting_networks_of_their_own_and_one_table(tmp_path):
    store = teacher.store(tmp_path / "pairs")
    each = [dataclasses.replace(experiment(store, supervision="lifted"), seed=seed) for seed in (0, 1)]
    a, b = (plan(e, tmp_path / "reports", tmp_path / "runs") for e in each)
    assert a.lifter != b.lifter and a.runs[0].id != b.runs[0].id
    assert a.made == b.made and a.report == b.report


def test_a_lifting_network_that_diverges_is_said_in_a_sentence(tmp_path, monkeypatch):
    def diverges(*_):
        raise Diverged("the loss of lifting network became nan by step 3", Progress())

    monkeypatch.setattr(bench, "train_lifter", diverges)
    with pytest.raises(UserError, match="became nan by step 3"):
        bench.lifting_network(presets.smoke(), tmp_path)


def test_a_run_is_known_by_the_network_that_its_identity_term_asks(tmp_path, monkeypatch):
    """MobileFace's weights are a file of the user's: other bytes, another training, from the warm-up on."""
    monkeypatch.setenv("I4D_ASSETS", str(tmp_path))
    weights = tmp_path / MOBILEFACE
    weights.parent.mkdir()
    asks = ["train.loss.identity=0.1", "train.loss.identity_network=mobileface"]
    plans = []
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        for settings in ([], asks):
            e = override(dataclasses.replace(presets.smoke(), designs=("static",)), settings)
            plans.append(plan(e, tmp_path / "reports", tmp_path / "runs"))
    plain, asking, again, asking_another = plans
    assert (plain.runs[0].id, plain.backbone) == (again.runs[0].id, again.backbone)
    assert asking.runs[0].id != asking_another.runs[0].id and asking.backbone != asking_another.backbone
