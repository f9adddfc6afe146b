"""Gradients of cross-attention: layer by layer from the states that the forward pass left.

Probabilities are computed again, tile by tile (FlashAttention-2, arXiv 2307.08691). Of an attention layer with p = softmax(s),
s_t = n·k_t + score_t, and d, the gradient of Σ_t p_t v_t (the same for all heads, as their sum is what x gets):

    d_s = p ⊙ (g − Σ_t p_t g_t), g_t = d·v_t;   d_n = Σ_t d_s k_t;   d_k_t = Σ d_s n,  d_score_t = Σ d_s,  d_v_t = Σ p_t d.

One kernel runs over rows: it gives d_n and, per row and head, log2 Σ_t 2^s and Σ_t p_t g_t. With these another runs over tokens
and sums the last three over the rows, in parts, which torch adds in the same order every time: gradients are
deterministic. The networks between are local fusion's Ψ on LN(x) with a gain of one.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fused.cross_attention import aligned
from kernels.fused.local_fusion import parts, per_identity, precision
from kernels.fused.local_fusion_backward import back_through_psi
from kernels.fused.softplus_net import LOG2E
from kernels.reference import Layers

LAUNCH = {"num_warps": 4, "num_stages": 2}
TILE = 64
CHUNK = {torch.float32: 32, torch.float16: 64}
"""Tokens at a time, by storage; 16 bits are all the same."""
RESIDENT = 4
EPS = 1e-5


@triton.jit
def _tokens(keys, values, score, t, d, KT, ST, T: tl.constexpr, D: tl.constexpr):
    """Keys and values [len(t), len(d)], zero outside, and the scores in units of log2, −∞ behind the last token."""
    at = t[:, None] * KT + d[None, :]
    inside = (t < T)[:, None] & (d < D)[None, :]
    k, v = tl.load(keys + at, mask=inside, other=0.0), tl.load(values + at, mask=inside, other=0.0)
    return k, v, tl.load(score + t * ST, mask=t < T, other=float("-inf")) * LOG2E


@triton.jit
def _products(n, d_x, k, v, base, P: tl.constexpr):
    """s (in units of log2) and g, both [rows, tokens]."""
    s = tl.dot(n, tl.trans(k), input_precision=P) * LOG2E + base[None, :]
    return s, tl.dot(d_x, tl.trans(v), input_precision=P)


@triton.jit
def _rows(
    n, d_x, keys, values, score, d_n, ends, means, N, PER, KF, KA, KT, SF, SA, ST,
    A: tl.constexpr, T: tl.constexpr, CHUNK: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, TILE: tl.constexpr,
    P: tl.constexpr,
):  # fmt: skip
    """d_n [F,N,D]; ends = log2 Σ_t 2^s and means = Σ_t p_t g_t [F,A,N]."""
    frame = tl.program_id(1).to(tl.int64)
    rows, d, t = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.arange(0, D0), tl.arange(0, CHUNK)
    there = rows < N
    inside = there[:, None] & (d < D)[None, :]
    x = tl.load(n + ((frame // PER) * N + rows)[:, None] * D + d[None, :], mask=inside, other=0.0)
    d_y = tl.load(d_x + (frame * N + rows)[:, None] * D + d[None, :], mask=inside, other=0.0)
    total = tl.zeros([TILE, D0], tl.float32)
    for a in range(A):
        at, base = frame * KF + a * KA, score + frame * SF + a * SA
        to = (frame * A + a) * N + rows
        if T <= CHUNK:
            k, v, b = _tokens(keys + at, values + at, base, t, d, KT, ST, T, D)
            s, g = _products(x, d_y, k, v, b, P)
            top = tl.max(s, 1)
            p = tl.exp2(s - top[:, None])
            weight = tl.sum(p, 1)
            p /= weight[:, None]
            mean = tl.sum(p * g, 1)
            tl.store(ends + to, top + tl.log2(weight), mask=there)
            tl.store(means + to, mean, mask=there)
            total = tl.dot((p * (g - mean[:, None])).to(k.dtype), k, total, input_precision=P)
        else:
            top = tl.full([TILE], float("-inf"), tl.float32)
            weight, mean = tl.zeros([TILE], tl.float32), tl.zeros([TILE], tl.float32)
            for first in range(0, T, CHUNK):
                k, v, b = _tokens(keys + at, values + at, base, first + t, d, KT, ST, T, D)
                s, g = _products(x, d_y, k, v, b, P)
                higher = tl.maximum(top, tl.max(s, 1))
                fade, top = tl.exp2(top - higher), higher
                p = tl.exp2(s - top[:, None])
                weight = weight * fade + tl.sum(p, 1)
                mean = mean * fade + tl.sum(p * g, 1)
            mean /= weight
            end = top + tl.log2(weight)
            tl.store(ends + to, end, mask=there)
            tl.store(means + to, mean, mask=there)
            for first in range(0, T, CHUNK):
                k, v, b = _tokens(keys + at, values + at, base, first + t, d, KT, ST, T, D)
                s, g = _products(x, d_y, k, v, b, P)
                p = tl.exp2(s - end[:, None])
                total = tl.dot((p * (g - mean[:, None])).to(k.dtype), k, total, input_precision=P)
    tl.store(d_n + (frame * N + rows)[:, None] * D + d[None, :], total, mask=inside)


@triton.jit
def _columns(
    n, d_x, keys, values, score, ends, means, sums, N, PER, KF, KA, KT, SF, SA, ST,
    A: tl.constexpr, T: tl.constexpr, CHUNK: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, TILE: tl.constexpr,
    P: tl.constexpr,
):  # fmt: skip
    """sums [F,parts,A,T,2D+1]: gradients of keys, values and score from a part of the rows."""
    part, parts = tl.program_id(1), tl.num_programs(1)
    a, frame = tl.program_id(2) % A, (tl.program_id(2) // A).to(tl.int64)
    t, d = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK), tl.arange(0, D0)
    at = frame * KF + a * KA
    k, v, base = _tokens(keys + at, values + at, score + frame * SF + a * SA, t, d, KT, ST, T, D)
    d_k, d_v, d_s = tl.zeros([CHUNK, D0], tl.float32), tl.zeros([CHUNK, D0], tl.float32), tl.zeros([CHUNK], tl.float32)
    for job in range(part, tl.cdiv(N, TILE), parts):
        rows = job * TILE + tl.arange(0, TILE)
        there = rows < N
        inside = there[:, None] & (d < D)[None, :]
        x = tl.load(n + ((frame // PER) * N + rows)[:, None] * D + d[None, :], mask=inside, other=0.0)
        d_y = tl.load(d_x + (frame * N + rows)[:, None] * D + d[None, :], mask=inside, other=0.0)
        to = (frame * A + a) * N + rows
        end = tl.load(ends + to, mask=there, other=float("inf"))  # no weight where no row is
        mean = tl.load(means + to, mask=there, other=0.0)
        s = tl.dot(k, tl.trans(x), input_precision=P) * LOG2E + base[:, None]
        g = tl.dot(v, tl.trans(d_y), input_precision=P)
        p = tl.exp2(s - end[None, :])
        slope = p * (g - mean[None, :])
        d_s += tl.sum(slope, 1)
        d_k = tl.dot(slope.to(x.dtype), x, d_k, input_precision=P)
        d_v = tl.dot(p.to(x.dtype), d_y, d_v, input_precision=P)
    to = sums + (((frame * parts + part) * A + a) * T + t) * (2 * D + 1)
    inside = (t < T)[:, None] & (d < D)[None, :]
    tl.store(to[:, None] + d[None, :], d_k, mask=inside)
    tl.store(to[:, None] + D + d[None, :], d_v, mask=inside)
    tl.store(to + 2 * D, d_s, mask=t < T)


def back_through_attention(n, d_x, keys, score, values):
    """One layer. n [B,N,D], d_x [F,N,D], keys [F,A,T,D] … → gradients of n per frame, keys, score and values."""
    (frames, A, T, D), (people, count, _) = keys.shape, n.shape
    chunk = min(CHUNK[torch.float32 if n.dtype == torch.float32 else torch.float16], max(16, triton.next_power_of_2(T)))
    cuts, device = triton.cdiv(T, chunk), n.device
    keys, values = aligned(keys.to(n.dtype), values.to(n.dtype))
    d_n = torch.empty(frames, count, D, device=device, dtype=n.dtype)
    ends, means = torch.empty(frames, A, count, device=device), torch.empty(frames, A, count, device=device)
    pieces = parts(count, frames * A * cuts, TILE, RESIDENT, device)
    sums = torch.empty(frames, pieces, A, T, 2 * D + 1, device=device)
    strides = (*keys.stride()[:3], *score.stride())
    how = {"A": A, "T": T, "CHUNK": chunk, "D": D, "D0": max(16, triton.next_power_of_2(D)), "TILE": TILE,
           "P": precision(n.dtype, device)["P"], **LAUNCH}  # fmt: skip
    _rows[(triton.cdiv(count, TILE), frames)](
        n, d_x, keys, values, score, d_n, ends, means, count, frames // people, *strides, **how
    )
    _columns[(cuts, pieces, frames * A)](
        n, d_x, keys, values, score, ends, means, sums, count, frames // people, *strides, **how
    )
    d_keys, d_values, d_score = sums.sum(1).split([D, D, 1], -1)
    return d_n, d_keys, d_score[..., 0], d_values


def back_through_layers(x0, keys, score, values, layers: Layers, states, d_delta):
    """→ gradients of x0, keys, score, values and, as a list, of the layers' weights. d_delta: of δf per frame."""
    o, w1, b1, w2, _, out, _ = layers
    frames, ones = len(keys), torch.ones(len(keys), x0.shape[-1], device=x0.device)
    flat = d_delta.flatten(0, 1)
    d_out, d_c = flat.T @ states[-1].flatten(0, 1), _total(flat)
    d_x = d_delta @ out.to(d_delta.dtype)
    d_tokens, d_weights = [], []
    for l in reversed(range(len(o))):  # noqa: E741
        x = states[2 * l]
        n, back = _normalised(x)
        d_n, _, d_b1, d_w1, d_w2, d_b2 = back_through_psi(n, ones, b1[l].expand(frames, -1), w1[l], w2[l], d_x, None)
        d_x = d_x + back(d_n)
        d_o = _total(d_x.flatten(0, 1))
        x = states[2 * l - 1] if l else x0.contiguous()
        n, back = _normalised(x)
        d_n, *d_token = back_through_attention(n, d_x, keys[:, l], score[:, l], values[:, l])
        d_x = per_identity(d_x, len(x)) + back(per_identity(d_n, len(x)))
        d_tokens.append(d_token)
        d_weights.append((d_o, d_w1, d_b1.sum(0), d_w2, d_b2))
    like = lambda d, t: d.to(t.dtype)  # noqa: E731
    d_layers = [*(torch.stack(d[::-1]) for d in zip(*d_weights, strict=True)), d_out, d_c]
    d_tokens = (torch.stack(d[::-1], 1) for d in zip(*d_tokens, strict=True))
    return (
        d_x, *(like(d, t) for d, t in zip(d_tokens, (keys, score, values), strict=True)),
        [like(d, t) for d, t in zip(d_layers, layers, strict=True)],
    )  # fmt: skip


def _normalised(x: Tensor):
    """LN(x) and the function that takes its gradient to x's."""
    shape = x.shape[-1:]
    n, mean, scale = torch.native_layer_norm(x, shape, None, None, EPS)

    def back(d_n: Tensor) -> Tensor:
        return torch.ops.aten.native_layer_norm_backward(d_n, x, shape, mean, scale, None, None, [True, False, False])[0]

    return n, back


def _total(rows: Tensor) -> Tensor:
    return rows.sum(0, dtype=torch.float32)
