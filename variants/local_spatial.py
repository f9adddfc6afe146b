"""Ψ deforms in space instead of in feature space: the paper's own ablation (PAPER §2, "deforming in space").

    (Δp, Δs, Δr)_i = u ⊙ s · [W2 softplus(W1 x_i + b1) + b2],   x_i = W (LN(m_i) ⊙ γ + β) + b,   (γ, β) = A c
    position_i + Δp_i,   scales_i · exp(Δs_i),   (1, Δr_i / 2) ∗ quaternion_i,   opacity and colour stay

on the canonical Gaussians, c = [M(source); M(driving)]. The paper does not say how the changes apply; here each lives where all
its values are valid and 0 changes nothing: positions add, scales stay positive, and the rotation vector Δr, in the avatar's
axes, turns by 2 atan(|Δr| / 2) ≈ |Δr| about itself, smooth at 0 (quaternions need no unit length). The units u let positions
start, at s = 1, about as far from the canonical ones as δf takes them in `local_adaln` (0.02): Φ's largest Gaussian; and half
a radian and a factor √e.
δf does not exist, so that the loss on |δf| does not reach this design.

Matched to `local_adaln` in parameters: 106,233 (W2 has 9 rows instead of 48). W starts as in the short presets (DESIGN §4).
`init_scale=0` starts at the canonical avatar; `source=False` hides M(source).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

import kernels
from i4d_bench.types import Gaussians, Identity, MotionCode
from kernels.layout import MAX_SCALE, Bound, Psi
from variants.base import normed, register
from variants.local_adaln import LocalAdaLN, OfCode

UNITS = (MAX_SCALE,) * 3 + (0.5,) * 6
"""u: of position, log scale, rotation."""


@dataclass
class Prepared:
    basis: Tensor  # LN(m) [B,N,M]
    psi: Psi
    code: OfCode  # → gain γ and, through W and W1, the hidden layer's bias
    still: Bound  # the canonical Gaussians
    opacities: Tensor
    colors: Tensor


@register("local_spatial")
class LocalSpatial(LocalAdaLN):
    """f_i ─Φ→ canonical Gaussian i;   m_i, c ─Ψ→ Δposition, Δscale, Δrotation → Gaussian i"""

    start_units: ClassVar[tuple[float, ...]] = UNITS
    outputs = len(UNITS)
    units: Float[Tensor, " outputs"]

    def __init__(
        self,
        motion_basis: int = 48,
        hidden: int = 96,
        delta_scale: float = 1.0,
        a_std: float = 0.02,
        w_std: float = 0.14,
        init_scale: float = 1.0,
        source: bool = True,
    ):
        super().__init__(motion_basis, hidden, delta_scale, a_std, w_std, init_scale, source)
        self.register_buffer("units", torch.tensor(self.start_units), persistent=False)

    def folded(self, source: MotionCode) -> tuple[Psi, OfCode]:
        """With the units in Ψ's last layer."""
        psi, code = super().folded(source)
        return Psi(psi.w1, self.units[:, None] * psi.w2, self.units * psi.b2), code

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        psi, code = self.folded(source)
        basis, canonical = normed(identity.m, self.W.in_features), identity.canonical
        still = Bound(canonical.means, canonical.quats, canonical.scales)
        return Prepared(basis.to(self.storage), psi, code, still, canonical.opacities, canonical.colors)

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        p, code, basis = prepared, prepared.code(driving), self.W.in_features
        moved = kernels.spatial_fusion(p.basis, code[:, :basis], code[:, basis:], p.psi, p.still)
        frames = len(code) // len(p.basis)
        return Gaussians(*moved, p.opacities.repeat_interleave(frames, 0), p.colors.repeat_interleave(frames, 0))
