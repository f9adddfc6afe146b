"""Feature-wise linear modulation (FiLM) with a mapping network, in the place of Ψ's linear (γ, β).

    (γ, β) = V2 silu(V1 c + a1) + a2            c = [M(source); M(driving)]
    x_i    = W ((1 + γ) ⊙ LN(m_i) + β) + b      1 + γ as in FiLM and StyleGAN; the paper has γ and a linear map of c
    δf_i   = s · [W2 softplus(W1 x_i + b1) + b2],   avatar = Φ(f_i + δf_i)

Asks whether expression needs a non-linear reading of the code. All after x_i is `local_adaln`'s. Matched to it in parameters:
110,456 (the mapping is as narrow as makes it so). s and W start as in the short presets (DESIGN §4).
`init_scale=0` starts at the canonical avatar; `source=False` hides M(source).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i4d_bench.types import FEATURE_DIM, Gaussians, Identity, MotionCode
from kernels.layout import Psi
from variants.base import Fusion, normed, register, scaled
from variants.local_adaln import CODE, OfCode


@dataclass
class Prepared:
    fused: Callable[[Tensor, Tensor], Gaussians]  # the rest of Ψ, and Φ
    mapping: OfCode  # V1 c + a1
    rows: Tensor  # [M+H,·]: silu(V1 c + a1) → gain 1 + γ and, through W and W1, the hidden layer's bias
    constant: Tensor  # [M+H]


@register("local_film")
class LocalFiLM(Fusion):
    """c ─MLP→ γ, β;   m_i ─LN, ⊙ (1 + γ), + β, W→ x_i ─MLP→ + f_i ─Φ→ Gaussian i"""

    family = "local"
    needs = "motion"

    def __init__(
        self,
        motion_basis: int = 48,
        hidden: int = 96,
        mapping: int = 88,
        delta_scale: float = 1.0,
        w_std: float = 0.14,
        init_scale: float = 1.0,
        source: bool = True,
    ):
        super().__init__()
        self.delta_scale = delta_scale
        self.V1 = nn.Linear((1 + source) * CODE, mapping)
        self.V2 = nn.Linear(mapping, 2 * motion_basis)
        self.W = nn.Linear(motion_basis, FEATURE_DIM)
        self.W1 = nn.Linear(FEATURE_DIM, hidden)
        self.W2 = nn.Linear(hidden, FEATURE_DIM)
        nn.init.normal_(self.W.weight, std=w_std)
        scaled(self.W2, init_scale)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        # β reaches the hidden layer through linear maps alone: they fold, as in local_adaln.
        w1 = self.W1.weight @ self.W.weight
        (gamma, beta), (gamma0, beta0) = self.V2.weight.chunk(2), self.V2.bias.chunk(2)
        bias = w1 @ beta0 + F.linear(self.W.bias, self.W1.weight, self.W1.bias)
        psi = Psi(w1, self.delta_scale * self.W2.weight, self.delta_scale * self.W2.bias)
        basis = normed(identity.m, self.W.in_features)
        return Prepared(
            identity.decode.after(identity.f.to(self.storage), basis.to(self.storage), psi),
            OfCode.prepare(self.V1.weight, self.V1.bias, source),
            torch.cat([gamma, w1 @ beta]),
            torch.cat([1 + gamma0, bias]),
        )

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        code = F.linear(F.silu(prepared.mapping(driving)), prepared.rows, prepared.constant)
        basis = self.W.in_features
        return prepared.fused(code[:, :basis], code[:, basis:])
