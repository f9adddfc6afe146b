"""One function renders Gaussians: gsplat on a GPU, numba on the CPU, and a dense reference that both must equal."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from i4d_bench.types import Camera, Gaussians, Rendered, UserError

BACKENDS = ("auto", "gsplat", "cpu", "reference")


def render(
    gaussians: Gaussians,
    camera: Camera,
    background: Float[Tensor, "B 3"] | None = None,
    backend: Literal["auto", "gsplat", "cpu", "reference"] = "auto",
    depth: bool = True,
) -> Rendered:
    """Renders B scenes, each from its own camera, over `background` (black by default). Without `depth` gsplat leaves it out.

    auto: gsplat for CUDA tensors, cpu for CPU tensors. Raises UserError for an unknown backend, or one that cannot run
    where the Gaussians are: there is no silent change of backend.
    """
    cuda = gaussians.means.is_cuda
    if backend == "auto":
        backend = "gsplat" if cuda else "cpu"
    if backend not in BACKENDS:
        raise UserError(f"there is no render backend {backend!r}; there are {', '.join(BACKENDS)}")
    if (backend == "gsplat") != cuda and backend != "reference":
        raise UserError(f"the {backend} backend cannot render Gaussians that are on the {gaussians.means.device.type}")
    if background is None:
        background = gaussians.means.new_zeros(len(gaussians.means), 3)
    if backend == "gsplat":
        from i4d_bench.render.gsplat import rasterize

        return rasterize(gaussians, camera, background, depth)
    if backend == "cpu":
        from i4d_bench.render.cpu import rasterize
    else:
        from i4d_bench.render.reference import rasterize
    return rasterize(gaussians, camera, background)
