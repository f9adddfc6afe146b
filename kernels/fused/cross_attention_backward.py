"""Gradients of cross-attention: layer by layer from the states that the forward pass left, two launches each.

Probabilities are computed again, tile by tile (FlashAttention-2, arXiv 2307.08691). Of an attention layer with p = softmax(s),
s_t = n·k_t + score_t, n = LN(x), and d, the gradient of Σ_t p_t v_t (the same for all heads, as their sum is what x gets):

    d_s = p ⊙ (g − Σ_t p_t g_t), g_t = d·v_t;   d_n = Σ_t d_s k_t;   d_k_t = Σ d_s n,  d_score_t = Σ d_s,  d_v_t = Σ p_t d.

As in local fusion's backward, whose Ψ the networks between are, what is summed over the Gaussians has rows of its own in a
program's registers, here the tokens of all heads, and n has a column of ones past its last. A program has whole rows of x, so it
normalises them and takes the gradient through LN to x, in place. Probabilities sum to one: what the bias o gets is what a head's
values get together. More tokens than TOGETHER take two launches, over rows and over tokens, of which the first leaves, per row and
head, log2 Σ_t 2^s and Σ_t p_t g_t to the second. Sums are always added in the same order: gradients are deterministic.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.fused.gradients import (
    Sums,
    add,
    first_layer,
    hidden_layer,
    in_pieces,
    packed,
    padded,
    read_rows,
    store_sums,
    strided,
    units,
    unpack,
    with_ones,
)  # fmt: skip
from kernels.fused.launch import EPS, aligned, launch, per_identity, precision
from kernels.fused.softplus_net import LN2, LOG2E
from kernels.layout import Layers

TOGETHER = 128
"""Tokens of all heads, their number and the heads' rounded up to powers of two, that pass at once."""
WAYS = [[{"TILE": tile, "num_warps": 4, "num_stages": 2}] for tile in (64, 32)]
CHUNK = {torch.float32: 32, torch.float16: 64}
"""Of more tokens than those, by storage; 16 bits are all the same."""


@triton.jit
def _normalised(x, d0, D: tl.constexpr):
    """LN(x) with a column of ones past its last, and 1/σ per row."""
    x = x.to(tl.float32)
    x = tl.where((d0 < D)[None, :], x - (tl.sum(x, 1) / D)[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(x * x, 1) / D + EPS)
    return with_ones(x * scale[:, None], d0, D), scale


@triton.jit
def _through(n, scale, d_n, D: tl.constexpr):
    """Gradient of x from that of LN(x), which is zero past the last column."""
    return (d_n - n * (tl.sum(n * d_n, 1) / D)[:, None] - (tl.sum(d_n, 1) / D)[:, None]) * scale[:, None]


@triton.jit
def _exp2(x, ASM: tl.constexpr):
    if ASM:  # tl.exp2 minds denormal numbers: three instructions more
        y = tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=r,r", [x], dtype=tl.float32, is_pure=True, pack=1)
    else:
        y = tl.exp2(x)
    return y


@triton.jit
def _projection(
    state, d_z, d_more, out, d_x, sums, N, D: tl.constexpr, D0: tl.constexpr, MORE: tl.constexpr,
    SUMS: tl.constexpr, TILE: tl.constexpr, HALF: tl.constexpr, ASM: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """MORE: δ's gradient is d_z + d_more. sums [D,D+4]: of `out` and, after its columns, of c."""
    DOT: tl.constexpr = state.dtype.element_ty
    frame, part, parts = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    d0 = tl.arange(0, D0)
    w = strided(out, d0, d0, D, D, D, 1).to(DOT)
    a = tl.zeros([D0, D0], tl.float32)
    for job in range(part, tl.cdiv(N, TILE), parts):
        rows = job * TILE + tl.arange(0, TILE)
        d = read_rows(d_z, frame * N, rows, d0, N, D)
        if MORE:
            d += read_rows(d_more, frame * N, rows, d0, N, D)
        x = read_rows(state, frame * N, rows, d0, N, D, True)
        a = tl.dot(tl.trans(d), x, a, input_precision=P)
        to, there = d_x + (frame * N + rows)[:, None] * D + d0[None, :], (rows < N)[:, None] & (d0 < D)[None, :]
        tl.store(to, tl.dot(d, w, input_precision=P), mask=there)
    to = sums + (frame * parts + part) * SUMS + d0[:, None] * (D + 4) + d0[None, :]
    tl.store(to, a, mask=(d0 < D)[:, None] & (d0 < D + 4)[None, :])


@triton.jit
def _network(
    state, w1, b1, w2, d_x, before, sums, N, D: tl.constexpr, D0: tl.constexpr, H: tl.constexpr,
    FIRST, UNITS: tl.constexpr, ADD: tl.constexpr, SUMS: tl.constexpr, TILE: tl.constexpr,
    HALF: tl.constexpr, ASM: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """x + w2 softplus(w1 LN(x) + b1) + b2. before [F,N,D]: the gradient before it, in d_x's memory if all units pass at once."""
    DOT: tl.constexpr = state.dtype.element_ty
    frame, part, parts = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    d0, h0 = tl.arange(0, D0), units(FIRST, UNITS)
    p = first_layer(strided(w1, h0, d0, H, D, D, 1), b1, h0, d0, H, D, DOT)
    q = (strided(w2, h0, d0, H, D, 1, H) * LN2).to(DOT)
    a, b = tl.zeros([UNITS, D0], tl.float32), tl.zeros([UNITS, D0], tl.float32)

    rows = part * TILE + tl.arange(0, TILE)
    x, d = read_rows(state, frame * N, rows, d0, N, D), read_rows(d_x, frame * N, rows, d0, N, D)
    for _ in range(part, tl.cdiv(N, TILE), parts):
        there, this = rows < N, frame * N + rows
        rows += parts * TILE
        next_x, next_d = read_rows(state, frame * N, rows, d0, N, D), read_rows(d_x, frame * N, rows, d0, N, D)
        n, scale = _normalised(x, d0, D)
        n = n.to(DOT)
        h, r = hidden_layer(p, n, HALF, ASM, P)
        b = tl.dot(h, d, b, input_precision=P)
        d_y = tl.dot(q, tl.trans(d), input_precision=P).to(DOT) * r
        a = tl.dot(d_y, n, a, input_precision=P)
        d_n = tl.where((d0 < D)[None, :], tl.dot(tl.trans(d_y), p, input_precision=P), 0.0)
        d_n = _through(n, scale, d_n, D)
        add(before, this, there, d0, d_n if ADD else d + d_n, D, ADD)
        x, d = next_x, next_d
    store_sums(sums + (frame * parts + part) * SUMS, h0, d0, d0, a, b, H, D, D)


@triton.jit
def _tokens(keys, values, score, at, base, inside, d0, D: tl.constexpr, DOT: tl.constexpr):
    """Keys, log2 e larger, values, and scores in units of log2: zero outside."""
    at, known = at[:, None] + d0[None, :], inside[:, None] & (d0 < D)[None, :]
    k = (tl.load(keys + at, mask=known, other=0.0).to(tl.float32) * LOG2E).to(DOT)
    v = tl.load(values + at, mask=known, other=0.0).to(DOT)
    return k, v, tl.load(score + base, mask=inside, other=0.0).to(tl.float32) * LOG2E


@triton.jit
def _token_sums(sums, token, there, d0, a, b, D: tl.constexpr):
    """[A,T,2D+4]: of keys, score (and three idle) and values, of which `a` has the first two."""
    to, there = sums + token[:, None] * (2 * D + 4) + d0[None, :], there[:, None]
    tl.store(to, a, mask=there & (d0 < D + 4)[None, :])
    tl.store(to + D + 4, b, mask=there & (d0 < D)[None, :])


@triton.jit
def _attention(
    state, keys, values, score, d_x, sums, N, PER, KF, KA, KT, SF, SA, ST,
    A: tl.constexpr, A0: tl.constexpr, T: tl.constexpr, T0: tl.constexpr, D: tl.constexpr, D0: tl.constexpr,
    SUMS: tl.constexpr, TILE: tl.constexpr, HALF: tl.constexpr, ASM: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """All tokens at once, A0 heads of T0: d_x becomes the gradient before the attention. K…, S…: strides of keys and values,
    and of score."""
    DOT: tl.constexpr = state.dtype.element_ty
    frame, part, parts = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    own, this = (frame // PER) * N, frame * N
    token, d0 = tl.arange(0, A0 * T0), tl.arange(0, D0)
    head, t = token // T0, token % T0
    known = (head < A) & (t < T)
    k, v, base = _tokens(
        keys, values, score, frame * KF + head * KA + t * KT, frame * SF + head * SA + t * ST, known, d0, D, DOT
    )
    base = tl.where(t < T, base, float("-inf"))
    a, b = tl.zeros([A0 * T0, D0], tl.float32), tl.zeros([A0 * T0, D0], tl.float32)

    rows = part * TILE + tl.arange(0, TILE)
    x, d = read_rows(state, own, rows, d0, N, D), read_rows(d_x, this, rows, d0, N, D)
    for _ in range(part, tl.cdiv(N, TILE), parts):
        to, there = d_x + (this + rows)[:, None] * D + d0[None, :], (rows < N)[:, None] & (d0 < D)[None, :]
        rows += parts * TILE
        next_x, next_d = read_rows(state, own, rows, d0, N, D), read_rows(d_x, this, rows, d0, N, D)
        n, scale = _normalised(x, d0, D)
        n = n.to(DOT)
        s = tl.dot(k, tl.trans(n), input_precision=P) + base[:, None]
        s = tl.reshape(s, [A0, T0, TILE])
        g = tl.reshape(tl.dot(v, tl.trans(d), input_precision=P), [A0, T0, TILE])
        p = _exp2(s - tl.max(s, 1)[:, None, :], ASM)
        weight = tl.rsqrt(tl.sum(p, 1))  # squared, a division without a dozen instructions
        p *= (weight * weight)[:, None, :]
        d_s = tl.reshape(p * (g - tl.sum(p * g, 1)[:, None, :]), [A0 * T0, TILE]).to(DOT)
        b = tl.dot(tl.reshape(p, [A0 * T0, TILE]).to(DOT), d, b, input_precision=P)
        a = tl.dot(d_s, n, a, input_precision=P)
        d_n = tl.dot(tl.trans(d_s), k, input_precision=P) * LN2
        tl.store(to, d + _through(n, scale, d_n, D), mask=there)
        x, d = next_x, next_d
    _token_sums(sums + (frame * parts + part) * SUMS, head * T + t, known, d0, a, b, D)


@triton.jit
def _by_rows(
    state, keys, values, score, d_x, before, ends, means, N, PER, KF, KA, KT, SF, SA, ST,
    A: tl.constexpr, T: tl.constexpr, CHUNK: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, TILE: tl.constexpr,
    P: tl.constexpr,
):  # fmt: skip
    """before [F,N,D], the gradient before the attention; ends = log2 Σ_t 2^s and means = Σ_t p_t g_t [F,A,N]."""
    DOT: tl.constexpr = state.dtype.element_ty
    frame = tl.program_id(1).to(tl.int64)
    rows, d0 = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.arange(0, D0)
    there = rows < N
    d = read_rows(d_x, frame * N, rows, d0, N, D)
    n, scale = _normalised(read_rows(state, (frame // PER) * N, rows, d0, N, D), d0, D)
    n = n.to(DOT)
    d_n = tl.zeros([TILE, D0], tl.float32)
    for a in range(A):
        top = tl.full([TILE], float("-inf"), tl.float32)
        weight, mean = tl.zeros([TILE], tl.float32), tl.zeros([TILE], tl.float32)
        for first in range(0, T, CHUNK):
            t = first + tl.arange(0, CHUNK)
            k, v, base = _tokens(
                keys, values, score, frame * KF + a * KA + t * KT, frame * SF + a * SA + t * ST, t < T, d0, D, DOT
            )
            s = tl.dot(n, tl.trans(k), input_precision=P) + tl.where(t < T, base, float("-inf"))[None, :]
            g = tl.dot(d, tl.trans(v), input_precision=P)
            higher = tl.maximum(top, tl.max(s, 1))
            fade, top = tl.exp2(top - higher), higher
            p = tl.exp2(s - top[:, None])
            weight = weight * fade + tl.sum(p, 1)
            mean = mean * fade + tl.sum(p * g, 1)
        mean /= weight
        end = top + tl.log2(weight)
        to = (frame * A + a) * N + rows
        tl.store(ends + to, end, mask=there)
        tl.store(means + to, mean, mask=there)
        for first in range(0, T, CHUNK):
            t = first + tl.arange(0, CHUNK)
            k, v, base = _tokens(
                keys, values, score, frame * KF + a * KA + t * KT, frame * SF + a * SA + t * ST, t < T, d0, D, DOT
            )
            s = tl.dot(n, tl.trans(k), input_precision=P) + tl.where(t < T, base, float("-inf"))[None, :]
            g = tl.dot(d, tl.trans(v), input_precision=P)
            p = tl.exp2(s - end[:, None])
            d_n = tl.dot((p * (g - mean[:, None])).to(DOT), k, d_n, input_precision=P)
    to = before + (frame * N + rows)[:, None] * D + d0[None, :]
    tl.store(to, d + _through(n, scale, d_n * LN2, D), mask=there[:, None] & (d0 < D)[None, :])


@triton.jit
def _by_tokens(
    state, keys, values, score, d_x, ends, means, sums, N, PER, KF, KA, KT, SF, SA, ST,
    A: tl.constexpr, T: tl.constexpr, CHUNK: tl.constexpr, D: tl.constexpr, D0: tl.constexpr, SUMS: tl.constexpr,
    TILE: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    DOT: tl.constexpr = state.dtype.element_ty
    part, parts = tl.program_id(1), tl.num_programs(1)
    head, frame = tl.program_id(2) % A, (tl.program_id(2) // A).to(tl.int64)
    t, d0 = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK), tl.arange(0, D0)
    k, v, base = _tokens(
        keys, values, score, frame * KF + head * KA + t * KT, frame * SF + head * SA + t * ST, t < T, d0, D, DOT
    )
    a, b = tl.zeros([CHUNK, D0], tl.float32), tl.zeros([CHUNK, D0], tl.float32)
    for job in range(part, tl.cdiv(N, TILE), parts):
        rows = job * TILE + tl.arange(0, TILE)
        d = read_rows(d_x, frame * N, rows, d0, N, D)
        n = _normalised(read_rows(state, (frame // PER) * N, rows, d0, N, D), d0, D)[0].to(DOT)
        to = (frame * A + head) * N + rows
        end = tl.load(ends + to, mask=rows < N, other=float("inf"))  # no weight where no row is
        mean = tl.load(means + to, mask=rows < N, other=0.0)
        p = tl.exp2(tl.dot(k, tl.trans(n), input_precision=P) + base[:, None] - end[None, :])
        g = tl.dot(v, tl.trans(d), input_precision=P)
        a = tl.dot((p * (g - mean[None, :])).to(DOT), n, a, input_precision=P)
        b = tl.dot(p.to(DOT), d, b, input_precision=P)
    _token_sums(sums + (frame * parts + part) * SUMS, head * T + t, t < T, d0, a, b, D)


def _through_attention(sums: Sums, i: int, x, keys, score, values, d_x):
    """One layer, x [B,N,D], d_x [F,N,D] after it, keys [F,A,T,D] … → d_x before it, in the same memory or not; sums in part i."""
    (frames, A, T, D), (people, n, _) = keys.shape, x.shape
    strides = dict(zip(("KF", "KA", "KT", "SF", "SA", "ST"), (*keys.stride()[:3], *score.stride()), strict=True))
    widths = {"PER": frames // people, **strides, "A": A, "T": T, "D": D, "D0": padded(D, 1)}
    heads = triton.next_power_of_2(A)
    together = {**widths, "A0": heads, "T0": TOGETHER // heads}
    given = x, keys, values, score, d_x
    if heads * triton.next_power_of_2(T) <= TOGETHER and sums.fitting(_attention, i, *given, **together):
        sums.run(_attention, i, *given, **together)
        return d_x
    before = torch.empty_like(d_x)
    ends, means = torch.empty(2, frames, A, n, device=x.device)
    chunk = min(CHUNK[sums.stored], max(16, triton.next_power_of_2(T)))
    how = {**widths, "CHUNK": chunk, "P": precision(x.dtype)["P"]}
    launch(_by_rows, lambda meta: (triton.cdiv(n, meta["TILE"]), frames), WAYS, *given, before, ends, means, n, **how)
    launch(
        _by_tokens, (triton.cdiv(T, chunk), sums.grid[1], frames * A), WAYS, *given, ends, means, sums.buffer(i), n, **how,
        SUMS=sums.size,
    )  # fmt: skip
    return before


def _through_network(sums: Sums, i: int, x, w1, b1, w2, d_x):
    """The same for a layer's network."""
    H, D = w1.shape
    ways, widths = in_pieces(H, sums.stored), {"D": D, "D0": padded(D, 1), "H": H}
    way = sums.fitting(_network, i, x, w1, b1, w2, d_x, d_x, ways=ways, **widths)
    before = d_x if way and len(way) == 1 else torch.empty_like(d_x)
    sums.run(_network, i, x, w1, b1, w2, d_x, before, ways=ways, **widths)
    return before


def back_through_layers(x0, keys, score, values, layers: Layers, states, d_z, d_more):
    """→ gradients of x0, keys, score, values and, as a list, of the layers' weights. d_z + d_more (or None): of δf per frame."""
    _, w1, b1, w2, _, out, _ = (t.contiguous() for t in layers)
    (frames, L, A, T, D), H = keys.shape, w1.shape[1]
    keys, values = aligned(keys, values)
    sizes = [D * (D + 4), *[packed(H, D, D)] * L, *[A * T * (2 * D + 4)] * L]
    sums = Sums(x0, frames, x0.shape[1], *sizes)
    d_x = torch.empty_like(d_z)
    wide = {"D": D, "D0": padded(D, 1)}
    d_more = d_more if d_more is None else d_more.contiguous()
    sums.run(_projection, 0, states[-1], d_z, d_more, out, d_x, **wide, MORE=d_more is not None)
    for l in reversed(range(L)):  # noqa: E741
        d_x = _through_network(sums, 1 + l, states[2 * l], w1[l], b1[l], w2[l], d_x)
        x = states[2 * l - 1] if l else x0.contiguous()
        d_x = _through_attention(sums, 1 + L + l, x, keys[:, l], score[:, l], values[:, l], d_x)
    of_out, *rest = (t[:, :size] for t, size in zip(sums.totals(), sizes, strict=True))
    d_out, d_c, _ = of_out.sum(0).view(D, D + 4).split([D, 1, 3], 1)
    d_w1, d_b1, d_w2, d_b2 = unpack(torch.stack(rest[:L]).sum(1), H, D, D)
    d_keys, d_score, _, d_values = torch.stack(rest[L:], 1).view(frames, L, A, T, 2 * D + 4).split([D, 1, 3, D], -1)
    d_o = d_values.sum((0, 3)).mean(1)
    d_layers = d_o, d_w1, d_b1, d_w2, d_b2, d_out, d_c[:, 0]
    d_tokens = (d_keys, keys), (d_score[..., 0], score), (d_values, values)
    return (
        per_identity(d_x, len(x0)), *(d.to(t.dtype) for d, t in d_tokens),
        [d.to(t.dtype) for d, t in zip(d_layers, layers, strict=True)],
    )  # fmt: skip
