"""Consistency and leakage (DESIGN §5), per sample.

Held-out views against ground truth are PSNR and LPIPS of those views; here are the measures that compare renders with
each other: reprojection between views, and what leaks between identity and driver.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from i4d_bench.metrics.image import check_images
from i4d_bench.types import Camera

OCCLUSION = 0.02
"""Canonical units (about 8 mm): a point further behind the other view's surface than this is hidden there."""


def reprojection_error(
    rgb_a: Float[Tensor, "B H W 3"], rgb_b: Float[Tensor, "B H W 3"],
    depth_a: Float[Tensor, "B H W"], depth_b: Float[Tensor, "B H W"],
    camera_a: Camera, camera_b: Camera, occlusion: float = OCCLUSION,
) -> Float[Tensor, " B"]:  # fmt: skip
    """Mean |colour difference|, 0..1, of view a and view b warped into it by the true depth.

    depth: camera z at pixel centres, 0 where nothing is. Counts pixels of a whose surface both cameras see; NaN where
    there is none. Raises ValueError for images out of range.
    """
    check_images(rgb_a, rgb_b)
    b, h, w = depth_a.shape
    depth_a, depth_b = depth_a.to(rgb_a.dtype), depth_b.to(rgb_a.dtype)
    xs = torch.arange(w, device=rgb_a.device, dtype=rgb_a.dtype) + 0.5
    ys = torch.arange(h, device=rgb_a.device, dtype=rgb_a.dtype) + 0.5
    pixels = torch.stack([*torch.meshgrid(xs, ys, indexing="xy"), rgb_a.new_ones(h, w)], -1).view(1, h * w, 3)
    in_a = (pixels @ torch.linalg.inv(camera_a.Ks).mT) * depth_a.view(b, h * w, 1)
    a_to_b = camera_b.viewmats @ torch.linalg.inv(camera_a.viewmats)
    in_b = in_a @ a_to_b[:, :3, :3].mT + a_to_b[:, None, :3, 3]
    z = in_b[..., 2:]
    at = (in_b @ camera_b.Ks.mT)[..., :2] / z.clamp_min(1e-6)
    grid = (at / at.new_tensor([w, h]) * 2 - 1).view(b, h, w, 2)
    colour = F.grid_sample(rgb_b.movedim(-1, 1), grid, align_corners=False).movedim(1, -1)
    # Depth by the nearest pixel: interpolating it across a silhouette invents surfaces.
    surface = F.grid_sample(depth_b[:, None], grid, mode="nearest", align_corners=False)[:, 0]
    seen = (depth_a > 0) & (surface > 0) & (z.view(b, h, w) > 0) & ((z.view(b, h, w) - surface).abs() < occlusion)
    error = (rgb_a - colour).abs().mean(-1)
    return (error * seen).sum((1, 2)) / seen.sum((1, 2))


def identity_leakage(embeddings: Float[Tensor, "B K D"]) -> Float[Tensor, " B"]:
    """How much one avatar's identity changes with the driving code: mean 1 − cosine over pairs of its K embeddings.

    Failed embeddings (NaN) make the sample NaN. Raises ValueError for fewer than two driving codes.
    """
    k = _several(embeddings.shape[1])
    e = F.normalize(embeddings, dim=-1)
    total = e.sum(1).square().sum(-1) - k  # over ordered pairs of different codes
    return 1 - total / (k * (k - 1))


def driver_leakage(frames: Float[Tensor, "B K H W 3"], mask: Shaped[Tensor, "B H W"]) -> Float[Tensor, " B"]:
    """How much a neutral frame changes when only the driver's identity does: mean |difference| over pairs, in the mask.

    frames: one avatar driven by the same expression of K ≥ 2 people. mask: bool, or 0..1. Raises ValueError for fewer, or out of
    range.
    """
    k = _several(frames.shape[1])
    check_images(frames.flatten(0, 1))
    # Σ over pairs |x_i − x_j| of K numbers from their sorted order: the j-th counts 2j − K + 1 times.
    order = frames.sort(1).values
    rank = 2 * torch.arange(k, device=frames.device, dtype=frames.dtype) - (k - 1)
    pairs = (order * rank.view(1, k, 1, 1, 1)).sum(1).mean(-1) * 2 / (k * (k - 1))
    mask = mask.to(frames.dtype)
    return (pairs * mask).sum((1, 2)) / mask.sum((1, 2))


def _several(k: int) -> int:
    if k < 2:
        raise ValueError(f"leakage compares two drivers or more, got {k}")
    return k
