"""SSIM of pictures with the pictures' gradient (twin: `reference.ssim`), around blurs that are torch's products.

In torch it is some twenty passes over maps as large as the pictures, and most of them are kept for the backward pass. Here three:
the maps that are blurred, the formula with its slopes, and what these, blurred back, are for a picture. The gradient
is made at once, so that it alone is kept, and in the precision of products that the forward pass has: SSIM is small differences,
and `train.loop` allows tf32 in the backward pass.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.fused.launch import run_kernel

BLOCK = 1024
C1, C2 = tl.constexpr(0.01**2), tl.constexpr(0.03**2)
EXACT = {"enable_fp_fusion": False}
"""Products are rounded before they are subtracted, as torch's: a picture then has exactly 1 with itself."""


@triton.jit
def _at(images, strides, image, y, x, c):
    """Where a pixel's channel is."""
    return images + image * strides[0] + y * strides[1] + x * strides[2] + c * strides[3]


@triton.jit
def _maps(a, b, maps, a_strides, b_strides, H, W, N, C: tl.constexpr, BLOCK: tl.constexpr):
    """a, a² + b², a b and b as [4,B,C,H,W]. N: numbers of one of them."""
    i, image = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    there, y, x = i < H * W, i // W, i % W
    for c in tl.static_range(C):
        u = tl.load(_at(a, a_strides, image, y, x, c), mask=there, other=0.0).to(maps.dtype.element_ty)
        v = tl.load(_at(b, b_strides, image, y, x, c), mask=there, other=0.0).to(maps.dtype.element_ty)
        to = maps + (image * C + c) * H * W + i
        tl.store(to, u, mask=there)
        to += N
        tl.store(to, u * u + v * v, mask=there)
        to += N
        tl.store(to, u * v, mask=there)
        to += N
        tl.store(to, v, mask=there)


@triton.jit
def _formula(maps, sums, slopes, N, BLOCK: tl.constexpr):
    """Per program, the sum of SSIM of blurred maps; and its slopes by the three of them that depend on a, [3,B,C,H,W]."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = i < N
    at = maps + i
    ma = tl.load(at, mask=there, other=0.0)
    at += N
    squares = tl.load(at, mask=there, other=0.0)
    at += N
    ab, mb = tl.load(at, mask=there, other=0.0), tl.load(at + N, mask=there, other=0.0)
    product, both = ma * mb, ma * ma + mb * mb
    light, structure = product * 2 + C1, (ab - product) * 2 + C2
    most_light, most_structure = both + C1, squares - both + C2
    per = 1 / (most_light * most_structure)
    value = light * structure * per
    tl.store(sums + tl.program_id(0), tl.sum(tl.where(there, value, 0.0), 0))
    if slopes is not None:
        to = slopes + i
        tl.store(to, (mb * (structure - light) + ma * value * (most_light - most_structure)) * per * 2, mask=there)
        to += N
        tl.store(to, -value * most_light * per, mask=there)
        to += N
        tl.store(to, light * per * 2, mask=there)


@triton.jit
def _gradient(a, b, slopes, out, a_strides, b_strides, H, W, N, C: tl.constexpr, BLOCK: tl.constexpr):
    """Of the mean to a, [B,H,W,C], by the blurred slopes [3,B,C,H,W]."""
    i, image = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    there, pixel, c = i < H * W * C, i // C, i % C
    y, x = pixel // W, pixel % W
    u = tl.load(_at(a, a_strides, image, y, x, c), mask=there, other=0.0).to(out.dtype.element_ty)
    v = tl.load(_at(b, b_strides, image, y, x, c), mask=there, other=0.0).to(out.dtype.element_ty)
    at = slopes + (image * C + c) * H * W + pixel
    total = tl.load(at, mask=there, other=0.0)
    at += N
    total += tl.load(at, mask=there, other=0.0) * u * 2
    at += N
    total += tl.load(at, mask=there, other=0.0) * v
    tl.store(out + image * H * W * C + i, total / N, mask=there)


class _Ssim(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pred, target, rows, columns):
        value, gradient = _ssim(pred, target, rows, columns, True)
        ctx.save_for_backward(gradient)
        ctx.stored = pred.dtype
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (gradient,) = ctx.saved_tensors
        return (grad * gradient).to(ctx.stored), None, None, None


def ssim(pred: Tensor, target: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`reference.ssim`; 16 bits are computed with in fp32, which the value then has. Raises ValueError for a target that needs a
    gradient."""
    recorded = torch.is_grad_enabled()
    if recorded and target.requires_grad:
        raise ValueError("SSIM's kernel has no gradient for the target")
    if recorded and pred.requires_grad:
        return _Ssim.apply(pred, target, rows, columns)
    return _ssim(pred, target, rows, columns, False)[0]


def _ssim(
    pred: Tensor, target: Tensor, rows: Tensor, columns: Tensor, differentiated: bool
) -> tuple[Tensor, Tensor | None]:
    """SSIM, and where it is differentiated its gradient to `pred`."""
    (B, H, W, C), n = pred.shape, pred.numel()
    dtype = torch.promote_types(pred.dtype, torch.float32)
    rows, columns = rows.to(dtype), columns.to(dtype)
    maps = torch.empty(4, B, C, H, W, dtype=dtype, device=pred.device)
    strides = pred.stride(), target.stride()
    run_kernel(_maps, (triton.cdiv(H * W, BLOCK), B), pred, target, maps, *strides, H, W, n, C, BLOCK, **EXACT)
    maps = rows @ maps @ columns.T
    sums = torch.empty(triton.cdiv(n, BLOCK), dtype=dtype, device=pred.device)
    slopes = torch.empty(3, B, C, H, W, dtype=dtype, device=pred.device) if differentiated else None
    run_kernel(_formula, (len(sums),), maps, sums, slopes, n, BLOCK, **EXACT)
    value = sums.sum() / n
    if slopes is None:
        return value, None
    slopes = rows.T @ slopes @ columns
    gradient = torch.empty(B, H, W, C, dtype=dtype, device=pred.device)
    run_kernel(
        _gradient, (triton.cdiv(H * W * C, BLOCK), B), pred, target, slopes, gradient, *strides, H, W, n, C, BLOCK
    )
    return value, gradient
