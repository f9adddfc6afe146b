"""GaussianAvatars (PAPER §4): each Gaussian is bound to a triangle of the driven mesh and moves rigidly with it.

    μ' = k R μ + T,   r' = R r,   s' = k s     T, R, k: the driven triangle's centre, frame and size

μ, r, s are the Gaussian as its triangle sees it on the source's own mesh, so that the source's code gives the canonical avatar.
As published, nothing per frame is learned: the design has no parameters of its own, and what it can express is trained where
the Gaussians come from, the encoder and Φ, as GaussianAvatars fits them per subject. Changed to fit the shared pipeline: the
Gaussians are lifted from the image, not grown on the triangles, and are bound to whichever triangle is nearest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

import kernels
from i4d_bench.types import Gaussians, Identity, MotionCode
from kernels.layout import Bound, Skinned
from kernels.reference import to_triangles
from variants.base import Fusion, register
from variants.nearest import leaves_of, nearest_triangles
from variants.parametric import driver_of, kept, shaped, source_of


@dataclass
class Prepared:
    head: Callable[[Tensor, Tensor], Skinned]  # with the source's shape
    faces: Tensor  # [T,3]
    triangles: Tensor  # [B,N]
    local: Bound  # [B,N,…] in the triangles' frames
    opacities: Tensor
    colors: Tensor


def bound(name: str, identity: Identity, source: MotionCode) -> tuple[Prepared, Float[Tensor, "B N 3 3"]]:
    """The canonical Gaussians in the frames of the nearest triangles of the source's mesh, and those triangles' corners. Raises
    UserError where the design `name` gets no head or no coefficients."""
    head, code = source_of(name, identity, source)
    own, canonical = shaped(head, code.shape), identity.canonical
    mesh, faces = own(code.expression, code.pose).vertices, head.faces.int()
    leaves = kept(head, code, "leaves", lambda template: leaves_of(template[faces.long()].mean(1)))
    triangles = nearest_triangles(canonical.means.detach(), mesh[:, faces.long()], leaves)
    person = torch.arange(len(mesh), device=mesh.device)[:, None, None]
    corners = mesh[person, faces[triangles].long()]
    local = to_triangles(corners, Bound(canonical.means, canonical.quats, canonical.scales))
    return Prepared(own, faces, triangles.int(), local, canonical.opacities, canonical.colors), corners


@register("flame_binding")
class FlameBinding(Fusion):
    """f_i ─Φ→ canonical Gaussian i ─bound to the nearest triangle of the mesh→ moves, turns and grows with the driven triangle"""

    family = "parametric"
    needs = "flame"
    neutral_is_canonical = True

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        return bound(self.name, identity, source)[0]

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        p, code = prepared, driver_of(self.name, driving)
        bound = kernels.bind_gaussians(p.head(code.expression, code.pose).vertices, p.faces, p.triangles, p.local)
        frames = len(code.pose) // len(p.triangles)
        return Gaussians(*bound, p.opacities.repeat_interleave(frames, 0), p.colors.repeat_interleave(frames, 0))
