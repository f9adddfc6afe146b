"""A run by the user's own encoder: from training to animation, and what makes it another run."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
from helpers.encoders import TinyEncoder, onnx, torchscript

from i4d_bench.config import presets
from i4d_bench.drivers import probe
from i4d_bench.errors import UserError
from i4d_bench.jobs import run
from i4d_bench.jobs.names import folder_name
from i4d_bench.jobs.plan import plan
from i4d_bench.jobs.reproduce import reproduce
from i4d_bench.play.animate import animate
from i4d_bench.results.store import Store


def experiment(path):
    return dataclasses.replace(presets.smoke(), designs=("local_adaln",), driver=str(path))


@pytest.fixture(scope="module")
def trained(cpu, tmp_path_factory):
    """The smoke preset with an encoder, run once: work folder, report folder, the encoder."""
    work = tmp_path_factory.mktemp("work")
    path = torchscript(work / "enc.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "FEWEST", 1)
        return work, run.run(experiment(path), work / "reports", work / "runs"), path


def test_it_trains_and_scores(trained):
    _, folder, _ = trained
    (record,) = Store(folder).records
    assert record.curve and record.metrics["self"]["psnr"]["mean"] > 0
    assert record.driver.startswith("enc-") and f"driver {record.driver}" in (folder / "main.md").read_text("utf-8")
    assert record.driver in folder.name and len(record.weights["encoder"]) == 16


def test_its_report_says_what_its_code_gives_away(trained):
    _, folder, _ = trained
    (record,) = Store(folder).records
    assert record.extras["code_identity"] is not None and record.extras["code_chance"] == 0.25
    assert f"Read linearly off the driver's code: {probe.Leak.of(record.extras)}." in (folder / "main.md").read_text(
        "utf-8"
    )


def test_a_run_is_named_by_the_encoders_bytes_and_not_by_its_place(trained, tmp_path):
    work, folder, path = trained

    def named(encoder):
        what = plan(experiment(encoder), work / "reports", work / "runs")
        return what.report, what.runs[0].id, what.made["training"]

    moved = shutil.copy(path, tmp_path / "enc.pt")
    assert named(moved) == named(path) and named(moved)[0] == folder
    assert not plan(experiment(moved), work / "reports", work / "runs").unfinished()
    other = torchscript(tmp_path / "other" / "enc.pt", TinyEncoder(seed=1))
    assert all(a != b for a, b in zip(named(other), named(path), strict=True))
    changed = [
        dataclasses.replace(experiment(p), seed=1, overrides={"local_adaln": {"hidden": 8}}) for p in (path, moved)
    ]
    assert folder_name(changed[0]) == folder_name(changed[1])
    assert named(onnx(tmp_path / "enc.onnx"))[1] != named(path)[1]


def test_it_animates_as_long_as_its_encoder_is_found(trained, tmp_path, smoke_frames):
    work, folder, path = trained
    (made,) = (work / "runs" / folder.name).glob("local_adaln-*")
    assert json.loads((made / "run.json").read_text("utf-8"))["experiment"]["driver"] == str(path)
    moved = tmp_path / "moved.pt"
    out = animate(smoke_frames.path, smoke_frames.path, made, tmp_path / "out.ply")
    shutil.move(path, moved)
    try:
        with pytest.raises(UserError, match="is not there: --driver says"):
            animate(smoke_frames.path, smoke_frames.path, made, tmp_path / "no.ply")
        again = animate(smoke_frames.path, smoke_frames.path, made, tmp_path / "again.ply", driver=moved)
        assert again.read_bytes() == out.read_bytes()
        other = torchscript(tmp_path / "other.pt", TinyEncoder(seed=1))
        with pytest.raises(UserError, match="its bytes are others"):
            animate(smoke_frames.path, smoke_frames.path, made, tmp_path / "no.ply", driver=other)
    finally:
        shutil.move(moved, path)


def test_it_is_reproduced_with_the_same_encoder_alone(trained, tmp_path):
    work, folder, path = trained
    moved = shutil.move(path, tmp_path / "enc.pt")
    try:
        with pytest.raises(UserError, match="is not there"):
            reproduce(folder, (), work / "runs")
        assert reproduce(folder, (), work / "runs", driver=moved) == 0
    finally:
        shutil.move(moved, path)


def test_what_is_no_encoder_is_said_before_any_work(tmp_path):
    bad = torchscript(tmp_path / "bad.pt", TinyEncoder((100,)))
    with pytest.raises(UserError, match=r"\[2,100\]"):
        run.run(experiment(bad), tmp_path / "reports", tmp_path / "runs")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.pt"]
