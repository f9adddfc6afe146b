"""3D Gaussian Blendshapes, with RGBAvatar's learned coefficients (PAPER §4), in feature space.

    δf_i = s Σ_k ψ_k B_k(m_i),   ψ = V2 silu(V1 c + a1) + a2 ∈ R^K        c = [M(source); M(driving)]
    B_k(m_i) = W_k h_i,   h_i = softplus(W1 LN(m_i) + b1),                 avatar = Φ(f_i + δf_i)

Changed to fit the shared pipeline: the blendshapes are not fitted per subject but read off the motion basis, once per identity;
they change features, not the Gaussians' attributes; and the coefficients come from the motion code, not from FLAME's. K is
RGBAvatar's 20. As the blendshapes are linear in h_i, a frame folds Σ_k ψ_k W_k to one 48 × H matrix, whatever K, and only the
h_i are stored.

Matched to `local_adaln` in parameters: 106,396. `init_scale=0` starts at the canonical avatar; `source=False` hides M(source).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i4d_bench.types import FEATURE_DIM, Gaussians, Identity, MotionCode
from variants.base import Fusion, normed, register, scaled
from variants.local_adaln import CODE, OfCode


@dataclass
class Prepared:
    identity: Identity  # for f and Φ
    hidden: Tensor  # h [B,N,H]
    mapping: OfCode  # V1 c + a1


@register("local_blendshapes")
class LocalBlendshapes(Fusion):
    """c ─MLP→ ψ;   m_i ─MLP→ B_1…B_K;   Σ_k ψ_k B_k → + f_i ─Φ→ Gaussian i"""

    family = "local"
    needs = "motion"

    def __init__(
        self,
        blendshapes: int = 20,
        motion_basis: int = 48,
        hidden: int = 64,
        mapping: int = 40,
        delta_scale: float = 1.0,
        init_scale: float = 1.0,
        source: bool = True,
    ):
        super().__init__()
        self.delta_scale = delta_scale
        self.V1 = nn.Linear((1 + source) * CODE, mapping)
        self.V2 = nn.Linear(mapping, blendshapes)
        self.W1 = nn.Linear(motion_basis, hidden)
        self.W2 = nn.Linear(hidden, blendshapes * FEATURE_DIM, bias=False)  # W_k for all k
        scaled(self.W2, init_scale)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        hidden = F.softplus(self.W1(normed(identity.m, self.W1.in_features)))
        return Prepared(
            replace(identity, f=identity.f.to(self.storage)),
            hidden.to(self.storage),
            OfCode.prepare(self.V1.weight, self.V1.bias, source),
        )

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        identity, hidden = prepared.identity, prepared.hidden
        psi = self.V2(F.silu(prepared.mapping(driving)))
        blendshapes = self.W2.weight.unflatten(0, (psi.shape[1], -1))
        folded = self.delta_scale * torch.einsum("fk,kdh->fdh", psi, blendshapes)
        folded = folded.to(hidden).unflatten(0, (len(hidden), -1))
        return identity.decode((identity.f[:, None] + hidden[:, None] @ folded.mT).flatten(0, 1))
