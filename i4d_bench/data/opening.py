"""Opening the data of an experiment: its frames, its parametric head, and the coefficients of one on the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from i4d_bench.cache import file_digest
from i4d_bench.config.experiment import Experiment
from i4d_bench.data import synthetic
from i4d_bench.data.frames import Frames, open_frames
from i4d_bench.data.joined import open_real
from i4d_bench.data.seen import hold_out
from i4d_bench.data.splits import SPLITS, self_driven
from i4d_bench.heads.flame import FlameModel, load
from i4d_bench.heads.transfer import transfer_expressions
from i4d_bench.heads.worlds import exported_head
from i4d_bench.progress import console
from i4d_bench.types import UserError


def open_data(experiment: Experiment) -> tuple[Frames, str]:
    """The data set, with coefficients of the parametric head, and where those come from.

    Raises UserError when it cannot be opened, leaves nothing to train, validate or test on, or nobody knows the coefficients on
    that head.
    """
    world = experiment.world
    none = [s for s in SPLITS if not getattr(world, f"{s}_identities")]
    if world.kind != "clips" and none:
        raise UserError(f"a world needs people in every split: world.{none[0]}_identities is 0")
    if world.kind != "clips" and (world.hold_out or world.further or world.beside):
        raise UserError("--hold-out and mixed training are for real video: name it with --data")
    if world.kind != "clips":
        frames = open_frames(synthetic.rendered(world))
    else:
        frames = open_real(world)
        frames = hold_out(frames, world.hold_out) if world.hold_out else frames
        for split, what in (("test", "test"), ("val", "validate")):
            if not len(self_driven(frames, split)):
                raise UserError(
                    f"{frames.path} has too few frames of each person to {what} with: one to learn from, one to validate and one "
                    "to test with are the least"
                )
        if world.beside:
            meta = frames.meta | {"hash": f"{frames.meta['hash']}-{rendered_beside(experiment).meta['hash']}"}
            frames = dataclasses.replace(frames, meta=meta | {"beside": world.beside})
    return on_head(frames, experiment, lambda: open_head(experiment, torch.device("cpu")))


def rendered_beside(experiment: Experiment) -> Frames:
    """The rendered world whose people stand beside the real ones in training. Raises UserError where the two cannot be mixed."""
    if experiment.teacher.path is not None:
        raise UserError(
            "designs learn from a teacher's pairs or from a rendered world beside real video, not from both"
        )
    if any(stage.sources < 2 for stage in (*experiment.train.warmup, *experiment.train.stages)):
        raise UserError("a stage that learns from real and from rendered people needs two people, one of each")
    assert experiment.world.beside is not None
    return open_frames(synthetic.rendered(experiment.world.rendered(experiment.world.beside)))


def on_head(frames: Frames, experiment: Experiment, head: Callable[[], FlameModel]) -> tuple[Frames, str]:
    """Frames with coefficients of the experiment's head (`head` opens it), and where those come from: the frames' own if they are
    of that head, as a rendered world's are of its own and a tracker's of the FLAME file that it used, else mapped from the 52.

    Raises UserError where the 52 expression coefficients would be needed and nobody measured them.
    """
    real, tracked = frames.meta["kind"] == "clips", frames.meta.get("flame")
    own = f"{Path(experiment.flame).name}'s" if experiment.flame else "the embedded head's"
    mapped = experiment.teacher.path is not None  # pairs have the 52 alone: the test knows no more than training
    if not real and not experiment.flame and not mapped:
        return frames, "shape by least squares on the true mesh, expression from the true ARKit coefficients"
    if tracked and not mapped and experiment.flame and tracked["digest"] == file_digest(Path(experiment.flame)):
        return frames, f"{own} components, tracked by {tracked['tracker']}"
    if not frames.measured:
        why = f"{frames.path} has no 52 expression coefficients to map those of {own} components from"
        if mapped:
            why += ", and a teacher's pairs have no others: make it again with MediaPipe's model"
        elif tracked:
            why += f"; its own belong to {tracked['file']}: name that with --flame"
        raise UserError(why)
    measured = "MediaPipe's 52 blendshapes" if real else "the true ARKit coefficients"
    note = f"{own} components, mapped from {measured}, average shape"
    if tracked:
        why = "a teacher's pairs have none" if mapped else f"they belong to {tracked['file']} (--flame)"
        note += f"; those tracked by {tracked['tracker']} are not used: {why}"
    return with_flame(frames, head()), note


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
    coefficients = torch.from_numpy(np.asarray(frames.coefficients, np.float32)).to(head.weights.device)
    expression, pose = (t.cpu() for t in head.arkit(coefficients))
    codes = {
        "flame_shape": np.zeros((len(pose), head.n_shape), np.float32),
        "flame_expression": expression.numpy(),
        "flame_pose": pose.numpy(),
    }
    return dataclasses.replace(frames, arrays={**frames.arrays, **codes})
