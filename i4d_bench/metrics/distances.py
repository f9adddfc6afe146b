"""Distances of expression and pose (DESIGN §5): AED, APD, AKD, per sample [B]. A failed reading is NaN."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

REFERENCE_SIDE = 256
"""AKD is in pixels of an image of this side, whatever was rendered."""


@dataclass(frozen=True)
class Reading:
    """What a reader saw in B images; NaN where it failed."""

    coefficients: Float[Tensor, "B 52"]  # heads.expressions.NAMES order, 0..1
    landmarks: Float[Tensor, "B 68 2"]  # pixels of the image, iBUG order
    rotation: Float[Tensor, "B 3 3"]  # canonical head → camera, OpenCV axes

    @property
    def found(self) -> Tensor:
        """Which images were read, bool [B]."""
        return self.coefficients.isfinite().all(-1)


def aed(pred: Float[Tensor, "B 52"], true: Float[Tensor, "B 52"]) -> Float[Tensor, " B"]:
    """RMS difference of expression coefficients."""
    return (pred - true).square().mean(-1).sqrt()


def apd(pred: Float[Tensor, "B 3 3"], true: Float[Tensor, "B 3 3"]) -> Float[Tensor, " B"]:
    """Degrees: RMS of the three components of the rotation vector from `pred` to `true` (the geodesic angle over √3).

    Raises ValueError for matrices that are not rotations.
    """
    for r in (pred, true):
        error = (r.mT @ r - torch.eye(3, dtype=r.dtype, device=r.device)).abs()
        if (error > 1e-3).any() or (torch.linalg.det(r) < 0).any():
            raise ValueError("expected rotation matrices [B,3,3]")
    between = pred.mT @ true
    cosine = (between.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    # sin from the antisymmetric part: the arc cosine alone loses small angles.
    axis = torch.stack([between[:, 2, 1] - between[:, 1, 2], between[:, 0, 2] - between[:, 2, 0],
                        between[:, 1, 0] - between[:, 0, 1]], -1)  # fmt: skip
    return torch.rad2deg(torch.atan2(axis.norm(dim=-1) / 2, cosine)) / math.sqrt(3)


def akd(pred: Float[Tensor, "B 68 2"], true: Float[Tensor, "B 68 2"], side: int) -> Float[Tensor, " B"]:
    """Mean landmark distance in pixels of a 256² image; the landmarks are in pixels of an image of side `side`."""
    return (pred - true).norm(dim=-1).mean(-1) * (REFERENCE_SIDE / side)


def akd_iod(pred: Float[Tensor, "B 68 2"], true: Float[Tensor, "B 68 2"]) -> Float[Tensor, " B"]:
    """Mean landmark distance over the true distance of the outer eye corners (iBUG 36 and 45)."""
    return (pred - true).norm(dim=-1).mean(-1) / (true[:, 36] - true[:, 45]).norm(dim=-1)
