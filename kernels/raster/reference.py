"""Plain torch twins of the rasteriser's kernels."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def tile_lists(
    means2d: Float[Tensor, "I N 2"], radii: Int[Tensor, "I N 2"], depths: Float[Tensor, "I N"], width: int, height: int,
    tile: int = 16,
) -> tuple[Int[Tensor, " P"], Int[Tensor, " T"]]:  # fmt: skip
    """Pairs of (tile, Gaussian) by tile and depth: the Gaussians (indices into I·N) and the tiles, both sorted."""
    wide, high = -(-width // tile), -(-height // tile)
    limit = torch.tensor([wide, high], device=means2d.device)
    low = ((means2d - radii) / tile).floor().clamp_min(0).long().minimum(limit).flatten(0, 1)
    size = ((means2d + radii) / tile).ceil().clamp_min(0).long().minimum(limit).flatten(0, 1) - low
    size[(radii <= 0).any(-1).flatten()] = 0
    count = size.prod(-1)
    owner = torch.arange(len(count), device=count.device).repeat_interleave(count)
    k = torch.arange(len(owner), device=count.device) - (count.cumsum(0) - count)[owner]
    x, y = low[owner, 0] + k % size[owner, 0], low[owner, 1] + k // size[owner, 0]
    tiles = (owner // depths.shape[1] * high + y) * wide + x
    order = depths.flatten()[owner].argsort(stable=True)
    order = order[tiles[order].argsort(stable=True)]
    return owner[order], tiles[order]
