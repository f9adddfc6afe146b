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
    ([0, 0, 1], {"recon": 2, "self": 1, "cross": 1}),
    ([0], {"recon": 1, "self": 0, "cross": 0}),
    ([0, 0, 1, 1], {"recon": 2, "self": 2, "cross": 2}),
])  # fmt: skip
def test_sets_of_few_frames(tmp_path, identity, sizes):
    frames = drawn_clips(tmp_path / "few", identity)
    assert {name: len(triples(frames, "test", name)) for name in SETS} == {**sizes, "novel": 0, "extreme": 0}


def test_data_that_leaves_nothing_to_test_is_refused(tmp_path):
    drawn_clips(tmp_path / "stills", [0, 1, 2])
    with pytest.raises(UserError, match="one frame of each person"):
        run(experiment(tmp_path / "stills"), tmp_path / "reports", tmp_path / "runs")
    e = dataclasses.replace(
        smoke(), world=World(resolution=32, train_identities=4, val_identities=0, test_identities=3)
    )
    with pytest.raises(UserError, match=r"world\.val_identities is 0"):
        run(e, tmp_path / "reports", tmp_path / "runs")
    assert {p.name for p in tmp_path.iterdir()} == {"stills"}


def test_one_test_person_of_a_world_has_no_cross_reenactment(tmp_path):
    """Nobody else drives them."""
    people = {"train": 0, "val": 0, "test": 1}
    frames = drawn_clips(tmp_path / "world", [0] * 15, kind="procedural", people=people)
    assert [len(triples(frames, "test", name)) for name in ("self", "cross")] == [2, 0]
