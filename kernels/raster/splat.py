"""A picture of Gaussians by Triton alone, forward and backward: projection, lists by tile, pixels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.raster.draw import draw, draw_backward
from kernels.raster.project import project, project_backward
from kernels.raster.tiles import TileLists

TILE = (8, 8)
"""Rows and columns of pixels."""


class _Splat(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, scales, opacities, colors, background, views, Ks, width, height, depth, lists):
        given = [t.detach().float().contiguous() for t in (means, quats, scales, opacities, colors)]
        views, Ks, background = (t.detach().float().contiguous() for t in (views, Ks, background))
        rows = project(*given, views, Ks, width, height)
        owners, offsets, pairs = lists(rows[..., :2], rows[..., 10:], rows[..., 9], rows)
        rgb, alpha, z, light, last = draw(rows, owners, offsets, background, width, height, lists.tile, depth)
        ctx.save_for_backward(*given[:4], views, Ks, background, rows, owners, offsets, light, last)
        ctx.size, ctx.tile, ctx.depth = (width, height), lists.tile, depth
        ctx.mark_non_differentiable(pairs)
        return rgb, alpha, z, pairs

    @staticmethod
    @once_differentiable
    def backward(ctx, drgb, dalpha, dz, _):
        means, quats, scales, opacities, views, Ks, background, rows, owners, offsets, light, last = ctx.saved_tensors
        drows = draw_backward(
            rows, owners, offsets, background, light, last, drgb, dalpha, dz if ctx.depth else None, ctx.tile
        )
        grads = project_backward(means, quats, scales, opacities, views, Ks, rows, drows, *ctx.size)
        return *grads, (drgb * light[..., None]).sum((1, 2)), *[None] * 6


def splat(
    means: Float[Tensor, "I N 3"], quats: Float[Tensor, "I N 4"], scales: Float[Tensor, "I N 3"], opacities: Float[Tensor, "I N"],
    colors: Float[Tensor, "I N 3"], background: Float[Tensor, "I 3"], views: Float[Tensor, "I 4 4"], Ks: Float[Tensor, "I 3 3"],
    width: int, height: int, depth: bool = True, lists: TileLists | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:  # fmt: skip
    """→ rgb [I,H,W,3], alpha [I,H,W,1], depth [I,H,W,1] (None without), and how many pairs of tile and Gaussian there were.

    wxyz quaternions of any length; world-to-camera matrices; pixels' centres at half integers. Computes in fp32. lists: of fixed
    room, for a CUDA graph; by default of as much as is needed, for which the host waits. Cameras get no gradient."""
    if not means.shape[1]:
        rgb = background.float()[:, None, None].expand(-1, height, width, -1)
        nothing = rgb[..., :1] * 0
        return rgb, nothing, nothing if depth else None, nothing.new_zeros((), dtype=torch.int32)
    if lists is None:
        lists = TileLists(len(means), width, height, None, means.device, TILE)
    rgb, alpha, z, pairs = _Splat.apply(
        means, quats, scales, opacities, colors, background, views, Ks, width, height, depth, lists
    )
    return rgb, alpha[..., None], z[..., None] if depth else None, pairs
