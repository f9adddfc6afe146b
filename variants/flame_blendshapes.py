"""LAM / 3D Gaussian Blendshapes (PAPER §4): linear in the parametric head's coefficients, then skinning.

    G_i   = G_i⁰ + w_i Σ_v b_iv [T_v(ψ_d) − T_v(ψ_s)] + Σ_k (ψ_d − ψ_s)_k B_k(m_i)      blendshapes of mesh and Gaussian
    G_i'  = skin(G_i),  A_i = Σ_v b_iv Σ_j weights_vj A_j(θ_d) A_j(θ_s)⁻¹                linear blend skinning

T_v are the head's unposed vertices; b binds Gaussian i to its nearest vertices of the source's mesh. Changed to fit the
shared pipeline: LAM's Gaussians sit on mesh vertices, ours are lifted from the image and bound to the mesh; the blendshapes
B_k are not fitted per subject but read off the motion basis m by a small network, once per identity. Its last layer is linear,
B_k = W_k h_i, so that a frame folds Σ_k (ψ_d − ψ_s)_k W_k and only the h_i are stored: a sixth of the numbers, the same result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kernels
from i4d_bench.types import FEATURE_DIM, FlameCode, Gaussians, Identity, MotionCode
from kernels.layout import RAW, Attributes, Binding, Skinned
from variants.base import Fusion, normed, register, scaled
from variants.nearest import nearest_points
from variants.parametric import driver_of, shaped, source_of

MOVING = slice(6, 15)
"""Jaw and eyes in the pose: they drive blendshapes too (an opening mouth shows what was hidden)."""
ROWS = 16
"""The kernel's rows of attributes (RAW) and of h come in sixteens."""


@dataclass
class Prepared:
    head: Callable[[Tensor, Tensor], Skinned]  # with the source's shape
    base: Attributes  # the canonical avatar, its means less w_i Σ_v b_iv T_v(ψ_s)
    binding: Binding
    hidden: Tensor  # h [B,N,H]
    blendshapes: Tensor  # [K,16·H+16]: W_k with its bias, flat
    psi: Tensor  # [B,K] ψ_s
    unpose: Tensor  # [B,1,5,4,4] A_j(θ_s)⁻¹


@register("flame_blendshapes")
class FlameBlendshapes(Fusion):
    """f_i ─Φ→ canonical Gaussian i;   m_i ─MLP→ B_1…B_K;   + Σ_k ψ_k B_k + the mesh's own blendshapes ─skinning→ Gaussian i"""

    family = "parametric"
    needs = "flame"
    neutral_is_canonical = True

    def __init__(
        self, n_expression: int = 20, hidden: int = 64, motion_basis: int = FEATURE_DIM, init_scale: float = 0.1,
        neighbours: int = 4, bind_vertices: int = 2048, reach: float = 0.06,
    ):  # fmt: skip
        """bind_vertices: how many of the mesh's vertices may be bound to. reach: where the mesh's pull has fallen to 1/e."""
        super().__init__()
        self.n_expression, self.neighbours, self.bind_vertices, self.reach = (
            n_expression,
            neighbours,
            bind_vertices,
            reach,
        )
        self.coefficients = n_expression + MOVING.stop - MOVING.start
        self.layer1 = nn.Linear(motion_basis, hidden)
        self.layer2 = nn.Linear(hidden, self.coefficients * RAW)
        scaled(self.layer2, init_scale)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        head, code = source_of(self.name, identity, source)
        own, canonical = shaped(head, code.shape), identity.canonical
        rest = own(code.expression, code.pose)
        vertices, weights = self._bind(canonical.means.detach(), rest.vertices)
        near = head.weights[vertices]  # [B,N,k,5]
        joints = (near * (weights / weights.sum(-1, keepdim=True))[..., None]).sum(2)
        person = torch.arange(len(vertices), device=vertices.device)[:, None, None]
        pulled = (weights[..., None] * rest.unposed[person, vertices]).sum(2)
        hidden = F.silu(self.layer1(normed(identity.m, self.layer1.in_features)))
        idle = -hidden.shape[-1] % ROWS
        weight = F.pad(self.layer2.weight.unflatten(0, (self.coefficients, RAW)), (0, idle, 0, ROWS - RAW))
        bias = F.pad(self.layer2.bias.unflatten(0, (self.coefficients, RAW)), (0, ROWS - RAW))
        return Prepared(
            own,
            Attributes(
                canonical.means - pulled, canonical.quats, canonical.scales, canonical.opacities, canonical.colors
            ),
            Binding(*(t.transpose(1, 2).contiguous() for t in (vertices.int(), weights, joints))),
            F.pad(hidden, (0, idle)).to(self.storage),
            torch.cat([weight.flatten(1), bias], 1),
            self._psi(code),
            torch.linalg.inv(rest.transforms)[:, None],
        )

    def _bind(self, means: Tensor, mesh: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest of an even subset of the vertices, [B,N,k], and inverse-distance weights with a falloff."""
        count = mesh.shape[1]
        subset = torch.linspace(0, count - 1, min(count, self.bind_vertices), device=mesh.device).long()
        square, index = nearest_points(means, mesh[:, subset], self.neighbours)
        distance = square.sqrt()
        weights = 1 / (distance + 1e-3)
        falloff = torch.exp(-((distance[..., :1] / self.reach) ** 2)).clamp_min(1e-6)
        return subset[index], weights / weights.sum(-1, keepdim=True) * falloff

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        p, code = prepared, driver_of(self.name, driving)
        frames = lambda t: t.unflatten(0, (len(p.psi), -1))  # noqa: E731  [B·k,…] → [B,k,…]: nothing is copied per frame
        head = p.head(code.expression, code.pose)
        readout = (frames(self._psi(code)) - p.psi[:, None]).flatten(0, 1) @ p.blendshapes
        split = ROWS * p.hidden.shape[-1]
        transforms = (frames(head.transforms) @ p.unpose).flatten(0, 1)
        return Gaussians(
            *kernels.blend_gaussians(
                p.base,
                p.binding,
                p.hidden,
                readout[:, :split].unflatten(1, (ROWS, -1)),
                readout[:, split:],
                head.unposed,
                transforms,
            )
        )

    def _psi(self, code: FlameCode) -> Tensor:
        expression = code.expression[:, : self.n_expression]
        if expression.shape[1] < self.n_expression:  # a head may have fewer
            expression = F.pad(expression, (0, self.n_expression - expression.shape[1]))
        return torch.cat([expression, code.pose[:, MOVING]], 1)
