"""Which Gaussians touch which tile, front to back, in buffers of fixed size (twin: `raster.reference.tile_lists`).

gsplat reads the number of (tile, Gaussian) pairs back to the host before it sorts them, which no CUDA graph can hold. Here
there is room for `capacity` pairs: unused ones belong to a row of tiles below the image, which gsplat's rasteriser leaves at
once. Keys are tile and quantised depth in 32 bits, or in 64 (gsplat's) where so many tiles leave too few for the depth.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from kernels.fused.launch import run_kernel
from kernels.raster.project import LEVELS

BLOCK = 256
INFINITY = 0x7F800000
"""The bits of +∞ in fp32."""


@triton.jit
def box(
    means,
    reaches,
    i,
    there,
    ACROSS,
    DOWN,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
    MEANS: tl.constexpr,
    REACHES: tl.constexpr,
):
    """First tile and number of tiles of each Gaussian's box, per axis (gsplat's rule)."""
    x, y = tl.load(means + MEANS * i, mask=there, other=0.0), tl.load(means + MEANS * i + 1, mask=there, other=0.0)
    rx, ry = (
        tl.load(reaches + REACHES * i, mask=there, other=0),
        tl.load(reaches + REACHES * i + 1, mask=there, other=0),
    )
    seen = (rx > 0) & (ry > 0)
    x0 = tl.minimum(tl.maximum(tl.floor((x - rx) / WIDE), 0.0), ACROSS).to(tl.int32)
    x1 = tl.minimum(tl.maximum(tl.ceil((x + rx) / WIDE), 0.0), ACROSS).to(tl.int32)
    y0 = tl.minimum(tl.maximum(tl.floor((y - ry) / TALL), 0.0), DOWN).to(tl.int32)
    y1 = tl.minimum(tl.maximum(tl.ceil((y + ry) / TALL), 0.0), DOWN).to(tl.int32)
    return x0, y0, tl.where(seen, x1 - x0, 0), tl.where(seen, y1 - y0, 0)


@triton.jit
def ellipse(rows, i, there, ROW: tl.constexpr):
    """Centre, conic and how far α reaches, as exponents of 2, of rows of `raster.project`."""
    at = rows + ROW * i
    a, c = tl.load(at + 2, mask=there, other=1.0), tl.load(at + 4, mask=there, other=1.0)
    b, level = tl.load(at + 3, mask=there, other=0.0), tl.load(at + 5, mask=there, other=0.0)
    return tl.load(at, mask=there, other=0.0), tl.load(at + 1, mask=there, other=0.0), a, b, c, level + LEVELS


@triton.jit
def meets(e, column, row, TALL: tl.constexpr, WIDE: tl.constexpr):
    """Whether α reaches 1/255 anywhere among a tile's pixel centres: the exponent's least value on the tile's edges that face the
    centre (StopThePop, Radl et al. 2024), with a little to spare for rounding."""
    x, y, a, b, c, far = e
    low_x, low_y = column * WIDE + 0.5 - x, row * TALL + 0.5 - y
    high_x, high_y = low_x + (WIDE - 1), low_y + (TALL - 1)
    dx, dy = tl.minimum(tl.maximum(low_x, 0.0), high_x), tl.minimum(tl.maximum(low_y, 0.0), high_y)
    ex = tl.minimum(tl.maximum(-b * dy / (2 * a), low_x), high_x)
    ey = tl.minimum(tl.maximum(-b * dx / (2 * c), low_y), high_y)
    least = tl.minimum(a * dx * dx + b * dx * ey + c * ey * ey, a * ex * ex + b * ex * dy + c * dy * dy)
    return least <= far + 1e-3


@triton.jit
def _count(
    means, reaches, depths, rows, counts, span, TOTAL, ACROSS, DOWN, TALL: tl.constexpr, WIDE: tl.constexpr, MEANS: tl.constexpr,
    REACHES: tl.constexpr, DEPTHS: tl.constexpr, ROW: tl.constexpr, EXACT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """span: smallest and largest depth of what is seen, as the bits of positive floats, which sort as they do."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = i < TOTAL
    x0, y0, nx, ny = box(means, reaches, i, there, ACROSS, DOWN, TALL, WIDE, MEANS, REACHES)
    n = nx * ny
    if EXACT:
        e = ellipse(rows, i, there, ROW)
        met = n * 0
        for k in range(0, tl.max(n, 0)):
            across = tl.maximum(nx, 1)
            met += ((k < n) & meets(e, x0 + k % across, y0 + k // across, TALL, WIDE)).to(tl.int32)
        n = met
    tl.store(counts + i, n, mask=there)
    bits = tl.load(depths + DEPTHS * i, mask=there, other=1.0).to(tl.int32, bitcast=True)
    tl.atomic_min(span, tl.min(tl.where(n > 0, bits, 0x7F800000), 0), sem="relaxed")
    tl.atomic_max(span + 1, tl.max(tl.where(n > 0, bits, 0), 0), sem="relaxed")


@triton.jit
def _emit(
    means, reaches, depths, rows, counts, ends, span, keys, owners, TOTAL, N, ACROSS, DOWN, CAPACITY,
    TALL: tl.constexpr, WIDE: tl.constexpr, BITS: tl.constexpr, MEANS: tl.constexpr, REACHES: tl.constexpr, DEPTHS: tl.constexpr,
    ROW: tl.constexpr, EXACT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = i < TOTAL
    x0, y0, nx, ny = box(means, reaches, i, there, ACROSS, DOWN, TALL, WIDE, MEANS, REACHES)
    n = nx * ny
    slot = tl.load(ends + i, mask=there, other=0) - tl.load(counts + i, mask=there, other=0)
    near = tl.load(span).to(tl.float32, bitcast=True)
    far = tl.load(span + 1).to(tl.float32, bitcast=True)
    depth = tl.load(depths + DEPTHS * i, mask=there, other=1.0)
    level = ((depth - near) / tl.maximum(far - near, 1e-20) * ((1 << BITS) - 1)).to(tl.int32)
    image = (i // N).to(tl.int32) * ((DOWN + 1) * ACROSS)
    if EXACT:
        e = ellipse(rows, i, there, ROW)
    for k in range(0, tl.max(n, 0)):
        column, row = x0 + k % tl.maximum(nx, 1), y0 + k // tl.maximum(nx, 1)
        here = k < n
        if EXACT:
            here = here & meets(e, column, row, TALL, WIDE)
        fits = here & (slot < CAPACITY)
        tile = (image + row * ACROSS + column).to(keys.dtype.element_ty)
        tl.store(keys + slot, (tile << BITS) | level, mask=fits)
        tl.store(owners + slot, i.to(tl.int32), mask=fits)
        slot += here.to(tl.int32)


class TileLists:
    """Lists for images of one size. Calling it launches work alone: no copy from or to the host."""

    def __init__(
        self, images: int, width: int, height: int, capacity: int | None, device, tile: tuple[int, int] = (16, 16)
    ):
        """capacity: pairs there is room for; None: as many as there are, which the host then waits to be told. tile: rows and
        columns of pixels."""
        self.images, self.capacity, self.tile = images, capacity, tile
        self.wide, self.high = -(-width // tile[1]), -(-height // tile[0])
        tiles = images * (self.high + 1) * self.wide
        left = 31 - (tiles - 1).bit_length()
        key, left = (torch.int32, left) if left >= 16 else (torch.int64, 63)
        self.bits = min(22, left)  # levels that fp32 holds exactly
        self.first = torch.arange(tiles, dtype=key, device=device) << self.bits
        self.unused = (tiles - 1) << self.bits

    def __call__(
        self,
        means2d: Float[Tensor, "I N 2"],
        reaches: Float[Tensor, "I N 2"] | Int[Tensor, "I N 2"],
        depths: Float[Tensor, "I N"],
        rows: Float[Tensor, "I N R"] | None = None,
    ) -> tuple[Int[Tensor, " C"], Int[Tensor, "I H W"], Int[Tensor, ""]]:
        """→ owners of the pairs (indices into I·N) by tile and depth, where each tile's begin (its last row of tiles holds
        what is unused), and how many pairs there were: more than `capacity` means that some are missing.

        reaches: half of a Gaussian's box, pixels. rows: of `raster.project`, which the others are columns of; tiles that the box
        alone meets are left out."""
        n, device = depths.shape[1], depths.device
        counts = torch.empty(depths.numel(), dtype=torch.int32, device=device)
        span = torch.zeros(2, dtype=torch.int32, device=device)
        span[:1].fill_(INFINITY)
        grid, sizes = (triton.cdiv(depths.numel(), BLOCK),), (self.wide, self.high)
        how = {
            "TALL": self.tile[0], "WIDE": self.tile[1], "MEANS": means2d.stride(1), "REACHES": reaches.stride(1),
            "DEPTHS": depths.stride(1), "ROW": 0 if rows is None else rows.stride(1), "EXACT": rows is not None, "BLOCK": BLOCK,
        }  # fmt: skip
        given = (means2d, reaches, depths, rows, counts)
        run_kernel(_count, grid, *given, span, depths.numel(), *sizes, **how)
        ends = counts.cumsum(0, dtype=torch.int32)
        capacity = int(ends[-1]) if self.capacity is None else self.capacity
        keys = torch.full((capacity,), self.unused, dtype=self.first.dtype, device=device)
        owners = torch.empty(capacity, dtype=torch.int32, device=device)
        run_kernel(
            _emit, grid, *given, ends, span, keys, owners, depths.numel(), n, *sizes, capacity, BITS=self.bits, **how
        )
        keys, order = keys.sort(stable=True)
        offsets = torch.searchsorted(keys, self.first, out_int32=True)
        return owners[order], offsets.view(self.images, self.high + 1, self.wide), ends[-1]
