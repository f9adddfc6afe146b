"""LAM / 3D Gaussian Blendshapes (PAPER §4): linear in the parametric head's coefficients, then skinning.

    G_i   = G_i⁰ + w_i Σ_v b_iv [T_v(ψ_d) − T_v(ψ_s)] + Σ_k (ψ_d − ψ_s)_k B_k(m_i)      blendshapes of mesh and Gaussian
    G_i'  = skin(G_i),  A_i = Σ_v b_iv Σ_j weights_vj A_j(θ_d) A_j(θ_s)⁻¹                linear blend skinning

T_v are the head's unposed vertices; b binds Gaussian i to its nearest vertices of the source's mesh. Changed to fit the
shared pipeline: LAM's Gaussians sit on mesh vertices, ours are lifted from the image and bound to the mesh; the blendshapes
B_k are not fitted per subject but read off the motion basis m by a small network, once per identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i4d_bench.types import FEATURE_DIM, FlameCode, Gaussians, Identity, MotionCode, ParametricHead, UserError
from variants.base import Fusion, register

MOVING = slice(6, 15)
"""Jaw and eyes in the pose: they drive blendshapes too (an opening mouth shows what was hidden)."""
WHERE = "rendered worlds and ingested video come with them, other data must bring them"
ATTRIBUTES = {"means": 3, "scales": 3, "quats": 4, "opacities": 1, "colors": 3}


@dataclass
class Prepared:
    gaussians: Gaussians
    blendshapes: Tensor  # [B,K,N·14]: laid out for one matrix product per frame
    vertices: Tensor  # [B,N,k] indices of the vertices a Gaussian is bound to
    weights: Tensor  # [B,N,k], they sum to the falloff w_i
    joints: Tensor  # [B,N,5] skinning weights
    rest: Tensor  # [B,V,3] unposed source mesh
    unpose: Tensor  # [B,5,4,4] A_j(θ_s)⁻¹
    source: FlameCode
    head: ParametricHead


@register("flame_blendshapes")
class FlameBlendshapes(Fusion):
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
        self.layer2 = nn.Linear(hidden, self.coefficients * sum(ATTRIBUTES.values()))
        with torch.no_grad():
            self.layer2.weight.mul_(init_scale)
            self.layer2.bias.mul_(init_scale)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        head, code = identity.head, source.flame
        if head is None or code is None:
            raise UserError(f"flame_blendshapes needs a parametric head and the source's FLAME coefficients: {WHERE}")
        mesh = head(code.shape, code.expression, code.pose)
        vertices, weights = self._bind(identity.canonical.means.detach(), mesh)
        near = head.weights[vertices]  # [B,N,k,5]
        joints = (near * (weights / weights.sum(-1, keepdim=True))[..., None]).sum(2)
        blendshapes = self.layer2(F.silu(self.layer1(F.layer_norm(identity.m, identity.m.shape[-1:]))))
        return Prepared(
            identity.canonical,
            blendshapes.unflatten(-1, (self.coefficients, -1)).transpose(1, 2).flatten(2),
            vertices,
            weights,
            joints,
            head.unposed(code.shape, code.expression, code.pose),
            torch.linalg.inv(head.joint_transforms(code.shape, code.pose)),
            code,
            head,
        )

    def _bind(self, means: Tensor, mesh: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest of an even subset of the vertices, [B,N,k], and inverse-distance weights with a falloff."""
        count = mesh.shape[1]
        subset = torch.linspace(0, count - 1, min(count, self.bind_vertices), device=mesh.device).long()
        chunks = (
            torch.cdist(part, mesh[:, subset]).topk(self.neighbours, largest=False) for part in means.split(16384, 1)
        )
        distance, index = (torch.cat(t, 1) for t in zip(*chunks, strict=True))
        weights = 1 / (distance + 1e-3)
        falloff = torch.exp(-((distance[..., :1] / self.reach) ** 2)).clamp_min(1e-6)
        return subset[index], weights / weights.sum(-1, keepdim=True) * falloff

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        p, code = prepared, driving.flame
        if code is None:
            raise UserError(f"flame_blendshapes needs the driver's FLAME coefficients: {WHERE}")
        people = len(p.rest)
        frames = lambda t: t.unflatten(0, (people, -1))  # noqa: E731  [B·k,…] → [B,k,…]: nothing is copied per frame
        # The driver's expression on the source's shape: no leak of the driver's identity.
        shape = p.source.shape.repeat_interleave(len(code.pose) // people, 0)
        moved = frames(p.head.unposed(shape, code.expression, code.pose)) - p.rest[:, None]
        person = torch.arange(people, device=shape.device)[:, None, None]
        bound = moved.transpose(1, 2)[person, p.vertices]  # [B,N,v,k,3]
        offset = torch.einsum("bnv,bnvfc->bfnc", p.weights, bound)
        change = frames(self._psi(code)) - self._psi(p.source)[:, None]
        delta = torch.bmm(change, p.blendshapes).unflatten(-1, (-1, sum(ATTRIBUTES.values())))  # [B,k,N,14]
        position, scale, quat, opacity, color = delta.split(list(ATTRIBUTES.values()), -1)
        g = p.gaussians.map(lambda t: t[:, None])
        A = frames(p.head.joint_transforms(shape, code.pose)) @ p.unpose[:, None]
        T = torch.einsum("bnj,bfjkl->bfnkl", p.joints, A[..., :3, :])
        means = g.means + offset + position
        return Gaussians(
            means=(T[..., :3] * means[..., None, :]).sum(-1) + T[..., 3],
            quats=_rotate(T[..., :3], g.quats + quat),
            scales=g.scales * torch.exp(scale),
            opacities=_shift(g.opacities, opacity[..., 0]),
            colors=g.colors + color,
        ).map(lambda t: t.flatten(0, 1))

    def _psi(self, code: FlameCode) -> Tensor:
        expression = code.expression[:, : self.n_expression]
        expression = F.pad(expression, (0, self.n_expression - expression.shape[1]))  # a head may have fewer
        return torch.cat([expression, code.pose[:, MOVING]], 1)


def _shift(probability: Tensor, logit: Tensor) -> Tensor:
    """sigmoid(logit(p) + Δ), exact at Δ = 0."""
    grown = probability * torch.exp(logit.clamp(-15, 15))
    return grown / (grown + 1 - probability)


def _rotate(matrix: Tensor, quats: Tensor) -> Tensor:
    """Quaternions turned by the rotation nearest to a blend of rotations (first order: its antisymmetric part)."""
    w = 0.5 * torch.sqrt((1 + matrix.diagonal(dim1=-2, dim2=-1).sum(-1)).clamp_min(1e-6))
    axis = torch.stack([matrix[..., 2, 1] - matrix[..., 1, 2], matrix[..., 0, 2] - matrix[..., 2, 0],
                        matrix[..., 1, 0] - matrix[..., 0, 1]], -1) / (4 * w[..., None])  # fmt: skip
    a, b = torch.cat([w[..., None], axis], -1).unbind(-1), quats.unbind(-1)
    return torch.stack([
        a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
        a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
        a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
        a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
    ], -1)  # fmt: skip
