"""Ψ and Φ in one pass over the Gaussians (twins: `reference.local_fusion`, `reference.decode`; PAPER §1).

Two softplus networks of 48 → 96 → 48 and 48 → 96 → 14 with everything between them on chip: a Gaussian costs its
bytes (basis and feature in, attributes out) and 192 softplus. What is per set of weights is packed once (`pack`):

    softplus(a) = ln 2 · log2(1 + 2^(a log2 e)): both factors move into the weights around it, so that the kernel computes
    log2(1 + 2^y) = max(y, 0) + g(2^−|y|), and g is a polynomial: one special-function call instead of two.

Storage in 16 bits computes with fp16 tensor cores (same rate as bf16, 8 times finer), fp32 with three tf32 products.
Widths that are no powers of two (48, 96) go in two pieces (32 + 16, 64 + 32): nothing is masked or wasted.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from kernels.reference import RAW, Attributes, Phi, Psi

LOG2E, LN2 = 1.4426950408889634, 0.6931471805599453
C0, C1, C2, C3 = (tl.constexpr(c) for c in (1.43901471, -0.67994435, 0.32559607, -0.08476877))
"""log2(1 + e) = e (C0 + C1 e + C2 e² + C3 e³) ± 1.1e-4 on [0, 1]: the minimax fit, a tenth of what fp16 rounds away."""


@triton.jit
def _softplus(y, bias, HALF: tl.constexpr, ASM: tl.constexpr):
    """log2(1 + 2^(y + bias)). HALF: in fp16 arithmetic, two at a time, error below 2.1e-3 for values to 8 (fp16 itself: 2.0e-3)."""
    if HALF and ASM:
        h = tl.inline_asm_elementwise(
            """
            {
            .reg .b32 y, t, e, q, m, z, c0, c1, c2, c3;
            cvt.rn.f16x2.f32 y, $2, $1;
            add.f16x2 y, y, $3;
            mov.b32 z, 0;
            mov.b32 c0, 0x3dc23dc2;
            mov.b32 c1, 0xb970b970;
            mov.b32 c2, 0x35363536;
            mov.b32 c3, 0xad6dad6d;
            or.b32 t, y, 0x80008000;
            ex2.approx.f16x2 e, t;
            max.f16x2 m, y, z;
            fma.rn.f16x2 q, e, c3, c2;
            fma.rn.f16x2 q, e, q, c1;
            fma.rn.f16x2 q, e, q, c0;
            fma.rn.f16x2 $0, e, q, m;
            }
            """,
            "=r,r,r,r", [y, tl.broadcast_to(bias.to(tl.float16)[None, :], y.shape)], dtype=tl.float16, is_pure=True, pack=2,
        )  # fmt: skip
    else:
        y += bias[None, :]
        e = tl.exp2(-tl.abs(y))
        if HALF:
            h = (tl.maximum(y, 0) + e * (C0 + e * (C1 + e * (C2 + e * C3)))).to(tl.float16)
        elif ASM:  # tl.log2 is a dozen instructions
            log = tl.inline_asm_elementwise(
                "lg2.approx.f32 $0, $1;", "=r,r", [1 + e], dtype=tl.float32, is_pure=True, pack=1
            )
            h = tl.maximum(y, 0) + log
        else:
            h = tl.maximum(y, 0) + tl.log2(1 + e)
    return h


@triton.jit
def _weight(w, OUT0: tl.constexpr, OUT: tl.constexpr, IN0: tl.constexpr, IN: tl.constexpr, STRIDE: tl.constexpr):
    """Piece [IN, OUT] of a weight matrix stored [out, in]."""
    return tl.load(w + (OUT0 + tl.arange(0, OUT))[None, :] * STRIDE + (IN0 + tl.arange(0, IN))[:, None])


@triton.jit
def _activation(col):
    """Per raw column: Φ's activations are offset + height · sigmoid(slope · raw); the quaternion (6..9) is raw."""
    position, scale, color = col < 3, (col >= 3) & (col < 6), col >= 11
    slope = tl.where(position, 2.0, 1.0)
    height = tl.where(position, 2.0, tl.where(scale, 0.05, tl.where(color, 1.002, 1.0)))
    offset = tl.where(position, -1.0, tl.where(color, -0.001, 0.0))
    return slope, height, offset, (col >= 6) & (col < 10)


@triton.jit
def _place(col, rows):
    """Where raw column `col` lies in the output [quats | means | scales | colors | opacities]: Gaussian 0, and the step to the next."""
    width = tl.where(col == 10, 1, tl.where((col >= 6) & (col < 10), 4, 3))
    first = tl.where(col < 3, 4, tl.where(col < 6, 7, tl.where(col < 10, 0, tl.where(col == 10, 13, 10))))
    within = tl.where(
        col < 3, col, tl.where(col < 6, col - 3, tl.where(col < 10, col - 6, tl.where(col == 10, 0, col - 11)))
    )
    return first.to(tl.int64) * rows + within, width


@triton.jit
def _forward(
    basis, gain, bias, f, w1, w2, b2, u1, c1, u2, c2, prior, out, delta, N, FRAMES, PER, PRIOR_STEP,
    M1: tl.constexpr, M2: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr,
    G1: tl.constexpr, G2: tl.constexpr, PSI: tl.constexpr, EMIT: tl.constexpr, TILE: tl.constexpr, HALF: tl.constexpr,
    ASM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    DOT: tl.constexpr = tl.float16 if HALF else tl.float32
    M: tl.constexpr = M1 + M2
    H: tl.constexpr = H1 + H2
    D: tl.constexpr = D1 + D2
    G: tl.constexpr = G1 + G2
    if PSI:
        w11, w12 = _weight(w1, 0, H1, 0, M1, M), _weight(w1, H1, H2, 0, M1, M)
        w21, w22 = _weight(w1, 0, H1, M1, M2, M), _weight(w1, H1, H2, M1, M2, M)
        v11, v12 = _weight(w2, 0, D1, 0, H1, H), _weight(w2, D1, D2, 0, H1, H)
        v21, v22 = _weight(w2, 0, D1, H1, H2, H), _weight(w2, D1, D2, H1, H2, H)
    p11, p12 = _weight(u1, 0, G1, 0, D1, D), _weight(u1, G1, G2, 0, D1, D)
    p21, p22 = _weight(u1, 0, G1, D1, D2, D), _weight(u1, G1, G2, D1, D2, D)
    q1, q2 = _weight(u2, 0, 16, 0, G1, G), _weight(u2, 0, 16, G1, G2, G)
    ca, cb = tl.load(c1 + tl.arange(0, G1)), tl.load(c1 + G1 + tl.arange(0, G2))
    col = tl.arange(0, 16)
    cc = tl.load(c2 + col)
    slope, height, offset, linear = _activation(col)
    place, step = _place(col, FRAMES * N)
    m1, m2, h1, h2 = tl.arange(0, M1), M1 + tl.arange(0, M2), tl.arange(0, H1), H1 + tl.arange(0, H2)
    d1, d2 = tl.arange(0, D1), D1 + tl.arange(0, D2)

    for job in range(tl.program_id(0), tl.cdiv(N, TILE) * FRAMES, tl.num_programs(0)):
        frame = job % FRAMES
        rows = job // FRAMES * TILE + tl.arange(0, TILE)
        there = rows < N
        own = (frame // PER).to(tl.int64) * N + tl.minimum(rows, N - 1)  # of the identity; the last rows may repeat
        za = tl.load(f + own[:, None] * D + d1[None, :]).to(tl.float32)
        zb = tl.load(f + own[:, None] * D + d2[None, :]).to(tl.float32)
        at = (frame // PER).to(tl.int64) * PRIOR_STEP + tl.minimum(rows, N - 1) * 14
        start = tl.load(prior + at[:, None] + tl.minimum(col, 13)[None, :])
        if PSI:
            ga, gb = tl.load(gain + frame * M + m1), tl.load(gain + frame * M + m2)
            ba, bb = (
                tl.load(bias + frame * H + h1) * 1.4426950408889634,
                tl.load(bias + frame * H + h2) * 1.4426950408889634,
            )
            xa = (tl.load(basis + own[:, None] * M + m1[None, :]).to(tl.float32) * ga[None, :]).to(DOT)
            xb = (tl.load(basis + own[:, None] * M + m2[None, :]).to(tl.float32) * gb[None, :]).to(DOT)
            ya = tl.dot(xb, w21, tl.dot(xa, w11, input_precision=PRECISION), input_precision=PRECISION)
            yb = tl.dot(xb, w22, tl.dot(xa, w12, input_precision=PRECISION), input_precision=PRECISION)
            sa, sb = _softplus(ya, ba, HALF, ASM), _softplus(yb, bb, HALF, ASM)
            da = tl.dot(sb, v21, tl.dot(sa, v11, input_precision=PRECISION), input_precision=PRECISION)
            db = tl.dot(sb, v22, tl.dot(sa, v12, input_precision=PRECISION), input_precision=PRECISION)
            if EMIT:
                to = delta + (frame.to(tl.int64) * N + rows)[:, None] * D
                tl.store(to + d1[None, :], da + tl.load(b2 + d1)[None, :], mask=there[:, None])
                tl.store(to + d2[None, :], db + tl.load(b2 + d2)[None, :], mask=there[:, None])
            za += da
            zb += db
        za, zb = za.to(DOT), zb.to(DOT)
        ya = tl.dot(zb, p21, tl.dot(za, p11, input_precision=PRECISION), input_precision=PRECISION)
        yb = tl.dot(zb, p22, tl.dot(za, p12, input_precision=PRECISION), input_precision=PRECISION)
        sa, sb = _softplus(ya, ca, HALF, ASM), _softplus(yb, cb, HALF, ASM)
        raw = tl.dot(sb, q2, tl.dot(sa, q1, input_precision=PRECISION), input_precision=PRECISION)
        raw += cc[None, :] + start
        done = offset[None, :] + height[None, :] / (1 + tl.exp2(raw * (-1.4426950408889634 * slope)[None, :]))
        done = tl.where(linear[None, :], raw, done)
        to = place[None, :] + (frame.to(tl.int64) * N + rows)[:, None] * step[None, :]
        tl.store(out + to, done, mask=there[:, None] & (col < 14)[None, :])


@triton.jit
def _up(x1, x2, w1, w2, bias, HALF: tl.constexpr, ASM: tl.constexpr, PRECISION: tl.constexpr):
    """One piece of a hidden layer, log2(1 + 2^y), and its slope 1 − 2^−that."""
    h = _softplus(tl.dot(x2, w2, tl.dot(x1, w1, input_precision=PRECISION), input_precision=PRECISION), bias, HALF, ASM)
    return h.to(x1.dtype), 1 - tl.exp2(-h.to(tl.float32))


@triton.jit
def _down(d_h, slope, x1, x2, w1, w2, ones, a1, a2, b, PRECISION: tl.constexpr):
    """Back through one piece of a hidden layer: its part of the gradients of x1 and x2, and the running sums of its weights'
    (a1, a2) and bias's (b) gradients."""
    d_y = (d_h * slope).to(x1.dtype)
    a1 = tl.dot(tl.trans(d_y), x1, a1, input_precision=PRECISION)
    a2 = tl.dot(tl.trans(d_y), x2, a2, input_precision=PRECISION)
    b = tl.dot(ones, d_y, b, input_precision=PRECISION)
    d_1 = tl.dot(d_y, tl.trans(w1), input_precision=PRECISION)
    d_2 = tl.dot(d_y, tl.trans(w2), input_precision=PRECISION)
    return d_1, d_2, a1, a2, b


@triton.jit
def _put(sums, a, row, STRIDE: tl.constexpr, COL: tl.constexpr, COLS: tl.constexpr):
    tl.store(sums + row[:, None] * STRIDE + (COL + tl.arange(0, COLS))[None, :], a)


@triton.jit
def _backward(
    x, plus, gain, bias, w1, w2, c2, prior, d_out, d_more, d_x, d_prior, sums, N, FRAMES, PER, PRIOR_STEP,
    I1: tl.constexpr, I2: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, O1: tl.constexpr, O2: tl.constexpr,
    PHI: tl.constexpr, MORE: tl.constexpr, PRIOR: tl.constexpr, SUMS: tl.constexpr, TILE: tl.constexpr,
    HALF: tl.constexpr, ASM: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Back through Φ (PHI: x + plus are the features, MORE: plus is there, d_out the packed attributes' gradient) or through
    Ψ (x is the basis, d_out + d_more the gradient of δ; MORE: d_more is there).

    Hidden layers are computed again tile by tile. Program (frame, part) writes the sums of weight gradients over its tiles.
    """
    DOT: tl.constexpr = x.dtype.element_ty
    IN: tl.constexpr = I1 + I2
    H: tl.constexpr = H1 + H2
    OUT: tl.constexpr = O1 + O2
    frame, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    col = tl.arange(0, 16)
    i1, i2, h1, h2 = tl.arange(0, I1), I1 + tl.arange(0, I2), tl.arange(0, H1), H1 + tl.arange(0, H2)
    o1 = tl.arange(0, O1)
    ones = tl.full([16, TILE], 1.0, DOT)
    w11, w12 = _weight(w1, 0, H1, 0, I1, IN), _weight(w1, H1, H2, 0, I1, IN)
    w21, w22 = _weight(w1, 0, H1, I1, I2, IN), _weight(w1, H1, H2, I1, I2, IN)
    v11, v21 = _weight(w2, 0, O1, 0, H1, H), _weight(w2, 0, O1, H1, H2, H)
    a11, a12 = tl.zeros([H1, I1], tl.float32), tl.zeros([H1, I2], tl.float32)
    a21, a22 = tl.zeros([H2, I1], tl.float32), tl.zeros([H2, I2], tl.float32)
    b11, b21 = tl.zeros([H1, O1], tl.float32), tl.zeros([H2, O1], tl.float32)
    s1, s2 = tl.zeros([16, H1], tl.float32), tl.zeros([16, H2], tl.float32)
    if PHI:
        c1, cc = tl.load(bias + h1), tl.load(c2 + col)
        c3 = tl.load(bias + h2)
        sc = tl.zeros([16, 16], tl.float32)
        slope, height, _, linear = _activation(col)
        place, step = _place(col, FRAMES * N)
    else:
        o2 = O1 + tl.arange(0, O2)
        v12, v22 = _weight(w2, O1, O2, 0, H1, H), _weight(w2, O1, O2, H1, H2, H)
        b12, b22 = tl.zeros([H1, O2], tl.float32), tl.zeros([H2, O2], tl.float32)
        c1 = tl.load(bias + frame * H + h1) * 1.4426950408889634
        c3 = tl.load(bias + frame * H + h2) * 1.4426950408889634
        ga, gb = tl.load(gain + frame * IN + i1), tl.load(gain + frame * IN + i2)

    for tile in range(part, tl.cdiv(N, TILE), parts):
        rows = tile * TILE + tl.arange(0, TILE)
        there = rows < N
        own = (frame // PER).to(tl.int64) * N + tl.minimum(rows, N - 1)
        this = frame.to(tl.int64) * N + rows
        xa, xb = tl.load(x + own[:, None] * IN + i1[None, :]), tl.load(x + own[:, None] * IN + i2[None, :])
        if PHI:
            if MORE:
                xa = (xa + tl.load(plus + this[:, None] * IN + i1[None, :], mask=there[:, None], other=0.0)).to(DOT)
                xb = (xb + tl.load(plus + this[:, None] * IN + i2[None, :], mask=there[:, None], other=0.0)).to(DOT)
            ha, ra = _up(xa, xb, w11, w21, c1, HALF, ASM, PRECISION)
            hb, rb = _up(xa, xb, w12, w22, c3, HALF, ASM, PRECISION)
            at = (frame // PER).to(tl.int64) * PRIOR_STEP + tl.minimum(rows, N - 1) * 14
            raw = tl.dot(hb, v21, tl.dot(ha, v11, input_precision=PRECISION), input_precision=PRECISION)
            raw += cc[None, :] + tl.load(prior + at[:, None] + tl.minimum(col, 13)[None, :])
            sigmoid = 1 / (1 + tl.exp2(raw * (-1.4426950408889634 * slope)[None, :]))
            rise = tl.where(linear[None, :], 1.0, (height * slope)[None, :] * sigmoid * (1 - sigmoid))
            known = there[:, None] & (col < 14)[None, :]
            d_raw = rise * tl.load(d_out + place[None, :] + this[:, None] * step[None, :], mask=known, other=0.0)
            if PRIOR:
                tl.store(d_prior + this[:, None] * 14 + col[None, :], d_raw, mask=known)
            da = d_raw.to(DOT)
            sc = tl.dot(ones, da, sc, input_precision=PRECISION)
            d_h = tl.dot(da, tl.trans(v11), input_precision=PRECISION)
            d_k = tl.dot(da, tl.trans(v21), input_precision=PRECISION)
        else:
            da = tl.load(d_out + this[:, None] * OUT + o1[None, :], mask=there[:, None], other=0.0)
            db = tl.load(d_out + this[:, None] * OUT + o2[None, :], mask=there[:, None], other=0.0)
            if MORE:
                da = (da + tl.load(d_more + this[:, None] * OUT + o1[None, :], mask=there[:, None], other=0.0)).to(DOT)
                db = (db + tl.load(d_more + this[:, None] * OUT + o2[None, :], mask=there[:, None], other=0.0)).to(DOT)
            ya, yb = (xa.to(tl.float32) * ga[None, :]).to(DOT), (xb.to(tl.float32) * gb[None, :]).to(DOT)
            ha, ra = _up(ya, yb, w11, w21, c1, HALF, ASM, PRECISION)
            hb, rb = _up(ya, yb, w12, w22, c3, HALF, ASM, PRECISION)
            b12 = tl.dot(tl.trans(ha), db, b12, input_precision=PRECISION)
            b22 = tl.dot(tl.trans(hb), db, b22, input_precision=PRECISION)
            d_h = tl.dot(
                db, tl.trans(v12), tl.dot(da, tl.trans(v11), input_precision=PRECISION), input_precision=PRECISION
            )
            d_k = tl.dot(
                db, tl.trans(v22), tl.dot(da, tl.trans(v21), input_precision=PRECISION), input_precision=PRECISION
            )
        b11 = tl.dot(tl.trans(ha), da, b11, input_precision=PRECISION)
        b21 = tl.dot(tl.trans(hb), da, b21, input_precision=PRECISION)
        # With Ψ the sums are those of d_y ⊗ basis: the gradients of both w1 and gain follow from them.
        d1, d2, a11, a12, s1 = _down(d_h, ra, xa, xb, w11, w21, ones, a11, a12, s1, PRECISION)
        e1, e2, a21, a22, s2 = _down(d_k, rb, xa, xb, w12, w22, ones, a21, a22, s2, PRECISION)
        d1, d2 = d1 + e1, d2 + e2
        if not PHI:
            d1, d2 = d1 * ga[None, :], d2 * gb[None, :]
        tl.store(d_x + this[:, None] * IN + i1[None, :], d1, mask=there[:, None])
        tl.store(d_x + this[:, None] * IN + i2[None, :], d2, mask=there[:, None])

    sums += (frame.to(tl.int64) * parts + part) * SUMS  # [H,I | H,O | 16,H | 16,16]
    _put(sums, a11, h1, IN, 0, I1)
    _put(sums, a12, h1, IN, I1, I2)
    _put(sums, a21, h2, IN, 0, I1)
    _put(sums, a22, h2, IN, I1, I2)
    sums += H * IN
    _put(sums, b11, h1, OUT, 0, O1)
    _put(sums, b21, h2, OUT, 0, O1)
    if not PHI:
        _put(sums, b12, h1, OUT, O1, O2)
        _put(sums, b22, h2, OUT, O1, O2)
    sums += H * OUT
    _put(sums, s1, col, H, 0, H1)
    _put(sums, s2, col, H, H1, H2)
    if PHI:
        _put(sums + 16 * H, sc, col, 16, 0, 16)


class Packed(NamedTuple):
    """Weights as the kernels want them: scaled to base 2, padded to whole pieces, in the type of the products."""

    w1: Tensor | None
    w2: Tensor | None
    b2: Tensor | None
    u1: Tensor
    c1: Tensor
    u2: Tensor
    c2: Tensor


def _pieces(width: int) -> tuple[int, int]:
    """A width as two powers of two of at least 16 that hold it."""
    wide = max(16, 1 << (width.bit_length() - 1))
    if wide == width:
        wide = max(16, width // 2)
    return wide, max(16, triton.next_power_of_2(width - wide))


def _padded(t: Tensor, *sizes: int) -> Tensor:
    """Zeros after the end of the last axes up to `sizes`."""
    pad = [n for size, have in zip(reversed(sizes), reversed(t.shape), strict=False) for n in (0, size - have)]
    return F.pad(t, pad) if any(pad) else t


@torch.no_grad()
def pack(psi: Psi | None, phi: Phi, product: torch.dtype) -> Packed:
    """Weights for products of `product` (`product_of` the features). To be kept as long as the weights stay the same."""
    hidden, features = sum(_pieces(phi.w1.shape[0])), sum(_pieces(phi.w1.shape[1]))
    shift = torch.zeros(RAW, device=phi.b2.device)
    shift[10] = -1  # opacity is sigmoid(raw − 1)
    c1, w1, w2, b2 = phi.b1.float(), None, None, None
    if psi is not None:
        inner = sum(_pieces(psi.w1.shape[0]))
        w1 = _padded(psi.w1.float() * LOG2E, inner, sum(_pieces(psi.w1.shape[1]))).to(product)
        w2 = _padded(psi.w2.float() * LN2, features, inner).to(product)
        b2 = _padded(psi.b2.float(), features)
        c1 = c1 + phi.w1.float() @ psi.b2.float()  # the kernel adds δ − b2 to f
    u1 = _padded(phi.w1.float() * LOG2E, hidden, features).to(product)
    u2 = _padded(phi.w2.float() * LN2, 16, hidden).to(product)
    rest = (u1, _padded(c1 * LOG2E, hidden), u2, _padded(phi.b2.float() + shift, 16))
    return Packed(*(t if t is None else t.contiguous() for t in (w1, w2, b2, *rest)))


def product_of(stored: torch.dtype) -> torch.dtype:
    """The type that features stored so are multiplied in."""
    return torch.float32 if stored == torch.float32 else torch.float16


def _programs(device: torch.device, per_processor: int) -> int:
    return (
        per_processor * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 3
    )


def _widths(**sizes: int) -> dict[str, int]:
    return {f"{k}{i + 1}": piece for k, size in sizes.items() for i, piece in enumerate(_pieces(size))}


def _options(stored: torch.dtype, device: torch.device) -> dict:
    half, cuda = stored != torch.float32, device.type == "cuda"
    return {"HALF": half, "ASM": cuda, "PRECISION": "tf32x3" if cuda and not half else "ieee"}


def _forward_pass(basis, gain, bias, f, packed: Packed, prior, emit: bool):
    psi = basis is not None
    frames, people, n = len(gain) if psi else len(f), len(f), f.shape[1]
    D, G, H = sum(_pieces(f.shape[2])), packed.u1.shape[0], packed.w1.shape[0] if psi else 0
    M = packed.w1.shape[1] if psi else 0
    f = _padded(f, D).contiguous()
    prior = prior.contiguous() if prior.stride(0) else prior[:1].contiguous()
    out = torch.empty(frames * n * RAW, device=f.device)
    delta = torch.empty(frames, n, D, device=f.device, dtype=f.dtype) if emit else None
    if psi:
        basis, gain, bias = _padded(basis, M).contiguous(), _padded(gain.float(), M).contiguous(), bias.float()
        bias = _padded(bias, H).contiguous()
    tile = FORWARD["TILE"]
    grid = (min(triton.cdiv(n, tile) * frames, _programs(f.device, 3)),)
    _forward[grid](
        basis, gain, bias, f, packed.w1, packed.w2, packed.b2, packed.u1, packed.c1, packed.u2, packed.c2, prior, out,
        delta, n, frames, frames // people, 0 if len(prior) == 1 else n * RAW,
        **_widths(M=M or 32, H=H or 32, D=D, G=G), PSI=psi, EMIT=emit, **_options(f.dtype, f.device), **FORWARD,
    )  # fmt: skip
    return _split(out, frames, n), delta


FORWARD = {"TILE": 64, "num_warps": 4, "num_stages": 1}
BACKWARD = {"TILE": 64, "num_warps": 4, "num_stages": 1}


def _split(out: Tensor, frames: int, n: int) -> Attributes:
    """The packed output as attributes, each contiguous."""
    quats, means, scales, colors, opacities = out.split([frames * n * k for k in (4, 3, 3, 3, 1)])
    shaped = lambda t: t.view(frames, n, -1)  # noqa: E731
    return Attributes(shaped(means), shaped(quats), shaped(scales), opacities.view(frames, n), shaped(colors))


def _backward_pass(x, plus, gain, bias, w1, w2, c2, prior, d_out, d_more, want_prior: bool):
    """→ gradient of x per frame, of prior per frame or None, and sums per frame {a [F,H,I], b [F,H,O], s [F,H], sc [F,16]}."""
    phi = gain is None
    frames = len(gain) if gain is not None else (len(plus) if plus is not None else len(x))
    people, n, inputs = x.shape
    H, outputs = w1.shape[0], w2.shape[0]
    parts = max(1, min(triton.cdiv(n, BACKWARD["TILE"]), _programs(x.device, 2) // frames))
    sizes = [H * inputs, H * outputs, 16 * H, 16 * 16]
    sums = torch.empty(frames, parts, sum(sizes), device=x.device)
    d_x = torch.empty(frames, n, inputs, device=x.device, dtype=x.dtype)
    d_prior = torch.empty(frames, n, RAW, device=x.device) if want_prior else None
    out = {"O1": 16, "O2": 0} if phi else _widths(O=outputs)
    more = plus if phi else d_more
    _backward[(frames, parts)](
        x, plus, gain, bias, w1, w2, c2, prior, d_out, d_more, d_x, d_prior, sums, n, frames, frames // people,
        0 if prior is None or len(prior) == 1 else n * RAW, **_widths(I=inputs, H=H), **out, PHI=phi, MORE=more is not None,
        PRIOR=want_prior, SUMS=sum(sizes), **_options(x.dtype, x.device), **BACKWARD,
    )  # fmt: skip
    a, b, s, sc = sums.sum(1).split(sizes, -1)
    return d_x, d_prior, a.view(frames, H, inputs), b.view(frames, H, outputs), s[:, :H], sc[:, :16]


class _LocalFusion(torch.autograd.Function):
    @staticmethod
    def forward(ctx, packed, basis, gain, bias, f, w1, w2, b2, u1, c1, u2, c2, prior):
        ctx.save_for_backward(basis, gain, bias, f, w1, w2, b2, u1, c1, u2, c2, prior)
        attributes, delta = _forward_pass(basis, gain, bias, f, packed, prior, emit=basis is not None)
        ctx.delta = delta
        return *attributes, None if delta is None else delta[..., : f.shape[2]]

    @staticmethod
    def backward(ctx, *d_outs):
        basis, gain, bias, f, w1, w2, b2, u1, c1, u2, c2, prior = ctx.saved_tensors
        psi, phi = None if basis is None else Psi(w1, w2, b2), Phi(u1, c1, u2, c2)
        packed = pack(psi, phi, f.dtype)
        frames, n = len(f) if basis is None else len(gain), f.shape[1]
        widths = dict(zip(Attributes._fields, (3, 4, 3, 1, 3), strict=True))
        d = dict(zip(Attributes._fields, d_outs, strict=False))
        order = ("quats", "means", "scales", "colors", "opacities")
        d_out = torch.cat([
            f.new_zeros(frames * n * widths[k], dtype=torch.float32) if d[k] is None else d[k].float().reshape(-1) for k in order
        ])  # fmt: skip
        D, G = packed.u1.shape[1], c1.shape[0]
        own = prior.contiguous() if prior.stride(0) else prior[:1].contiguous()
        d_z, d_prior, a, b, s, sc = _backward_pass(
            _padded(f, D).contiguous(), ctx.delta, None, _padded(c1.float() * LOG2E, packed.u1.shape[0]), packed.u1, packed.u2,
            packed.c2, own, d_out, None, ctx.needs_input_grad[12],
        )  # fmt: skip
        d_u1, d_c1 = LOG2E * a.sum(0)[:G, : f.shape[2]], LOG2E * s.sum(0)[:G]
        d_u2, d_c2 = LN2 * b.sum(0).T[:RAW, :G], sc.sum(0)[:RAW]
        d_f = _own(d_z[..., : f.shape[2]], len(f))
        d_phi = (d_u1.to(u1), d_c1.to(c1), d_u2.to(u2), d_c2.to(c2), _own(d_prior, len(prior)))
        if psi is None:
            return None, None, None, None, d_f, None, None, None, *d_phi
        H, M = w1.shape
        d_delta = d_outs[5]
        if d_delta is not None:
            d_delta = _padded(d_delta.to(f.dtype), D).contiguous()
        d_basis, _, a, b, s, _ = _backward_pass(
            _padded(basis, packed.w1.shape[1]).contiguous(), None, _padded(gain.float(), packed.w1.shape[1]).contiguous(),
            _padded(bias.float(), packed.w1.shape[0]).contiguous(), packed.w1, packed.w2, None, None, d_z, d_delta, False,
        )  # fmt: skip
        C = LOG2E * a[:, :H, :M]
        d_b2 = u1.float().T @ d_c1 + (0 if d_delta is None else d_delta.sum((0, 1), dtype=torch.float32)[: f.shape[2]])
        d_psi = ((C * gain[:, None]).sum(0).to(w1), (LN2 * b.sum(0).T[: f.shape[2], :H]).to(w2), d_b2.to(b2))
        d_gain, d_bias = (w1.float() * C).sum(1).to(gain), (LOG2E * s[:, :H]).to(bias)
        return None, _own(d_basis[..., :M], len(basis)), d_gain, d_bias, d_f, *d_psi, *d_phi


def _own(d: Tensor | None, people: int) -> Tensor | None:
    """Gradients per frame summed over the frames of each person."""
    return d if d is None or len(d) == people else d.unflatten(0, (people, -1)).sum(1)


def local_fusion(basis, gain, bias, f, psi: Psi, phi: Phi, prior, packed: Packed | None = None):
    """`reference.local_fusion` in one launch. Without `packed` the weights are packed in this call. δf is None unless a
    gradient is wanted: inference does not write it."""
    packed = packed or pack(psi, phi, product_of(f.dtype))
    if torch.is_grad_enabled():
        *attributes, delta = _LocalFusion.apply(packed, basis, gain, bias, f, *psi, *phi, prior)
        return Attributes(*attributes), delta
    return _forward_pass(basis, gain, bias, f, packed, prior, emit=False)


def decode(f, phi: Phi, prior, packed: Packed | None = None) -> Attributes:
    """`reference.decode` in one launch."""
    packed = packed or pack(None, phi, product_of(f.dtype))
    prior = prior if len(prior) in (1, len(f)) else prior.repeat_interleave(len(f) // len(prior), 0)
    if torch.is_grad_enabled():
        return Attributes(*_LocalFusion.apply(packed, None, None, None, f, None, None, None, *phi, prior)[:5])
    return _forward_pass(None, None, None, f, packed, prior, emit=False)[0]
