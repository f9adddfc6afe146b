"""A picture of Gaussians by Triton alone, forward and backward: projection, lists by tile, pixels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.raster.draw import draw, draw_backward
from kernels.raster.project import DEPTH, REACH, project, project_backward
from kernels.raster.rooms import Lists, Rooms
from kernels.raster.tiles import TileLists

TILE = (8, 8)
"""Rows and columns of pixels."""


class _Splat(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, scales, opacities, colors, background, views, Ks, width, height, depth, lists):
        given = [t.detach().float().contiguous() for t in (means, quats, scales, opacities, colors)]
        views, Ks, background = (t.detach().float().contiguous() for t in (views, Ks, background))
        rows = project(*given, views, Ks, width, height)
        found = lists(rows) or _by_one_sort(rows, width, height, lists.tile)
        rgb, alpha, z, light, last = draw(rows, found, background, width, height, lists.tile, depth)
        ctx.save_for_backward(*given[:4], views, Ks, background, rows, *found[:2], light, last)
        ctx.size, ctx.tile, ctx.depth = (width, height), lists.tile, depth
        ctx.mark_non_differentiable(found.longest)
        return rgb, alpha, z, found.longest

    @staticmethod
    @once_differentiable
    def backward(ctx, drgb, dalpha, dz, _):
        means, quats, scales, opacities, views, Ks, background, rows, owners, begins, light, last = ctx.saved_tensors
        drows = draw_backward(
            rows, owners, begins, background, light, last, drgb, dalpha, dz if ctx.depth else None, ctx.tile
        )
        grads = project_backward(means, quats, scales, opacities, views, Ks, rows, drows, *ctx.size)
        return *grads, (drgb * light[..., None]).sum((1, 2)), *[None] * 6


def _by_one_sort(rows: Tensor, width: int, height: int, tile: tuple[int, int]) -> Lists:
    """Of any length."""
    sorted_ = TileLists(len(rows), width, height, None, rows.device, tile)
    owners, offsets, _ = sorted_(rows[..., :2], rows[..., REACH:], rows[..., DEPTH], rows)
    flat = offsets.flatten(1)
    tiles = flat.shape[1] - offsets.shape[2]
    begins, lasts = flat[:, :tiles].flatten(), flat[:, 1 : tiles + 1].flatten()
    return Lists(owners, begins, lasts, (lasts - begins).max())


def splat(
    means: Float[Tensor, "I N 3"], quats: Float[Tensor, "I N 4"], scales: Float[Tensor, "I N 3"], opacities: Float[Tensor, "I N"],
    colors: Float[Tensor, "I N 3"], background: Float[Tensor, "I 3"], views: Float[Tensor, "I 4 4"], Ks: Float[Tensor, "I 3 3"],
    width: int, height: int, depth: bool = True, lists: Rooms | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:  # fmt: skip
    """→ rgb [I,H,W,3], alpha [I,H,W,1], depth [I,H,W,1] (None without), and how many Gaussians the fullest tile had.

    wxyz quaternions of any length; world-to-camera matrices; pixels' centres at half integers. Computes in fp32. lists: with rooms
    of fixed size, for a CUDA graph; by default of what is needed, for which the host waits. Cameras get no gradient."""
    if not means.shape[1]:
        rgb = background.float()[:, None, None].expand(-1, height, width, -1)
        nothing = rgb[..., :1] * 0
        return rgb, nothing, nothing if depth else None, nothing.new_zeros((), dtype=torch.int32)
    if lists is None:
        lists = Rooms(len(means), width, height, None, means.device, TILE)
    rgb, alpha, z, longest = _Splat.apply(
        means, quats, scales, opacities, colors, background, views, Ks, width, height, depth, lists
    )
    return rgb, alpha[..., None], z[..., None] if depth else None, longest
