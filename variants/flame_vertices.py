"""GAGAvatar: Gaussians on the driven FLAME vertices beside the static lifted ones (PAPER §4).

    G'  = G ∪ {G_v},   G = Φ(f): the lifted Gaussians, which never move
    f_v = f_near(v) + MLP[γ(T_v); f_near(v); LN(m)_near(v); mean f; mean LN(m)]      once per identity
    G_v = Φ(f_v) but for its mean, T_v(ψ_d) + 0.05 · Φ's position                    T_v(ψ): the head's vertices

GAGAvatar's table of one learned vector per FLAME vertex is here a network of the vertex's place in the template, γ(T_v) its
sines and cosines, so that no weight depends on a head; its global identity feature is the mean over the lifted Gaussians, with
the features that were lifted next to the vertex beside it. Its neural renderer, a 2D network on a 32-channel splat in every
frame, is left out: the shared Φ decodes the added Gaussians, their position around the vertex instead of in the whole
box, and the shared rasteriser draws both. So what is lifted and what rides on the mesh must agree without a network to
mend the picture. The driver's expression moves vertices and nothing else: attributes are cached, a frame is FLAME's skinning.

Matched in parameters: 110,268, all of them used once per identity, so that a frame has no FLOPs but the head's own (7 MFLOP
for the embedded one). V is as published.

How well the head fits the person should decide much: the worlds give the true shape, video the average one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

import kernels
from i4d_bench.types import FEATURE_DIM, Gaussians, Identity, MotionCode
from kernels.layout import MAX_SCALE, RAW, Phi, Skinned
from variants.base import Fusion, register, scaled
from variants.nearest import nearest_points
from variants.parametric import driver_of, kept, per_frame, shaped, source_of

OCTAVES = 6
NEAR = 256
"""Vertices whose distances to all Gaussians are taken at once: all of a full avatar's would be gigabytes."""
OFFSET = 0.05
"""Canonical units that a Gaussian may leave its vertex by, in each direction."""
OPAQUE, TRANSPARENT = 1.5, -4.0
"""Prior of the opacity: what the lifted Gaussians on the head start with, and one (0.007) hardly seen, yet reached by gradients:
rasterisers skip what is below 1/255."""


@dataclass
class Prepared:
    head: Callable[[Tensor, Tensor], Skinned]  # with the source's shape
    vertices: Tensor  # [V] those that carry a Gaussian
    offset: Tensor  # [B,V,3]
    means: Tensor  # [B,N,3] of those lifted
    rest: tuple[Tensor, ...]  # quats, scales, opacities and colors of all: N lifted, V added


@register("flame_vertices")
class FlameVertices(Fusion):
    """f_i ─Φ→ Gaussian i, still;   vertex, f near it ─MLP, Φ→ Gaussian on the driven vertex"""

    family = "parametric"
    needs = "flame"

    def __init__(
        self,
        max_vertices: int = 5023,
        hidden: int = 220,
        motion_basis: int = FEATURE_DIM,
        init_scale: float = 1.0,
    ):
        """max_vertices: of a head that has more, an even subset. init_scale also fades the added Gaussians: 0 starts with them
        nearly transparent."""
        super().__init__()
        self.max_vertices = max_vertices
        self.opacity = max(TRANSPARENT, OPAQUE + math.log(max(init_scale, 1e-9)))
        wide = 3 + 6 * OCTAVES + 2 * (FEATURE_DIM + motion_basis)
        self.layer1, self.layer2 = nn.Linear(wide, hidden), nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, FEATURE_DIM)
        scaled(self.out, init_scale)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        head, code = source_of(self.name, identity, source)
        own, canonical = shaped(head, code.shape), identity.canonical
        template = kept(head, code, "template", lambda t: t)
        count = len(template)
        vertices = torch.linspace(0, count - 1, min(count, self.max_vertices), device=template.device).long()
        on_mesh = own(code.expression, code.pose).vertices[:, vertices]
        near = nearest_points(on_mesh, canonical.means.detach(), 1, NEAR)[1][..., 0]
        lifted = torch.cat([identity.f, kernels.row_norm(identity.m)], -1)
        local = lifted.gather(1, near[..., None].expand(-1, -1, lifted.shape[-1]))
        overall = lifted.mean(1, keepdim=True).expand_as(local)
        place = _encode(template[vertices]).expand(len(local), -1, -1)
        x = F.silu(self.layer1(torch.cat([place, local, overall], -1)))
        features = local[..., :FEATURE_DIM] + self.out(F.silu(self.layer2(x)))
        prior = self._prior(template[head.faces.long()], len(vertices)).expand(len(local), -1, -1)
        offset, *added = kernels.decode(features, Phi(*identity.decode.phi), prior)
        base = (canonical.quats, canonical.scales, canonical.opacities, canonical.colors)
        both = tuple(torch.cat(pair, 1) for pair in zip(base, added, strict=True))
        return Prepared(own, vertices, OFFSET * offset, canonical.means, both)

    def _prior(self, triangles: Float[Tensor, "T 3 3"], count: int) -> Float[Tensor, "V 14"]:
        """No offset, upright, 0.6 of the mean distance between vertices large, as the lifted ones are."""
        first, other = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
        area = torch.linalg.cross(first, other).norm(dim=-1).sum() / 2
        size = (0.6 * torch.sqrt(area / count)).clamp(1e-4, 0.9 * MAX_SCALE)
        raw = triangles.new_zeros(count, RAW)
        raw[:, 3:6] = torch.logit(size / MAX_SCALE)
        raw[:, 6], raw[:, 10] = 1.0, self.opacity
        return raw

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        p, code = prepared, driver_of(self.name, driving)
        people = len(p.offset)
        driven = p.head(code.expression, code.pose).vertices[:, p.vertices]
        added = (driven.unflatten(0, (people, -1)) + p.offset[:, None]).flatten(0, 1)
        means, *rest = (per_frame(t, len(driven) // people) for t in (p.means, *p.rest))
        return Gaussians(torch.cat([means, added], 1), *rest)


def _encode(places: Float[Tensor, "V 3"]) -> Float[Tensor, "V C"]:
    """The place itself and its sines and cosines; the longest wave is twice the box."""
    angle = (places[..., None] * math.pi * 2.0 ** torch.arange(OCTAVES, device=places.device)).flatten(1)
    return torch.cat([places, angle.sin(), angle.cos()], -1)
