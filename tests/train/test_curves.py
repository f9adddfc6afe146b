"""TensorBoard is shown what the checkpoint's curve says, also of a training that went on."""

from __future__ import annotations

import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from i4d_bench.config import presets
from i4d_bench.config.override import override
from i4d_bench.drivers.driver import Driver
from i4d_bench.loader import Loader
from i4d_bench.train import curves
from i4d_bench.train.loop import Trainer
from i4d_bench.types import UserError

CPU = torch.device("cpu")


def test_the_curves_are_the_checkpoints(smoke_frames, tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "EVERY", 2)
    e = override(presets.smoke(), ["train.stages=[[4,32,16,2,2]]"])
    loader = Loader(smoke_frames, Driver("sliders", smoke_frames), CPU)
    trainer = Trainer(e, loader, None, CPU, log=tmp_path / "log")
    trainer.warm_up(tmp_path / "runs" / "backbones" / "its.pt")
    _, progress = trainer.design(tmp_path / "runs" / "smoke" / "one", "local_adaln", tmp_path / "runs/backbones/its.pt")
    assert sorted(p.relative_to(tmp_path / "log").as_posix() for p in (tmp_path / "log").glob("*/*")) == [
        "backbones/its",
        "smoke/one",
    ]
    seen = EventAccumulator(str(tmp_path / "log" / "smoke" / "one")).Reload()
    assert [p.step for p in seen.Scalars("train/loss")] == [2, 4]
    gaps = [(p.step, p.value) for p in seen.Scalars("validation/gap")]
    assert gaps == [(row["step"], pytest.approx(row["gap"], abs=1e-5)) for row in progress.curve]
    assert "learning rate/fusion" in seen.Tags()["scalars"]


def test_without_tensorboard_it_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        UserError, match=r"--tensorboard needs torch.utils.tensorboard: pip install -e '.\[tensorboard\]'"
    ):
        curves.check(tmp_path / "log")
    assert not (tmp_path / "log").exists()
