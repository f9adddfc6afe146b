"""Pictures without a word from the host, so that a CUDA graph can hold a whole frame. Forward only, colour only.

What does not fit in the room that there is, is missing, and counted on the device: nothing can be made larger within a graph.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from i4d_bench.types import Camera, Gaussians
from kernels.layout import EPS_2D, NEAR


class Resident:
    """Our rasteriser (`kernels.raster`) with room for lists twice as long as some example's.

    After a picture `needed` is the room that it wanted, on the device: more than `room` means that it lacks some Gaussians.
    """

    needed: Tensor | None

    def __init__(self, example: Gaussians, camera: Camera):
        from kernels.raster.splat import lists_for, rows_of

        given = (example.means, example.quats, example.scales, example.opacities, example.colors)
        rows = rows_of(*given, camera.viewmats, camera.Ks, camera.width, camera.height)
        self.lists = lists_for(rows, camera.width, camera.height, 2.0)
        self.room, self.needed = self.lists.room, None

    def __call__(self, g: Gaussians, camera: Camera, background: Float[Tensor, "B 3"]) -> Float[Tensor, "B H W 3"]:
        from kernels.raster.splat import splat

        given = (g.means, g.quats, g.scales, g.opacities, g.colors)
        size = (camera.width, camera.height)
        rgb, _, _, self.needed = splat(*given, background, camera.viewmats, camera.Ks, *size, False, self.lists)
        return rgb


class Splatter:
    """gsplat's projection and rasteriser around our tile lists (`kernels.raster.tiles`), for batches of one size.

    capacity: (tile, Gaussian) pairs there is room for. After a picture `pairs` is how many there were, on the device:
    more than `capacity` means that the picture lacks some.
    """

    def __init__(self, batch: int, width: int, height: int, capacity: int, device):
        from kernels.raster.tiles import TileLists

        self.width, self.height = width, height
        self.lists = TileLists(batch, width, height, capacity, device)
        self.pairs: Tensor | None = None

    def __call__(self, g: Gaussians, camera: Camera, background: Float[Tensor, "B 3"]) -> Float[Tensor, "B H W 3"]:
        from gsplat import fully_fused_projection, rasterize_to_pixels

        radii, means2d, depths, conics, _ = fully_fused_projection(
            g.means, None, g.quats, g.scales, camera.viewmats[:, None], camera.Ks[:, None], self.width, self.height,
            eps2d=EPS_2D, near_plane=NEAR, opacities=g.opacities,
        )  # fmt: skip
        owners, offsets, self.pairs = self.lists(means2d[:, 0], radii[:, 0], depths[:, 0])
        rgb, _ = rasterize_to_pixels(
            means2d, conics, g.colors[:, None], g.opacities[:, None], self.width, self.height, self.lists.tile[0],
            offsets[:, None], owners, backgrounds=background[:, None],
        )  # fmt: skip
        return rgb[:, 0]
