"""Blendshapes of Gaussians and skinning, per frame in one launch (twin: `reference.blend_gaussians`; LAM, 3D Gaussian
Blendshapes, PAPER §4).

The published form streams K blendshapes of 14 numbers per Gaussian: at K = 29 and N = 196,608, 160 MB in 16 bits, 53 µs at
3 TB/s. Ours come from a network whose last layer is linear, B_k = W_k h, so that Σ_k ψ_k B_k = (Σ_k ψ_k W_k) h: per frame one
readout [14,H], per Gaussian H = 64 numbers, 128 B instead of 812. Floor with everything else (108 B in, 56 B out): 57 MB, 19 µs
for one frame in 16 bits (28 µs in fp32); 32 frames 46 MB + 352 MB, 133 µs. A tile's h meets every frame on the tensor cores.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fused.launch import in_fp32, per_person, run_kernel
from kernels.fused.segments import largest, raise_to, segment_sums, zeros
from kernels.fused.vectors import in_fours, multiply, put, rows
from kernels.layout import JOINTS, Attributes, Binding

TILE, WARPS = 128, 4
FRAMES = 8
"""Frames that a program goes through, so that it reads a Gaussian once for them."""
SUMMED, TILES, TOGETHER = 32, 16, 4
"""Gaussians of a tile where sums over all of them are taken, tiles of a program, frames of it at most."""


@triton.jit
def _columns(x):
    """[T,16] → sixteen [T]."""
    T: tl.constexpr = x.shape[0]
    even, odd = tl.split(tl.reshape(x, (T, 2, 2, 2, 2)))
    a, b = tl.split(even)  # columns 0 mod 4, 2 mod 4
    c, d = tl.split(odd)
    a0, a8 = tl.split(tl.permute(a, (0, 2, 1)))
    b0, b8 = tl.split(tl.permute(b, (0, 2, 1)))
    c0, c8 = tl.split(tl.permute(c, (0, 2, 1)))
    d0, d8 = tl.split(tl.permute(d, (0, 2, 1)))
    x0, x4 = tl.split(a0)
    x8, x12 = tl.split(a8)
    x2, x6 = tl.split(b0)
    x10, x14 = tl.split(b8)
    x1, x5 = tl.split(c0)
    x9, x13 = tl.split(c8)
    x3, x7 = tl.split(d0)
    x11, x15 = tl.split(d8)
    return x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15


@triton.jit
def _pieces(hidden, own, H: tl.constexpr, PIECE: tl.constexpr):
    """h of a tile: H goes in pieces, powers of two."""
    h = ()
    for p in tl.static_range(0, H, PIECE):
        h = h + (tl.load(hidden + own[:, None] * H + (p + tl.arange(0, PIECE))[None, :]),)  # noqa: RUF005
    return h


@triton.jit
def _delta(h, readout, bias, H: tl.constexpr, PIECE: tl.constexpr):
    """Sixteen changes per Gaussian: readout · h + bias."""
    column = tl.arange(0, 16)
    x = tl.zeros((h[0].shape[0], 16), tl.float32) + tl.load(bias + column)[None, :]
    for p in tl.static_range(0, H, PIECE):
        r = tl.load(readout + column[:, None] * H + (p + tl.arange(0, PIECE))[None, :]).to(h[0].dtype)
        x = tl.dot(h[p // PIECE], tl.trans(r), x, input_precision="tf32x3")
    return _columns(x)


@triton.jit
def _three(base, index):
    return tl.load(base + 3 * index), tl.load(base + 3 * index + 1), tl.load(base + 3 * index + 2)


@triton.jit
def _binding(near, weights, joints, person, n, N, NEAR: tl.constexpr):
    """A Gaussian's vertices, their weights, and its five joints' weights."""
    bound, five = person.to(tl.int64) * NEAR * N + n, person.to(tl.int64) * 5 * N + n
    i, w, j = (), (), ()
    for e in tl.static_range(NEAR):
        i = i + (tl.load(near + bound + e * N),)  # noqa: RUF005
        w = w + (tl.load(weights + bound + e * N),)  # noqa: RUF005
    for e in tl.static_range(5):
        j = j + (tl.load(joints + five + e * N),)  # noqa: RUF005
    return i, w, j


@triton.jit
def _offset(vertices, i, w, NEAR: tl.constexpr):
    """Σ_v w_v vertex_v."""
    x, y, z, _ = rows(vertices, i[0])
    x, y, z = w[0] * x, w[0] * y, w[0] * z
    for e in tl.static_range(1, NEAR):
        a, b, c, _ = rows(vertices, i[e])
        x, y, z = x + w[e] * a, y + w[e] * b, z + w[e] * c
    return x, y, z


@triton.jit
def _largest_weight(w, NEAR: tl.constexpr):
    most = tl.abs(w[0])
    for e in tl.static_range(1, NEAR):
        most = tl.maximum(most, tl.abs(w[e]))
    return most


@triton.jit
def _row(A, j, r: tl.constexpr):
    """Row r of Σ_j w_j A_j."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    for e in tl.static_range(5):
        at = A + 16 * e + 4 * r
        a, b = a + j[e] * tl.load(at), b + j[e] * tl.load(at + 1)
        c, d = c + j[e] * tl.load(at + 2), d + j[e] * tl.load(at + 3)
    return a, b, c, d


@triton.jit
def _rotation(xx, xy, xz, yx, yy, yz, zx, zy, zz):
    """Of a blend of rotations, to first order: the twin's `_nearest_rotation`."""
    w = 0.5 * tl.sqrt_rn(tl.maximum(1 + xx + yy + zz, 1e-6))
    h = 0.25 / w
    return w, h * (zy - yz), h * (xz - zx), h * (yx - xy)


@triton.jit
def _forward(
    means, quats, scales, opacities, colors, near, weights, joints, hidden, readout, bias, unposed, transforms,
    out_means, out_quats, out_scales, out_opacities, out_colors, N, V, PER, readout_step, bias_step,
    NEAR: tl.constexpr, H: tl.constexpr, PIECE: tl.constexpr, TILE: tl.constexpr, FRAMES: tl.constexpr,
):  # fmt: skip
    n, person = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.program_id(1)
    there = n < N
    n = tl.minimum(n, N - 1)
    own = person.to(tl.int64) * N + n
    mx, my, mz = _three(means, own)
    sx, sy, sz = _three(scales, own)
    cr, cg, cb = _three(colors, own)
    qw, qx, qy, qz = rows(quats, own)
    o = tl.load(opacities + own)
    i, w, j = _binding(near, weights, joints, person, n, N, NEAR)
    h = _pieces(hidden, own, H, PIECE)
    first = tl.program_id(2) * FRAMES
    for f in range(first, tl.minimum(first + FRAMES, PER)):
        frame = (person * PER + f).to(tl.int64)
        d = _delta(h, readout + frame * readout_step, bias + frame * bias_step, H, PIECE)
        x, y, z = _offset(unposed + frame * V * 4, i, w, NEAR)
        x, y, z = mx + x + d[0], my + y + d[1], mz + z + d[2]
        A = transforms + frame * 80
        xx, xy, xz, tx = _row(A, j, 0)
        yx, yy, yz, ty = _row(A, j, 1)
        zx, zy, zz, tz = _row(A, j, 2)
        to = frame * N + n
        put(
            out_means, to, there, xx * x + xy * y + xz * z + tx, yx * x + yy * y + yz * z + ty,
            zx * x + zy * y + zz * z + tz, tx, 3,
        )  # fmt: skip
        put(out_scales, to, there, sx * tl.exp(d[3]), sy * tl.exp(d[4]), sz * tl.exp(d[5]), sx, 3)
        a, b, c, e = _rotation(xx, xy, xz, yx, yy, yz, zx, zy, zz)
        a, b, c, e = multiply(a, b, c, e, qw + d[6], qx + d[7], qy + d[8], qz + d[9])
        put(out_quats, to, there, a, b, c, e, 4)
        grown = o * tl.exp(tl.minimum(tl.maximum(d[10], -15.0), 15.0))
        tl.store(out_opacities + to, grown / (grown + 1 - o), mask=there)
        put(out_colors, to, there, cr + d[11], cg + d[12], cb + d[13], cr, 3)


@triton.jit
def _backward(
    means, quats, scales, opacities, near, weights, joints, hidden, readout, bias, unposed, transforms,
    d_means, d_quats, d_scales, d_opacities, d_colors,
    own_means, own_quats, own_scales, own_opacities, own_colors, d_delta, d_vertices, most, d_transforms,
    N, V, PER, readout_step, bias_step, VERTICES: tl.constexpr, TRANSFORMS: tl.constexpr,
    NEAR: tl.constexpr, H: tl.constexpr, PIECE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Gradients of the base, summed over a person's frames; of δ, [B,N,k,16]; and where wanted what each Gaussian gives to its
    vertices, [F,N,3], and to its own blend of the transforms, [F,N,12]."""
    n, person = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.program_id(1)
    there = n < N
    n = tl.minimum(n, N - 1)
    own = person.to(tl.int64) * N + n
    mx, my, mz = _three(means, own)
    sx, sy, sz = _three(scales, own)
    qw, qx, qy, qz = rows(quats, own)
    o = tl.load(opacities + own)
    i, w, j = _binding(near, weights, joints, person, n, N, NEAR)
    h = _pieces(hidden, own, H, PIECE)
    heaviest = _largest_weight(w, NEAR)
    zero = tl.zeros((TILE,), tl.float32)
    dmx, dmy, dmz, dsx, dsy, dsz, dqw = zero, zero, zero, zero, zero, zero, zero
    dqx, dqy, dqz, do, dr, dg, db = zero, zero, zero, zero, zero, zero, zero
    for f in range(PER):
        frame = (person * PER + f).to(tl.int64)
        d = _delta(h, readout + frame * readout_step, bias + frame * bias_step, H, PIECE)
        A = transforms + frame * 80
        xx, xy, xz, _ = _row(A, j, 0)
        yx, yy, yz, _ = _row(A, j, 1)
        zx, zy, zz, _ = _row(A, j, 2)
        at = frame * N + n
        gx, gy, gz = _three(d_means, at)
        px, py, pz = xx * gx + yx * gy + zx * gz, xy * gx + yy * gy + zy * gz, xz * gx + yz * gy + zz * gz
        dmx, dmy, dmz = dmx + px, dmy + py, dmz + pz
        ex, ey, ez = tl.exp(d[3]), tl.exp(d[4]), tl.exp(d[5])
        hx, hy, hz = _three(d_scales, at)
        hx, hy, hz = ex * hx, ey * hy, ez * hz
        dsx, dsy, dsz = dsx + hx, dsy + hy, dsz + hz
        kw, kx, ky, kz = rows(d_quats, at)
        a, b, c, e = _rotation(xx, xy, xz, yx, yy, yz, zx, zy, zz)
        uw, ux, uy, uz = multiply(a, -b, -c, -e, kw, kx, ky, kz)
        dqw, dqx, dqy, dqz = dqw + uw, dqx + ux, dqy + uy, dqz + uz
        grow = tl.exp(tl.minimum(tl.maximum(d[10], -15.0), 15.0))
        g = tl.load(d_opacities + at) * grow / ((o * grow + 1 - o) * (o * grow + 1 - o))
        do += g
        cr, cg, cb = _three(d_colors, at)
        dr, dg, db = dr + cr, dg + cg, db + cb
        to = (own * PER + f) * 4  # in rows of four
        logit = tl.where(tl.abs(d[10]) <= 15, g * o * (1 - o), 0.0)
        put(d_delta, to, there, px, py, pz, sx * hx, 4)
        put(d_delta, to + 1, there, sy * hy, sz * hz, uw, ux, 4)
        put(d_delta, to + 2, there, uy, uz, logit, cr, 4)
        put(d_delta, to + 3, there, cg, cb, zero, zero, 4)
        if VERTICES:
            put(d_vertices, at, there, px, py, pz, pz, 3)
            raise_to(most + frame, largest(heaviest * px, heaviest * py, heaviest * pz))
        if TRANSFORMS:
            x, y, z = _offset(unposed + frame * V * 4, i, w, NEAR)
            x, y, z = mx + x + d[0], my + y + d[1], mz + z + d[2]
            vw, vx, vy, vz = multiply(kw, kx, ky, kz, qw + d[6], -(qx + d[7]), -(qy + d[8]), -(qz + d[9]))
            r = 0.25 / a
            s = tl.where(1 + xx + yy + zz > 1e-6, 0.5 * r * (vw - (vx * b + vy * c + vz * e) / a), 0.0)
            vx, vy, vz = r * vx, r * vy, r * vz
            put(d_transforms, 3 * at, there, gx * x + s, gx * y - vz, gx * z + vy, gx, 4)
            put(d_transforms, 3 * at + 1, there, gy * x + vz, gy * y + s, gy * z - vx, gy, 4)
            put(d_transforms, 3 * at + 2, there, gz * x - vy, gz * y + vx, gz * z + s, gz, 4)
    put(own_means, own, there, dmx, dmy, dmz, dmx, 3)
    put(own_quats, own, there, dqw, dqx, dqy, dqz, 4)
    put(own_scales, own, there, dsx, dsy, dsz, dsx, 3)
    tl.store(own_opacities + own, do, mask=there)
    put(own_colors, own, there, dr, dg, db, dr, 3)


@triton.jit
def _sums(
    hidden, d_delta, joints, d_transforms, parts, N, PER, GROUPS, H: tl.constexpr, PIECE: tl.constexpr,
    FRAMES: tl.constexpr, TILES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """A program's part, of TILES · TILE Gaussians, of the gradients of FRAMES frames' readouts, biases and (unless d_transforms
    is None) transforms: columns are the sixteen changes, or a transform's twelve entries, of each of the frames."""
    part, piece, group = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    person, first = (group // GROUPS).to(tl.int64), group % GROUPS * FRAMES
    C: tl.constexpr = 16 * FRAMES
    column, joint, k = tl.arange(0, C), tl.arange(0, 16), piece * PIECE + tl.arange(0, PIECE)
    frame, entry = first + column // 16, column % 16
    of_readout, of_bias = tl.zeros((PIECE, C), tl.float32), tl.zeros((C,), tl.float32)
    of_transforms = tl.zeros((16, C), tl.float32)
    for i in range(TILES):
        n = (part * TILES + i) * TILE + tl.arange(0, TILE)
        there = n < N
        own, both = person * N + n, there[:, None] & (frame < PER)[None, :]
        h = tl.load(hidden + own[:, None] * H + k[None, :], mask=there[:, None], other=0.0)
        d = tl.load(d_delta + own[:, None] * (16 * PER) + (16 * first + column)[None, :], mask=both, other=0.0)
        of_bias += tl.sum(d, 0)
        of_readout = tl.dot(tl.trans(h), d.to(h.dtype), of_readout, input_precision="tf32x3")
        if d_transforms is not None:
            at = joints + (person * 5 + joint[:, None]) * N + n[None, :]
            w = tl.load(at, mask=(joint < 5)[:, None] & there[None, :], other=0.0)
            at = ((person * PER + frame)[None, :] * N + n[:, None]) * 12 + entry[None, :]
            g = tl.load(d_transforms + at, mask=both & (entry < 12)[None, :], other=0.0)
            of_transforms = tl.dot(w, g, of_transforms, input_precision="tf32x3")
    to = parts + (group * tl.num_programs(0) + part) * (C * (H + 17))
    tl.store(to + column[None, :] * H + k[:, None], of_readout)
    if piece == 0:
        tl.store(to + C * H + column, of_bias)
        tl.store(to + C * (H + 1) + joint[:, None] * C + column[None, :], of_transforms)


def _frame_gradients(hidden, d_delta, joints, d_transforms) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of readout, bias and transforms, in one reading of what the Gaussians give to them."""
    B, N, H = hidden.shape
    per = d_delta.shape[2]
    frames = min(triton.next_power_of_2(per), TOGETHER)
    P, groups, C = triton.cdiv(N, TILES * SUMMED), triton.cdiv(per, frames), 16 * frames
    parts = torch.empty(B, groups, P, C * (H + 17), device=hidden.device)
    run_kernel(
        _sums, (P, H // _piece(H), B * groups),
        hidden, d_delta, joints, d_transforms, parts, N, per, groups, H, _piece(H), frames, TILES, SUMMED,
        num_warps=WARPS, num_stages=3,
    )  # fmt: skip
    readout, bias, transforms = parts.sum(2).split([C * H, C, 16 * C], -1)
    by_frame = lambda t, *shape: t.reshape(B, groups * frames, *shape)[:, :per].flatten(0, 1)  # noqa: E731
    if d_transforms is None:
        return by_frame(readout, 16, H), by_frame(bias, 16), None
    transforms = transforms.unflatten(-1, (16, frames, 4, 4))[:, :, :JOINTS].transpose(2, 3)
    return by_frame(readout, 16, H), by_frame(bias, 16), by_frame(transforms, JOINTS, 4, 4)


def _blend(hidden, readout, bias, unposed, transforms, near, weights, joints, *base) -> tuple[Tensor, ...]:
    (B, N, H), F, V = hidden.shape, len(readout), unposed.shape[1]
    out = tuple(torch.empty(F, *t.shape[1:], device=hidden.device) for t in base)
    per = per_person(F, B)
    grid = (triton.cdiv(N, TILE), B, triton.cdiv(per, FRAMES))
    run_kernel(
        _forward, grid,
        *base, near, weights, joints, hidden, readout, bias, unposed, transforms, *out,
        N, V, per, readout.stride(0), bias.stride(0), near.shape[1], H, _piece(H), TILE, FRAMES,
        num_warps=WARPS, num_stages=1,
    )  # fmt: skip
    return out


def _piece(width: int) -> int:
    """The largest power of two that divides the width, 64 at most."""
    return min(width & -width, 64)


class _Blendshapes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *given):
        ctx.save_for_backward(*given)
        return _blend(*given)

    @staticmethod
    def backward(ctx, *d_out):
        hidden, readout, bias, unposed, transforms, near, weights, joints, *base = ctx.saved_tensors
        (B, N, H), F, V = hidden.shape, len(readout), unposed.shape[1]
        vertices, moved = ctx.needs_input_grad[3:5]
        device = hidden.device
        own = [torch.empty_like(t) for t in base]
        d_delta = torch.empty(B, N, F // B, 16, device=device)
        d_vertices = torch.empty(F, 1, N, 3, device=device) if vertices else None
        sums, most = zeros(F, V, device) if vertices else (None, None)
        d_transforms = torch.empty(F, N, 12, device=device) if moved else None
        run_kernel(
            _backward, (triton.cdiv(N, TILE), B),
            *base[:4], near, weights, joints, hidden, readout, bias, unposed, transforms,
            *(t.contiguous() for t in d_out), *own, d_delta, d_vertices, most, d_transforms,
            N, V, F // B, readout.stride(0), bias.stride(0), vertices, moved, near.shape[1], H, _piece(H), TILE,
            num_warps=WARPS, num_stages=1,
        )  # fmt: skip
        d_hidden = d_delta.flatten(2).to(hidden.dtype) @ readout.to(hidden.dtype).reshape(B, -1, H)
        d_readout, d_bias, d_transforms = _frame_gradients(hidden, d_delta, joints, d_transforms)
        d_vertices = segment_sums(d_vertices, near, weights, sums, most) if vertices else None
        return d_hidden, d_readout, d_bias, d_vertices, d_transforms, None, None, None, *own


def blend_gaussians(
    base: Attributes,
    binding: Binding,
    hidden: Tensor,
    readout: Tensor,
    bias: Tensor,
    unposed: Tensor,
    transforms: Tensor,
) -> Attributes:
    """`reference.blend_gaussians`, fused. Raises ValueError where H is no multiple of 16.

    Gradients reach everything but the binding. Rows of `readout` and `bias` may be slices of one longer row per frame.
    """
    width = hidden.shape[2]
    if width % 16 or readout.shape[1:] != (16, width):
        raise ValueError(f"H = {width} must be a multiple of 16 and the readout [F,16,H], not {list(readout.shape)}")
    in_fp32(bias, unposed, transforms, *base)
    near, weights, joints = (t.detach().contiguous() for t in binding._replace(vertices=binding.vertices.int()))
    readout = readout if readout.stride()[1:] == (width, 1) else readout.contiguous()
    bias = bias if bias.stride(1) == 1 else bias.contiguous()
    given = (
        hidden.contiguous(), readout, bias, in_fours(unposed), transforms.contiguous(), near, weights, joints,
        *(t.contiguous() for t in base),
    )  # fmt: skip
    return Attributes(*(_Blendshapes.apply(*given) if torch.is_grad_enabled() else _blend(*given)))
