"""A person lifted by a trained run: Gaussians and pictures of them with any expression, from anywhere."""

from __future__ import annotations

import numpy as np
import torch

from i4d_bench.loader import Loader
from i4d_bench.play.drawing import drawing
from i4d_bench.play.session import Run
from i4d_bench.play.widened import in_training, widened
from i4d_bench.types import Gaussians, MotionCode, ParametricHead


class Puppet:
    """`draw(code, camera)` makes the picture of a frame."""

    @torch.no_grad()
    def __init__(self, trained: Run, sources: Loader, index: int, head: ParametricHead | None):
        """index: of the photo among the frames of `sources`."""
        row, avatar = np.array([index]), trained.avatar
        self.design, self.fusion = trained.design, avatar.fusion
        self.code = sources.code(row)  # of the photo
        self.identity = avatar.backbone.lift(sources.sources(row, trained.experiment.model.size), head=head)
        self.prepared = avatar.fusion.prepare(self.identity, self.code)
        self.width = in_training(trained.experiment.world.resolution)
        self.draw = drawing(avatar.fusion, self.identity, self.code, self.width)

    @torch.no_grad()
    def gaussians(self, code: MotionCode) -> Gaussians:
        """Of one frame or of several, in full precision, as wide as in training's pictures: for viewers of many pixels."""
        return widened(self.fusion.animate(self.prepared, code), self.width)
