"""CPU rasteriser, forward and backward, by numba. Follows `reference.py` (gsplat's conventions) to rounding.

Work is split into (image, band of rows): a thread owns a band, so no two threads ever add to the same number, and the
bands' gradients are summed in order: the same bits whatever the number of threads. Within a band the Gaussians are
splatted one after the other, front to back, over the pixels their 2D extent covers, eight of a row by one vector
instruction; what a band knows of its pixels lies in runs of eight, and at head sizes (64² to 256²) in the first-level
cache, which beats a per-pixel list of Gaussians. Projection is the reference's own.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from jaxtyping import Float
from numba import types
from numba.extending import overload
from torch import Tensor

from i4d_bench.render.reference import project
from i4d_bench.types import Camera, Gaussians, Rendered
from kernels.layout import ALPHA_MAX, ALPHA_MIN, NEAR, STOP

BAND = 32
"""Rows per band."""
LANES = 8
"""Pixels of a row that are drawn at once."""

_pjit = numba.njit(cache=True, parallel=True, fastmath={"contract", "nsz"}, error_model="numpy")
# What loops over lanes reckon with: numbers without a sign, so that no index is taken from the end.
_1, _2, _3, _4, _5, _6, _7, _8, _9 = (np.uint64(k * LANES) for k in range(1, 10))
_EIGHT = np.uint64(LANES)
_HALF, _LOG2E = np.float32(0.5), np.float32(1 / math.log(2))
_E0, _E1, _E2, _E3, _E4, _E5, _E6 = (np.float32(math.log(2) ** k / math.factorial(k)) for k in range(7))
"""2ᶠ, f in ±1/2, to 1e-7."""


def _exp(x):
    """Of x ≤ 0, in the precision of x."""
    return math.exp(x)


@overload(_exp, inline="always")
def _exp_of(x):
    if x is types.float32:  # 2ⁿ·2ᶠ, a polynomial: libm's exp is called pixel by pixel

        def impl(x):
            y = max(x * _LOG2E, np.float32(-126))
            n = np.floor(y + _HALF)
            f = y - n
            power = _E0 + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * (_E5 + f * _E6)))))
            return power * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)

        return impl
    return lambda x: math.exp(x)


@_pjit
def _boxes(means, covariances, depths, opacities, width, height, conics, boxes):
    """Fills `conics` [B,N,3] and `boxes` [B,N,4] (x0, x1, y0, y1, ends excluded; empty when not drawn)."""
    B, N = opacities.shape
    for bn in numba.prange(B * N):
        b, n = bn // N, bn % N
        boxes[b, n, :] = 0
        o = opacities[b, n]
        if not (depths[b, n] > NEAR and o >= ALPHA_MIN):
            continue
        xx, xy, yy = covariances[b, n, 0, 0], covariances[b, n, 0, 1], covariances[b, n, 1, 1]
        det = xx * yy - xy * xy
        if not det > 0:
            continue
        conics[b, n, 0], conics[b, n, 1], conics[b, n, 2] = yy / det, -xy / det, xx / det
        # Beyond this many standard deviations α < 1/255.
        extent = math.sqrt(2 * math.log(o / ALPHA_MIN)) + 1e-3
        x, y, rx, ry = means[b, n, 0], means[b, n, 1], extent * math.sqrt(xx), extent * math.sqrt(yy)
        if not (x - rx < width and x + rx > 0 and y - ry < height and y + ry > 0):
            continue
        boxes[b, n, 0], boxes[b, n, 1] = max(0, math.floor(x - rx)), min(width, math.ceil(x + rx))
        boxes[b, n, 2], boxes[b, n, 3] = max(0, math.floor(y - ry)), min(height, math.ceil(y + ry))


@_pjit
def _sort(depth, order):
    for b in numba.prange(depth.shape[0]):
        order[b] = np.argsort(depth[b], kind="mergesort")


@_pjit
def _forward(lanes, gaussians, rgb, depth, trans, last):
    """lanes: LANES, which the compiler must not know: loops of known length are unrolled before they could become vector
    instructions. last: how many of `order` each pixel went through."""
    means, conics, depths, boxes, order, opacities, colors, k = gaussians
    B, H, W = trans.shape
    N = order.shape[1]
    bands, wide = (H + BAND - 1) // BAND, (W + LANES - 1) // LANES
    half, alpha_max, alpha_min, stop = k
    number = np.arange(max(N + 1, H, wide * LANES)).astype(trans.dtype)  # integers would make expressions fp64
    zero, one, never = half - half, half + half, number[N]
    for job in numba.prange(B * bands):
        b, low = job // bands, (job % bands) * BAND
        high = min(H, low + BAND)
        S = np.zeros(
            (high - low) * wide * 7 * LANES, trans.dtype
        )  # of eight pixels: colour, depth, transmittance, last, x
        for cell in range((high - low) * wide):
            for lane in range(LANES):
                S[(cell * 7 + 4) * LANES + lane] = one
                S[(cell * 7 + 6) * LANES + lane] = number[cell % wide * LANES + lane] + half
                S[(cell * 7 + 5) * LANES + lane] = never
        for s in range(N):
            n = order[b, s]
            y0, y1 = max(boxes[b, n, 2], low), min(boxes[b, n, 3], high)
            if y0 >= y1:
                continue
            x0, x1 = boxes[b, n, 0] // LANES, (boxes[b, n, 1] + LANES - 1) // LANES
            o, c0, c1, c2 = opacities[b, n], colors[b, n, 0], colors[b, n, 1], colors[b, n, 2]
            mx, my, z = means[b, n, 0], means[b, n, 1], depths[b, n]
            a, bb, c = half * conics[b, n, 0], conics[b, n, 1], half * conics[b, n, 2]
            rank = number[s]
            for y in range(y0, y1):
                dy = (number[y] + half) - my
                along, across = bb * dy, c * dy * dy
                for cell in range(x0, x1):
                    at = np.uint64(((y - low) * wide + cell) * 7 * LANES)
                    for lane in range(lanes):
                        i = at + lane
                        dx = S[i + _6] - mx
                        T = S[i + _4]
                        alpha = min(alpha_max, o * _exp(-(a * dx * dx + along * dx + across)))
                        after = T - T * alpha
                        drawn = (alpha >= alpha_min) & (S[i + _5] == never)
                        stops = drawn & (after <= stop)
                        drawn = drawn & (after > stop)
                        w = alpha * T if drawn else zero
                        S[i] += w * c0
                        S[i + _1] += w * c1
                        S[i + _2] += w * c2
                        S[i + _3] += w * z
                        S[i + _4] = after if drawn else T
                        S[i + _5] = rank if stops else S[i + _5]
        for y in range(low, high):
            for x in range(W):
                i = ((y - low) * wide + x // LANES) * 7 * LANES + x % LANES
                for channel in range(3):
                    rgb[b, y, x, channel] = S[i + channel * LANES]
                depth[b, y, x], trans[b, y, x] = S[i + 3 * LANES], S[i + 4 * LANES]
                last[b, y, x] = int(S[i + 5 * LANES])


@_pjit
def _backward(lanes, gaussians, background, trans, last, g_rgb, g_depth, g_alpha, grads):
    """Fills grads [bands,B,N,10]: mean x y, conic a b c, depth, opacity, colour. One slot per band, each owned by a thread."""
    means, conics, depths, boxes, order, opacities, colors, k = gaussians
    bands, B, N, _ = grads.shape
    H, W = trans.shape[1:]
    wide = (W + LANES - 1) // LANES
    half, alpha_max, alpha_min, _ = k
    zero, one = half - half, half + half
    number = np.arange(max(N, H, wide * LANES)).astype(trans.dtype)
    for job in numba.prange(B * bands):
        b, band = job // bands, job % bands
        low, high = band * BAND, min(H, (band + 1) * BAND)
        # Of eight pixels: transmittance; Σ over later Gaussians of w·(∂L/∂w), background and coverage included; last; gradients; x.
        S = np.zeros((high - low) * wide * 8 * LANES, trans.dtype)
        for y in range(low, high):
            for x in range(wide * LANES):
                S[((y - low) * wide + x // LANES) * 8 * LANES + 7 * LANES + x % LANES] = number[x] + half
            for x in range(W):
                i = ((y - low) * wide + x // LANES) * 8 * LANES + x % LANES
                g = zero
                for channel in range(3):
                    g += g_rgb[b, y, x, channel] * background[b, channel]
                    S[i + (3 + channel) * LANES] = g_rgb[b, y, x, channel]
                T = trans[b, y, x]
                S[i], S[i + LANES], S[i + 2 * LANES] = T, T * (g - g_alpha[b, y, x]), last[b, y, x]
                S[i + 6 * LANES] = g_depth[b, y, x]
        sums = np.empty(10 * LANES, trans.dtype)
        for s in range(N - 1, -1, -1):
            n = order[b, s]
            y0, y1 = max(boxes[b, n, 2], low), min(boxes[b, n, 3], high)
            if y0 >= y1:
                continue
            x0, x1 = boxes[b, n, 0] // LANES, (boxes[b, n, 1] + LANES - 1) // LANES
            o, c0, c1, c2 = opacities[b, n], colors[b, n, 0], colors[b, n, 1], colors[b, n, 2]
            mx, my, z = means[b, n, 0], means[b, n, 1], depths[b, n]
            a, bb, c = conics[b, n, 0], conics[b, n, 1], conics[b, n, 2]
            rank = number[s]
            sums[:] = 0
            for y in range(y0, y1):
                dy = (number[y] + half) - my
                for cell in range(x0, x1):
                    at = np.uint64(((y - low) * wide + cell) * 8 * LANES)
                    for lane in range(lanes):
                        i = at + lane
                        dx = S[i + _7] - mx
                        visible = _exp(-(half * (a * dx * dx + c * dy * dy) + bb * dx * dy))
                        alpha = min(alpha_max, o * visible)
                        drawn = (alpha >= alpha_min) & (rank < S[i + _2])
                        alpha = alpha if drawn else zero
                        keep = one / (one - alpha)
                        T = S[i] * keep if drawn else zero
                        w = alpha * T
                        r0, r1, r2, rz = S[i + _3], S[i + _4], S[i + _5], S[i + _6]
                        here = r0 * c0 + r1 * c1 + r2 * c2 + rz * z
                        g = T * here - keep * S[i + _1]
                        g = g if drawn & (o * visible <= alpha_max) else zero
                        S[i] = T if drawn else S[i]
                        S[i + _1] += w * here
                        gs = -g * alpha  # ∂L/∂σ
                        sums[lane] -= gs * (a * dx + bb * dy)
                        sums[lane + _1] -= gs * (bb * dx + c * dy)
                        sums[lane + _2] += gs * half * dx * dx
                        sums[lane + _3] += gs * dx * dy
                        sums[lane + _4] += gs * half * dy * dy
                        sums[lane + _5] += w * rz
                        sums[lane + _6] += g * visible if drawn else zero
                        sums[lane + _7] += w * r0
                        sums[lane + _8] += w * r1
                        sums[lane + _9] += w * r2
            for q in range(10):
                total = zero
                for lane in range(LANES):
                    total += sums[q * LANES + lane]
                grads[band, b, n, q] = total


def _to_covariance(conic, g):
    """∂L/∂covariance [B,N,2,2] = −conic · ∂L/∂conic · conic, for the conic is the covariance's inverse."""
    a, b, c = np.moveaxis(conic, -1, 0)
    ga, gb, gc = np.moveaxis(g, -1, 0)
    gb = gb / 2
    left = (a * ga + b * gb, a * gb + b * gc, b * ga + c * gb, b * gb + c * gc)  # conic · ∂L/∂conic
    out = (left[0] * a + left[1] * b, left[0] * b + left[1] * c, left[2] * a + left[3] * b, left[2] * b + left[3] * c)
    return -np.stack(out, -1).reshape(*a.shape, 2, 2)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, covariances, depths, opacities, colors, background, width, height):
        given = [t.detach().contiguous().numpy() for t in (means, covariances, depths, opacities, colors, background)]
        means, covariances, depths, opacities, colors, background = given
        dtype, (B, N) = means.dtype, opacities.shape
        conics, boxes = np.zeros((B, N, 3), dtype), np.empty((B, N, 4), np.int32)
        _boxes(means, covariances, depths, opacities, width, height, conics, boxes)
        order = np.empty((B, N), np.int64)
        _sort(depths, order)
        rgb, depth = np.zeros((B, height, width, 3), dtype), np.zeros((B, height, width), dtype)
        trans, last = np.ones((B, height, width), dtype), np.full((B, height, width), N, np.int32)
        k = tuple(
            dtype.type(v) for v in (0.5, ALPHA_MAX, ALPHA_MIN, STOP)
        )  # a constant in an expression would make it fp64
        gaussians = (means, conics, depths, boxes, order, opacities, colors, k)
        _forward(_EIGHT, gaussians, rgb, depth, trans, last)
        rgb += trans[..., None] * background[:, None, None]
        ctx.saved = (gaussians, background, trans, last)
        return torch.from_numpy(rgb), torch.from_numpy(1 - trans)[..., None], torch.from_numpy(depth)[..., None]

    @staticmethod
    def backward(ctx, g_rgb, g_alpha, g_depth):
        gaussians, background, trans, last = ctx.saved
        g_rgb, g_alpha, g_depth = (g.contiguous().numpy() for g in (g_rgb, g_alpha[..., 0], g_depth[..., 0]))
        conics, (B, N), height = gaussians[1], gaussians[1].shape[:2], trans.shape[1]
        slots = np.zeros(((height + BAND - 1) // BAND, B, N, 10), trans.dtype)
        _backward(_EIGHT, gaussians, background, trans, last, g_rgb, g_depth, g_alpha, slots)
        g = slots[0] if len(slots) == 1 else slots.sum(0)
        out = (g[..., :2], _to_covariance(conics, g[..., 2:5]), g[..., 5], g[..., 6], g[..., 7:])
        g_background = np.einsum("bhwc,bhw->bc", g_rgb, trans)
        return *map(torch.from_numpy, out), torch.from_numpy(g_background), None, None


def rasterize(g: Gaussians, camera: Camera, background: Float[Tensor, "B 3"], depth: bool = True) -> Rendered:
    """float32 or float64. Cameras get no gradient. Depth costs next to nothing here, so that there always is."""
    mean, covariance, depths = project(g, camera)
    return Rendered(
        *_Rasterize.apply(mean, covariance, depths, g.opacities, g.colors, background, camera.width, camera.height)
    )
