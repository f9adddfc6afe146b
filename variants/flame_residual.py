"""VASA-3D (PAPER §6, 2512.14677): bound to triangles of the driven mesh, and corrected by a network in every attribute: the hybrid.

    Δ_i = u ⊙ s · [W2 softplus(W1 x_i + b1) + b2] ∈ R^13,   x_i = W (LN(m_i) ⊙ γ + β) + b,   (γ, β) = A c
    μ_i + Δp_i,   (1, Δr_i / 2) ∗ r_i,   s_i · exp(Δs_i),   sigmoid(logit o_i + Δo_i),   colour_i + Δc_i     in the triangle's frame
    μ' = k R μ + T,   r' = R r,   s' = k s                                                                  as in `flame_binding`

c = [M(source); M(driving)]. VASA-3D's network reads a Gaussian and the dynamic latent code beside the mesh, which follows
coefficients alone; so here the network reads the motion code, the mesh the FLAME coefficients, and the design sees more than
either family does. It needs a tracker, as all that is bound to a mesh. Changed to fit the shared pipeline: the network is
`local_spatial`'s Ψ with rows for opacity and colour, the motion basis stands for the Gaussian, and nothing is fitted per subject.

Δp has canonical units along the source triangle's axes, whatever the size of its triangles, and its start is `local_spatial`'s;
u starts opacity at 0.5 in its logit and colour at 0.1. With Δ = 0 (`init_scale=0`) it is `flame_binding`. δf does not exist, so
that the loss on |δf| does not reach it. Matched to `local_adaln` in parameters: 106,621. `source=False` hides M(source).
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

import kernels
from i4d_bench.types import Gaussians, Identity, MotionCode
from kernels.layout import Attributes, Bound, Psi
from kernels.reference import triangle_frames
from variants import flame_binding, local_spatial
from variants.base import normed, register
from variants.local_adaln import OfCode
from variants.parametric import driver_of, per_frame

UNITS = (*local_spatial.UNITS, 0.5, 0.1, 0.1, 0.1)
"""u: of position, log scale, rotation, logit of opacity, colour."""


@dataclass
class Prepared:
    bound: flame_binding.Prepared
    size: Float[Tensor, "B N 1"]  # k of the source's triangles
    still: Attributes  # in the triangles' frames, positions in canonical units
    basis: Tensor  # LN(m) [B,N,M]
    psi: Psi
    code: OfCode  # → gain γ and, through W and W1, the hidden layer's bias


@register("flame_residual")
class FlameResidual(local_spatial.LocalSpatial):
    """f_i ─Φ→ canonical Gaussian i ─in its triangle's frame→ + Ψ(m_i, c) in every attribute ─driven triangle→ Gaussian i"""

    family = "parametric"
    needs = "flame"
    start_units = UNITS
    outputs = len(UNITS)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        bound, corners = flame_binding.bound(self.name, identity, source)
        size = triangle_frames(corners)[2][..., None]
        means, quats, scales = bound.local
        still = Attributes(size * means, quats, scales, bound.opacities, bound.colors)
        basis = normed(identity.m, self.W.in_features).to(self.storage)
        return Prepared(bound, size, still, basis, *self.folded(source))

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        p, flame, code, basis = prepared, driver_of(self.name, driving), prepared.code(driving), self.W.in_features
        frames = len(code) // len(p.basis)
        means, quats, scales, opacities, colors = kernels.spatial_fusion(
            p.basis, code[:, :basis], code[:, basis:], p.psi, p.still
        )
        local = Bound(means / per_frame(p.size, frames), quats, scales)
        mesh, triangles = p.bound.head(flame.expression, flame.pose).vertices, per_frame(p.bound.triangles, frames)
        return Gaussians(*kernels.bind_gaussians(mesh, p.bound.faces, triangles, local), opacities, colors)
