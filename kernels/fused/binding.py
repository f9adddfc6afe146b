"""Gaussians bound to triangles of a driven mesh, in one launch (twin: `reference.bind_gaussians`; GaussianAvatars, PAPER §4).

Floor: per Gaussian 44 B in (triangle, local geometry), once for all frames of a person, and 40 B out per frame: at N = 196,608
5.5 µs for one frame, 87 µs for 32, at 3 TB/s. Vertices and faces stay in the caches; a triangle's frame is made again by each
Gaussian on it, in registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fused.launch import in_fp32, per_person, run_kernel
from kernels.fused.segments import largest, raise_to, segment_sums, zeros
from kernels.fused.vectors import in_fours, multiply, put, rows
from kernels.layout import Bound

TILE, WARPS = 128, 4
FRAMES = 8
"""Frames that a program goes through, so that it reads the local geometry once for them."""


@triton.jit
def _frame(vertices, a, b, c):
    """Centre, rotation (row by row), size of triangles by their corners' indices: `reference.triangle_frames`. Then how long
    the first edge and the height over it are, and how far along the first edge the third corner is."""
    ax, ay, az, _ = rows(vertices, a)
    bx, by, bz, _ = rows(vertices, b)
    cx, cy, cz, _ = rows(vertices, c)
    ux, uy, uz = bx - ax, by - ay, bz - az
    vx, vy, vz = cx - ax, cy - ay, cz - az
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    base = tl.sqrt_rn(ux * ux + uy * uy + uz * uz + 1e-20)
    area = tl.sqrt_rn(nx * nx + ny * ny + nz * nz + 1e-20)
    p, q = 1 / base, 1 / area
    ux, uy, uz, nx, ny, nz = ux * p, uy * p, uz * p, nx * q, ny * q, nz * q
    third, height = 1.0 / 3, area * p
    return (
        (ax + bx + cx) * third, (ay + by + cy) * third, (az + bz + cz) * third,
        ux, nx, uy * nz - uz * ny, uy, ny, uz * nx - ux * nz, uz, nz, ux * ny - uy * nx,
        0.5 * (base + height), base, height, ux * vx + uy * vy + uz * vz,
    )  # fmt: skip


@triton.jit
def _quaternion(xx, xy, xz, yx, yy, yz, zx, zy, zz):
    """By the largest component, as the twin's."""
    w, x, y, z = 1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz
    a, b, c, d = w, zy - yz, xz - zx, yx - xy
    most = w
    more = x > most
    a, b, c, d = (
        tl.where(more, zy - yz, a),
        tl.where(more, x, b),
        tl.where(more, yx + xy, c),
        tl.where(more, xz + zx, d),
    )
    most = tl.where(more, x, most)
    more = y > most
    a, b, c, d = (
        tl.where(more, xz - zx, a),
        tl.where(more, yx + xy, b),
        tl.where(more, y, c),
        tl.where(more, zy + yz, d),
    )
    most = tl.where(more, y, most)
    more = z > most
    a, b, c, d = (
        tl.where(more, yx - xy, a),
        tl.where(more, xz + zx, b),
        tl.where(more, zy + yz, c),
        tl.where(more, z, d),
    )
    most = tl.where(more, z, most)
    h = 0.5 / tl.sqrt_rn(most)
    return a * h, b * h, c * h, d * h


@triton.jit
def _forward(
    vertices, faces, triangles, means, quats, scales, out_means, out_quats, out_scales, N, V, PER,
    TILE: tl.constexpr, FRAMES: tl.constexpr,
):  # fmt: skip
    n, person = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.program_id(1)
    there = n < N
    n = tl.minimum(n, N - 1)
    own = person.to(tl.int64) * N + n
    t = 3 * tl.load(triangles + own)
    a, b, c = tl.load(faces + t), tl.load(faces + t + 1), tl.load(faces + t + 2)
    mx, my, mz = tl.load(means + 3 * own), tl.load(means + 3 * own + 1), tl.load(means + 3 * own + 2)
    sx, sy, sz = tl.load(scales + 3 * own), tl.load(scales + 3 * own + 1), tl.load(scales + 3 * own + 2)
    qw, qx, qy, qz = rows(quats, own)
    first = tl.program_id(2) * FRAMES
    for i in range(first, tl.minimum(first + FRAMES, PER)):
        frame = (person * PER + i).to(tl.int64)
        tx, ty, tz, xx, xy, xz, yx, yy, yz, zx, zy, zz, k, _, _, _ = _frame(vertices + frame * V * 4, a, b, c)
        to = frame * N + n
        put(
            out_means, to, there, k * (xx * mx + xy * my + xz * mz) + tx, k * (yx * mx + yy * my + yz * mz) + ty,
            k * (zx * mx + zy * my + zz * mz) + tz, tz, 3,
        )  # fmt: skip
        w, x, y, z = _quaternion(xx, xy, xz, yx, yy, yz, zx, zy, zz)
        w, x, y, z = multiply(w, x, y, z, qw, qx, qy, qz)
        put(out_quats, to, there, w, x, y, z, 4)
        put(out_scales, to, there, k * sx, k * sy, k * sz, k, 3)


@triton.jit
def _backward(
    vertices, faces, triangles, means, quats, scales, d_means, d_quats, d_scales, own_means, own_quats, own_scales,
    corners, owners, most, N, V, PER, PULL: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Gradient of the local geometry, summed over a person's frames; and where wanted that of each Gaussian's three corners in
    each frame, [F,3,N,3], with their vertices, [B,3,N], and the largest magnitude of a frame.

    A Gaussian pulls with the gradients of centre, g, of rotation, the torque τ = ∂/∂ω with dR = [ω]R, and of log k, whatever branch
    its quaternion took. In the triangle's own axes, u along the first edge e, n normal, w = u × n, the third corner is at
    f = x u − h w from the first, k = (|e| + h)/2, and ω = u dn·w − n du·w + w du·n with du = de/|e| (across u) and
    dn = d(e × f)/(|e| h) (across n). So with μ = ∂ log k/k
        ∂e = ½μ u + (½μ x − τ_n)/|e| w + (τ_w − τ_u x/h)/|e| n,    ∂f = −½μ w + τ_u/h n."""
    n, person = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.program_id(1)
    there = n < N
    n = tl.minimum(n, N - 1)
    own = person.to(tl.int64) * N + n
    t = 3 * tl.load(triangles + own)
    a, b, c = tl.load(faces + t), tl.load(faces + t + 1), tl.load(faces + t + 2)
    mx, my, mz = tl.load(means + 3 * own), tl.load(means + 3 * own + 1), tl.load(means + 3 * own + 2)
    sx, sy, sz = tl.load(scales + 3 * own), tl.load(scales + 3 * own + 1), tl.load(scales + 3 * own + 2)
    qw, qx, qy, qz = rows(quats, own)
    zero = tl.zeros((TILE,), tl.float32)
    dmx, dmy, dmz, dqw, dqx, dqy, dqz, dsx, dsy, dsz = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
    for i in range(PER):
        frame = (person * PER + i).to(tl.int64)
        _, _, _, xx, xy, xz, yx, yy, yz, zx, zy, zz, k, base, height, along = _frame(vertices + frame * V * 4, a, b, c)
        w, x, y, z = _quaternion(xx, xy, xz, yx, yy, yz, zx, zy, zz)
        at = frame * N + n
        gx, gy, gz = tl.load(d_means + 3 * at), tl.load(d_means + 3 * at + 1), tl.load(d_means + 3 * at + 2)
        hx, hy, hz = tl.load(d_scales + 3 * at), tl.load(d_scales + 3 * at + 1), tl.load(d_scales + 3 * at + 2)
        gw, gi, gj, gk = rows(d_quats, at)
        dmx += k * (xx * gx + yx * gy + zx * gz)
        dmy += k * (xy * gx + yy * gy + zy * gz)
        dmz += k * (xz * gx + yz * gy + zz * gz)
        dsx, dsy, dsz = dsx + k * hx, dsy + k * hy, dsz + k * hz
        p, q, r, s = multiply(w, -x, -y, -z, gw, gi, gj, gk)
        dqw, dqx, dqy, dqz = dqw + p, dqx + q, dqy + r, dqz + s
        if PULL:
            ax, ay, az = (
                k * (xx * mx + xy * my + xz * mz), k * (yx * mx + yy * my + yz * mz), k * (zx * mx + zy * my + zz * mz),
            )  # fmt: skip
            w, x, y, z = multiply(w, x, y, z, qw, qx, qy, qz)
            _, p, q, r = multiply(gw, gi, gj, gk, w, -x, -y, -z)
            tx, ty, tz = ay * gz - az * gy + 0.5 * p, az * gx - ax * gz + 0.5 * q, ax * gy - ay * gx + 0.5 * r
            tu, tn, tw = xx * tx + yx * ty + zx * tz, xy * tx + yy * ty + zy * tz, xz * tx + yz * ty + zz * tz
            m = 0.5 * ((ax * gx + ay * gy + az * gz) / k + sx * hx + sy * hy + sz * hz)
            over, tu = 1 / base, tu / height
            ew, en = (m * along - tn) * over, (tw - tu * along) * over
            ex, ey, ez = m * xx + ew * xz + en * xy, m * yx + ew * yz + en * yy, m * zx + ew * zz + en * zy
            fx, fy, fz = tu * xy - m * xz, tu * yy - m * yz, tu * zy - m * zz
            gx, gy, gz = gx * (1.0 / 3), gy * (1.0 / 3), gz * (1.0 / 3)
            px, py, pz = gx - ex - fx, gy - ey - fy, gz - ez - fz
            ex, ey, ez, fx, fy, fz = gx + ex, gy + ey, gz + ez, gx + fx, gy + fy, gz + fz
            at = 3 * frame * N + n
            put(corners, at, there, px, py, pz, pz, 3)
            put(corners, at + N, there, ex, ey, ez, ez, 3)
            put(corners, at + 2 * N, there, fx, fy, fz, fz, 3)
            bits = tl.maximum(largest(px, py, pz), tl.maximum(largest(ex, ey, ez), largest(fx, fy, fz)))
            raise_to(most + frame, bits)
    if PULL:
        at = owners + 3 * person.to(tl.int64) * N + n
        tl.store(at, a, mask=there)
        tl.store(at + N, b, mask=there)
        tl.store(at + 2 * N, c, mask=there)
    put(own_means, own, there, dmx, dmy, dmz, dmx, 3)
    put(own_quats, own, there, dqw, dqx, dqy, dqz, 4)
    put(own_scales, own, there, dsx, dsy, dsz, dsx, 3)


def _bind(vertices, faces, triangles, means, quats, scales) -> tuple[Tensor, ...]:
    (F, V, _), (B, N, _) = vertices.shape, means.shape
    out = tuple(torch.empty(F, N, width, device=means.device) for width in (3, 4, 3))
    per = per_person(F, B)
    grid = (triton.cdiv(N, TILE), B, triton.cdiv(per, FRAMES))
    run_kernel(
        _forward, grid, vertices, faces, triangles, means, quats, scales, *out, N, V, per, TILE, FRAMES, num_warps=WARPS
    )
    return out


class _Binding(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *given):
        ctx.save_for_backward(*given)
        return _bind(*given)

    @staticmethod
    def backward(ctx, d_means, d_quats, d_scales):
        vertices, faces, triangles, means, quats, scales = ctx.saved_tensors
        (F, V, _), (B, N, _) = vertices.shape, means.shape
        d_means, d_quats, d_scales = d_means.contiguous(), d_quats.contiguous(), d_scales.contiguous()
        own = [torch.empty_like(t) for t in (means, quats, scales)]
        pulled = ctx.needs_input_grad[0]
        corners = owners = sums = most = None
        if pulled:
            corners = torch.empty(F, 3, N, 3, device=means.device)
            owners = torch.empty(B, 3, N, dtype=torch.int32, device=means.device)
            sums, most = zeros(F, V, means.device)
        run_kernel(
            _backward, (triton.cdiv(N, TILE), B),
            vertices, faces, triangles, means, quats, scales, d_means, d_quats, d_scales, *own, corners, owners, most,
            N, V, F // B, pulled, TILE, num_warps=WARPS,
        )  # fmt: skip
        return segment_sums(corners, owners, None, sums, most) if pulled else None, None, None, *own


def bind_gaussians(vertices: Tensor, faces: Tensor, triangles: Tensor, local: Bound) -> Bound:
    """`reference.bind_gaussians`, fused. Gradients reach the vertices and the local geometry."""
    in_fp32(vertices, *local)
    given = in_fours(vertices), *(t.contiguous() for t in (faces.int(), triangles.int(), *local))
    return Bound(*(_Binding.apply(*given) if torch.is_grad_enabled() else _bind(*given)))
