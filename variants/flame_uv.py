"""FlexAvatar (Peng): a U-Net on the driven mesh's UV position map changes the avatar, then skinning (PAPER §4).

    P    = position map of the head's mesh, seen from its neck joint
    Δ    = UNet(identity features ⊕ P(ψ_s) ⊕ (P(ψ_d) − P(ψ_s)))            64 × 64 texels, 48 channels
    G_i  = Φ(f_i + mask(m_i) · Δ(uv_i)),   mask(m) = sigmoid(w·LN(m) + b)
    G_i' = skin(G_i):  A_i = Σ_j w_ij A_j(θ_d) A_j(θ_s)⁻¹

Changed to fit the shared pipeline: FlexAvatar's static Gaussians live on the UV map, ours are lifted from the image and read Δ
where the triangle nearest to them lies on the map, whose joint weights they take over; the offset is one of features, before
the shared Φ; and the map is a cylinder's (`unwrap`), because the heads here bring no texture coordinates. The driven mesh
enters as its displacement from the source's, in units of 2 mm, so that an expression is not a hundredth of what a
position is.

Identity features are averaged into the texels, and their part of the first convolution computed, once per identity; a texel's
triangle and weights are fixed too, so that a frame's map is a gather and a weighted sum. Matched in FLOPs: 5.2 GFLOP per
frame of 196,608 Gaussians, 2.3 of them Φ's, against local_adaln's 6.0 (by `i4d_bench.speed.cost`); 2.8 M parameters, as the texels
carry the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from i4d_bench.types import FEATURE_DIM, Decode, Gaussians, Identity, MotionCode
from kernels.layout import Skinned
from kernels.reference import multiply, quaternion
from variants.base import Fusion, normed, register, scaled
from variants.nearest import leaves_of, nearest_triangles
from variants.parametric import driver_of, kept, shaped, source_of
from variants.unwrap import barycentric, coordinates, texels

WIDTHS = (1, 2, 4, 4)
"""Channels of the U-Net's levels over those of its first; each level has half the texels per side."""
UNIT = 0.005
"""Canonical units (2 mm) that count as one in the displacement map: expressions move the face by 5 mm rms, the rest hardly."""
NECK = 1


def block(inner: int, outer: int) -> nn.Sequential:
    layer = lambda a: (nn.GroupNorm(8, a), nn.SiLU(), nn.Conv2d(a, outer, 3, padding=1))  # noqa: E731
    return nn.Sequential(*layer(inner), *layer(outer))


class UNet(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        widths = [width * k for k in WIDTHS]
        self.down = nn.ModuleList(block(a, b) for a, b in pairwise([width, *widths]))
        self.up = nn.ModuleList(block(a + b, a) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        levels: list[Tensor] = []
        for down in self.down:
            levels.append(down(F.avg_pool2d(levels[-1], 2) if levels else x))
        x = levels.pop()
        for up in reversed(self.up):
            x = up(torch.cat([levels.pop(), F.interpolate(x, scale_factor=2.0)], 1))
        return x


@dataclass
class Prepared:
    head: Callable[[Tensor, Tensor], Skinned]  # with the source's shape
    decode: Decode
    f: Tensor  # [B,N,48]
    mask: Tensor  # [B,N,1], with delta_scale
    corners: Tensor  # [R²,3]: the vertices behind each texel
    weights: Tensor  # [R²,3]
    rest: Tensor  # [B,3,R,R] P(ψ_s)
    stem: Tensor  # [B,C,R,R]: what identity and P(ψ_s) give to the first convolution
    uv: Tensor  # [B,1,N,2]
    joints: Tensor  # [B,N,5]
    unpose: Tensor  # [B,1,5,4,4] A_j(θ_s)⁻¹


@register("flame_uv")
class FlameUV(Fusion):
    """driven mesh → position map ⊕ identity features ─U-Net→ map ─read at uv_i, ⊙ mask→ + f_i ─Φ→ ─skinning→ Gaussian i"""

    family = "parametric"
    needs = "flame"

    def __init__(
        self,
        resolution: int = 64,
        width: int = 48,
        motion_basis: int = FEATURE_DIM,
        delta_scale: float = 1.0,
        init_scale: float = 1.0,
    ):
        """resolution: texels per side of the map, a multiple of 8. width: channels at that resolution, a multiple of 8."""
        super().__init__()
        self.resolution, self.delta_scale = resolution, delta_scale
        self.identity = nn.Conv2d(FEATURE_DIM + motion_basis + 3, width, 3, padding=1)
        self.position = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.network = UNet(width)
        self.out = nn.Conv2d(width, FEATURE_DIM, 1)
        self.mask = nn.Linear(motion_basis, 1)
        scaled(self.out, init_scale)
        self.to(memory_format=torch.channels_last)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        head, code = source_of(self.name, identity, source)
        own, faces = shaped(head, code.shape), head.faces.long()
        mesh, template = own(code.expression, code.pose), kept(head, code, "template", lambda t: t)
        corners, weights = kept(head, code, ("texels", self.resolution), lambda t: texels(t, faces, self.resolution))
        rest = position_map(mesh, corners, weights, self.resolution)

        near = nearest_triangles(
            identity.canonical.means.detach(),
            mesh.vertices[:, faces],
            kept(head, code, "leaves", lambda t: leaves_of(t[faces].mean(1))),
        )
        person = torch.arange(len(near), device=near.device)[:, None, None]
        inside = barycentric(identity.canonical.means.detach(), mesh.vertices[person, faces[near]])[..., None]
        uv = coordinates((inside * template[faces[near]]).sum(2), template)
        joints = (inside * head.weights[faces[near]]).sum(2)

        basis = normed(identity.m, self.mask.in_features)
        averaged = splat(torch.cat([identity.f, basis], -1), uv, self.resolution)
        return Prepared(
            own,
            identity.decode,
            identity.f.to(self.storage),
            (self.delta_scale * torch.sigmoid(self.mask(basis))).to(self.storage),
            corners,
            weights,
            rest,
            self.identity(torch.cat([averaged, rest], 1)),
            uv[:, None],
            joints / joints.sum(-1, keepdim=True),
            torch.linalg.inv(mesh.transforms)[:, None],
        )

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        p, code = prepared, driver_of(self.name, driving)
        frames = lambda t: t.unflatten(0, (len(p.f), -1))  # noqa: E731  [B·k,…] → [B,k,…]: nothing is copied per frame
        mesh = p.head(code.expression, code.pose)
        driven = position_map(mesh, p.corners, p.weights, self.resolution)
        moved = (frames(driven) - p.rest[:, None]).flatten(0, 1) / UNIT
        with torch.autocast(moved.device.type, self.storage, enabled=self.storage != torch.float32):
            x = (
                (frames(self.position(moved)) + p.stem[:, None])
                .flatten(0, 1)
                .contiguous(memory_format=torch.channels_last)
            )
            delta = self.out(self.network(x))
        # Every person has one set of places: frames travel as channels.
        read = F.grid_sample(frames(delta.float()).flatten(1, 2), p.uv, align_corners=False, padding_mode="border")
        read = read[:, :, 0].unflatten(1, (-1, FEATURE_DIM)).mT.to(p.f)  # [B,k,N,48]
        gaussians = p.decode((p.f[:, None] + p.mask[:, None] * read).flatten(0, 1))
        return skin(gaussians, p.joints, (frames(mesh.transforms) @ p.unpose).flatten(0, 1))


def position_map(
    mesh: Skinned, corners: Tensor, weights: Float[Tensor, "R 3"], resolution: int
) -> Float[Tensor, "F 3 r r"]:
    """Where the texels are, seen from the neck joint: the head's own turning is left to the skinning."""
    at = (weights[..., None] * mesh.vertices[:, corners]).sum(2)  # [F,R²,3]
    neck = mesh.transforms[:, NECK]
    return ((at - neck[:, None, :3, 3]) @ neck[:, :3, :3]).mT.unflatten(-1, (resolution, resolution))


def splat(x: Float[Tensor, "B N C"], uv: Float[Tensor, "B N 2"], resolution: int) -> Float[Tensor, "B C r r"]:
    """The mean over those who fall into each texel; where nobody does, over those around, from ever coarser maps."""
    column, row = ((uv + 1) / 2 * resolution).long().clamp(0, resolution - 1).unbind(-1)
    x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    index = (row * resolution + column)[..., None].expand_as(x)
    total = x.new_zeros(len(x), resolution**2, x.shape[-1]).scatter_add(1, index, x)
    levels = [total.mT.unflatten(-1, (resolution, resolution))]
    while (side := levels[-1].shape[-1]) > 1:
        levels.append(F.adaptive_avg_pool2d(levels[-1], side // 2))
    total = levels.pop()
    while levels:
        total = levels[-1] + 0.01 * F.interpolate(total, levels.pop().shape[2:])
    return total[:, :-1] / total[:, -1:]


def skin(gaussians: Gaussians, joints: Float[Tensor, "B N 5"], transforms: Float[Tensor, "F 5 4 4"]) -> Gaussians:
    """Linear blend skinning: means by the blend of the joints' motions, orientations by that of their quaternions."""
    turn = quaternion(transforms[..., :3, :3])  # [F,5,4]
    turn = torch.where((turn * turn[:, :1]).sum(-1, keepdim=True) < 0, -turn, turn)  # q and −q are the same rotation
    motion = torch.cat([transforms[..., :3, :].flatten(2), turn], -1).unflatten(0, (len(joints), -1))  # [B,k,5,16]
    blend = (joints[:, None] @ motion).flatten(0, 1)
    A = blend[..., :12].unflatten(-1, (3, 4))
    return Gaussians(
        (A[..., :3] * gaussians.means[..., None, :]).sum(-1) + A[..., 3],
        multiply(blend[..., 12:], gaussians.quats),
        gaussians.scales,
        gaussians.opacities,
        gaussians.colors,
        gaussians.delta,
    )
