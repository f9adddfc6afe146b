"""What a first try looks like: one video, few frames. It ends with tables, or is refused before any work."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
import torch
from helpers.clips import drawn_clips

from i4d_bench.config.experiment import World
from i4d_bench.config.presets import smoke
from i4d_bench.data.splits import SETS, triples
from i4d_bench.jobs.run import run
from i4d_bench.types import UserError

DRAWN = True
"""Figures, too, of people and sets that are not there."""


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def experiment(path, **world):
    e = smoke()
    return dataclasses.replace(
        e,
        world=dataclasses.replace(e.world, kind="clips", path=str(path), **world),
        driver="blendshapes",
        designs=("static",),
    )


def test_one_video_alone_ends_with_tables(tmp_path):
    drawn_clips(tmp_path / "one", [0] * 12)
    folder = run(experiment(tmp_path / "one"), tmp_path / "reports", tmp_path / "runs")
    table = pd.read_csv(folder / "main.csv").set_index("design")
    assert table.loc["static", "self driving gap"] == pytest.approx(0, abs=1e-4)
    assert table.filter(like="cross").isna().all(axis=None)
    assert "No samples in cross: it takes a second person." in (folder / "main.md").read_text()
    assert (folder / "index.html").exists() and (folder / "summary.json").exists()


@pytest.mark.parametrize(("identity", "sizes"), [
    ([0, 0], {"recon": 1, "self": 1, "cross": 0}),
    ([0, 0, 1], {"recon": 1, "self": 1, "cross": 1}),
    ([0], {"recon": 0, "self": 0, "cross": 0}),
    ([0, 0, 1, 1], {"recon": 2, "self": 2, "cross": 2}),
])  # fmt: skip
def test_sets_of_few_frames(tmp_path, identity, sizes):
    frames = drawn_clips(tmp_path / "few", identity)
    assert {name: len(triples(frames, "test", name)) for name in SETS} == {**sizes, "novel": 0, "extreme": 0}


def test_data_that_leaves_nothing_to_test_is_refused(tmp_path):
    drawn_clips(tmp_path / "stills", [0, 1, 2])
    drawn_clips(tmp_path / "two", [0, 0])
    for name, what in (("stills", "to test with"), ("two", "to validate with")):
        with pytest.raises(UserError, match=f"too few frames of each person {what}"):
            run(experiment(tmp_path / name), tmp_path / "reports", tmp_path / "runs")
    e = dataclasses.replace(
        smoke(), world=World(resolution=32, train_identities=4, val_identities=0, test_identities=3)
    )
    with pytest.raises(UserError, match=r"world\.val_identities is 0"):
        run(e, tmp_path / "reports", tmp_path / "runs")
    assert {p.name for p in tmp_path.iterdir()} == {"stills", "two"}


def test_people_who_are_held_out_have_columns_and_a_folder_of_their_own(tmp_path):
    drawn_clips(
        tmp_path / "three", [0] * 8 + [1] * 8 + [2] * 8, videos=[{"file": f"{n}.mp4"} for n in ("ann", "ben", "cy")]
    )
    folder = run(experiment(tmp_path / "three", hold_out=("ben",)), tmp_path / "reports", tmp_path / "runs")
    assert "without-ben" in folder.name
    table = pd.read_csv(folder / "main.csv").set_index("design")
    for head in ("self PSNR", "unseen self PSNR"):
        assert table.loc["static", head] > 5
    samples = pd.concat(pd.read_csv(path) for path in folder.glob("runs/*.csv.gz"))
    people = {name: set(own["identity"]) for name, own in samples.groupby("set")}
    assert people["self"] == people["recon"] == {0, 2} and people["unseen_self"] == people["unseen_recon"] == {1}
    assert set(samples[samples["set"] == "unseen_self"]["driver"]) == {1}
    said = (folder / "main.md").read_text()
    assert "(ann.mp4, cy.mp4)" in said and "no frame was trained on (ben.mp4)" in said
    assert run(experiment(tmp_path / "three"), tmp_path / "reports", tmp_path / "runs") != folder


def test_one_test_person_of_a_world_has_no_cross_reenactment(tmp_path):
    """Nobody else drives them."""
    people = {"train": 0, "val": 0, "test": 1}
    frames = drawn_clips(tmp_path / "world", [0] * 15, kind="procedural", people=people)
    assert [len(triples(frames, "test", name)) for name in ("self", "cross")] == [2, 0]
