"""Gaussians of a scene as its pixels see them, forward and backward (twin: `raster.reference.project`).

A Gaussian becomes a row of ROW numbers, what its pixels read: x, y; a, b, c with σ/ln 2 = a·dx² + b·dx·dy + c·dy², so that α is one
exp2; log2 of its opacity; colour; depth; and how far from its centre, along x and y, α reaches 1/255 (0, 0 where it is not drawn).
Conventions are gsplat's (`packed=False`, classic), as `i4d_bench.render.reference` states them. Cameras get no gradient.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

ROW = 12
X, Y, CONIC, OPACITY, COLOR, DEPTH, REACH = 0, 1, 2, 5, 6, 9, 10
"""Where in a row."""
BLOCK = 128
LOG2E = tl.constexpr(1.4426950408889634)
LEVELS = tl.constexpr(7.994353436858858)
"""log2 255: α below 1/255 is nothing."""


@triton.jit
def _rotation(quats, i, there):
    """Of quaternions of any length: |q|, the unit quaternion, and the matrix' rows."""
    w, x = tl.load(quats + 4 * i, mask=there, other=1.0), tl.load(quats + 4 * i + 1, mask=there, other=0.0)
    y, z = tl.load(quats + 4 * i + 2, mask=there, other=0.0), tl.load(quats + 4 * i + 3, mask=there, other=0.0)
    size = tl.maximum(tl.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    w, x, y, z = w / size, x / size, y / size, z / size
    one = (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y))
    two = (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x))
    three = (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y))
    return size, (w, x, y, z), one, two, three


@triton.jit
def _mixed(view, k, m1, m2, m3):
    """Row k of the view's rotation times a matrix of these rows."""
    v1, v2, v3 = tl.load(view + 4 * k), tl.load(view + 4 * k + 1), tl.load(view + 4 * k + 2)
    return (
        v1 * m1[0] + v2 * m2[0] + v3 * m3[0],
        v1 * m1[1] + v2 * m2[1] + v3 * m3[1],
        v1 * m1[2] + v2 * m2[2] + v3 * m3[2],
    )


@triton.jit
def _moved(view, k, x, y, z):
    return (
        tl.load(view + 4 * k) * x
        + tl.load(view + 4 * k + 1) * y
        + tl.load(view + 4 * k + 2) * z
        + tl.load(view + 4 * k + 3)
    )


@triton.jit
def _dot(u, v):
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


@triton.jit
def _seen(means, scales, m1, m2, m3, view, K, i, there, NEAR, WIDTH, HEIGHT):
    """In camera space: the centre, whether it is before the camera, the directions that the Jacobian takes, clamped, and whether they
    are inside; R M; and the rows of J R M."""
    x, y, z = tl.load(means + 3 * i, mask=there, other=0.0), tl.load(means + 3 * i + 1, mask=there, other=0.0), tl.load(means + 3 * i + 2, mask=there, other=0.0)  # fmt: skip
    px, py, pz = _moved(view, 0, x, y, z), _moved(view, 1, x, y, z), _moved(view, 2, x, y, z)
    before = pz > NEAR
    pz = tl.where(before, pz, 1.0)
    fx, fy, cx, cy = tl.load(K), tl.load(K + 4), tl.load(K + 2), tl.load(K + 5)
    u, v = px / pz, py / pz
    ulow, uhigh = -cx / fx - 0.15 * WIDTH / fx, (WIDTH - cx) / fx + 0.15 * WIDTH / fx
    vlow, vhigh = -cy / fy - 0.15 * HEIGHT / fy, (HEIGHT - cy) / fy + 0.15 * HEIGHT / fy
    uin, vin = (u >= ulow) & (u <= uhigh), (v >= vlow) & (v <= vhigh)
    cu, cv = tl.maximum(tl.minimum(u, uhigh), ulow), tl.maximum(tl.minimum(v, vhigh), vlow)
    s1, s2, s3 = tl.load(scales + 3 * i, mask=there, other=0.0), tl.load(scales + 3 * i + 1, mask=there, other=0.0), tl.load(scales + 3 * i + 2, mask=there, other=0.0)  # fmt: skip
    m1, m2, m3 = (m1[0] * s1, m1[1] * s2, m1[2] * s3), (m2[0] * s1, m2[1] * s2, m2[2] * s3), (m3[0] * s1, m3[1] * s2, m3[2] * s3)  # fmt: skip
    w1, w2, w3 = _mixed(view, 0, m1, m2, m3), _mixed(view, 1, m1, m2, m3), _mixed(view, 2, m1, m2, m3)
    jx, jy = fx / pz, fy / pz
    t1 = (jx * (w1[0] - cu * w3[0]), jx * (w1[1] - cu * w3[1]), jx * (w1[2] - cu * w3[2]))
    t2 = (jy * (w2[0] - cv * w3[0]), jy * (w2[1] - cv * w3[1]), jy * (w2[2] - cv * w3[2]))
    return (px, py, pz), before, (u, v), (cu, cv), (uin, vin), (w1, w2, w3), (t1, t2), (s1, s2, s3)


@triton.jit
def _project(
    means, quats, scales, opacities, colors, views, Ks, rows, N, WIDTH, HEIGHT, NEAR, EPS,
    ROW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Programs: blocks of Gaussians × images."""
    b, n = tl.program_id(1), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = n < N
    i = b.to(tl.int64) * N + n
    view, K = views + 16 * b, Ks + 9 * b
    _, _, m1, m2, m3 = _rotation(quats, i, there)
    p, before, at, _, _, _, T, _ = _seen(means, scales, m1, m2, m3, view, K, i, there, NEAR, WIDTH, HEIGHT)
    xx, xy, yy = _dot(T[0], T[0]) + EPS, _dot(T[0], T[1]), _dot(T[1], T[1]) + EPS
    det = xx * yy - xy * xy
    o = tl.load(opacities + i, mask=there, other=0.0)
    level = tl.log2(tl.maximum(o, 1e-30))
    x, y = tl.load(K) * at[0] + tl.load(K + 2), tl.load(K + 4) * at[1] + tl.load(K + 5)
    far = 2 * (level + LEVELS) / LOG2E
    rx, ry = tl.sqrt(tl.maximum(far * xx, 0.0)), tl.sqrt(tl.maximum(far * yy, 0.0))
    inside = (x - rx < WIDTH) & (x + rx > 0) & (y - ry < HEIGHT) & (y + ry > 0)
    finite = (xx < float("inf")) & (yy < float("inf"))
    drawn = before & (det > 0) & (far > 0) & inside & finite
    at = rows + i * ROW
    zero = tl.where(drawn, 0.0, 0.0)
    tl.store(at, tl.where(drawn, x, zero), mask=there)
    tl.store(at + 1, tl.where(drawn, y, zero), mask=there)
    tl.store(at + 2, tl.where(drawn, 0.5 * LOG2E * yy / det, zero), mask=there)
    tl.store(at + 3, tl.where(drawn, -LOG2E * xy / det, zero), mask=there)
    tl.store(at + 4, tl.where(drawn, 0.5 * LOG2E * xx / det, zero), mask=there)
    tl.store(at + 5, tl.where(drawn, level, zero), mask=there)
    for c in tl.static_range(3):
        tl.store(at + 6 + c, tl.load(colors + 3 * i + c, mask=there, other=0.0), mask=there)
    tl.store(at + 9, tl.where(drawn, p[2], zero), mask=there)
    tl.store(at + 10, tl.where(drawn, rx, zero), mask=there)
    tl.store(at + 11, tl.where(drawn, ry, zero), mask=there)


@triton.jit
def _project_backward(
    means, quats, scales, opacities, views, Ks, rows, drows, dmeans, dquats, dscales, dopacities, dcolors, N, WIDTH, HEIGHT,
    NEAR, ROW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b, n = tl.program_id(1), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = n < N
    i = b.to(tl.int64) * N + n
    view, K = views + 16 * b, Ks + 9 * b
    at, d = rows + i * ROW, drows + i * ROW
    drawn = tl.load(at + 10, mask=there, other=0.0) > 0
    for c in tl.static_range(3):
        tl.store(dcolors + 3 * i + c, tl.load(d + 6 + c, mask=there, other=0.0), mask=there)
    o = tl.load(opacities + i, mask=drawn, other=1.0)
    tl.store(dopacities + i, tl.where(drawn, tl.load(d + 5, mask=there, other=0.0) * LOG2E / o, 0.0), mask=there)
    size, q, r1, r2, r3 = _rotation(quats, i, there)
    p, _, _, at_, inside, W, T, s = _seen(means, scales, r1, r2, r3, view, K, i, there, NEAR, WIDTH, HEIGHT)
    fx, fy = tl.load(K), tl.load(K + 4)
    # The conic is the covariance's inverse: ∂L/∂covariance = −conic G conic. Rows hold it times log2 e (and ½).
    A, B, C = tl.load(at + 2, mask=there, other=0.0) * 2 / LOG2E, tl.load(at + 3, mask=there, other=0.0) / LOG2E, tl.load(at + 4, mask=there, other=0.0) * 2 / LOG2E  # fmt: skip
    ga, gb, gc = tl.load(d + 2, mask=there, other=0.0) * 0.5 * LOG2E, tl.load(d + 3, mask=there, other=0.0) * 0.5 * LOG2E, tl.load(d + 4, mask=there, other=0.0) * 0.5 * LOG2E  # fmt: skip
    aa, ab, ba, bb = A * ga + B * gb, A * gb + B * gc, B * ga + C * gb, B * gb + C * gc
    gxx, gxy, gyy = -(aa * A + ab * B), -(aa * B + ab * C), -(ba * B + bb * C)
    t1, t2 = T[0], T[1]
    w1, w2, w3 = W[0], W[1], W[2]
    g1 = (2 * (gxx * t1[0] + gxy * t2[0]), 2 * (gxx * t1[1] + gxy * t2[1]), 2 * (gxx * t1[2] + gxy * t2[2]))
    g2 = (2 * (gxy * t1[0] + gyy * t2[0]), 2 * (gxy * t1[1] + gyy * t2[1]), 2 * (gxy * t1[2] + gyy * t2[2]))
    z = p[2]
    jx, jy, cu, cv = fx / z, fy / z, at_[0], at_[1]
    gu, gv = -jx * _dot(g1, w3), -jy * _dot(g2, w3)  # of the clamped directions
    gz = tl.load(d + 9, mask=there, other=0.0) - (_dot(g1, t1) + _dot(g2, t2)) / z
    gu = tl.where(inside[0], gu, 0.0) + fx * tl.load(d, mask=there, other=0.0)
    gv = tl.where(inside[1], gv, 0.0) + fy * tl.load(d + 1, mask=there, other=0.0)
    gz = gz - (gu * p[0] + gv * p[1]) / (z * z)
    gx, gy = gu / z, gv / z
    # Back through W = R M, M = rotation · scales.
    h1 = (jx * g1[0], jx * g1[1], jx * g1[2])
    h2 = (jy * g2[0], jy * g2[1], jy * g2[2])
    h3 = (-cu * h1[0] - cv * h2[0], -cu * h1[1] - cv * h2[1], -cu * h1[2] - cv * h2[2])
    v11, v12, v13 = tl.load(view), tl.load(view + 1), tl.load(view + 2)
    v21, v22, v23 = tl.load(view + 4), tl.load(view + 5), tl.load(view + 6)
    v31, v32, v33 = tl.load(view + 8), tl.load(view + 9), tl.load(view + 10)
    m1 = (v11 * h1[0] + v21 * h2[0] + v31 * h3[0], v11 * h1[1] + v21 * h2[1] + v31 * h3[1], v11 * h1[2] + v21 * h2[2] + v31 * h3[2])  # fmt: skip
    m2 = (v12 * h1[0] + v22 * h2[0] + v32 * h3[0], v12 * h1[1] + v22 * h2[1] + v32 * h3[1], v12 * h1[2] + v22 * h2[2] + v32 * h3[2])  # fmt: skip
    m3 = (v13 * h1[0] + v23 * h2[0] + v33 * h3[0], v13 * h1[1] + v23 * h2[1] + v33 * h3[1], v13 * h1[2] + v23 * h2[2] + v33 * h3[2])  # fmt: skip
    tl.store(dmeans + 3 * i, tl.where(drawn, v11 * gx + v21 * gy + v31 * gz, 0.0), mask=there)
    tl.store(dmeans + 3 * i + 1, tl.where(drawn, v12 * gx + v22 * gy + v32 * gz, 0.0), mask=there)
    tl.store(dmeans + 3 * i + 2, tl.where(drawn, v13 * gx + v23 * gy + v33 * gz, 0.0), mask=there)
    for c in tl.static_range(3):
        tl.store(dscales + 3 * i + c, tl.where(drawn, m1[c] * r1[c] + m2[c] * r2[c] + m3[c] * r3[c], 0.0), mask=there)
    m1, m2, m3 = (m1[0] * s[0], m1[1] * s[1], m1[2] * s[2]), (m2[0] * s[0], m2[1] * s[1], m2[2] * s[2]), (m3[0] * s[0], m3[1] * s[1], m3[2] * s[2])  # fmt: skip
    w, x, y, k = q[0], q[1], q[2], q[3]
    gw = 2 * (x * (m3[1] - m2[2]) + y * (m1[2] - m3[0]) + k * (m2[0] - m1[1]))
    gx = 2 * (-2 * x * (m2[1] + m3[2]) + y * (m1[1] + m2[0]) + k * (m1[2] + m3[0]) + w * (m3[1] - m2[2]))
    gy = 2 * (x * (m1[1] + m2[0]) - 2 * y * (m1[0] + m3[2]) + k * (m2[2] + m3[1]) + w * (m1[2] - m3[0]))
    gk = 2 * (x * (m1[2] + m3[0]) + y * (m2[2] + m3[1]) - 2 * k * (m1[0] + m2[1]) + w * (m2[0] - m1[1]))
    along = gw * w + gx * x + gy * y + gk * k
    tl.store(dquats + 4 * i, tl.where(drawn, (gw - along * w) / size, 0.0), mask=there)
    tl.store(dquats + 4 * i + 1, tl.where(drawn, (gx - along * x) / size, 0.0), mask=there)
    tl.store(dquats + 4 * i + 2, tl.where(drawn, (gy - along * y) / size, 0.0), mask=there)
    tl.store(dquats + 4 * i + 3, tl.where(drawn, (gk - along * k) / size, 0.0), mask=there)


NEAR, EPS_2D = 0.01, 0.3
"""Nearer than this (world units) nothing is drawn; added to the 2D covariance (pixels²)."""


def project(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, views: Tensor, Ks: Tensor, width: int, height: int
) -> Float[Tensor, "I N R"]:  # fmt: skip
    images, n = opacities.shape
    rows = means.new_empty(images, n, ROW)
    if rows.numel():
        _project[triton.cdiv(n, BLOCK), images](
            means, quats, scales, opacities, colors, views, Ks, rows, n, width, height, NEAR, EPS_2D, ROW=ROW, BLOCK=BLOCK
        )  # fmt: skip
    return rows


def project_backward(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, views: Tensor, Ks: Tensor, rows: Tensor, drows: Tensor,
    width: int, height: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    """→ gradients of means, quaternions, scales, opacities and colours."""
    images, n = opacities.shape
    grads = [torch.empty_like(t) for t in (means, quats, scales, opacities, means)]
    if rows.numel():
        _project_backward[triton.cdiv(n, BLOCK), images](
            means, quats, scales, opacities, views, Ks, rows, drows, *grads, n, width, height, NEAR, ROW=ROW, BLOCK=BLOCK
        )  # fmt: skip
    return tuple(grads)
