"""Gaussians in pictures of another resolution than they were trained at.

A rasteriser widens every Gaussian by EPS_2D pixels², and training closes its surfaces with that: in a picture of more pixels they
have holes. Here they stay as wide as they were in training, what Mip-Splatting (arXiv:2311.16493) trains them to be.
"""

from __future__ import annotations

import dataclasses
import math

from i4d_bench.camera import FOV, RADIUS
from i4d_bench.types import Camera, Gaussians
from kernels.layout import EPS_2D


def in_training(resolution: int) -> float:
    """The standard deviation by which pictures of so many pixels a side widen Gaussians, in canonical units at the head."""
    return math.sqrt(EPS_2D) * 2 * RADIUS * math.tan(math.radians(FOV) / 2) / resolution


def widened(g: Gaussians, width: float, camera: Camera | None = None) -> Gaussians:
    """As wide as pictures in training made them, by `width` (`in_training`): less what this camera's pictures do by themselves;
    without one, all of it."""
    lacks = g.scales.new_full((), width**2)  # on its device at once, as a CUDA graph must have it
    if camera is not None:
        pixel = camera.viewmats[:, 2, 3] / camera.Ks[:, 0, 0]  # at the origin
        lacks = (lacks - EPS_2D * pixel.square()).clamp_min(0)[:, None, None]
    return dataclasses.replace(g, scales=(g.scales.square() + lacks).sqrt())
