"""A picture of Gaussians by Triton alone, forward and backward: projection, lists by tile, pixels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.raster.draw import draw, draw_backward
from kernels.raster.project import project, project_backward
from kernels.raster.rooms import LONGEST, Rooms, Sorted

TILE = (4, 8)
"""Rows and columns of pixels."""


class _Splat(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, scales, opacities, colors, background, views, Ks, width, height, depth, lists):
        given = [t.detach().float().contiguous() for t in (means, quats, scales, opacities, colors)]
        views, Ks, background = (t.detach().float().contiguous() for t in (views, Ks, background))
        rows = project(*given, views, Ks, width, height)
        found = lists(rows) or Sorted(len(rows), width, height, None, rows.device, lists.tile)(rows)
        rgb, alpha, z, light, last = draw(rows, found, background, width, height, lists.tile, depth)
        ctx.save_for_backward(*given[:4], views, Ks, background, rows, *found[:2], light, last)
        ctx.size, ctx.tile, ctx.depth = (width, height), lists.tile, depth
        ctx.mark_non_differentiable(found.needed)
        return rgb, alpha, z, found.needed

    @staticmethod
    @once_differentiable
    def backward(ctx, drgb, dalpha, dz, _):
        *shape, views, Ks, background, rows, owners, begins, light, last = ctx.saved_tensors
        drows = draw_backward(
            rows, owners, begins, background, light, last, drgb, dalpha, dz if ctx.depth else None, ctx.tile
        )
        grads = project_backward(*shape, views, Ks, rows, drows, *ctx.size)
        return *grads, (drgb * light[..., None]).sum((1, 2)), *[None] * 6


def rows_of(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, views: Tensor, Ks: Tensor, width: int,
    height: int,
) -> Float[Tensor, "I N R"]:  # fmt: skip
    """What `splat` makes lists of."""
    given = (t.detach().float().contiguous() for t in (means, quats, scales, opacities, colors, views, Ks))
    return project(*given, width, height)


def lists_for(rows: Float[Tensor, "I N R"], width: int, height: int, spare: float) -> Rooms | Sorted:
    """Lists of fixed room, so many times as much as these rows need, for a CUDA graph. Waits for the GPU."""
    images, device = len(rows), rows.device
    found = Rooms(images, width, height, None, device, TILE)(rows)
    if found is not None and spare * int(found.needed) <= LONGEST:
        return Rooms(images, width, height, max(1, int(spare * int(found.needed))), device, TILE)
    pairs = int(Sorted(images, width, height, None, device, TILE)(rows).needed)
    return Sorted(images, width, height, max(1, int(spare * pairs)), device, TILE)


def splat(
    means: Float[Tensor, "I N 3"], quats: Float[Tensor, "I N 4"], scales: Float[Tensor, "I N 3"], opacities: Float[Tensor, "I N"],
    colors: Float[Tensor, "I N 3"], background: Float[Tensor, "I 3"], views: Float[Tensor, "I 4 4"], Ks: Float[Tensor, "I 3 3"],
    width: int, height: int, depth: bool = True, lists: Rooms | Sorted | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:  # fmt: skip
    """→ rgb [I,H,W,3], alpha [I,H,W,1], depth [I,H,W,1] (None without), and how much room the lists needed.

    wxyz quaternions of any length; world-to-camera matrices; pixels' centres at half integers. Computes in fp32. lists: of fixed
    room, for a CUDA graph (`lists_for`); by default of what is needed, for which the host waits. Cameras get no gradient."""
    if not means.shape[1]:
        rgb = background.float()[:, None, None].expand(-1, height, width, -1)
        nothing = rgb[..., :1] * 0
        return rgb, nothing, nothing if depth else None, nothing.new_zeros((), dtype=torch.int32)
    if lists is None:
        lists = Rooms(len(means), width, height, None, means.device, TILE)
    rgb, alpha, z, needed = _Splat.apply(
        means, quats, scales, opacities, colors, background, views, Ks, width, height, depth, lists
    )
    return rgb, alpha[..., None], z[..., None] if depth else None, needed
