"""Real people beside a rendered world's in training: `--data A --data B --world procedural`."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.clips import drawn_clips

from i4d_bench.config.presets import smoke
from i4d_bench.jobs.bench import Bench
from i4d_bench.jobs.plan import plan
from i4d_bench.jobs.run import run

pytestmark = pytest.mark.usefixtures("cpu")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    drawn_clips(folder / "a", [0] * 8 + [1] * 8)
    drawn_clips(folder / "b", [0] * 8)
    e = smoke()
    own = {"kind": "clips", "path": str(folder / "a"), "further": (str(folder / "b"),), "beside": "procedural"}
    world = dataclasses.replace(e.world, **own, hold_out=("1",))
    return dataclasses.replace(e, world=world, driver="blendshapes", designs=("flame_blendshapes",))


def test_half_of_each_steps_people_are_the_worlds(experiment, tmp_path):
    trainer = Bench(plan(experiment, tmp_path / "reports", tmp_path / "runs")).trainer
    stage = dataclasses.replace(experiment.train.stages[0], sources=5)
    assert trainer.lessons is not None
    lesson = next(trainer.lessons.over(range(1), stage, True))
    real = next(trainer.own.over(range(1), dataclasses.replace(stage, sources=3), True))
    assert len(lesson.images) == 5 and torch.equal(lesson.images[2:], real.images)
    assert torch.equal(lesson.driving.motion[2 * stage.frames :], real.driving.motion)
    colours = lesson.images[:2].std(1).mean()
    assert colours > 5 * real.images.std(1).mean(), "drawn heads are grey, the world's are not"


def test_tables_say_what_was_mixed(experiment, tmp_path):
    folder = run(experiment, tmp_path / "reports", tmp_path / "runs")
    assert "a+b-" in folder.name and "procedural-without-1" in folder.name
    said = (folder / "main.md").read_text(encoding="utf-8")
    assert "Half of every training step's people are the procedural world's" in said and "Of a and b" in said
