"""Ψ without a motion basis: the feature f_i stands in place of m_i, all else is `local_adaln`.

    x_i    = W (LN(f_i) ⊙ γ + β) + b,   (γ, β) = A c       c = [M(source); M(driving)]
    δf_i   = s · [W2 softplus(W1 x_i + b1) + b2],          avatar = Φ(f_i + δf_i)

Asks whether m is needed at all: what a Gaussian looks like then also says how it moves. The encoder still makes m, and nobody
reads it. Matched to `local_adaln` in parameters: 110,016, the same. s and W start as in the short presets (DESIGN §4).
`init_scale=0` starts at the canonical avatar; `source=False` hides M(source).
"""

from __future__ import annotations

from dataclasses import replace

from i4d_bench.types import FEATURE_DIM, Identity, MotionCode
from variants.base import register
from variants.local_adaln import LocalAdaLN, Prepared


@register("local_nobasis")
class LocalNoBasis(LocalAdaLN):
    """c ─A→ γ, β;   f_i ─LN, ⊙ γ, + β, W→ x_i ─MLP→ + f_i ─Φ→ Gaussian i"""

    def __init__(
        self,
        hidden: int = 96,
        delta_scale: float = 1.0,
        a_std: float = 0.02,
        w_std: float = 0.14,
        init_scale: float = 1.0,
        source: bool = True,
    ):
        super().__init__(FEATURE_DIM, hidden, delta_scale, a_std, w_std, init_scale, source)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        return super().prepare(replace(identity, m=identity.f), source)
