"""Norms whose rows are short or whose pixels lie channel by channel: torch's kernels take many times what their bytes do.

`row_norm`: rows of some 48 numbers, several in a warp. `norm_silu`: GroupNorm and SiLU of pictures in channels-last memory, where
torch's own would first turn them over, back again, and go through fp32 in between. Two passes there and two back: sums that every
program leaves of its own pixels, which the programs of the next pass add up, always in one order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.fused.launch import EPS, run_kernel

TILE, PIXELS, PARTS = 2048, 16, 32
"""Numbers of a tile of rows, with those that fill a row up to a power of two; pixels of a tile; sums of a picture, at most."""


@triton.jit
def _rows(x, y, deviation, R, STEP, WIDTH: tl.constexpr, ROOM: tl.constexpr, ROWS: tl.constexpr):
    """STEP: from one row of x to the next. deviation: 1/σ of each row."""
    row, col = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, ROOM)
    there = (row < R)[:, None] & (col < WIDTH)[None, :]
    value = tl.load(x + row[:, None] * STEP + col[None, :], mask=there, other=0.0).to(tl.float32)
    centred = tl.where(there, value - tl.sum(value, 1)[:, None] / WIDTH, 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, 1) / WIDTH + EPS)
    tl.store(y + row[:, None] * WIDTH + col[None, :], centred * scale[:, None], mask=there)
    tl.store(deviation + row, scale, mask=row < R)


@triton.jit
def _rows_back(y, deviation, d_y, d_x, R, STEP, WIDTH: tl.constexpr, ROOM: tl.constexpr, ROWS: tl.constexpr):
    """STEP: from one row of d_y to the next."""
    row, col = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, ROOM)
    there = (row < R)[:, None] & (col < WIDTH)[None, :]
    to = row[:, None] * WIDTH + col[None, :]
    value = tl.load(y + to, mask=there, other=0.0).to(tl.float32)
    d = tl.load(d_y + row[:, None] * STEP + col[None, :], mask=there, other=0.0).to(tl.float32)
    along = value * (tl.sum(value * d, 1) / WIDTH)[:, None] + (tl.sum(d, 1) / WIDTH)[:, None]
    scale = tl.load(deviation + row, mask=row < R, other=0.0)
    tl.store(d_x + to, scale[:, None] * (d - along), mask=there)


@triton.jit
def _tile(x, part, G: tl.constexpr, EACH: tl.constexpr, ROOM: tl.constexpr, PIXELS: tl.constexpr, N):
    """Pixels of a picture [N, G · EACH] as [PIXELS, G, ROOM] in fp32, where in it they are, and which of them there are."""
    n, g, k = part * PIXELS + tl.arange(0, PIXELS), tl.arange(0, G), tl.arange(0, ROOM)
    at = n[:, None, None] * (G * EACH) + g[None, :, None] * EACH + k[None, None, :]
    there = (n < N)[:, None, None] & (g >= 0)[None, :, None] & (k < EACH)[None, None, :]
    return tl.load(x + at, mask=there, other=0.0).to(tl.float32), at, there


@triton.jit
def _of_channels(x, G: tl.constexpr, EACH: tl.constexpr, ROOM: tl.constexpr):
    """A number per channel as [1, G, ROOM]; zeros past the last."""
    g, k = tl.arange(0, G), tl.arange(0, ROOM)
    there = (g >= 0)[:, None] & (k < EACH)[None, :]
    return tl.load(x + g[:, None] * EACH + k[None, :], mask=there, other=0.0).to(tl.float32)[None, :, :]


@triton.jit
def _sums(
    x, sums, N, STRIDE, G: tl.constexpr, EACH: tl.constexpr, ROOM: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Of each channel the sum and that of the squares, of a program's own pixels."""
    picture, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    x += picture.to(tl.int64) * STRIDE
    one, two = tl.zeros([G, ROOM], tl.float32), tl.zeros([G, ROOM], tl.float32)
    for k in range(part, tl.cdiv(N, PIXELS), parts):
        value, _, _ = _tile(x, k, G, EACH, ROOM, PIXELS, N)
        one += tl.sum(value, 0)
        two += tl.sum(value * value, 0)
    _leave(sums, picture * parts + part, one, two, G, EACH, ROOM)


@triton.jit
def _leave(sums, place, one, two, G: tl.constexpr, EACH: tl.constexpr, ROOM: tl.constexpr):
    g, k = tl.arange(0, G), tl.arange(0, ROOM)
    at = sums + place * (2 * G * EACH) + g[:, None] * EACH + k[None, :]
    there = (g >= 0)[:, None] & (k < EACH)[None, :]
    tl.store(at, one, mask=there)
    tl.store(at + G * EACH, two, mask=there)


@triton.jit
def _left(sums, picture, PARTS, G: tl.constexpr, EACH: tl.constexpr, ROOM: tl.constexpr, MOST: tl.constexpr):
    """What `_leave` left of a picture, of all programs: two [G, ROOM]."""
    p, g, k = tl.arange(0, MOST), tl.arange(0, G), tl.arange(0, ROOM)
    at = sums + (picture * PARTS + p)[:, None, None] * (2 * G * EACH) + g[None, :, None] * EACH + k[None, None, :]
    there = (p < PARTS)[:, None, None] & (g >= 0)[None, :, None] & (k < EACH)[None, None, :]
    one, two = tl.load(at, mask=there, other=0.0), tl.load(at + G * EACH, mask=there, other=0.0)
    return tl.sum(one, 0), tl.sum(two, 0)


@triton.jit
def _normed(
    x, sums, weight, bias, y, moments, N, STRIDE, PARTS,
    G: tl.constexpr, EACH: tl.constexpr, ROOM: tl.constexpr, PIXELS: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """moments: of each group the mean and 1/σ."""
    picture, part = tl.program_id(0), tl.program_id(1)
    one, two = _left(sums, picture, PARTS, G, EACH, ROOM, MOST)
    mean = tl.sum(one, 1) / (N * EACH)
    scale = 1 / tl.sqrt(tl.maximum(tl.sum(two, 1) / (N * EACH) - mean * mean, 0.0) + EPS)
    g = tl.arange(0, G)
    if part == 0:
        tl.store(moments + picture * (2 * G) + g, mean)
        tl.store(moments + picture * (2 * G) + G + g, scale)
    gain, offset = _of_channels(weight, G, EACH, ROOM), _of_channels(bias, G, EACH, ROOM)
    for k in range(part, tl.cdiv(N, PIXELS), PARTS):
        value, at, there = _tile(x + picture.to(tl.int64) * STRIDE, k, G, EACH, ROOM, PIXELS, N)
        z = (value - mean[None, :, None]) * scale[None, :, None] * gain + offset
        tl.store(y + picture.to(tl.int64) * STRIDE + at, z * tl.sigmoid(z), mask=there)


@triton.jit
def _before(
    x, d_y, moments, weight, bias, picture, part, N, STRIDE,
    G: tl.constexpr, EACH: tl.constexpr, ROOM: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """(x − mean)/σ and the gradient of what SiLU reads; and what `_tile` says."""
    g, first = tl.arange(0, G), picture.to(tl.int64) * STRIDE
    mean, scale = tl.load(moments + picture * (2 * G) + g), tl.load(moments + picture * (2 * G) + G + g)
    value, at, there = _tile(x + first, part, G, EACH, ROOM, PIXELS, N)
    d, _, _ = _tile(d_y + first, part, G, EACH, ROOM, PIXELS, N)
    value = tl.where(there, (value - mean[None, :, None]) * scale[None, :, None], 0.0)
    z = value * _of_channels(weight, G, EACH, ROOM) + _of_channels(bias, G, EACH, ROOM)
    s = tl.sigmoid(z)
    return value, d * s * (1 + z * (1 - s)), scale, at, there


@triton.jit
def _sums_back(
    x, d_y, moments, weight, bias, sums, N, STRIDE,
    G: tl.constexpr, EACH: tl.constexpr, ROOM: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Gradients of bias and weight, of a program's own pixels."""
    picture, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    one, two = tl.zeros([G, ROOM], tl.float32), tl.zeros([G, ROOM], tl.float32)
    for k in range(part, tl.cdiv(N, PIXELS), parts):
        value, d, _, _, _ = _before(x, d_y, moments, weight, bias, picture, k, N, STRIDE, G, EACH, ROOM, PIXELS)
        one += tl.sum(d, 0)
        two += tl.sum(d * value, 0)
    _leave(sums, picture * parts + part, one, two, G, EACH, ROOM)


@triton.jit
def _normed_back(
    x, d_y, moments, weight, bias, sums, d_x, N, STRIDE, PARTS,
    G: tl.constexpr, EACH: tl.constexpr, ROOM: tl.constexpr, PIXELS: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    picture, part = tl.program_id(0), tl.program_id(1)
    one, two = _left(sums, picture, PARTS, G, EACH, ROOM, MOST)
    gain = _of_channels(weight, G, EACH, ROOM)
    mean = tl.sum(one[None, :, :] * gain, 2) / (N * EACH)
    along = tl.sum(two[None, :, :] * gain, 2) / (N * EACH)
    for k in range(part, tl.cdiv(N, PIXELS), PARTS):
        value, d, scale, at, there = _before(
            x, d_y, moments, weight, bias, picture, k, N, STRIDE, G, EACH, ROOM, PIXELS
        )
        d = scale[None, :, None] * (gain * d - mean[:, :, None] - value * along[:, :, None])
        tl.store(d_x + picture.to(tl.int64) * STRIDE + at, d, mask=there)


def _row_step(x: Tensor) -> tuple[Tensor, int]:
    """Rows that lie one after the other at even steps, and the step; copied where they do not."""
    rows = x.reshape(-1, x.shape[-1])
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    return rows, rows.stride(0)


class _RowNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        rows, step = _row_step(x)
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        deviation = torch.empty(len(rows), device=x.device)
        _run_rows(_rows, rows, y, deviation, rows=len(rows), step=step, width=x.shape[-1])
        ctx.save_for_backward(y, deviation)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y: Tensor) -> Tensor:
        y, deviation = ctx.saved_tensors
        rows, step = _row_step(d_y)
        d_x = torch.empty_like(y)
        _run_rows(_rows_back, y, deviation, rows, d_x, rows=len(rows), step=step, width=y.shape[-1])
        return d_x


def _run_rows(kernel, *tensors: Tensor, rows: int, step: int, width: int) -> None:
    room = triton.next_power_of_2(width)
    many = max(1, TILE // room)
    kernel[(triton.cdiv(rows, many),)](*tensors, rows, step, WIDTH=width, ROOM=room, ROWS=many, num_warps=4)


def row_norm(x: Tensor) -> Tensor:
    """`reference.row_norm` in one launch, in x's type; statistics in fp32."""
    return _RowNorm.apply(x)


class _NormSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        pictures, channels, pixels = len(x), x.shape[1], x[0, 0].numel()
        own = _widths(channels, groups)
        parts = min(PARTS, triton.cdiv(pixels, PIXELS))
        sums = torch.empty(pictures, parts, 2, channels, device=x.device)
        moments = torch.empty(pictures, 2, groups, device=x.device)
        y = torch.empty_like(x)
        size = pixels, pixels * channels
        run_kernel(_sums, (pictures, parts), x, sums, *size, **own)
        run_kernel(_normed, (pictures, parts), x, sums, weight, bias, y, moments, *size, parts, **own, MOST=PARTS)
        ctx.save_for_backward(x, moments, weight, bias)
        ctx.groups, ctx.parts = groups, parts
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y: Tensor):
        x, moments, weight, bias = ctx.saved_tensors
        d_y = d_y.contiguous(memory_format=torch.channels_last)
        pictures, channels, pixels = len(x), x.shape[1], x[0, 0].numel()
        own = _widths(channels, ctx.groups)
        sums = torch.empty(pictures, ctx.parts, 2, channels, device=x.device)
        d_x, size = torch.empty_like(x), (pixels, pixels * channels)
        run_kernel(_sums_back, (pictures, ctx.parts), x, d_y, moments, weight, bias, sums, *size, **own)
        given = x, d_y, moments, weight, bias, sums
        run_kernel(_normed_back, (pictures, ctx.parts), *given, d_x, *size, ctx.parts, **own, MOST=PARTS)
        d_bias, d_weight = sums.sum((0, 1))
        return d_x, d_weight.to(weight), d_bias.to(bias), None


def _widths(channels: int, groups: int) -> dict[str, int]:
    """Raises ValueError for groups that are no power of two."""
    if groups & (groups - 1):
        raise ValueError(f"norm_silu takes 1, 2, 4, 8, … groups, not {groups}")
    each = channels // groups
    return {"G": groups, "EACH": each, "ROOM": triton.next_power_of_2(each), "PIXELS": PIXELS, "num_warps": 4}


def norm_silu(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """`reference.norm_silu` of pictures, in x's type and channels-last memory; statistics in fp32."""
    return _NormSilu.apply(x, weight, bias, groups)
