"""Gradients of local fusion: first back through Φ, then through Ψ, one launch each (and sums of what they leave).

Hidden layers are computed again, tile by tile, and never stored, with the hidden units as rows: [H, TILE]. So the factors of
the weights' gradients, h and d_y, come out of one product in the registers that the next reads them from, and the other factor
is the tile as it was loaded. The next tile is read, into registers, while one is worked on.

Programs sum the weights' gradients over their own tiles, and a last launch sums the programs, always in one order: gradients are
deterministic. The input has a column of ones past its last, which adds the first bias, and a unit past the last is held at h =
ONE: so the products sum what they multiply, too, the gradients of the first bias and of the second. A program's sum
C = Σ d_y ⊗ basis gives both d_w1 = C ⊙ gain and d_gain = Σ_h w1 ⊙ C.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import layout
from kernels.fused.gradients import (
    Sums,
    add,
    first_layer,
    hidden_layer,
    in_pieces,
    over_frames,
    packed,
    padded,
    read_rows,
    store_sums,
    strided,
    units,
    unpack,
)  # fmt: skip
from kernels.fused.launch import per_identity
from kernels.fused.softplus_net import LN2, LOG2E, RAW, activation, vector
from kernels.layout import Attributes, Phi


@triton.jit
def _read_phi(f, delta, known_out, from_out, frame, PER, rows, d0, col, step, N, D: tl.constexpr, DELTA: tl.constexpr):
    first = frame.to(tl.int64) * N
    at, there = (first + rows)[:, None] * step[None, :], (rows < N)[:, None] & (col < RAW)[None, :]
    done, d_out = (
        tl.load(known_out[None, :] + at, mask=there, other=0.0),
        tl.load(from_out[None, :] + at, mask=there, other=0.0),
    )
    x = read_rows(f, (frame // PER).to(tl.int64) * N, rows, d0, N, D, True)
    return x, read_rows(delta, first, rows, d0, N, D) if DELTA else x, done, d_out


@triton.jit
def _read_psi(
    basis, d_delta, d_more, frame, PER, rows, m0, d0, N, M: tl.constexpr, D: tl.constexpr, MORE: tl.constexpr
):
    first = frame.to(tl.int64) * N
    d = read_rows(d_delta, first, rows, d0, N, D)
    x = read_rows(basis, (frame // PER).to(tl.int64) * N, rows, m0, N, M, True)
    return x, d, read_rows(d_more, first, rows, d0, N, D) if MORE else d


@triton.jit
def _phi(
    f, delta, u1, c1, u2, means, quats, scales, opacities, colors, d_means, d_quats, d_scales, d_opacities, d_colors,
    d_z, d_prior, sums, N, PER,
    D: tl.constexpr, D0: tl.constexpr, G: tl.constexpr, DELTA: tl.constexpr, PRIOR: tl.constexpr,
    FIRST, UNITS: tl.constexpr, ADD: tl.constexpr, SUMS: tl.constexpr, TILE: tl.constexpr,
    HALF: tl.constexpr, ASM: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """DELTA: features are f + delta. The activations' slopes come from the attributes themselves."""
    DOT: tl.constexpr = f.dtype.element_ty
    frame, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    d0, g0, col = tl.arange(0, D0), units(FIRST, UNITS), tl.arange(0, 16)
    p = first_layer(strided(u1, g0, d0, G, D, D, 1), c1, g0, d0, G, D, DOT)
    q = (strided(u2, g0, col, G, RAW, 1, G) * LN2).to(DOT)
    slope, height, offset, _, linear = activation(col)
    known_out = tl.where(col < 3, means + col, tl.where(col < 6, scales + col - 3, tl.where(
        col < 10, quats + col - 6, tl.where(col == 10, opacities + 0 * col, colors + col - 11))))  # fmt: skip
    from_out = tl.where(col < 3, d_means + col, tl.where(col < 6, d_scales + col - 3, tl.where(
        col < 10, d_quats + col - 6, tl.where(col == 10, d_opacities + 0 * col, d_colors + col - 11))))  # fmt: skip
    step, scale = tl.where(col == 10, 1, tl.where((col >= 6) & (col < 10), 4, 3)), 1 / height
    a, b = tl.zeros([UNITS, D0], tl.float32), tl.zeros([UNITS, 16], tl.float32)

    rows = part * TILE + tl.arange(0, TILE)
    x, e, done, d_out = _read_phi(f, delta, known_out, from_out, frame, PER, rows, d0, col, step, N, D, DELTA)
    for _ in range(part, tl.cdiv(N, TILE), parts):
        there, this = rows < N, frame.to(tl.int64) * N + rows
        rows += parts * TILE
        next_x, next_e, next_done, next_out = _read_phi(
            f, delta, known_out, from_out, frame, PER, rows, d0, col, step, N, D, DELTA
        )
        s = (done - offset[None, :]) * scale[None, :]
        d_raw = tl.where(linear[None, :], 1.0, (height * slope)[None, :] * s * (1 - s)) * d_out
        if PRIOR and not ADD:
            tl.store(d_prior + this[:, None] * RAW + col[None, :], d_raw, mask=there[:, None] & (col < RAW)[None, :])
        d_raw = d_raw.to(DOT)
        if DELTA:
            x += e
        h, r = hidden_layer(p, x, HALF, ASM, P)
        b = tl.dot(h, d_raw, b, input_precision=P)
        d_y = tl.dot(q, tl.trans(d_raw), input_precision=P).to(DOT) * r
        a = tl.dot(d_y, x, a, input_precision=P)
        d = tl.dot(tl.trans(d_y), p, input_precision=P)
        add(d_z, this, there, d0, d, D, ADD)
        x, e, done, d_out = next_x, next_e, next_done, next_out
    store_sums(sums + (frame.to(tl.int64) * parts + part) * SUMS, g0, d0, col, a, b, G, D, RAW)


@triton.jit
def _psi(
    basis, gain, bias, w1, w2, d_delta, d_more, d_basis, sums, N, PER,
    M: tl.constexpr, M0: tl.constexpr, H: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, MORE: tl.constexpr,
    FIRST, UNITS: tl.constexpr, ADD: tl.constexpr, SUMS: tl.constexpr, TILE: tl.constexpr,
    HALF: tl.constexpr, ASM: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """MORE: δ's gradient is d_delta + d_more. After `store_sums` come [M] of gain."""
    DOT: tl.constexpr = basis.dtype.element_ty
    frame, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    m0, d0, h0 = tl.arange(0, M0), tl.arange(0, D0), units(FIRST, UNITS)
    g = vector(gain + frame * M, m0, M, 1.0)
    p = first_layer(strided(w1, h0, m0, H, M, M, 1) * g[None, :], bias + frame * H, h0, m0, H, M, DOT)
    q = (strided(w2, h0, d0, H, D, 1, H) * LN2).to(DOT)
    a, b = tl.zeros([UNITS, M0], tl.float32), tl.zeros([UNITS, D0], tl.float32)

    rows = part * TILE + tl.arange(0, TILE)
    x, d, e = _read_psi(basis, d_delta, d_more, frame, PER, rows, m0, d0, N, M, D, MORE)
    for _ in range(part, tl.cdiv(N, TILE), parts):
        there, this = rows < N, frame.to(tl.int64) * N + rows
        rows += parts * TILE
        next_x, next_d, next_e = _read_psi(basis, d_delta, d_more, frame, PER, rows, m0, d0, N, M, D, MORE)
        if MORE:
            d += e
        h, r = hidden_layer(p, x, HALF, ASM, P)
        b = tl.dot(h, d, b, input_precision=P)
        d_y = tl.dot(q, tl.trans(d), input_precision=P).to(DOT) * r
        a = tl.dot(d_y, x, a, input_precision=P)
        d_x = tl.dot(tl.trans(d_y), p, input_precision=P)
        add(d_basis, this, there, m0, d_x, M, ADD)
        x, d, e = next_x, next_d, next_e
    sums += (frame.to(tl.int64) * parts + part) * SUMS
    d_gain = tl.sum(strided(w1, h0, m0, H, M, M, 1) * a, 0) * LOG2E
    of_gain = sums + H * ((M + 4) // 4 * 4) + (H + 1) * ((D + 3) // 4 * 4) + m0
    if ADD:
        d_gain += tl.load(of_gain, mask=m0 < M, other=0.0)
    tl.store(of_gain, d_gain, mask=m0 < M)
    store_sums(sums, h0, m0, d0, a * tl.where(m0 == M, 1.0, g)[None, :], b, H, M, D)


def _phi_size(phi: Phi) -> int:
    return packed(*phi.w1.shape, layout.RAW)


def _psi_size(w1: Tensor, w2: Tensor) -> int:
    return packed(*w1.shape, len(w2)) + w1.shape[1]


def _run_phi(
    sums: Sums, k: int, f, delta, phi: Phi, attributes, d_out, want_prior: bool
) -> tuple[Tensor, Tensor | None]:
    """→ gradients of the features and of the prior, per frame."""
    (people, n, D), frames = f.shape, len(attributes[0])
    d_out = [
        torch.zeros_like(t) if d is None else d.contiguous()
        for d, t in zip(d_out, Attributes(*attributes), strict=True)
    ]
    d_z = torch.empty(frames, n, D, device=f.device, dtype=f.dtype)
    d_prior = torch.empty(frames, n, layout.RAW, device=f.device) if want_prior else None
    sums.run(
        _phi, k, f.contiguous(), delta, phi.w1.contiguous(), phi.b1.contiguous(), phi.w2.contiguous(), *attributes, *d_out,
        d_z, d_prior, PER=frames // people, D=D, D0=padded(D, 1), G=len(phi.b1), ways=in_pieces(len(phi.b1), sums.stored),
        DELTA=delta is not None, PRIOR=want_prior,
    )  # fmt: skip
    return d_z, d_prior


def _of_phi(total: Tensor, phi: Phi) -> tuple[Tensor, ...]:
    grads = unpack(over_frames(total), *phi.w1.shape, layout.RAW)
    return tuple(d.to(w.dtype) for d, w in zip(grads, phi, strict=True))


def _run_psi(sums: Sums, k: int, basis, gain, bias, w1, w2, d_delta, d_more) -> Tensor:
    """→ gradient of the basis, per frame."""
    frames, (people, n, M), (D, H) = len(gain), basis.shape, w2.shape
    d_basis = torch.empty(frames, n, M, device=basis.device, dtype=basis.dtype)
    inputs = (t if t is None else t.contiguous() for t in (basis, gain, bias, w1, w2, d_delta, d_more))
    sums.run(
        _psi, k, *inputs, d_basis, PER=frames // people, M=M, M0=padded(M, 1), H=H, D=D, D0=padded(D), MORE=d_more is not None,
        ways=in_pieces(H, sums.stored),
    )  # fmt: skip
    return d_basis


def _of_psi(total: Tensor, gain, bias, w1, w2) -> tuple[Tensor, ...]:
    """→ gradients of gain, bias, w1, w2 and b2."""
    sizes, size = (*w1.shape, len(w2)), _psi_size(w1, w2)
    d_gain, d_bias = total[:, size - w1.shape[1] : size], unpack(total, *sizes)[1]
    d_w1, _, d_w2, d_b2 = unpack(over_frames(total), *sizes)
    d = d_gain, d_bias, d_w1, d_w2, d_b2
    return tuple(g.to(t.dtype) for g, t in zip(d, (gain, bias, w1, w2, w2), strict=True))


def back_through_phi(f, delta, phi: Phi, attributes, d_out, want_prior: bool):
    """Features f [B,N,D] + delta [F,N,D] (or None). → gradients of the features and of the prior (or None) per frame, and of
    Φ's four weights."""
    sums = Sums(f, len(attributes[0]), f.shape[1], _phi_size(phi))
    d_z, d_prior = _run_phi(sums, 0, f, delta, phi, attributes, d_out, want_prior)
    return d_z, d_prior, *_of_phi(*sums.totals(), phi)


def back_through_psi(basis, gain, bias, w1, w2, d_delta):
    """δ's gradient [F,N,D], in basis' type. → gradients of basis, gain, bias, w1, w2 and b2."""
    sums = Sums(basis, len(gain), basis.shape[1], _psi_size(w1, w2))
    d_basis = _run_psi(sums, 0, basis, gain, bias, w1, w2, d_delta, None)
    return per_identity(d_basis, len(basis)), *_of_psi(*sums.totals(), gain, bias, w1, w2)


def back_through_both(basis, gain, bias, w1, w2, f, delta, phi: Phi, attributes, d_out, d_delta, want_prior: bool):
    """Φ, then Ψ: → gradients of the features and of the prior (or None) per frame, of Φ's weights; and of basis, gain, bias,
    w1, w2 and b2."""
    sums = Sums(f, len(gain), f.shape[1], _phi_size(phi), _psi_size(w1, w2))
    d_z, d_prior = _run_phi(sums, 0, f, delta, phi, attributes, d_out, want_prior)
    d_basis = _run_psi(sums, 1, basis, gain, bias, w1, w2, d_z, d_delta)
    of_phi, of_psi = sums.totals()
    d_psi = per_identity(d_basis, len(basis)), *_of_psi(of_psi, gain, bias, w1, w2)
    return d_z, d_prior, _of_phi(of_phi, phi), d_psi
