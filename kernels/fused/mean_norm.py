"""The mean of rows' norms (twin: `reference.mean_norm`), in one pass forward and one back.

δf is the largest tensor of a training step. A row is narrow, and torch's norm over narrow rows has a quarter of the memory's
speed. The norms are not kept: the backward pass reads the rows, and has them again.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.fused.launch import run_kernel

BLOCK = 4096
"""Numbers of a program, with those that fill a row up to a power of two."""


@triton.jit
def _read(rows, COUNT, WIDTH: tl.constexpr, ROWS: tl.constexpr, PADDED: tl.constexpr, TYPE: tl.constexpr):
    """A program's rows, their norms, where they are, and which of it is there."""
    row, column = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, PADDED)
    at, there = row[:, None] * WIDTH + column[None, :], (row < COUNT)[:, None] & (column < WIDTH)[None, :]
    x = tl.load(rows + at, mask=there, other=0.0).to(TYPE)
    return x, tl.sqrt(tl.sum(x * x, 1)), at, there


@triton.jit
def _forward(rows, sums, COUNT, WIDTH: tl.constexpr, ROWS: tl.constexpr, PADDED: tl.constexpr):
    """Per program, the sum of its rows' norms."""
    _, norm, _, _ = _read(rows, COUNT, WIDTH, ROWS, PADDED, sums.dtype.element_ty)
    tl.store(sums + tl.program_id(0), tl.sum(norm, 0))


@triton.jit
def _backward(rows, grad, out, COUNT, WIDTH: tl.constexpr, ROWS: tl.constexpr, PADDED: tl.constexpr):
    """Rows of length grad / COUNT; zeros where a row is zero."""
    x, norm, at, there = _read(rows, COUNT, WIDTH, ROWS, PADDED, grad.dtype.element_ty)
    scale = tl.where(norm > 0, tl.load(grad) / (tl.where(norm > 0, norm, 1.0) * COUNT), 0.0)
    tl.store(out + at, x * scale[:, None], mask=there)


class _MeanNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows):
        grid, settings = _settings(rows)
        sums = torch.empty(grid, dtype=torch.promote_types(rows.dtype, torch.float32), device=rows.device)
        run_kernel(_forward, grid, rows, sums, **settings)
        ctx.save_for_backward(rows)
        return sums.sum() / settings["COUNT"]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (rows,) = ctx.saved_tensors
        out = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)
        grid, settings = _settings(rows)
        run_kernel(_backward, grid, rows, grad, out, **settings)
        return out


def mean_norm(rows: Tensor) -> Tensor:
    """`reference.mean_norm`, in fp32 (of fp64 in fp64)."""
    return _MeanNorm.apply(rows.contiguous())


def _settings(rows: Tensor) -> tuple[tuple[int], dict[str, int]]:
    """The grid, and what both kernels must know of the rows."""
    width = rows.shape[-1]
    count, padded = rows.numel() // width, triton.next_power_of_2(width)
    each = max(1, BLOCK // padded)
    return (triton.cdiv(count, each),), {"COUNT": count, "WIDTH": width, "ROWS": each, "PADDED": padded}
