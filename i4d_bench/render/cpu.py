"""CPU rasteriser, forward and backward, by numba. Follows `reference.py` (gsplat's conventions) to rounding.

Work is split into (image, band of rows): a thread owns a band, so no two threads ever add to the same number, and the
bands' gradients are summed in order: the same bits whatever the number of threads. Within a band the Gaussians are
splatted one after the other, front to back, over the pixels their 2D extent covers: at head sizes (64² to 256²) a band's
state stays in the first-level cache, which beats a per-pixel list of Gaussians.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from i4d_bench.render.reference import ALPHA_MAX, ALPHA_MIN, EPS_2D, NEAR, STOP
from i4d_bench.types import Camera, Gaussians, Rendered

BAND = 32
"""Rows per band."""
# Columns of a projected Gaussian: pixel mean, conic, depth; and its first and last covered column and row.
MX, MY, CA, CB, CC, DEPTH = range(6)

_jit = numba.njit(cache=True, fastmath={"contract", "nsz"}, error_model="numpy")
_pjit = numba.njit(cache=True, parallel=True, fastmath={"contract", "nsz"}, error_model="numpy")


@_jit
def _rotation(q):
    w, x, y, z = q / math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@_jit
def _camera_space(mean, quat, scale, view, K, width, height):
    """Point p, whether x/z and y/z are inside the clamp, J (2×3), R M (3×3) and T = J R M (2×3)."""
    p = np.empty(3)
    for r in range(3):
        p[r] = view[r, 0] * mean[0] + view[r, 1] * mean[1] + view[r, 2] * mean[2] + view[r, 3]
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    z = p[2]
    u, v = p[0] / z, p[1] / z
    cu = max(min(u, (width - cx) / fx + 0.15 * width / fx), -cx / fx - 0.15 * width / fx)
    cv = max(min(v, (height - cy) / fy + 0.15 * height / fy), -cy / fy - 0.15 * height / fy)
    J = np.zeros((2, 3))
    J[0, 0], J[0, 2] = fx / z, -fx * cu / z
    J[1, 1], J[1, 2] = fy / z, -fy * cv / z
    M = _rotation(quat)
    for r in range(3):
        for c in range(3):
            M[r, c] *= scale[c]
    RM = np.empty((3, 3))
    for r in range(3):
        for c in range(3):
            RM[r, c] = view[r, 0] * M[0, c] + view[r, 1] * M[1, c] + view[r, 2] * M[2, c]
    T = np.empty((2, 3))
    for c in range(3):
        T[0, c] = J[0, 0] * RM[0, c] + J[0, 2] * RM[2, c]
        T[1, c] = J[1, 1] * RM[1, c] + J[1, 2] * RM[2, c]
    return p, u == cu, v == cv, J, RM, T


@_pjit
def _project(means, quats, scales, opacities, views, Ks, width, height, out, box):
    """Fills `out` [B,N,6] (MX…DEPTH) and `box` [B,N,4] (x0, x1, y0, y1, ends excluded; empty when not drawn)."""
    B, N = opacities.shape
    for bn in numba.prange(B * N):
        b, n = bn // N, bn % N
        box[b, n, :] = 0
        z = (
            views[b, 2, 0] * means[b, n, 0]
            + views[b, 2, 1] * means[b, n, 1]
            + views[b, 2, 2] * means[b, n, 2]
            + views[b, 2, 3]
        )
        out[b, n, DEPTH] = z
        o = opacities[b, n]
        if z <= NEAR or o < ALPHA_MIN:
            continue
        p, _, _, _, _, T = _camera_space(
            means[b, n].astype(np.float64), quats[b, n].astype(np.float64), scales[b, n], views[b], Ks[b], width, height
        )
        a = T[0, 0] * T[0, 0] + T[0, 1] * T[0, 1] + T[0, 2] * T[0, 2] + EPS_2D
        bb = T[0, 0] * T[1, 0] + T[0, 1] * T[1, 1] + T[0, 2] * T[1, 2]
        c = T[1, 0] * T[1, 0] + T[1, 1] * T[1, 1] + T[1, 2] * T[1, 2] + EPS_2D
        det = a * c - bb * bb
        if not det > 0:
            continue
        mx, my = Ks[b, 0, 0] * p[0] / z + Ks[b, 0, 2], Ks[b, 1, 1] * p[1] / z + Ks[b, 1, 2]
        out[b, n, MX], out[b, n, MY] = mx, my
        out[b, n, CA], out[b, n, CB], out[b, n, CC] = c / det, -bb / det, a / det
        # Beyond this many standard deviations α < 1/255.
        extent = math.sqrt(2 * math.log(o / ALPHA_MIN)) + 1e-3
        rx, ry = extent * math.sqrt(a), extent * math.sqrt(c)
        if not (mx - rx < width and mx + rx > 0 and my - ry < height and my + ry > 0):
            continue
        box[b, n, 0], box[b, n, 1] = max(0, math.floor(mx - rx)), min(width, math.ceil(mx + rx))
        box[b, n, 2], box[b, n, 3] = max(0, math.floor(my - ry)), min(height, math.ceil(my + ry))


@_pjit
def _sort(depth, order):
    for b in numba.prange(depth.shape[0]):
        order[b] = np.argsort(depth[b], kind="mergesort")


@_pjit
def _forward(proj, box, order, opacities, colors, k, rgb, depth, trans, last):
    """k: (1/2, α max, α min, stop) in the arrays' own precision. last: how many of `order` each pixel went through."""
    B, H = rgb.shape[:2]
    N = order.shape[1]
    bands = (H + BAND - 1) // BAND
    half, alpha_max, alpha_min, stop = k
    for job in numba.prange(B * bands):
        b, low = job // bands, (job % bands) * BAND
        high = min(H, low + BAND)
        for s in range(N):
            n = order[b, s]
            y0, y1 = max(box[b, n, 2], low), min(box[b, n, 3], high)
            if y0 >= y1:
                continue
            x0, x1 = box[b, n, 0], box[b, n, 1]
            o, c0, c1, c2 = opacities[b, n], colors[b, n, 0], colors[b, n, 1], colors[b, n, 2]
            mx, my, z = proj[b, n, MX], proj[b, n, MY], proj[b, n, DEPTH]
            a, bb, c = half * proj[b, n, CA], proj[b, n, CB], half * proj[b, n, CC]
            for y in range(y0, y1):
                dy = (y + half) - my
                for x in range(x0, x1):
                    if last[b, y, x] < N:
                        continue  # stopped
                    dx = (x + half) - mx
                    alpha = min(alpha_max, o * math.exp(-(a * dx * dx + bb * dx * dy + c * dy * dy)))
                    if alpha < alpha_min:
                        continue
                    T = trans[b, y, x]
                    after = T - T * alpha
                    if after <= stop:
                        last[b, y, x] = s
                        continue
                    w = alpha * T
                    rgb[b, y, x, 0] += w * c0
                    rgb[b, y, x, 1] += w * c1
                    rgb[b, y, x, 2] += w * c2
                    depth[b, y, x] += w * z
                    trans[b, y, x] = after


@_pjit
def _backward(proj, box, order, opacities, colors, k, background, trans, last, g_rgb, g_depth, g_alpha, grads):
    """Fills grads [bands,B,N,10]: mean x y, conic a b c, depth, opacity, colour. One slot per band, each owned by a thread."""
    bands, B, N, _ = grads.shape
    H, W = trans.shape[1:]
    half, alpha_max, alpha_min, _ = k
    for job in numba.prange(B * bands):
        b, band = job // bands, job % bands
        low, high = band * BAND, min(H, (band + 1) * BAND)
        T_now = trans[b, low:high].copy()
        behind = np.empty_like(T_now)  # Σ over later Gaussians of w·(∂L/∂w), background and coverage included
        for y in range(low, high):
            for x in range(W):
                g = (
                    g_rgb[b, y, x, 0] * background[b, 0]
                    + g_rgb[b, y, x, 1] * background[b, 1]
                    + g_rgb[b, y, x, 2] * background[b, 2]
                )
                behind[y - low, x] = trans[b, y, x] * (g - g_alpha[b, y, x])
        for s in range(N - 1, -1, -1):
            n = order[b, s]
            y0, y1 = max(box[b, n, 2], low), min(box[b, n, 3], high)
            if y0 >= y1:
                continue
            x0, x1 = box[b, n, 0], box[b, n, 1]
            o, c0, c1, c2 = opacities[b, n], colors[b, n, 0], colors[b, n, 1], colors[b, n, 2]
            mx, my, z = proj[b, n, MX], proj[b, n, MY], proj[b, n, DEPTH]
            a, bb, c = proj[b, n, CA], proj[b, n, CB], proj[b, n, CC]
            zero = half - half
            gmx, gmy, ga, gb, gc, gz, go, g0, g1, g2 = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
            for y in range(y0, y1):
                dy = (y + half) - my
                for x in range(x0, x1):
                    if s >= last[b, y, x]:
                        continue
                    dx = (x + half) - mx
                    visible = math.exp(-(half * (a * dx * dx + c * dy * dy) + bb * dx * dy))
                    alpha = min(alpha_max, o * visible)
                    if alpha < alpha_min:
                        continue
                    keep = (half + half) / ((half + half) - alpha)
                    T = T_now[y - low, x] * keep
                    T_now[y - low, x] = T
                    w = alpha * T
                    r0, r1, r2, rz = g_rgb[b, y, x, 0], g_rgb[b, y, x, 1], g_rgb[b, y, x, 2], g_depth[b, y, x]
                    g0 += w * r0
                    g1 += w * r1
                    g2 += w * r2
                    gz += w * rz
                    here = r0 * c0 + r1 * c1 + r2 * c2 + rz * z
                    g = T * here - keep * behind[y - low, x]
                    behind[y - low, x] += w * here
                    if o * visible <= alpha_max:
                        go += g * visible
                        g = -g * alpha  # ∂L/∂σ
                        ga += g * half * dx * dx
                        gb += g * dx * dy
                        gc += g * half * dy * dy
                        gmx -= g * (a * dx + bb * dy)
                        gmy -= g * (bb * dx + c * dy)
            slot = grads[band, b, n]
            slot[0], slot[1], slot[2], slot[3], slot[4] = gmx, gmy, ga, gb, gc
            slot[5], slot[6], slot[7], slot[8], slot[9] = gz, go, g0, g1, g2


@_pjit
def _project_backward(means, quats, scales, views, Ks, width, height, proj, box, grads, g_means, g_quats, g_scales):
    """From the gradients at mean, conic and depth to those at means, quats and scales."""
    B, N, _ = grads.shape
    for bn in numba.prange(B * N):
        b, n = bn // N, bn % N
        if box[b, n, 0] >= box[b, n, 1]:
            continue
        q = quats[b, n].astype(np.float64)
        view, K = views[b], Ks[b]
        p, in_x, in_y, J, RM, T = _camera_space(means[b, n].astype(np.float64), q, scales[b, n], view, K, width, height)
        fx, fy, z = K[0, 0], K[1, 1], p[2]
        # conic = covariance⁻¹: ∂L/∂covariance = −conic G conic
        X = np.array([[proj[b, n, CA], proj[b, n, CB]], [proj[b, n, CB], proj[b, n, CC]]]).astype(np.float64)
        G = np.array([[grads[b, n, 2], 0.5 * grads[b, n, 3]], [0.5 * grads[b, n, 3], grads[b, n, 4]]]).astype(
            np.float64
        )
        XG = np.empty((2, 2))
        for r in range(2):
            for c in range(2):
                XG[r, c] = X[r, 0] * G[0, c] + X[r, 1] * G[1, c]
        for r in range(2):
            for c in range(2):
                G[r, c] = -(XG[r, 0] * X[0, c] + XG[r, 1] * X[1, c])
        gT = np.empty((2, 3))  # covariance = T Tᵀ
        for r in range(2):
            for c in range(3):
                gT[r, c] = 2 * (G[r, 0] * T[0, c] + G[r, 1] * T[1, c])
        gRM = np.empty((3, 3))  # T = J (R M)
        for c in range(3):
            gRM[0, c] = J[0, 0] * gT[0, c]
            gRM[1, c] = J[1, 1] * gT[1, c]
            gRM[2, c] = J[0, 2] * gT[0, c] + J[1, 2] * gT[1, c]
        gJ00 = gJ02 = gJ11 = gJ12 = 0.0
        for c in range(3):
            gJ00 += gT[0, c] * RM[0, c]
            gJ02 += gT[0, c] * RM[2, c]
            gJ11 += gT[1, c] * RM[1, c]
            gJ12 += gT[1, c] * RM[2, c]
        gu, gv = gJ02 * -fx / z, gJ12 * -fy / z  # of the clamped x/z and y/z
        gz = grads[b, n, 5] - (gJ00 * J[0, 0] + gJ02 * J[0, 2] + gJ11 * J[1, 1] + gJ12 * J[1, 2]) / z
        gu = (gu if in_x else 0.0) + fx * grads[b, n, 0]
        gv = (gv if in_y else 0.0) + fy * grads[b, n, 1]
        gp = np.array([gu / z, gv / z, gz - (gu * p[0] + gv * p[1]) / (z * z)])
        for c in range(3):
            g_means[b, n, c] = view[0, c] * gp[0] + view[1, c] * gp[1] + view[2, c] * gp[2]
        R = _rotation(q)
        gR = np.empty((3, 3))
        for c in range(3):
            g = 0.0
            for r in range(3):
                gM = view[0, r] * gRM[0, c] + view[1, r] * gRM[1, c] + view[2, r] * gRM[2, c]
                g += gM * R[r, c]
                gR[r, c] = gM * scales[b, n, c]
            g_scales[b, n, c] = g
        norm = math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
        w, x, y, z_ = q / norm
        gq = np.empty(4)
        gq[0] = 2 * (x * (gR[2, 1] - gR[1, 2]) + y * (gR[0, 2] - gR[2, 0]) + z_ * (gR[1, 0] - gR[0, 1]))
        gq[1] = 2 * (
            -2 * x * (gR[1, 1] + gR[2, 2])
            + y * (gR[0, 1] + gR[1, 0])
            + z_ * (gR[0, 2] + gR[2, 0])
            + w * (gR[2, 1] - gR[1, 2])
        )
        gq[2] = 2 * (
            x * (gR[0, 1] + gR[1, 0])
            - 2 * y * (gR[0, 0] + gR[2, 2])
            + z_ * (gR[1, 2] + gR[2, 1])
            + w * (gR[0, 2] - gR[2, 0])
        )
        gq[3] = 2 * (
            x * (gR[0, 2] + gR[2, 0])
            + y * (gR[1, 2] + gR[2, 1])
            - 2 * z_ * (gR[0, 0] + gR[1, 1])
            + w * (gR[1, 0] - gR[0, 1])
        )
        along = (gq[0] * w + gq[1] * x + gq[2] * y + gq[3] * z_) / norm
        for i in range(4):
            g_quats[b, n, i] = gq[i] / norm - along * q[i] / norm


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, scales, opacities, colors, background, views, Ks, width, height):
        tensors = [t.detach().contiguous().numpy() for t in (means, quats, scales, opacities, colors, background)]
        means_, quats_, scales_, opacities_, colors_, background_ = tensors
        views_, Ks_ = (t.detach().to(torch.float64).contiguous().numpy() for t in (views, Ks))
        dtype = means_.dtype
        B, N = opacities_.shape
        proj, box = np.zeros((B, N, 6), dtype), np.empty((B, N, 4), np.int32)
        _project(means_, quats_, scales_, opacities_, views_, Ks_, width, height, proj, box)
        order = np.empty((B, N), np.int64)
        _sort(proj[:, :, DEPTH], order)
        rgb, depth = np.zeros((B, height, width, 3), dtype), np.zeros((B, height, width), dtype)
        trans, last = np.ones((B, height, width), dtype), np.full((B, height, width), N, np.int32)
        k = tuple(dtype.type(v) for v in (0.5, ALPHA_MAX, ALPHA_MIN, STOP))
        _forward(proj, box, order, opacities_, colors_, k, rgb, depth, trans, last)
        rgb += trans[..., None] * background_[:, None, None]
        ctx.saved = (*tensors, views_, Ks_, proj, box, order, k, trans, last)
        return torch.from_numpy(rgb), torch.from_numpy(1 - trans)[..., None], torch.from_numpy(depth)[..., None]

    @staticmethod
    def backward(ctx, g_rgb, g_alpha, g_depth):
        means, quats, scales, opacities, colors, background, views, Ks, proj, box, order, k, trans, last = ctx.saved
        g_rgb, g_alpha, g_depth = (g.contiguous().numpy() for g in (g_rgb, g_alpha[..., 0], g_depth[..., 0]))
        (B, N), (height, width) = opacities.shape, trans.shape[1:]
        slots = np.zeros(((height + BAND - 1) // BAND, B, N, 10), means.dtype)
        _backward(proj, box, order, opacities, colors, k, background, trans, last, g_rgb, g_depth, g_alpha, slots)
        grads = slots[0] if len(slots) == 1 else slots.sum(0)
        g_means, g_quats, g_scales = (np.zeros_like(a) for a in (means, quats, scales))
        _project_backward(means, quats, scales, views, Ks, width, height, proj, box, grads, g_means, g_quats, g_scales)
        g_background = np.einsum("bhwc,bhw->bc", g_rgb, trans)
        out = (g_means, g_quats, g_scales, grads[..., 6].copy(), grads[..., 7:].copy(), g_background)
        return (*map(torch.from_numpy, out), None, None, None, None)


def rasterize(g: Gaussians, camera: Camera, background: Float[Tensor, "B 3"]) -> Rendered:
    """Any floating dtype of two or more bits of sense: float32 and float64. Cameras get no gradient."""
    out = _Rasterize.apply(
        g.means,
        g.quats,
        g.scales,
        g.opacities,
        g.colors,
        background,
        camera.viewmats,
        camera.Ks,
        camera.width,
        camera.height,
    )
    return Rendered(*out)
