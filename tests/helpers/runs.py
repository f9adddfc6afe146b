"""A run's folder as training leaves it, with weights that are not trained."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from i4d_bench.config.experiment import Experiment
from i4d_bench.config.presets import smoke
from i4d_bench.drivers.image import ImageEncoder
from i4d_bench.model.avatar import Backbone


def untrained(folder: Path, design: str, experiment: Experiment | None = None, encoder: ImageEncoder | None = None):
    """encoder: the image driver's, which lies two folders up."""
    experiment = experiment or smoke()
    content = {"design": design, "experiment": experiment.to_dict(), "data": str(folder / "data")}
    folder.mkdir(parents=True, exist_ok=True)
    if encoder is not None:
        content["image_encoder"] = "encoders/its.pt"
        (folder.parents[1] / "encoders").mkdir()
        encoder.save(folder.parents[1] / content["image_encoder"])
    torch.manual_seed(0)
    states = {"backbone": Backbone(experiment.model).state_dict(), "fusion": experiment.fusion(design).state_dict()}
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    torch.save(states, folder / "checkpoint.pt")
    return folder
