"""The training loss of PAPER §1 without its identity and adversarial terms: L1, eyes and mouth, LPIPS, SSIM, mean ‖δf‖."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from i4d_bench.presets import Loss


def reconstruction(
    pred: Float[Tensor, "B H W 3"],
    target: Float[Tensor, "B H W 3"],
    regions: Bool[Tensor, "B H W"],
    weights: Loss,
    lpips=None,
) -> Tensor:
    """Weighted image loss, a scalar. `regions` marks eyes and mouth; `lpips` maps two [B,H,W,3] in 0..1 to [B]."""
    error = (pred - target).abs().mean(-1)
    loss = weights.l1 * error.mean()
    loss = loss + weights.regions * (error * regions).sum() / regions.sum().clamp_min(1)
    if weights.ssim:
        grey = [image.mean(-1)[:, None] for image in (pred, target)]  # three times cheaper than per channel
        loss = loss + weights.ssim * (1 - ssim(*grey, data_range=1.0))
    if weights.lpips:
        loss = loss + weights.lpips * lpips(pred.clamp(0, 1), target).mean()
    return loss


def feature_change(delta: Float[Tensor, "B N K"]) -> Tensor:
    """mean‖δf‖ (PAPER §1)."""
    return torch.linalg.vector_norm(delta, dim=-1).mean()
