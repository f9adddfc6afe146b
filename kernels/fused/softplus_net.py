"""Pieces that the local fusion kernels share: weights on chip, the softplus, Φ's activations and where they are stored.

softplus(a) = ln 2 · log2(1 + 2^(a log2 e)): both factors go into the weights around it, so that the kernels compute
log2(1 + 2^y) = max(y, 0) + g(2^−|y|), and in 16 bits g is a polynomial: one special-function call instead of two.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels import layout

RAW = tl.constexpr(layout.RAW)
MAX_SCALE = tl.constexpr(layout.MAX_SCALE)
COLOR_HEIGHT, COLOR_OFFSET = tl.constexpr(layout.COLOR_HEIGHT), tl.constexpr(layout.COLOR_OFFSET)
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
C0, C1, C2, C3 = (tl.constexpr(c) for c in (1.43901471, -0.67994435, 0.32559607, -0.08476877))
"""log2(1 + e) = e (C0 + C1 e + C2 e² + C3 e³) ± 1.1e-4 on [0, 1]: the minimax fit, a tenth of what fp16 rounds away."""


S0, S1, S2, S3, S4 = (tl.constexpr(c) for c in (0.49978336, -0.98729908, 0.87791824, -0.55180617, 0.16162028))
"""1 / (1 + e) − ½ = S0 + S1 e + S2 e² + S3 e³ + S4 e⁴ ± 2.2e-4 on [0, 1]: the minimax fit."""


@triton.jit
def softplus(y, bias, HALF: tl.constexpr, ASM: tl.constexpr, AXIS: tl.constexpr = 0):
    """log2(1 + 2^(y + bias)), bias [·] the same along AXIS. HALF: in fp16 arithmetic, two at a time, error below 2.1e-3 for
    values to 8 (fp16 itself: 2.0e-3)."""
    bias = tl.expand_dims(bias, AXIS)
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
            "=r,r,r,r",
            [y, tl.broadcast_to(bias.to(tl.float16), y.shape)],
            dtype=tl.float16,
            is_pure=True,
            pack=2,
        )
    else:
        y += bias
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
def softplus_slope(y, HALF: tl.constexpr, ASM: tl.constexpr):
    """log2(1 + 2^y) and its slope 1 / (1 + 2^−y), from one special-function call in 16 bits: both are polynomials of e = 2^−|y|,
    the slope as ½ ± (1 / (1 + e) − ½). Error of the slope below 1e-3 (fp16 itself: 2.4e-4)."""
    if HALF and ASM:
        h, r = tl.inline_asm_elementwise(
            """
            {
            .reg .b32 y, t, e, q, m, z, half, a0, a1, a2, a3, b0, b1, b2, b3, b4;
            cvt.rn.f16x2.f32 y, $3, $2;
            mov.b32 z, 0;
            mov.b32 half, 0x38003800;
            mov.b32 a0, 0x3dc23dc2;
            mov.b32 a1, 0xb970b970;
            mov.b32 a2, 0x35363536;
            mov.b32 a3, 0xad6dad6d;
            mov.b32 b0, 0x37ff37ff;
            mov.b32 b1, 0xbbe6bbe6;
            mov.b32 b2, 0x3b063b06;
            mov.b32 b3, 0xb86ab86a;
            mov.b32 b4, 0x312c312c;
            or.b32 t, y, 0x80008000;
            ex2.approx.f16x2 e, t;
            max.f16x2 m, y, z;
            fma.rn.f16x2 q, e, a3, a2;
            fma.rn.f16x2 q, e, q, a1;
            fma.rn.f16x2 q, e, q, a0;
            fma.rn.f16x2 $0, e, q, m;
            fma.rn.f16x2 q, e, b4, b3;
            fma.rn.f16x2 q, e, q, b2;
            fma.rn.f16x2 q, e, q, b1;
            fma.rn.f16x2 q, e, q, b0;
            and.b32 t, y, 0x80008000;
            xor.b32 q, q, t;
            add.f16x2 $1, q, half;
            }
            """,
            "=r,=r,r,r",
            [y],
            dtype=(tl.float16, tl.float16),
            is_pure=True,
            pack=2,
        )
    else:
        h = softplus(y, tl.zeros([y.shape[0]], tl.float32), HALF, ASM, 1)
        if HALF:
            e = tl.exp2(-tl.abs(y))
            q = S0 + e * (S1 + e * (S2 + e * (S3 + e * S4)))
            r = 0.5 + tl.where(y < 0, -q, q)
        else:
            r = 1 - tl.exp2(-h)
    return h, r


@triton.jit
def weight(w, o, i, OUT: tl.constexpr, IN: tl.constexpr, scale: tl.constexpr, DOT: tl.constexpr):
    """Rows `o` and columns `i` of a weight matrix [OUT, IN], as a [len(i), len(o)] operand; zeros outside."""
    there = (o < OUT)[None, :] & (i < IN)[:, None]
    return (tl.load(w + o[None, :] * IN + i[:, None], mask=there, other=0.0).to(tl.float32) * scale).to(DOT)


@triton.jit
def four(w, o1, o2, i1, i2, OUT: tl.constexpr, IN: tl.constexpr, scale: tl.constexpr, DOT: tl.constexpr):
    """A matrix as `weight` reads it, in four pieces: those that the first piece of the input meets, then the second's."""
    return (
        weight(w, o1, i1, OUT, IN, scale, DOT), weight(w, o2, i1, OUT, IN, scale, DOT),
        weight(w, o1, i2, OUT, IN, scale, DOT), weight(w, o2, i2, OUT, IN, scale, DOT),
    )  # fmt: skip


@triton.jit
def pair(w, o, i1, i2, OUT: tl.constexpr, IN: tl.constexpr, scale: tl.constexpr, DOT: tl.constexpr):
    """The same in two, of all rows."""
    return weight(w, o, i1, OUT, IN, scale, DOT), weight(w, o, i2, OUT, IN, scale, DOT)


@triton.jit
def both(xa, xb, wa, wb, P: tl.constexpr):
    """Both pieces of x times those of w."""
    return tl.dot(xb, wb, tl.dot(xa, wa, input_precision=P), input_precision=P)


@triton.jit
def vector(v, i, SIZE: tl.constexpr, scale: tl.constexpr):
    return tl.load(v + i, mask=i < SIZE, other=0.0).to(tl.float32) * scale


@triton.jit
def tile(x, rows, cols, there, WIDTH: tl.constexpr, FULL: tl.constexpr):
    """x[rows, cols] of a [·, WIDTH] matrix. FULL: every column exists, and rows that are not `there` may hold anything."""
    at = x + rows[:, None] * WIDTH + cols[None, :]
    if FULL:
        read = tl.load(at)
    else:
        read = tl.load(at, mask=there[:, None] & (cols < WIDTH)[None, :], other=0.0)
    return read


@triton.jit
def folded(w1, gain, bias, frame, m1, m2, h1, h2, M: tl.constexpr, H: tl.constexpr, DOT: tl.constexpr):
    """Ψ's first layer of a frame, log2 e larger, its gain in the weights: four pieces, and two of the bias."""
    ga, gb = vector(gain + frame * M, m1, M, LOG2E)[:, None], vector(gain + frame * M, m2, M, LOG2E)[:, None]
    w11 = (weight(w1, h1, m1, H, M, 1.0, tl.float32) * ga).to(DOT)
    w12 = (weight(w1, h2, m1, H, M, 1.0, tl.float32) * ga).to(DOT)
    w21 = (weight(w1, h1, m2, H, M, 1.0, tl.float32) * gb).to(DOT)
    w22 = (weight(w1, h2, m2, H, M, 1.0, tl.float32) * gb).to(DOT)
    ba, bb = vector(bias + frame * H, h1, H, LOG2E).to(DOT), vector(bias + frame * H, h2, H, LOG2E).to(DOT)
    return w11, w12, w21, w22, ba, bb


@triton.jit
def hidden(
    basis, own, m1, m2, there, w, M: tl.constexpr, HALF: tl.constexpr, ASM: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Ψ's hidden layer of the Gaussians `own`, in two pieces, by what `folded` gives."""
    FULL: tl.constexpr = m1.shape[0] + m2.shape[0] == M
    DOT: tl.constexpr = w[0].dtype
    xa, xb = tile(basis, own, m1, there, M, FULL).to(DOT), tile(basis, own, m2, there, M, FULL).to(DOT)
    sa = softplus(both(xa, xb, w[0], w[2], P), w[4], HALF, ASM)
    sb = softplus(both(xa, xb, w[1], w[3], P), w[5], HALF, ASM)
    return sa, sb


@triton.jit
def activation(col):
    """Per raw column: Φ's activations are offset + height · sigmoid(slope · (raw + shift)); the quaternion (6..9) is raw."""
    position, scale, opacity, color = col < 3, (col >= 3) & (col < 6), col == 10, col >= 11
    slope = tl.where(position, 2.0, 1.0)
    height = tl.where(position, 2.0, tl.where(scale, MAX_SCALE, tl.where(color, COLOR_HEIGHT, 1.0)))
    offset = tl.where(position, -1.0, tl.where(color, COLOR_OFFSET, 0.0))
    return slope, height, offset, tl.where(opacity, -1.0, 0.0), (col >= 6) & (col < 10)


@triton.jit
def place(col, rows):
    """Where raw column `col` of Gaussian 0 lies in [quats | means | scales | colors | opacities], and the step to the next."""
    quat, scale, opacity = (col >= 6) & (col < 10), (col >= 3) & (col < 6), col == 10
    first = tl.where(col < 3, 4, tl.where(scale, 7, tl.where(quat, 0, tl.where(opacity, 13, 10))))
    within = tl.where(col < 3, col, tl.where(scale, col - 3, tl.where(quat, col - 6, tl.where(opacity, 0, col - 11))))
    return first.to(tl.int64) * rows + within, tl.where(opacity, 1, tl.where(quat, 4, 3))


@triton.jit
def decoded(
    za, zb, p, ca, cb, q, shift, prior, slope, height, offset, linear,
    HALF: tl.constexpr, ASM: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Φ of features in two pieces, [TILE,16] by raw column: both layers, the prior, and the activations (see `activation`)."""
    sa = softplus(both(za, zb, p[0], p[2], P), ca, HALF, ASM)
    sb = softplus(both(za, zb, p[1], p[3], P), cb, HALF, ASM)
    raw = both(sa, sb, q[0], q[1], P) + shift[None, :] + prior
    done = offset[None, :] + height[None, :] / (1 + tl.exp2(-raw * (slope * LOG2E)[None, :]))
    return tl.where(linear[None, :], raw, done)
