"""Opening the data of an experiment: its frames, its parametric head, and the coefficients of one on the other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from i4d_bench.config.experiment import Experiment
from i4d_bench.data import synthetic
from i4d_bench.data.frames import Frames, open_frames
from i4d_bench.heads.flame import FlameModel, load
from i4d_bench.heads.transfer import transfer_expressions
from i4d_bench.heads.worlds import exported_head
from i4d_bench.progress import console
from i4d_bench.types import UserError


def open_data(experiment: Experiment) -> tuple[Frames, str]:
    """The data set, with coefficients of the parametric head, and where those come from."""
    world = experiment.world
    frames = open_frames(Path(world.path) if world.kind == "clips" else synthetic.build(world))
    if world.kind != "clips" and not experiment.flame:
        return frames, "shape by least squares on the true mesh, expression from the true ARKit coefficients"
    whose = f"{Path(experiment.flame).name}'s" if experiment.flame else "the embedded head's"
    measured = "MediaPipe's 52 blendshapes" if world.kind == "clips" else "the true ARKit coefficients"
    note = f"{whose} components, mapped from {measured}, average shape"
    return with_flame(frames, open_head(experiment, torch.device("cpu"))), note


def open_head(experiment: Experiment, device: torch.device) -> FlameModel:
    """The world's parametric head (on real video the embedded world's), or the experiment's own FLAME file."""
    kind = experiment.world.kind
    head = exported_head("procedural" if kind == "clips" else kind)
    if experiment.flame:
        own = load(experiment.flame)
        if own.arkit_pose is None:
            try:
                share = transfer_expressions(own, head)
            except UserError as e:
                raise UserError(f"{experiment.flame}: {e}") from e
            console.print(f"{experiment.flame}: {share:.0%} of the 52 expressions' motion lies in its components")
        head = own
    return head.to(device)


def with_flame(frames: Frames, head: FlameModel) -> Frames:
    """Coefficients of `head`: expression and pose mapped from the 52 expression coefficients, average shape."""
    e = torch.from_numpy(np.asarray(frames.coefficients, np.float32))
    codes = {
        "flame_shape": np.zeros((len(e), head.n_shape), np.float32),
        "flame_expression": (e @ head.arkit_expression.cpu()).numpy(),
        "flame_pose": (e @ head.arkit_pose.cpu()).numpy(),
    }
    return dataclasses.replace(frames, arrays={**frames.arrays, **codes})
