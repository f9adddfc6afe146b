"""The mean head's surface seen from the front: where Gaussians start (ours; the paper's encoder learned depth in days).

Rays are those of a frontal camera, so that a texel of the planes, a pixel of a frontal photo and a Gaussian lie on one line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor, nn

from i4d_bench.camera import FOV, RADIUS
from i4d_bench.heads.flame import FlameModel
from i4d_bench.render import mesh
from i4d_bench.types import Camera, as_grid

SIZE = 128
HALF = RADIUS * float(np.tan(np.radians(FOV) / 2))
"""Half of what a frontal camera sees at z = 0, canonical units."""


class HeadSurface(nn.Module):
    """Front and back of a head above every canonical (x, y) of the camera's square; part of a model's state."""

    depth: Float[Tensor, "3 128 128"]

    def __init__(self, depth: Tensor | None = None):
        """depth [3,SIZE,SIZE]: front z, back z, 1 inside the silhouette; rows run downwards. Default: the embedded mean head's."""
        super().__init__()
        self.register_buffer("depth", mean_head() if depth is None else depth)
        self._kept: dict = {}

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What depends on this surface and the key alone, made once: every image is sampled along the same rays."""
        of = (self.depth.device, self.depth.dtype, self.depth.data_ptr(), self.depth._version)
        if self._kept.get("of") != of:
            self._kept = {"of": of}
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Front z, back z and whether (x, y) is inside, each shaped as x."""
        grid = (torch.stack([x, -y], -1) / HALF).reshape(1, 1, -1, 2)
        read = F.grid_sample(self.depth[None], grid, padding_mode="border", align_corners=False)[0, :, 0]
        front, back, inside = read.unflatten(-1, x.shape).unbind()
        return front, back, inside > 0.5

    def unproject(self, u: Tensor, v: Tensor, back: bool = False) -> tuple[Tensor, Tensor]:
        """Points [N,3] where the rays through (u, v) in ±1 (up is +1) meet the surface, and whether they do."""
        z = torch.zeros_like(u)
        for _ in range(4):  # depth changes slowly: each round is ten times closer
            x, y = (HALF * t * (1 - z / RADIUS) for t in (u, v))
            front, behind, inside = self(x, y)
            z = behind if back else front
        return torch.stack([x, y, z], -1), inside

    def rectify(self, images: Tensor, camera: Camera) -> Tensor:
        """Photos [B,3,S,S] as the frontal camera would see them if they were painted on this head.

        camera: the photos'. What it cannot see keeps the colour that hides it.
        """
        size = images.shape[-1]
        points = self.kept(("pixels", size), lambda: self._pixels(size))
        grid = as_grid(camera.project(points), camera.width, camera.height).view(len(images), size, size, 2)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _pixels(self, size: int) -> Tensor:
        """Where the rays through the frontal camera's pixels meet the front, [size²,3]."""
        t = (torch.arange(size, device=self.depth.device) + 0.5) / size * 2 - 1
        v, u = torch.meshgrid(-t, t, indexing="ij")
        return self.unproject(u.reshape(-1), v.reshape(-1))[0]


@functools.cache
def mean_head() -> Tensor:
    """The embedded world's mean head as HeadSurface's depth."""
    from i4d_bench.heads.worlds import exported_head

    head: FlameModel = exported_head("procedural")
    return head_depth(head.v_template.double().numpy(), head.faces.numpy())


def head_depth(vertices: np.ndarray, faces: np.ndarray) -> Tensor:
    """Orthographic front and back depth of a mesh [V,3], [F,3]; outside the silhouette that of the nearest point inside."""
    pixels = (vertices[:, :2] * [1, -1] / HALF + 1) / 2 * SIZE
    layers = []
    for sign in (1, -1):
        buffer = np.zeros((SIZE, SIZE))
        screen = np.c_[pixels, 1 + sign * vertices[:, 2]]  # the rasteriser keeps what is largest
        mesh.rasterize(screen, np.ascontiguousarray(faces, np.int32), buffer, np.full(buffer.shape, -1, np.int32))
        layers.append(buffer)
    inside = layers[0] > 0
    indices: np.ndarray = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)  # pyright: ignore
    nearest = tuple(indices)
    front, back = (
        ndimage.gaussian_filter((sign * (b - 1))[nearest], 1.0) for sign, b in zip((1, -1), layers, strict=True)
    )
    return torch.from_numpy(np.stack([front, back, inside])).float()
