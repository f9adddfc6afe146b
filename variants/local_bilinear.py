"""Feature and code meet in a product and nowhere else: a bilinear map, the least that local fusion can be.

    δf_i = s · (W [(U LN(m_i)) ⊙ (V c)] + b),   c = [M(source); M(driving)],   avatar = Φ(f_i + δf_i)

Linear in LN(m_i) and, but for b, linear in c: asks whether Ψ's non-linearity is needed at all. Any bilinear map is such a sum of
`rank` products. A frame folds W diag(V c) U to one 48 × 48 matrix, whatever the rank.

Matched to `local_adaln` in parameters: 107,568, of which V has as many as A, and starts like it.
`init_scale=0` starts at the canonical avatar; `source=False` hides M(source).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from i4d_bench.types import FEATURE_DIM, Gaussians, Identity, MotionCode
from variants.base import Fusion, normed, register, scaled
from variants.local_adaln import CODE, OfCode


@dataclass
class Prepared:
    identity: Identity  # for Φ
    f: Tensor  # [B,N,48]: f + s b
    basis: Tensor  # LN(m) [B,N,M]
    code: OfCode  # V c


@register("local_bilinear")
class LocalBilinear(Fusion):
    """(U m_i) ⊙ (V c) ─W→ + f_i ─Φ→ Gaussian i"""

    family = "local"
    needs = "motion"

    def __init__(
        self,
        motion_basis: int = 48,
        rank: int = 96,
        delta_scale: float = 1.0,
        v_std: float = 0.02,
        init_scale: float = 1.0,
        source: bool = True,
    ):
        super().__init__()
        self.delta_scale = delta_scale
        self.U = nn.Linear(motion_basis, rank, bias=False)
        self.V = nn.Linear((1 + source) * CODE, rank, bias=False)
        self.W = nn.Linear(rank, FEATURE_DIM)
        nn.init.normal_(self.V.weight, std=v_std)
        scaled(self.W, init_scale)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        return Prepared(
            identity,
            (identity.f + self.delta_scale * self.W.bias).to(self.storage),
            normed(identity.m, self.U.in_features).to(self.storage),
            OfCode.prepare(self.V.weight, self.V.weight.new_zeros(self.V.out_features), source),
        )

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        p = prepared
        folded = (self.delta_scale * self.W.weight * p.code(driving)[:, None]) @ self.U.weight  # [F,48,M]
        folded = folded.to(p.basis).unflatten(0, (len(p.basis), -1))
        return p.identity.decode((p.f[:, None] + p.basis[:, None] @ folded.mT).flatten(0, 1))
