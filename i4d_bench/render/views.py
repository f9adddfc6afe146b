"""The pictures that encoders and metrics see: on grey, clipped."""

from __future__ import annotations

from torch import Tensor

from i4d_bench.render import render
from i4d_bench.types import Camera, Gaussians

GREY = 0.5
"""Background of the images that encoders and metrics see."""


def on_grey(gaussians: Gaussians, camera: Camera) -> Tensor:
    """The image [B,H,W,3] that metrics see: on grey, clipped to 0..1."""
    background = gaussians.means.new_full((len(gaussians.means), 3), GREY)
    return render(gaussians, camera, background, depth=False).rgb.clamp(0, 1)
