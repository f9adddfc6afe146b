"""Gaussians and cameras for tests of the renderers."""

from __future__ import annotations

import math

import torch

from i4d_bench.types import Camera, Gaussians


def scene(batch, count, size=0.02, seed=0, dtype=torch.float32, device="cpu") -> Gaussians:
    """Leaves with gradients: Gaussians around the origin, some behind the camera and some outside the image."""
    g = torch.Generator().manual_seed(seed)
    normal = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)  # noqa: E731
    means = normal(batch, count, 3) * 0.2
    means[:, : count // 10] *= 8
    values = (
        means,
        normal(batch, count, 4),
        size * torch.exp(0.5 * normal(batch, count, 3)),
        torch.sigmoid(normal(batch, count)),
        torch.sigmoid(normal(batch, count, 3)),
    )
    return Gaussians(*(v.to(device, dtype).requires_grad_() for v in values))


def with_broken(count, spoilt: bool, device="cpu") -> Gaussians:
    """A scene whose first five Gaussians are not drawn: of no opacity, or (spoilt) without a number, no turn, endless, behind."""
    gaussians, inf, nan = scene(1, count, device=device), float("inf"), float("nan")
    broken = {"means": (nan, 0), "quats": (0.0, 1), "scales": (inf, 2), "opacities": (nan, 3)}
    with torch.no_grad():
        gaussians.opacities[0, :5] = 0.0
        gaussians.means[0, 4] = torch.tensor([0.0, 0.0, 100.0])
        for name, (value, at) in broken.items() if spoilt else ():
            getattr(gaussians, name)[0, at] = value
    return gaussians


def camera(batch, width, height, dtype=torch.float32, device="cpu") -> Camera:
    focal = height / 2 / math.tan(math.radians(18.837) / 2)
    K = torch.tensor([[focal, 0, width / 2 - 1], [0, focal, height / 2 + 2], [0, 0, 1]], dtype=dtype)
    view = torch.diag(torch.tensor([1, -1, -1, 1], dtype=dtype))
    view[2, 3] = 2.7
    return Camera(view.expand(batch, 4, 4).clone().to(device), K.expand(batch, 3, 3).clone().to(device), width, height)
