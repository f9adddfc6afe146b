"""The paper's local fusion Ψ ("Instant Expressive Gaussian Head Avatar …", PAPER §1, exact form).

    (γ, β) = A c                       c = [M(source); M(driving)], no bias, no non-linearity
    x_i    = W (LN(m_i) ⊙ γ + β) + b   LN without affine
    δf_i   = s · [W2 softplus(W1 x_i + b1) + b2]
    avatar = Φ(f_i + δf_i)

The published s is 0.01 and A, W start with std 0.02: the defaults here. Short presets override `delta_scale` and
`w_std` for a faster onset (DESIGN §4). `init_scale=0` starts at the canonical avatar; `source=False` hides M(source).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i4d_bench.types import FEATURE_DIM, MOTION_DIM, MOTION_TOKENS, Gaussians, Identity, MotionCode
from kernels.layout import Psi
from variants.base import Fusion, normed, register, scaled

CODE = MOTION_TOKENS * MOTION_DIM


@dataclass
class OfCode:
    """A linear map of c = [M(source); M(driving)], or of M(driving) alone. What M(source) adds is computed once."""

    driving: Tensor  # [R,512]
    source: Tensor  # [B,R]: what M(source) and the bias add

    @classmethod
    def prepare(cls, weight: Tensor, bias: Tensor, source: MotionCode) -> OfCode:
        own, driving = weight.tensor_split([weight.shape[1] - CODE], 1)
        people = len(source.motion)
        return cls(driving, F.linear(source.motion, own, bias) if own.shape[1] else bias.expand(people, -1))

    def __call__(self, driving: MotionCode) -> Tensor:
        """[B·k,R]"""
        change = F.linear(driving.motion, self.driving)
        return (change.unflatten(0, (len(self.source), -1)) + self.source[:, None]).flatten(0, 1)


@dataclass
class Prepared:
    fused: Callable[[Tensor, Tensor], Gaussians]  # the rest of Ψ, and Φ
    code: OfCode  # → gain γ and, through W and W1, the hidden layer's bias


@register("local_adaln")
class LocalAdaLN(Fusion):
    """c ─A→ γ, β;   m_i ─LN, ⊙ γ, + β, W→ x_i ─MLP→ + f_i ─Φ→ Gaussian i"""

    family = "local"
    needs = "motion"
    outputs: ClassVar[int] = FEATURE_DIM  # of Ψ, per Gaussian

    def __init__(
        self,
        motion_basis: int = 48,
        hidden: int = 96,
        delta_scale: float = 0.01,
        a_std: float = 0.02,
        w_std: float = 0.02,
        init_scale: float = 1.0,
        source: bool = True,
    ):
        super().__init__()
        self.delta_scale = delta_scale
        self.A = nn.Linear((1 + source) * CODE, 2 * motion_basis, bias=False)
        self.W = nn.Linear(motion_basis, FEATURE_DIM)
        self.W1 = nn.Linear(FEATURE_DIM, hidden)
        self.W2 = nn.Linear(hidden, self.outputs)
        nn.init.normal_(self.A.weight, std=a_std)
        nn.init.normal_(self.W.weight, std=w_std)
        scaled(self.W2, init_scale)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        psi, code = self.folded(source)
        basis = normed(identity.m, self.W.in_features)
        return Prepared(identity.decode.after(identity.f.to(self.storage), basis.to(self.storage), psi), code)

    def folded(self, source: MotionCode) -> tuple[Psi, OfCode]:
        # W1 (W (LN(m) ⊙ γ + β) + b) + b1 = (W1 W) (LN(m) ⊙ γ) + (W1 W A_β) c + W1 b + b1: linear maps fold once (PAPER §1).
        w1 = self.W1.weight @ self.W.weight
        gamma, beta = self.A.weight.chunk(2)
        constant = torch.cat([gamma.new_zeros(len(gamma)), F.linear(self.W.bias, self.W1.weight, self.W1.bias)])
        psi = Psi(w1, self.delta_scale * self.W2.weight, self.delta_scale * self.W2.bias)
        return psi, OfCode.prepare(torch.cat([gamma, w1 @ beta]), constant, source)

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        code, basis = prepared.code(driving), self.W.in_features
        return prepared.fused(code[:, :basis], code[:, basis:])
