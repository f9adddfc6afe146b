"""What is nearest: of points, and of a mesh's triangles (twins: `variants.nearest`, which finds triangles nearly always).

Points: one pass over all for each of the K, for the least that comes after the last. Equal distances come by their indices.

Triangles: a program has 32 points that lie next to each other. Leaves of triangles have spheres; the nearest that any leaf
promises is a first bound, and only leaves that may hold something nearer are looked into. Exact, where torch's twin looks into six
leaves and takes 10 ms for 16 people of 18,000 Gaussians and 22,264 triangles.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from kernels.fused.launch import run_kernel
from kernels.fused.vectors import dot

MANY, BLOCK = 128, 32
"""Points of a program, of one warp: many share what is read of those they are compared with, few want the same leaves."""
TIE = tl.constexpr(1.0001)
"""Squared distances as near as this are the same: of an edge or a corner that triangles share."""
FLAT = 1e-8
"""Of the longest edge's fourth power, a triangle's area squared (and times four), that has none."""


@triton.jit
def _at(x, i):
    return tl.load(x + 3 * i), tl.load(x + 3 * i + 1), tl.load(x + 3 * i + 2)


@triton.jit
def _minus(u, v):
    return u[0] - v[0], u[1] - v[1], u[2] - v[2]


@triton.jit
def _cross(u, v):
    return u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]


@triton.jit
def _read(points, N, BLOCK: tl.constexpr):
    """A program's points, and where among all people's they are."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    own = tl.program_id(1).to(tl.int64) * N + n
    return _at(points, tl.minimum(own, tl.program_id(1).to(tl.int64) * N + N - 1)), own, n < N


@triton.jit
def _points(points, among, squares, indices, N, P, STEP, K: tl.constexpr, BLOCK: tl.constexpr):
    """STEP: from one person's `among` to the next, 0 where all have the same."""
    p, own, there = _read(points, N, BLOCK)
    among += tl.program_id(1).to(tl.int64) * STEP
    last, place = tl.full([BLOCK], 0.0, tl.float32), tl.full([BLOCK], 0, tl.int32)
    for k in tl.static_range(K):
        best, index = tl.full([BLOCK], float("inf"), tl.float32), tl.full([BLOCK], 0, tl.int32)
        for j in range(P):
            away = _minus(p, _at(among, j))
            square = dot(away, away)
            nearer = square < best
            if k > 0:
                nearer = nearer & ((square > last) | ((square == last) & (j > place)))
            best, index = tl.where(nearer, square, best), tl.where(nearer, j, index)
        tl.store(squares + own * K + k, best, mask=there)
        tl.store(indices + own * K + k, index.to(tl.int64), mask=there)
        last, place = best, index


@triton.jit
def _border(t, e):
    """Squared distance to an edge from its start, which is t away."""
    along = tl.minimum(tl.maximum(dot(t, e) / tl.maximum(dot(e, e), 1e-20), 0.0), 1.0)
    off = t[0] - along * e[0], t[1] - along * e[1], t[2] - along * e[2]
    return dot(off, off)


@triton.jit
def _square(p, a, b, c, FLAT):
    """Squared distance to a triangle (`variants.nearest.distance`)."""
    ab, bc, ca = _minus(b, a), _minus(c, b), _minus(a, c)
    pa, pb, pc = _minus(p, a), _minus(p, b), _minus(p, c)
    normal = _cross(ab, bc)
    area, height = dot(normal, normal), dot(pa, normal)
    inside = tl.minimum(
        tl.minimum(dot(_cross(ab, pa), normal), dot(_cross(bc, pb), normal)), dot(_cross(ca, pc), normal)
    )
    longest = tl.maximum(tl.maximum(dot(ab, ab), dot(bc, bc)), dot(ca, ca))
    border = tl.minimum(tl.minimum(_border(pa, ab), _border(pb, bc)), _border(pc, ca))
    square = tl.where(inside >= 0, height * height / tl.maximum(area, 1e-30), border)
    return tl.where(area <= FLAT * longest * longest, float("inf"), square)


@triton.jit
def _triangles(points, corners, leaves, spheres, found, N, T, L, FLAT, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """spheres: of each person's leaves the middle, how far from it the nearest centre of a triangle is, and the furthest corner."""
    p, own, there = _read(points, N, BLOCK)
    corners += tl.program_id(1).to(tl.int64) * T * 9
    spheres += tl.program_id(1).to(tl.int64) * L * 5
    bound = tl.full([BLOCK], float("inf"), tl.float32)
    for leaf in range(L):
        at = spheres + 5 * leaf
        away = _minus(p, _at(at, 0))
        bound = tl.minimum(bound, tl.sqrt(dot(away, away)) + tl.load(at + 3))
    best, nearest = bound * bound * TIE, tl.full([BLOCK], float("inf"), tl.float32)
    index = tl.full([BLOCK], 0, tl.int64)
    for leaf in range(L):
        at = spheres + 5 * leaf
        away = _minus(p, _at(at, 0))
        least = tl.maximum(tl.sqrt(dot(away, away)) - tl.load(at + 4), 0.0)
        if tl.max((least * least <= best * TIE).to(tl.int32), 0) > 0:
            for k in range(SIZE):
                t = tl.load(leaves + leaf * SIZE + k)
                a, b, c = _at(corners, 3 * t), _at(corners, 3 * t + 1), _at(corners, 3 * t + 2)
                square = _square(p, a, b, c, FLAT)
                off = _minus(p, ((a[0] + b[0] + c[0]) / 3, (a[1] + b[1] + c[1]) / 3, (a[2] + b[2] + c[2]) / 3))
                centre = dot(off, off)
                taken = (square * TIE < best) | ((square <= best * TIE) & (centre < nearest))
                best, nearest = tl.minimum(best, square), tl.where(taken, centre, nearest)
                index = tl.where(taken, t, index)
    tl.store(found + own, index, mask=there)


def nearest_points(
    points: Float[Tensor, "B N 3"], among: Float[Tensor, "*B P 3"], k: int
) -> tuple[Float[Tensor, "B N k"], Int[Tensor, "B N k"]]:
    """`variants.nearest.nearest_points`."""
    (people, n, _), p = points.shape, among.shape[-2]
    squares = torch.empty(people, n, k, device=points.device)
    indices = torch.empty(people, n, k, dtype=torch.int64, device=points.device)
    run_kernel(
        _points, (triton.cdiv(n, MANY), people),
        points.float().contiguous(), among.float().contiguous(), squares, indices, n, p, 3 * p * (among.dim() == 3), k, MANY,
        num_warps=1,
    )  # fmt: skip
    return squares, indices


def nearest_triangles(
    points: Float[Tensor, "B N 3"], corners: Float[Tensor, "B T 3 3"], leaves: Int[Tensor, "L n"]
) -> Int[Tensor, "B N"]:
    """`variants.nearest.nearest_triangles`, of all triangles."""
    points, corners, leaves = points.float().contiguous(), corners.float().contiguous(), leaves.contiguous()
    centres, edges = corners.mean(2), corners.roll(-1, -2) - corners
    normal = torch.linalg.cross(edges[..., 0, :], edges[..., 1, :])
    flat = normal.square().sum(-1) <= FLAT * edges.square().sum(-1).amax(-1).square()
    middles = centres[:, leaves].mean(2)
    near = (centres[:, leaves] - middles[:, :, None]).norm(dim=-1).masked_fill(flat[:, leaves], torch.inf).amin(-1)
    far = (corners[:, leaves] - middles[:, :, None, None]).norm(dim=-1).amax((-1, -2))
    spheres = torch.cat([middles, near[..., None], far[..., None]], -1).contiguous()
    (people, n, _), found = points.shape, torch.empty(points.shape[:2], dtype=torch.int64, device=points.device)
    run_kernel(
        _triangles, (triton.cdiv(n, BLOCK), people),
        points, corners, leaves, spheres, found, n, corners.shape[1], len(leaves), FLAT, leaves.shape[1], BLOCK, num_warps=1
    )  # fmt: skip
    return found
