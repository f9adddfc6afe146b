"""Gaussians as pixels read them, forward and backward (specification: `i4d_bench.render.reference.project`).

A Gaussian becomes a row of ROW numbers: x, y; a, b, c with σ/ln 2 = a·dx² + b·dx·dy + c·dy², so that α is one exp2; log2 of its
opacity; colour; depth; and how far from its centre, along x and y, α reaches 1/255 (0 where it is not drawn). Conventions are
gsplat's (`packed=False`, classic). Cameras get no gradient.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from kernels.fused.launch import run_kernel
from kernels.fused.vectors import dot
from kernels.layout import EPS_2D, NEAR

ROW = 12
COLOR, DEPTH, REACH = 6, 9, 10
"""Numbers of a row, and where in it these are."""
BLOCK = 128
LOG2E = tl.constexpr(1.4426950408889634)
LEVELS = tl.constexpr(7.994353436858858)
"""log2 255: α below 1/255 is nothing."""


@triton.jit
def _three(at, there):
    """Three numbers, one behind the other."""
    return (
        tl.load(at, mask=there, other=0.0),
        tl.load(at + 1, mask=there, other=0.0),
        tl.load(at + 2, mask=there, other=0.0),
    )


@triton.jit
def _times(u, v):
    return u[0] * v[0], u[1] * v[1], u[2] * v[2]


@triton.jit
def _sum(k1, u, k2, v, k3, w):
    """k1·u + k2·v + k3·w."""
    return k1 * u[0] + k2 * v[0] + k3 * w[0], k1 * u[1] + k2 * v[1] + k3 * w[1], k1 * u[2] + k2 * v[2] + k3 * w[2]


@triton.jit
def _view(view):
    """Rows of a camera's rotation, and its translation."""
    r1 = (tl.load(view), tl.load(view + 1), tl.load(view + 2))
    r2 = (tl.load(view + 4), tl.load(view + 5), tl.load(view + 6))
    r3 = (tl.load(view + 8), tl.load(view + 9), tl.load(view + 10))
    return r1, r2, r3, (tl.load(view + 3), tl.load(view + 7), tl.load(view + 11))


@triton.jit
def _rotation(quats, i, there):
    """Of quaternions of any length: the length, the unit quaternion, and the matrix' rows."""
    w, x = tl.load(quats + 4 * i, mask=there, other=1.0), tl.load(quats + 4 * i + 1, mask=there, other=0.0)
    y, z = tl.load(quats + 4 * i + 2, mask=there, other=0.0), tl.load(quats + 4 * i + 3, mask=there, other=0.0)
    size = tl.maximum(tl.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    w, x, y, z = w / size, x / size, y / size, z / size
    one = (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y))
    two = (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x))
    three = (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y))
    return size, (w, x, y, z), one, two, three


@triton.jit
def _seen(mean, scale, m1, m2, m3, view, K, NEAR, WIDTH, HEIGHT):
    """In camera space: the centre; whether it is before the camera; its directions x/z and y/z, the same clamped as the Jacobian
    takes them, and whether that changed nothing; the last row of R M; and the two of J R M."""
    r1, r2, r3, t = _view(view)
    fx, fy, cx, cy = tl.load(K), tl.load(K + 4), tl.load(K + 2), tl.load(K + 5)
    x, y, z = dot(r1, mean) + t[0], dot(r2, mean) + t[1], dot(r3, mean) + t[2]
    before = z > NEAR
    z = tl.where(before, z, 1.0)
    u, v = x / z, y / z
    cu = tl.maximum(tl.minimum(u, (WIDTH - cx) / fx + 0.15 * WIDTH / fx), -cx / fx - 0.15 * WIDTH / fx)
    cv = tl.maximum(tl.minimum(v, (HEIGHT - cy) / fy + 0.15 * HEIGHT / fy), -cy / fy - 0.15 * HEIGHT / fy)
    m1, m2, m3 = _times(m1, scale), _times(m2, scale), _times(m3, scale)
    w1, w2, w3 = (
        _sum(r1[0], m1, r1[1], m2, r1[2], m3),
        _sum(r2[0], m1, r2[1], m2, r2[2], m3),
        _sum(r3[0], m1, r3[1], m2, r3[2], m3),
    )
    t1, t2 = _sum(fx / z, w1, -fx / z * cu, w3, 0.0, w3), _sum(fy / z, w2, -fy / z * cv, w3, 0.0, w3)
    return (x, y, z), before, (u, v), (cu, cv), (u == cu, v == cv), w3, t1, t2


@triton.jit
def _project(
    means, quats, scales, opacities, colors, views, Ks, rows, N, WIDTH, HEIGHT, NEAR, EPS, ROW: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Programs: blocks of Gaussians × images."""
    image, n = tl.program_id(1), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = n < N
    i = image.to(tl.int64) * N + n
    K, at = Ks + 9 * image, rows + i * ROW
    _, _, m1, m2, m3 = _rotation(quats, i, there)
    mean, scale = _three(means + 3 * i, there), _three(scales + 3 * i, there)
    p, before, ray, _, _, _, t1, t2 = _seen(mean, scale, m1, m2, m3, views + 16 * image, K, NEAR, WIDTH, HEIGHT)
    xx, xy, yy = dot(t1, t1) + EPS, dot(t1, t2), dot(t2, t2) + EPS
    det = xx * yy - xy * xy
    level = tl.log2(tl.maximum(tl.load(opacities + i, mask=there, other=0.0), 1e-30))
    x, y = tl.load(K) * ray[0] + tl.load(K + 2), tl.load(K + 4) * ray[1] + tl.load(K + 5)
    far = 2 * (level + LEVELS) / LOG2E
    rx, ry = tl.sqrt(tl.maximum(far * xx, 0.0)), tl.sqrt(tl.maximum(far * yy, 0.0))
    inside = (x - rx < WIDTH) & (x + rx > 0) & (y - ry < HEIGHT) & (y + ry > 0)
    drawn = before & (det > 0) & (det < float("inf")) & (far > 0) & inside
    a, m, c = yy / det * (0.5 * LOG2E), xy / det * -LOG2E, xx / det * (0.5 * LOG2E)
    # A thread has a whole row: twelve stores of one number each would be four times as many sectors.
    r, g, b = _three(colors + 3 * i, there)
    even, odd = tl.join(tl.join(x, c), tl.join(a, r)), tl.join(tl.join(y, level), tl.join(m, g))
    first = tl.where(drawn[:, None], tl.reshape(tl.join(even, odd), [BLOCK, 8]), 0.0)
    rest = tl.reshape(tl.join(tl.join(b, rx), tl.join(p[2], ry)), [BLOCK, 4])
    tl.store(at[:, None] + tl.arange(0, 8)[None, :], first, mask=there[:, None])
    tl.store(at[:, None] + 8 + tl.arange(0, 4)[None, :], tl.where(drawn[:, None], rest, 0.0), mask=there[:, None])


@triton.jit
def _project_backward(
    means, quats, scales, opacities, views, Ks, rows, drows, dmeans, dquats, dscales, dopacities, N, WIDTH, HEIGHT, NEAR,
    ROW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b, n = tl.program_id(1), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = n < N
    i = b.to(tl.int64) * N + n
    K, at, d = Ks + 9 * b, rows + i * ROW, drows + i * ROW
    fx, fy = tl.load(K), tl.load(K + 4)
    drawn = tl.load(at + 10, mask=there, other=0.0) > 0
    size, q, r1, r2, r3 = _rotation(quats, i, there)
    mean, scale = _three(means + 3 * i, there), _three(scales + 3 * i, there)
    p, _, _, ray, inside, w3, t1, t2 = _seen(mean, scale, r1, r2, r3, views + 16 * b, K, NEAR, WIDTH, HEIGHT)
    # The conic X is the covariance's inverse: ∂L/∂covariance = −X G X. Rows hold X times log2 e, and its diagonal halved.
    A, B, C = _three(at + 2, there)
    A, B, C = A * 2 / LOG2E, B / LOG2E, C * 2 / LOG2E
    ga, gb, gc = _three(d + 2, there)
    ga, gb, gc = ga * 0.5 * LOG2E, gb * 0.5 * LOG2E, gc * 0.5 * LOG2E
    aa, ab, ba, bb = A * ga + B * gb, A * gb + B * gc, B * ga + C * gb, B * gb + C * gc
    gxx, gxy, gyy = -(aa * A + ab * B), -(aa * B + ab * C), -(ba * B + bb * C)
    g1, g2 = (
        _sum(2 * gxx, t1, 2 * gxy, t2, 0.0, t2),
        _sum(2 * gxy, t1, 2 * gyy, t2, 0.0, t2),
    )  # of J R M, whose square it is
    z = p[2]
    dx, dy, dz = (
        tl.load(d, mask=there, other=0.0),
        tl.load(d + 1, mask=there, other=0.0),
        tl.load(d + 9, mask=there, other=0.0),
    )
    gu = tl.where(inside[0], -fx / z * dot(g1, w3), 0.0) + fx * dx
    gv = tl.where(inside[1], -fy / z * dot(g2, w3), 0.0) + fy * dy
    gz = dz - (dot(g1, t1) + dot(g2, t2)) / z - (gu * p[0] + gv * p[1]) / (z * z)
    v1, v2, v3, _ = _view(views + 16 * b)
    dmean = _sum(gu / z, v1, gv / z, v2, gz, v3)
    # Back through J R M, M = rotation · scales: h is ∂L/∂(R M).
    h1, h2 = _sum(fx / z, g1, 0.0, g1, 0.0, g1), _sum(fy / z, g2, 0.0, g2, 0.0, g2)
    h3 = _sum(-ray[0], h1, -ray[1], h2, 0.0, h2)
    m1, m2, m3 = (
        _sum(v1[0], h1, v2[0], h2, v3[0], h3),
        _sum(v1[1], h1, v2[1], h2, v3[1], h3),
        _sum(v1[2], h1, v2[2], h2, v3[2], h3),
    )
    o = tl.load(opacities + i, mask=drawn, other=1.0)
    tl.store(dopacities + i, tl.where(drawn, tl.load(d + 5, mask=there, other=0.0) * LOG2E / o, 0.0), mask=there)
    for c in tl.static_range(3):
        tl.store(dmeans + 3 * i + c, tl.where(drawn, dmean[c], 0.0), mask=there)
        tl.store(dscales + 3 * i + c, tl.where(drawn, m1[c] * r1[c] + m2[c] * r2[c] + m3[c] * r3[c], 0.0), mask=there)
    m1, m2, m3 = _times(m1, scale), _times(m2, scale), _times(m3, scale)  # of the rotation
    w, x, y, z = q[0], q[1], q[2], q[3]
    gw = 2 * (x * (m3[1] - m2[2]) + y * (m1[2] - m3[0]) + z * (m2[0] - m1[1]))
    gx = 2 * (-2 * x * (m2[1] + m3[2]) + y * (m1[1] + m2[0]) + z * (m1[2] + m3[0]) + w * (m3[1] - m2[2]))
    gy = 2 * (x * (m1[1] + m2[0]) - 2 * y * (m1[0] + m3[2]) + z * (m2[2] + m3[1]) + w * (m1[2] - m3[0]))
    gz = 2 * (x * (m1[2] + m3[0]) + y * (m2[2] + m3[1]) - 2 * z * (m1[0] + m2[1]) + w * (m2[0] - m1[1]))
    along = gw * w + gx * x + gy * y + gz * z
    tl.store(dquats + 4 * i, tl.where(drawn, (gw - along * w) / size, 0.0), mask=there)
    tl.store(dquats + 4 * i + 1, tl.where(drawn, (gx - along * x) / size, 0.0), mask=there)
    tl.store(dquats + 4 * i + 2, tl.where(drawn, (gy - along * y) / size, 0.0), mask=there)
    tl.store(dquats + 4 * i + 3, tl.where(drawn, (gz - along * z) / size, 0.0), mask=there)


def project(
    means: Float[Tensor, "I N 3"], quats: Float[Tensor, "I N 4"], scales: Float[Tensor, "I N 3"], opacities: Float[Tensor, "I N"],
    colors: Float[Tensor, "I N 3"], views: Float[Tensor, "I 4 4"], Ks: Float[Tensor, "I 3 3"], width: int, height: int,
) -> Float[Tensor, "I N R"]:  # fmt: skip
    images, n = opacities.shape
    rows = means.new_empty(images, n, ROW)
    if rows.numel():
        run_kernel(
            _project, (triton.cdiv(n, BLOCK), images), means, quats, scales, opacities, colors, views, Ks, rows, n, width, height,
            NEAR, EPS_2D, ROW=ROW, BLOCK=BLOCK,
        )  # fmt: skip
    return rows


def project_backward(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, views: Tensor, Ks: Tensor, rows: Tensor, drows: Tensor,
    width: int, height: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    """→ gradients of means, quaternions, scales, opacities and colours."""
    images, n = opacities.shape
    grads = [torch.empty_like(t) for t in (means, quats, scales, opacities)]
    if rows.numel():
        run_kernel(
            _project_backward, (triton.cdiv(n, BLOCK), images), means, quats, scales, opacities, views, Ks, rows, drows, *grads, n,
            width, height, NEAR, ROW=ROW, BLOCK=BLOCK,
        )  # fmt: skip
    return *grads, drows[..., COLOR : COLOR + 3]
