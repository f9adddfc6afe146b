"""gsplat's projection and rasteriser around our own tile lists (`kernels.raster.tiles`): a picture without a word from
the host, so that a CUDA graph can hold a whole frame. Forward only, colour only.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from i4d_bench.types import Camera, Gaussians
from kernels.layout import EPS_2D, NEAR


class Splatter:
    """Renders batches of one size.

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
