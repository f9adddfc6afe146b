"""Ψ that moves, grows and turns Gaussians, in one pass over them (twin: `reference.spatial_fusion`; PAPER §2, "deforming in
space"), or changes all their attributes.

A softplus network of 48 → 96 → 9 (or 13) and what its outputs do, with everything between them on chip, in the types, pieces and
persistent programs of `local_fusion`: a Gaussian costs its bytes (basis and still attributes in, attributes out) and 96 softplus.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fused.launch import launch, parts, per_identity, per_person, precision, widths
from kernels.fused.local_fusion import RESIDENT, TILE, WAYS
from kernels.fused.local_fusion_backward import back_through_psi
from kernels.fused.softplus_net import LN2, both, folded, hidden, pair, vector
from kernels.fused.vectors import multiply, put, rows
from kernels.layout import Attributes, Bound, Moved, Psi


@triton.jit
def _forward(
    basis, gain, bias, w1, w2, b2, means, quats, scales, opacities, colors,
    out_means, out_quats, out_scales, out_opacities, out_colors, change, N, PER,
    M: tl.constexpr, M1: tl.constexpr, M2: tl.constexpr, H: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr,
    EMIT: tl.constexpr, TILE: tl.constexpr, KEEP: tl.constexpr, HALF: tl.constexpr, ASM: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Columns: position 0..2, log scale 3..5, rotation 6..8 of 16, and where there are colours logit of opacity 9, colour 10..12.
    EMIT: they are written. P: precision of the products."""
    ROWS: tl.constexpr = 9 if colors is None else 13
    DOT: tl.constexpr = tl.float16 if HALF else tl.float32
    frame, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    col, m1, m2 = tl.arange(0, 16), tl.arange(0, M1), M1 + tl.arange(0, M2)
    h1, h2 = tl.arange(0, H1), H1 + tl.arange(0, H2)
    layer = folded(w1, gain, bias, frame, m1, m2, h1, h2, M, H, DOT)
    v, e = pair(w2, col, h1, h2, ROWS, H, LN2, DOT), vector(b2, col, ROWS, 1.0)
    still, threes = tl.where(col < 3, means + col, scales + col - 3), col < 6
    out = tl.where(col < 3, out_means + col, out_scales + col - 3)
    if colors is not None:
        still, out = tl.where(col < 6, still, colors + col - 10), tl.where(col < 6, out, out_colors + col - 10)
        threes = threes | ((col >= 10) & (col < 13))

    for job in range(part, tl.cdiv(N, TILE), parts):
        n = job * TILE + tl.arange(0, TILE)
        there = n < N
        known = tl.minimum(n, N - 1)
        own, to = (frame // PER).to(tl.int64) * N + known, frame.to(tl.int64) * N + known
        three = there[:, None] & threes[None, :]
        start = tl.load(still[None, :] + 3 * own[:, None], mask=three, other=0.0)
        qw, qx, qy, qz = rows(quats, own)
        here = layer if KEEP else folded(w1, gain, bias, frame, m1, m2, h1, h2, M, H, DOT)
        sa, sb = hidden(basis, own, m1, m2, there, here, M, HALF, ASM, P)
        d = both(sa, sb, v[0], v[1], P) + e[None, :]
        if EMIT:
            tl.store(change + ROWS * to[:, None] + col[None, :], d, mask=there[:, None] & (col < ROWS)[None, :])
        grows = (col >= 3) & (col < 6)
        tl.store(out[None, :] + 3 * to[:, None], tl.where(grows[None, :], start * tl.exp(d), start + d), mask=three)
        x = 0.5 * tl.sum(tl.where((col == 6)[None, :], d, 0.0), 1)
        y = 0.5 * tl.sum(tl.where((col == 7)[None, :], d, 0.0), 1)
        z = 0.5 * tl.sum(tl.where((col == 8)[None, :], d, 0.0), 1)
        w, x, y, z = multiply(1.0, x, y, z, qw, qx, qy, qz)
        put(out_quats, to, there, w, x, y, z, 4)
        if colors is not None:
            o, logit = tl.load(opacities + own), tl.sum(tl.where((col == 9)[None, :], d, 0.0), 1)
            grown = o * tl.exp(tl.minimum(tl.maximum(logit, -15.0), 15.0))
            tl.store(out_opacities + to, grown / (grown + 1 - o), mask=there)


def run(basis, gain, bias, psi: Psi, still: Moved, emit: bool) -> tuple[Moved, Tensor | None]:
    frames, (people, n, M) = len(gain), basis.shape
    out = type(still)(*(torch.empty(frames, *t.shape[1:], device=basis.device) for t in still))
    change = torch.empty(frames, n, len(psi.w2), device=basis.device) if emit else None
    none = (None,) * (5 - len(still))
    inputs = (t.contiguous() for t in (basis, gain, bias, *psi, *still))
    launch(
        _forward, (frames, parts(n, frames, TILE, RESIDENT)), WAYS, *inputs, *none, *out, *none, change, n,
        per_person(frames, people), **widths(M=M, H=len(psi.w1)), EMIT=emit, **precision(basis.dtype),
    )  # fmt: skip
    return out, change


class _SpatialFusion(torch.autograd.Function):
    @staticmethod
    def forward(ctx, basis, gain, bias, w1, w2, b2, *still):
        of = Bound if len(still) == len(Bound._fields) else Attributes
        moved, change = run(basis, gain, bias, Psi(w1, w2, b2), of(*still), emit=True)
        _, quats, scales, *others = still
        ctx.save_for_backward(basis, gain, bias, w1, w2, quats, scales, change, *others[:1])
        return tuple(moved)

    @staticmethod
    def backward(ctx, d_means, d_quats, d_scales, *d_others):
        """With r = (1, v) q, by ∂r: ∂(1, v) = ∂r q̄ and ∂q = (1, −v) ∂r."""
        basis, gain, bias, w1, w2, quats, scales, change, *others = ctx.saved_tensors
        people = len(basis)
        of_people = lambda t: t.unflatten(0, (people, -1))  # noqa: E731  [B·k,…] → [B,k,…], to meet [B,1,…]
        _, grown, v, logit = of_people(change).split([3, 3, 3, change.shape[-1] - 9], -1)
        (s, d), (w, q) = of_people(d_quats).split((1, 3), -1), quats[:, None].split((1, 3), -1)
        v, d_grown = v / 2, of_people(d_scales) * torch.exp(grown)
        d_turn = (w * d - s * q - torch.linalg.cross(d, q)) / 2
        d_change, d_rest = [of_people(d_means), d_grown * scales[:, None], d_turn], ()
        if others:
            (o,), (d_opacities, d_colors), logit = others, d_others, logit[..., 0]
            grow = torch.exp(logit.clamp(-15, 15))
            d_o = of_people(d_opacities) * grow / (o[:, None] * grow + 1 - o[:, None]) ** 2
            d_logit = (d_o * (o * (1 - o))[:, None]).masked_fill(logit.abs() > 15, 0)
            d_change += [d_logit[..., None], of_people(d_colors)]
            d_rest = d_o.flatten(0, 1), d_colors
        d_change = torch.cat(d_change, -1).flatten(0, 1)
        d_psi = back_through_psi(basis, gain, bias, w1, w2, d_change.to(basis.dtype))
        wants_means, wants_quats, wants_scales, *wants_rest = ctx.needs_input_grad[6:]
        own_means = per_identity(d_means, people) if wants_means else None
        own_scales = per_identity(d_grown.flatten(0, 1), people) if wants_scales else None
        own_quats = None
        if wants_quats:
            turned_back = torch.cat([s + (v * d).sum(-1, keepdim=True), d - s * v - torch.linalg.cross(v, d)], -1)
            own_quats = per_identity(turned_back.flatten(0, 1), people)
        own_rest = (per_identity(d, people) if wants else None for d, wants in zip(d_rest, wants_rest, strict=True))
        return *d_psi, own_means, own_quats, own_scales, *own_rest


def spatial_fusion(basis, gain, bias, psi: Psi, still: Moved) -> Moved:
    """`reference.spatial_fusion` in one launch."""
    if torch.is_grad_enabled():
        return type(still)(*_SpatialFusion.apply(basis, gain, bias, *psi, *still))
    return run(basis, gain, bias, psi, still, emit=False)[0]
