"""Gaussians as the standard 3DGS .ply that common viewers open: log scales, logit opacities, colour as degree-0 SH.

Axes are those of 3DGS's own files, which come from COLMAP's cameras: x right, y down, z away from who looks at the face. That is
canonical space turned by half a turn around x, and common viewers show it upright.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from plyfile import PlyData, PlyElement
from torch import Tensor

from i4d_bench.cache import atomic_file
from i4d_bench.reading import reading
from i4d_bench.types import Gaussians

SH_C0 = 0.28209479177387814
FIELDS = ("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2",
          "rot_0", "rot_1", "rot_2", "rot_3")  # fmt: skip


def write_ply(path: Path, gaussians: Gaussians) -> None:
    """Writes one avatar (batch of 1). Opacities are kept 1e-6 away from 0 and 1, whose logits are infinite."""
    if len(gaussians.means) != 1:
        raise ValueError(f"a .ply holds one avatar, got a batch of {len(gaussians.means)}")
    g = gaussians.detach().to("cpu")
    opacity = g.opacities.double().clamp(1e-6, 1 - 1e-6)
    columns = torch.cat(
        [
            _turned(g.means.double()),
            torch.zeros(*g.means.shape, dtype=torch.float64),
            (g.colors.double() - 0.5) / SH_C0,
            torch.logit(opacity)[..., None],
            torch.log(g.scales.double().clamp_min(1e-12)),
            torch.nn.functional.normalize(_turned_quats(g.quats.double()), dim=-1),
        ],
        -1,
    )[0]
    table = np.zeros(len(columns), dtype=[(name, "<f4") for name in FIELDS])
    for name, column in zip(FIELDS, columns.T.numpy(), strict=True):
        table[name] = column
    with atomic_file(Path(path)) as partial:
        PlyData([PlyElement.describe(table, "vertex")], byte_order="<").write(str(partial))


def read_ply(path: Path) -> Gaussians:
    """The Gaussians of a 3DGS .ply in canonical space, a batch of 1 (higher SH degrees are left out). Raises UserError."""
    with reading(path, "is not a 3DGS .ply"):
        vertex = PlyData.read(str(path))["vertex"]
        table = torch.tensor(np.stack([np.asarray(vertex[name], np.float32) for name in FIELDS], -1))[None]
    means, _, dc, opacity, scale, quats = table.split([3, 3, 3, 1, 3, 4], -1)
    means, quats = _turned(means), -_turned_quats(quats)  # i twice is -1
    return Gaussians(means, quats, torch.exp(scale), torch.sigmoid(opacity[..., 0]), dc * SH_C0 + 0.5)


def _turned(points: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N 3"]:
    """By half a turn around x."""
    return points * points.new_tensor([1, -1, -1])


def _turned_quats(quats: Float[Tensor, "B N 4"]) -> Float[Tensor, "B N 4"]:
    """The same half turn, i, before each: i (w + xi + yj + zk)."""
    w, x, y, z = quats.unbind(-1)
    return torch.stack([-x, w, -z, y], -1)
