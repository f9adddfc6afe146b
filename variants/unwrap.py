"""A texture map for heads that bring no texture coordinates: unwrapped onto a cylinder around the template, once for all people.

    u = sin(azimuth / 2),   v = height,   both in ±1; azimuth 0 looks out of the face, the seam is at the back

The sine gives the face half of the map's width, where an even azimuth would leave it a third.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from variants.nearest import leaves_of, nearest_triangles

LAYER = 0.03
"""How much being further out counts against being nearer in the map, when a texel looks for its triangle: enough to see the
skin and not the teeth behind it, too little to look aside."""


def unwrap(
    points: Float[Tensor, "*B 3"], template: Float[Tensor, "V 3"]
) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"], Float[Tensor, "*B"]]:
    """Azimuth (radians), height (±1) and distance from the axis (1: the template's furthest) of points on the template."""
    low, high = template.amin(0), template.amax(0)
    x, y, z = (points - (low + high) / 2).unbind(-1)
    half = (high - low) / 2
    return torch.atan2(x, z), y / half[1], torch.hypot(x, z) / torch.hypot(half[0], half[2])


def coordinates(points: Float[Tensor, "*B 3"], template: Float[Tensor, "V 3"]) -> Float[Tensor, "*B 2"]:
    """u and v of points on the template."""
    azimuth, height, _ = unwrap(points, template)
    return torch.stack([torch.sin(azimuth / 2), height], -1)


@torch.no_grad()
def texels(
    template: Float[Tensor, "V 3"], faces: Int[Tensor, "T 3"], resolution: int
) -> tuple[Int[Tensor, "R 3"], Float[Tensor, "R 3"]]:
    """The three vertices behind each texel of the map, row by row from v = −1, and their barycentric weights: the outermost
    triangle there, or the nearest in the map where there is none."""
    azimuth, height, out = unwrap(template[faces], template)
    first = azimuth[:, :1]
    azimuth = first + torch.remainder(azimuth - first + math.pi, 2 * math.pi) - math.pi  # whole across the seam
    flat = torch.stack([torch.sin(azimuth / 2), height, LAYER * out], -1)
    t = (torch.arange(resolution, device=template.device) + 0.5) / resolution * 2 - 1
    v, u = torch.meshgrid(t, t, indexing="ij")
    points = torch.stack([u, v, torch.full_like(u, LAYER)], -1).flatten(0, 1)
    triangles = nearest_triangles(points[None], flat[None], leaves_of(flat.mean(1)))[0]
    return faces[triangles], barycentric(points, flat[triangles])


def barycentric(points: Float[Tensor, "*B 3"], corners: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 3"]:
    """Weights of a triangle's corners at the foot of each point; outside, what is negative is cut off."""
    edges, towards = corners.roll(-1, -2) - corners, points[..., None, :] - corners
    normal = torch.linalg.cross(edges[..., 0, :], edges[..., 1, :])
    opposite = (torch.linalg.cross(edges, towards) * normal[..., None, :]).sum(-1)  # corner k faces edge k + 1
    weights = (opposite / normal.square().sum(-1, keepdim=True).clamp_min(1e-30)).roll(-1, -1).clamp_min(0)
    return weights / weights.sum(-1, keepdim=True).clamp_min(1e-6)
