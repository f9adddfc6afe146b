"""Dense torch rasteriser: every Gaussian at every pixel. Slow and plain: the specification of the other two.

Conventions are gsplat 1.5's (`packed=False`, "classic"): pixel centres at half integers, EWA projection with clamped
Jacobian, 0.3 px² added to the 2D covariance, α = min(0.999, o·exp(−σ)), α < 1/255 skipped, front to back by the depth of
the centre, stop before transmittance falls to 1e-4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from i4d_bench.types import Camera, Gaussians, Rendered
from kernels.layout import ALPHA_MAX, ALPHA_MIN, EPS_2D, NEAR, STOP


def rotation(quats: Float[Tensor, "*B 4"]) -> Float[Tensor, "*B 3 3"]:
    """Rotation matrices of wxyz quaternions of any non-zero length."""
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    rows = (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y))  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def project(g: Gaussians, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel means [B,N,2], 2D covariances [B,N,2,2] and depths [B,N]."""
    R, t = camera.viewmats[:, :3, :3], camera.viewmats[:, :3, 3]
    p = g.means @ R.transpose(1, 2) + t[:, None]
    fx, fy, cx, cy = (camera.Ks[:, i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    x, y, z = p.unbind(-1)
    z = torch.where(z > NEAR, z, torch.ones_like(z))  # culled by `rasterize`; keeps the gradient finite
    margin_x, margin_y = 0.15 * camera.width / fx, 0.15 * camera.height / fy
    tx = z * torch.maximum(torch.minimum(x / z, (camera.width - cx) / fx + margin_x), -cx / fx - margin_x)
    ty = z * torch.maximum(torch.minimum(y / z, (camera.height - cy) / fy + margin_y), -cy / fy - margin_y)
    zero = torch.zeros_like(z)
    J = torch.stack([fx / z, zero, -fx * tx / z**2, zero, fy / z, -fy * ty / z**2], -1).unflatten(-1, (2, 3))
    M = rotation(g.quats) * g.scales[..., None, :]
    T = J @ R[:, None] @ M
    covariance = T @ T.transpose(-1, -2) + EPS_2D * torch.eye(2, dtype=T.dtype, device=T.device)
    return torch.stack([fx * x / z + cx, fy * y / z + cy], -1), covariance, p[..., 2]


def rasterize(g: Gaussians, camera: Camera, background: Float[Tensor, "B 3"], depth: bool = True) -> Rendered:
    """Memory grows with B·N·H·W. There always is depth."""
    mean, covariance, depths = project(g, camera)
    order = depths.argsort(dim=1, stable=True)
    take = lambda a: a.gather(1, order.view(*order.shape, *[1] * (a.ndim - 2)).expand_as(a))  # noqa: E731
    mean, covariance, depths, opacity, color = map(take, (mean, covariance, depths, g.opacities, g.colors))
    y, x = torch.meshgrid(*(torch.arange(n, device=mean.device, dtype=mean.dtype) + 0.5 for n in (camera.height, camera.width)),
                          indexing="ij")  # fmt: skip
    pixels = torch.stack([x, y], -1).view(-1, 2)
    d = pixels - mean[:, :, None]  # [B,N,P,2]
    sigma = 0.5 * (d * (d @ torch.linalg.inv(covariance))).sum(-1)
    alpha = (opacity[..., None] * torch.exp(-sigma)).clamp_max(ALPHA_MAX)
    alpha = torch.where((alpha >= ALPHA_MIN) & (depths > NEAR)[..., None], alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, 1)
    alpha = torch.where(after > STOP, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
    weight = alpha * before
    rgb = torch.einsum("bnp,bnc->bpc", weight, color) + after[:, -1, :, None] * background[:, None]
    z = torch.einsum("bnp,bn->bp", weight, depths)
    shape = (len(mean), camera.height, camera.width, -1)
    return Rendered(rgb.view(shape), (1 - after[:, -1]).view(shape), z.view(shape))
