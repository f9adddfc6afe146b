"""Gradients of local fusion: first back through Φ, then through Ψ, one launch each (and sums of what they leave).

Hidden layers are computed again, tile by tile, and never stored. Inputs come with a column of ones, so that biases are rows of
the weights and their gradients rows of the weights' gradients; programs sum these over their own tiles, and torch sums
the programs, always in the same order: gradients are deterministic. A frame's sum C = Σ d_y ⊗ basis gives both
d_w1 = C ⊙ gain and d_gain = Σ_h w1 ⊙ C.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fused.local_fusion import per_identity, pieces, precision, programs, shared
from kernels.fused.softplus_net import LN2, LOG2E, activation, softplus, vector, weight
from kernels.reference import RAW, Phi

LAUNCH = {"num_warps": 4, "num_stages": 2}
TILE = 64
RESIDENT = 2


@triton.jit
def _input(x, rows, cols, there, WIDTH: tl.constexpr):
    """A tile with a one after its last column, zeros behind; zeros in rows that are not there."""
    x = tl.load(x + rows[:, None] * WIDTH + cols[None, :], mask=there[:, None] & (cols < WIDTH)[None, :], other=0.0)
    return tl.where((cols == WIDTH)[None, :] & there[:, None], 1.0, x.to(tl.float32))


@triton.jit
def _weight(w, bias, h, i, H: tl.constexpr, I: tl.constexpr, scale: tl.constexpr, DOT: tl.constexpr):  # noqa: E741
    """Part [i, h] of w [H, I] and, as row I, of its bias."""
    b = vector(bias, h, H, scale).to(DOT)
    return tl.where((i == I)[:, None], b[None, :], weight(w, h, i, H, I, scale, DOT))


@triton.jit
def _up(x, w, HALF: tl.constexpr, ASM: tl.constexpr, P: tl.constexpr):
    """A piece of the hidden layer, log2(1 + 2^y), and its slope 1 − 2^−that."""
    y = tl.dot(x, w, input_precision=P)
    h = softplus(y, tl.zeros([y.shape[1]], tl.float32), HALF, ASM)
    return h.to(x.dtype), 1 - tl.exp2(-h.to(tl.float32))


@triton.jit
def _phi(
    f, delta, u1, c1, u2, c2, prior, d_means, d_quats, d_scales, d_opacities, d_colors, d_z, d_prior, sums,
    N, FRAMES, PER, PRIOR_STEP,
    D: tl.constexpr, D0: tl.constexpr, G: tl.constexpr, G1: tl.constexpr, G2: tl.constexpr, PSI: tl.constexpr,
    PRIOR: tl.constexpr, SUMS: tl.constexpr, TILE: tl.constexpr, HALF: tl.constexpr, ASM: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """sums per program: [D + 1, G] of u1 and c1, [14, G] of u2, [14] of c2. PSI: the features are f + delta."""
    DOT: tl.constexpr = f.dtype.element_ty
    frame, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    d0, g1, g2, col = tl.arange(0, D0), tl.arange(0, G1), G1 + tl.arange(0, G2), tl.arange(0, 16)
    p1, p2 = _weight(u1, c1, g1, d0, G, D, LOG2E, DOT), _weight(u1, c1, g2, d0, G, D, LOG2E, DOT)
    q1, q2 = weight(u2, col, g1, 14, G, LN2, DOT), weight(u2, col, g2, 14, G, LN2, DOT)
    slope, height, _, shift, linear = activation(col)
    shift += vector(c2, col, 14, 1.0)
    d_out = tl.where(col < 3, d_means + col, tl.where(col < 6, d_scales + col - 3, tl.where(
        col < 10, d_quats + col - 6, tl.where(col == 10, d_opacities + 0 * col, d_colors + col - 11))))  # fmt: skip
    step = tl.where(col == 10, 1, tl.where((col >= 6) & (col < 10), 4, 3))
    a1, a2 = tl.zeros([D0, G1], tl.float32), tl.zeros([D0, G2], tl.float32)
    b1, b2 = tl.zeros([G1, 16], tl.float32), tl.zeros([G2, 16], tl.float32)
    total = tl.zeros([16], tl.float32)

    for job in range(part, tl.cdiv(N, TILE), parts):
        rows = job * TILE + tl.arange(0, TILE)
        there = rows < N
        this = frame.to(tl.int64) * N + rows
        z = _input(f, (frame // PER).to(tl.int64) * N + rows, d0, there, D)
        if PSI:
            z += tl.load(delta + this[:, None] * D + d0[None, :], mask=there[:, None] & (d0 < D)[None, :], other=0.0)
        z = z.to(DOT)
        h1, r1 = _up(z, p1, HALF, ASM, P)
        h2, r2 = _up(z, p2, HALF, ASM, P)
        known = there[:, None] & (col < 14)[None, :]
        at = (frame // PER).to(tl.int64) * PRIOR_STEP + rows * 14
        raw = tl.dot(h2, q2, tl.dot(h1, q1, input_precision=P), input_precision=P) + shift[None, :]
        raw += tl.load(prior + at[:, None] + col[None, :], mask=known, other=0.0)
        sigmoid = 1 / (1 + tl.exp2(-raw * (slope * LOG2E)[None, :]))
        rise = tl.where(linear[None, :], 1.0, (height * slope)[None, :] * sigmoid * (1 - sigmoid))
        d_raw = rise * tl.load(d_out[None, :] + this[:, None] * step[None, :], mask=known, other=0.0)
        if PRIOR:
            tl.store(d_prior + this[:, None] * 14 + col[None, :], d_raw, mask=known)
        total += tl.sum(d_raw, 0)
        d_raw = d_raw.to(DOT)
        b1 = tl.dot(tl.trans(h1), d_raw, b1, input_precision=P)
        b2 = tl.dot(tl.trans(h2), d_raw, b2, input_precision=P)
        y1 = (tl.dot(d_raw, tl.trans(q1), input_precision=P) * r1).to(DOT)
        y2 = (tl.dot(d_raw, tl.trans(q2), input_precision=P) * r2).to(DOT)
        a1 = tl.dot(tl.trans(z), y1, a1, input_precision=P)
        a2 = tl.dot(tl.trans(z), y2, a2, input_precision=P)
        d = tl.dot(y2, tl.trans(p2), tl.dot(y1, tl.trans(p1), input_precision=P), input_precision=P)
        tl.store(d_z + this[:, None] * D + d0[None, :], d, mask=there[:, None] & (d0 < D)[None, :])

    sums += (frame.to(tl.int64) * parts + part) * SUMS
    tl.store(sums + d0[:, None] * G + g1[None, :], a1 * LOG2E, mask=(d0 <= D)[:, None] & (g1 < G)[None, :])
    tl.store(sums + d0[:, None] * G + g2[None, :], a2 * LOG2E, mask=(d0 <= D)[:, None] & (g2 < G)[None, :])
    sums += (D + 1) * G
    tl.store(sums + col[None, :] * G + g1[:, None], b1 * LN2, mask=(col < 14)[None, :] & (g1 < G)[:, None])
    tl.store(sums + col[None, :] * G + g2[:, None], b2 * LN2, mask=(col < 14)[None, :] & (g2 < G)[:, None])
    tl.store(sums + 14 * G + col, total, mask=col < 14)


@triton.jit
def _psi(
    basis, gain, bias, w1, w2, d_delta, d_more, d_basis, sums, N, PER,
    M: tl.constexpr, M0: tl.constexpr, H: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, D: tl.constexpr,
    D0: tl.constexpr, MORE: tl.constexpr, SUMS: tl.constexpr, TILE: tl.constexpr, HALF: tl.constexpr, ASM: tl.constexpr,
    P: tl.constexpr,
):  # fmt: skip
    """sums per program: [M + 1, H] of C and bias, [D, H] of w2, [D] of b2. MORE: δ's gradient is d_delta + d_more."""
    DOT: tl.constexpr = basis.dtype.element_ty
    frame, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    m0, d0, h1, h2 = tl.arange(0, M0), tl.arange(0, D0), tl.arange(0, H1), H1 + tl.arange(0, H2)
    p1, p2 = (
        _weight(w1, bias + frame * H, h1, m0, H, M, LOG2E, DOT),
        _weight(w1, bias + frame * H, h2, m0, H, M, LOG2E, DOT),
    )
    q1, q2 = weight(w2, d0, h1, D, H, LN2, DOT), weight(w2, d0, h2, D, H, LN2, DOT)
    g = tl.where(m0 == M, 1.0, vector(gain + frame * M, m0, M, 1.0))
    a1, a2 = tl.zeros([M0, H1], tl.float32), tl.zeros([M0, H2], tl.float32)
    b1, b2 = tl.zeros([D0, H1], tl.float32), tl.zeros([D0, H2], tl.float32)
    total = tl.zeros([D0], tl.float32)

    for job in range(part, tl.cdiv(N, TILE), parts):
        rows = job * TILE + tl.arange(0, TILE)
        there = rows < N
        this = frame.to(tl.int64) * N + rows
        x = _input(basis, (frame // PER).to(tl.int64) * N + rows, m0, there, M)
        written = there[:, None] & (d0 < D)[None, :]
        d = tl.load(d_delta + this[:, None] * D + d0[None, :], mask=written, other=0.0)
        if MORE:
            d = (d.to(tl.float32) + tl.load(d_more + this[:, None] * D + d0[None, :], mask=written, other=0.0)).to(DOT)
        total += tl.sum(d.to(tl.float32), 0)
        scaled = (x * g[None, :]).to(DOT)
        x = x.to(DOT)
        s1, r1 = _up(scaled, p1, HALF, ASM, P)
        s2, r2 = _up(scaled, p2, HALF, ASM, P)
        b1 = tl.dot(tl.trans(d), s1, b1, input_precision=P)
        b2 = tl.dot(tl.trans(d), s2, b2, input_precision=P)
        y1 = (tl.dot(d, tl.trans(q1), input_precision=P) * r1).to(DOT)
        y2 = (tl.dot(d, tl.trans(q2), input_precision=P) * r2).to(DOT)
        a1 = tl.dot(tl.trans(x), y1, a1, input_precision=P)
        a2 = tl.dot(tl.trans(x), y2, a2, input_precision=P)
        d_x = tl.dot(y2, tl.trans(p2), tl.dot(y1, tl.trans(p1), input_precision=P), input_precision=P) * g[None, :]
        tl.store(d_basis + this[:, None] * M + m0[None, :], d_x, mask=there[:, None] & (m0 < M)[None, :])

    sums += (frame.to(tl.int64) * parts + part) * SUMS
    tl.store(sums + m0[:, None] * H + h1[None, :], a1 * LOG2E, mask=(m0 <= M)[:, None] & (h1 < H)[None, :])
    tl.store(sums + m0[:, None] * H + h2[None, :], a2 * LOG2E, mask=(m0 <= M)[:, None] & (h2 < H)[None, :])
    sums += (M + 1) * H
    tl.store(sums + d0[:, None] * H + h1[None, :], b1 * LN2, mask=(d0 < D)[:, None] & (h1 < H)[None, :])
    tl.store(sums + d0[:, None] * H + h2[None, :], b2 * LN2, mask=(d0 < D)[:, None] & (h2 < H)[None, :])
    tl.store(sums + D * H + d0, total, mask=d0 < D)


def _parts(n: int, frames: int, device: torch.device) -> int:
    return max(1, min(triton.cdiv(n, TILE), programs(device, RESIDENT) // frames))


def _wide(width: int) -> int:
    """A power of two with room for a column of ones."""
    return max(16, triton.next_power_of_2(width + 1))


def back_through_phi(f: Tensor, delta: Tensor | None, phi: Phi, prior: Tensor, d_out, want_prior: bool):
    """→ gradients of the features per frame, of the prior (or None), and of Φ's four weights."""
    frames, (people, n, D), G = len(f if delta is None else delta), f.shape, len(phi.b1)
    own, parts = shared(prior), _parts(n, frames, f.device)
    shapes = ((n, 3), (n, 4), (n, 3), (n,), (n, 3))
    d_out = [
        f.new_zeros(frames, *s, dtype=torch.float32) if d is None else d.contiguous()
        for d, s in zip(d_out, shapes, strict=True)
    ]
    sizes = [D * G, G, RAW * G, RAW]
    sums = torch.empty(frames, parts, sum(sizes), device=f.device)
    d_z = torch.empty(frames, n, D, device=f.device, dtype=f.dtype)
    d_prior = torch.empty(frames, n, RAW, device=f.device) if want_prior else None
    _phi[(frames, parts)](
        f.contiguous(), delta, *(t.contiguous() for t in phi), own, *d_out, d_z, d_prior, sums, n, frames, frames // people,
        0 if len(own) == 1 else n * RAW, D=D, D0=_wide(D), G=G, G1=pieces(G)[0], G2=pieces(G)[1], PSI=delta is not None,
        PRIOR=want_prior, SUMS=sum(sizes), TILE=TILE, **precision(f.dtype, f.device), **LAUNCH,
    )  # fmt: skip
    u1, c1, u2, c2 = sums.sum((0, 1)).split(sizes)
    if want_prior:
        d_prior = per_identity(d_prior, len(own)).expand(len(prior), -1, -1) / (len(prior) // len(own))
    weights = (u1.view(D, G).T, c1, u2.view(RAW, G), c2)
    return d_z, d_prior, *(d.to(w.dtype) for d, w in zip(weights, phi, strict=True))


def back_through_psi(basis, gain, bias, w1, w2, d_delta, d_more):
    """→ gradients of basis, gain, bias, w1, w2 and b2. d_delta + d_more (or None): gradient of δf per frame."""
    frames, (people, n, M), (D, H) = len(gain), basis.shape, w2.shape
    parts = _parts(n, frames, basis.device)
    sizes = [M * H, H, D * H, D]
    sums = torch.empty(frames, parts, sum(sizes), device=basis.device)
    d_basis = torch.empty(frames, n, M, device=basis.device, dtype=basis.dtype)
    inputs = (t if t is None else t.contiguous() for t in (basis, gain, bias, w1, w2, d_delta, d_more))
    _psi[(frames, parts)](
        *inputs, d_basis, sums, n, frames // people, M=M, M0=_wide(M), H=H, H1=pieces(H)[0], H2=pieces(H)[1], D=D,
        D0=max(16, triton.next_power_of_2(D)), MORE=d_more is not None, SUMS=sum(sizes), TILE=TILE,
        **precision(basis.dtype, basis.device), **LAUNCH,
    )  # fmt: skip
    C, d_bias, d_w2, d_b2 = sums.sum(1).split(sizes, 1)
    C = C.view(frames, M, H)
    d_w1 = torch.einsum("fmh,fm->hm", C, gain.float())
    d_gain = torch.einsum("fmh,hm->fm", C, w1.float())
    like = lambda d, t: d.to(t.dtype)  # noqa: E731
    return (
        per_identity(d_basis, people), like(d_gain, gain), like(d_bias, bias), like(d_w1, w1),
        like(d_w2.sum(0).view(D, H), w2), like(d_b2.sum(0), w2),
    )  # fmt: skip
