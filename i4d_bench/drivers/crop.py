"""What a motion encoder sees of a picture: an upright square around the face, as a detector would cut it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

SIDE = 224
"""Pixels, where nothing else is said."""
MARGIN = 1.6
"""Side of the crop over the larger side of the landmarks' box, which ends at the brows: forehead and chin are inside."""


def known(landmarks: Float[Tensor, "B 68 2"]) -> Bool[Tensor, " B"]:
    """Whose 68 landmarks span a box."""
    box = landmarks.amax(1) - landmarks.amin(1)
    return box.isfinite().all(-1) & (box.amax(-1) > 0)


def crops(
    images: Float[Tensor, "B H W 3"],
    landmarks: Float[Tensor, "B 68 2"],
    side: int = SIDE,
    moved: Float[Tensor, "B 3"] | None = None,
) -> Float[Tensor, "B 3 S S"]:
    """Squares of `side` pixels around the faces, of the whole image where the landmarks are not known. landmarks: pixels.
    moved: how far beside the face, right and down in sides of the square, and the logarithm of how much larger.

    Bilinear, averaged over sub-pixels where images are larger than the crop, whatever stands beside them in the batch; outside of
    the image is black.
    """
    h, w = images.shape[1:3]
    low, high = landmarks.amin(1), landmarks.amax(1)
    found, size = known(landmarks)[:, None], images.new_tensor([w, h])
    centre = torch.where(found, (low + high) / 2, size / 2)
    extent = torch.where(found, MARGIN * (high - low).amax(-1, keepdim=True), size.amax())
    if moved is not None:
        centre, extent = centre + moved[:, :2] * extent, extent * moved[:, 2:].exp()
    k = math.ceil(max(h, w) / side)
    steps = (torch.arange(side * k, device=images.device) + 0.5) / (side * k) - 0.5
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
    pixels = centre[:, None, None] + extent[:, None, None] * grid
    return F.avg_pool2d(F.grid_sample(images.movedim(-1, 1), pixels / size * 2 - 1, align_corners=False), k)
