"""Crops of faces, aligned to a network's template by the similarity that fits five or so landmarks best."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from i4d_bench.types import as_grid

MAX_SUPERSAMPLING = 6


def similarity(source: Float[Tensor, "B P 2"], target: Float[Tensor, "P 2"]) -> Float[Tensor, "B 2 3"]:
    """Least-squares scale, rotation and shift from `source` to `target`, as [A | t] with target = A·source + t."""
    mean_s, mean_t = source.mean(1, keepdim=True), target.mean(0)
    s, t = torch.view_as_complex((source - mean_s).contiguous()), torch.view_as_complex((target - mean_t).contiguous())
    a = (s.conj() * t).sum(1) / s.abs().square().sum(1)  # in the complex plane a similarity is one multiplication
    rotation = torch.stack([a.real, -a.imag, a.imag, a.real], -1).view(-1, 2, 2)
    return torch.cat([rotation, mean_t[:, None] - rotation @ mean_s.mT], -1)


def aligned_crops(
    images: Float[Tensor, "B H W 3"], points: Float[Tensor, "B P 2"], template: Float[Tensor, "P 2"], size: int
) -> Float[Tensor, "B 3 size size"]:
    """Square crops in which `points` (pixels, centres at half integers) lie on `template` (pixels of the crop).

    Bilinear, averaged over sub-pixels where the crop shrinks the image; outside the image is black. Differentiable in
    the images. A small face is enlarged: the crop then holds no more detail than the image.
    """
    if not len(images):
        return images.new_zeros(0, 3, size, size)
    forward = similarity(points, template)
    shrink = 1 / forward[:, :, 0].norm(dim=-1).amin().item()
    k = min(MAX_SUPERSAMPLING, max(1, math.ceil(shrink)))
    steps = (torch.arange(size * k, device=images.device, dtype=images.dtype) + 0.5) / k
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).flatten(0, 1)
    inverse = torch.linalg.inv(forward[:, :, :2])
    pixels = (grid - forward[:, None, :, 2]) @ inverse.mT
    h, w = images.shape[1:3]
    normalised = as_grid(pixels, w, h).view(len(images), size * k, size * k, 2)
    crops = F.grid_sample(images.movedim(-1, 1), normalised, align_corners=False)
    return F.avg_pool2d(crops, k)
