"""A miniature of the preset paper trains: growth over four stages, accumulation, every term of the loss."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from i4d_bench.config import presets
from i4d_bench.config.experiment import Stage
from i4d_bench.drivers.driver import Driver
from i4d_bench.loader import Loader
from i4d_bench.train.loop import Trainer

CPU = torch.device("cpu")


class Judge(nn.Module):
    """Stands for LPIPS and for a face network: differences of mean colours."""

    name = "mean colour"

    def forward(self, pred, target, check=True):
        return (pred - target).mean((1, 2)).square().sum(-1)

    def embed(self, images, landmarks, check=True):
        return nn.functional.normalize(images.mean((1, 2)) - 0.5, dim=-1)


@pytest.fixture(scope="module")
def miniature():
    """The preset at an eighth: 16² to 64², planes half as wide as the picture, a few steps a stage."""
    paper = presets.paper()
    small = dataclasses.replace(paper.model, size=64, planes=32, stem=8, widths=(8, 16, 16), blocks=1, grid=53)
    shrunk = lambda s: Stage(2, max(16, s.resolution // 8), max(13, s.grid // 8), 4, s.frames)  # noqa: E731
    train = dataclasses.replace(
        paper.train,
        warmup=tuple(map(shrunk, paper.train.warmup)),
        stages=tuple(map(shrunk, paper.train.stages)),
        accumulate=2,
        validate_every=8,
    )
    return dataclasses.replace(paper, world=presets.smoke().world, model=small, train=train)


def test_it_trains_with_every_term(miniature, smoke_frames, tmp_path, monkeypatch):
    judge, seen = Judge(), []
    trainer = Trainer(miniature, Loader(smoke_frames, Driver("sliders", smoke_frames), CPU), None, CPU, judge, judge)
    loss = Trainer._loss

    def watched(self, student, part, image, *more):
        seen.append((image.shape[1], len(part.images), student.deceives and student.adversary is not None))
        return loss(self, student, part, image, *more)

    monkeypatch.setattr(Trainer, "_loss", watched)
    trainer.warm_up(tmp_path / "backbone.pt")
    avatar, progress = trainer.design(tmp_path, "local_adaln", tmp_path / "backbone.pt")
    assert [size for size, _, _ in seen[4:]] == 8 * [16] + 4 * [32] + 4 * [64]
    assert {people for _, people, _ in seen} == {2}, "a step's four people come in two parts"
    assert [judged for _, _, judged in seen[4:]] == 8 * [False] + 8 * [True], "the adversary begins midway"
    assert progress.step == 8 and progress.curve[-1]["step"] == 8
    assert all(p.isfinite().all() for p in avatar.parameters())
    started = torch.load(tmp_path / "checkpoint.pt")
    assert started["adversary"]["steps"] == 4
