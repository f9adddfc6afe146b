"""One function renders Gaussians: gsplat or our kernels on a GPU, numba on the CPU, and a dense reference that all must equal."""

from __future__ import annotations

import importlib
import os
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from i4d_bench.render import gsplat
from i4d_bench.types import Camera, Gaussians, Rendered, UserError

Backend = Literal["auto", "gsplat", "triton", "cpu", "reference"]
BACKENDS = get_args(Backend)


def rasteriser(cuda: bool) -> Backend:
    """What `auto` is: for CUDA tensors gsplat where its extension is built or can be, else our own; cpu for others."""
    return ("gsplat" if gsplat.built() else "triton") if cuda else "cpu"


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
    module = importlib.import_module(f"i4d_bench.render.{chosen}")
    return module.rasterize(gaussians, camera, background, depth)
