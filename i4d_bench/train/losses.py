"""The training loss of PAPER §1 but for its adversarial term (`adversary`): L1, eyes and mouth, LPIPS, identity, mean ‖δf‖, and
SSIM, which is ours."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

import kernels
from i4d_bench.config.experiment import Loss
from i4d_bench.metrics.identity import Embedder, are_known, csim, embedder
from i4d_bench.metrics.image import Lpips, load_lpips


def networks(weights: Loss, device: torch.device) -> tuple[Lpips | None, Embedder | None]:
    """LPIPS's and the identity term's, each where it has a weight. Raises UserError where one cannot be had."""
    lpips = load_lpips("alex", device) if weights.lpips else None
    return lpips, embedder(weights.identity_network) if weights.identity else None


def reconstruction(
    pred: Float[Tensor, "B H W 3"],
    target: Float[Tensor, "B H W 3"],
    regions: Bool[Tensor, "B H W"],
    weights: Loss,
    lpips: nn.Module | None = None,
    pixels: Tensor | None = None,
) -> Tensor:
    """Weighted image loss, a scalar. `regions` marks eyes and mouth; `lpips` is `metrics.image.Lpips`, where it has a weight.

    pixels: how many of eyes and mouth a picture has in the mean, where these are a part of those that count together.
    """
    error = (pred - target).abs().mean(-1)
    loss = weights.l1 * error.mean()
    marked = regions.sum() if pixels is None else pixels * len(regions)
    loss = loss + weights.regions * (error * regions).sum() / marked.clamp_min(1e-6)
    if weights.ssim:
        loss = loss + weights.ssim * (1 - ssim(pred, target))
    if weights.lpips:
        assert lpips is not None
        loss = loss + weights.lpips * lpips(pred.clamp(0, 1), target, check=False).mean()
    return loss


def identity_change(
    pred: Float[Tensor, "B H W 3"],
    target: Float[Tensor, "B H W 3"],
    landmarks: Float[Tensor, "B 68 2"],
    network: Embedder,
    share: Tensor | None = None,
) -> Tensor:
    """1 − the cosine of face embeddings, over pictures whose landmarks (pixels) are known; 0 where none are.

    share: of pictures whose landmarks are known, where these are a part of those that count together.
    """
    known = are_known(landmarks)
    with torch.no_grad():
        wanted = network.embed(target.clamp(0, 1), landmarks, check=False)
    change = 1 - csim(network.embed(pred.clamp(0, 1), landmarks, check=False), wanted)
    many = known.sum() if share is None else share * len(known)
    return torch.where(known, change, 0).sum() / many.clamp_min(1e-6)


def feature_change(delta: Float[Tensor, "B N K"]) -> Tensor:
    """mean‖δf‖ (PAPER §1)."""
    return kernels.mean_norm(delta)


def ssim(pred: Float[Tensor, "B H W C"], target: Float[Tensor, "B H W C"]) -> Tensor:
    """Mean SSIM of images in 0..1, Gaussian window 11 × 11: torchmetrics' number.

    Blurs by two matrix products; torchmetrics' depthwise convolution takes half of a training step on CPUs.
    """
    return kernels.ssim(pred, target, *(_window(n, pred.device).to(pred.dtype) for n in pred.shape[1:3]))


@functools.cache
def _window(size: int, device: torch.device, radius: int = 5, sigma: float = 1.5) -> Float[Tensor, "N N"]:
    """Row i averages the pixels around i; the image is mirrored at its borders."""
    offset = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (offset / sigma) ** 2)
    index = (torch.arange(size)[:, None] + offset).abs()
    index = torch.where(index < size, index, 2 * (size - 1) - index)
    return torch.zeros(size, size).scatter_add(1, index, (weights / weights.sum()).expand(size, -1)).to(device)
