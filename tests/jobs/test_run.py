"""The main job on the smoke preset: it runs end to end, resumes to the same numbers, and fails in one sentence."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from i4d_bench.config import presets
from i4d_bench.config.ablations import ablation
from i4d_bench.config.experiment import Stage
from i4d_bench.config.override import override
from i4d_bench.data import synthetic
from i4d_bench.data.frames import open_frames
from i4d_bench.data.opening import open_head
from i4d_bench.data.splits import SETS, SPLITS, split_of, triples, yaw
from i4d_bench.drivers.driver import Driver
from i4d_bench.heads.expressions import ACTIONS, held_out
from i4d_bench.jobs import run
from i4d_bench.jobs.bench import Bench
from i4d_bench.jobs.names import folder_name
from i4d_bench.jobs.plan import plan
from i4d_bench.loader import Batches, Loader
from i4d_bench.model.avatar import Backbone
from i4d_bench.report import build_report
from i4d_bench.results.store import Store
from i4d_bench.train import loop
from i4d_bench.train.loop import Trainer
from i4d_bench.types import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def frames(cpu):
    return open_frames(synthetic.rendered(presets.smoke().world))


@pytest.fixture(scope="module")
def reports(cpu, tmp_path_factory):
    """The smoke preset, run once."""
    folder = tmp_path_factory.mktemp("work")
    return run.run(presets.smoke(), folder / "reports", folder / "runs"), folder


def test_splits_keep_people_views_and_expressions_apart(frames):
    split = split_of(frames)
    by_split = [set(frames.identity[split == k]) for k in range(len(SPLITS))]
    assert not (by_split[0] & by_split[2]) and not (by_split[0] & by_split[1])
    assert np.abs(yaw(frames)[split == 0]).max() <= 35.5
    for name in SETS:
        rows = triples(frames, "test", name)
        assert len(rows) and (split[rows.source] == 2).all()
        assert (np.abs(yaw(frames)[rows.source]) <= 12.5).all()
    assert (np.abs(yaw(frames)[triples(frames, "test", "novel").target]) >= 34.5).all()
    cross = triples(frames, "test", "cross")
    assert (frames.identity[cross.driving] != frames.identity[cross.source]).all()
    assert (frames.identity[cross.target] == frames.identity[cross.source]).all()
    np.testing.assert_array_equal(frames.coefficients[cross.driving], frames.coefficients[cross.target])
    pairs = [(m, e) for m in ACTIONS["mouth"] for e in ACTIONS["eyes"]]
    assert 0.1 < np.mean([held_out(*p) for p in pairs]) < 0.35


def test_batches_depend_on_the_step_alone(frames):
    stage = Stage(1, 32, 16, 3, 4)
    within = np.flatnonzero(split_of(frames) == 0)
    a, b = (Batches(frames, within, seed=0) for _ in range(2))
    for step in (7, 3):
        for x, y in zip(a.draw(step, stage, True), b.draw(step, stage, True), strict=True):
            np.testing.assert_array_equal(x, y)
    source, target = a.draw(0, stage, True)
    assert (frames.identity[source].repeat(4) == frames.identity[target]).all()
    changed = frames.expression[target].reshape(3, 4) != frames.expression[source][:, None]
    assert (changed.sum(1) == 3).all(), "one of four keeps the source's expression"


def test_the_report_is_complete_and_rebuilds_from_the_store(reports):
    folder, _ = reports
    store = Store(folder)
    assert [r.design for r in store.records] == list(presets.smoke().designs)
    assert {r.status for r in store.records} <= {"not converged", "converged", "control"}
    for name in ("main.csv", "main.md", "main.tex", "speed_quality.pdf", "curves.png", "qualitative.png", "index.html"):
        assert (folder / name).stat().st_size > 100, name
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["designs"]) == set(presets.smoke().designs)
    assert {"mean", "lo", "hi", "n", "failures"} == set(summary["designs"]["local_adaln"]["cross"]["gap"])
    assert any(k.startswith("frame/local_adaln/eager/b1/") for k in summary["speed"])
    static = summary["designs"]["static"]["self"]["gap"]
    assert static["mean"] == pytest.approx(0, abs=1e-4), "a control that ignores the driver has no gap"
    before = (folder / "main.csv").read_bytes()
    (folder / "main.csv").unlink()
    build_report(folder)
    assert (folder / "main.csv").read_bytes() == before


def test_finished_runs_are_kept(reports, monkeypatch):
    folder, work = reports
    monkeypatch.setattr(run, "prepare", lambda *a: pytest.fail("a finished run was repeated"))
    assert run.run(presets.smoke(), work / "reports", work / "runs") == folder


def test_fresh_forgets_what_was_trained_and_scored(reports):
    """Checkpoints, backbone, reader and results of the plan's own runs, and nothing else."""
    _, work = reports
    e = dataclasses.replace(presets.smoke(), designs=("static",))
    what = plan(e, work / "reports", work / "runs")
    assert not what.unfinished() and what.backbone.exists()
    for folder in ("reports", "runs"):
        shutil.copytree(work / folder, work / "copy" / folder)
    again = plan(e, work / "copy" / "reports", work / "copy" / "runs")
    again.forget()
    assert [r.entry for r in again.unfinished()] == ["static"]
    assert not again.backbone.exists() and not again.runs[0].folder.exists()
    assert len(Store(again.report).records) == len(presets.smoke().designs) - 1
    assert not what.unfinished(), "another folder's runs stay"


def warmed(trainer: Trainer, folder: Path) -> Path:
    """Its backbone's checkpoint."""
    trainer.warm_up(folder / "backbone.pt")
    return folder / "backbone.pt"


def trainer(frames) -> Trainer:
    e = override(presets.smoke(), ["train.stages=[[6,32,16,2,2]]", "train.checkpoint_seconds=0.0"])
    return Trainer(e, Loader(frames, Driver("oracle", frames), CPU), None, CPU)


def test_a_design_may_have_a_learning_rate_of_its_own(frames, tmp_path):
    """Above the preset's, and not the backbone's: one of the two settings that the search tries."""
    t = trainer(frames)
    t.design(tmp_path / "a", "local_adaln@lr=0.25,init_scale=0", warmed(t, tmp_path))
    groups = torch.load(tmp_path / "a" / "checkpoint.pt")["optimizer"]["param_groups"]
    assert [g["base"] for g in groups] == [t.experiment.train.lr, 0.25]


def test_an_interrupted_run_resumes_to_the_same_weights(frames, tmp_path, monkeypatch):
    whole, broken = trainer(frames), trainer(frames)
    straight, progress = whole.design(tmp_path / "a", "local_adaln", warmed(whole, tmp_path))

    step, calls = Trainer._step, []

    def killed(self, *args):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("killed")
        return step(self, *args)

    monkeypatch.setattr(Trainer, "_step", killed)
    with pytest.raises(RuntimeError, match="killed"):
        broken.design(tmp_path / "b", "local_adaln", tmp_path / "backbone.pt")
    monkeypatch.setattr(Trainer, "_step", step)
    resumed, again = trainer(frames).design(tmp_path / "b", "local_adaln", tmp_path / "backbone.pt")
    assert again.step == progress.step == 6
    assert [c["gap"] for c in again.curve] == [c["gap"] for c in progress.curve]
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_a_damaged_checkpoint_says_what_to_do(frames, tmp_path):
    (tmp_path / "backbone.pt").write_bytes(b"half a file")
    with pytest.raises(UserError, match="delete it"):
        warmed(trainer(frames), tmp_path)


def test_changed_settings_get_a_folder_of_their_own():
    e = presets.smoke()
    names = [folder_name(override(e, s)) for s in ([], ["train.lr=3e-4"], ["overrides.local_adaln.hidden=64"])]
    assert len(set(names)) == 3 and all(n.startswith(names[0]) for n in names)
    assert folder_name(dataclasses.replace(e, seed=3, designs=("static",))) == names[0], "seeds share a table"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--preset", "smoke", "--designs", "local_adalm"], "local_adaln"),
        (["run", "--preset", "smokey"], "smoke"),
        (["run", "--preset", "smoke", "--set", "train.lrr=1"], "train.lrr"),
        (["run", "--preset", "smoke", "--set", "overrides.local_adaln.hiden=3"], "hidden"),
        (["run", "--preset", "smoke", "--set", "train.lr=fast"], "float"),
        (["run", "--preset", "smoke", "--data", "nowhere"], "nowhere"),
        (["run", "--preset", "smoke", "--reports", "/proc/reports"], "/proc/reports"),
        (["report", "nowhere"], "nowhere"),
        (["animate", "--source", "no.png", "--driving", "no.mp4", "--run", "nowhere", "--out", "x.mp4"], "nowhere"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(arguments, said, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "i4d_bench.cli", *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir()), "nothing half-written"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_search_keeps_curves_and_never_meets_the_test_people(cpu, tmp_path, jobs, monkeypatch):
    """Its arms are trained, in processes of their own or not, and judged by validation alone."""
    monkeypatch.setattr(Bench, "evaluator", property(lambda self: pytest.fail("a search looked at the test people")))
    arms = ("local_adaln@lr=0.001,init_scale=0.0", "local_adaln@lr=0.001,init_scale=1.0", "static")
    e = dataclasses.replace(ablation("search", presets.smoke()), designs=arms)
    folder = run.run(e, tmp_path / "reports", tmp_path / "runs", jobs)
    records = Store(folder).records
    assert {r.design for r in records} == set(arms) and all(
        r.curve and not r.metrics and not r.timings for r in records
    )
    assert Store(folder).samples.empty
    table = (folder / "main.md").read_text()
    assert "lr 0.001, scale 0 |" in table and "local_adaln" in table and (folder / "search.png").stat().st_size > 5000


@pytest.mark.gpu
def test_tf32_stays_away_from_ssim(tmp_path, monkeypatch):
    """Its variances are small differences of products: with tf32's they are noise, and training collapsed. The rest may have it."""
    seen, loss, lift = {}, loop.reconstruction, Backbone.lift
    precision = torch.get_float32_matmul_precision

    def at(name, call):
        return lambda *args, **kwargs: (seen.update({name: precision()}), call(*args, **kwargs))[1]

    monkeypatch.setattr(loop, "reconstruction", at("loss", loss))
    monkeypatch.setattr(Backbone, "lift", at("lift", lift))
    e, gpu = override(presets.smoke(), ["model.bf16=true"]), torch.device("cuda")
    data = open_frames(synthetic.rendered(e.world))
    trainer = Trainer(e, Loader(data, Driver("oracle", data, None), gpu), open_head(e, gpu), gpu)
    trainer.warm_up(tmp_path / "backbone.pt")
    assert seen == {"loss": "highest", "lift": "high"} and precision() == "highest"
