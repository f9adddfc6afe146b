"""One function renders Gaussians: our kernels or gsplat on a GPU, numba on the CPU, and a dense reference that all must equal."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from i4d_bench.types import Camera, Gaussians, Rendered, UserError

Backend = Literal["auto", "gsplat", "triton", "cpu", "reference"]
BACKENDS = get_args(Backend)
ON_GPU: tuple[Backend, ...] = ("triton", "gsplat")
"""The first was the faster at every size that was timed (kernels/README.md), and needs no compiler."""
CHOICE = "I4D_RASTERISER"


def rasteriser(cuda: bool) -> Backend:
    """What `auto` is: for CUDA tensors what I4D_RASTERISER names, by default our own; cpu for others. Raises UserError for a name
    that is no GPU's rasteriser."""
    if not cuda:
        return "cpu"
    chosen = os.environ.get(CHOICE) or ON_GPU[0]
    if chosen not in ON_GPU:
        raise UserError(f"{CHOICE}={chosen}: a GPU's rasterisers are {' and '.join(ON_GPU)}")
    return chosen


def render(
    gaussians: Gaussians,
    camera: Camera,
    background: Float[Tensor, "B 3"] | None = None,
    backend: Backend = "auto",
    depth: bool = True,
) -> Rendered:
    """Renders B scenes, each from its own camera, over `background` (black by default). Without `depth` gsplat and triton leave
    it out.

    auto: what `rasteriser` says. Raises UserError for an unknown backend, or one that cannot run where the Gaussians are: there is
    no silent change of backend.
    """
    cuda = gaussians.means.is_cuda
    chosen = rasteriser(cuda) if backend == "auto" else backend
    if chosen not in BACKENDS:
        raise UserError(f"there is no render backend {chosen!r}; there are {', '.join(BACKENDS)}")
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    runs = {"gsplat": cuda, "triton": cuda or interpreted, "cpu": not cuda, "reference": True}
    if not runs[chosen]:
        raise UserError(f"the {chosen} backend cannot render Gaussians that are on the {gaussians.means.device.type}")
    if background is None:
        background = gaussians.means.new_zeros(len(gaussians.means), 3)
    return _rasterize(chosen)(gaussians, camera, background, depth)


def _rasterize(backend: Backend) -> Callable[..., Rendered]:
    """Imports one of them. By name, so that a run's identity depends on what draws (`i4d_bench.source`)."""
    if backend == "gsplat":
        from i4d_bench.render.gsplat import rasterize
    elif backend == "triton":
        from i4d_bench.render.triton import rasterize
    elif backend == "cpu":
        from i4d_bench.render.cpu import rasterize
    else:
        from i4d_bench.render.reference import rasterize
    return rasterize
