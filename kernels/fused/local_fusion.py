"""Ψ and Φ in one pass over the Gaussians (twins: `reference.local_fusion`, `reference.decode`; PAPER §1).

Two softplus networks of 48 → 96 → 48 and 48 → 96 → 14 with everything between them on chip: a Gaussian costs its bytes
(basis and feature in, attributes out) and 192 softplus. Storage in 16 bits multiplies in fp16 (the rate of bf16, 8 times
finer), fp32 in three tf32 products, or one where torch.set_float32_matmul_precision allows it. Widths that are no powers of two
go in two pieces (48 = 32 + 16, 96 = 64 + 32): nothing is masked or wasted. Programs stay on their processor with the weights of
one frame, γ in them, and take tile after tile.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import layout
from kernels.fused.launch import Settings, launch, parts, per_identity, precision, shared, widths
from kernels.fused.local_fusion_backward import back_through_both, back_through_phi
from kernels.fused.softplus_net import (
    LN2,
    LOG2E,
    RAW,
    activation,
    both,
    decoded,
    folded,
    four,
    hidden,
    pair,
    place,
    tile,
    vector,
)
from kernels.layout import Attributes, Phi, Psi

TILE = 64
KEPT: Settings = {"TILE": TILE, "KEEP": True, "num_warps": 4, "num_stages": 2, "maxnreg": 168}
AGAIN: Settings = {"TILE": TILE, "KEEP": False, "num_warps": 4, "num_stages": 1, "maxnreg": 168}
"""The weights stay on chip; or they are read again, from the cache, for every tile: where the card has no room for them, and where
an H100 has it for one program alone, which is for Ψ's and Φ's in three tf32 products."""
WAYS = [[KEPT], [AGAIN]]
RESIDENT = 3
"""Programs per processor that these settings leave registers for."""


@triton.jit
def _forward(
    basis, gain, bias, f, w1, w2, b2, u1, c1, u2, c2, prior, out, delta, N, PER, PRIOR_STEP,
    M: tl.constexpr, M1: tl.constexpr, M2: tl.constexpr, H: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr,
    D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, G: tl.constexpr, G1: tl.constexpr, G2: tl.constexpr,
    PSI: tl.constexpr, EMIT: tl.constexpr, TILE: tl.constexpr, KEEP: tl.constexpr,
    HALF: tl.constexpr, ASM: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """PSI: with Ψ before Φ. EMIT: δf is written. P: precision of the products."""
    DOT: tl.constexpr = tl.float16 if HALF else tl.float32
    d1, d2 = tl.arange(0, D1), D1 + tl.arange(0, D2)
    g1, g2, col = tl.arange(0, G1), G1 + tl.arange(0, G2), tl.arange(0, 16)
    p = four(u1, g1, g2, d1, d2, G, D, LOG2E, DOT)
    q = pair(u2, col, g1, g2, RAW, G, LN2, DOT)
    ca, cb = vector(c1, g1, G, LOG2E).to(DOT), vector(c1, g2, G, LOG2E).to(DOT)
    slope, height, offset, shift, linear = activation(col)
    shift += vector(c2, col, RAW, 1.0)
    frame, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    first, step = place(col, tl.num_programs(0) * N)
    if PSI:
        m1, m2, h1, h2 = tl.arange(0, M1), M1 + tl.arange(0, M2), tl.arange(0, H1), H1 + tl.arange(0, H2)
        w = folded(w1, gain, bias, frame, m1, m2, h1, h2, M, H, DOT)
        v = four(w2, d1, d2, h1, h2, D, H, LN2, DOT)
        ea, eb = vector(b2, d1, D, 1.0), vector(b2, d2, D, 1.0)

    for job in range(part, tl.cdiv(N, TILE), parts):
        rows = job * TILE + tl.arange(0, TILE)
        there = rows < N
        known = tl.minimum(rows, N - 1)
        own = (frame // PER).to(tl.int64) * N + known
        za = tile(f, own, d1, there, D, D1 + D2 == D).to(tl.float32)
        zb = tile(f, own, d2, there, D, D1 + D2 == D).to(tl.float32)
        at = (frame // PER).to(tl.int64) * PRIOR_STEP + known * RAW
        start = tl.load(prior + at[:, None] + col[None, :], mask=(col < RAW)[None, :], other=0.0)
        if PSI:
            first_layer = w if KEEP else folded(w1, gain, bias, frame, m1, m2, h1, h2, M, H, DOT)
            sa, sb = hidden(basis, own, m1, m2, there, first_layer, M, HALF, ASM, P)
            second_layer = v if KEEP else four(w2, d1, d2, h1, h2, D, H, LN2, DOT)
            da = both(sa, sb, second_layer[0], second_layer[2], P) + ea[None, :]
            db = both(sa, sb, second_layer[1], second_layer[3], P) + eb[None, :]
            if EMIT:
                to = delta + (frame.to(tl.int64) * N + rows)[:, None] * D
                tl.store(to + d1[None, :], da, mask=there[:, None] & (d1 < D)[None, :])
                tl.store(to + d2[None, :], db, mask=there[:, None] & (d2 < D)[None, :])
            za += da
            zb += db
        done = decoded(
            za.to(DOT), zb.to(DOT), p if KEEP else four(u1, g1, g2, d1, d2, G, D, LOG2E, DOT), ca, cb,
            q if KEEP else pair(u2, col, g1, g2, RAW, G, LN2, DOT), shift, start, slope, height, offset, linear, HALF, ASM, P,
        )  # fmt: skip
        to = first[None, :] + (frame.to(tl.int64) * N + rows)[:, None] * step[None, :]
        tl.store(out + to, done, mask=there[:, None] & (col < RAW)[None, :])


def run(basis, gain, bias, f, psi: Psi | None, phi: Phi, prior, emit: bool) -> tuple[Attributes, Tensor | None]:
    frames, (people, n, D) = len(f) if psi is None else len(gain), f.shape
    prior = shared(prior)
    out = torch.empty(frames * n * layout.RAW, device=f.device)
    delta = torch.empty(frames, n, D, device=f.device, dtype=f.dtype) if emit else None
    H, M = (96, 48) if psi is None else psi.w1.shape
    inputs = (t if t is None else t.contiguous() for t in (basis, gain, bias, f, *(psi or (None,) * 3), *phi))
    how = precision(f.dtype)
    ways = [[AGAIN]] if psi is not None and how["P"] == "tf32x3" else WAYS
    launch(
        _forward, (frames, parts(n, frames, TILE, RESIDENT)), ways,
        *inputs, prior, out, delta, n, frames // people, 0 if len(prior) == 1 else n * layout.RAW,
        **widths(M=M, H=H, D=D, G=len(phi.b1)), PSI=psi is not None, EMIT=emit, **how,
    )  # fmt: skip
    quats, means, scales, colors, opacities = out.split([frames * n * k for k in (4, 3, 3, 3, 1)])
    rows = lambda t: t.view(frames, n, -1)  # noqa: E731
    return Attributes(rows(means), rows(quats), rows(scales), opacities.view(frames, n), rows(colors)), delta


class _LocalFusion(torch.autograd.Function):
    @staticmethod
    def forward(ctx, basis, gain, bias, f, w1, w2, b2, u1, c1, u2, c2, prior):
        psi = None if basis is None else Psi(w1, w2, b2)
        attributes, delta = run(basis, gain, bias, f, psi, Phi(u1, c1, u2, c2), prior, emit=psi is not None)
        ctx.priors = len(prior)
        ctx.save_for_backward(basis, gain, bias, w1, w2, u1, c1, u2, c2, f, delta, *attributes)
        return *attributes, delta

    @staticmethod
    def backward(ctx, *d_out):
        basis, gain, bias, w1, w2, u1, c1, u2, c2, f, delta, *attributes = ctx.saved_tensors
        given = f, delta, Phi(u1, c1, u2, c2), attributes, d_out[:5]
        if basis is None:
            d_z, d_prior, *d_phi = back_through_phi(*given, ctx.needs_input_grad[11])
            d_psi = (None,) * 6
        else:
            d_z, d_prior, d_phi, d_psi = back_through_both(
                basis, gain, bias, w1, w2, *given, d_out[5], ctx.needs_input_grad[11]
            )
        d_basis, d_gain, d_bias, *d_weights = d_psi
        if d_prior is not None:
            d_prior = per_identity(d_prior, ctx.priors)
        return d_basis, d_gain, d_bias, per_identity(d_z, len(f)), *d_weights, *d_phi, d_prior


def local_fusion(basis, gain, bias, f, psi: Psi, phi: Phi, prior) -> tuple[Attributes, Tensor | None]:
    """`reference.local_fusion` in one launch. δf is None unless gradients are recorded: inference does not write it."""
    if torch.is_grad_enabled():
        *attributes, delta = _LocalFusion.apply(basis, gain, bias, f, *psi, *phi, prior)
        return Attributes(*attributes), delta
    return run(basis, gain, bias, f, psi, phi, prior, emit=False)


def decode(f, phi: Phi, prior) -> Attributes:
    """`reference.decode` in one launch."""
    if len(prior) not in (1, len(f)):
        prior = prior.repeat_interleave(len(f) // len(prior), 0)
    if torch.is_grad_enabled():
        return Attributes(*_LocalFusion.apply(None, None, None, f, None, None, None, *phi, prior)[:5])
    return run(None, None, None, f, None, phi, prior, emit=False)[0]
