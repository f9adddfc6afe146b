"""The paper's local fusion Ψ ("Instant Expressive Gaussian Head Avatar …", PAPER §1, exact form).

    (γ, β) = A c                       c = [M(source); M(driving)], no bias, no non-linearity
    x_i    = W (LN(m_i) ⊙ γ + β) + b   LN without affine
    δf_i   = s · [W2 softplus(W1 x_i + b1) + b2]
    avatar = Φ(f_i + δf_i)

The published s is 0.01 and A, W start with std 0.02: the defaults here. Short presets override `delta_scale` and
`w_std` for a faster onset (DESIGN §4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i4d_bench.types import FEATURE_DIM, MOTION_DIM, MOTION_TOKENS, Gaussians, Identity, MotionCode
from variants.base import Fusion, register

CODE = MOTION_TOKENS * MOTION_DIM


@dataclass
class Prepared:
    identity: Identity
    basis: Tensor  # LN(m) [B,N,M]
    source: Tensor  # A_source · M(source) [B,2M]


@register("local_adaln")
class LocalAdaLN(Fusion):
    family = "local"
    needs = "motion"

    def __init__(
        self,
        motion_basis: int = 48,
        hidden: int = 96,
        delta_scale: float = 0.01,
        a_std: float = 0.02,
        w_std: float = 0.02,
    ):
        super().__init__()
        self.delta_scale = delta_scale
        self.A = nn.Linear(2 * CODE, 2 * motion_basis, bias=False)
        self.W = nn.Linear(motion_basis, FEATURE_DIM)
        self.W1 = nn.Linear(FEATURE_DIM, hidden)
        self.W2 = nn.Linear(hidden, FEATURE_DIM)
        nn.init.normal_(self.A.weight, std=a_std)
        nn.init.normal_(self.W.weight, std=w_std)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        basis = F.layer_norm(identity.m, identity.m.shape[-1:])
        return Prepared(identity, basis, source.motion @ self.A.weight[:, :CODE].T)

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        return prepared.identity.decode(self.features(prepared, driving))

    def features(self, prepared: Prepared, driving: MotionCode) -> Tensor:
        """f + δf for every driving frame, [B·k,N,48]."""
        batch = len(prepared.source)
        code = (driving.motion @ self.A.weight[:, CODE:].T).unflatten(0, (batch, -1)) + prepared.source[:, None]
        gamma, beta = code[:, :, None].chunk(2, -1)  # [B,k,1,M]
        # W (LN(m) ⊙ γ + β) = (W ⊙ γ) LN(m) + W β: the fold of PAPER §1 keeps [B,k,N,M] out of memory.
        folded = (self.W.weight * gamma).flatten(0, 1)  # [Bk,48,M]
        offset = F.linear(beta, self.W.weight, self.W.bias).flatten(0, 1)  # [Bk,1,48]
        frames = len(driving.motion) // batch
        x = torch.baddbmm(offset, prepared.basis.repeat_interleave(frames, 0), folded.transpose(1, 2))
        delta = self.delta_scale * self.W2(F.softplus(self.W1(x)))
        return prepared.identity.f.repeat_interleave(frames, 0) + delta
