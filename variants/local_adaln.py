"""The paper's local fusion Ψ ("Instant Expressive Gaussian Head Avatar …", PAPER §1, exact form).

    (γ, β) = A c                       c = [M(source); M(driving)], no bias, no non-linearity
    x_i    = W (LN(m_i) ⊙ γ + β) + b   LN without affine
    δf_i   = s · [W2 softplus(W1 x_i + b1) + b2]
    avatar = Φ(f_i + δf_i)

The published s is 0.01 and A, W start with std 0.02: the defaults here. Short presets override `delta_scale` and
`w_std` for a faster onset (DESIGN §4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i4d_bench.types import FEATURE_DIM, MOTION_DIM, MOTION_TOKENS, Gaussians, Identity, MotionCode
from kernels.reference import Psi
from variants.base import Fusion, register

CODE = MOTION_TOKENS * MOTION_DIM


@dataclass
class Prepared:
    fused: Callable[[Tensor, Tensor], Gaussians]  # the rest of Ψ, and Φ
    rows: Tensor  # [M+H,512]: M(driving) → gain γ and, through W and W1, the hidden layer's bias
    source: Tensor  # [B,M+H]: what M(source) and the biases add to them


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
        # W1 (W (LN(m) ⊙ γ + β) + b) + b1 = (W1 W) (LN(m) ⊙ γ) + (W1 W A_β) c + W1 b + b1: linear maps fold once (PAPER §1).
        w1 = self.W1.weight @ self.W.weight
        gamma, beta = self.A.weight.chunk(2)
        rows = torch.cat([gamma, w1 @ beta])
        constant = torch.cat([gamma.new_zeros(len(gamma)), F.linear(self.W.bias, self.W1.weight, self.W1.bias)])
        psi = Psi(w1, self.delta_scale * self.W2.weight, self.delta_scale * self.W2.bias)
        basis = F.layer_norm(identity.m, identity.m.shape[-1:])
        return Prepared(
            identity.decode.after(identity.f.to(self.storage), basis.to(self.storage), psi),
            rows[:, CODE:],
            F.linear(source.motion, rows[:, :CODE], constant),
        )

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        people, basis = len(prepared.source), self.W.in_features
        change = F.linear(driving.motion, prepared.rows)
        code = (change.unflatten(0, (people, -1)) + prepared.source[:, None]).flatten(0, 1)
        return prepared.fused(code[:, :basis], code[:, basis:])
