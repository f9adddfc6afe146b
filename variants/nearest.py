"""Which triangle of a mesh is nearest to each point: by leaves of a k-d tree over the triangles' centres, then exactly."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

LEAF, LEAVES, FINALISTS = 32, 6, 8
"""Triangles in a leaf at most, leaves looked into, triangles whose exact distance is taken: a few points in a thousand get
another triangle than the nearest, further by a hundredth of its size (tests/test_flame_binding.py)."""


@torch.no_grad()
def nearest_triangles(
    points: Float[Tensor, "B N 3"], corners: Float[Tensor, "B T 3 3"], chunk: int = 16384
) -> Int[Tensor, "B N"]:
    """Index of the triangle nearest to each point. Where several share the nearest edge or vertex, the one whose centre is
    nearest; triangles without area are passed over."""
    centres = corners.mean(2)
    leaves = _leaves(centres)  # [B,L,n]
    person = torch.arange(len(points), device=points.device)[:, None, None]
    middles = centres[person, leaves].mean(2)
    return torch.cat([_nearest(part, corners, centres, leaves, middles, person) for part in points.split(chunk, 1)], 1)


def _leaves(centres: Float[Tensor, "B T 3"]) -> Int[Tensor, "B L n"]:
    """Halved at the median along each part's longest side until LEAF are left; the last triangle fills up."""
    people, count, _ = centres.shape
    depth = max(0, (count - 1) // LEAF).bit_length()
    total = -(-count // 2**depth) * 2**depth
    order = torch.arange(total, device=centres.device).clamp_max(count - 1).expand(people, 1, -1)
    person = torch.arange(people, device=centres.device)[:, None, None]
    for _ in range(depth):
        at = centres[person, order]  # [B,G,n,3]
        longest = (at.amax(2) - at.amin(2)).argmax(-1)[:, :, None, None].expand(*order.shape, 1)
        halves = order.gather(2, at.gather(3, longest)[..., 0].argsort(-1)).unflatten(2, (2, -1))
        order = halves.flatten(1, 2)
    return order


def _nearest(points, corners, centres, leaves, middles, person) -> Int[Tensor, "B N"]:
    best = torch.cdist(points, middles).topk(min(LEAVES, leaves.shape[1]), largest=False).indices
    among = leaves[person, best].flatten(2)  # [B,N,c]
    far = (points[:, :, None] - centres[person, among]).square().sum(-1)
    among = among.gather(2, far.topk(min(FINALISTS, among.shape[2]), largest=False).indices)
    square = _distance(points[:, :, None], corners[person, among])
    tie = square <= square.amin(-1, keepdim=True) * 1.0001
    return among.gather(2, tie.byte().argmax(-1, keepdim=True))[..., 0]  # the first: the nearest centre


def _distance(points: Float[Tensor, "*B 3"], corners: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B"]:
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
