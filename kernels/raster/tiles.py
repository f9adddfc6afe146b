"""Which Gaussians touch which tile, front to back, in buffers of fixed size (twin: `raster.reference.tile_lists`).

gsplat reads the number of (tile, Gaussian) pairs back to the host before it sorts them, which no CUDA graph can hold. Here
there is room for `capacity` pairs: unused ones belong to a row of tiles below the image, which gsplat's rasteriser leaves at
once. Keys are 32 bits, tile and quantised depth, where gsplat sorts up to 64.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 256
INFINITY = 0x7F800000
"""The bits of +∞ in fp32."""


@triton.jit
def _tiles(means, radii, i, there, WIDE, HIGH, SIZE: tl.constexpr):
    """First tile and number of tiles of each Gaussian's box, per axis (gsplat's rule)."""
    x, y = tl.load(means + 2 * i, mask=there, other=0.0), tl.load(means + 2 * i + 1, mask=there, other=0.0)
    rx, ry = tl.load(radii + 2 * i, mask=there, other=0), tl.load(radii + 2 * i + 1, mask=there, other=0)
    seen = (rx > 0) & (ry > 0)
    x0 = tl.minimum(tl.maximum(tl.floor((x - rx) / SIZE), 0.0), WIDE).to(tl.int32)
    x1 = tl.minimum(tl.maximum(tl.ceil((x + rx) / SIZE), 0.0), WIDE).to(tl.int32)
    y0 = tl.minimum(tl.maximum(tl.floor((y - ry) / SIZE), 0.0), HIGH).to(tl.int32)
    y1 = tl.minimum(tl.maximum(tl.ceil((y + ry) / SIZE), 0.0), HIGH).to(tl.int32)
    return x0, y0, tl.where(seen, x1 - x0, 0), tl.where(seen, y1 - y0, 0)


@triton.jit
def _count(means, radii, depths, counts, span, TOTAL, WIDE, HIGH, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """span: smallest and largest depth of what is seen, as the bits of positive floats, which sort as they do."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = i < TOTAL
    _, _, nx, ny = _tiles(means, radii, i, there, WIDE, HIGH, SIZE)
    n = nx * ny
    tl.store(counts + i, n, mask=there)
    bits = tl.load(depths + i, mask=there, other=1.0).to(tl.int32, bitcast=True)
    tl.atomic_min(span, tl.min(tl.where(n > 0, bits, 0x7F800000), 0))
    tl.atomic_max(span + 1, tl.max(tl.where(n > 0, bits, 0), 0))


@triton.jit
def _emit(
    means, radii, depths, ends, span, keys, owners, TOTAL, N, WIDE, HIGH, CAPACITY,
    SIZE: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = i < TOTAL
    x0, y0, nx, ny = _tiles(means, radii, i, there, WIDE, HIGH, SIZE)
    n = nx * ny
    start = tl.load(ends + i, mask=there, other=0) - n
    near = tl.load(span).to(tl.float32, bitcast=True)
    far = tl.load(span + 1).to(tl.float32, bitcast=True)
    depth = tl.load(depths + i, mask=there, other=1.0)
    level = ((depth - near) / tl.maximum(far - near, 1e-20) * ((1 << BITS) - 1)).to(tl.int32)
    image = i // N * ((HIGH + 1) * WIDE)
    for k in range(0, tl.max(n, 0)):
        tile = image + (y0 + k // tl.maximum(nx, 1)) * WIDE + x0 + k % tl.maximum(nx, 1)
        at = start + k
        here = (k < n) & (at < CAPACITY)
        tl.store(keys + at, (tile << BITS) | level, mask=here)
        tl.store(owners + at, i, mask=here)


class TileLists:
    """Lists for images of one size. Calling it launches work alone: no copy from or to the host."""

    def __init__(self, images: int, width: int, height: int, capacity: int, device, tile: int = 16):
        """capacity: pairs there is room for. Raises ValueError when there are too many tiles for 32-bit keys."""
        self.images, self.capacity, self.tile = images, capacity, tile
        self.wide, self.high = -(-width // tile), -(-height // tile)
        tiles = images * (self.high + 1) * self.wide
        self.bits = min(22, 31 - (tiles - 1).bit_length())  # levels that fp32 holds exactly
        if self.bits < 16:
            raise ValueError(f"{images} images of {width} × {height} have too many tiles for 32-bit keys")
        self.first = torch.arange(tiles, dtype=torch.int32, device=device) << self.bits
        self.unused = (tiles - 1) << self.bits

    def __call__(
        self, means2d: Float[Tensor, "I N 2"], radii: Int[Tensor, "I N 2"], depths: Float[Tensor, "I N"]
    ) -> tuple[Int[Tensor, " C"], Int[Tensor, "I H W"], Int[Tensor, ""]]:
        """→ owners of the pairs (indices into I·N) by tile and depth, where each tile's begin (its last row of tiles holds
        what is unused), and how many pairs there were: more than `capacity` means that some are missing."""
        n, device = depths.shape[1], depths.device
        counts = torch.empty(depths.numel(), dtype=torch.int32, device=device)
        span = torch.zeros(2, dtype=torch.int32, device=device)
        span[:1].fill_(INFINITY)
        grid, sizes = (triton.cdiv(depths.numel(), BLOCK),), (self.wide, self.high)
        _count[grid](means2d, radii, depths, counts, span, depths.numel(), *sizes, SIZE=self.tile, BLOCK=BLOCK)
        ends = counts.cumsum(0, dtype=torch.int32)
        keys = torch.full((self.capacity,), self.unused, dtype=torch.int32, device=device)
        owners = torch.empty(self.capacity, dtype=torch.int32, device=device)
        _emit[grid](
            means2d, radii, depths, ends, span, keys, owners, depths.numel(), n, *sizes, self.capacity, SIZE=self.tile,
            BITS=self.bits, BLOCK=BLOCK,
        )  # fmt: skip
        keys, order = keys.sort(stable=True)
        offsets = torch.searchsorted(keys, self.first, out_int32=True)
        return owners[order], offsets.view(self.images, self.high + 1, self.wide), ends[-1]
