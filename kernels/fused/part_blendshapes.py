"""Features plus blendshapes of the head's parts, in one pass (twin: `reference.part_blendshapes`; 2605.01854, PAPER §6).

Blendshapes of K = 16 · 48 numbers per Gaussian would be 302 MB in 16 bits at N = 196,608, 100 µs at 3 TB/s before anything else.
Read off one hidden layer, B_k = W diag(a_k) h, they cost a Gaussian h (H = 64 numbers) and a part one row of H gains per frame,
Σ_k e_pk a_k: all rows are 32 KB in 16 bits and stay in the cache. Floor, 16 bits: 248 B in (f, h, three parts with their weights),
96 B out: 68 MB, 23 µs at 3 TB/s. In torch the three gathered rows alone are written and read: 384 B more each way.

Back, the gradients of gains are sums over the Gaussians of a part. They are products, too, of the weights as a matrix
[parts, tile] with the tile's rows: as many multiplications as Ψ's, no atomics, the same bits in every run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fused.gradients import padded, read_rows
from kernels.fused.launch import parts as split
from kernels.fused.launch import per_identity, per_person, run_kernel
from kernels.layout import Parts

TILE, WARPS = 64, 4
SUMMED = {
    True: {"TILE": 32, "num_warps": WARPS, "num_stages": 1},
    False: {"TILE": TILE, "num_warps": WARPS, "num_stages": 3},
}
"""Where sums over all Gaussians are taken, by whether features are stored in fp32: more in flight does not fit every card."""
TILES, RESIDENT = 32, 2
"""Tiles of a program there, where it takes parts' sums; elsewhere programs are as many as processors hold, so many each."""
TOGETHER = 64
"""Parts whose sums a program takes."""


@triton.jit
def _gain(index, weights, gains, person, frame, n, h, N, PARTS, NEAR: tl.constexpr, H: tl.constexpr):
    """Σ_p w_ip gains_p [TILE, len(h)]."""
    entry = person * NEAR * N + n
    table, there = gains + frame * PARTS * H, (h < H)[None, :]
    gain = tl.zeros([n.shape[0], h.shape[0]], tl.float32)
    for _ in tl.static_range(NEAR):
        row, w = tl.load(index + entry), tl.load(weights + entry)
        gain += w[:, None] * tl.load(table + row[:, None] * H + h[None, :], mask=there, other=0.0).to(tl.float32)
        entry += N
    return gain


@triton.jit
def _readout(readout, d, h, D: tl.constexpr, H: tl.constexpr):
    """[len(d), len(h)], zeros outside."""
    return tl.load(readout + d[:, None] * H + h[None, :], mask=(d < D)[:, None] & (h < H)[None, :], other=0.0)


@triton.jit
def _forward(
    f, hidden, index, weights, gains, readout, out, N, PARTS, PER, D: tl.constexpr, D0: tl.constexpr, H: tl.constexpr,
    H0: tl.constexpr, NEAR: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    rows, frame = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.program_id(1).to(tl.int64)
    person, n, d, h = frame // PER, tl.minimum(rows, N - 1), tl.arange(0, D0), tl.arange(0, H0)
    gain = _gain(index, weights, gains, person, frame, n, h, N, PARTS, NEAR, H)
    x = read_rows(hidden, person * N, rows, h, N, H)
    y = read_rows(f, person * N, rows, d, N, D).to(tl.float32)
    x = (x.to(tl.float32) * gain).to(x.dtype)
    y = tl.dot(x, tl.trans(_readout(readout, d, h, D, H)), y, input_precision="tf32x3")
    tl.store(out + (frame * N + rows)[:, None] * D + d[None, :], y, mask=(rows < N)[:, None] & (d < D)[None, :])


@triton.jit
def _backward(
    d_out, hidden, index, weights, gains, readout, d_hidden, d_gain, sums, N, PARTS, PER, TILES, D: tl.constexpr,
    D0: tl.constexpr, H: tl.constexpr, H0: tl.constexpr, NEAR: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Gradients of h and of a Gaussian's own gain, [F,N,H] both, and a program's part of the readout's, [D,H]."""
    part, frame = tl.program_id(0), tl.program_id(1).to(tl.int64)
    person, d, h = frame // PER, tl.arange(0, D0), tl.arange(0, H0)
    back = _readout(readout, d, h, D, H)
    total = tl.zeros([D0, H0], tl.float32)
    for i in range(TILES):
        rows = (part * TILES + i) * TILE + tl.arange(0, TILE)
        there = (rows < N)[:, None] & (h < H)[None, :]
        gain = _gain(index, weights, gains, person, frame, tl.minimum(rows, N - 1), h, N, PARTS, NEAR, H)
        x = read_rows(hidden, person * N, rows, h, N, H)
        y = read_rows(d_out, frame * N, rows, d, N, D)
        known = x.to(tl.float32)
        d_x = tl.dot(y, back, input_precision="tf32x3")
        to = (frame * N + rows)[:, None] * H + h[None, :]
        tl.store(d_hidden + to, d_x * gain, mask=there)
        tl.store(d_gain + to, d_x * known, mask=there)
        total = tl.dot(tl.trans(y), (known * gain).to(x.dtype), total, input_precision="tf32x3")
    to = sums + (frame * tl.num_programs(0) + part) * D * H + d[:, None] * H + h[None, :]
    tl.store(to, total, mask=(d < D)[:, None] & (h < H)[None, :])


@triton.jit
def _by_part(
    d_gain, index, weights, sums, N, PARTS, PER, H: tl.constexpr, H0: tl.constexpr, NEAR: tl.constexpr,
    TOGETHER: tl.constexpr, TILES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """A program's part of the gradients of TOGETHER parts' gains."""
    chunk, frame, h = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.arange(0, H0)
    person, p = frame // PER, tl.program_id(2) * TOGETHER + tl.arange(0, TOGETHER)
    total = tl.zeros([TOGETHER, H0], tl.float32)
    for i in range(TILES):
        rows = (chunk * TILES + i) * TILE + tl.arange(0, TILE)
        entry = person * NEAR * N + rows
        share = tl.zeros([TOGETHER, TILE], tl.float32)
        for _ in tl.static_range(NEAR):
            row = tl.load(index + entry, mask=rows < N, other=-1)
            share += tl.where(
                row[None, :] == p[:, None], tl.load(weights + entry, mask=rows < N, other=0.0)[None, :], 0.0
            )
            entry += N
        x = read_rows(d_gain, frame * N, rows, h, N, H)
        total = tl.dot(share.to(x.dtype), x, total, input_precision="tf32x3")
    to = sums + ((frame * tl.num_programs(0) + chunk) * PARTS + p)[:, None] * H + h[None, :]
    tl.store(to, total, mask=(p < PARTS)[:, None] & (h < H)[None, :])


def _blend(f, hidden, index, weights, gains, readout) -> Tensor:
    (B, N, D), (F, P, H) = f.shape, gains.shape
    out = torch.empty(F, N, D, device=f.device, dtype=f.dtype)
    run_kernel(
        _forward, (triton.cdiv(N, TILE), F),
        f, hidden, index, weights, gains, readout, out, N, P, per_person(F, B), D, padded(D), H, padded(H),
        index.shape[1], TILE, num_warps=WARPS,
    )  # fmt: skip
    return out


class _PartBlendshapes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *given):
        ctx.save_for_backward(*given[1:])
        return _blend(*given)

    @staticmethod
    def backward(ctx, d_out):
        hidden, index, weights, gains, readout = ctx.saved_tensors
        (B, N, H), (F, P, _), D, near = hidden.shape, gains.shape, len(readout), index.shape[1]
        d_out, how = d_out.contiguous(), SUMMED[hidden.dtype == torch.float32]
        tiles = triton.cdiv(N, how["TILE"])
        each = triton.cdiv(tiles, split(N, F, how["TILE"], RESIDENT))
        programs, chunks = triton.cdiv(tiles, each), triton.cdiv(tiles, TILES)
        d_hidden, d_gain = (torch.empty(F, N, H, device=hidden.device, dtype=hidden.dtype) for _ in range(2))
        of_readout = torch.empty(F, programs, D, H, device=hidden.device)
        of_gains = torch.empty(F, chunks, P, H, device=hidden.device)
        run_kernel(
            _backward, (programs, F),
            d_out, hidden, index, weights, gains, readout, d_hidden, d_gain, of_readout, N, P, F // B, each, D,
            padded(D), H, padded(H), near, **how,
        )  # fmt: skip
        run_kernel(
            _by_part, (chunks, F, triton.cdiv(P, TOGETHER)), d_gain, index, weights, of_gains, N, P, F // B, H, padded(H), near,
            TOGETHER, TILES, **how,
        )  # fmt: skip
        d_readout, d_gains = of_readout.sum((0, 1)).to(readout.dtype), of_gains.sum(1).to(gains.dtype)
        return per_identity(d_out, B), per_identity(d_hidden, B), None, None, d_gains, d_readout


def part_blendshapes(f: Tensor, hidden: Tensor, parts: Parts, gains: Tensor, readout: Tensor) -> Tensor:
    """`reference.part_blendshapes` in one launch. Gradients reach everything but the parts."""
    index, weights = parts.index.int().contiguous(), parts.weights.detach().contiguous()
    given = (
        f.contiguous(), hidden.contiguous(), index, weights, gains.to(f.dtype).contiguous(), readout.to(f.dtype).contiguous(),
    )  # fmt: skip
    return _PartBlendshapes.apply(*given) if torch.is_grad_enabled() else _blend(*given)
