"""Gaussian splatting by our own kernels (`kernels.raster.splat`): Triton alone, no compiler to install."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from i4d_bench.types import Camera, Gaussians, Rendered


def rasterize(g: Gaussians, camera: Camera, background: Float[Tensor, "B 3"], depth: bool = True) -> Rendered:
    """One scene and one camera per batch row, in fp32."""
    from kernels.raster.splat import splat

    given = (g.means, g.quats, g.scales, g.opacities, g.colors)
    rgb, alpha, z, _ = splat(*given, background, camera.viewmats, camera.Ks, camera.width, camera.height, depth)
    return Rendered(rgb, alpha, z)
