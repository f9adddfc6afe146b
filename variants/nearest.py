"""What is nearest: of points, and of a mesh's triangles. On a GPU by kernels, which find the nearest triangle always; whatever
`kernels.using` says, since what is compared by its modes must hang on the same triangles."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

LEAF, LEAVES, FINALISTS = 32, 6, 8
"""Triangles in a leaf of a k-d tree at most; leaves looked into; triangles of nearest centre whose exact distance is taken. On the
embedded head about 3 points in 100 get a triangle a little further than the nearest: all pairs would cost fifty times as much."""


@torch.no_grad()
def nearest_points(
    points: Float[Tensor, "B N 3"], among: Float[Tensor, "*B P 3"], k: int, chunk: int = 16384
) -> tuple[Float[Tensor, "B N k"], Int[Tensor, "B N k"]]:
    """Squared distances of the k nearest, in order, and which they are."""
    if points.is_cuda:
        from kernels.fused.nearest import nearest_points

        return nearest_points(points, among, k)
    parts = (_squares(part, among).topk(k, largest=False) for part in points.split(chunk, 1))
    squares, indices = (torch.cat(t, 1) for t in zip(*parts, strict=True))
    return squares, indices


def _squares(points: Float[Tensor, "B N 3"], among: Float[Tensor, "*B P 3"]) -> Float[Tensor, "B N P"]:
    """By differences: by products, as torch.cdist would have it, they have fewer digits."""
    x, y, z = ((points[..., k, None] - among[..., None, :, k]).square_() for k in range(3))
    return x.add_(y).add_(z)


@torch.no_grad()
def nearest_triangles(
    points: Float[Tensor, "B N 3"],
    corners: Float[Tensor, "B T 3 3"],
    leaves: Int[Tensor, "L n"],
    chunk: int = 16384,
) -> Int[Tensor, "B N"]:
    """Index of the triangle nearest to each point, `leaves` from `leaves_of` some mesh of the same faces. Where several share
    the nearest edge or vertex, the one whose centre is nearest; triangles without area are passed over."""
    if points.is_cuda:
        from kernels.fused.nearest import nearest_triangles

        return nearest_triangles(points, corners, leaves)
    centres = corners.mean(2)
    person = torch.arange(len(points), device=points.device)[:, None, None]
    within = centres[:, leaves]  # [B,L,n,3]
    middles = within.mean(2)
    radius = (within - middles[:, :, None]).norm(dim=-1).amax(-1)[:, None]

    def nearest(part):
        best = (torch.cdist(part, middles) - radius / 2).topk(min(LEAVES, len(leaves)), largest=False)[1]
        among = leaves[best].flatten(2)  # [B,N,c]
        square = (part[:, :, None] - centres[person, among]).square().sum(-1)
        among = among.gather(2, square.topk(min(FINALISTS, among.shape[2]), largest=False)[1])
        square = distance(part[:, :, None], corners[person, among])
        tie = square <= square.amin(-1, keepdim=True) * 1.0001
        return among.gather(2, tie.byte().argmax(-1, keepdim=True))[..., 0]

    return torch.cat([nearest(part) for part in points.split(chunk, 1)], 1)


@torch.no_grad()
def leaves_of(centres: Float[Tensor, "T 3"]) -> Int[Tensor, "L n"]:
    """Triangles by their centres, halved at the median along each part's longest side until LEAF are left; the last fills up."""
    count = len(centres)
    depth = max(0, (count - 1) // LEAF).bit_length()
    total = -(-count // 2**depth) * 2**depth
    order = torch.arange(total, device=centres.device).clamp_max(count - 1)[None]
    for _ in range(depth):
        at = centres[order]  # [G,n,3]
        longest = (at.amax(1) - at.amin(1)).argmax(-1)[:, None, None].expand(*order.shape, 1)
        order = order.gather(1, at.gather(2, longest)[..., 0].argsort(-1)).unflatten(1, (2, -1)).flatten(0, 1)
    return order


def distance(points: Float[Tensor, "*#B 3"], corners: Float[Tensor, "*#B 3 3"]) -> Float[Tensor, "*#B"]:
    """Squared, to the nearest point of a triangle: within it, or on its border."""
    edges, towards = corners.roll(-1, -2) - corners, points[..., None, :] - corners
    length = edges.square().sum(-1)
    along = ((towards * edges).sum(-1) / length.clamp_min(1e-20)).clamp(0, 1)
    border = (towards - along[..., None] * edges).square().sum(-1).amin(-1)
    normal = torch.linalg.cross(edges[..., 0, :], edges[..., 1, :])
    within = (torch.linalg.cross(edges, towards) * normal[..., None, :]).sum(-1).amin(-1) >= 0
    area = normal.square().sum(-1)
    height = (towards[..., 0, :] * normal).sum(-1).square() / area.clamp_min(1e-30)
    flat = area <= 1e-8 * length.amax(-1).square()
    return torch.where(within, height, border).masked_fill(flat, torch.inf)
