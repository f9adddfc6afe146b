"""Ψ driven by FLAME coefficients: the paper's operator (PAPER §1) with the parametric family's driver.

    c      = [ψ_s; ψ_d],   ψ = [8 · expression; 32 · (neck, jaw, eyes)]
    (γ, β) = A c
    x_i    = W (LN(m_i) ⊙ γ + β) + b
    δf_i   = s · [W2 softplus(W1 x_i + b1) + b2],   avatar = Φ(f_i + δf_i)

Beside `local_adaln` driven by the `flame` driver, whose coefficients pass a random network into the 512 numbers first, it
separates the driver from the operator: everything behind c is `local_adaln`'s, its folding, its initialisation and its defaults.
Changed to fit: A is as wide as the coefficients, so 23,616 parameters instead of 110,016; matched in FLOPs, which are
`local_adaln`'s (6.0 GFLOP per frame of 196,608 Gaussians by `i4d_bench.speed.cost`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i4d_bench.types import FEATURE_DIM, FlameCode, Gaussians, Identity, MotionCode
from kernels.layout import Psi
from variants.base import Fusion, normed, register, scaled
from variants.parametric import driver_of, source_of

POSE = slice(3, 15)
"""Neck, jaw and eyes; the root is the camera's."""
UNITS = (8.0, 32.0)
"""Fixed units of expression and pose. Expressions of rendered heads have about 0.4 in each coefficient and turn jaw and eyes by
about 0.13 radians; in these units both weigh alike and c is about as long as local_adaln's (32), so that A's std and a
learning rate mean the same to both. (No data's statistics are known here, and dividing by c's own length would hide how
strong an expression is.)"""


@dataclass
class Prepared:
    fused: Callable[[Tensor, Tensor], Gaussians]  # the rest of Ψ, and Φ
    rows: Tensor  # [M+H,K]: ψ_d → gain γ and, through W and W1, the hidden layer's bias
    source: Tensor  # [B,M+H]: what ψ_s and the biases add to them


@register("flame_adaln")
class FlameAdaLN(Fusion):
    """FLAME ψ ─A→ γ, β;   m_i ─LN, ⊙ γ, + β, W→ x_i ─MLP→ + f_i ─Φ→ Gaussian i"""

    family = "parametric"
    needs = "flame"

    def __init__(
        self,
        n_expression: int = 50,
        motion_basis: int = FEATURE_DIM,
        hidden: int = 96,
        delta_scale: float = 0.01,
        a_std: float = 0.02,
        w_std: float = 0.02,
        init_scale: float = 1.0,
    ):
        super().__init__()
        self.n_expression, self.delta_scale = n_expression, delta_scale
        self.coefficients = n_expression + POSE.stop - POSE.start
        self.A = nn.Linear(2 * self.coefficients, 2 * motion_basis, bias=False)
        self.W = nn.Linear(motion_basis, FEATURE_DIM)
        self.W1 = nn.Linear(FEATURE_DIM, hidden)
        self.W2 = nn.Linear(hidden, FEATURE_DIM)
        nn.init.normal_(self.A.weight, std=a_std)
        nn.init.normal_(self.W.weight, std=w_std)
        scaled(self.W2, init_scale)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        _, code = source_of(self.name, identity, source)
        w1 = self.W1.weight @ self.W.weight  # linear maps fold once, as in local_adaln
        gamma, beta = self.A.weight.chunk(2)
        from_source, from_driving = torch.cat([gamma, w1 @ beta]).chunk(2, 1)
        constant = torch.cat([gamma.new_zeros(len(gamma)), F.linear(self.W.bias, self.W1.weight, self.W1.bias)])
        psi = Psi(w1, self.delta_scale * self.W2.weight, self.delta_scale * self.W2.bias)
        basis = normed(identity.m, self.W.in_features)
        return Prepared(
            identity.decode.after(identity.f.to(self.storage), basis.to(self.storage), psi),
            from_driving,
            F.linear(self.psi(code), from_source, constant),
        )

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        people, basis = len(prepared.source), self.W.in_features
        change = F.linear(self.psi(driver_of(self.name, driving)), prepared.rows)
        code = (change.unflatten(0, (people, -1)) + prepared.source[:, None]).flatten(0, 1)
        return prepared.fused(code[:, :basis], code[:, basis:])

    def psi(self, code: FlameCode) -> Tensor:
        """[B,K] in the fixed units; a head may have fewer expressions than are read."""
        expression = code.expression[:, : self.n_expression]
        expression = F.pad(expression, (0, self.n_expression - expression.shape[1]))
        return torch.cat([UNITS[0] * expression, UNITS[1] * code.pose[:, POSE]], 1)
