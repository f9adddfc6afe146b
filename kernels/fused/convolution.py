"""A ResNet's layers for few pictures at a time, in inference: convolutions with what follows them, and the ends of the network (the
specification is torch's own layers, as `i4d_bench.drivers.fast` has them on a CPU).

A ResNet-18's layers have as few as 49 pixels and as many as 4,608 products to a number: tiles of pixels and channels alone leave
most processors idle. So programs share a tile: each adds up some of the products, and the last to end adds up their sums, always
in the same order, and does what follows. That is the bias, the sum with the block's input (as it is, or through a convolution of
one pixel, whose products are further ones of the same sum) and ReLU: one launch a layer, where cuDNN has up to three.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from kernels.fused.launch import INTERPRETED, card, precision, run_kernel

PIXELS, CHANNELS = 64, 32
"""Of a tile."""
BYTES = 128
"""Of a pixel's channels that a step multiplies."""
FEWEST = 3
"""Steps of a program, at least."""
FIRST, GATHERED = 128, 16
"""Of a tile of `first`: pixels, which have three numbers, and products of a step."""
OUTPUTS, ROWS = 4, 64
"""Of a program of `last`: numbers, and pixels at a time."""


class Plus(NamedTuple):
    """What is added before ReLU: x as it is, or, by a weight, every STRIDEth pixel of it through a convolution of one pixel (whose
    bias is within the layer's)."""

    x: Float[Tensor, "B C H W"]
    weight: Float[Tensor, "O C 1 1"] | None = None
    stride: int = 1


@triton.jit
def _first(
    x, weight, bias, y, PIXEL_COUNT, H, W, OH, OW, OF_N, OF_C, OF_ROW, OF_COLUMN,
    C: tl.constexpr, SIDE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """x: channels first, fp32 or half. OF_…: the weight's strides."""
    m, n = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, N)
    top, left = (m // OW) % OH * 2 - SIDE // 2, m % OW * 2 - SIDE // 2
    there, at = m < PIXEL_COUNT, m // (OW * OH) * (C * H * W)
    total = tl.zeros([M, N], tl.float32)
    for step in tl.static_range((C * SIDE * SIDE + K - 1) // K):
        k = step * K + tl.arange(0, K)
        channel, down, right, real = k // (SIDE * SIDE), k // SIDE % SIDE, k % SIDE, k < C * SIDE * SIDE
        i, j = top[:, None] + down[None, :], left[:, None] + right[None, :]
        inside = there[:, None] & real[None, :] & (i >= 0) & (i < H) & (j >= 0) & (j < W)
        a = tl.load(x + at[:, None] + (channel * (H * W))[None, :] + i * W + j, mask=inside, other=0.0)
        own = channel * OF_C + down * OF_ROW + right * OF_COLUMN
        b = tl.load(weight + n[None, :] * OF_N + own[:, None], mask=real[:, None], other=0.0)
        total = tl.dot(a.to(b.dtype), b, total, input_precision=P)
    total = tl.maximum(total + tl.load(bias + n).to(tl.float32)[None, :], 0.0)
    tl.store(y + m[:, None] * N + n[None, :], total.to(y.dtype.element_ty), mask=there[:, None])


@triton.jit
def _convolve(
    x, weight, bias, plus, weight_plus, y, sums, ended, PIXEL_COUNT, H, W, OH, OW, PH, PW, OUT,
    C: tl.constexpr, SIDE: tl.constexpr, STRIDE: tl.constexpr, PLUS: tl.constexpr, PC: tl.constexpr, PSTRIDE: tl.constexpr,
    SHARES: tl.constexpr, STEPS: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """All is channels-last. Grid: tiles of pixels, of channels, shares of the sum. PLUS: 0 nothing, 1 as it is, 2 convolved."""
    m, n, k = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1) * N + tl.arange(0, N), tl.arange(0, K)
    row, column, picture, there = (m // OW) % OH, m % OW, m // (OW * OH), m < PIXEL_COUNT
    top, left = row * STRIDE - SIDE // 2, column * STRIDE - SIDE // 2
    at, total = ((picture * H + top) * W + left) * C, tl.zeros([M, N], tl.float32)
    begin = tl.program_id(2) * STEPS
    for step in range(begin, tl.minimum(begin + STEPS, SIDE * SIDE * (C // K))):
        tap, c = step // (C // K), step % (C // K) * K
        down, right = tap // SIDE, tap % SIDE
        inside = there & (top + down >= 0) & (top + down < H) & (left + right >= 0) & (left + right < W)
        a = tl.load(x + (at + (down * W + right) * C + c)[:, None] + k[None, :], mask=inside[:, None], other=0.0)
        b = tl.load(weight + (n * (SIDE * SIDE * C) + tap * C + c)[None, :] + k[:, None])
        total = tl.dot(a, b, total, input_precision=P)
    if PLUS == 2:
        if tl.program_id(2) == SHARES - 1:
            behind = ((picture * PH + row * PSTRIDE) * PW + column * PSTRIDE) * PC
            for step in range(PC // K):
                a = tl.load(plus + (behind + step * K)[:, None] + k[None, :], mask=there[:, None], other=0.0)
                b = tl.load(weight_plus + (n * PC + step * K)[None, :] + k[:, None])
                total = tl.dot(a, b, total, input_precision=P)
    out = m[:, None] * OUT + n[None, :]
    if SHARES == 1:
        _finish(total, bias, plus, y, n, out, there, PLUS)
    else:
        tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
        own = sums + tile * (SHARES * M * N) + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
        tl.store(own + tl.program_id(2) * (M * N), total)
        tl.debug_barrier()  # all of the program has stored before it says that it has ended
        if tl.atomic_add(ended + tile, 1, sem="acq_rel") == SHARES - 1:
            total = tl.zeros([M, N], tl.float32)
            for share in tl.static_range(SHARES):  # unrolled: all loads are under way at once
                total += tl.load(own + share * (M * N), cache_modifier=".cg")  # as other processors left it
            _finish(total, bias, plus, y, n, out, there, PLUS)


@triton.jit
def _finish(total, bias, plus, y, n, out, there, PLUS: tl.constexpr):
    total += tl.load(bias + n).to(tl.float32)[None, :]
    if PLUS == 1:
        total += tl.load(plus + out, mask=there[:, None], other=0.0).to(tl.float32)
    tl.store(y + out, tl.maximum(total, 0.0).to(y.dtype.element_ty), mask=there[:, None])


@triton.jit
def _pool(x, y, COUNT, H, W, OH, OW, C: tl.constexpr, BLOCK: tl.constexpr):
    """The largest of 3 × 3 pixels at every second one, channels-last; none is below 0."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c, column, row, picture = i % C, i // C % OW, i // (C * OW) % OH, i // (C * OW * OH)
    best = tl.zeros([BLOCK], y.dtype.element_ty)
    for tap in tl.static_range(9):
        h, w = row * 2 + tap // 3 - 1, column * 2 + tap % 3 - 1
        inside = (i < COUNT) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
        best = tl.maximum(best, tl.load(x + ((picture * H + h) * W + w) * C + c, mask=inside, other=0.0))
    tl.store(y + i, best, mask=i < COUNT)


@triton.jit
def _last(x, weight, bias, y, PIXELS, OUT, C: tl.constexpr, WIDE: tl.constexpr, N: tl.constexpr, M: tl.constexpr):
    """The mean of a picture's pixels, through a linear layer. Grid: tiles of its outputs, pictures."""
    m, n, c = tl.arange(0, M), tl.program_id(0) * N + tl.arange(0, N), tl.arange(0, WIDE)
    total = tl.zeros([WIDE], tl.float32)
    for begin in range(0, PIXELS, M):
        there = (begin + m < PIXELS)[:, None] & (c < C)[None, :]
        at = (tl.program_id(1) * PIXELS + begin + m)[:, None] * C + c[None, :]
        total += tl.sum(tl.load(x + at, mask=there, other=0.0).to(tl.float32), 0)
    w = tl.load(weight + n[:, None] * C + c[None, :], mask=(n < OUT)[:, None] & (c < C)[None, :], other=0.0)
    out = tl.load(bias + n, mask=n < OUT, other=0.0).to(tl.float32)
    out += tl.sum(w.to(tl.float32) * (total / PIXELS)[None, :], 1)
    tl.store(y + tl.program_id(1) * OUT + n, out, mask=n < OUT)


def first(
    images: Float[Tensor, "B C H W"], weight: Float[Tensor, "O C K K"], bias: Float[Tensor, " O"]
) -> Float[Tensor, "B O h w"]:
    """Every second pixel of a convolution of K = 2r + 1 pixels, and ReLU, in the weight's type, channels-last."""
    B, C, H, W = images.shape
    out, side = len(weight), weight.shape[-1]
    y = _empty(B, out, -(-H // 2), -(-W // 2), weight)
    count = B * y.shape[2] * y.shape[3]
    run_kernel(
        _first, (triton.cdiv(count, FIRST),),
        images.contiguous(), weight, bias, y, count, H, W, *y.shape[2:], *weight.stride(), C, side, FIRST, out, GATHERED,
        precision(weight.dtype)["P"],
    )  # fmt: skip
    return y


def pool(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
    """The largest of 3 × 3 pixels at every second one, of numbers that are not negative, channels-last."""
    B, C, H, W = x.shape
    y = _empty(B, C, -(-H // 2), -(-W // 2), x)
    run_kernel(_pool, (triton.cdiv(y.numel(), 1024),), _last_channels(x), y, y.numel(), H, W, *y.shape[2:], C, 1024)
    return y


def convolve(
    x: Float[Tensor, "B C H W"], weight: Float[Tensor, "O C K K"], bias: Float[Tensor, " O"], stride: int,
    ended: Int[Tensor, " P"], plus: Plus | None = None,
) -> Float[Tensor, "B O h w"]:  # fmt: skip
    """max(0, a convolution of K = 2r + 1 pixels + bias + plus), channels-last. C and O: multiples of 16. ended: zeros of this
    call's own, as many as `room`; it leaves other numbers there."""
    B, C, H, W = x.shape
    out, side = len(weight), weight.shape[-1]
    y = _empty(B, out, -(-H // stride), -(-W // stride), x)
    other = plus.x if plus is not None else x
    step = _divisor(BYTES // x.element_size(), C, other.shape[1])
    m, n = PIXELS, _divisor(CHANNELS, out)
    pixels, steps = B * y.shape[2] * y.shape[3], side**2 * C // step
    tiles = triton.cdiv(pixels, m) * (out // n)
    share = -(-steps // max(1, min(room() // tiles, steps // FEWEST)))
    shares = -(-steps // share)
    sums = torch.empty(tiles * shares * m * n if shares > 1 else 0, device=x.device)
    run_kernel(
        _convolve, (triton.cdiv(pixels, m), out // n, shares),
        _last_channels(x), _last_channels(weight), bias, _last_channels(other),
        _last_channels(weight if plus is None or plus.weight is None else plus.weight), y, sums, ended, pixels, H, W,
        *y.shape[2:], *other.shape[2:], out, C, side, stride, 0 if plus is None else 1 + (plus.weight is not None),
        other.shape[1], 1 if plus is None else plus.stride, shares, share, m, n, step, precision(x.dtype)["P"], num_stages=4,
    )  # fmt: skip
    return y


def last(x: Float[Tensor, "B C H W"], weight: Float[Tensor, "O C"], bias: Float[Tensor, " O"]) -> Float[Tensor, "B O"]:
    """The mean over pixels, through a linear layer, in fp32."""
    B, C, H, W = x.shape
    y = torch.empty(B, len(weight), device=x.device)
    run_kernel(
        _last, (triton.cdiv(len(weight), OUTPUTS), B), _last_channels(x), weight.contiguous(), bias, y, H * W, len(weight), C,
        triton.next_power_of_2(C), OUTPUTS, ROWS,
    )  # fmt: skip
    return y


def room() -> int:
    """Programs at once, one a processor: tiles that are shared are fewer."""
    return 8 if INTERPRETED else card().processors


def _divisor(most: int, *of: int) -> int:
    """The largest power of two that divides them all."""
    while any(n % most for n in of):
        most //= 2
    return most


def _last_channels(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _empty(b: int, c: int, h: int, w: int, like: Tensor) -> Tensor:
    return torch.empty(b, c, h, w, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)
