"""What was published is held against a new training, by the spread that the published seeds have."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import teacher

from i4d_bench.config import presets
from i4d_bench.data.frames import Frames
from i4d_bench.data.teacher.store import pairs_digest
from i4d_bench.jobs import names, plan
from i4d_bench.jobs import reproduce as job
from i4d_bench.jobs import run as runs
from i4d_bench.results.evidence import reproductions
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from i4d_bench.train import distil
from i4d_bench.types import UserError

DESIGNS = ("local_adaln", "static")
ROOT = Path(__file__).parents[2]
PUBLISHED = sorted({path.parent for path in ROOT.glob("reports/published/*/runs")})


class Planned(Exception):
    """Instead of training."""


def record(design: str, seed: int, **more) -> Record:
    data = {"kind": "procedural", "hash": "d", "frames": 3}
    environment = {"commit": None, "dirty": False, "hardware": "cpu", "versions": {}}
    config = dataclasses.replace(presets.smoke(), seed=seed, designs=DESIGNS).to_dict()
    return Record(f"{design}-{seed}", design, "local", "smoke", config, {}, seed, "sliders", data, "started",
                  environment=environment, **more)  # fmt: skip


def rows(design: str, seed: int, psnr: float) -> list[dict]:
    run = {"run_id": f"{design}-{seed}", "design": design, "seed": seed, "set": "self", "metric": "psnr", "ok": True}
    return [{**run, "sample": k, "identity": k, "value": psnr + d} for k, d in enumerate((-1.0, 0.0, 1.0))]


def published(seeds: int, spread: float = 0.1) -> tuple[dict[str, Record], pd.DataFrame]:
    samples = [r for d in DESIGNS for s in range(seeds) for r in rows(d, s, 30 + spread * s)]
    return {d: record(d, 0) for d in DESIGNS}, pd.DataFrame(samples)


def here(psnr: float, designs=DESIGNS) -> tuple[dict[str, Record], pd.DataFrame]:
    return {d: record(d, 0) for d in designs}, pd.DataFrame([r for d in designs for r in rows(d, 0, psnr)])


def verdicts(old, new) -> list[str]:
    return job.compare(*old, *new)["verdict"].tolist()


def test_the_same_numbers_agree_and_others_differ():
    assert verdicts(published(3), here(30.0)) == ["agrees"] * 2
    assert verdicts(published(3), here(33.0)) == ["differs"] * 2


def test_what_is_allowed_grows_with_the_seeds_spread():
    assert verdicts(published(3, spread=0.01), here(30.3)) == ["differs"] * 2
    assert verdicts(published(3, spread=0.3), here(30.3)) == ["agrees"] * 2


def test_failed_measurements_are_in_the_spread_as_they_are_in_the_means():
    """Two of three fail with the second seed, whose mean is far from the others: so may that of another training be."""
    records, samples = published(3)
    samples = samples.assign(metric="csim_dlib", value=0.9)
    samples.loc[(samples["seed"] == 1) & (samples["sample"] > 0), "value"] = np.nan
    _, new = here(30.0)
    new = new.assign(metric="csim_dlib", value=0.9)
    new.loc[new["sample"] > 0, "value"] = np.nan
    assert verdicts((records, samples), (records, new)) == ["agrees"] * 2


def test_two_more_seeds_pass_in_95_of_100_tables():
    """Seeds of one normal spread: a table of 20 rows has a wrong alarm in at most one of twenty."""
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(300):
        of = [(d, s) for d in range(20) for s in range(4)]
        frame = pd.DataFrame(of, columns=["design", "seed"]).assign(
            set="self", metric="psnr", value=rng.normal(30, 1, len(of))
        )
        ((limit, _),) = set(job.allowed(frame[frame["seed"] < 3], "self", "psnr", rows=20).values())
        means = frame.set_index(["design", "seed"])["value"].unstack()
        alarms += (means[3] - means[0]).abs().max() > limit
    assert alarms / 300 <= 0.08


def test_one_seed_is_held_to_what_was_seen_elsewhere():
    assert verdicts(published(1), here(30.3)) == ["agrees"] * 2
    assert verdicts(published(1), here(30.4)) == ["differs"] * 2


def test_every_design_is_held_to_what_its_own_seeds_say():
    """One seed of the second does not take from the first what its three say."""
    records, samples = published(3, spread=0.01)
    table = job.compare(records, samples[~((samples["design"] == "static") & (samples["seed"] > 0))], *here(30.3))
    assert table["verdict"].tolist() == ["differs", "agrees"]
    assert table["by"].tolist() == [job.BY_SEEDS, job.BY_SEEN]


def test_a_design_that_did_not_come_out_here_is_missing():
    assert verdicts(published(3), here(30.0, DESIGNS[:1])) == ["agrees", "missing"]


def test_records_of_two_configurations_are_two_experiments():
    other = record("static", 0)
    other.config["train"]["lr"] = 0.5
    found = job.experiments([record("local_adaln", 0), other])
    assert [e.designs for e in found] == [("local_adaln",), ("static",)]
    assert [e.train.lr for e in found] == [presets.smoke().train.lr, 0.5]


def test_the_whole_job_says_whether_it_agrees(tmp_path, monkeypatch, capsys):
    store, made = Store(tmp_path / "published"), Store(tmp_path / "here")
    for seed in range(3):
        store.add(record("static", seed, made={"training": "old"}), rows("static", seed, 30 + 0.1 * seed))

    def run(experiment, *_, show):
        assert experiment.designs == ("static",) and experiment.seed == 0
        return made.folder

    monkeypatch.setattr(job, "run", run)
    for psnr, code, said in ((30.1, 0, "agrees"), (35.0, 1, "differs")):
        made.add(record("static", 0, made={"training": "new"}), rows("static", 0, psnr))
        assert job.reproduce(store.folder, (), tmp_path, keep=True) == code
        out = capsys.readouterr().out
        assert said in out and "published: cpu, commit None, seed 0" in out and "allowed by seeds" in out
        (kept,) = reproductions(store.folder)
        assert kept.agreed == ({"static"} if code == 0 else set()) and kept.runs == {"static": "static-0"}
        shutil.rmtree(store.folder / "reproduced")


def test_what_is_published_is_trained_again_beside_what_stands_there_and_is_never_its_own_witness(
    tmp_path, monkeypatch, capsys
):
    """A folder of runs that has the published ones leads to no agreement with themselves."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    experiment, folder = dataclasses.replace(presets.smoke(), designs=("static",)), tmp_path / "runs"
    report = runs.run(experiment, tmp_path / "reports", folder, jobs=1, show=False)
    capsys.readouterr()
    assert job.reproduce(report, (), folder, jobs=1) == 0
    own = folder / "reproduced" / report.name
    (first,), (again,) = Store(report).records, Store(own / "reports" / report.name).records
    assert first.training != again.training and (own / "runs").is_dir()
    assert "already finished" not in capsys.readouterr().out
    assert job.reproduce(report, (), folder, jobs=1) == 0, "goes on with its own work"
    shutil.rmtree(own / "reports")
    shutil.copytree(report, own / "reports" / report.name)
    with pytest.raises(UserError, match="holds the published runs of static, so nothing was trained again"):
        job.reproduce(report, (), folder, jobs=1, keep=True)
    assert not reproductions(report)
    shutil.rmtree(own)
    shutil.copytree(folder, own / "runs", ignore=shutil.ignore_patterns("reproduced"))
    with pytest.raises(UserError, match="so nothing was trained again"):
        job.reproduce(report, (), folder, jobs=1)


@pytest.mark.parametrize(
    ("designs", "said"), [(("local_mlp",), "no run of local_mlp; it has static"), ((), "no results")]
)
def test_what_cannot_be_reproduced_is_said(tmp_path, designs, said):
    if designs:
        Store(tmp_path).add(record("static", 0), rows("static", 0, 30))
    with pytest.raises(UserError, match=said):
        job.reproduce(tmp_path, designs, tmp_path)


def test_other_pairs_are_refused(tmp_path):
    pairs = teacher.store(tmp_path / "pairs")
    trained = record("static", 0, weights={"teacher": pairs_digest(pairs)})
    trained.config["teacher"] = {"path": str(pairs), "supervision": "monocular", "bias_sink": False}
    Store(tmp_path / "report").add(trained, rows("static", 0, 30.0))
    teacher.store(pairs, people=4)
    with pytest.raises(UserError, match="not those"):
        job.reproduce(tmp_path / "report", (), tmp_path / "runs")


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_what_was_published_of_a_rendered_world_can_be_planned_again(folder, tmp_path, monkeypatch):
    """Designs, settings and drivers of older records still mean something. Data and files are taken to be here; a search, which
    keeps no scores, is refused before anything is trained."""

    def without_training(experiment, reports, folder, _jobs, show):
        (found,), _ = runs._planned([experiment], reports, folder, False, None)
        assert [r.entry for r in found.runs] == list(experiment.designs)
        raise Planned

    def opened(experiment):
        assert experiment.world.kind in ("procedural", "ict")
        return Frames(tmp_path, {"hash": "d", "kind": experiment.world.kind}, {}), None

    store = Store(folder)
    pairs = store.records[0].weights.get("teacher")
    monkeypatch.setattr(job, "run", without_training)
    monkeypatch.setattr(job, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True)))
    monkeypatch.setattr(plan, "open_data", opened)
    monkeypatch.setattr(distil, "check", lambda *_: None)
    for room in (job, plan, names):
        monkeypatch.setattr(room, "pairs_digest", lambda _: pairs)
    monkeypatch.setattr(plan, "file_digest", lambda _: "f")
    monkeypatch.setattr(names, "file_digest", lambda _: "f")
    said = pytest.raises(Planned) if len(store.samples) else pytest.raises(UserError, match="curves alone")
    with said:
        job.reproduce(folder, (), tmp_path)
