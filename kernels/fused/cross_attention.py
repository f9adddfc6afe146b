"""Gaussians attend to few tokens, then Φ, in one launch for all layers (twin: `reference.cross_attention`; PAPER §4).

A tile of Gaussians stays in registers from x0 to its attributes: a Gaussian costs its bytes (x0 and feature in, attributes
out) whatever the layers, heads and tokens; nothing of size N·T or N·H is ever in memory. Types, pieces of widths and
persistent programs are those of local fusion. Keys, values and the layers' weights are small and come from the cache for every
tile; Φ and the last projection stay. LN(x) is made log2 e larger, so that softmax and softplus are powers of two; what
softplus then lacks, ln 2, comes after its product. More tokens than ALONE pass in chunks (online softmax).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import layout
from kernels.fused.cross_attention_backward import back_through_layers
from kernels.fused.launch import EPS, aligned, launch, parts, per_identity, precision, shared, widths
from kernels.fused.local_fusion_backward import back_through_phi
from kernels.fused.softplus_net import (
    LN2,
    LOG2E,
    RAW,
    activation,
    both,
    decoded,
    four,
    pair,
    place,
    softplus,
    tile,
    vector,
)
from kernels.layout import Attributes, Layers, Phi

TILE = 64
WAYS = {
    torch.float32: [[{"TILE": TILE, "num_warps": 4, "num_stages": 1}]],
    torch.float16: [[{"TILE": TILE, "num_warps": 4, "num_stages": 1, "maxnreg": 168}]],
}
RESIDENT = {torch.float32: 2, torch.float16: 3}
"""Programs per processor that these settings leave registers for; by storage, 16 bits are all the same."""
ALONE, CHUNK = 64, 32
"""Tokens that pass at once, and at a time where there are more."""


@triton.jit
def _normalised(xa, xb, D: tl.constexpr, DOT: tl.constexpr):
    """LN(x) · log2 e of both pieces."""
    mean = (tl.sum(xa, 1) + tl.sum(xb, 1)) / D
    xa, xb = xa - mean[:, None], xb - mean[:, None]
    scale = LOG2E * tl.rsqrt((tl.sum(xa * xa, 1) + tl.sum(xb * xb, 1)) / D + EPS)
    return (xa * scale[:, None]).to(DOT), (xb * scale[:, None]).to(DOT)


@triton.jit
def _operand(x, rows, cols, step_r, step_c, there):
    return tl.load(x + rows[:, None] * step_r + cols[None, :] * step_c, mask=there, other=0.0)


@triton.jit
def _tokens(keys, values, t, d1, d2, KT, T: tl.constexpr):
    """Keys [D, tokens] and values [tokens, D] of a head, each in two pieces; zeros behind the last token."""
    row, column = (t < T)[None, :], (t < T)[:, None]
    return (
        _operand(keys, d1, t, 1, KT, row), _operand(keys, d2, t, 1, KT, row),
        _operand(values, t, d1, KT, 1, column), _operand(values, t, d2, KT, 1, column),
    )  # fmt: skip


@triton.jit
def _network(w, v, d1, d2, h1, h2, D: tl.constexpr, H: tl.constexpr):
    """W1 as [D, H] and W2 as [H, D], each in four pieces."""
    a, b = (h1 < H)[None, :], (h2 < H)[None, :]
    return (
        _operand(w, d1, h1, 1, D, a), _operand(w, d1, h2, 1, D, b), _operand(w, d2, h1, 1, D, a), _operand(w, d2, h2, 1, D, b),
        _operand(v, h1, d1, 1, H, (h1 < H)[:, None]), _operand(v, h1, d2, 1, H, (h1 < H)[:, None]),
        _operand(v, h2, d1, 1, H, (h2 < H)[:, None]), _operand(v, h2, d2, 1, H, (h2 < H)[:, None]),
    )  # fmt: skip


@triton.jit
def _logits(na, nb, pieces, score, t, ST, T: tl.constexpr, P: tl.constexpr):
    """In units of log2, −∞ behind the last token."""
    return (
        both(na, nb, pieces[0], pieces[1], P)
        + (tl.load(score + t * ST, mask=t < T, other=float("-inf")) * LOG2E)[None, :]
    )


@triton.jit
def _head(na, nb, xa, xb, pieces, score, ST, T: tl.constexpr, CHUNK: tl.constexpr, DOT: tl.constexpr, P: tl.constexpr):
    """x + softmax(n · keys + score) values, where all tokens are one chunk."""
    s = _logits(na, nb, pieces, score, tl.arange(0, CHUNK), ST, T, P)
    p = tl.exp2(s - tl.max(s, 1)[:, None])
    p = (p * (1 / tl.sum(p, 1))[:, None]).to(DOT)
    return tl.dot(p, pieces[2], xa, input_precision=P), tl.dot(p, pieces[3], xb, input_precision=P)


@triton.jit
def _long_head(
    na, nb, xa, xb, keys, values, score, d1, d2, KT, ST, T: tl.constexpr, CHUNK: tl.constexpr, DOT: tl.constexpr,
    P: tl.constexpr,
):  # fmt: skip
    """The same, chunk by chunk."""
    top = tl.full([xa.shape[0]], float("-inf"), tl.float32)
    total = tl.zeros([xa.shape[0]], tl.float32)
    a, b = tl.zeros_like(xa), tl.zeros_like(xb)
    for first in range(0, T, CHUNK):
        t = first + tl.arange(0, CHUNK)
        pieces = _tokens(keys, values, t, d1, d2, KT, T)
        s = _logits(na, nb, pieces, score, t, ST, T, P)
        higher = tl.maximum(top, tl.max(s, 1))
        fade, top = tl.exp2(top - higher), higher
        p = tl.exp2(s - top[:, None])
        total = total * fade + tl.sum(p, 1)
        p = p.to(DOT)
        a = tl.dot(p, pieces[2], a * fade[:, None], input_precision=P)
        b = tl.dot(p, pieces[3], b * fade[:, None], input_precision=P)
    return xa + a / total[:, None], xb + b / total[:, None]


@triton.jit
def _layer_network(
    xa, xb, pieces, b1, b2, d1, d2, h1, h2, D: tl.constexpr, H: tl.constexpr, DOT: tl.constexpr, HALF: tl.constexpr,
    ASM: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """x + w2 softplus(w1 LN(x) + b1) + b2."""
    na, nb = _normalised(xa, xb, D, DOT)
    sa = softplus(both(na, nb, pieces[0], pieces[2], P), vector(b1, h1, H, LOG2E), HALF, ASM)
    sb = softplus(both(na, nb, pieces[1], pieces[3], P), vector(b1, h2, H, LOG2E), HALF, ASM)
    xa += both(sa, sb, pieces[4], pieces[6], P) * LN2 + vector(b2, d1, D, 1.0)[None, :]
    xb += both(sa, sb, pieces[5], pieces[7], P) * LN2 + vector(b2, d2, D, 1.0)[None, :]
    return xa, xb


@triton.jit
def _keep(states, index, xa, xb, frame, rows, there, d1, d2, N, D: tl.constexpr):
    to = states + ((index * tl.num_programs(0) + frame).to(tl.int64) * N + rows)[:, None] * D
    tl.store(to + d1[None, :], xa, mask=there[:, None])
    tl.store(to + d2[None, :], xb, mask=there[:, None])


@triton.jit
def _forward(
    x0, keys, score, values, f, o, w1, b1, w2, b2, out_w, out_c, u1, c1, u2, c2, prior, out, states, delta,
    N, PER, PRIOR_STEP, KF, KL, KA, KT, SF, SL, SA, ST, L,
    A: tl.constexpr, T: tl.constexpr, CHUNK: tl.constexpr,
    H: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr,
    G: tl.constexpr, G1: tl.constexpr, G2: tl.constexpr,
    EMIT: tl.constexpr, TILE: tl.constexpr, HALF: tl.constexpr, ASM: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """EMIT: x after every half of a layer and δf are written. K…, S…: strides of keys and values, and of score."""
    DOT: tl.constexpr = tl.float16 if HALF else tl.float32
    d1, d2 = tl.arange(0, D1), D1 + tl.arange(0, D2)
    g1, g2, col = tl.arange(0, G1), G1 + tl.arange(0, G2), tl.arange(0, 16)
    h1, h2 = tl.arange(0, H1), H1 + tl.arange(0, H2)
    last = four(out_w, d1, d2, d1, d2, D, D, 1.0, DOT)
    p, q = four(u1, g1, g2, d1, d2, G, D, LOG2E, DOT), pair(u2, col, g1, g2, RAW, G, LN2, DOT)
    slope, height, offset, shift, linear = activation(col)
    shift += vector(c2, col, RAW, 1.0)
    first, step = place(col, tl.num_programs(0) * N)
    frame, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    keys += frame.to(tl.int64) * KF
    values += frame.to(tl.int64) * KF
    score += frame.to(tl.int64) * SF

    for job in range(part, tl.cdiv(N, TILE), parts):
        rows = job * TILE + tl.arange(0, TILE)
        there = rows < N
        known = tl.minimum(rows, N - 1)
        own = (frame // PER).to(tl.int64) * N + known
        xa, xb = tile(x0, own, d1, there, D, True).to(tl.float32), tile(x0, own, d2, there, D, True).to(tl.float32)
        for l in range(L):  # noqa: E741
            na, nb = _normalised(xa, xb, D, DOT)
            xa, xb = xa + vector(o + l * D, d1, D, 1.0)[None, :], xb + vector(o + l * D, d2, D, 1.0)[None, :]
            for a in tl.static_range(A):
                k, v, s = keys + l * KL + a * KA, values + l * KL + a * KA, score + l * SL + a * SA
                if T <= CHUNK:
                    pieces = _tokens(k, v, tl.arange(0, CHUNK), d1, d2, KT, T)
                    xa, xb = _head(na, nb, xa, xb, pieces, s, ST, T, CHUNK, DOT, P)
                else:
                    xa, xb = _long_head(na, nb, xa, xb, k, v, s, d1, d2, KT, ST, T, CHUNK, DOT, P)
            if EMIT:
                _keep(states, 2 * l, xa, xb, frame, rows, there, d1, d2, N, D)
            pieces = _network(w1 + l * H * D, w2 + l * H * D, d1, d2, h1, h2, D, H)
            xa, xb = _layer_network(xa, xb, pieces, b1 + l * H, b2 + l * D, d1, d2, h1, h2, D, H, DOT, HALF, ASM, P)
            if EMIT:
                _keep(states, 2 * l + 1, xa, xb, frame, rows, there, d1, d2, N, D)

        xa, xb = xa.to(DOT), xb.to(DOT)
        za = both(xa, xb, last[0], last[2], P) + vector(out_c, d1, D, 1.0)[None, :]
        zb = both(xa, xb, last[1], last[3], P) + vector(out_c, d2, D, 1.0)[None, :]
        if EMIT:
            _keep(delta, 0, za, zb, frame, rows, there, d1, d2, N, D)
        za = (za + tile(f, own, d1, there, D, True).to(tl.float32)).to(DOT)
        zb = (zb + tile(f, own, d2, there, D, True).to(tl.float32)).to(DOT)
        at = (frame // PER).to(tl.int64) * PRIOR_STEP + known * RAW
        start = tl.load(prior + at[:, None] + col[None, :], mask=(col < RAW)[None, :], other=0.0)
        ca, cb = vector(c1, g1, G, LOG2E), vector(c1, g2, G, LOG2E)
        done = decoded(za, zb, p, ca, cb, q, shift, start, slope, height, offset, linear, HALF, ASM, P)
        to = first[None, :] + (frame.to(tl.int64) * N + rows)[:, None] * step[None, :]
        tl.store(out + to, done, mask=there[:, None] & (col < RAW)[None, :])


def chunk(tokens: int) -> int:
    return max(16, triton.next_power_of_2(tokens)) if tokens <= ALONE else CHUNK


def operands(stored: torch.dtype, *tensors: Tensor) -> list[Tensor]:
    """In the type they are multiplied in, which is theirs already where whoever prepared them knew."""
    return [t.to(torch.float32 if stored == torch.float32 else torch.float16) for t in tensors]


def run(x0, keys, score, values, f, layers: Layers, phi: Phi, prior, emit: bool):
    """→ attributes, δf and the states [2L,F,N,D] after every attention and every network (both None unless `emit`)."""
    (people, n, D), (frames, L, A, T, _) = x0.shape, keys.shape
    sizes = widths(H=layers.w1.shape[1], D=D, G=len(phi.b1))
    if sizes["D1"] + sizes["D2"] != D:
        raise ValueError(
            f"cross-attention takes states of a width that is the sum of two powers of two from 16 on, not {D}"
        )
    if f.dtype != x0.dtype:
        raise ValueError(f"x0 is stored in {x0.dtype}, f in {f.dtype}")
    prior = shared(prior)
    out = torch.empty(frames * n * layout.RAW, device=f.device)
    states = torch.empty(2 * L, frames, n, D, device=f.device, dtype=f.dtype) if emit else None
    delta = torch.empty(frames, n, D, device=f.device, dtype=f.dtype) if emit else None
    keys, values = aligned(*operands(f.dtype, keys, values))
    w1, w2 = operands(f.dtype, layers.w1, layers.w2)
    weights = (t.contiguous() for t in (*layers._replace(w1=w1, w2=w2), *phi))
    stored = torch.float32 if f.dtype == torch.float32 else torch.float16
    launch(
        _forward, (frames, parts(n, frames, TILE, RESIDENT[stored])), WAYS[stored],
        x0.contiguous(), keys, score, values, f.contiguous(), *weights, prior, out, states, delta,
        n, frames // people, 0 if len(prior) == 1 else n * layout.RAW, *keys.stride()[:4], *score.stride(), L,
        A=A, T=T, CHUNK=chunk(T), **sizes, EMIT=emit, **precision(f.dtype),
    )  # fmt: skip
    quats, means, scales, colors, opacities = out.split([frames * n * k for k in (4, 3, 3, 3, 1)])
    rows = lambda t: t.view(frames, n, -1)  # noqa: E731
    attributes = Attributes(rows(means), rows(quats), rows(scales), opacities.view(frames, n), rows(colors))
    return attributes, delta, states


class _CrossAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x0, keys, score, values, f, *weights):
        layers, phi, prior = Layers(*weights[:7]), Phi(*weights[7:11]), weights[11]
        attributes, delta, states = run(x0, keys, score, values, f, layers, phi, prior, emit=True)
        ctx.save_for_backward(x0, keys, score, values, f, *weights, delta, states, *attributes)
        return *attributes, delta

    @staticmethod
    def backward(ctx, *d_out):
        x0, keys, score, values, f, *weights = ctx.saved_tensors[:17]
        delta, states, *attributes = ctx.saved_tensors[17:]
        layers, phi, prior = Layers(*weights[:7]), Phi(*weights[7:11]), weights[11]
        d_z, d_prior, *d_phi = back_through_phi(f, delta, phi, attributes, d_out[:5], ctx.needs_input_grad[16])
        d_x0, *d_tokens, d_layers = back_through_layers(x0, keys, score, values, layers, states, d_z, d_out[5])
        if d_prior is not None:
            d_prior = per_identity(d_prior, len(prior))
        return d_x0, *d_tokens, per_identity(d_z, len(f)), *d_layers, *d_phi, d_prior


def cross_attention(x0, keys, score, values, f, layers: Layers, phi: Phi, prior) -> tuple[Attributes, Tensor | None]:
    """`reference.cross_attention` in one launch. δf is None unless gradients are recorded: inference does not write it."""
    if torch.is_grad_enabled():
        *attributes, delta = _CrossAttention.apply(x0, keys, score, values, f, *layers, *phi, prior)
        return Attributes(*attributes), delta
    return run(x0, keys, score, values, f, layers, phi, prior, emit=False)[:2]
