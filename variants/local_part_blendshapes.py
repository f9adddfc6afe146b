"""Part-local blendshapes of high-fidelity mobile avatars (PAPER §6, 2605.01854), in feature space.

    δf_i   = s Σ_k e_ik B_k(m_i),   B_k(m_i) = W (a_k ⊙ h_i) ∈ R^48,   h_i = softplus(W1 LN(m_i) + b1)
    e_i    = Σ_p w_ip e_p ∈ R^K,    w_ip ∝ 1/d_ip − 1/d_i                           of the nearest parts
    e_p    = U2_p silu(U1_p z + a1_p) + a2_p,   z = V c + v                         a network of its own for every part p
    avatar = Φ(f_i + δf_i)                                                          c = [M(source); M(driving)]

P = 256 parts and K = 16 coefficients as published. A part is what lies nearest to its centre, d_ip away from where a Gaussian was
sampled, and centres are the same points of canonical space for all people, grids and samplings: a sunflower's spiral over an
ellipsoid about as large as a head, from the tip of the face to the back, half of it on the front quarter. Coefficients are
blended among the nearest `neighbours` parts by inverse distances, less that of the next part, d_i, so that nothing jumps where
neighbours change; 1 leaves hard seams. Published are inverse distances of three for positions, at 10k nodes.

Changed to fit the shared pipeline: the blendshapes are not fitted per subject but read off the motion basis, and change features,
not rotation, scale and colour; networks read z, twenty numbers of the code, where pose and ten FLAME coefficients stood. As a_k
gates a layer that all blendshapes share, a frame needs one row of every part, Σ_k e_pk a_k, and of a Gaussian no more than h_i.

Matched to `local_adaln` in parameters: 107,604. `init_scale=0` starts at the canonical avatar; `source=False` hides M(source).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

import kernels
from i4d_bench.types import FEATURE_DIM, Gaussians, Identity, MotionCode, UserError
from kernels.layout import Parts
from variants.base import Fusion, normed, register, scaled
from variants.local_adaln import CODE, OfCode
from variants.nearest import nearest_points

MIDDLE, RADII = (0.0, 0.02, 0.0), (0.22, 0.33, 0.26)
"""Of the ellipsoid, canonical units."""


def centres(count: int) -> Float[Tensor, "P 3"]:
    """Of the parts, canonical units, from the tip of the face to the back of the head."""
    share = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    z, angle = 1 - 2 * share**2, torch.arange(count) * (math.pi * (3 - math.sqrt(5)))
    ring = torch.sqrt(1 - z**2)
    sphere = torch.stack([ring * torch.cos(angle), ring * torch.sin(angle), z], -1)
    return (torch.tensor(MIDDLE) + sphere * torch.tensor(RADII)).float()


@torch.no_grad()
def parts_of(points: Float[Tensor, "B N 3"], centres: Float[Tensor, "P 3"], neighbours: int) -> Parts:
    """The nearest parts of each point and what they weigh: smooth where neighbours change, 1 in all."""
    square, index = (t.mT for t in nearest_points(points, centres, min(neighbours + 1, len(centres))))  # [B,k+1,N]
    inverse = 1 / square.sqrt().clamp_min(1e-4)
    weights = inverse[:, :neighbours] - (inverse[:, neighbours:] if neighbours < len(centres) else 0) + 1e-6
    return Parts(index[:, :neighbours].int().contiguous(), (weights / weights.sum(1, keepdim=True)).contiguous())


class Networks(nn.Module):
    """A network of one hidden layer for every part: [F,I] → [F,P,O]."""

    def __init__(self, parts: int, inputs: int, hidden: int, outputs: int):
        super().__init__()
        uniform = lambda fan, *shape: nn.Parameter((2 * torch.rand(parts, *shape) - 1) / math.sqrt(fan))  # noqa: E731
        self.U1, self.a1 = uniform(inputs, inputs, hidden), uniform(inputs, 1, hidden)
        self.U2, self.a2 = uniform(hidden, hidden, outputs), uniform(hidden, 1, outputs)

    def forward(self, z: Float[Tensor, "F I"]) -> Float[Tensor, "F P O"]:
        hidden = F.silu(torch.baddbmm(self.a1, z.expand(len(self.U1), -1, -1), self.U1))
        return torch.baddbmm(self.a2, hidden, self.U2).transpose(0, 1)


@dataclass
class Prepared:
    identity: Identity  # for f and Φ
    hidden: Tensor  # h [B,N,H]
    parts: Parts
    readout: Tensor  # s W
    z: OfCode


@register("local_part_blendshapes")
class LocalPartBlendshapes(Fusion):
    """c ─z→ part p's MLP→ e_p ─nearest parts→ e_i;   m_i ─MLP→ B_1…B_K;   Σ_k e_ik B_k → + f_i ─Φ→ Gaussian i"""

    family = "local"
    needs = "motion"
    centres: Float[Tensor, "P 3"]

    def __init__(
        self,
        parts: int = 256,
        blendshapes: int = 16,
        neighbours: int = 3,
        motion_basis: int = 48,
        hidden: int = 64,
        mapping: int = 20,
        part_hidden: int = 8,
        delta_scale: float = 1.0,
        init_scale: float = 1.0,
        source: bool = True,
    ):
        """mapping: numbers of z. part_hidden: units of a part's network."""
        super().__init__()
        if not 1 <= neighbours <= parts:
            raise UserError(f"neighbours must be 1 to {parts}, as many as there are parts, not {neighbours}")
        self.neighbours, self.delta_scale = neighbours, delta_scale
        self.register_buffer("centres", centres(parts), persistent=False)
        self.V = nn.Linear((1 + source) * CODE, mapping)
        self.networks = Networks(parts, mapping, part_hidden, blendshapes)
        self.W1 = nn.Linear(motion_basis, hidden)
        self.a = nn.Linear(blendshapes, hidden, bias=False)  # a_k for all k
        self.W = nn.Linear(hidden, FEATURE_DIM, bias=False)
        nn.init.normal_(self.a.weight)  # so that δf starts about as large as local_mlp's
        scaled(self.W, init_scale)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        hidden = F.softplus(self.W1(normed(identity.m, self.W1.in_features)))
        return Prepared(
            replace(identity, f=identity.f.to(self.storage)),
            hidden.to(self.storage),
            parts_of(identity.anchors, self.centres, self.neighbours),
            (self.delta_scale * self.W.weight).to(self.storage),
            OfCode.prepare(self.V.weight, self.V.bias, source),
        )

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        p, gains = prepared, self.a(self.networks(prepared.z(driving)))
        return p.identity.decode(kernels.part_blendshapes(p.identity.f, p.hidden, p.parts, gains, p.readout))
